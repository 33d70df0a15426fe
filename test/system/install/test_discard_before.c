/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that is discarded before it has arrived, in every way and of every kind. It reads as zero,
 * what the guest writes to it stays, and the source is never asked for it.
 */
#include "discarding.h"

#include "kernel/sys.h"

#include <sys/mman.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(6 * MIB)
#define PAGES	(LENGTH / PAGE)

static const struct contents contents = { .seed = 211 };

struct trial {
	enum backing backing;
	enum way way;
	bool alone; /* only one thread reads events, and it serves no fault meanwhile */
	char what[100];
	struct ledger ledger;
	struct hgm *h;
	struct ram ram;
};

/* False: this machine lacks that kind of memory. */
static bool begin(struct trial *t, enum backing backing, enum way way, uint32_t flags)
{
	if (backing_lacking(backing, LENGTH))
		return false;
	t->backing = backing;
	t->way = way;
	t->alone = false;
	snprintf(t->what, sizeof(t->what), "%s, %s", backing_names[backing], way_names[way]);
	watch(t->what, 60);
	ledger_make(&t->ledger, &contents, LENGTH);
	t->h = engine(2);
	ram_make(&t->ram, t->h, backing, LENGTH, t->ledger.source, flags);
	return true;
}

static void end(struct trial *t)
{
	ram_end(&t->ram);
	hgm_destroy(t->h);
	ledger_free(&t->ledger);
	calm();
}

static void write_page(char *at)
{
	memset(at, 0x5a, PAGE);
}

static void assert_written(const struct trial *t, const char *at)
{
	for (uint64_t i = 0; i < PAGE; i++)
		if (at[i] != 0x5a)
			fail_msg("%s: the guest's write is lost: byte %llu is %#x", t->what,
				 (unsigned long long)i, (unsigned int)(uint8_t)at[i]);
}

/* Pages [first, first + pages) are discarded. This writes to the second and to the last of them. */
static void check(struct trial *t, uint64_t first, uint64_t pages)
{
	char *hole = t->ram.addr + first * PAGE;

	assert_written(t, hole + PAGE);
	assert_written(t, hole + (pages - 1) * PAGE);
	assert_zeroes(hole, PAGE, t->what);
	assert_zeroes(hole + 2 * PAGE, (pages - 3) * PAGE, t->what);
	assert_pages(&contents, 0, first, t->ram.addr);
	assert_pages(&contents, first + pages, PAGES - first - pages, hole + pages * PAGE);
	/* While fault threads run, one may serve a touch before another has handled the event. */
	if (t->way == WAY_CALL || t->alone)
		assert_not_asked(&t->ledger, first, pages, t->what);
	assert_int_equal(progress_of(t->h).poisoned_bytes, 0);
	assert_int_equal(progress_of(t->h).last_error, 0);
}

/* Discards by the only thread that exists. No other thread reads the event. */
static void before_start(enum backing backing, enum way way, uint64_t first, uint64_t pages)
{
	struct trial t;
	char *hole;

	if (!begin(&t, backing, way, 0))
		return;
	hole = t.ram.addr + first * PAGE;
	t.alone = true;
	discard_by(way, &t.ram, first * PAGE, pages * PAGE);
	assert_ok(hgm_start(t.h));
	write_page(hole + PAGE);
	write_page(hole + (pages - 1) * PAGE);
	assert_ok(hgm_wait(t.h, WAIT_MS));
	check(&t, first, pages);
	assert_int_equal(info_of(t.ram.region).present_bytes, LENGTH);
	end(&t);
}

/* Discards while the engine runs. What is written before anything else arrives stays. */
static void while_running(enum backing backing, enum way way, uint64_t first, uint64_t pages)
{
	struct trial t;
	char *hole;

	if (!begin(&t, backing, way, HGM_REGION_NO_FILL))
		return;
	hole = t.ram.addr + first * PAGE;
	assert_ok(hgm_start(t.h));
	discard_by(way, &t.ram, first * PAGE, pages * PAGE);
	write_page(hole + PAGE);
	write_page(hole + (pages - 1) * PAGE);
	assert_ok(hgm_region_prefetch(t.ram.region, 0, LENGTH));
	assert_ok(hgm_wait(t.h, WAIT_MS));
	check(&t, first, pages);
	end(&t);
}

static void each(void (*one)(enum backing, enum way, uint64_t, uint64_t))
{
	static const uint64_t ranges[][2] = {
		{ 512, 512 }, /* a block */
		{ 300, 8 },
		{ 500, 600 }, /* across one block border, and nearly across another */
	};
	unsigned int turn = 0;

	for (enum backing backing = 0; backing < BACKINGS; backing++) {
		for (enum way way = 0; way < WAYS; way++) {
			if (backing == BACKING_HUGETLB_1G || !way_shows(way, backing))
				continue;
			for (size_t i = 0; i < (backing >= BACKINGS_SMALL ? 1 : 3); i++)
				if (turn_of(&turn, 7))
					one(backing, way, ranges[i][0], ranges[i][1]);
		}
	}
}

static void before_the_engine_starts(void **state)
{
	(void)state;
	each(before_start);
}

