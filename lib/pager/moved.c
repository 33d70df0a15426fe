/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Handle memory of a region that its owner has unmapped, mapped over, or moved, or whose owner is
 * gone.
 *
 * Memory that was moved is still registered at its new address, but no region is there. A fault on
 * it is poisoned, because it is no longer known which page it is.
 */
#include <errno.h>

#include "events.h"
#include "events_state.h"
#include "install/discard.h"
#include "install/wp.h"
#include "install/resolve.h"
#include "pager.h"
#include "region/hgm.h"
#include "serve.h"

void hgm_region_lost(struct hgm_region *r, uint64_t from, uint64_t to)
{
	uint64_t page = from >> HGM_PAGE_SHIFT, end = to >> HGM_PAGE_SHIFT;

	hgm_wp_removed(r, page, end - page); /* a snapshot can no longer have this memory */
	hgm_lost_mark(r, page, end);
	hgm_discard_pages(r, page, end - page);
}

int hgm_lost_release(struct hgm_region *r, uint64_t page)
{
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT, first = page / step * step;
	int rc;

	/* Another process has registered it again itself, and expects no zeroes from the kernel. */
	if (hgm_region_foreign(r)) {
		rc = hgm_poison_range(r, page, 1);
		return hgm_put_off(rc) ? rc : 0;
	}
	rc = hgm_uffd_unregister(hgm_view_uffd(&r->view, page), hgm_region_at(r, first),
				 r->map_bytes);

	if (rc == -EAGAIN)
		return rc;
	hgm_region_wake(r, page, 1);
	return 0;
}

void hgm_region_lost_all(struct hgm_region *r)
{
	atomic_store_explicit(&r->dying, true, memory_order_seq_cst);
	hgm_requests_remove(r);
	hgm_region_lost(r, r->head, r->mapped);
	hgm_requests_cancel(r);
}

/* A region that is still served, pinned, or NULL. */
static struct hgm_region *served(struct hgm *h, const struct hgm_space *space)
{
	struct hgm_region *found = NULL;
	struct hgm_table *t;

	hgm_rcu_read_lock();
	t = atomic_load_explicit(&h->table, memory_order_seq_cst);
	for (unsigned int i = 0; i < t->count && !found; i++) {
		struct hgm_region *r = t->region[i];

		if (r->view.space == space &&
		    !atomic_load_explicit(&r->dying, memory_order_acquire))
			found = r;
	}
	if (found)
		hgm_region_pin(found);
	hgm_rcu_read_unlock();
	return found;
}

void hgm_space_lost(struct hgm *h, struct hgm_space *space)
{
	struct hgm_region *r;

	/* seq_cst: a thread that adds a region to the table sees this, or the region is seen. */
	atomic_store_explicit(&space->gone, true, memory_order_seq_cst);
	while ((r = served(h, space))) {
		hgm_region_lost_all(r);
		hgm_region_unpin(r);
	}
	hgm_something_is_done(h);
	hgm_notify(h);
	hgm_log(&h->log, HGM_LOG_WARNING,
		"process %d is gone, or runs another program: its memory is no longer served",
		space->pid);
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
	h->events->moved[n].addr = addr;
	h->events->moved[n].step = r->map_bytes;
	atomic_store_explicit(&h->events->moved[n].len, len, memory_order_release);
}

int hgm_lost_fault(struct hgm *h, const struct hgm_fault *f)
{
	unsigned int n = atomic_load_explicit(&h->events->moved_count, memory_order_relaxed);
	struct hgm_range range;

	/* Another process waits until there is a region. */
	for (unsigned int i = 0; !f->space->foreign && i < n && i < HGM_MOVED_MAX; i++) {
		const struct hgm_moved *m = &h->events->moved[i];
		uint64_t len = atomic_load_explicit(&m->len, memory_order_acquire);

		if (!len || f->addr - m->addr >= len || !h->can_poison)
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
