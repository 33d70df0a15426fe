/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page-state map, one thread: states and transitions, words and leaves, the region's end.
 */
#include <stdbool.h>

#include "grace.h"
#include "map.h"
#include "random.h"
#include "test.h"

#define ALL (~UINT64_C(0))

static struct hgm_map *map;

static void make(uint64_t pages)
{
	assert_int_equal(hgm_map_create(&map, pages), 0);
	assert_int_equal(hgm_map_pages(map), pages);
}

static void unmake(void)
{
	hgm_map_destroy(map);
	map = NULL;
}

static uint64_t claim(uint64_t word, uint64_t want)
{
	uint64_t mine = 77;

	assert_int_equal(hgm_map_claim(map, word, want, &mine), 0);
	return mine;
}

static void claim_pages(uint64_t first, uint64_t pages)
{
	for (uint64_t p = first; p < first + pages; p++)
		assert_int_equal(claim(p / 64, UINT64_C(1) << p % 64), UINT64_C(1) << p % 64);
}

static void check_states(uint64_t first, uint64_t pages, enum hgm_page_state state)
{
	for (uint64_t p = first; p < first + pages; p++) {
		uint64_t bit = UINT64_C(1) << p % 64;

		if (hgm_map_state(map, p) != state)
			fail_msg("page %llu is in state %d instead of %d", (unsigned long long)p,
				 hgm_map_state(map, p), state);
		assert_int_equal(!!(hgm_map_present_word(map, p / 64) & bit),
				 state == HGM_PAGE_PRESENT);
		assert_int_equal(!!(hgm_map_absent_word(map, p / 64) & bit),
				 state == HGM_PAGE_ABSENT);
	}
}

static void a_new_map_is_absent(void **state)
{
	(void)state;
	make(1024);
	check_states(0, 1024, HGM_PAGE_ABSENT);
	assert_int_equal(hgm_map_present_pages(map), 0);
	assert_int_equal(hgm_map_poisoned_pages(map), 0);
	assert_false(hgm_map_leaf_full(map, 0));
	assert_false(hgm_map_leaf_full(map, 1));
	unmake();
}

static void a_page_goes_its_way(void **state)
{
	(void)state;
	make(512);
	claim_pages(100, 3);
	check_states(99, 1, HGM_PAGE_ABSENT);
	check_states(100, 3, HGM_PAGE_CLAIMED);
	check_states(103, 1, HGM_PAGE_ABSENT);
	assert_false(hgm_map_set_present(map, 100, 1));
	hgm_map_set_poisoned(map, 101, 1);
	hgm_map_release(map, 102, 1);
	check_states(100, 1, HGM_PAGE_PRESENT);
	check_states(101, 1, HGM_PAGE_POISONED);
	check_states(102, 1, HGM_PAGE_ABSENT);
	assert_int_equal(hgm_map_present_pages(map), 1);
	assert_int_equal(hgm_map_poisoned_pages(map), 1);
	/* Present and poisoned are for ever; released is free at once. */
	assert_int_equal(claim(1, ALL), ALL & ~(UINT64_C(3) << 36));
	check_states(100, 1, HGM_PAGE_PRESENT);
	check_states(101, 1, HGM_PAGE_POISONED);
	unmake();
}

static void claim_once_in_words(void **state)
{
	(void)state;
	make(512);
	assert_int_equal(claim(3, 0), 0);
	assert_int_equal(claim(3, 0xff00), 0xff00);
	assert_int_equal(claim(3, 0xff00), 0);
	assert_int_equal(claim(3, 0xffff), 0x00ff);
	assert_int_equal(claim(3, ALL), ALL & ~UINT64_C(0xffff));
	assert_int_equal(claim(3, ALL), 0);
	assert_int_equal(claim(4, ALL), ALL);
	check_states(3 * 64, 128, HGM_PAGE_CLAIMED);
	check_states(0, 3 * 64, HGM_PAGE_ABSENT);
	check_states(5 * 64, 3 * 64, HGM_PAGE_ABSENT);
	unmake();
}

