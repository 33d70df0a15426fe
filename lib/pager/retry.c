/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm_region_retry(): pages that were given up are needed again. Remove their poison and make them
 * absent.
 *
 * A fault thread that found a page poisoned may be about to poison it once more. So first claim the
 * pages. Then wait until every thread that may have found them poisoned has left its read-side
 * section. Then remove the kernel's marks.
 */
#include <errno.h>
#include <stdlib.h>

#include "events.h"
#include "events_state.h"
#include "fill.h"
#include "install/resolve.h"
#include "region/hgm.h"
#include "util/bits.h"
#include "util/cancel.h"
#include "util/error.h"
#include "work.h"

/* Claim all poisoned pages. Returns how many there are. */
static uint64_t take_all(struct hgm_region *r, uint64_t *taken)
{
	uint64_t words = hgm_bits_words(hgm_region_end(r)), pages = 0;

	for (uint64_t w = 0; w < words; w++) {
		taken[w] = hgm_map_take_poisoned(r->map, w);
		pages += (uint64_t)__builtin_popcountll(taken[w]);
	}
	return pages;
}

static void release(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	hgm_map_release(r->map, page, pages);
	if (hgm_region_whole_blocks(r))
		hgm_poison_forget_block(r, hgm_region_block(r, page));
	hgm_work_wake_released(r, page, pages);
}

/* Make one word's pages absent, except those of @failed, which become poisoned again. */
static void give_word(struct hgm_region *r, uint64_t word, uint64_t bits, uint64_t failed)
{
	uint64_t first, run;

	bits &= ~failed;
	while (hgm_bits_take_run(&bits, &first, &run))
		release(r, word * HGM_PAGES_PER_WORD + first, run);
	while (hgm_bits_take_run(&failed, &first, &run)) {
		uint64_t page = word * HGM_PAGES_PER_WORD + first;

		hgm_map_set_poisoned(r->map, page, run);
		if (hgm_region_whole_blocks(r))
			hgm_poison_note_block(r, hgm_region_block(r, page));
		hgm_region_wake(r, page, run);
		atomic_fetch_sub_explicit(&r->open_pages, run, memory_order_seq_cst);
	}
}

bool hgm_retry_dropped(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t first = page + 1;

	return pages == r->map_bytes >> HGM_PAGE_SHIFT &&
	       atomic_compare_exchange_strong_explicit(&r->fill->retried, &first, 0,
						       memory_order_acq_rel, memory_order_relaxed);
}

/*
 * Remove the poison of one piece. The event that this raises is ignored. If another thread drops
 * exactly this piece at the same time, there are two events, and one of them counts. Do one piece
 * at a time, because a longer run would raise an event for each of its memory areas.
 */
static int unmap_piece(struct hgm_region *r, uint64_t page)
{
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT;
	int rc;

	atomic_store_explicit(&r->fill->retried, page / step * step + 1, memory_order_release);
	rc = hgm_poison_unmap(r, page, 1);
	if (atomic_load_explicit(&r->fill->retried,
				 memory_order_acquire)) /* read, and not noted? */
		hgm_events_settle(r->h, r->view.space);
	atomic_store_explicit(&r->fill->retried, 0, memory_order_release);
	return rc;
}

/* Pages of a word, which are all of one piece or a piece each. *bits: those that failed. */
static int unmap_word(struct hgm_region *r, uint64_t word, uint64_t *bits)
{
	int rc = 0;

	while (*bits && !rc) {
		rc = unmap_piece(r, word * HGM_PAGES_PER_WORD + (uint64_t)__builtin_ctzll(*bits));
		if (!rc)
			*bits = hgm_region_whole_blocks(r) ? 0 : *bits & (*bits - 1);
	}
	return rc;
}

/* Returns the first error and, in *at, its word. */
static int unmap_all(struct hgm_region *r, const uint64_t *taken, uint64_t words, uint64_t *at,
		     uint64_t *failed)
{
	int rc = 0;

	for (*at = 0; *at < words && !rc; *at += !rc) {
		*failed = taken[*at];
		rc = unmap_word(r, *at, failed);
	}
	return rc;
}

int hgm_region_retry(struct hgm_region *r)
{
	HGM_UNCANCELLED;
	uint64_t words, pages, *taken, at, failed;
	int rc = 0;

	if (!r)
		return hgm_fail(-EINVAL, "hgm_region_retry: the region is NULL");
	if (hgm_region_foreign(r))
		return hgm_fail(-EOPNOTSUPP, "hgm_region_retry: the memory belongs to another "
					     "process: its poison cannot be removed");
	words = hgm_bits_words(hgm_region_end(r));
	taken = calloc(words, sizeof(*taken));
	if (!taken)
		return hgm_fail(-ENOMEM, "hgm_region_retry: out of memory");
	hgm_region_unsettle(r); /* it must not look complete while pages are neither */
	pthread_mutex_lock(&r->fill->retry_lock);
	/* A page whose touch has raised SIGBUS must be poisoned in the map. */
	hgm_poison_wait(r);
	pages = take_all(r, taken);
	if (pages) {
		hgm_rcu_synchronize();
		atomic_fetch_add_explicit(&r->open_pages, pages, memory_order_seq_cst);
		rc = unmap_all(r, taken, words, &at, &failed);
		for (uint64_t w = 0; w < words; w++)
			give_word(r, w, taken[w], w < at ? 0 : w == at ? failed : taken[w]);
	}
	pthread_mutex_unlock(&r->fill->retry_lock);
	hgm_work_refill(r, hgm_region_first(r), pages ? hgm_region_pages(r) : 0);
	hgm_region_settled(r);
	free(taken);
	return rc ? hgm_fail(rc, "hgm_region_retry: MADV_DONTNEED of poisoned pages: %s",
			     hgm_errno_name(rc))
		  : 0;
}
