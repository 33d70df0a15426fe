/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How native regions are mapped: with which leaves, and by which order of calls.
 */
#include "native.h"

#include <errno.h>

#define LENGTH (16 * MIB)

static void assert_leaves(const struct native *n, uint64_t pud, uint64_t pmd, uint64_t pte)
{
	struct model_leaves l = leaves_of(n);

	if (l.pud != pud || l.pmd != pmd || l.pte != pte)
		fail_msg("pud %llu, pmd %llu, pte %llu kB instead of %llu, %llu, %llu",
			 (unsigned long long)l.pud >> 10, (unsigned long long)l.pmd >> 10,
			 (unsigned long long)l.pte >> 10, (unsigned long long)pud >> 10,
			 (unsigned long long)pmd >> 10, (unsigned long long)pte >> 10);
}

/* Every CONTINUE was of whole leaves, so that there never was a 4 KiB table. */
static void assert_only_leaves_asked(const struct native *n, unsigned int count)
{
	unsigned int leaves = 0;

	for (unsigned int i = 0; i < records(); i++) {
		struct record r = record_at(i);

		if (r.call != CALL_CONTINUE || r.addr - (uintptr_t)n->addr >= n->length)
			continue;
		if (r.rc) /* two threads saw the leaf full: EEXIST for the second */
			continue;
		if (r.len % LEAF || r.addr % LEAF)
			fail_msg("CONTINUE of %llu kB", (unsigned long long)r.len >> 10);
		leaves += r.len == LEAF;
	}
	assert_true(leaves >= count);
	assert_int_equal(leaves_of(n).tables_4k, 0);
}

static void fill_makes_large_leaves(void **state)
{
	static const enum provider_kind kinds[] = { PROVIDER_MEMORY, PROVIDER_NOW, PROVIDER_LATER,
						    PROVIDER_SHORT };
	struct native n;

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(kinds) / sizeof(kinds[0]); i++) {
		bool defer = i % 2;

		native_make(&n, LEAF, LENGTH, kinds[i / 2], defer ? HGM_REGION_DEFER_COLLAPSE : 0);
		assert_leaves(&n, 0, 0, 0);
		assert_ok(hgm_start(n.h));
		assert_ok(hgm_wait(n.h, WAIT_MS));
		assert_leaves(&n, 0, LENGTH, 0);
		assert_only_leaves_asked(&n, LENGTH / LEAF);
		assert_int_equal(info_of(n.r).huge_bytes, defer ? 0 : LENGTH);
		assert_int_equal(stats_of(n.h).faults, 0);
		assert_pages(&native_contents, 0, LENGTH / PAGE, n.addr);
		native_free(&n);
	}
}

static void fill_makes_large_leaves_of_1g(void **state)
{
	struct native n;

	(void)state;
	native_make(&n, GIB, GIB, PROVIDER_NOW, HGM_REGION_DEFER_COLLAPSE);
	assert_ok(hgm_start(n.h));
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_leaves(&n, 0, GIB, 0);
	assert_only_leaves_asked(&n, 512);
	assert_ok(hgm_region_collapse(n.r));
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_leaves(&n, GIB, 0, 0);
	assert_int_equal(info_of(n.r).huge_bytes, GIB);
	native_free(&n);
}

/* A fault maps exactly its page, and those of its neighbours that have arrived already. */
static void demand_maps_what_it_must(void **state)
{
	static const uint64_t pages[] = { 0, 1, 77, 511, 512, 1029 };
	struct native n;
	uint8_t value;

	(void)state;
	native_make(&n, LEAF, LENGTH, PROVIDER_NOW, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(n.h));
	for (uint64_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		assert_int_equal(touch(n.addr + pages[i] * PAGE + 123, &value), 0);
		assert_leaves(&n, 0, 0, (i + 1) * PAGE);
		assert_true(page_mapped(n.addr + pages[i] * PAGE));
	}
	assert_int_equal(info_of(n.r).present_bytes, 6 * PAGE);
	fetch(&n, 128, 64);  /* in a leaf that was touched */
	fetch(&n, 1664, 64); /* in one that was not */
	assert_leaves(&n, 0, 0, 6 * PAGE);
	assert_int_equal(info_of(n.r).present_bytes, 134 * PAGE);
	assert_int_equal(touch(n.addr + 134 * PAGE, &value), 0);
	assert_leaves(&n, 0, 0, (6 + 16) * PAGE); /* 128 to 143: the fault-around window is 16 */
	assert_true(page_mapped(n.addr + 128 * PAGE));
	assert_true(page_mapped(n.addr + 143 * PAGE));
	assert_false(page_mapped(n.addr + 144 * PAGE));
	assert_int_equal(touch(n.addr + 1727 * PAGE, &value), 0);
	assert_leaves(&n, 0, 0, (6 + 16 + 16) * PAGE);
	native_free(&n);
}

