/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ordinary faults in holes, and the other operations.
 */
#include "play.h"

static void begin(uint64_t block, unsigned int pages, uint64_t modes)
{
	scene(block, pages);
	scene_split();
	scene_register(EXACT, modes);
}

/* 2.5 an untouched page: PMD, with page cache and without */
static void hole_of_a_page(void **state)
{
	(void)state;
	begin(M2, 2, MINOR);
	assert_int_equal(touch_silently(5, false), 0);
	assert_leaves(0, 1, 0);
	assert_int_equal(hgm_sys->uffd_unregister(s.uffd, s.primary, s.len), 0);
	fill(M2, K4);
	assert_int_equal(touch_silently(M2 + 5, false), 512 % 251 + 1);
	assert_leaves(0, 2, 0);
}

/* 2.5 in a 4 KiB table: one PTE; POPULATE_WRITE: all 512 */
static void hole_in_a_table(void **state)
{
	(void)state;
	begin(M2, 1, MINOR);
	fill(0, M2);
	assert_did(cont(0, K4), K4);
	assert_int_equal(hgm_sys->uffd_unregister(s.uffd, s.primary, M2), 0);
	touch_silently(7 * K4 + 5, true); /* a read would map its neighbours too: shmem does */
	assert_leaves(0, 0, 2);
	assert_int_equal(advise(0, M2, HGM_MADV_POPULATE_WRITE), 0);
	assert_leaves(0, 0, 512);
}

/* 2.5 2 MiB hole of a 1 GiB page: PMD; an untouched one: PUD */
static void hole_in_1g(void **state)
{
	(void)state;
	begin(G1, 1, MINOR);
	s.alias[0] = 1;
	assert_did(cont(0, K4), K4);
	assert_int_equal(hgm_sys->uffd_unregister(s.uffd, s.primary, G1), 0);
	touch_silently(9 * M2 + 5, false);
	assert_leaves(0, 1, 1);
	scene_end();
	scene(G1, 1);
	scene_split();
	s.primary[M2] = 1;
	assert_leaves(1, 0, 0);
}

static void *populates(void *arg)
{
	*(int *)arg = advise(0, 4 * K4, HGM_MADV_POPULATE_WRITE);
	return NULL;
}

/* 2.5 registered: one MINOR for each 4 KiB */
static void populate_is_told_of(void **state)
{
	pthread_t thread;
	struct told t;
	int rc = -1;

	(void)state;
	begin(M2, 1, MINOR);
	fill(0, M2);
	assert_int_equal(pthread_create(&thread, NULL, populates, &rc), 0);
	for (unsigned int i = 0; i < 4; i++) {
		assert_true(told(&t, 5000));
		assert_int_equal(t.offset & ~(K4 - 1), i * K4);
		assert_int_equal(t.flags, HGM_UFFD_FAULT_MINOR | HGM_UFFD_FAULT_WRITE);
		assert_did(cont(i * K4, K4), K4);
	}
	pthread_join(thread, NULL);
	assert_int_equal(rc, 0);
	assert_leaves(0, 0, 4);
}

/* 2.5, 2.3: a hole with page cache is MINOR under MISSING|MINOR */
static void minor_before_missing(void **state)
{
	struct toucher t;

	(void)state;
	begin(M2, 2, MISSING | MINOR);
	s.alias[9 * K4] = 1; /* not the touched page: a huge page is cached as a whole */
	touch_start(&t, 5, false);
	assert_told(5, HGM_UFFD_FAULT_MINOR);
	assert_did(cont(0, K4), K4);
	touch_end(&t);
	touch_start(&t, M2 + 5, true);
	assert_told(M2 + 5, HGM_UFFD_FAULT_WRITE);
	assert_did(copy(M2, M2, 4), M2);
	touch_end(&t);
	assert_leaves(0, 1, 1);
}

/* 2.6 only whole huge pages, even of 4 KiB mappings */
static void protects_whole_pages(void **state)
{
	(void)state;
	begin(M2, 1, MINOR | WP);
	fill(0, M2);
	assert_did(cont(0, K4), K4);
	assert_int_equal(protect(0, K4, true), -EINVAL);
	assert_int_equal(protect(0, K4, false), -EINVAL);
	assert_int_equal(protect(0, M2, true), 0);
	assert_int_equal(pages_with(PAGEMAP_UFFD_WP), 512); /* one PTE, 511 markers */
	assert_int_equal(protect(0, M2, false), 0);
	assert_int_equal(pages_with(PAGEMAP_UFFD_WP), 0);
}

