/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MADV_COLLAPSE of huge pages.
 */
#include "play.h"

static void begin(uint64_t block, unsigned int pages, uint64_t modes)
{
	scene(block, pages);
	scene_split();
	scene_register(EXACT, modes);
}

/* 2.7 unsplit: returns 0 and does nothing */
static void not_split(void **state)
{
	(void)state;
	scene(M2, 1);
	assert_int_equal(collapse(0, M2), 0);
	assert_leaves(0, 0, 0);
}

/* 7.3.3 private: EINVAL only if the next mapping above is not hugetlb, even across a gap */
static void private_mapping(void **state)
{
	const int fixed = MAP_PRIVATE | MAP_FIXED;
	void *p;

	(void)state;
	scene(M2, 3);
	assert_int_equal(hgm_sys->mmap(&p, s.primary, M2, PROT_READ, fixed, s.fd, 0), 0);
	assert_int_equal(collapse(0, M2), 0);
	assert_int_equal(hgm_sys->munmap(s.primary + M2, M2), 0);
	assert_int_equal(collapse(0, M2), 0);
	assert_int_equal(
		hgm_sys->mmap(&p, s.primary + M2, M2, PROT_NONE, fixed | MAP_ANONYMOUS, -1, 0), 0);
	assert_int_equal(collapse(0, M2), -EINVAL);
}

/* 2.7 a full page, while registered; the alias does not change */
static void full_page(void **state)
{
	(void)state;
	begin(M2, 1, MINOR);
	fill(0, M2);
	assert_did(cont(0, K4), K4);
	assert_did(cont(K4, M2 - K4), M2 - K4);
	assert_leaves(0, 0, 512);
	assert_int_equal(collapse(0, M2), 0);
	assert_leaves(0, 1, 0);
	assert_true(smaps_flag(0, "ui"));
	assert_true(smaps_flag(0, "hm"));
	assert_int_equal(model_leaves(s.alias, M2).pmd, M2);
	for (uint64_t at = 0; at < M2; at += K4)
		assert_int_equal((uint8_t)s.primary[at + 5], at / K4 % 251 + 1);
}

static void full_page_1g(void **state)
{
	(void)state;
	begin(G1, 1, MINOR);
	s.alias[5] = 9;
	assert_did(cont(0, 3 * M2 + K4), 3 * M2 + K4);
	assert_did(cont(3 * M2 + K4, G1 - 3 * M2 - K4), G1 - 3 * M2 - K4);
	assert_leaves(0, 511, 512);
	assert_int_equal(collapse(0, G1), 0);
	assert_leaves(1, 0, 0);
	assert_int_equal(touch_silently(5, false), 9);
}

/* 2.7 holes are filled, and can be read without a message */
static void holes_are_filled(void **state)
{
	(void)state;
	begin(M2, 1, MINOR);
	fill(0, M2);
	for (uint64_t i = 0; i < 10; i++)
		assert_did(cont(i * 7 * K4, K4), K4);
	assert_int_equal(collapse(0, M2), 0);
	assert_leaves(0, 1, 0);
	assert_int_equal((uint8_t)touch_silently(300 * K4 + 5, false), 300 % 251 + 1);
}

/* 2.7 an untouched page is skipped, one with an empty table is not */
static void untouched_page(void **state)
{
	struct toucher t;

	(void)state;
	begin(M2, 3, MINOR);
	assert_none(cont(M2, K4), EFAULT);
	assert_none(cont(2 * M2, K4), EFAULT);
	fill(0, 2 * M2);
	assert_int_equal(collapse(0, s.len), 0);
	assert_leaves(0, 1, 0);
	touch_start(&t, 5, false);
	assert_told(5, HGM_UFFD_FAULT_MINOR);
	assert_did(cont(0, M2), M2);
	touch_end(&t);
	/* 2.7 no page cache: the table is gone, nothing is mapped, a 2 MiB CONTINUE works later */
	fill(2 * M2, K4);
	assert_did(cont(2 * M2, M2), M2);
	assert_leaves(0, 3, 0);
}

/* 2.7 drops protection; a thread that waits for it is not woken */
static void drops_protection(void **state)
{
	struct toucher t;

	(void)state;
	begin(M2, 1, MINOR | WP);
	fill(0, M2);
	assert_did(cont(0, 9 * K4), 9 * K4);
	assert_int_equal(protect(0, M2, true), 0);
	touch_start(&t, 5, true);
	assert_told(5, HGM_UFFD_FAULT_WP | HGM_UFFD_FAULT_WRITE);
	assert_int_equal(collapse(0, M2), 0);
	assert_true(touch_waits(&t));
	assert_int_equal(wake(0, M2), 0);
	touch_end(&t);
	touch_silently(K4 + 5, true);
	touch_silently(99 * K4 + 5, true);
}

/* 2.7 a thread that waits in a hole keeps waiting; CONTINUE is EEXIST; only WAKE helps */
static void waiter_in_a_hole(void **state)
{
	struct toucher t;

	(void)state;
	begin(M2, 1, MINOR);
	fill(0, M2);
	assert_did(cont(0, K4), K4);
	touch_start(&t, 5 * K4 + 5, false);
	assert_told(5 * K4 + 5, HGM_UFFD_FAULT_MINOR);
	assert_int_equal(collapse(0, M2), 0);
	assert_none(cont(5 * K4, K4), EEXIST);
	assert_true(touch_waits(&t));
	assert_int_equal(wake(5 * K4, K4), 0);
	touch_end(&t);
	assert_int_equal(t.value, 6);
}

