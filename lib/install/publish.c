/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages become present. The outcome of an installation is judged and counted. The range of a
 * CONTINUE is set up.
 */
#include <errno.h>

#include "wp.h"
#include "installs.h"
#include "region/hgm.h"
#include "resolve.h"
#include "util/trace.h"

void hgm_resolve_count(struct hgm_region *r, const struct hgm_range *range)
{
	HGM_TRACE3(install, range->addr, range->installed, range->existed);
	hgm_stat_add(&r->h->stats, HGM_STAT_INSTALLED_PAGES, range->installed >> HGM_PAGE_SHIFT);
	hgm_stat_add(&r->h->stats, HGM_STAT_EXIST, range->existed >> HGM_PAGE_SHIFT);
	hgm_stat_add(&r->h->stats, HGM_STAT_PARTIAL, range->partials);
}

/*
 * There is no memory. Log this once, until there is some again. The kernel returns ENOMEM for a
 * full tmpfs, too.
 */
static void starve(struct hgm_region *r, int rc)
{
	struct hgm_file_kind kind;

	if (rc == -ENOMEM && r->fd >= 0 && !hgm_sys->file_kind(r->fd, &kind) && kind.full)
		rc = -ENOSPC;
	/* Set this before counting: a thread that sees the count may ask for the reason. */
	atomic_store_explicit(&r->h->last_error, rc, memory_order_release);
	hgm_stat_add(&r->h->stats, HGM_STAT_NO_MEMORY, 1);
	if (atomic_exchange_explicit(&r->install->starved, true, memory_order_relaxed))
		return;
	hgm_log_some(&r->h->log, HGM_LOG_NO_MEMORY, HGM_LOG_WARNING,
		     "%s: data that has arrived for the region at %p is installed when there is "
		     "room again; until then a thread that touches it waits",
		     rc == -ENOSPC ? "ENOSPC: the file system of the region's file is full"
				   : "ENOMEM: out of memory",
		     (void *)r->view.start);
}

int hgm_resolve_outcome(struct hgm_region *r, int rc)
{
	struct hgm *h = r->h;

	switch (rc) {
	case 0:
		return 0;
	case -EAGAIN:
		hgm_stat_add(&h->stats, HGM_STAT_AGAIN, 1);
		return -EAGAIN;
	case -ESRCH:
		hgm_space_vanished(r->view.space);
		/* fallthrough */
	case -ENOENT:
		hgm_stat_add(&h->stats, HGM_STAT_VANISHED, 1);
		return -ENOENT;
	case -ENOMEM:
	case -ENOSPC:
		starve(r, rc);
		return -ENOMEM;
	}
	atomic_store_explicit(&h->last_error, rc, memory_order_relaxed);
	return rc;
}

/* The request's part of its region is finished for good. */
void hgm_resolve_settle(struct hgm_arrival *a)
{
	struct hgm_region *r = a->r;

	/* Before the pages are counted off, or the region could look complete in between. */
	if (a->filled_block)
		r->h->ops->filled(r, hgm_region_block(r, a->first_page));
	hgm_region_count_off(r, a->settling_pages);
}

bool hgm_resolve_leaf_full(struct hgm_region *r, uint64_t leaf)
{
	uint64_t leaves = r->block_bytes >> HGM_LEAF_SHIFT;
	_Atomic uint32_t *full = &r->block_full_leaves[hgm_region_block(r, leaf * HGM_LEAF_PAGES)];

	return atomic_fetch_add_explicit(full, 1, memory_order_acq_rel) + 1 == leaves;
}

bool hgm_resolve_publish(struct hgm_region *r, uint64_t first_page, uint64_t pages)
{
	return hgm_map_set_present(r->map, first_page, pages) &&
	       hgm_resolve_leaf_full(r, first_page / HGM_LEAF_PAGES);
}

int hgm_resolve_continue_run(struct hgm_region *r, uint64_t page, uint64_t pages,
			     uint64_t step_bytes, struct hgm_range *range)
{
	bool protect;
	uint64_t run = hgm_wp_run(r, page, pages, r->h->abilities.can_continue_wp, &protect);

	/* A piece larger than a page is mapped as a whole, as its strictest page requires. */
	if (run < step_bytes >> HGM_PAGE_SHIFT)
		return -EAGAIN;
	*range = (struct hgm_range){ .addr = hgm_region_at(r, page),
				     .len = (run << HGM_PAGE_SHIFT) / step_bytes * step_bytes,
				     .step = step_bytes,
				     .mode = protect ? HGM_UFFD_CONTINUE_WP : 0 };
	return 0;
}
