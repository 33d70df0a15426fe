/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * UFFDIO_CONTINUE of pieces.
 */
#include "play.h"

static void begin(uint64_t block, unsigned int pages, uint64_t features, uint64_t modes)
{
	scene(block, pages);
	scene_split();
	scene_register(features, modes);
}

/* 2.4 the largest leaf at each step */
static void largest_leaf(void **state)
{
	(void)state;
	begin(M2, 4, EXACT, MINOR);
	fill(0, s.len);
	assert_did(cont(0, 2 * M2), 2 * M2);
	assert_leaves(0, 2, 0);
	assert_did(cont(2 * M2 + 3 * K4, K4), K4);
	assert_leaves(0, 2, 1);
	assert_did(cont(3 * M2 - 2 * K4, M2), M2); /* ends 2 pages before the next border */
	assert_leaves(0, 2, 513);
	assert_int_equal(touch_silently(3 * M2 + 5, false), 3 * 512 % 251 + 1);
}

static void largest_leaf_1g(void **state)
{
	const uint64_t m = M2 / 2;

	(void)state;
	begin(G1, 2, EXACT, MINOR);
	s.alias[0] = 1;
	s.alias[G1] = 1;
	assert_did(cont(8 * m - 2 * K4, 4 * m + 3 * K4), 4 * m + 3 * K4);
	assert_leaves(0, 2, 3);
	assert_did(cont(32 * m, G1 - 32 * m), G1 - 32 * m);
	assert_leaves(0, 498, 3);
	assert_did(cont(G1, G1), G1);
	assert_leaves(1, 498, 3);
	assert_int_equal(smaps_kb(0, "HugetlbPudMapped"), G1 >> 10);
	assert_int_equal(smaps_kb(0, "HugetlbPmdMapped"), 498 * 2048);
	assert_int_equal(smaps_kb(0, "HugetlbPteMapped"), 12);
	/* never upgrades, nor downgrades */
	assert_none(cont(0, G1), EEXIST);
	assert_none(cont(G1 + 5 * M2, M2), EEXIST);
	assert_none(cont(G1 + 5 * K4, K4), EEXIST);
	assert_none(cont(6 * m, M2), EEXIST); /* one PTE there */
	assert_none(cont(32 * m + K4, K4), EEXIST);
	assert_leaves(1, 498, 3);
}

/* 2.4 never upgrades: 2 MiB over one PTE, 4 KiB over a PMD leaf */
static void never_upgrades(void **state)
{
	(void)state;
	begin(M2, 2, EXACT, MINOR);
	fill(0, s.len);
	assert_did(cont(7 * K4, K4), K4);
	assert_none(cont(0, M2), EEXIST);
	assert_none(cont(7 * K4, K4), EEXIST);
	assert_did(cont(M2, M2), M2);
	assert_none(cont(M2 + K4, K4), EEXIST);
	assert_leaves(0, 1, 1);
}

/* 2.4 EEXIST on an empty table, after EFAULT; and the ways out */
static void empty_table_after_fault(void **state)
{
	(void)state;
	begin(M2, 2, EXACT, MINOR);
	assert_none(cont(0, K4), EFAULT);
	assert_none(cont(M2, K4), EFAULT);
	fill(0, s.len);
	assert_none(cont(0, M2), EEXIST);
	assert_leaves(0, 0, 0);
	assert_int_equal(smaps_kb(0, "HugetlbPmdMapped"), 0);
	assert_did(cont(0, K4), K4);
	assert_did(cont(K4, M2 - K4), M2 - K4);
	assert_leaves(0, 0, 512);
	/* The other way out maps the whole page without a CONTINUE. */
	assert_int_equal(collapse(M2, M2), 0);
	assert_leaves(0, 1, 512);
	assert_int_equal(touch_silently(M2 + 5, false), 512 % 251 + 1);
}

