/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MADV_COLLAPSE whose result is not what it did. A block counts as huge only if it is huge. The
 * collapse is retried while it is not. In the end the block is reported as left split.
 */
#include "collapse/blocks.h"
#include "native.h"

#include <errno.h>
#include <sys/mman.h>

#define LENGTH (8 * MIB)
#define BLOCKS (LENGTH / LEAF)
#define ALWAYS 1000000

static struct {
	char *addr; /* of the memory with false results; NULL: none */
	uint64_t length;
	int rc;
	bool does_it;
	uint32_t times; /* for each block */
	_Atomic uint32_t told[16];
} lie;

static int lying_madvise(void *addr, uint64_t len, int advice)
{
	uint64_t at = (uint64_t)((char *)addr - lie.addr);

	if (advice != HGM_MADV_COLLAPSE || !lie.addr || at >= lie.length ||
	    atomic_fetch_add(&lie.told[at / LEAF], 1) >= lie.times)
		return model_kernel->madvise(addr, len, advice);
	if (lie.does_it)
		model_kernel->madvise(addr, len, advice);
	return lie.rc;
}

static void lie_about(char *addr, uint64_t length, int rc, bool does_it, uint32_t times)
{
	memset(&lie, 0, sizeof(lie));
	lie.length = length;
	lie.rc = rc;
	lie.does_it = does_it;
	lie.times = times;
	lie.addr = addr;
	meddling.madvise = lying_madvise;
}

/* Touch each block, so that fill alone does not make it huge. */
static void touch_and_fetch(struct native *n)
{
	uint8_t value;

	assert_ok(hgm_start(n->h));
	for (uint64_t at = 0; at < n->length; at += LEAF)
		assert_int_equal(touch(n->addr + at + 5 * PAGE, &value), 0);
	fetch(n, 0, n->length / PAGE);
}

static void lies_for_a_while(void **state)
{
	static const int codes[] = { 0, -EINVAL, -EBUSY, -EAGAIN };
	struct native n;

	(void)state;
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		native_make(&n, LEAF, LENGTH, PROVIDER_NOW, HGM_REGION_NO_FILL);
		lie_about(n.addr, LENGTH, codes[i], false, 3);
		touch_and_fetch(&n);
		assert_int_equal(info_of(n.r).huge_bytes, LENGTH);
		assert_int_equal(info_of(n.r).left_split, 0);
		assert_int_equal(stats_of(n.h).collapsed_blocks, BLOCKS);
		assert_true(stats_of(n.h).collapse_unproved >= 3);
		assert_true(stats_of(n.h).collapse_retries >= 3);
		assert_all_huge(&n);
		native_free(&n);
		lie.addr = NULL;
	}
}

static void lies_for_ever(void **state)
{
	static const int codes[] = { 0, -EINVAL };
	struct native n;

	(void)state;
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		native_make(&n, LEAF, LENGTH, PROVIDER_NOW, HGM_REGION_NO_FILL);
		lie_about(n.addr, LENGTH, codes[i], false, ALWAYS);
		touch_and_fetch(&n);
		assert_int_equal(leaves_of(&n).pmd, 0);
		assert_int_equal(info_of(n.r).huge_bytes, 0);
		assert_int_equal(info_of(n.r).left_split, BLOCKS);
		assert_int_equal(stats_of(n.h).collapsed_blocks, 0);
		assert_int_equal(atomic_load(&n.r->last_collapse_error), -EAGAIN);
		assert_uint_in_range(lie.told[0], HGM_COLLAPSE_TRIES, HGM_COLLAPSE_TRIES);
		assert_pages(&native_contents, 0, LENGTH / PAGE, n.addr);
		assert_ok(hgm_wait(n.h, WAIT_MS));
		native_free(&n);
		lie.addr = NULL;
	}
}

/* Lies about two of four blocks: two are counted as huge, and two as left split. */
static void lies_about_some(void **state)
{
	struct native n;

	(void)state;
	native_make(&n, LEAF, LENGTH, PROVIDER_NOW, HGM_REGION_NO_FILL);
	lie_about(n.addr + LEAF, 2 * LEAF, 0, false, ALWAYS);
	touch_and_fetch(&n);
	assert_int_equal(leaves_of(&n).pmd, LENGTH - 2 * LEAF);
	assert_int_equal(info_of(n.r).huge_bytes, LENGTH - 2 * LEAF);
	assert_int_equal(info_of(n.r).left_split, 2);
	assert_pages(&native_contents, 0, LENGTH / PAGE, n.addr);
	native_free(&n);
}

/* The call returns an error although it succeeded. */
static void done_but_denied(void **state)
{
	struct native n;

	(void)state;
	native_make(&n, LEAF, LENGTH, PROVIDER_NOW, HGM_REGION_NO_FILL);
	lie_about(n.addr, LENGTH, -EINVAL, true, ALWAYS);
	touch_and_fetch(&n);
	assert_int_equal(info_of(n.r).huge_bytes, LENGTH);
	assert_int_equal(info_of(n.r).left_split, 0);
	assert_int_equal(stats_of(n.h).collapse_retries, 0);
	assert_all_huge(&n);
	native_free(&n);
}

