/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What crashes HGM v2 ends the test at once. Each case runs in a child.
 */
#include "play.h"

static void begin(uint64_t block, unsigned int pages, uint64_t modes)
{
	scene(block, pages);
	scene_split();
	scene_register(EXACT, modes);
}

static int none(uint64_t offset, uint64_t len)
{
	return hgm_sys->mprotect(s.primary + offset, len, PROT_NONE);
}

static int none_over_split(void)
{
	begin(G1, 1, MINOR);
	s.alias[0] = 1;
	cont(0, G1);
	return 1 + none(0, G1);
}

/* Not split, not registered: each mapping of 1 GiB pages on such a kernel. */
static int none_over_touched(void)
{
	scene(G1, 1);
	s.primary[5] = 1;
	return 1 + none(0, G1);
}

static int none_over_a_touched_alias(void)
{
	scene(G1, 1);
	s.alias[5] = 1;
	return 1 + hgm_sys->mprotect(s.alias, G1, PROT_NONE);
}

/* 7.1 */
static void mprotect_of_a_1g_leaf(void **state)
{
	static const char words[] = "mprotect(PROT_NONE) of a 1 GiB leaf";

	(void)state;
	assert_int_equal(in_child(none_over_split, words), 0);
	assert_int_equal(in_child(none_over_touched, words), 0);
	assert_int_equal(in_child(none_over_a_touched_alias, words), 0);
}

/* Leaves that were made under PROT_NONE (7.3.6): by CONTINUE, by COLLAPSE */
static int continued_under_none(void)
{
	begin(G1, 1, MINOR);
	s.alias[0] = 1;
	none(0, G1);
	cont(0, G1);
	return 1 + hgm_sys->munmap(s.primary, G1);
}

static int collapsed_under_none(void)
{
	begin(G1, 1, MINOR);
	s.alias[0] = 1;
	cont(0, K4);
	none(0, G1);
	collapse(0, G1);
	return 1 + hgm_sys->munmap(s.primary, G1);
}

static int protected_again(void)
{
	begin(G1, 1, MINOR);
	s.alias[0] = 1;
	none(0, G1);
	cont(0, G1);
	return 1 + hgm_sys->mprotect(s.primary, G1, PROT_READ);
}

static int exits(void)
{
	begin(G1, 1, MINOR);
	s.alias[0] = 1;
	none(0, G1);
	cont(0, G1);
	model_end();
	return 1;
}

/* 7.1 the munmap, the second mprotect or the exit that follows */
static void munmap_of_a_1g_leaf(void **state)
{
	static const char words[] = "munmap() of a 1 GiB leaf with PROT_NONE never returns";

	(void)state;
	assert_int_equal(in_child(continued_under_none, words), 0);
	assert_int_equal(in_child(collapsed_under_none, words), 0);
	assert_int_equal(in_child(exits, words), 0);
	assert_int_equal(in_child(protected_again, "mprotect(PROT_NONE)"), 0);
}

/* 7.1 what is safe: unmap it first, a split leaf, other protection, 2 MiB pages */
static void mprotect_of_other_memory(void **state)
{
	void *p;

	(void)state;
	begin(G1, 1, MINOR);
	s.alias[0] = 1;
	assert_did(cont(0, G1), G1);
	assert_int_equal(hgm_sys->mprotect(s.primary, G1, PROT_READ), 0);
	assert_int_equal(advise(0, G1, HGM_MADV_DONTNEED_LOCKED), 0);
	assert_int_equal(none(0, G1), 0);
	assert_did(cont(0, M2), M2);
	assert_int_equal(hgm_sys->mprotect(s.primary, G1, PROT_READ), 0);
	/* Other memory in its place does as well. */
	assert_int_equal(hgm_sys->mmap(&p, s.alias, G1, PROT_NONE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
				       0),
			 0);
	scene_end();
	scene(M2, 1);
	s.primary[0] = 1;
	assert_int_equal(none(0, M2), 0);
}

static int mincore_of_a_leaf(void)
{
	unsigned char resident[1];

	scene(G1, 1);
	s.primary[0] = 1;
	return 1 + hgm_sys->mincore(s.primary, K4, resident);
}

