/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The demo's check that a copy of memory is of one instant: it passes what is, and finds each page
 * that is not.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../examples/demo/instant.h"
#include "../../examples/random.h"
#include "test.h"

#define LENGTH (UINT64_C(2) << 20)
#define SEED   7

/* A guest that has written a while, and a right copy of its memory. */
struct ground {
	uint8_t *base, *memory, *copy;
	struct writer w;
	struct instant at;
};

static void write_records(struct ground *g, int cpu, uint32_t records)
{
	while (records--)
		writer_write(&g->w, cpu);
}

static uint8_t *page_of(uint8_t *memory, uint32_t page)
{
	return memory + (uint64_t)page * GUEST_PAGE;
}

/* The last of a CPU's writes, and its page. */
static uint32_t last_page(const struct ground *g, int cpu)
{
	return writer_page(&g->w, cpu, g->at.box[cpu].sequence);
}

static void make(struct ground *g, uint32_t first, uint32_t second)
{
	uint64_t seed = SEED, i;

	g->base = malloc(LENGTH);
	g->memory = malloc(LENGTH);
	g->copy = malloc(LENGTH);
	assert_true(g->base && g->memory && g->copy);
	/* A quarter of the pages is zero, as in the demo's file. */
	for (i = 0; i < LENGTH / 8; i++)
		((uint64_t *)g->base)[i] = i / 512 % 4 ? random_next(&seed) : 0;
	memcpy(g->memory, g->base, LENGTH);
	assert_int_equal(writer_init(&g->w, g->memory, LENGTH, SEED), 0);
	write_records(g, 0, first);
	write_records(g, 1, second);
	instant_take(&g->at, &g->w, false);
	memcpy(g->copy, g->memory, LENGTH);
}

static void end(struct ground *g)
{
	writer_free(&g->w);
	free(g->base);
	free(g->memory);
	free(g->copy);
}

static void expect(struct ground *g, uint64_t newer, uint64_t older, uint64_t torn, uint64_t other)
{
	bool clean = !(newer + older + torn + other);
	struct instant_verdict v;
	int rc = instant_check(&g->at, &g->w, g->base, g->copy, &v);

	if (v.newer != newer || v.older != older || v.torn != torn || v.other != other)
		fail_msg("newer %llu, older %llu, torn %llu, other %llu; first: %s",
			 (unsigned long long)v.newer, (unsigned long long)v.older,
			 (unsigned long long)v.torn, (unsigned long long)v.other, v.first);
	assert_int_equal(rc, clean ? 0 : -EILSEQ);
	assert_int_equal(!v.first[0], clean);
}

static void right_copies_pass(void **state)
{
	static const uint32_t writes[][2] = { { 0, 0 },	    { 1, 0 },	   { 100, 7 },
					      { 479, 480 }, { 481, 5000 }, { 100000, 99999 } };
	struct ground g;

	(void)state;
	for (unsigned int i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
		make(&g, writes[i][0], writes[i][1]);
		expect(&g, 0, 0, 0, 0);
		end(&g);
	}
}

/* Each page that a further write goes to, one by one, but the one that it may have begun with. */
static void one_page_newer(void **state)
{
	uint8_t right[GUEST_PAGE];
	uint32_t page, seen;
	struct ground g;

	(void)state;
	make(&g, 700, 900);
	write_records(&g, 1, 1);
	for (seen = 0; seen < 600; seen++) {
		write_records(&g, 1, 1);
		page = writer_page(&g.w, 1, writer_sequence(&g.w, 1));
		if (page == g.at.page[1])
			continue;
		memcpy(right, page_of(g.copy, page), GUEST_PAGE);
		memcpy(page_of(g.copy, page), page_of(g.memory, page), GUEST_PAGE);
		expect(&g, 1, 0, 0, 0);
		memcpy(page_of(g.copy, page), right, GUEST_PAGE);
	}
	expect(&g, 0, 0, 0, 0);
	end(&g);
}

static void one_page_older(void **state)
{
	struct ground g;
	uint32_t page;

	(void)state;
	/* It lacks its only write, so it is as it was at first. */
	make(&g, 100, 0);
	page = writer_page(&g.w, 0, 99);
	memcpy(page_of(g.copy, page), page_of(g.base, page), GUEST_PAGE);
	expect(&g, 0, 1, 0, 0);
	end(&g);

	/* It lacks its last write: the one before is there, a round of the schedule earlier. */
	make(&g, 5000, 5000);
	page = writer_page(&g.w, 1, 4999);
	assert_true(page != g.at.page[1]);
	writer_record(page_of(g.copy, page), page, 4999 - g.w.scheduled);
	expect(&g, 0, 1, 0, 0);
	end(&g);
}

/* The first @words of a record are of another write than the others. */
static void mix(struct ground *g, uint32_t page, const uint8_t *with, unsigned int words)
{
	size_t length = (size_t)(words - 1) * RECORD_STRIDE + 4;

	memcpy(page_of(g->copy, page), with, length);
}

