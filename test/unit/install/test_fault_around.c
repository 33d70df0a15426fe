/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fault-around window of pages that are mapped around a fault: how it adapts to the touched
 * pages.
 */
#include "install/fault_around.h"

#include "random.h"
#include "test.h"

#define SMALLEST 16
#define WIDEST	 64
#define PAGES	 (UINT64_C(1) << 20)

static struct hgm_fault_around around;

static int set_up(void **state)
{
	(void)state;
	hgm_fault_around_init(&around, SMALLEST, 2);
	return 0;
}

/* Touch all pages of [from, to) in order. Pages of a mapped window cause no fault. */
static uint64_t walk(uint64_t from, uint64_t to)
{
	uint64_t faults = 0, window;

	for (uint64_t page = from; page < to; faults++) {
		window = hgm_fault_around_fault(&around, page);
		page = (page / window + 1) * window;
	}
	return faults;
}

static uint64_t jump(unsigned int times)
{
	struct random random = { random_seed() };
	uint64_t window = 0;

	for (unsigned int i = 0; i < times; i++)
		window = hgm_fault_around_fault(&around, random_below(&random, PAGES));
	return window;
}

static void begins_small(void **state)
{
	(void)state;
	assert_int_equal(hgm_fault_around_fault(&around, 12345), SMALLEST);
}

static void grows_for_who_walks(void **state)
{
	uint64_t faults;

	(void)state;
	faults = walk(0, PAGES);
	assert_int_equal(hgm_fault_around_fault(&around, 0), WIDEST);
	assert_uint_in_range(faults, PAGES / WIDEST, PAGES / WIDEST + 100);
}

/* Several walkers, each in its own place, in turn; also backwards. */
static void grows_for_many_who_walk(void **state)
{
	uint64_t at[16], steps = 0;

	(void)state;
	for (unsigned int i = 0; i < 16; i++)
		at[i] = (i + 1) * (PAGES / 16) - 1;
	for (; steps < 1000; steps++) {
		uint64_t *page = &at[steps % 16];
		uint64_t window = hgm_fault_around_fault(&around, *page);

		*page = *page / window * window - 1;
	}
	assert_int_equal(hgm_fault_around_fault(&around, 0), WIDEST);
}

static void stays_small_for_who_jumps(void **state)
{
	(void)state;
	assert_int_equal(jump(10000), SMALLEST);
}

static void shrinks_again(void **state)
{
	(void)state;
	walk(0, PAGES);
	assert_int_equal(hgm_fault_around_fault(&around, 0), WIDEST);
	assert_int_equal(jump(200), SMALLEST);
	walk(0, PAGES);
	assert_int_equal(hgm_fault_around_fault(&around, 0), WIDEST);
}

/* Repeated faults on one page, or in one window, say nothing about the window beside it. */
static void one_place_is_no_neighbourhood(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < 1000; i++)
		assert_int_equal(hgm_fault_around_fault(&around, 160 + i % 16), SMALLEST);
}

/* The last pages of the largest region that a map supports. */
static void far_pages(void **state)
{
	uint64_t last = (UINT64_C(1) << 40) - 1;

	(void)state;
	walk(last - PAGES, last);
	assert_int_equal(hgm_fault_around_fault(&around, last), WIDEST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(begins_small, set_up),
		cmocka_unit_test_setup(grows_for_who_walks, set_up),
		cmocka_unit_test_setup(grows_for_many_who_walk, set_up),
		cmocka_unit_test_setup(stays_small_for_who_jumps, set_up),
		cmocka_unit_test_setup(shrinks_again, set_up),
		cmocka_unit_test_setup(one_place_is_no_neighbourhood, set_up),
		cmocka_unit_test_setup(far_pages, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