static int mincore_of_a_hole(void)
{
	unsigned char resident[1];

	scene(G1, 1);
	return 1 + hgm_sys->mincore(s.alias, K4, resident);
}

/* 7.2 of an entry above 2 MiB, for one page of it */
static void mincore_of_1g(void **state)
{
	static const char words[] = "mincore() of a 1 GiB leaf";

	(void)state;
	assert_int_equal(in_child(mincore_of_a_leaf, words), 0);
	assert_int_equal(in_child(mincore_of_a_hole, words), 0);
}

static bool in_pagemap(const char *addr)
{
	int fd = hgm_sys->open("/proc/self/pagemap", 0);
	uint64_t word = 0;

	assert_int_equal(hgm_sys->pread(fd, &word, 8, (uintptr_t)addr / K4 * 8), 8);
	hgm_sys->close(fd);
	return word >> 63;
}

/* 7.2 2 MiB fit into the buffer; pagemap is safe for all, and exact, also for the alias */
static void mincore_of_other_memory(void **state)
{
	unsigned char resident[512];

	(void)state;
	scene(M2, 1);
	s.primary[0] = 1;
	assert_int_equal(hgm_sys->mincore(s.primary, M2, resident), 0);
	assert_true(resident[511] & 1);
	scene_end();
	begin(G1, 1, MINOR);
	assert_false(in_pagemap(s.alias + M2));
	s.alias[0] = 1;
	assert_true(in_pagemap(s.alias + G1 - K4));
	assert_did(cont(K4, K4), K4);
	assert_false(in_pagemap(s.primary));
	assert_true(in_pagemap(s.primary + K4));
	assert_int_equal(hgm_sys->mincore(s.primary, K4, resident), 0); /* no entry of 1 GiB */
}

static int collapse_of_a_table(void)
{
	begin(G1, 1, MINOR);
	s.alias[0] = 1;
	cont(2 * M2, K4);
	return 1 + collapse(2 * M2, M2);
}

static int collapse_of_inherited(void)
{
	return collapse(2 * M2, M2);
}

/* 2.7 2 MiB with a table, inside a 1 GiB page. 7.3.7: not in a child of fork(), which has none. */
static void collapse_inside_1g(void **state)
{
	(void)state;
	assert_int_equal(in_child(collapse_of_a_table, "kernel BUG at mm/hugetlb.c"), 0);
	begin(G1, 1, MINOR);
	s.alias[0] = 1;
	assert_did(cont(2 * M2, K4), K4);
	assert_int_equal(in_child(collapse_of_inherited, NULL), 0);
	assert_leaves(0, 0, 1);
	assert_int_equal(collapse(0, G1), 0);
	assert_leaves(1, 0, 0);
}

static int reads_what_it_inherited(void)
{
	struct model_leaves l = model_leaves(s.primary, s.len);

	if (l.pmd || l.pte || !smaps_flag(0, "hm") || smaps_flag(0, "ui"))
		return 1;
	if ((uint8_t)s.primary[300 * K4 + 5] != 300 % 251 + 1)
		return 2;
	return model_leaves(s.primary, s.len).pmd != M2;
}

/* 2.6 fork: the child has no page tables and is not registered; its fault maps a whole page */
static void child_of_fork(void **state)
{
	(void)state;
	begin(M2, 1, MINOR);
	fill(0, M2);
	assert_did(cont(0, 3 * K4), 3 * K4);
	assert_int_equal(in_child(reads_what_it_inherited, NULL), 0);
	assert_leaves(0, 0, 3);
	assert_true(smaps_flag(0, "ui"));
}

static const struct CMUnitTest tests[] = {
	ON("hgm", mprotect_of_a_1g_leaf),
	ON("hgm", munmap_of_a_1g_leaf),
	ON("hgm", mprotect_of_other_memory),
	ON("hgm", mincore_of_1g),
	ON("hgm", mincore_of_other_memory),
	ON("hgm", collapse_inside_1g),
	ON("hgm", child_of_fork),
};

TEST_MAIN(tests)
