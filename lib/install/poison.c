/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages that are given up because the source failed for good, or because the kernel will not map
 * them. They become poison, so that touching them raises SIGBUS. A page never reaches the guest
 * with wrong bytes, nor silently as zeroes.
 */
#include <errno.h>

#include "discard.h"
#include "installs.h"
#include "region/hgm.h"
#include "resolve.h"
#include "util/error.h"

void hgm_poison_shrunk(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	atomic_store_explicit(&r->h->last_error, -ENODATA, memory_order_relaxed);
	hgm_notify(r->h);
	hgm_log_some(&r->h->log, HGM_LOG_SHRUNK, HGM_LOG_ERROR,
		     "the region's file was truncated: %llu KiB at %p are beyond its end and raise "
		     "SIGBUS; F_SEAL_SHRINK prevents this",
		     (unsigned long long)pages * HGM_PAGE_BYTES >> 10, hgm_region_at(r, page));
}

static int poison_once(struct hgm_region *r, uint64_t page, uint64_t pages, struct hgm_range *range)
{
	*range = (struct hgm_range){ .addr = hgm_region_at(r, page),
				     .len = pages << HGM_PAGE_SHIFT,
				     .step = r->map_bytes };
	/* A thread that drops memory after this looks for poison, too. */
	atomic_store_explicit(&r->install->has_poison, true, memory_order_seq_cst);
	return r->can_poison ? hgm_uffd_poison(hgm_view_uffd(&r->view, page), range) : -EOPNOTSUPP;
}

/*
 * UFFDIO_POISON of a range. *done: pages that became poison by this call. UFFDIO_POISON replaces
 * neither a page nor a protection mark. So the mark is removed first: a page that is never mapped
 * needs none.
 */
static int poison_range(struct hgm_region *r, uint64_t page, uint64_t pages, uint64_t *done)
{
	struct hgm_range range;
	int rc = poison_once(r, page, pages, &range);

	*done = range.installed >> HGM_PAGE_SHIFT;
	if (rc && hgm_shrunk(r, page + (range.done >> HGM_PAGE_SHIFT)))
		return 0;
	if (rc || !range.existed ||
	    !atomic_load_explicit(&r->install->wp_registered, memory_order_acquire))
		return rc;
	rc = hgm_wp_release(r, page, pages);
	if (!rc)
		rc = poison_once(r, page, pages, &range);
	*done += range.installed >> HGM_PAGE_SHIFT;
	return rc;
}

int hgm_poison_range(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t done;

	return poison_range(r, page, pages, &done);
}

/* 0: it is poison, or gone. -EAGAIN: not now, or not on this kernel; the caller is told. */
static int poison_or_wait(struct hgm_region *r, uint64_t page, uint64_t pages, int why,
			  uint64_t *done)
{
	int rc;

	*done = 0;
	if (why == -ENOENT) { /* no thread can touch it */
		atomic_store_explicit(&r->h->last_error, why, memory_order_relaxed);
		return 0;
	}
	hgm_notify(r->h);
	rc = poison_range(r, page, pages, done);
	if (!rc && why == -EFAULT && hgm_shrunk(r, page)) {
		hgm_poison_shrunk(r, page, pages);
		return 0;
	}
	hgm_log_some(&r->h->log, HGM_LOG_GIVEN_UP, HGM_LOG_ERROR,
		     "the kernel refuses to map %llu KiB at %p: %s; %s",
		     (unsigned long long)pages * HGM_PAGE_BYTES >> 10, hgm_region_at(r, page),
		     hgm_errno_name(why),
		     rc ? "a thread that touches them waits" : "they are poisoned");
	return rc ? -EAGAIN : 0;
}

/*
 * Present pages that cannot be mapped must not leave their waiters asleep and must not count as
 * good. The request and a waiter's own fault may both come here. The thread that made a page poison
 * counts it. The other must not let the region look complete before the page is counted.
 */
int hgm_poison_present(struct hgm_region *r, uint64_t page, uint64_t pages, int why)
{
	uint64_t done;
	int rc;

	hgm_region_unsettle(r);
	rc = poison_or_wait(r, page, pages, why, &done);
	if (!rc) {
		hgm_region_wake(r, page, pages);
		atomic_fetch_add_explicit(&r->install->refused_pages, done, memory_order_relaxed);
		hgm_stat_add(&r->h->stats, HGM_STAT_POISONED_PAGES, done);
	}
	hgm_region_settled(r);
	return rc;
}