/*
 * smaps has one count for the whole region. When it is about to be read for a block that is not
 * huge, another block is mapped as a whole, which must not be mistaken for the first.
 */
static struct native *late;
static _Atomic int late_state; /* 1: armed */

static int late_open(const char *path, int flags)
{
	int armed = 1;

	if (!strcmp(path, "/proc/self/smaps") &&
	    atomic_compare_exchange_strong(&late_state, &armed, 2)) {
		uint64_t end = now_us() + 5000000;

		hgm_region_prefetch(late->r, LEAF, LEAF);
		while (leaves_of(late).pmd < LEAF && now_us() < end)
			nap_us(200);
	}
	return model_kernel->open(path, flags);
}

static void another_block_is_not_taken_for_it(void **state)
{
	struct native n;
	uint8_t value;

	(void)state;
	native_make(&n, LEAF, LENGTH, PROVIDER_NOW, HGM_REGION_NO_FILL);
	lie_about(n.addr, LEAF, 0, false, ALWAYS);
	late = &n;
	meddling.open = late_open;
	atomic_store(&late_state, 1);
	assert_ok(hgm_start(n.h));
	assert_int_equal(touch(n.addr, &value), 0);
	fetch(&n, 0, LEAF / PAGE);
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_int_equal(atomic_load(&late_state), 2);
	assert_int_equal(leaves_of(&n).pmd, LEAF);
	assert_int_equal(info_of(n.r).huge_bytes, LEAF);
	assert_int_equal(info_of(n.r).left_split, 1);
	assert_int_equal(atomic_load(&n.r->collapse->state[0]), HGM_BLOCK_LEFT_SPLIT);
	assert_int_equal(atomic_load(&n.r->collapse->state[1]), HGM_BLOCK_HUGE);
	native_free(&n);
}

/* Without PAGEMAP_SCAN, memory that is not hugetlb is verified in the same way. */
static void other_memory(enum backing backing, bool for_ever)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &native_contents, LENGTH);
	struct hgm *h = engine(1);
	struct ram ram;

	ram_make(&ram, h, backing, LENGTH, provider_source(provider), 0);
	lie_about(ram.addr, LENGTH, 0, false, for_ever ? ALWAYS : 3);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_int_equal(huge_in_smaps(ram.addr, LENGTH), for_ever ? 0 : LENGTH);
	assert_int_equal(info_of(ram.region).huge_bytes, for_ever ? 0 : LENGTH);
	assert_int_equal(info_of(ram.region).left_split, for_ever ? BLOCKS : 0);
	assert_true(stats_of(h).collapse_unproved >= 3);
	assert_pages(&native_contents, 0, LENGTH / PAGE, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

static void other_memory_for_a_while(void **state)
{
	(void)state;
	other_memory(BACKING_SHMEM, false);
	other_memory(BACKING_ANON, false);
}

static void other_memory_for_ever(void **state)
{
	(void)state;
	other_memory(BACKING_SHMEM, true);
	other_memory(BACKING_ANON, true);
}

/* Two adjacent regions are one VMA. smaps does not show them apart. */
static void neighbours_of_one_area(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &native_contents, 2 * LENGTH);
	struct hgm *h = engine(1);
	struct hgm_region_opts o = { .size = sizeof(o),
				     .length = LENGTH,
				     .backing = HGM_BACKING_MAPPING,
				     .source = provider_source(provider),
				     .fd = -1 };
	struct hgm_region *r[2];
	uint64_t room = 2 * LENGTH + LEAF;
	void *raw;
	char *at;

	(void)state;
	assert_ok(hgm_sys->mmap(&raw, NULL, room, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	at = (char *)(((uintptr_t)raw + LEAF - 1) & ~(uintptr_t)(LEAF - 1));
	for (int i = 0; i < 2; i++) {
		o.addr = at + i * LENGTH;
		o.source_offset = i * LENGTH;
		assert_ok(hgm_region_create(&r[i], h, &o));
	}
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(info_of(r[i]).left_split, 0);
		assert_int_equal(info_of(r[i]).huge_bytes, LENGTH);
	}
	assert_true(huge_in_smaps(at, 2 * LENGTH) >= 2 * LENGTH);
	assert_pages(&native_contents, 0, 2 * LENGTH / PAGE, at);
	hgm_destroy(h);
	hgm_sys->munmap(raw, room);
	provider_free(provider);
}

static int on_stock_6_1(void **state)
{
	(void)state;
	native_begin_named("stock-6.1");
	return 0;
}

#define ON_6_1(fn)                                            \
	{                                                     \
#fn "@stock-6.1", fn, on_stock_6_1, off, NULL \
	}

static const struct CMUnitTest tests[] = {
	ON_BOTH(lies_for_a_while),
	ON_BOTH(lies_for_ever),
	ON_BOTH(lies_about_some),
	ON_BOTH(done_but_denied),
	ON_BOTH(another_block_is_not_taken_for_it),
	ON_6_1(other_memory_for_a_while),
	ON_6_1(other_memory_for_ever),
	ON_6_1(neighbours_of_one_area),
};

TEST_MAIN(tests)
