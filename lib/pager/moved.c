/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Handle memory of a region that its owner has unmapped, mapped over, or moved.
 *
 * Memory that was moved is still registered at its new address, but no region is there. A fault on
 * it is poisoned, because it is no longer known which page it is.
 */
#include <errno.h>

#include "events_state.h"
#include "install/discard.h"
#include "region/hgm.h"
#include "serve.h"

void hgm_region_lost(struct hgm_region *r, uint64_t from, uint64_t to)
{
	uint64_t page = from >> HGM_PAGE_SHIFT, end = to >> HGM_PAGE_SHIFT;

	hgm_lost_mark(r, page, end);
	hgm_discard_pages(r, page, end - page);
}

int hgm_lost_release(struct hgm_region *r, uint64_t page)
{
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT, first = page / step * step;
	int rc = hgm_uffd_unregister(hgm_view_uffd(&r->view, page), hgm_region_at(r, first),
				     r->map_bytes);

	if (rc == -EAGAIN)
		return rc;
	hgm_region_wake(r, page, 1);
	return 0;
}

void hgm_region_moved(struct hgm_region *r, uint64_t addr, uint64_t len)
{
	struct hgm *h = r->h;
	unsigned int n =
		atomic_fetch_add_explicit(&h->events->moved_count, 1, memory_order_relaxed);

	hgm_log_some(&h->log, HGM_LOG_MOVED, HGM_LOG_ERROR,
		     "mremap(2) moved %llu KiB of a region to 0x%llx: they are no longer served, "
		     "and pages that have not arrived raise SIGBUS",
		     (unsigned long long)len >> 10, (unsigned long long)addr);
	if (n >= HGM_MOVED_MAX)
		return;
	h->events->moved[n].space = r->view.space;
	h->events->moved[n].addr = addr;
	h->events->moved[n].step = r->map_bytes;
	atomic_store_explicit(&h->events->moved[n].len, len, memory_order_release);
}

int hgm_lost_fault(struct hgm *h, const struct hgm_fault *f)
{
	unsigned int n = atomic_load_explicit(&h->events->moved_count, memory_order_relaxed);
	struct hgm_range range;

	for (unsigned int i = 0; i < n && i < HGM_MOVED_MAX; i++) {
		const struct hgm_moved *m = &h->events->moved[i];
		uint64_t len = atomic_load_explicit(&m->len, memory_order_acquire);

		if (!len || m->space != f->space || f->addr - m->addr >= len || !h->can_poison)
			continue;
		range = (struct hgm_range){
			.addr = (void *)(uintptr_t)(f->addr / m->step * m->step),
			.len = m->step,
			.step = m->step,
		};
		return hgm_uffd_poison(f->space->uffd[f->stripe], &range) == -EAGAIN ? -EAGAIN : 0;
	}
	return 0;
}
