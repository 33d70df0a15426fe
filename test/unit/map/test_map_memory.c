/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory of the page-state map: how much it uses idle and in use, that leaves come back, and
 * what happens when there is none. The fake mmap() shows where words and leaves lie, in this order,
 * and fails on request.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "grace.h"
#include "kernel/sys.h"
#include "leaks.h"
#include "map/map.h"
#include "test.h"

#define ALL	  (~UINT64_C(0))
#define TIB_12	  (UINT64_C(12) << 40 >> HGM_PAGE_SHIFT) /* pages */
#define MIB	  (UINT64_C(1) << 20)
#define LEAF_SIZE 256

static struct hgm_sys fake_sys;
static struct {
	char *addr;
	uint64_t len;
} mapped[2];
static unsigned int mmaps;
static unsigned int fail_at; /* the call of mmap that fails, from 1 */

static int fake_mmap(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
		     uint64_t offset)
{
	int rc;

	if (++mmaps == fail_at)
		return -ENOMEM;
	rc = hgm_sys_linux.mmap(out, addr, len, prot, flags, fd, offset);
	if (!rc && mmaps <= 2) {
		mapped[mmaps - 1].addr = *out;
		mapped[mmaps - 1].len = len;
	}
	return rc;
}

static void use_fake(unsigned int fail)
{
	fake_sys = hgm_sys_linux;
	fake_sys.mmap = fake_mmap;
	hgm_sys = &fake_sys;
	mmaps = 0;
	fail_at = fail;
}

static struct hgm_map *make(uint64_t pages)
{
	struct hgm_map *map = NULL;

	use_fake(0);
	assert_int_equal(hgm_map_create(&map, pages), 0);
	assert_int_equal(mmaps, 3);
	return map;
}

/* Resident memory of the words (0) or leaves (1). */
static uint64_t resident(int what)
{
	static unsigned char vec[1 << 16];
	uint64_t page = (uint64_t)getpagesize();
	uint64_t pages = 0;

	for (uint64_t at = 0; at < mapped[what].len; at += sizeof(vec) * page) {
		uint64_t len = mapped[what].len - at;

		len = len < sizeof(vec) * page ? len : sizeof(vec) * page;
		assert_int_equal(mincore(mapped[what].addr + at, len, vec), 0);
		for (uint64_t i = 0; i < (len + page - 1) / page; i++)
			pages += vec[i] & 1;
	}
	return pages * page;
}

static uint64_t process_rss(void)
{
	unsigned long long size, pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%llu %llu", &size, &pages), 2);
	fclose(f);
	return pages * (uint64_t)getpagesize();
}

static void fill_leaf(struct hgm_map *map, uint64_t leaf)
{
	uint64_t mine;

	for (uint64_t w = leaf * 8; w < leaf * 8 + 8; w++) {
		assert_int_equal(hgm_map_claim(map, w, ALL, &mine), 0);
		assert_int_equal(mine, ALL);
	}
	assert_true(hgm_map_set_present(map, leaf * 512, 512));
}

static void twelve_tib(void **state)
{
	uint64_t before = process_rss();
	struct hgm_map *map = make(TIB_12);
	uint64_t mine;

	(void)state;
	assert_int_equal(resident(0) + resident(1), 0);
	assert_true(process_rss() < before + 64 * MIB);
	/* Reading the map takes no memory. */
	for (uint64_t i = 0; i < 1000; i++) {
		assert_int_equal(hgm_map_state(map, i * (TIB_12 / 1000)), HGM_PAGE_ABSENT);
		assert_int_equal(hgm_map_present_word(map, i * (TIB_12 / 64 / 1000)), 0);
	}
	assert_int_equal(resident(1), 0);
	/* One page in each of 1000 leaves: each uses a page of words, and half a byte per page. */
	for (uint64_t i = 0; i < 1000; i++) {
		assert_int_equal(hgm_map_claim(map, i * (TIB_12 / 64 / 1000), 1, &mine), 0);
		assert_int_equal(mine, 1);
	}
	assert_true(resident(0) >= 1000 * sizeof(void *));
	assert_true(resident(1) >= UINT64_C(1000) * LEAF_SIZE);
	assert_true(resident(0) + resident(1) <= 64 * MIB);
	assert_true(process_rss() < before + 64 * MIB);
	/* Both ends work. */
	assert_int_equal(hgm_map_claim(map, TIB_12 / 64 - 1, ALL, &mine), 0);
	assert_int_equal(mine, ALL);
	assert_int_equal(hgm_map_state(map, TIB_12 - 1), HGM_PAGE_CLAIMED);
	/* An idle or a full map can use at most all of the words. */
	assert_true(mapped[0].len <= 64 * MIB);
	hgm_map_destroy(map);
}