int hgm_poison_uncopied(struct hgm_arrival *a, int why)
{
	struct hgm_region *r = a->r;
	unsigned int in = hgm_srcu_read_lock(&r->install->giving_up);
	uint64_t done;
	int rc = poison_or_wait(r, a->install_page, 1, why, &done);

	if (!rc)
		hgm_map_set_poisoned(r->map, a->install_page, 1);
	hgm_srcu_read_unlock(&r->install->giving_up, in);
	if (rc)
		return -EAGAIN;
	hgm_region_wake(r, a->install_page, 1);
	hgm_stat_add(&r->h->stats, HGM_STAT_POISONED_PAGES, 1);
	return 0;
}

void hgm_poison_wait(struct hgm_region *r)
{
	hgm_srcu_synchronize(&r->install->giving_up);
}

uint64_t hgm_region_poisoned_bytes(const struct hgm_region *r)
{
	return (hgm_map_poisoned_pages(r->map) +
		atomic_load_explicit(&r->install->refused_pages, memory_order_relaxed))
	       << HGM_PAGE_SHIFT;
}

/* Poison the first @pages of a request, also in the map. */
static int poison_claimed(struct hgm_arrival *a, uint64_t pages)
{
	struct hgm_region *r = a->r;
	uint64_t block = hgm_region_block(r, a->first_page), run;
	int rc;

	/* If the discard is already known, do not poison the pages even for a moment. */
	if (hgm_discard_front(r, a->first_page, pages, &run))
		return -EAGAIN;
	if (hgm_region_whole_blocks(r)) /* the next touch poisons it, or the kernel does */
		rc = r->can_poison || hgm_shrunk(r, a->first_page) ? 0 : -EOPNOTSUPP;
	else
		rc = hgm_poison_range(r, a->first_page, pages);
	if (rc == -EAGAIN)
		hgm_stat_add(&r->h->stats, HGM_STAT_AGAIN, 1);
	if (rc == -ENOENT || rc == -ESRCH)
		rc = 0;
	if (rc)
		return rc;
	if (r->copies && !a->on_fault_thread)
		hgm_reads_wait_marks(r, a->first_page);
	/* A thread that waited for it may already have gone on and discarded it. */
	if (hgm_discard_front(r, a->first_page, pages, &run))
		return -EAGAIN;
	hgm_map_set_poisoned(r->map, a->first_page, pages);
	if (hgm_region_whole_blocks(r)) /* after the map: else it looks healed */
		hgm_poison_note_block(r, block);
	hgm_poison_heal(r, a->first_page, pages);
	return 0;
}

int hgm_resolve_poison(struct hgm_arrival *a, uint64_t pages)
{
	struct hgm_region *r = a->r;
	uint64_t page = a->first_page;
	bool holds_events = r->copies && !a->on_fault_thread;
	unsigned int in;
	int rc;

	/*
	 * First note the events that were read, and let no other event be read meanwhile, because
	 * the kernel drops its pages after it is read. Otherwise a page could become poison after
	 * it was dropped, and stay poison. A fault thread reads the events of its pages itself.
	 */
	if (holds_events)
		hgm_reads_hold(r, page);
	in = hgm_srcu_read_lock(&r->install->giving_up);
	rc = poison_claimed(a, pages);
	hgm_srcu_read_unlock(&r->install->giving_up, in);
	if (holds_events)
		hgm_reads_release(r, page);
	if (rc)
		return rc;
	hgm_region_wake(r, page, pages);
	hgm_stat_add(&r->h->stats, HGM_STAT_POISONED_PAGES, pages);
	r->h->ops->map_left(r, hgm_region_block(r, page)); /* the block will never be full */
	a->settling_pages = pages;
	a->filled_block = false;
	hgm_resolve_settle(a);
	hgm_notify(r->h);
	if (hgm_shrunk(r, page)) /* already reported */
		return 0;
	hgm_log_some(&r->h->log, HGM_LOG_GIVEN_UP, HGM_LOG_ERROR,
		     "the source failed for good: %llu KiB at %p are poisoned",
		     (unsigned long long)pages * HGM_PAGE_BYTES >> 10, hgm_region_at(r, page));
	return 0;
}

int hgm_resolve_poisoned(struct hgm_region *r, uint64_t page)
{
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT;
	int rc = hgm_poison_range(r, page / step * step, step);

	if (hgm_put_off(rc))
		return rc;
	/* Without poison the waiter goes on waiting. If woken, it would only fault again. */
	if (rc != -EOPNOTSUPP)
		hgm_region_wake(r, page, 1);
	return 0;
}
