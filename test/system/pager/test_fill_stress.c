/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fill whose blocks are mapped by their collapse, with everything that can happen to it at once:
 * threads that read and write, a collapse that fails now and then, memory that is unmapped and
 * discarded, wp owners that come and go, and an early end. Every byte is right.
 */
#include "collapsing.h"
#include "snapshotting.h"
#include "random.h"

#include <errno.h>
#include <sys/mman.h>

#define WAIT_MS	    SMALLER(20000, 100000)
#define BLOCKS	    SMALLER(8, 4)
#define LENGTH	    (BLOCKS * 2 * MIB + 100 * PAGE)
#define BLOCK_PAGES 512
#define TOUCHERS    3
#define ROUNDS	    SMALLER(12, 6)
#define STEPS	    SMALLER(40, 12)

static const struct contents contents = { .seed = 124, .holes = true };

struct scene {
	struct random random;
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	struct sink sink;
	uint64_t *discarded; /* bitmap of the last whole block */
};

static void dirty(struct scene *s)
{
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = HGM_DIRTY_SYNC };
	uint64_t pages = s->ram.length / PAGE;
	uint64_t *bitmap = calloc(pages / 64 + 1, sizeof(*bitmap));
	struct hgm_dirty *d;

	if (random_one_in(&s->random, 2))
		o.flags = 0;
	assert_ok(hgm_dirty_start(&d, s->ram.region, &o));
	nap_us((unsigned int)random_below(&s->random, 2000));
	assert_ok(hgm_dirty_collect(d, 0, pages, bitmap, NULL));
	hgm_dirty_stop(d);
	free(bitmap);
}

static void protect(struct scene *s)
{
	uint64_t first = random_below(&s->random, s->ram.length / PAGE);
	uint64_t pages = 1 + random_below(&s->random, s->ram.length / PAGE - first);

	assert_ok(hgm_region_watch(s->ram.region, NULL));
	assert_ok(hgm_region_protect(s->ram.region, first * PAGE, pages * PAGE, 0, NULL));
	nap_us((unsigned int)random_below(&s->random, 2000));
	assert_ok(hgm_region_unwatch(s->ram.region));
}

/* The touchers continue to write, so the contents of the snapshot are not checked here. */
static void snapshot(struct scene *s)
{
	struct hgm_snapshot *snapshot;

	snapshot = snapshot_of(s->h, &(struct hgm_snapshot_opts){ .write = sink_write,
								  .user = &s->sink });
	nap_us((unsigned int)random_below(&s->random, 1000));
	assert_ok(hgm_snapshot_begin(snapshot));
	if (random_one_in(&s->random, 2))
		assert_ok(hgm_snapshot_wait(snapshot, WAIT_MS));
	hgm_snapshot_destroy(snapshot);
}

/* The pages are still present, and are mapped again. */
static void unmap(struct scene *s)
{
	uint64_t first = random_below(&s->random, s->ram.length / PAGE);
	uint64_t pages = 1 + random_below(&s->random, s->ram.length / PAGE - first);

	assert_int_equal(madvise(s->ram.addr + first * PAGE, pages * PAGE, MADV_DONTNEED), 0);
}

/* Discards pages of the last whole block, which no other thread uses. They are zero then. */
static void discard(struct scene *s)
{
	uint64_t first = (BLOCKS - 1) * BLOCK_PAGES;
	uint64_t page = random_below(&s->random, BLOCK_PAGES);
	uint64_t pages = 1 + random_below(&s->random, 8), there[BLOCK_PAGES / 64];

	if (page + pages > BLOCK_PAGES)
		pages = BLOCK_PAGES - page;
	assert_ok(hgm_region_export(s->ram.region, first, BLOCK_PAGES, there));
	for (uint64_t p = page; p < page + pages; p++) {
		char *at = s->ram.addr + (first + p) * PAGE;

		if (!(there[p / 64] >> p % 64 & 1))
			continue;
		assert_int_equal(madvise(at, PAGE, MADV_REMOVE), 0);
		s->discarded[p / 64] |= UINT64_C(1) << p % 64;
		if (random_one_in(&s->random, 2))
			assert_int_equal(*(volatile char *)at, 0);
	}
}