static void an_idle_word_is_8_bytes_a_leaf_half_a_byte_per_page(void **state)
{
	struct hgm_map *map = make(512 * 4096);
	uint64_t mine;

	(void)state;
	assert_int_equal(mapped[0].len, 4096 * 8);
	for (uint64_t leaf = 0; leaf < 4096; leaf++)
		assert_int_equal(hgm_map_claim(map, leaf * 8, 1, &mine), 0);
	assert_uint_in_range(resident(1), 4096 * LEAF_SIZE, 4096 * LEAF_SIZE + 2 * MIB);
	hgm_map_destroy(map);
}

/* Leaf by leaf, with a grace period in between: the same memory serves all of them. */
static void a_leaf_comes_back_after_a_grace_period(void **state)
{
	struct hgm_map *map = make(512 * 200);

	(void)state;
	/* The smallest page holds 16 leaves, and a huge page all, so check the bytes instead. */
	for (uint64_t leaf = 0; leaf < 200; leaf++) {
		fill_leaf(map, leaf);
		wait_for_deferred();
	}
	for (uint64_t i = LEAF_SIZE; i < 200 * LEAF_SIZE; i++)
		assert_int_equal(mapped[1].addr[i], 0);
	hgm_map_destroy(map);
}

/* leaf-life: not while a reader is inside, which may still access the leaf. */
static void a_leaf_does_not_come_back_before(void **state)
{
	struct hgm_map *map = make(512 * 8);
	bool used[16] = { false };

	(void)state;
	hgm_rcu_read_lock();
	for (uint64_t leaf = 0; leaf < 8; leaf++)
		fill_leaf(map, leaf);
	/* Eight leaves still have all their bits. */
	for (uint64_t n = 0; n < 16; n++)
		for (uint64_t i = 64; i < LEAF_SIZE; i++)
			used[n] |= mapped[1].addr[n * LEAF_SIZE + i] != 0;
	hgm_rcu_read_unlock();
	for (uint64_t n = 0; n < 16; n++)
		assert_int_equal(used[n], n < 8);
	wait_for_deferred();
	/* Now they are cleared. */
	for (uint64_t n = 0; n < 8; n++)
		for (uint64_t i = 64; i < LEAF_SIZE; i++)
			assert_int_equal(mapped[1].addr[n * LEAF_SIZE + i], 0);
	hgm_map_destroy(map);
}

static void no_memory_for_a_map(void **state)
{
	struct hgm_map *map = (void *)&map;
	struct holdings before;

	(void)state;
	wait_for_deferred(); /* liburcu has its thread */
	before = take_holdings();
	for (unsigned int fail = 1; fail <= 2; fail++) {
		use_fake(fail);
		assert_int_equal(hgm_map_create(&map, 512 * 100), -ENOMEM);
		assert_int_equal(mmaps, fail);
		assert_ptr_equal(map, (void *)&map); /* unchanged */
		assert_same_holdings(&before);
	}
	/* The real kernel: more than any address space can hold. */
	hgm_sys = &hgm_sys_linux;
	assert_int_equal(hgm_map_create(&map, UINT64_C(1) << 62), -ENOMEM);
	assert_same_holdings(&before);
}

static void nothing_is_left_behind(void **state)
{
	struct holdings before;
	struct hgm_map *map = make(512 * 64);

	(void)state;
	fill_leaf(map, 3);
	hgm_map_destroy(map);
	before = take_holdings();
	for (int i = 0; i < 20; i++) {
		map = make(512 * 64);
		for (uint64_t leaf = 0; leaf < 32; leaf++)
			fill_leaf(map, leaf);
		hgm_map_destroy(map);
	}
	assert_same_holdings(&before);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(twelve_tib),
	cmocka_unit_test(an_idle_word_is_8_bytes_a_leaf_half_a_byte_per_page),
	cmocka_unit_test(a_leaf_comes_back_after_a_grace_period),
	cmocka_unit_test(a_leaf_does_not_come_back_before),
	cmocka_unit_test(no_memory_for_a_map),
	cmocka_unit_test(nothing_is_left_behind),
};

TEST_MAIN(tests)
