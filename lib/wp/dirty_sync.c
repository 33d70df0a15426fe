/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty tracking by wp bits: a thread that writes to a page whose wp bit is set waits for a fault
 * thread, which clears the wp bit. So a page that is present and whose wp bit is clear was written
 * to.
 *
 * The wp bits of absent pages are set too, so that their arrival does not count: they are mapped
 * write-protected. If arrivals are to count, the wp bits of absent pages stay clear, and are found
 * clear once the pages are present.
 */
#include "dirty.h"
#include "region/hgm.h"
#include "util/bits.h"

static int written(struct hgm_wp *g, struct hgm_region *r, uint64_t page, uint64_t pages)
{
	(void)g;
	hgm_wp_clear_pages(r, page, pages);
	return 0;
}

static int protect_present(struct hgm_dirty *d)
{
	struct hgm_region *r = d->r;
	uint64_t pages = r->mapped >> HGM_PAGE_SHIFT;

	for (uint64_t w = 0; w < d->words; w++)
		hgm_wp_set(r, w, hgm_map_present_word(r->map, w) & hgm_bits_low(pages - w * 64));
	hgm_wp_synchronize(r);
	return hgm_wp_ioctl(r, 0, pages, HGM_UFFD_WP_PROTECT);
}

int hgm_dirty_sync_begin(struct hgm_dirty *d)
{
	struct hgm_region *r = d->r;
	int rc = hgm_wp_register(r, 0, r->blocks);

	if (!rc)
		rc = d->flags & HGM_DIRTY_ARRIVALS
			     ? protect_present(d)
			     : hgm_wp_protect(r, 0, r->mapped >> HGM_PAGE_SHIFT);
	for (uint64_t block = 0; !rc && block < r->blocks; block++)
		hgm_wp_map_again(r, block);
	return rc;
}

static uint64_t dirty_word(const struct hgm_region *r, uint64_t word)
{
	return hgm_map_present_word(r->map, word) & ~hgm_wp_word(r, word);
}

/*
 * Protect the dirty pages of a range again. Pages that are close to each other are protected by one
 * call.
 */
static int protect_again(struct hgm_dirty *d, uint64_t page, uint64_t end, const uint64_t *dirty)
{
	uint64_t first = page / 64, from = 0, upto = 0;

	for (uint64_t w = first; w * 64 < end; w++) {
		uint64_t bits = dirty[w - first], granule = d->granule_pages;
		uint64_t low, high;

		if (!bits)
			continue;
		low = w * 64 + (uint64_t)__builtin_ctzll(bits);
		high = w * 64 + 64 - (uint64_t)__builtin_clzll(bits);
		low = low / granule * granule;
		high = (high + granule - 1) / granule * granule;
		if (upto && low <= upto + 64) {
			upto = high > upto ? high : upto;
			continue;
		}
		if (upto) {
			int rc = hgm_wp_ioctl(d->r, from, upto - from, HGM_UFFD_WP_PROTECT);

			if (rc)
				return rc;
		}
		from = low;
		upto = high;
	}
	return upto ? hgm_wp_ioctl(d->r, from, upto - from, HGM_UFFD_WP_PROTECT) : 0;
}

static int collect_piece(struct hgm_dirty *d, uint64_t page, uint64_t end)
{
	struct hgm_region *r = d->r;
	uint64_t *dirty = d->piece, first = page / 64, any = 0;
	int rc;

	for (uint64_t w = first; w * 64 < end; w++) {
		uint64_t *bits = &dirty[w - first];

		*bits = dirty_word(r, w) & hgm_bits_of_range(page, end - page, w);
		any |= *bits;
		if (*bits)
			hgm_wp_set(r, w, *bits);
	}
	if (!any)
		return 0;
	/*
	 * Threads that saw clear wp bits have mapped or released their pages by now. Pages that are
	 * write-protected from here on stay write-protected.
	 */
	hgm_wp_synchronize(r);
	rc = protect_again(d, page, end, dirty);
	for (uint64_t w = first; w * 64 < end; w++) {
		if (rc)
			hgm_wp_clear(r, w, dirty[w - first]);
		else
			atomic_fetch_or_explicit(&d->pending[w], dirty[w - first],
						 memory_order_relaxed);
	}
	return rc;
}

int hgm_dirty_sync_collect(struct hgm_dirty *d, uint64_t page, uint64_t pages)
{
	uint64_t end = page + pages;
	int rc = 0;

	/*
	 * A thread can write to a copied page before the page is present (by_copy.c). Wait for the
	 * SRCU sections in which such pages become present, or this collection would not find the
	 * write.
	 */
	hgm_wp_synchronize(d->r);
	while (page < end && !rc) {
		uint64_t piece = (page / 64 + HGM_DIRTY_PIECE_WORDS) * 64;

		piece = piece < end ? piece : end;
		rc = collect_piece(d, page, piece);
		page = piece;
	}
	return rc;
}

const struct hgm_wp_ops hgm_dirty_wp_ops = {
	.write = written,
	.removed = hgm_dirty_removed,
	.leave = hgm_dirty_leave,
	.free = hgm_dirty_free,
};