static void disturb(struct scene *s)
{
	static void (*const blows[])(struct scene *) = { dirty, protect, snapshot,
							 unmap, unmap,	 discard };

	blows[random_below(&s->random, 6)](s);
	collapsing_refuse(random_next(&s->random), random_one_in(&s->random, 2) ? -EAGAIN : -EINVAL,
			  2);
	nap_us((unsigned int)random_below(&s->random, 300));
}

static void assert_discarded_or_right(const struct scene *s)
{
	uint64_t first = (BLOCKS - 1) * BLOCK_PAGES;

	for (uint64_t p = 0; p < BLOCK_PAGES; p++) {
		const char *at = s->ram.addr + (first + p) * PAGE;

		if (!(s->discarded[p / 64] >> p % 64 & 1))
			assert_pages(&contents, first + p, 1, at);
		for (uint64_t i = 0; s->discarded[p / 64] >> p % 64 & 1 && i < PAGE; i++)
			if (at[i])
				fail_msg("discarded page %llu is not zero",
					 (unsigned long long)(first + p));
	}
}

static void one_life(enum backing backing, enum provider_kind kind, bool whole)
{
	uint64_t discarded[BLOCK_PAGES / 64] = { 0 };
	struct scene s = { .random = { .state = random_seed() }, .discarded = discarded };
	struct plan plan = { .contents = &contents,
			     .pages = (BLOCKS - 1) * BLOCK_PAGES,
			     .write = true };
	_Atomic bool stop = false;
	struct touchers touchers;
	unsigned int steps = STEPS;

	s.provider = provider_make(kind, &contents, LENGTH);
	s.h = engine_with((struct hgm_opts){ .fault_threads = 2, .fill_window_bytes = MIB / 2 });
	sink_clear(&s.sink, LENGTH);
	ram_make(&s.ram, s.h, backing, LENGTH, provider_source(s.provider), 0);
	collapsing_watch(&s.ram);
	plan.addr = s.ram.addr;
	plan.stop = &stop;
	assert_ok(hgm_start(s.h));
	if (random_one_in(&s.random, 3)) /* fill alone for a while */
		nap_us((unsigned int)random_below(&s.random, 3000));
	touchers_start(&touchers, TOUCHERS, &plan);
	if (!whole)
		steps = (unsigned int)random_below(&s.random, 4);
	for (unsigned int i = 0; i < steps; i++)
		disturb(&s);
	atomic_store(&stop, true);
	touchers_join(&touchers);
	if (whole) {
		collapsing_refuse(0, 0, 1);
		assert_ok(hgm_wait(s.h, WAIT_MS));
		assert_pages(&contents, 0, plan.pages, s.ram.addr);
		assert_discarded_or_right(&s);
		assert_pages(&contents, BLOCKS * BLOCK_PAGES, LENGTH / PAGE - BLOCKS * BLOCK_PAGES,
			     s.ram.addr + BLOCKS * 2 * MIB);
		assert_int_equal(info_of(s.ram.region).poisoned_bytes, 0);
	}
	ram_end(&s.ram);
	hgm_destroy(s.h);
	provider_free(s.provider);
	free(s.sink.got);
}

static void lives(bool whole)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_FD, BACKING_MAPPING };
	static const enum provider_kind kinds[] = { PROVIDER_BLOCKING, PROVIDER_LATER,
						    PROVIDER_SHORT, PROVIDER_MEMORY };

	for (unsigned int i = 0; i < ROUNDS; i++)
		one_life(backings[i % 3], kinds[i % 4], whole);
}

static void all_is_right(void **state)
{
	(void)state;
	lives(true);
}

static void ends_in_the_midst(void **state)
{
	(void)state;
	lives(false);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, collapsing_set_up, collapsing_tear_down)

static const struct CMUnitTest tests[] = {
	CASE(all_is_right),
	CASE(ends_in_the_midst),
};

TEST_MAIN(tests)
