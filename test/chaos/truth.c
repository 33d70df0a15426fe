/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a page must hold.
 */
#include "chaos.h"

const struct contents chaos_contents = { .seed = 1301, .holes = true };

uint64_t truth_of(const struct arena *a, uint64_t page)
{
	return atomic_load(&a->truth[page]);
}

uint64_t next_generation(void)
{
	return 1 + atomic_fetch_add(&life.generation, 1);
}

uint64_t source_page(const struct arena *a, uint64_t page)
{
	return a->index * PAGES_MAX + page;
}

void words_expected(const struct arena *a, uint64_t page, uint64_t truth, uint64_t to[WORDS])
{
	uint64_t gen = truth & GENERATION;
	unsigned int written = truth & (PART_SOURCE | PART_ZERO) ? PART_WORDS : WORDS;

	if (is_source(truth) || truth & PART_SOURCE)
		contents_write(&chaos_contents, source_page(a, page), 1, to);
	else
		memset(to, 0, PAGE);
	if (!is_written(truth))
		return;
	for (unsigned int w = 0; w < written; w++)
		to[w] = mix(gen * PAGES_MAX + page) + w;
}

int words_wrong(const struct arena *a, uint64_t page, uint64_t truth, bool or_zero,
		const uint64_t *in)
{
	uint64_t want[WORDS];

	words_expected(a, page, truth, want);
	for (unsigned int w = 0; w < WORDS; w++)
		if (in[w] != want[w] && (in[w] || !or_zero))
			return (int)w;
	return -1;
}

/*
 * With hugetlb in whole blocks, one page that cannot be had poisons its block, including pages that
 * were discarded. Pages that were written to have arrived.
 */
bool origin_may_be_poisoned(const struct arena *a, struct origin origin, uint64_t page,
			    uint64_t truth)
{
	uint64_t block = backing_block(origin.backing) / PAGE, first = page / block * block;

	if (origin.backing < BACKINGS_SMALL)
		return is_source(truth) && supply_ever_bad(origin.supply, source_page(a, page));
	if (is_written(truth))
		return false;
	for (uint64_t p = first; p < first + block; p++)
		if (supply_ever_bad(origin.supply, source_page(a, p)))
			return true;
	return false;
}

bool may_be_poisoned(const struct arena *a, uint64_t page, uint64_t truth)
{
	return origin_may_be_poisoned(a, (struct origin){ a->backing, a->supply }, page, truth);
}