/* 2.7 part of a 2 MiB page */
static void part_of_a_page(void **state)
{
	void *p;

	(void)state;
	begin(M2, 4, MINOR);
	fill(0, s.len);
	assert_did(cont(0, M2), M2);
	assert_did(cont(M2, K4), K4);
	assert_int_equal(collapse(M2, 2 * K4), 0); /* a 4 KiB leaf, and a hole: no effect */
	assert_leaves(0, 1, 1);
	assert_int_equal(collapse(2 * M2, K4), 0); /* untouched: makes a table */
	assert_none(cont(2 * M2, M2), EEXIST);
	/* In a larger leaf: EINVAL, or 0 if the next mapping above is hugetlb. */
	assert_int_equal(hgm_sys->mmap(&p, s.primary + 3 * M2, M2, PROT_NONE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 0);
	assert_int_equal(collapse(0, K4), -EINVAL);
	assert_int_equal(hgm_sys->mmap(&p, s.primary + 3 * M2, M2, PROT_READ,
				       MAP_SHARED | MAP_FIXED, s.fd, 3 * M2),
			 0);
	assert_int_equal(collapse(0, K4), 0);
	assert_leaves(0, 1, 1);
}

/* 2.7 an unaligned range: returns 0 and collapses nothing */
static void unaligned_range(void **state)
{
	(void)state;
	begin(M2, 2, MINOR);
	fill(0, s.len);
	assert_did(cont(0, K4), K4);
	assert_did(cont(M2, K4), K4);
	assert_int_equal(collapse(K4, M2), 0);
	assert_leaves(0, 0, 2);
}

/* 2.7 several pages, several mappings, gaps and other memory */
static void several_mappings(void **state)
{
	void *p;

	(void)state;
	begin(M2, 4, MINOR);
	fill(0, s.len);
	assert_did(cont(0, K4), K4);
	assert_did(cont(M2, K4), K4);
	assert_int_equal(collapse(0, 3 * M2), 0); /* two in part, one untouched */
	assert_leaves(0, 2, 0);
	assert_int_equal(hgm_sys->munmap(s.primary + M2, M2), 0);
	assert_did(cont(2 * M2, K4), K4);
	assert_int_equal(collapse(0, 3 * M2), -ENOMEM);
	assert_int_equal(model_leaves(s.primary + 2 * M2, M2).pmd, M2);
	assert_did(cont(3 * M2, K4), K4);
	assert_int_equal(
		hgm_sys->mmap(&p, s.primary, M2, PROT_READ, MAP_PRIVATE | MAP_FIXED, s.fd, 0), 0);
	assert_int_equal(hgm_sys->mmap(&p, s.primary + M2, M2, PROT_NONE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 0);
	assert_int_equal(collapse(3 * M2, M2), 0);
	assert_int_equal(model_leaves(s.primary + 3 * M2, M2).pmd, M2);
}

/* 2.7 after UNREGISTER */
static void after_unregister(void **state)
{
	(void)state;
	begin(M2, 1, MINOR);
	fill(0, M2);
	assert_did(cont(0, K4), K4);
	assert_int_equal(hgm_sys->uffd_unregister(s.uffd, s.primary, M2), 0);
	assert_int_equal(collapse(0, M2), 0);
	assert_leaves(0, 1, 0);
	assert_int_equal((uint8_t)s.primary[300 * K4 + 5], 300 % 251 + 1);
	/* Registered again: all of it is mapped, so that no fault is reported. */
	assert_int_equal(hgm_sys->uffd_register(s.uffd, s.primary, M2, MINOR, &s.ioctls), 0);
	assert_int_equal((uint8_t)touch_silently(301 * K4 + 5, false), 301 % 251 + 1);
}

/* 7.3.6 PROT_NONE does not hinder COLLAPSE, nor CONTINUE */
static void without_access(void **state)
{
	(void)state;
	begin(M2, 3, MINOR);
	fill(0, s.len);
	assert_did(cont(0, K4), K4);
	assert_int_equal(hgm_sys->mprotect(s.primary, s.len, PROT_NONE), 0);
	assert_int_equal(collapse(0, M2), 0);
	assert_did(cont(M2, M2), M2);
	assert_did(cont(2 * M2 + K4, K4), K4);
	assert_leaves(0, 2, 1);
	assert_int_equal(hgm_sys->mprotect(s.primary, s.len, PROT_READ), 0);
	assert_int_equal((uint8_t)touch_silently(300 * K4 + 5, false), 300 % 251 + 1);
	assert_int_equal((uint8_t)touch_silently(M2 + 5, false), 512 % 251 + 1);
}

/* 2.7 2 MiB inside a 1 GiB page: a hole and a PMD leaf are skipped (test_deadly.c: a table) */
static void inside_1g(void **state)
{
	(void)state;
	begin(G1, 1, MINOR);
	s.alias[0] = 1;
	assert_did(cont(0, M2), M2);
	assert_int_equal(collapse(0, M2), 0);
	assert_int_equal(collapse(M2, M2), 0);
	assert_leaves(0, 1, 0);
	assert_int_equal(collapse(0, G1), 0);
	assert_leaves(1, 0, 0);
}

static const struct CMUnitTest tests[] = {
	ON("hgm", not_split),	     ON("hgm", private_mapping),  ON("hgm", full_page),
	ON("hgm", full_page_1g),     ON("hgm", holes_are_filled), ON("hgm", untouched_page),
	ON("hgm", drops_protection), ON("hgm", waiter_in_a_hole), ON("hgm", part_of_a_page),
	ON("hgm", unaligned_range),  ON("hgm", several_mappings), ON("hgm", after_unregister),
	ON("hgm", without_access),   ON("hgm", inside_1g),
};

TEST_MAIN(tests)
