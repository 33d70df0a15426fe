/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One fault: whose page it is, what is known of it, and who is to bring it.
 */
#include <errno.h>

#include "clock.h"
#include "engine.h"
#include "resolve.h"
#include "serve.h"
#include "source.h"
#include "trace.h"

static int claim(struct hgm_region *r, uint64_t page, uint64_t *mine)
{
	return hgm_map_claim(r->map, page / 64, UINT64_C(1) << page % 64, mine);
}

/* Pages of one leaf behind a claimed one, as far as they are waited for and nobody's. */
static uint64_t claim_behind(struct hgm_region *r, uint64_t page, uint64_t waiting_pages)
{
	uint64_t pages = 1, mine = 1;

	while (pages < waiting_pages && (page + pages) % HGM_LEAF_PAGES &&
	       page + pages < r->length >> HGM_PAGE_SHIFT) {
		if (claim(r, page + pages, &mine) || !mine)
			break;
		pages++;
	}
	return pages;
}

/*
 * Pages arrive in order: the first and the last tell of all. Behind a first one that was given up
 * the others may have come.
 */
static void note_outcome(struct hgm_region *r, uint64_t page, struct hgm_fault *f)
{
	uint64_t last = page + f->served_pages - 1;

	if (hgm_map_state(r->map, page) != HGM_PAGE_CLAIMED)
		f->owed_pages = f->served_pages;
	f->left_to_others = hgm_map_state(r->map, last) == HGM_PAGE_CLAIMED;
}

/* -EAGAIN: neither a slot nor the page; -EINPROGRESS: the request is on its way. */
static int demand_pages(struct hgm_region *r, uint64_t page, struct hgm_fault *f)
{
	struct hgm_request *req = hgm_request_get(r, true);
	uint64_t mine = 0, pages;

	if (!req)
		return -EAGAIN;
	if (claim(r, page, &mine)) {
		hgm_request_put(req);
		return -EAGAIN;
	}
	if (!mine) { /* somebody was faster since we looked: look again */
		hgm_request_put(req);
		return -EEXIST;
	}
	pages = claim_behind(r, page, f->waiting_pages);
	req->first_page = page;
	req->pages = pages;
	req->wake_later = f->wake_later;
	/*
	 * The request holds the region now: sources must not be called inside a read-side
	 * section.
	 */
	if (f->wake_later)
		hgm_region_hold(r); /* to look at what became of it */
	hgm_rcu_read_unlock();
	f->ended_ns = hgm_request_run(req, false, f->now_ns);
	f->served_pages = pages;
	if (f->wake_later) {
		note_outcome(r, page, f);
		hgm_region_drop(r);
	}
	hgm_rcu_read_lock();
	return -EINPROGRESS;
}

/* Who comes to write need not come twice. */
static int serve_present(struct hgm_region *r, uint64_t page, struct hgm_fault *f)
{
	bool wake_later = f->wake_later && !hgm_region_whole_blocks(r);
	int in = hgm_guard_enter(r), rc = 0;

	hgm_stat_add(r->h, HGM_STAT_FAULTS_PRESENT, 1);
	if (f->flags & HGM_UFFD_FAULT_WRITE)
		rc = hgm_guard_write(r, page);
	rc = rc < 0 ? -EAGAIN : hgm_resolve_present(r, page, wake_later);
	hgm_guard_exit(r, in);
	f->owed_pages = !rc && wake_later;
	return rc;
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
		case HGM_PAGE_CLAIMED: /* no-lost-waiter: its owner will wake */
			hgm_stat_add(h, HGM_STAT_FAULTS_CLAIMED, 1);
			f->left_to_others = !r->source->memory;
			return 0;
		case HGM_PAGE_ABSENT:
			rc = demand_pages(r, page, f);
			if (rc == -EINPROGRESS)
				hgm_stat_add(h, HGM_STAT_FAULTS_DEMAND, f->served_pages);
			break;
		}
	}
	return rc == -EINPROGRESS ? 0 : rc;
}

static int serve_block(struct hgm_region *r, uint64_t page, struct hgm_fault *f)
{
	uint64_t block = hgm_region_block(r, page);
	struct hgm *h = r->h;

	if (atomic_load_explicit(&r->block_state[block], memory_order_acquire) ==
	    HGM_BLOCK_POISONED)
		return hgm_resolve_poisoned(r, page);
	if (hgm_region_block_present(r, block))
		return serve_present(r, page, f);
	hgm_stat_add(h, HGM_STAT_FAULTS_DEMAND, 1);
	f->left_to_others = true;
	return hgm_work_urgent(r, block);
}

static int serve_write(struct hgm_region *r, uint64_t page)
{
	uint64_t start = hgm_now_ns();
	int in = hgm_guard_enter(r), rc = hgm_guard_fault(r, page);

	hgm_guard_exit(r, in);
	HGM_TRACE2(protect, hgm_region_at(r, page), rc);
	hgm_stat_add(r->h, rc ? HGM_STAT_WP_PUT_OFF : HGM_STAT_WP_FAULTS, 1);
	if (!rc)
		hgm_stat_phase(r->h, HGM_PHASE_PROTECT, hgm_now_ns() - start);
	return rc;
}

int hgm_serve(struct hgm *h, struct hgm_fault *f)
{
	struct hgm_region *r;
	uint64_t page;
	int rc = 0;

	f->served_pages = 1;
	f->owed_pages = 0;
	f->left_to_others = false;
	f->ended_ns = 0;
	hgm_rcu_read_lock();
	r = hgm_table_find(atomic_load_explicit(&h->table, memory_order_acquire), f->addr);
	if (!r || atomic_load_explicit(&r->dying, memory_order_acquire)) {
		/* Being destroyed: its end wakes everybody. */
		hgm_stat_add(h, HGM_STAT_FAULTS_UNKNOWN, 1);
	} else {
		page = (f->addr - (uintptr_t)r->primary) >> HGM_PAGE_SHIFT;
		rc = f->flags & HGM_UFFD_FAULT_WP ? serve_write(r, page)
		     : hgm_region_whole_blocks(r) ? serve_block(r, page, f)
						  : serve_page(r, page, f);
	}
	hgm_rcu_read_unlock();
	return rc;
}
