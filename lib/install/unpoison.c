/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Poison that goes away: of discarded pages, and of blocks without a page that was given up.
 */
#include <errno.h>

#include "discard.h"
#include "installs.h"
#include "kinds.h"
#include "region/hgm.h"
#include "resolve.h"
#include "util/bits.h"

/* Copy zeroes, write-protected if the wp bits of the pages are set. */
static int copy_zeroes(struct hgm_region *r, uint64_t page, uint64_t pages, struct hgm_range *range)
{
	int in = hgm_wp_read_lock(r), rc = -EAGAIN;
	bool protect;

	if (hgm_wp_run(r, page, pages, true, &protect) == pages) {
		range->mode = protect ? HGM_UFFD_COPY_WP : 0;
		rc = hgm_uffd_copy(hgm_view_uffd(&r->view, page), range, r->zeroes);
	}
	hgm_wp_read_unlock(r, in);
	return rc;
}

/*
 * COPY of zeroes replaces poison, unless the file still has the page. In that case the poison, also
 * in the map, is left to the thread that is about to drop the page.
 */
static int unpoison(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t unit = r->unit_bytes;
	uint64_t unit_pages = unit >> HGM_PAGE_SHIFT;
	uint64_t existed = 0;
	int rc = 0;

	/* A block must not be mapped before all owners of its pages have dropped them. */
	if (!r->can_poison || hgm_region_whole_blocks(r))
		return 0;
	for (page = page / unit_pages * unit_pages; pages && !rc; page += unit_pages) {
		struct hgm_range range = { .addr = hgm_region_at(r, page),
					   .len = unit,
					   .step = unit };

		rc = copy_zeroes(r, page, unit_pages, &range);
		rc = hgm_shrunk_outcome(r, page, rc == -ENOENT ? 0 : rc);
		existed += range.existed;
		pages -= pages < unit_pages ? pages : unit_pages;
	}
	return rc ? rc : existed ? -EEXIST : 0;
}

int hgm_poison_undo(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t run;
	int rc = 0;

	if (atomic_load_explicit(&r->install->has_poison, memory_order_relaxed) &&
	    hgm_discard_front(r, page, pages, &run))
		rc = unpoison(r, page, run);
	return rc == -EEXIST ? 0 : rc;
}

void hgm_poison_heal(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	for (uint64_t w = page / 64; w * 64 < page + pages; w++) {
		uint64_t low, run;
		uint64_t bits = hgm_map_discarded_word(r->map, w) | hgm_map_present_word(r->map, w);

		bits &= hgm_bits_of_range(page, pages, w);
		while (hgm_bits_take_run(&bits, &low, &run))
			if (!unpoison(r, w * 64 + low, run) || r->backing == HGM_BACKING_ANON)
				hgm_discard_pages(r, w * 64 + low, run);
	}
}

int hgm_poison_unmap(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t at = (page << HGM_PAGE_SHIFT) / r->map_bytes * r->map_bytes;
	uint64_t end = (page + pages) << HGM_PAGE_SHIFT;

	end = (end + r->map_bytes - 1) / r->map_bytes * r->map_bytes;
	/* Not what the caller has mapped there since. */
	for_each_kept (r, at, end, from, len) {
		int rc = hgm_view_drop(&r->view, from, len);

		if (rc)
			return rc;
	}
	return 0;
}

bool hgm_poison_of_block(const struct hgm_region *r, uint64_t block)
{
	return hgm_bits_test(r->install->block_poisoned, block);
}

void hgm_poison_note_block(struct hgm_region *r, uint64_t block)
{
	atomic_fetch_or_explicit(&r->install->block_poisoned[block / 64], UINT64_C(1) << block % 64,
				 memory_order_seq_cst);
}

static bool has_poisoned_page(const struct hgm_region *r, uint64_t block)
{
	uint64_t page = block * (r->block_bytes >> HGM_PAGE_SHIFT);
	uint64_t end = page + (r->block_bytes >> HGM_PAGE_SHIFT);

	while (page < end && hgm_map_state(r->map, page) != HGM_PAGE_POISONED)
		page++;
	return page < end;
}

void hgm_poison_forget_block(struct hgm_region *r, uint64_t block)
{
	atomic_fetch_and_explicit(&r->install->block_poisoned[block / 64],
				  ~(UINT64_C(1) << block % 64), memory_order_seq_cst);
	/*
	 * Another owner may have given up a page of the block since the caller looked. It sets the
	 * bit after the map, and this may have cleared it again. Threads that found it clear wait
	 * for the block, and must look again.
	 */
	if (!has_poisoned_page(r, block))
		return;
	hgm_poison_note_block(r, block);
	hgm_region_wake(r, block * (r->block_bytes >> HGM_PAGE_SHIFT), 1);
}

bool hgm_poison_left(struct hgm_region *r, uint64_t block)
{
	if (has_poisoned_page(r, block))
		return true;
	if (!hgm_poison_of_block(r, block))
		return false;
	/* It is fetched as any other from now on. Threads that waited for it were told. */
	r->h->ops->not_urgent(r, block);
	hgm_poison_forget_block(r, block);
	return hgm_poison_of_block(r, block);
}

/*
 * The poison of a block is removed with the last of its pages that were given up. A thread that
 * found such a page a moment ago, and makes the block poison, reads the event of this as well.
 */
int hgm_drop_poison_of_blocks(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t block_pages = r->block_bytes >> HGM_PAGE_SHIFT, end = page + pages;
	int rc = 0;

	for (page = page / block_pages * block_pages; page < end && !rc; page += block_pages)
		if (!hgm_poison_left(r, page / block_pages))
			rc = hgm_poison_unmap(r, page, block_pages);
	return rc;
}