static void before_it_arrives(void **state)
{
	(void)state;
	each(while_running);
}

/* MADV_DONTNEED of a file drops only page table entries. */
static void dontneed_of_a_file_is_no_discard(void **state)
{
	(void)state;
	for (enum backing backing = 0; backing < BACKINGS; backing++) {
		struct trial t;

		/* For a lazy file that others change at the same time the two look the same. */
		if (backing == BACKING_HUGETLB_1G || backing == BACKING_FD_LAZY ||
		    backing == BACKING_MAPPING_LAZY || way_drops(WAY_DONTNEED, backing) ||
		    !begin(&t, backing, WAY_DONTNEED, 0))
			continue;
		discard_by(WAY_DONTNEED, &t.ram, 0, 2 * MIB);
		assert_ok(hgm_start(t.h));
		discard_by(WAY_DONTNEED, &t.ram, 2 * MIB, 2 * MIB);
		assert_pages(&contents, 700, 1, t.ram.addr + 700 * PAGE);
		assert_ok(hgm_wait(t.h, WAIT_MS));
		discard_by(WAY_DONTNEED, &t.ram, 0, LENGTH);
		assert_pages(&contents, 0, PAGES, t.ram.addr);
		end(&t);
	}
}

static void all_of_it(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON,
						 BACKING_HUGETLB_2M };
	struct trial t;

	(void)state;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		if (!begin(&t, backings[i], WAY_CALL, 0))
			continue;
		discard_by(WAY_CALL, &t.ram, 0, LENGTH);
		assert_ok(hgm_start(t.h));
		assert_ok(hgm_wait(t.h, WAIT_MS)); /* nothing is left to fetch */
		assert_zeroes(t.ram.addr, LENGTH, t.what);
		assert_not_asked(&t.ledger, 0, PAGES, t.what);
		assert_int_equal(info_of(t.ram.region).present_bytes, LENGTH);
		end(&t);
	}
}

/*
 * A hole that no event reported, and MADV_DONTNEED beside it. MADV_DONTNEED drops nothing of a
 * file, so pages that have not arrived are fetched, even if the hole is touched a moment later.
 */
static void a_hole_says_nothing_of_others(void **state)
{
	static const enum backing backings[] = { BACKING_FD, BACKING_MAPPING };

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct trial t = { .backing = backings[i / 2] };

		assert_true(begin(&t, backings[i / 2], WAY_PUNCH, HGM_REGION_NO_FILL));
		assert_ok(hgm_start(t.h));
		discard_by(WAY_PUNCH, &t.ram, 104 * PAGE, PAGE);
		nap_us(50000); /* ticks of the file's clock */
		assert_int_equal(madvise(t.ram.addr + 100 * PAGE, 8 * PAGE, MADV_DONTNEED), 0);
		if (i % 2)
			assert_zeroes(t.ram.addr + 104 * PAGE, PAGE, t.what);
		assert_pages(&contents, 100, 4, t.ram.addr + 100 * PAGE);
		assert_zeroes(t.ram.addr + 104 * PAGE, PAGE, t.what);
		assert_pages(&contents, 105, 3, t.ram.addr + 105 * PAGE);
		end(&t);
	}
}

static const struct hgm_sys *kernel;
static _Atomic uint64_t swapped_out;

/* For files: this call reports everything as swapped out. */
static int mincore_of_swapped(const void *addr, uint64_t len, unsigned char *resident)
{
	int rc = kernel->mincore(addr, len, resident);

	memset(resident, 0, len / PAGE);
	atomic_fetch_add(&swapped_out, len / PAGE);
	return rc;
}

/* A prepared page that has not arrived and is swapped out looks like a hole, but is none. */
static void swapped_out_is_no_hole(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_FD, BACKING_MAPPING };
	struct hgm_sys sys;

	(void)state;
	kernel = hgm_sys;
	sys = *kernel;
	sys.mincore = mincore_of_swapped;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		struct trial t = { .backing = backings[i] };

		hgm_sys = &sys;
		atomic_store(&swapped_out, 0);
		assert_true(begin(&t, backings[i], WAY_CALL, 0));
		assert_ok(hgm_region_discard(t.ram.region, MIB, 3 * PAGE));
		assert_ok(hgm_start(t.h));
		assert_pages(&contents, 0, 1, t.ram.addr);
		assert_ok(hgm_wait(t.h, WAIT_MS));
		assert_true(atomic_load(&swapped_out));
		assert_pages(&contents, 0, MIB / PAGE, t.ram.addr);
		assert_zeroes(t.ram.addr + MIB, 3 * PAGE, t.what);
		assert_pages(&contents, MIB / PAGE + 3, PAGES - MIB / PAGE - 3,
			     t.ram.addr + MIB + 3 * PAGE);
		end(&t);
		hgm_sys = kernel;
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(before_the_engine_starts),
	cmocka_unit_test(before_it_arrives),
	cmocka_unit_test(dontneed_of_a_file_is_no_discard),
	cmocka_unit_test(all_of_it),
	cmocka_unit_test(swapped_out_is_no_hole),
	cmocka_unit_test(a_hole_says_nothing_of_others),
};

TEST_MAIN(tests)
