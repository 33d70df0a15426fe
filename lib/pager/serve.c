/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Serve one fault: find the region and the state of the page, and have the page delivered.
 */
#include <errno.h>

#include "fill.h"
#include "install/discard.h"
#include "install/wp.h"
#include "install/resolve.h"
#include "region/hgm.h"
#include "request.h"
#include "serve.h"
#include "source/source.h"
#include "util/clock.h"
#include "util/trace.h"
#include "work.h"

static int claim(struct hgm_region *r, uint64_t page, uint64_t *mine)
{
	return hgm_map_claim(r->map, page / 64, UINT64_C(1) << page % 64, mine);
}

/* Claim pages behind a claimed one, in the same leaf, while they are wanted and have no owner. */
static uint64_t claim_behind(struct hgm_region *r, uint64_t page, uint64_t wanted)
{
	uint64_t pages = 1, mine = 1;

	while (pages < wanted && (page + pages) % HGM_LEAF_PAGES &&
	       page + pages < hgm_region_end(r)) {
		if (claim(r, page + pages, &mine) || !mine)
			break;
		pages++;
	}
	return pages;
}

/*
 * Pages arrive in order, so the states of the first and the last page are enough. If the first page
 * was given up, the pages after it may have arrived.
 */
static void note_outcome(struct hgm_region *r, uint64_t page, struct hgm_fault *f)
{
	uint64_t last = page + f->served_pages - 1;

	if (hgm_map_state(r->map, page) != HGM_PAGE_CLAIMED)
		f->deferred_pages = f->served_pages;
	f->left_to_others = hgm_map_state(r->map, last) == HGM_PAGE_CLAIMED;
}

/*
 * Request claimed pages. The request holds a reference to the region from here on, so the read-side
 * section can end. Sources must not be called inside a read-side section.
 */
static void demand(struct hgm_region *r, struct hgm_request *req, uint64_t page, uint64_t pages,
		   struct hgm_fault *f)
{
	req->in.first_page = page;
	req->pages = pages;
	req->awaited = f->waiting_pages > 1 ? f->waiting_pages : 1;
	req->in.wake_later = f->wake_later;
	if (f->wake_later)
		hgm_region_ref(r); /* to look at the outcome */
	hgm_rcu_read_unlock();
	f->ended_ns = hgm_request_run(req, false, f->now_ns);
	f->served_pages = pages;
	if (f->wake_later) {
		note_outcome(r, page, f);
		hgm_region_unref(r);
	}
	hgm_rcu_read_lock();
}

/* -EAGAIN: no slot or page could be taken; -EINPROGRESS: the request is on its way. */
static int demand_pages(struct hgm_region *r, uint64_t page, struct hgm_fault *f)
{
	struct hgm_request *req = hgm_request_get(r, true);
	uint64_t mine = 0, pages, ahead = 1;

	if (!req)
		return -EAGAIN;
	if (claim(r, page, &mine)) {
		hgm_request_put(req);
		return -EAGAIN;
	}
	if (!mine) { /* another thread claimed it first: look again */
		hgm_request_put(req);
		return -EEXIST;
	}
	/* Readahead gains nothing with a memory source. Without fill, only requested pages come. */
	if (!r->source->memory && !(r->flags & HGM_REGION_NO_FILL))
		ahead = hgm_readahead_pages(&r->fill->readahead, page);
	pages = claim_behind(r, page, ahead > f->waiting_pages ? ahead : f->waiting_pages);
	demand(r, req, page, pages, f);
	return -EINPROGRESS;
}

/*
 * Serve a page that is on its way. If fill requested it, make it demand as far as possible: by a
 * request of its own, or by telling the source to hurry.
 */
static void demand_claimed(struct hgm_region *r, uint64_t page, struct hgm_fault *f)
{
	struct hgm_request_pool *pool = r->h->requests;
	struct hgm_request *req = NULL;
	uint64_t id;

	if (!atomic_load_explicit(&pool->fill_used, memory_order_relaxed) || r->source->memory)
		return;
	if (!r->copies && !r->source->hurry)
		return;
	if (r->copies)
		req = hgm_request_get(r, true);
	if (r->copies && !req)
		return;
	if (hgm_request_raise(r, page, &id) && req) {
		demand(r, req, page, 1, f);
		return;
	}
	if (req)
		hgm_request_put(req);
	if (!id)
		return;
	hgm_region_ref(r);
	hgm_rcu_read_unlock();
	r->source->hurry(r->source->user, r->h, id);
	hgm_region_unref(r);
	hgm_rcu_read_lock();
}

