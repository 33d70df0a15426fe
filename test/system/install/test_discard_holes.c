/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that was given back stays given back, whatever the library does with the rest. The host
 * gets it, and keeps it through touches, write tracking and looks of the collapser. When the guest
 * uses the holes again, their blocks become huge again, and the library reports that correctly.
 */
#include "collapse/blocks.h"
#include "discarding.h"
#include "kernel/sys.h"
#include "region/hgm.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(8 * MIB)
#define PAGES	(LENGTH / PAGE)
#define BLOCK	512 /* pages */
#define BLOCKS	(PAGES / BLOCK)
#define FROM	128 /* the holes of a block are half of it */
#define HOLES	256

static const struct contents contents = { .seed = 227 };
static const struct hgm_sys *kernel;

struct trial {
	enum backing backing;
	char what[100];
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	uint64_t wanted; /* bytes */
};

static void begin(struct trial *t, enum backing backing, enum way way)
{
	memset(t, 0, sizeof(*t));
	t->backing = backing;
	snprintf(t->what, sizeof(t->what), "%s, %s", backing_names[backing], way_names[way]);
	watch(t->what, 100);
	t->provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	t->h = engine(2);
	ram_make(&t->ram, t->h, backing, LENGTH, provider_source(t->provider), 0);
	assert_ok(hgm_start(t->h));
	assert_ok(hgm_wait(t->h, WAIT_MS));
	assert_huge(&t->ram, backing);
	assert_int_equal(held_bytes(&t->ram, backing), LENGTH);
}

static void end(struct trial *t)
{
	assert_int_equal(progress_of(t->h).poisoned_bytes, 0);
	ram_end(&t->ram);
	hgm_destroy(t->h);
	provider_free(t->provider);
	calm();
}

static void give_back_halves(struct trial *t, enum way way)
{
	for (uint64_t block = 0; block < BLOCKS; block++)
		discard_by(way, &t->ram, (block * BLOCK + FROM) * PAGE, HOLES * PAGE);
}

static bool is_hole(uint64_t page)
{
	return page % BLOCK >= FROM && page % BLOCK < FROM + HOLES;
}

/* Checks what the host holds, after the library has had time to change it. */
static void assert_held(const struct trial *t, uint64_t bytes, const char *when)
{
	for (unsigned int i = 0; i < 10; i++) {
		uint64_t held = held_bytes(&t->ram, t->backing);

		if (held != bytes)
			fail_msg("%s, %s: the host holds %llu KiB instead of %llu", t->what, when,
				 (unsigned long long)held >> 10, (unsigned long long)bytes >> 10);
		nap_us(5000);
	}
}

/* The guest continues to use its memory: it reads each page, and writes back what it has read. */
static void run_on(struct trial *t)
{
	for (uint64_t page = 0; page < PAGES; page++) {
		volatile char *at = t->ram.addr + page * PAGE;

		if (!is_hole(page))
			*at = *at;
	}
}

static void track(struct trial *t, uint32_t way)
{
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = way };
	uint64_t bitmap[PAGES / 64];
	struct hgm_dirty *d;

	assert_ok(hgm_dirty_start(&d, t->ram.region, &o));
	run_on(t);
	assert_ok(hgm_dirty_collect(d, 0, PAGES, bitmap, NULL));
	run_on(t);
	hgm_dirty_stop(d);
}

static bool nothing_is_huge(void *arg)
{
	struct trial *t = arg;

	return info_of(t->ram.region).huge_bytes == t->wanted;
}

/* Waits until this much is huge. */
static void wait_for_huge(struct trial *t, uint64_t bytes, const char *when)
{
	t->wanted = bytes;
	if (!eventually(nothing_is_huge, t, 5000))
		fail_msg("%s, %s: huge are %llu KiB instead of %llu", t->what, when,
			 (unsigned long long)info_of(t->ram.region).huge_bytes >> 10,
			 (unsigned long long)bytes >> 10);
}

static void use_holes(struct trial *t)
{
	for (uint64_t page = 0; page < PAGES; page++)
		if (is_hole(page))
			memset(t->ram.addr + page * PAGE, (int)(page % 251 + 1), PAGE);
}

static void assert_used(const struct trial *t)
{
	for (uint64_t page = 0; page < PAGES; page++) {
		const char *at = t->ram.addr + page * PAGE;

		if (!is_hole(page))
			assert_pages(&contents, page, 1, at);
		for (uint64_t i = 0; is_hole(page) && i < PAGE; i++)
			assert_int_equal((uint8_t)at[i], page % 251 + 1);
	}
}