static void one_page_torn(void **state)
{
	uint8_t other[GUEST_PAGE] __attribute__((aligned(4)));
	unsigned int words;
	struct ground g;
	uint32_t page;

	(void)state;
	make(&g, 5000, 5000);
	page = last_page(&g, 0);
	assert_true(page != g.at.page[0]);
	for (words = 1; words < RECORD_WORDS; words++) {
		/* word 0, the page, is the same in both */
		memcpy(other, page_of(g.base, page), GUEST_PAGE);
		writer_record(other, page, 5000 - g.w.scheduled);
		mix(&g, page, other, words);
		expect(&g, 0, 0, words > 1, 0);
		writer_record(other, page, 5000 + g.w.scheduled);
		mix(&g, page, other, words);
		expect(&g, 0, 0, words > 1, 0);
		memcpy(page_of(g.copy, page), page_of(g.memory, page), GUEST_PAGE);
	}
	expect(&g, 0, 0, 0, 0);
	end(&g);
}

static void something_else(void **state)
{
	uint32_t page, from;
	struct ground g;
	uint64_t i;

	(void)state;
	make(&g, 3000, 4000);
	/* A single bit, wherever it is. */
	for (i = 0; i < LENGTH; i += 4093) {
		struct instant_verdict v;

		g.copy[i] ^= 0x10;
		assert_int_equal(instant_check(&g.at, &g.w, g.base, g.copy, &v), -EILSEQ);
		assert_int_equal(v.newer + v.older + v.torn + v.other, 1);
		g.copy[i] ^= 0x10;
	}
	/* A page where another belongs, and one of nothing that was ever there. */
	page = last_page(&g, 0);
	from = last_page(&g, 1);
	memcpy(page_of(g.copy, page), page_of(g.memory, from), GUEST_PAGE);
	expect(&g, 0, 0, 0, 1);
	memset(page_of(g.copy, page), 0x5a, GUEST_PAGE);
	expect(&g, 0, 0, 0, 1);
	end(&g);
}

/* The page in which a CPU was stopped must be what it was then, half written or not. */
static void the_page_being_written(void **state)
{
	uint8_t half[GUEST_PAGE] __attribute__((aligned(4)));
	struct ground g;
	uint32_t page;

	(void)state;
	make(&g, 5000, 6000);
	page = g.at.page[0];
	memcpy(half, page_of(g.memory, page), GUEST_PAGE);
	writer_record(half, page, 5001);
	memcpy(half + GUEST_PAGE / 2, page_of(g.memory, page) + GUEST_PAGE / 2, GUEST_PAGE / 2);
	expect(&g, 0, 0, 0, 0);

	/* It is whole in the copy, and was not begun with at the instant. */
	writer_record(page_of(g.copy, page), page, 5001);
	expect(&g, 1, 0, 0, 0);

	/* It was half written at the instant: neither whole nor untouched will do. */
	memcpy(g.at.writing[0], half, GUEST_PAGE);
	expect(&g, 1, 0, 0, 0);
	memcpy(page_of(g.copy, page), half, GUEST_PAGE);
	expect(&g, 0, 0, 0, 0);
	memcpy(page_of(g.copy, page), page_of(g.memory, page), GUEST_PAGE);
	expect(&g, 0, 1, 0, 0);
	end(&g);
}

/* A right copy, but of an instant a few writes later or earlier. */
static void another_instant(void **state)
{
	struct instant_verdict v;
	struct ground g;

	(void)state;
	make(&g, 2000, 2000);
	write_records(&g, 0, 30);
	memcpy(g.copy, g.memory, LENGTH);
	assert_int_equal(instant_check(&g.at, &g.w, g.base, g.copy, &v), -EILSEQ);
	assert_true(v.newer >= 15 && v.newer <= 30);
	assert_int_equal(v.older + v.torn + v.other, 0);

	instant_take(&g.at, &g.w, false);
	expect(&g, 0, 0, 0, 0);
	write_records(&g, 1, 30);
	instant_take(&g.at, &g.w, false);
	assert_int_equal(instant_check(&g.at, &g.w, g.base, g.copy, &v), -EILSEQ);
	assert_true(v.older >= 15 && v.older <= 30);
	assert_int_equal(v.newer + v.torn + v.other, 0);
	end(&g);
}

/* The schedules: each page has one CPU, and every round comes to all of them. */
static void schedules(void **state)
{
	uint8_t owner[LENGTH / GUEST_PAGE] = { 0 };
	struct ground g;
	uint32_t n;
	int cpu;

	(void)state;
	make(&g, 0, 0);
	for (cpu = 0; cpu < GUEST_CPUS; cpu++) {
		for (n = 1; n <= g.w.scheduled; n++) {
			owner[writer_page(&g.w, cpu, n)] |= 1 << cpu;
			assert_int_equal(writer_page(&g.w, cpu, n),
					 writer_page(&g.w, cpu, n + g.w.scheduled));
		}
	}
	for (n = 0; n < LENGTH / GUEST_PAGE; n++)
		assert_true(owner[n] == 1 || owner[n] == 2);
	end(&g);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(schedules),
	cmocka_unit_test(right_copies_pass),
	cmocka_unit_test(one_page_newer),
	cmocka_unit_test(one_page_older),
	cmocka_unit_test(one_page_torn),
	cmocka_unit_test(something_else),
	cmocka_unit_test(the_page_being_written),
	cmocka_unit_test(another_instant),
};

TEST_MAIN(tests)