/* A thread that faults to write should not have to fault twice. */
static int serve_present(struct hgm_region *r, uint64_t page, struct hgm_fault *f)
{
	bool wake_later = f->wake_later && !hgm_region_whole_blocks(r);
	int in = hgm_wp_read_lock(r), rc = 0;

	hgm_stat_add(&r->h->stats, HGM_STAT_FAULTS_PRESENT, 1);
	if (f->flags & HGM_UFFD_FAULT_WRITE)
		rc = hgm_wp_write(r, page);
	rc = rc < 0 ? -EAGAIN : hgm_resolve_present(r, page, wake_later);
	hgm_wp_read_unlock(r, in);
	f->deferred_pages = !rc && wake_later;
	return rc;
}

/* Prepared memory has no holes until some of it is discarded. */
static bool found_hole(const struct hgm_region *r, const struct hgm_fault *f)
{
	return !r->copies && !(f->flags & HGM_UFFD_FAULT_MINOR);
}

/* How many faults a request answers: one per page that threads wait for, and none for others. */
static uint64_t faults_of(const struct hgm_fault *f)
{
	uint64_t waiting = f->waiting_pages > 1 ? f->waiting_pages : 1;

	return f->served_pages < waiting ? f->served_pages : waiting;
}

static int serve_page(struct hgm_region *r, uint64_t page, struct hgm_fault *f)
{
	struct hgm *h = r->h;
	int rc = -EEXIST;

	while (rc == -EEXIST) {
		switch (hgm_map_state(r->map, page)) {
		case HGM_PAGE_PRESENT:
			return serve_present(r, page, f);
		case HGM_PAGE_POISONED:
			return hgm_resolve_poisoned(r, page);
		case HGM_PAGE_DISCARDED: /* left to its owner, if it still has one */
			hgm_discard_pages(r, page, 1);
			if (hgm_map_state(r->map, page) == HGM_PAGE_PRESENT)
				break;
			/* fallthrough */
		case HGM_PAGE_CLAIMED: /* no-lost-waiter: its owner will wake */
			hgm_stat_add(&h->stats, HGM_STAT_FAULTS_CLAIMED, 1);
			f->left_to_others = !r->source->memory;
			demand_claimed(r, page, f);
			return 0;
		case HGM_PAGE_ABSENT:
			if (found_hole(r, f)) {
				hgm_discard_found(r, page);
				break;
			}
			rc = demand_pages(r, page, f);
			if (rc == -EINPROGRESS)
				hgm_stat_add(&h->stats, HGM_STAT_FAULTS_DEMAND, faults_of(f));
			break;
		}
	}
	return rc == -EINPROGRESS ? 0 : rc;
}

static int serve_block(struct hgm_region *r, uint64_t page, struct hgm_fault *f)
{
	uint64_t block = hgm_region_block(r, page);
	struct hgm *h = r->h;

	if (found_hole(r, f))
		hgm_discard_found(r, page);
	if (hgm_poison_of_block(r, block) && hgm_poison_left(r, block))
		return hgm_resolve_poisoned(r, page);
	if (hgm_region_block_present(r, block))
		return serve_present(r, page, f);
	hgm_stat_add(&h->stats, HGM_STAT_FAULTS_DEMAND, 1);
	f->left_to_others = true;
	return hgm_work_urgent(r, block);
}

static int serve_write(struct hgm_region *r, uint64_t page)
{
	uint64_t start = hgm_now_ns();
	int in = hgm_wp_read_lock(r), rc = hgm_wp_fault(r, page);

	hgm_wp_read_unlock(r, in);
	HGM_TRACE2(protect, hgm_region_at(r, page), rc);
	hgm_stat_add(&r->h->stats, rc ? HGM_STAT_WP_PUT_OFF : HGM_STAT_WP_FAULTS, 1);
	if (!rc)
		hgm_stat_phase(&r->h->stats, HGM_PHASE_PROTECT, hgm_now_ns() - start);
	return rc;
}

int hgm_serve(struct hgm *h, struct hgm_fault *f)
{
	struct hgm_region *r;
	uint64_t page;
	int rc = 0;

	f->served_pages = 1;
	f->deferred_pages = 0;
	f->left_to_others = false;
	f->ended_ns = 0;
	hgm_rcu_read_lock();
	r = hgm_table_find(atomic_load_explicit(&h->table, memory_order_acquire), f->space,
			   f->addr);
	if (!r || atomic_load_explicit(&r->dying, memory_order_acquire)) {
		/* A region that is being destroyed wakes all waiters at its end. */
		hgm_stat_add(&h->stats, HGM_STAT_FAULTS_UNKNOWN, 1);
		if (!r)
			rc = hgm_lost_fault(h, f);
	} else {
		page = (f->addr - (uintptr_t)r->view.base) >> HGM_PAGE_SHIFT;
		rc = hgm_lost_page(r, page)	    ? hgm_lost_release(r, page)
		     : f->flags & HGM_UFFD_FAULT_WP ? serve_write(r, page)
		     : hgm_region_whole_blocks(r)   ? serve_block(r, page, f)
						    : serve_page(r, page, f);
	}
	hgm_rcu_read_unlock();
	hgm_log_flush(&h->log);
	return rc;
}