static void given_back(enum backing backing, enum way way)
{
	uint64_t half = LENGTH / BLOCK * (BLOCK - HOLES);
	struct trial t;

	begin(&t, backing, way);
	give_back_halves(&t, way);
	assert_held(&t, half, "after the discard");
	run_on(&t);
	assert_held(&t, half, "after touches");
	wait_for_huge(&t, 0, "after the discard");
	assert_int_equal(huge_in_smaps(t.ram.addr, LENGTH), 0);
	assert_ok(hgm_region_collapse(t.ram.region));
	assert_held(&t, half, "after hgm_region_collapse()");
	track(&t, HGM_DIRTY_SYNC);
	assert_held(&t, half, "after synchronous tracking");
	track(&t, 0);
	assert_held(&t, half, "after asynchronous tracking");
	run_on(&t);
	assert_held(&t, half, "after touches and tracking");

	/* The guest uses one hole of each block. */
	for (uint64_t block = 0; block < BLOCKS; block++)
		t.ram.addr[(block * BLOCK + FROM + 3) * PAGE] = 1;
	assert_held(&t, half + BLOCKS * PAGE, "with a hole used");
	assert_int_equal(info_of(t.ram.region).huge_bytes, 0);

	use_holes(&t);
	assert_huge(&t.ram, backing);
	wait_for_huge(&t, LENGTH, "after the holes were used");
	assert_int_equal(info_of(t.ram.region).left_split, 0);
	assert_used(&t);
	end(&t);
}

static const enum backing backings[] = { BACKING_SHMEM,	      BACKING_SHMEM_LAZY, BACKING_ANON,
					 BACKING_FD,	      BACKING_FD_LAZY,	  BACKING_MAPPING,
					 BACKING_MAPPING_ANON };

static void each(void (*one)(enum backing backing, enum way way))
{
	unsigned int turn = 0;

	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++)
		for (enum way way = 0; way < WAYS; way++)
			if (way_drops(way, backings[i]) && turn_of(&turn, 6))
				one(backings[i], way);
}

static void stays_given_back_until_it_is_used(void **state)
{
	(void)state;
	each(given_back);
}

/* MADV_COLLAPSE calls that reach a block of the memory. */
static struct {
	const char *addr;
	_Atomic unsigned int of[BLOCKS];
} tries;

static int count_tries(void *addr, uint64_t len, int advice)
{
	uint64_t block = (uint64_t)((char *)addr - tries.addr) / (BLOCK * PAGE);

	for (uint64_t i = 0; advice == HGM_MADV_COLLAPSE && i < len / (BLOCK * PAGE); i++)
		if (block + i < BLOCKS)
			atomic_fetch_add(&tries.of[block + i], 1);
	return kernel->madvise(addr, len, advice);
}

static unsigned int tries_of(uint64_t block, uint64_t blocks)
{
	unsigned int sum = 0;

	for (uint64_t i = block; i < block + blocks; i++)
		sum += atomic_load(&tries.of[i]);
	return sum;
}

/* The last block has no holes, and shows that the collapser works. */
#define WITH_HOLES (BLOCKS - 1)

/*
 * The collapser has reached every block and has no block with holes left to do, or has tried one.
 */
static bool all_were_looked_at(void *arg)
{
	const struct trial *t = arg;

	for (uint64_t block = 0; block < BLOCKS; block++)
		if (atomic_load(&t->ram.region->collapse->state[block]) !=
		    (block < WITH_HOLES ? HGM_BLOCK_HOLES : HGM_BLOCK_HUGE))
			return tries_of(0, WITH_HOLES);
	return true;
}

static void assert_left_alone(struct trial *t, const char *when)
{
	uint64_t held = LENGTH - WITH_HOLES * HOLES * PAGE;

	if (!eventually(all_were_looked_at, t, 10000))
		fail_msg("%s, %s: blocks are not looked at", t->what, when);
	if (tries_of(0, WITH_HOLES))
		fail_msg("%s, %s: %u tries at blocks with holes", t->what, when,
			 tries_of(0, WITH_HOLES));
	assert_held(t, held, when);
	assert_int_equal(info_of(t->ram.region).huge_bytes, BLOCK * PAGE);
	assert_int_equal(info_of(t->ram.region).left_split, 0);
}

static int64_t drops(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	(void)user, (void)buf, (void)offset;
	return (int64_t)length;
}

