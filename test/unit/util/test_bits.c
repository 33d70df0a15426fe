/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bits of words, compared with bits that are counted one by one.
 */
#include "util/bits.h"

#include "random.h"
#include "test.h"

#define ROUNDS 20000

static bool is_set(uint64_t word, uint64_t bit)
{
	return word >> bit & 1;
}

static void words_that_hold(void **state)
{
	(void)state;
	assert_int_equal(hgm_bits_words(0), 0);
	assert_int_equal(hgm_bits_words(1), 1);
	assert_int_equal(hgm_bits_words(64), 1);
	assert_int_equal(hgm_bits_words(65), 2);
}

static void low_bits(void **state)
{
	(void)state;
	for (uint64_t n = 0; n < 70; n++)
		for (uint64_t bit = 0; bit < 64; bit++)
			assert_int_equal(is_set(hgm_bits_low(n), bit), bit < n);
	assert_true(hgm_bits_low(UINT64_MAX) == UINT64_MAX);
}

static void bits_of_ranges(void **state)
{
	(void)state;
	for (uint64_t first = 0; first < 130; first++)
		for (uint64_t n = 1; n < 140; n++)
			for (uint64_t w = first / 64; w * 64 < first + n; w++)
				for (uint64_t bit = 0; bit < 64; bit += 7)
					assert_int_equal(
						is_set(hgm_bits_of_range(first, n, w), bit),
						w * 64 + bit >= first && w * 64 + bit < first + n);
}

/* The runs of a word add up to its bits. All bits of a run are set, and those beside it are not. */
static void runs(void **state)
{
	struct random random = { .state = random_seed() };

	(void)state;
	for (unsigned int i = 0; i < ROUNDS; i++) {
		uint64_t word = i < 4 ? (uint64_t) - (int64_t)(i % 2) : random_next(&random);
		uint64_t left = word & (i % 3 ? UINT64_MAX : random_next(&random));
		uint64_t before = left, seen = 0, first, run;

		while (hgm_bits_take_run(&left, &first, &run)) {
			assert_uint_in_range(run, 1, 64 - first);
			for (uint64_t bit = first; bit < first + run; bit++)
				assert_true(is_set(before, bit));
			assert_true(first + run == 64 || !is_set(before, first + run));
			assert_true(!first || !is_set(before, first - 1));
			assert_true(!(seen >> first));
			seen |= hgm_bits_low(run) << first;
			assert_true((seen | left) == before && !(seen & left));
		}
		assert_true(seen == before);
		assert_int_equal(hgm_bits_ones(before),
				 before == UINT64_MAX ? 64 : __builtin_ctzll(~before));
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(words_that_hold),
	cmocka_unit_test(low_bits),
	cmocka_unit_test(bits_of_ranges),
	cmocka_unit_test(runs),
};

TEST_MAIN(tests)
