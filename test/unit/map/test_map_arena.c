/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page-state map without free leaves. The test uses up the arena by hand.
 */
#include <errno.h>

#include "grace.h"
#include "map/leaf.h"
#include "test.h"

#define ALL (~UINT64_C(0))

static struct hgm_map *map;

/* Leave room for @leaves more leaves. */
static void make(uint64_t pages, uint64_t leaves)
{
	assert_int_equal(hgm_map_create(&map, pages), 0);
	assert_int_equal(map->arena_leaves, 2 * map->leaves + SPARE_LEAVES);
	atomic_store(&map->arena_next, map->arena_leaves - leaves);
}

static int claim(uint64_t leaf, uint64_t *mine)
{
	*mine = 77;
	return hgm_map_claim(map, leaf * HGM_LEAF_WORDS, ALL, mine);
}

static void no_leaf_nothing_claimed(void **state)
{
	uint64_t mine;

	(void)state;
	make(512 * 8, 2);
	for (int again = 0; again < 3; again++) {
		assert_int_equal(claim(0, &mine), 0);
		assert_int_equal(mine, again ? 0 : ALL);
		assert_int_equal(claim(1, &mine), 0);
		assert_int_equal(mine, again ? 0 : ALL);
		assert_int_equal(claim(2, &mine), -ENOMEM);
		assert_int_equal(mine, 0);
		assert_int_equal(hgm_map_state(map, 1024), HGM_PAGE_ABSENT);
	}
	assert_int_equal(atomic_load(&map->arena_next), map->arena_leaves);
	hgm_map_destroy(map);
}

static void a_full_leaf_needs_no_leaf(void **state)
{
	uint64_t mine;

	(void)state;
	make(512 * 2, 1);
	for (uint64_t w = 0; w < HGM_LEAF_WORDS; w++)
		assert_int_equal(hgm_map_claim(map, w, ALL, &mine), 0);
	assert_true(hgm_map_set_present(map, 0, 512));
	wait_for_deferred();
	assert_int_equal(claim(1, &mine), 0); /* takes the only leaf */
	assert_int_equal(mine, ALL);
	assert_int_equal(claim(0, &mine), 0); /* not -ENOMEM */
	assert_int_equal(mine, 0);
	hgm_map_destroy(map);
}

static void a_leaf_that_comes_back_serves_who_had_none(void **state)
{
	uint64_t mine;

	(void)state;
	make(512 * 64, 1);
	for (uint64_t leaf = 0; leaf < 63; leaf++) {
		hgm_rcu_read_lock();
		for (uint64_t w = leaf * 8; w < leaf * 8 + 8; w++) {
			assert_int_equal(hgm_map_claim(map, w, ALL, &mine), 0);
			assert_int_equal(mine, ALL);
		}
		assert_true(hgm_map_set_present(map, leaf * 512, 512));
		/* leaf-life: a reader is inside, so the grace period cannot have ended. */
		assert_int_equal(claim(leaf + 1, &mine), -ENOMEM);
		hgm_rcu_read_unlock();
		wait_for_deferred();
	}
	assert_int_equal(claim(63, &mine), 0);
	assert_int_equal(mine, ALL);
	hgm_map_destroy(map);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(no_leaf_nothing_claimed),
	cmocka_unit_test(a_full_leaf_needs_no_leaf),
	cmocka_unit_test(a_leaf_that_comes_back_serves_who_had_none),
};

TEST_MAIN(tests)