/* 7.3.1 the page cache is looked up first: 2 MiB over an empty table is EFAULT without it */
static void page_cache_first(void **state)
{
	(void)state;
	begin(M2, 2, EXACT, MINOR);
	assert_none(cont(0, K4), EFAULT);
	assert_none(cont(0, M2), EFAULT);
	assert_none(cont(0, 2 * M2), EFAULT);
	fill(0, K4);
	assert_none(cont(0, M2), EEXIST);
	scene_end();
	begin(G1, 1, EXACT, MINOR);
	assert_none(cont(K4, K4), EFAULT);
	assert_none(cont(0, M2), EFAULT);
	assert_none(cont(0, G1), EFAULT);
	s.alias[0] = 1;
	assert_none(cont(0, M2), EEXIST);
	assert_none(cont(0, G1), EEXIST);
	assert_did(cont(M2, M2), M2);
}

/* 2.4 EFAULT for a whole 2 MiB page leaves nothing behind */
static void whole_page_fault_leaves_nothing(void **state)
{
	(void)state;
	begin(M2, 1, EXACT, MINOR);
	assert_none(cont(0, M2), EFAULT);
	fill(0, K4);
	assert_did(cont(0, M2), M2);
	assert_leaves(0, 1, 0);
}

/* 2.4 the same after DONTNEED, PUNCH_HOLE and truncate */
static void empty_table_after_unmapping(void **state)
{
	(void)state;
	begin(M2, 3, EXACT, MINOR);
	fill(0, s.len);
	for (uint64_t at = 0; at < s.len; at += M2)
		assert_did(cont(at, K4), K4);
	assert_int_equal(advise(0, M2, MADV_DONTNEED), 0);
	assert_none(cont(0, M2), EEXIST);
	assert_int_equal(model_punch_hole(s.fd, M2, M2), 0);
	assert_int_equal(hgm_sys->ftruncate(s.fd, 2 * M2), 0);
	assert_int_equal(hgm_sys->ftruncate(s.fd, 3 * M2), 0);
	assert_leaves(0, 0, 0);
	assert_int_equal(model_leaves(s.primary, s.len).tables_4k, 3);
	assert_none(cont(M2, K4), EFAULT);
	assert_did(cont(0, K4), K4);
	fill(M2, 2 * M2);
	assert_none(cont(M2, M2), EEXIST);
	assert_none(cont(2 * M2, M2), EEXIST);
}

/* 2.4 errors */
static void errors(void **state)
{
	(void)state;
	begin(M2, 4, EXACT, MINOR);
	fill(0, 2 * M2);
	assert_int_equal(cont(0, 3 * M2), -EAGAIN);
	assert_int_equal(done, 4194304);
	fill(2 * M2, M2);
	assert_did(cont(2 * M2 + K4, K4), K4);
	assert_int_equal(cont(2 * M2, 2 * K4), -EAGAIN); /* the second is mapped */
	assert_int_equal(done, 4096);
	assert_int_equal(cont(100, K4), -EINVAL);
	assert_int_equal(done, DONE_UNTOUCHED);
	assert_int_equal(cont(0, 0), -EINVAL);
	assert_int_equal(done, DONE_UNTOUCHED);
	assert_int_equal(cont_mode(0, K4, HGM_UFFD_CONTINUE_WP), -EINVAL);
	assert_int_equal(done, DONE_UNTOUCHED);
	assert_none(cont(3 * M2, 2 * M2), ENOENT);
	assert_int_equal(hgm_sys->uffd_continue(s.uffd, s.alias, K4, 0, &done), -ENOENT);
	assert_int_equal(hgm_sys->ftruncate(s.fd, 3 * M2), 0);
	assert_none(cont(3 * M2, K4), EFAULT);
	assert_int_equal(hgm_sys->ftruncate(s.fd, 4 * M2), 0);
	fill(3 * M2, K4);
	assert_did(cont(3 * M2, K4), K4);
	assert_int_equal(hgm_sys->madvise(s.alias + 3 * M2, K4, MADV_HWPOISON), 0);
	assert_none(cont(3 * M2 + 9 * K4, K4), EIO);
}

