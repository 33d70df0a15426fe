/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Installing on hugetlb memory with high-granularity mapping.
 *
 * On this memory UFFDIO_CONTINUE maps with the largest leaf that fits the range, and never makes a
 * leaf larger afterwards. One mapped 4 KiB page costs its 2 MiB a collapse. So only pages that a
 * thread waits for are mapped one by one. Pages that fill brings stay unmapped until their leaf of
 * the map (2 MiB) is full. Then one CONTINUE maps it. A thread that touches them before that gets a
 * fault, which is answered at once.
 *
 * EEXIST from a 2 MiB CONTINUE means that a table already exists, not that anything is mapped. A
 * failed 4 KiB CONTINUE leaves an empty table, and so does discarded memory. The same range in
 * 4 KiB pieces shows the true state of each piece.
 */
#include <errno.h>

#include "wp.h"
#include "hgm_leaf.h"
#include "region/hgm.h"
#include "resolve.h"

int hgm_leaf_map(struct hgm_region *r, uint64_t page)
{
	uint64_t first = page / HGM_LEAF_PAGES * HGM_LEAF_PAGES;
	struct hgm_range range;
	int in, rc;

	in = hgm_wp_read_lock(r);
	if (hgm_resolve_continue_run(r, first, HGM_LEAF_PAGES, HGM_LEAF_BYTES, &range)) {
		rc = -EEXIST; /* not alike: piece by piece */
	} else {
		rc = hgm_range_until_exist(hgm_view_uffd(&r->view, first), &range,
					   HGM_VERB_CONTINUE, NULL);
		hgm_resolve_count(r, &range);
	}
	hgm_wp_read_unlock(r, in);
	return rc;
}

/* Will the leaf's block be collapsed as soon as the leaf is full? */
static bool collapse_is_next(const struct hgm_region *r)
{
	return r->collapses && r->block_bytes == HGM_LEAF_BYTES &&
	       !atomic_load_explicit(&r->deferred, memory_order_relaxed);
}

void hgm_leaf_choose(struct hgm_arrival *a, uint64_t pages)
{
	struct hgm_region *r = a->r;

	a->install_page = a->first_page;
	a->install_pages = pages;
	if (hgm_map_leaf_full(r->map, a->first_page / HGM_LEAF_PAGES)) {
		a->install_page = a->first_page / HGM_LEAF_PAGES * HGM_LEAF_PAGES;
		a->install_pages = HGM_LEAF_PAGES;
	} else if (!a->demand) {
		/* no-lost-waiter: threads that found the pages claimed look again */
		hgm_region_wake(r, a->first_page, pages);
		a->install_pages = 0;
	}
}

int hgm_leaf_install(struct hgm_arrival *a)
{
	struct hgm_region *r = a->r;
	int rc = hgm_leaf_map(r, a->install_page);

	if (!rc) {
		a->install_pages = 0;
		return 0;
	}
	if (rc != -EEXIST || !collapse_is_next(r))
		return rc;
	/* The collapse maps the rest in one go. */
	a->install_page = a->first_page;
	a->install_pages = a->demand ? a->settling_pages : 0;
	if (!a->demand)
		hgm_region_wake(r, a->first_page, a->settling_pages);
	return -EEXIST;
}
