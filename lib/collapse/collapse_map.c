/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Blocks that fill does not map, but leaves to their collapse.
 *
 * MADV_COLLAPSE maps a whole block, whether all of its pages are mapped or none, and is cheapest if
 * none is. So fill from front to back only makes pages present. A thread that touches a page before
 * its block is full gets a fault that is answered at once. One bit per block records that pages
 * were left. If the collapse fails or will not happen (a page was given up, or the region has a wp
 * owner), the pages that were left are mapped.
 */
#include "blocks.h"
#include "install/wp.h"
#include "install/resolve.h"
#include "region/hgm.h"
#include "util/bits.h"

static uint64_t bit_of(uint64_t block)
{
	return UINT64_C(1) << block % 64;
}

static void set_left(struct hgm_region *r, uint64_t block)
{
	atomic_fetch_or_explicit(&r->collapse->unmapped[block / 64], bit_of(block),
				 memory_order_seq_cst);
}

bool hgm_collapse_leave(struct hgm_region *r, uint64_t block)
{
	/*
	 * Pages that have arrived must be mapped: otherwise a touch by the kernel fails with
	 * EFAULT.
	 */
	if (r->h->user_mode_only)
		return false;
	if (!r->collapses || !hgm_region_block_whole(r, block) ||
	    atomic_load_explicit(&r->deferred, memory_order_relaxed) || hgm_wp_of(r))
		return false;
	/*
	 * seq_cst: either a thread that begins to write-protect sees the bit
	 * (hgm_collapse_map_all_left), or we see the wp owner.
	 */
	set_left(r, block);
	return !hgm_wp_of(r) && !hgm_map_poisoned_pages(r->map);
}

void hgm_collapse_in_doubt(struct hgm_region *r, uint64_t block)
{
	set_left(r, block);
}

void hgm_collapse_imported(struct hgm_region *r, uint64_t block)
{
	if (r->collapses && hgm_region_block_whole(r, block))
		set_left(r, block);
}

bool hgm_collapse_is_left(const struct hgm_region *r, uint64_t block)
{
	return atomic_load_explicit(&r->collapse->unmapped[block / 64], memory_order_relaxed) &
	       bit_of(block);
}

void hgm_collapse_mapped(struct hgm_region *r, uint64_t block)
{
	/* acq_rel: after this, we see the pages of the thread that set the bit as present. */
	atomic_fetch_and_explicit(&r->collapse->unmapped[block / 64], ~bit_of(block),
				  memory_order_acq_rel);
}

static void map_left(struct hgm_region *r, uint64_t block)
{
	uint64_t words = (r->block_bytes >> HGM_PAGE_SHIFT) / HGM_PAGES_PER_WORD;
	uint64_t word = block * words, end = word + words, first, run;

	if (!hgm_collapse_is_left(r, block))
		return;
	hgm_collapse_mapped(r, block);
	for (; word < end; word++) {
		uint64_t bits = hgm_map_present_word(r->map, word);

		while (hgm_bits_take_run(&bits, &first, &run))
			if (hgm_resolve_remap(r, word * HGM_PAGES_PER_WORD + first, run))
				set_left(r, block); /* not now */
	}
}

void hgm_collapse_map_left(struct hgm_region *r, uint64_t block)
{
	/* Before 6.4, mapping a page unprotects it, and the page would count as written. */
	if (r->h->abilities.can_continue_wp || !hgm_wp_of(r))
		map_left(r, block);
}

void hgm_collapse_map_all_left(struct hgm_region *r)
{
	for (uint64_t w = 0; w < hgm_bits_words(r->blocks); w++) {
		uint64_t bits =
			atomic_load_explicit(&r->collapse->unmapped[w], memory_order_seq_cst);

		for (; bits; bits &= bits - 1)
			map_left(r, w * 64 + (uint64_t)__builtin_ctzll(bits));
	}
}