static void take_snapshot(struct trial *t)
{
	struct hgm_snapshot_opts o = { .size = sizeof(o), .write = drops };
	struct hgm_snapshot *s;

	assert_ok(hgm_snapshot_create(&s, t->h, &o));
	assert_ok(hgm_snapshot_begin(s));
	run_on(t);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
}

/* Each look at a block that is left alone for its holes hands it to the collapser again. */
static void a_snapshot_in_between(enum backing backing, enum way way)
{
	unsigned int last;
	uint64_t before;
	struct trial t;

	begin(&t, backing, way);
	memset(&tries.of, 0, sizeof(tries.of));
	tries.addr = t.ram.addr;
	before = stats_of(t.h).collapse_tries;
	for (uint64_t block = 0; block < WITH_HOLES; block++)
		discard_by(way, &t.ram, (block * BLOCK + FROM) * PAGE, HOLES * PAGE);
	assert_left_alone(&t, "after the discard");
	track(&t, 0);
	assert_left_alone(&t, "after asynchronous tracking");
	last = tries_of(WITH_HOLES, 1);
	track(&t, HGM_DIRTY_SYNC);
	assert_left_alone(&t, "after synchronous tracking");
	assert_true(tries_of(WITH_HOLES, 1) > last);
	last = tries_of(WITH_HOLES, 1);
	take_snapshot(&t);
	assert_left_alone(&t, "after a snapshot");
	assert_true(tries_of(WITH_HOLES, 1) > last);
	for (unsigned int look = 0; look < 3; look++) {
		assert_ok(hgm_region_collapse(t.ram.region));
		assert_left_alone(&t, "after hgm_region_collapse()");
	}
	assert_int_equal(stats_of(t.h).collapse_tries - before, tries_of(0, BLOCKS));
	for (uint64_t page = 0; page < PAGES; page++)
		if (is_hole(page) && page < WITH_HOLES * BLOCK)
			assert_zeroes(t.ram.addr + page * PAGE, PAGE, t.what);
		else
			assert_pages(&contents, page, 1, t.ram.addr + page * PAGE);
	end(&t);
}

static void nothing_is_tried_in_vain(void **state)
{
	static const enum backing of[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON };
	static struct hgm_sys counting;
	unsigned int turn = 0;

	(void)state;
	kernel = hgm_sys;
	counting = *kernel;
	counting.madvise = count_tries;
	hgm_sys = &counting;
	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++)
		for (enum way way = 0; way < WAYS; way++)
			if (way_drops(way, of[i]) && turn_of(&turn, 3))
				a_snapshot_in_between(of[i], way);
	hgm_sys = kernel;
}

static void a_whole_block(enum backing backing, enum way way)
{
	struct trial t;

	begin(&t, backing, way);
	for (unsigned int round = 0; round < SMALLER(3, 2); round++) {
		discard_by(way, &t.ram, 2 * MIB, 2 * MIB);
		assert_held(&t, LENGTH - 2 * MIB, "without a block");
		/* No event reports a punched hole. The library finds it when it looks for it. */
		if (way == WAY_PUNCH)
			assert_ok(hgm_region_collapse(t.ram.region));
		wait_for_huge(&t, LENGTH - 2 * MIB, "without a block");
		assert_held(&t, LENGTH - 2 * MIB, "after another look");
		assert_zeroes(t.ram.addr + 2 * MIB, PAGE, t.what);
		memset(t.ram.addr + 2 * MIB, 0x5a, 2 * MIB);
		assert_huge(&t.ram, backing);
		wait_for_huge(&t, LENGTH, "after the block was used");
		assert_int_equal(info_of(t.ram.region).left_split, 0);
	}
	assert_pages(&contents, 0, BLOCK, t.ram.addr);
	assert_pages(&contents, 2 * BLOCK, PAGES - 2 * BLOCK, t.ram.addr + 4 * MIB);
	end(&t);
}

static void a_whole_block_becomes_huge_again(void **state)
{
	(void)state;
	each(a_whole_block);
}

static int no_scan(int fd, const void *from, const void *to, uint64_t category,
		   struct hgm_pm_region *out, uint64_t out_len, uint64_t *walk_end)
{
	(void)fd, (void)from, (void)to, (void)category, (void)out, (void)out_len, (void)walk_end;
	return -ENOTTY;
}