/* Across words, and across leaves too. */
static void release_in_parts(void **state)
{
	(void)state;
	make(2048);
	claim_pages(400, 800);
	hgm_map_release(map, 500, 600);
	check_states(400, 100, HGM_PAGE_CLAIMED);
	check_states(500, 600, HGM_PAGE_ABSENT);
	check_states(1100, 100, HGM_PAGE_CLAIMED);
	claim_pages(500, 600);
	hgm_map_release(map, 400, 1);
	hgm_map_release(map, 1199, 1);
	hgm_map_release(map, 640, 64);
	check_states(400, 1, HGM_PAGE_ABSENT);
	check_states(401, 239, HGM_PAGE_CLAIMED);
	check_states(640, 64, HGM_PAGE_ABSENT);
	check_states(704, 495, HGM_PAGE_CLAIMED);
	check_states(1199, 1, HGM_PAGE_ABSENT);
	unmake();
}

static void present_in_parts_over_words(void **state)
{
	(void)state;
	make(1024);
	claim_pages(512, 512);
	assert_false(hgm_map_set_present(map, 512 + 60, 100));
	check_states(512, 60, HGM_PAGE_CLAIMED);
	check_states(512 + 60, 100, HGM_PAGE_PRESENT);
	check_states(512 + 160, 352, HGM_PAGE_CLAIMED);
	assert_int_equal(hgm_map_present_word(map, 8), UINT64_C(0xf) << 60);
	assert_int_equal(hgm_map_present_word(map, 9), ALL);
	assert_int_equal(hgm_map_present_word(map, 10), UINT64_C(0xffffffff));
	hgm_map_set_poisoned(map, 512 + 190, 10);
	check_states(512 + 190, 10, HGM_PAGE_POISONED);
	assert_int_equal(hgm_map_poisoned_pages(map), 10);
	unmake();
}

