/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages whose contents are there, or have been: mapped again, never fetched again.
 */
#include <errno.h>

#include "bits.h"
#include "engine.h"
#include "leaf.h"
#include "resolve.h"
#include "sys.h"

/* The run of present pages of the window around one: how many from *first on. */
static uint64_t present_around(struct hgm_region *r, uint64_t page, uint64_t *first)
{
	uint64_t window = hgm_around_fault(&r->around, page);
	uint64_t start = page & ~(window - 1), at = page - start;
	uint64_t bits = hgm_map_present_word(r->map, page / HGM_PAGES_PER_WORD);
	uint64_t present = bits >> start % HGM_PAGES_PER_WORD & hgm_bits_low(window);
	uint64_t absent_below = ~present & hgm_bits_low(at);
	uint64_t below = absent_below ? at - 64 + (uint64_t)__builtin_clzll(absent_below) : at;
	uint64_t all = r->mapped >> HGM_PAGE_SHIFT;
	uint64_t end = page + hgm_bits_ones(present >> at);

	*first = page - below;
	return (end < all ? end : all) - *first;
}

/* Map pages up to the first that is mapped already, where the kernel stops. */
static int map_run(struct hgm_region *r, uint64_t first, uint64_t pages, bool wake_later,
		   struct hgm_range *range)
{
	int rc = hgm_resolve_continue_run(r, first, pages, r->map_bytes, range);

	if (rc)
		return rc;
	if (wake_later)
		range->mode |= HGM_UFFD_CONTINUE_DONTWAKE;
	rc = hgm_range_until_exist(hgm_region_uffd(r, first), range, HGM_VERB_CONTINUE, NULL);
	hgm_resolve_count(r, range);
	return rc;
}

/* Map a present page, or its whole block where that is the granularity, with present neighbours. */
static int map_around(struct hgm_region *r, uint64_t page, bool wake_later, bool *installed)
{
	uint64_t block_pages = r->block_bytes >> HGM_PAGE_SHIFT;
	bool whole = hgm_region_whole_blocks(r);
	struct hgm_range range = { .done = 0 };
	uint64_t first, pages, mapped;
	int rc;

	if (whole) {
		first = page / block_pages * block_pages;
		pages = block_pages;
	} else {
		pages = present_around(r, page, &first);
		/* Before 6.4 who maps a page unprotects it: only for those who asked for it. */
		if (!r->h->can_continue_wp &&
		    atomic_load_explicit(&r->guard, memory_order_relaxed)) {
			pages -= page - first;
			first = page;
		}
	}
	rc = map_run(r, first, pages, wake_later, &range);
	mapped = range.installed >> HGM_PAGE_SHIFT;
	if (!whole && range.done >> HGM_PAGE_SHIFT <= page - first && first < page) {
		/* Stopped below the page. */
		range.done = range.installed = 0;
		rc = map_run(r, page, pages - (page - first), wake_later, &range);
		mapped += range.installed >> HGM_PAGE_SHIFT;
	}
	*installed = mapped;
	if (mapped > 1 && !whole)
		hgm_stat_add(r->h, HGM_STAT_NEIGHBOUR_PAGES, mapped - 1);
	if (rc && range.done) /* the page that was asked for is mapped */
		return 0;
	if (rc == -EEXIST) {
		hgm_stat_add(r->h, HGM_STAT_EXIST, 1);
		if (!wake_later)
			hgm_resolve_wake(r, page, 1);
		return 0;
	}
	return rc == -EFAULT ? rc : hgm_resolve_outcome(r, rc);
}

int hgm_resolve_discarded(struct hgm_region *r, uint64_t page, bool *installed)
{
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT;
	struct hgm_range range = { .addr = hgm_region_at(r, page / step * step),
				   .len = r->map_bytes,
				   .step = r->map_bytes };
	struct hgm_uffd *u = hgm_region_uffd(r, page);
	int rc = hgm_guard_lift(r, page);

	if (rc)
		return rc;
	if (r->backing == HGM_BACKING_HUGETLB) { /* knows no ZEROPAGE: through the alias */
		rc = hgm_sys->madvise(r->alias + hgm_region_block(r, page) * r->block_bytes,
				      r->block_bytes, HGM_MADV_POPULATE_WRITE);
		if (!rc)
			rc = hgm_uffd_continue(u, &range);
	} else {
		rc = hgm_uffd_zeropage(u, &range);
		/* A mark of protection is in its way: without it the next fault fares better. */
		if (!rc && range.existed)
			rc = hgm_guard_release(r, page, 1);
	}
	hgm_resolve_count(r, &range);
	*installed = range.installed;
	return hgm_resolve_outcome(r, rc);
}

int hgm_resolve_present(struct hgm_region *r, uint64_t page, bool wake_later)
{
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT;
	uint64_t block = hgm_region_block(r, page);
	uint8_t before = atomic_load_explicit(&r->block_state[block], memory_order_acquire);
	bool installed = false;
	int rc = -EFAULT;

	if (r->native && hgm_map_leaf_full(r->map, page / HGM_LEAF_PAGES) &&
	    !hgm_leaf_map(r, page)) {
		installed = true;
		rc = 0;
	} else if (r->backing != HGM_BACKING_ANON) {
		rc = map_around(r, page, wake_later, &installed);
	}
	if (rc == -EFAULT)
		rc = hgm_resolve_discarded(r, page, &installed);
	if (rc && !hgm_put_off(rc) && rc != -ENOENT)
		rc = hgm_poison_present(r, page / step * step, step, rc);
	/* After the collapse, and during it, a fault that finds nothing mapped is news. */
	if (!rc && installed && r->collapses)
		hgm_collapse_touched(r, block, before);
	return rc;
}

int hgm_resolve_remap(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	int in, rc = 0;

	while (pages && !rc) {
		struct hgm_range range = { .done = 0 };

		in = hgm_guard_enter(r);
		rc = hgm_resolve_continue_run(r, page, pages, r->map_bytes, &range);
		if (!rc) {
			rc = hgm_uffd_continue(hgm_region_uffd(r, page), &range);
			hgm_resolve_count(r, &range);
		}
		hgm_guard_exit(r, in);
		page += range.done >> HGM_PAGE_SHIFT;
		pages -= range.done >> HGM_PAGE_SHIFT;
	}
	return rc;
}