/* 2.4 the mode is not checked: MISSING alone, and still one PTE */
static void without_minor(void **state)
{
	(void)state;
	begin(M2, 1, EXACT, MISSING);
	fill(0, M2);
	assert_did(cont(4 * K4, K4), K4);
	assert_leaves(0, 0, 1);
}

/* 2.4 only the mapped prefix is woken; EEXIST wakes none; WAKE of another 4 KiB does nothing */
static void wakes(void **state)
{
	struct toucher near, far;

	(void)state;
	begin(M2, 2, EXACT, MINOR);
	fill(0, M2);
	touch_start(&near, 3 * K4 + 5, false);
	assert_told(3 * K4 + 5, HGM_UFFD_FAULT_MINOR);
	touch_start(&far, 8 * K4 + 5, false);
	assert_told(8 * K4 + 5, HGM_UFFD_FAULT_MINOR);
	assert_did(cont_mode(5 * K4, K4, 0), K4);
	assert_int_equal(cont(3 * K4, 6 * K4), -EAGAIN);
	assert_int_equal(done, 2 * K4);
	touch_end(&near);
	assert_int_equal(near.value, 4);
	assert_true(touch_waits(&far));
	assert_did(cont_mode(8 * K4, K4, HGM_UFFD_CONTINUE_DONTWAKE), K4);
	assert_none(cont(8 * K4, K4), EEXIST);
	assert_int_equal(wake(9 * K4, K4), 0);
	assert_true(touch_waits(&far));
	assert_int_equal(wake(0, M2), 0);
	touch_end(&far);
}

/* 2.4 trap: without EXACT a MISSING waiter is queued at the base */
static void missing_waiter_at_the_base(void **state)
{
	struct toucher t;

	(void)state;
	begin(M2, 1, 0, MISSING | MINOR);
	touch_start(&t, 3 * K4 + 5, false);
	assert_told(0, 0);
	fill(0, M2);
	assert_did(cont(3 * K4, K4), K4);
	assert_true(touch_waits(&t));
	assert_int_equal(wake(3 * K4, K4), 0);
	assert_true(touch_waits(&t));
	assert_int_equal(wake(0, K4), 0);
	touch_end(&t);
	assert_int_equal(t.value, 4);
}

static void missing_waiter_exact(void **state)
{
	struct toucher t;

	(void)state;
	begin(M2, 1, EXACT, MISSING | MINOR);
	touch_start(&t, 3 * K4 + 5, false);
	assert_told(3 * K4 + 5, 0);
	fill(0, M2);
	assert_did(cont(3 * K4, K4), K4);
	touch_end(&t);
	assert_int_equal(t.value, 4);
}

/* 2.4 the same for a WP waiter */
static void wp_waiter_at_the_base(void **state)
{
	struct toucher t;

	(void)state;
	begin(M2, 1, 0, MINOR | WP);
	fill(0, M2);
	assert_did(cont(0, M2), M2);
	assert_int_equal(protect(0, M2, true), 0);
	touch_start(&t, 3 * K4 + 5, true);
	assert_told(0, HGM_UFFD_FAULT_WP | HGM_UFFD_FAULT_WRITE);
	assert_int_equal(hgm_sys->uffd_writeprotect(s.uffd, s.primary, M2, HGM_UFFD_WP_DONTWAKE),
			 0);
	assert_int_equal(wake(3 * K4, K4), 0);
	assert_true(touch_waits(&t));
	assert_int_equal(wake(0, K4), 0);
	touch_end(&t);
}

static const struct CMUnitTest tests[] = {
	ON("hgm", largest_leaf),
	ON("hgm", largest_leaf_1g),
	ON("hgm", never_upgrades),
	ON("hgm", empty_table_after_fault),
	ON("hgm", page_cache_first),
	ON("hgm", whole_page_fault_leaves_nothing),
	ON("hgm", empty_table_after_unmapping),
	ON("hgm", errors),
	ON("hgm", without_minor),
	ON("hgm", wakes),
	ON("hgm", missing_waiter_at_the_base),
	ON("hgm", missing_waiter_exact),
	ON("hgm", wp_waiter_at_the_base),
};

TEST_MAIN(tests)