/* Each page by itself in random order: only the last one makes the leaf full, and says so. */
static void full_once(void **state)
{
	struct random random = { random_seed() };
	unsigned int order[1024] = { 0 };

	(void)state;
	for (unsigned int i = 0; i < 1024; i++) {
		unsigned int j = (unsigned int)random_below(&random, i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	make(1024);
	for (int leaf = 0; leaf < 2; leaf++) {
		unsigned int left = 512;

		for (unsigned int i = 0; i < 1024; i++) {
			if (order[i] / 512 != (unsigned int)leaf)
				continue;
			claim_pages(order[i], 1);
			assert_false(hgm_map_leaf_full(map, (uint64_t)leaf));
			assert_int_equal(hgm_map_set_present(map, order[i], 1), !--left);
		}
		assert_true(hgm_map_leaf_full(map, (uint64_t)leaf));
		assert_int_equal(hgm_map_leaf_full(map, 1), leaf);
		check_states((uint64_t)leaf * 512, 512, HGM_PAGE_PRESENT);
		assert_int_equal(claim((uint64_t)leaf * 8 + 5, ALL), 0);
	}
	assert_int_equal(hgm_map_present_pages(map), 1024);
	unmake();
}

static void full_at_a_stroke(void **state)
{
	(void)state;
	make(1536);
	claim_pages(512, 512);
	assert_true(hgm_map_set_present(map, 512, 512));
	check_states(0, 512, HGM_PAGE_ABSENT);
	check_states(512, 512, HGM_PAGE_PRESENT);
	check_states(1024, 512, HGM_PAGE_ABSENT);
	unmake();
}

static void poisoned_is_never_full(void **state)
{
	(void)state;
	make(512);
	claim_pages(0, 512);
	hgm_map_set_poisoned(map, 77, 1);
	assert_false(hgm_map_set_present(map, 0, 77));
	assert_false(hgm_map_set_present(map, 78, 434));
	assert_false(hgm_map_leaf_full(map, 0));
	check_states(77, 1, HGM_PAGE_POISONED);
	check_states(78, 434, HGM_PAGE_PRESENT);
	assert_int_equal(hgm_map_present_pages(map), 511);
	assert_int_equal(claim(1, ALL), 0);
	unmake();
}

/* A region need not end where a word or a leaf does: behind it there is nothing to claim. */
static void the_end_of_the_region(void **state)
{
	static const uint64_t sizes[] = { 1, 2, 63, 64, 65, 127, 300, 511, 513, 575, 577, 1023 };

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t pages = sizes[i];
		uint64_t leaf = (pages - 1) / 512;
		uint64_t first = leaf * 512;
		uint64_t got = 0;

		make(pages);
		check_states(first, pages - first, HGM_PAGE_ABSENT);
		for (uint64_t w = leaf * 8; w < leaf * 8 + 8; w++) {
			uint64_t mine = claim(w, ALL);

			for (uint64_t bit = 0; bit < 64; bit++)
				if (mine >> bit & 1)
					assert_true(w * 64 + bit < pages);
			got += (uint64_t)__builtin_popcountll(mine);
		}
		assert_int_equal(got, pages - first);
		assert_false(hgm_map_leaf_full(map, leaf));
		if (pages - first > 1)
			assert_false(hgm_map_set_present(map, first, pages - first - 1));
		check_states(pages - 1, 1, HGM_PAGE_CLAIMED);
		assert_true(hgm_map_set_present(map, pages - 1, 1));
		assert_true(hgm_map_leaf_full(map, leaf));
		assert_int_equal(hgm_map_present_pages(map), pages - first);
		check_states(first, pages - first, HGM_PAGE_PRESENT);
		unmake();
	}
}

/* A used leaf that serves another word must know nothing of its former life. */
static void a_used_leaf_begins_anew(void **state)
{
	(void)state;
	make(UINT64_C(512) * 40 + 5);
	for (uint64_t leaf = 0; leaf < 40; leaf++) {
		check_states(leaf * 512, 512, HGM_PAGE_ABSENT);
		claim_pages(leaf * 512, 512);
		check_states(leaf * 512, 512, HGM_PAGE_CLAIMED);
		assert_int_equal(hgm_map_set_present(map, leaf * 512, 512), true);
		wait_for_deferred();
	}
	claim_pages(40 * 512, 5);
	assert_true(hgm_map_set_present(map, 40 * 512, 5));
	unmake();
}

static void destroyed_in_any_state(void **state)
{
	(void)state;
	hgm_map_destroy(NULL);
	make(512 * 6);
	unmake(); /* untouched */
	make(512 * 6 + 1);
	claim_pages(0, 1); /* claimed */
	claim_pages(512, 512);
	hgm_map_release(map, 512, 512); /* released */
	claim_pages(1024, 512);
	hgm_map_set_present(map, 1024, 511); /* nearly full */
	claim_pages(1536, 512);
	hgm_map_set_poisoned(map, 1536, 512); /* poisoned */
	claim_pages(512 * 6, 1);	      /* the end */
	claim_pages(2048, 512);
	assert_true(hgm_map_set_present(map, 2048, 512)); /* full; on its way back */
	unmake();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(a_new_map_is_absent),
	cmocka_unit_test(a_page_goes_its_way),
	cmocka_unit_test(claim_once_in_words),
	cmocka_unit_test(release_in_parts),
	cmocka_unit_test(present_in_parts_over_words),
	cmocka_unit_test(full_once),
	cmocka_unit_test(full_at_a_stroke),
	cmocka_unit_test(poisoned_is_never_full),
	cmocka_unit_test(the_end_of_the_region),
	cmocka_unit_test(a_used_leaf_begins_anew),
	cmocka_unit_test(destroyed_in_any_state),
};

TEST_MAIN(tests)