/* A touched page of a 1 GiB block splits only its own 2 MiB. The collapse repairs that. */
static void a_touched_leaf(uint64_t block)
{
	uint64_t length = block == GIB ? GIB : LENGTH;
	struct native n;
	uint8_t value;

	native_make(&n, block, length, PROVIDER_NOW,
		    HGM_REGION_NO_FILL | HGM_REGION_DEFER_COLLAPSE);
	assert_ok(hgm_start(n.h));
	assert_int_equal(touch(n.addr + 700 * PAGE, &value), 0);
	fetch(&n, 0, length / PAGE);
	assert_leaves(&n, 0, length - LEAF, LEAF);
	assert_int_equal(leaves_of(&n).tables_4k, 1);
	assert_int_equal(calls_in(CALL_COLLAPSE, n.addr, length), 0);
	assert_ok(hgm_region_collapse(n.r));
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_leaves(&n, block == GIB ? GIB : 0, block == GIB ? 0 : length, 0);
	assert_int_equal(info_of(n.r).huge_bytes, length);
	assert_pages(&native_contents, 0, length / PAGE, n.addr);
	native_free(&n);
}

static void a_touched_leaf_is_mapped_by_pieces(void **state)
{
	(void)state;
	a_touched_leaf(LEAF);
}

static void a_touched_leaf_of_1g(void **state)
{
	(void)state;
	a_touched_leaf(GIB);
}

/* If not deferred, the pieces of a block are left to the collapse. */
static void a_touched_block_is_collapsed(void **state)
{
	struct native n;
	uint8_t value;

	(void)state;
	native_make(&n, LEAF, LENGTH, PROVIDER_NOW, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(n.h));
	assert_int_equal(touch(n.addr + 700 * PAGE, &value), 0);
	fetch(&n, 0, LENGTH / PAGE);
	assert_leaves(&n, 0, LENGTH, 0);
	assert_all_huge(&n);
	/* Only the touched page, and a whole leaf, which failed: no other pieces. */
	for (unsigned int i = 0; i < records(); i++) {
		struct record r = record_at(i);

		if (r.call == CALL_CONTINUE && r.addr - (uintptr_t)n.addr < n.length &&
		    r.len != LEAF)
			if (r.len != PAGE)
				fail_msg("CONTINUE of %llu kB at page %llu",
					 (unsigned long long)r.len >> 10,
					 (unsigned long long)(r.addr - (uintptr_t)n.addr) / PAGE);
	}
	native_free(&n);
}

/* With NO_COLLAPSE the block is not reported as huge although all of it has arrived. */
static void what_is_not_collapsed_is_not_huge(void **state)
{
	struct native n;
	uint8_t value;

	(void)state;
	native_make(&n, LEAF, LENGTH, PROVIDER_NOW, HGM_REGION_NO_FILL | HGM_REGION_NO_COLLAPSE);
	assert_ok(hgm_start(n.h));
	for (uint64_t at = 0; at < LENGTH; at += LEAF)
		assert_int_equal(touch(n.addr + at, &value), 0);
	fetch(&n, 0, LENGTH / PAGE);
	assert_leaves(&n, 0, 0, LENGTH);
	assert_int_equal(info_of(n.r).huge_bytes, 0);
	assert_error(hgm_region_collapse(n.r), -EOPNOTSUPP);
	native_free(&n);
}