/* 4, 7.3.4 the WARN comes at the first write to a smaller leaf that was protected, once */
static void warns_at_the_write(void **state)
{
	(void)state;
	begin(M2, 3, MINOR | WP);
	fill(0, 3 * M2);
	assert_did(cont(0, 4 * K4), 4 * K4);
	assert_did(cont(M2, M2), M2);
	assert_did(cont(2 * M2, K4), K4);
	/* not: never protected, a whole leaf, read only, protected again, collapsed */
	assert_int_equal(protect(0, 3 * M2, true), 0);
	assert_int_equal(protect(0, 3 * M2, false), 0);
	touch_silently(M2 + 5, true);
	touch_silently(5, false);
	assert_int_equal(collapse(2 * M2, M2), 0);
	touch_silently(2 * M2 + 5, true);
	assert_int_equal(protect(0, M2, true), 0);
	assert_int_equal(model_warnings(), 0);
	assert_int_equal(protect(0, M2, false), 0);
	assert_int_equal(model_warnings(), 0);
	touch_silently(3 * K4 + 5, true);
	assert_int_equal(model_warnings(), 1);
	touch_silently(2 * K4 + 5, true);
	assert_int_equal(model_warnings(), 1);
}

/* 4 the same for 2 MiB of a 1 GiB page, and if the page is unmapped after the write */
static void warns_in_1g(void **state)
{
	(void)state;
	begin(G1, 1, MINOR | WP);
	s.alias[0] = 1;
	assert_did(cont(0, M2), M2);
	assert_int_equal(protect(0, G1, true), 0);
	assert_int_equal(protect(0, G1, false), 0);
	assert_int_equal(model_warnings(), 0);
	touch_silently(9 * K4 + 5, true);
	assert_int_equal(advise(0, G1, MADV_DONTNEED), 0);
	assert_int_equal(model_warnings(), 1);
}

static void protects_whole_pages_1g(void **state)
{
	(void)state;
	begin(G1, 1, MINOR | WP);
	assert_int_equal(protect(0, M2, true), -EINVAL);
	assert_int_equal(protect(0, G1, true), 0);
	s.alias[0] = 1;
	assert_did(cont(0, K4), K4);
	assert_int_equal(pages_with(PAGEMAP_UFFD_WP), 262143);
	assert_did(cont(M2, M2), M2);
	assert_int_equal(pages_with(PAGEMAP_UFFD_WP), 261631);
}

/* 2.6 markers: a smaller CONTINUE splits them and clears its piece, which is then writable */
static void markers(void **state)
{
	struct toucher t;

	(void)state;
	begin(M2, 1, MINOR | WP);
	fill(0, M2);
	assert_int_equal(protect(0, M2, true), 0);
	assert_int_equal(pages_with(PAGEMAP_UFFD_WP), 512);
	touch_start(&t, 5, true);
	assert_told(5, HGM_UFFD_FAULT_MINOR | HGM_UFFD_FAULT_WRITE); /* no WP flag */
	assert_did(cont(0, K4), K4);
	touch_end(&t);
	assert_int_equal(pages_with(PAGEMAP_UFFD_WP), 511);
	touch_silently(7, true);
}

/* 2.6 WP, then an ordinary fill: the page stays protected */
static void fill_keeps_protection(void **state)
{
	struct toucher t;

	(void)state;
	begin(M2, 1, WP);
	assert_int_equal(protect(0, M2, true), 0);
	touch_silently(5, false);
	assert_leaves(0, 1, 0);
	touch_start(&t, 9 * K4, true);
	assert_told(9 * K4, HGM_UFFD_FAULT_WP | HGM_UFFD_FAULT_WRITE);
	assert_int_equal(protect(0, M2, false), 0);
	touch_end(&t);
}

/* 2.6 COPY of whole pages only, ZEROPAGE never */
static void copies_whole_pages(void **state)
{
	(void)state;
	begin(M2, 3, MISSING | MINOR);
	assert_none(copy(0, K4, 1), EINVAL);
	assert_did(copy(0, M2, 1), M2);
	assert_none(copy(0, M2, 1), EEXIST);
	fill(M2, M2);
	assert_none(copy(M2, M2, 1), EEXIST);
	assert_did(cont(M2, K4), K4);
	assert_none(copy(M2, M2, 1), EEXIST);
	assert_int_equal(hgm_sys->uffd_zeropage(s.uffd, s.primary + 2 * M2, M2, 0, &done), -EINVAL);
	assert_int_equal(hgm_sys->uffd_poison(s.uffd, s.primary + 2 * M2, M2, 0, &done), -EINVAL);
	assert_int_equal(done, DONE_UNTOUCHED);
}

