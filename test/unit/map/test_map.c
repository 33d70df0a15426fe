/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page-state map with one thread: states and transitions, words and leaves, the region's end.
 */
#include <stdbool.h>

#include "grace.h"
#include "map/map.h"
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

/* Returns the pages that were in flight. */
static uint64_t discard(uint64_t word, uint64_t want, uint64_t mine)
{
	uint64_t got = 77, poisoned = 77, in_flight = 77;
	uint64_t before = hgm_map_poisoned_pages(map);

	assert_int_equal(hgm_map_discard(map, word, want, &got, &poisoned, &in_flight), 0);
	assert_int_equal(got, mine);
	assert_int_equal(poisoned & ~mine, 0);
	assert_int_equal(before - hgm_map_poisoned_pages(map),
			 (uint64_t)__builtin_popcountll(poisoned));
	return in_flight;
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
		if (state != HGM_PAGE_PRESENT)
			assert_int_equal(!!(hgm_map_discarded_word(map, p / 64) & bit),
					 state == HGM_PAGE_DISCARDED);
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
	/* A claim takes neither present nor poisoned pages. Released pages are free at once. */
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

/* Across words and across leaves. */
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

/* Single pages in random order: only the last one makes the leaf full, and reports it. */
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

/* A region need not end at the end of a word or leaf: beyond its end, there is nothing to claim. */
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

/* A reused leaf must keep nothing of its earlier contents. */
/* What was left out cannot be had, is not present, and does not keep its leaf from being full. */
static void without_its_first_pages(void **state)
{
	static const uint64_t sizes[][2] = { { 1, 1024 },  { 63, 512 }, { 64, 600 }, { 511, 1024 },
					     { 500, 512 }, { 10, 11 },	{ 70, 100 } };

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t out = sizes[i][0], pages = sizes[i][1];
		uint64_t end = pages < 512 ? pages : 512, got = 0;

		make(pages);
		hgm_map_leave_out(map, out);
		check_states(0, out, HGM_PAGE_CLAIMED);
		check_states(out, pages - out, HGM_PAGE_ABSENT);
		assert_int_equal(hgm_map_discard_leaf(map, 0), 0);
		for (uint64_t w = 0; w < 8; w++) {
			uint64_t mine = claim(w, ALL);

			for (uint64_t bit = 0; bit < 64; bit++)
				if (mine >> bit & 1)
					assert_true(w * 64 + bit >= out && w * 64 + bit < end);
			got += (uint64_t)__builtin_popcountll(mine);
			assert_int_equal(discard(w, 0, 0), 0);
		}
		assert_int_equal(got, end - out);
		if (got > 1)
			assert_false(hgm_map_set_present(map, out, got - 1));
		assert_int_equal(hgm_map_present_pages(map), got - 1);
		assert_true(hgm_map_set_present(map, end - 1, 1));
		assert_int_equal(hgm_map_present_pages(map), got);
		check_states(0, out, HGM_PAGE_CLAIMED);
		check_states(out, end - out, HGM_PAGE_PRESENT);
		check_states(end, pages - end, HGM_PAGE_ABSENT);
		if (pages == 1024) { /* the next leaf is as any other */
			claim_pages(512, 512);
			assert_true(hgm_map_set_present(map, 512, 512));
			assert_true(hgm_map_leaf_full(map, 1));
		}
		unmake();
	}
}

static void a_used_leaf_begins_anew(void **state)
{
	(void)state;
	make(UINT64_C(512) * 40 + 5);
	for (uint64_t leaf = 0; leaf < 40; leaf++) {
		check_states(leaf * 512, 512, HGM_PAGE_ABSENT);
		claim_pages(leaf * 512, 512);
		check_states(leaf * 512, 512, HGM_PAGE_CLAIMED);
		if (leaf % 2)
			for (uint64_t w = leaf * 8; w < leaf * 8 + 8; w++)
				assert_int_equal(discard(w, ALL, 0), ALL);
		assert_int_equal(hgm_map_set_present(map, leaf * 512, 512), true);
		wait_for_deferred();
	}
	claim_pages(40 * 512, 5);
	assert_true(hgm_map_set_present(map, 40 * 512, 5));
	unmake();
}

