/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many pages are requested together with a demanded page: depends on sequential faults, and on
 * the time that the source takes.
 */
#include "pager/readahead.h"

#include "random.h"
#include "test.h"

#define WIDEST (UINT64_C(1) << (HGM_READAHEAD_ORDERS - 1))
#define PAGES  (UINT64_C(1) << 16)

static struct hgm_readahead ahead;

/* A source: the time for any request, and the extra time for each page. */
static uint64_t latency_ns, page_ns;

static int set_up(void **state)
{
	(void)state;
	hgm_readahead_init(&ahead);
	latency_ns = page_ns = 0;
	return 0;
}

static uint64_t ask(uint64_t page)
{
	uint64_t pages = hgm_readahead_pages(&ahead, page);

	assert_uint_in_range(pages, 1, WIDEST);
	hgm_readahead_took(&ahead, pages, latency_ns + pages * page_ns);
	return pages;
}

/* Touch all pages of [from, to) in order. Pages that came with another cause no fault. */
static uint64_t walk(uint64_t from, uint64_t to)
{
	uint64_t faults = 0;

	for (uint64_t page = from; page < to; faults++)
		page += ask(page);
	return faults;
}

static uint64_t jump(unsigned int times)
{
	struct random random = { random_seed() };
	uint64_t pages = 0;

	for (unsigned int i = 0; i < times; i++)
		pages += ask(random_below(&random, PAGES) & ~(WIDEST - 1));
	return pages;
}

static void far_away(void **state)
{
	(void)state;
	latency_ns = 100000;
	page_ns = 3300; /* 10 Gb/s */
	assert_true(walk(0, PAGES) < PAGES / WIDEST * 5 / 4);
}

/* Each further page costs as much as the first, so that readahead would not reduce the wait. */
static void slow(void **state)
{
	(void)state;
	latency_ns = 2000;
	page_ns = 33000; /* 1 Gb/s */
	assert_true(walk(0, PAGES) > PAGES * 8 / 10);
}

/* 1 Gb/s, with a latency of 10 pages: 8 pages take at most twice the time of one. */
static void in_between(void **state)
{
	uint64_t faults;

	(void)state;
	latency_ns = 330000;
	page_ns = 33000;
	faults = walk(0, PAGES);
	assert_uint_in_range(faults, PAGES / 9, PAGES / 6);
}

static void for_who_jumps_one_is_enough(void **state)
{
	(void)state;
	latency_ns = 100000;
	page_ns = 3300;
	assert_uint_in_range(jump(10000), 10000, 10300);
	walk(0, PAGES);
	jump(1000); /* the source is known by then */
	assert_uint_in_range(jump(10000), 10000, 10300);
}

/* The latency becomes longer or shorter: old values must not stay for ever. */
static void the_source_changes(void **state)
{
	(void)state;
	latency_ns = 2000;
	page_ns = 33000;
	walk(0, PAGES);
	latency_ns = 1000000;
	walk(0, PAGES);
	assert_true(walk(0, PAGES) < PAGES / WIDEST * 5 / 4);
	latency_ns = 2000;
	walk(0, PAGES);
	assert_true(walk(0, PAGES) > PAGES * 7 / 10);
}

/* For a while all answers were slow except those for one page. A single thread continues. */
static void load_passes(void **state)
{
	(void)state;
	for (uint64_t start = 0; start < 2 * WIDEST; start++) {
		set_up(state);
		latency_ns = 100000;
		page_ns = 200000;
		walk(0, PAGES);
		page_ns = 3300;
		walk(start, PAGES);
		assert_true(walk(0, PAGES) < PAGES / WIDEST * 5 / 4);
	}
}

/* The request ends at the end of the window, so that the next one is aligned. */
static void from_the_middle_of_a_window(void **state)
{
	(void)state;
	latency_ns = 100000;
	walk(0, PAGES);
	for (uint64_t page = 0; page < WIDEST; page++) {
		uint64_t pages = hgm_readahead_pages(&ahead, page);

		assert_true(pages == WIDEST - page || pages == 1);
	}
	hgm_readahead_took(&ahead, 64, 1); /* too many, or not a power of two: ignored */
	hgm_readahead_took(&ahead, 3, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(far_away, set_up),
		cmocka_unit_test_setup(slow, set_up),
		cmocka_unit_test_setup(in_between, set_up),
		cmocka_unit_test_setup(for_who_jumps_one_is_enough, set_up),
		cmocka_unit_test_setup(the_source_changes, set_up),
		cmocka_unit_test_setup(load_passes, set_up),
		cmocka_unit_test_setup(from_the_middle_of_a_window, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