/* 2.6 results of REGISTER, and no range below a huge page */
static void registration(void **state)
{
	static const uint64_t want[8] = { 0, 0xc, 0x4c, 0x4c, 0x8c, 0x8c, 0xcc, 0xcc };

	(void)state;
	scene(M2, 2);
	scene_split();
	scene_register(EXACT, MINOR);
	for (uint64_t modes = 1; modes < 8; modes++) {
		assert_int_equal(hgm_sys->uffd_register(s.uffd, s.primary, s.len, modes, &s.ioctls),
				 0);
		assert_int_equal(s.ioctls, want[modes]);
	}
	assert_int_equal(hgm_sys->uffd_register(s.uffd, s.primary, K4, MINOR, &s.ioctls), -EINVAL);
	assert_int_equal(hgm_sys->uffd_unregister(s.uffd, s.primary, K4), -EINVAL);
	assert_int_equal(hgm_sys->mprotect(s.primary, K4, PROT_READ), -EINVAL);
	assert_int_equal(hgm_sys->munmap(s.primary, K4), -EINVAL);
}

/* 2.6 DONTNEED: whole pages, and the table stays */
static void dontneed(void **state)
{
	struct toucher t;

	(void)state;
	begin(M2, 2, MINOR);
	fill(0, 2 * M2);
	assert_did(cont(0, K4), K4);
	assert_int_equal(advise(0, K4, MADV_DONTNEED), 0);
	assert_leaves(0, 0, 1);
	assert_int_equal(advise(K4, K4, MADV_DONTNEED), -EINVAL);
	assert_int_equal(advise(0, M2, MADV_DONTNEED), 0);
	assert_leaves(0, 0, 0);
	assert_int_equal(model_leaves(s.primary, s.len).tables_4k, 1);
	touch_start(&t, 5, false);
	assert_told(5, HGM_UFFD_FAULT_MINOR);
	assert_did(cont(0, K4), K4);
	touch_end(&t);
	assert_int_equal(t.value, 1);
}

/* 2.6 PUNCH of 4 KiB zeroes the 4 KiB, PTEs stay; the pool counts are right */
static void punch_hole(void **state)
{
	struct model_pool before = pool_now(M2);

	(void)state;
	begin(M2, 2, MINOR);
	fill(0, 2 * M2);
	assert_did(cont(0, 2 * K4), 2 * K4);
	assert_int_equal(pool_now(M2).free, before.free - 2);
	assert_int_equal(model_punch_hole(s.fd, 0, K4), 0);
	assert_leaves(0, 0, 2);
	assert_int_equal(touch_silently(5, false), 0);
	assert_int_equal(touch_silently(K4 + 5, false), 2);
	assert_int_equal(model_punch_hole(s.fd, 0, M2), 0);
	assert_leaves(0, 0, 0);
	assert_int_equal(pool_now(M2).free, before.free - 1);
}

/* 5.13 while the alias is mapped everything is Shared, without it Private */
static void shared_and_private(void **state)
{
	(void)state;
	begin(M2, 1, MINOR);
	fill(0, M2);
	assert_did(cont(0, 3 * K4), 3 * K4);
	assert_int_equal(smaps_kb(0, "Shared_Hugetlb"), 12);
	assert_int_equal(smaps_kb(0, "Private_Hugetlb"), 0);
	assert_int_equal(hgm_sys->munmap(s.alias, M2), 0);
	s.alias = NULL;
	assert_int_equal(smaps_kb(0, "Shared_Hugetlb"), 0);
	assert_int_equal(smaps_kb(0, "Private_Hugetlb"), 12);
}

/* A future kernel: protection of 4 KiB pieces, and CONTINUE that protects */
static void next_kernel(void **state)
{
	struct toucher t;

	(void)state;
	begin(M2, 1, MINOR | WP);
	assert_int_equal(s.ioctls, 0x1cc);
	fill(0, M2);
	assert_did(cont_mode(0, 2 * K4, HGM_UFFD_CONTINUE_WP), 2 * K4);
	assert_int_equal(pages_with(PAGEMAP_UFFD_WP), 2);
	touch_start(&t, K4 + 5, true);
	assert_told(K4 + 5, HGM_UFFD_FAULT_WP | HGM_UFFD_FAULT_WRITE);
	assert_int_equal(protect(K4, K4, false), 0);
	touch_end(&t);
	assert_int_equal(pages_with(PAGEMAP_UFFD_WP), 1);
}

static const struct CMUnitTest tests[] = {
	ON("hgm", hole_of_a_page),
	ON("hgm", hole_in_a_table),
	ON("hgm", hole_in_1g),
	ON("hgm", populate_is_told_of),
	ON("hgm", minor_before_missing),
	ON("hgm", protects_whole_pages),
	ON("hgm", protects_whole_pages_1g),
	ON("hgm", warns_at_the_write),
	ON("hgm", warns_in_1g),
	ON("hgm", markers),
	ON("hgm", fill_keeps_protection),
	ON("hgm", copies_whole_pages),
	ON("hgm", registration),
	ON("hgm", dontneed),
	ON("hgm", punch_hole),
	ON("hgm", shared_and_private),
	ON("hgm-next", next_kernel),
};

TEST_MAIN(tests)