/* Like kernels before 6.4: no UFFDIO_CONTINUE of protected pages, and no later feature. */
static int old_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	const uint64_t later = HGM_UFFD_FEATURE_WP_UNPOPULATED | HGM_UFFD_FEATURE_POISON |
			       HGM_UFFD_FEATURE_WP_ASYNC;
	int rc;

	*features &= ~later;
	rc = kernel->uffd_api(fd, features, ioctls);
	*features &= ~later;
	return rc;
}

/*
 * Smaps reports how much is huge, but not where. Use of holes in write-protected memory goes
 * unnoticed.
 */
static void on_an_old_kernel(void **state)
{
	static struct hgm_sys lesser;
	unsigned int turn = 0;

	(void)state;
	skip_unless(KERNEL_PAGEMAP_SCAN); /* without it the other cases have tested this */
	kernel = hgm_sys;
	lesser = *kernel;
	lesser.pagemap_scan = no_scan;
	lesser.uffd_api = old_api;
	hgm_sys = &lesser;
	for (enum way way = 0; way < WAYS; way++)
		if (way_drops(way, BACKING_FD) && turn_of(&turn, 3))
			a_whole_block(BACKING_FD, way);
	if (turn_of(&turn, 3))
		given_back(BACKING_SHMEM, WAY_CALL);
	hgm_sys = kernel;
}

/*
 * The holes are filled through the file, unnoticed by the library. It looks when it is asked to.
 */
static void looks_again_when_asked(void **state)
{
	char page[PAGE];

	(void)state;
	memset(page, 0x33, sizeof(page));
	for (size_t i = 0; i < 2; i++) {
		enum backing backing = i ? BACKING_FD_LAZY : BACKING_FD;
		struct trial t;

		begin(&t, backing, WAY_CALL);
		give_back_halves(&t, WAY_CALL);
		wait_for_huge(&t, 0, "after the discard");
		for (uint64_t p = 0; p < PAGES; p++)
			if (is_hole(p))
				assert_int_equal(pwrite(t.ram.fd, page, PAGE, (off_t)(p * PAGE)),
						 PAGE);
		nap_us(50000);
		assert_int_equal(info_of(t.ram.region).huge_bytes, 0);
		assert_ok(hgm_region_collapse(t.ram.region));
		assert_huge(&t.ram, backing);
		wait_for_huge(&t, LENGTH, "after another look");
		assert_int_equal(t.ram.addr[(FROM + 1) * PAGE], 0x33);
		end(&t);
	}
}

/* Whole blocks of hugetlb are never collapsed, and the count is correct. */
static void huge_pages_of_the_pool(void **state)
{
	struct trial t;

	(void)state;
	if (backing_lacking(BACKING_FD_HUGETLB_2M, LENGTH))
		test_skip("%s", backing_lacking(BACKING_FD_HUGETLB_2M, LENGTH));
	for (enum way way = 0; way < WAYS; way++) {
		if (!way_drops(way, BACKING_FD_HUGETLB_2M))
			continue;
		memset(&t, 0, sizeof(t));
		t.backing = BACKING_FD_HUGETLB_2M;
		snprintf(t.what, sizeof(t.what), "%s, %s", backing_names[t.backing],
			 way_names[way]);
		watch(t.what, 60);
		t.provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
		t.h = engine(2);
		ram_make(&t.ram, t.h, t.backing, LENGTH, provider_source(t.provider), 0);
		assert_ok(hgm_start(t.h));
		assert_ok(hgm_wait(t.h, WAIT_MS));
		wait_for_huge(&t, LENGTH, "when it had come");
		discard_by(way, &t.ram, 2 * MIB, 2 * MIB);
		assert_held(&t, LENGTH - 2 * MIB, "without a block");
		if (way != WAY_PUNCH)
			wait_for_huge(&t, LENGTH - 2 * MIB, "without a block");
		assert_zeroes(t.ram.addr + 2 * MIB, 2 * MIB, t.what);
		t.ram.addr[3 * MIB] = 1;
		wait_for_huge(&t, LENGTH, "after the block was used");
		assert_held(&t, LENGTH, "after the block was used");
		end(&t);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(stays_given_back_until_it_is_used),
	cmocka_unit_test(nothing_is_tried_in_vain),
	cmocka_unit_test(a_whole_block_becomes_huge_again),
	cmocka_unit_test(on_an_old_kernel),
	cmocka_unit_test(looks_again_when_asked),
	cmocka_unit_test(huge_pages_of_the_pool),
};

TEST_MAIN(tests)