/* Which calls are made, and in which order. */
static void the_order_of_calls(void **state)
{
	unsigned int split = 0, registers = 0, collapses = 0, i;
	struct native n;
	uint8_t value;

	(void)state;
	native_make(&n, LEAF, LENGTH, PROVIDER_NOW, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(n.h));
	assert_int_equal(touch(n.addr + 3 * PAGE, &value), 0);
	fetch(&n, 0, LENGTH / PAGE);
	assert_all_huge(&n);
	for (i = 0; i < records(); i++) {
		struct record r = record_at(i);
		bool inside = r.addr - (uintptr_t)n.addr < LENGTH;

		switch (r.call) {
		case CALL_SPLIT:
			if (!inside)
				break;
			split++;
			assert_ptr_equal((void *)(uintptr_t)r.addr, n.addr);
			assert_int_equal(r.len, LENGTH);
			assert_int_equal(registers, 0);
			break;
		case CALL_REGISTER:
			registers += inside;
			break;
		case CALL_COLLAPSE:
			if (!inside)
				break;
			assert_int_equal(r.len, LEAF);
			assert_int_equal(r.addr % LEAF, 0);
			collapses++;
			/* Threads that found it unmapped meanwhile are woken, in all of it. */
			for (unsigned int k = i + 1;; k++) {
				struct record w = record_at(k);

				if (k == records())
					fail_msg("no WAKE after a collapse");
				if (w.call == CALL_WAKE && w.addr <= r.addr &&
				    w.addr + w.len >= r.addr + r.len)
					break;
			}
			break;
		default:
			break;
		}
	}
	assert_int_equal(split, 1);
	assert_true(registers >= 1);
	assert_true(collapses >= LENGTH / LEAF);
	native_free(&n);
}

/* For the engine's userfaultfds and for those that test the kernel. */
static void exact_address_always(void **state)
{
	unsigned int asked = 0;
	struct hgm *h;

	(void)state;
	records_forget();
	h = engine(2);
	for (unsigned int i = 0; i < records(); i++) {
		struct record r = record_at(i);

		if (r.call != CALL_API || !r.addr || r.rc) /* a query */
			continue;
		assert_true(r.addr & HGM_UFFD_FEATURE_EXACT_ADDRESS);
		asked++;
	}
	assert_true(asked >= 2);
	hgm_destroy(h);
}

/* At each CONTINUE, all that it maps already has its contents, as read through the alias. */
static _Atomic unsigned int too_early, looked;
static struct native *looked_at;

static int looking_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	uint64_t at = (uint64_t)((char *)addr - looked_at->addr);
	char why[160];

	if (at < looked_at->length) {
		atomic_fetch_add(&looked, 1);
		for (uint64_t p = at / PAGE; p < (at + len) / PAGE; p++)
			if (!words_right(&native_contents, p,
					 (void *)(looked_at->r->alias + p * PAGE), -1, why))
				atomic_fetch_add(&too_early, 1);
	}
	return model_kernel->uffd_continue(fd, addr, len, mode, done);
}

static void contents_first(void **state)
{
	struct touchers touchers;
	struct plan plan;
	struct native n;

	(void)state;
	too_early = looked = 0;
	native_make(&n, LEAF, LENGTH, PROVIDER_LATER, 0);
	looked_at = &n;
	meddling.uffd_continue = looking_continue;
	plan = (struct plan){ .contents = &native_contents,
			      .addr = n.addr,
			      .pages = LENGTH / PAGE };
	assert_ok(hgm_start(n.h));
	touchers_start(&touchers, 2, &plan);
	touchers_join(&touchers);
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_true(looked > 0);
	assert_int_equal(too_early, 0);
	native_free(&n);
}

static const struct CMUnitTest tests[] = {
	ON_BOTH(fill_makes_large_leaves),
	ON_BOTH(demand_maps_what_it_must),
	ON_BOTH(a_touched_leaf_is_mapped_by_pieces),
	ON_BOTH(a_touched_block_is_collapsed),
	ON_BOTH(what_is_not_collapsed_is_not_huge),
	ON_BOTH(the_order_of_calls),
	ON_BOTH(exact_address_always),
	ON_BOTH(contents_first),
	{ "fill_makes_large_leaves_of_1g", fill_makes_large_leaves_of_1g, on_hgm, off, NULL },
	{ "a_touched_leaf_of_1g", a_touched_leaf_of_1g, on_hgm_next, off, NULL },
};

TEST_MAIN(tests)