/* The discarder owns pages without an owner at once. Absent pages around them stay absent. */
static void discarded_when_absent(void **state)
{
	(void)state;
	make(1024);
	assert_int_equal(discard(2, UINT64_C(0xff0), 0xff0), 0);
	check_states(2 * 64, 4, HGM_PAGE_ABSENT);
	check_states(2 * 64 + 4, 8, HGM_PAGE_DISCARDED);
	check_states(2 * 64 + 12, 52, HGM_PAGE_ABSENT);
	assert_int_equal(claim(2, ALL), ALL & ~UINT64_C(0xff0));
	assert_false(hgm_map_set_present(map, 2 * 64 + 4, 8));
	check_states(2 * 64 + 4, 8, HGM_PAGE_PRESENT);
	assert_int_equal(hgm_map_present_pages(map), 8);
	/* A second time: present is final. */
	assert_int_equal(discard(2, UINT64_C(0xff0), 0), 0);
	check_states(2 * 64 + 4, 8, HGM_PAGE_PRESENT);
	assert_int_equal(hgm_map_present_pages(map), 8);
	unmake();
}

/* In flight: the owner finds the mark and makes the page present, or gives it back marked. */
static void discarded_when_claimed(void **state)
{
	(void)state;
	make(512);
	claim_pages(64, 4);
	assert_int_equal(discard(1, 0x7, 0), 0x7);
	assert_int_equal(discard(1, 0x7, 0), 0x7);
	check_states(64, 3, HGM_PAGE_DISCARDED);
	check_states(67, 1, HGM_PAGE_CLAIMED);
	assert_int_equal(hgm_map_discarded_word(map, 1), 0x7);
	assert_int_equal(claim(1, 0xf), 0);
	assert_false(hgm_map_set_present(map, 64, 1));
	check_states(64, 1, HGM_PAGE_PRESENT);
	hgm_map_release(map, 65, 1);
	check_states(66, 1, HGM_PAGE_DISCARDED);
	/* The next owner sees that the source must not be read. */
	assert_int_equal(claim(1, 0x2), 0x2);
	assert_true(hgm_map_discarded_word(map, 1) & 0x2);
	hgm_map_release(map, 65, 1);
	assert_int_equal(discard(1, 0x2, 0x2), 0);
	assert_false(hgm_map_set_present(map, 65, 2));
	check_states(64, 3, HGM_PAGE_PRESENT);
	check_states(67, 1, HGM_PAGE_CLAIMED);
	assert_int_equal(hgm_map_present_pages(map), 3);
	unmake();
}

/* Marked before it is discarded: an owner sees the mark. The mark makes no thread an owner. */
static void marked_before_it_is_discarded(void **state)
{
	(void)state;
	make(1024);
	hgm_map_mark_discarded(map, 8, 0xff); /* no leaf: no page of it has an owner */
	check_states(512, 512, HGM_PAGE_ABSENT);
	claim_pages(64, 4);
	hgm_map_mark_discarded(map, 1, 0x3c);
	assert_int_equal(hgm_map_discarded_word(map, 1), 0x3c);
	check_states(64, 2, HGM_PAGE_CLAIMED);
	check_states(66, 2, HGM_PAGE_DISCARDED);
	assert_int_equal(claim(1, 0x30), 0x30);
	check_states(68, 2, HGM_PAGE_DISCARDED);
	hgm_map_release(map, 68, 2);
	assert_int_equal(discard(1, 0x3c, 0x30), 0xc);
	assert_false(hgm_map_set_present(map, 64, 6));
	hgm_map_mark_discarded(map, 1, 0x1);
	check_states(64, 6, HGM_PAGE_PRESENT);
	unmake();
}

/* Poison is removed: the discarder owns the page, once, and it is not counted any more. */
static void discarded_when_poisoned(void **state)
{
	(void)state;
	make(512);
	claim_pages(0, 10);
	hgm_map_set_poisoned(map, 2, 4);
	assert_int_equal(hgm_map_poisoned_pages(map), 4);
	assert_int_equal(discard(0, 0x1e, 0x1c), 0x2);
	assert_int_equal(hgm_map_poisoned_pages(map), 1);
	check_states(1, 4, HGM_PAGE_DISCARDED);
	check_states(5, 1, HGM_PAGE_POISONED);
	/* The poison is taken, and the second discarder finds an owner. */
	assert_int_equal(discard(0, 0x1c, 0), 0x1c);
	assert_false(hgm_map_set_present(map, 1, 4));
	check_states(1, 4, HGM_PAGE_PRESENT);
	/* Poisoned after it was discarded, by an owner that did not check the mark. */
	claim_pages(100, 1);
	assert_int_equal(discard(1, UINT64_C(1) << 36, 0), UINT64_C(1) << 36);
	hgm_map_set_poisoned(map, 100, 1);
	assert_int_equal(hgm_map_state(map, 100), HGM_PAGE_POISONED);
	assert_int_equal(discard(1, UINT64_C(1) << 36, UINT64_C(1) << 36), 0);
	assert_false(hgm_map_set_present(map, 100, 1));
	assert_int_equal(hgm_map_poisoned_pages(map), 1);
	assert_int_equal(hgm_map_present_pages(map), 5);
	unmake();
}

static void discarded_pages_make_a_leaf_full(void **state)
{
	(void)state;
	make(1024);
	claim_pages(512, 500);
	assert_false(hgm_map_set_present(map, 512, 500));
	assert_int_equal(discard(15, ALL, UINT64_C(0xfff) << 52), 0);
	assert_true(hgm_map_set_present(map, 1012, 12));
	assert_true(hgm_map_leaf_full(map, 1));
	check_states(512, 512, HGM_PAGE_PRESENT);
	assert_int_equal(discard(8, ALL, 0), 0);
	assert_int_equal(hgm_map_present_pages(map), 512);
	unmake();
}

static void a_leaf_is_discarded_at_once(void **state)
{
	(void)state;
	make(512 * 3 + 70);
	assert_int_equal(hgm_map_discard_leaf(map, 1), 512);
	assert_true(hgm_map_leaf_full(map, 1));
	check_states(0, 512, HGM_PAGE_ABSENT);
	check_states(512, 512, HGM_PAGE_PRESENT);
	check_states(1024, 512, HGM_PAGE_ABSENT);
	assert_int_equal(hgm_map_present_pages(map), 512);
	/* Only once, and not if a page of the leaf was ever claimed. */
	assert_int_equal(hgm_map_discard_leaf(map, 1), 0);
	claim_pages(1024, 1);
	assert_int_equal(hgm_map_discard_leaf(map, 2), 0);
	hgm_map_release(map, 1024, 1);
	assert_int_equal(hgm_map_discard_leaf(map, 2), 0);
	check_states(1024, 512, HGM_PAGE_ABSENT);
	/* Of the last leaf, only the pages that exist. */
	assert_int_equal(hgm_map_discard_leaf(map, 3), 70);
	check_states(1536, 70, HGM_PAGE_PRESENT);
	assert_int_equal(hgm_map_present_pages(map), 512 + 70);
	unmake();
}

/* Nothing is discarded beyond the region's end. */
static void discarded_at_the_end(void **state)
{
	(void)state;
	make(70);
	assert_int_equal(discard(1, ALL, 0x3f), 0);
	assert_false(hgm_map_set_present(map, 64, 6));
	assert_int_equal(discard(0, ALL, ALL), 0);
	assert_true(hgm_map_set_present(map, 0, 64));
	assert_int_equal(hgm_map_present_pages(map), 70);
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
	cmocka_unit_test(without_its_first_pages),
	cmocka_unit_test(a_used_leaf_begins_anew),
	cmocka_unit_test(discarded_when_absent),
	cmocka_unit_test(discarded_when_claimed),
	cmocka_unit_test(marked_before_it_is_discarded),
	cmocka_unit_test(discarded_when_poisoned),
	cmocka_unit_test(discarded_pages_make_a_leaf_full),
	cmocka_unit_test(a_leaf_is_discarded_at_once),
	cmocka_unit_test(discarded_at_the_end),
	cmocka_unit_test(destroyed_in_any_state),
};

TEST_MAIN(tests)
