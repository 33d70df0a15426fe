/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One fault: whose page it is, what is known of it, and who is to bring it.
 */
#include <errno.h>

#include "clock.h"
#include "engine.h"
#include "resolve.h"
#include "serve.h"
#include "trace.h"

/* -EAGAIN: neither a slot nor the page; -EINPROGRESS: the request is on its way. */
static int demand_page(struct hgm_region *r, uint64_t page)
{
	struct hgm_request *req = hgm_request_get(r, true);
	uint64_t mine = 0;

	if (!req)
		return -EAGAIN;
	if (hgm_map_claim(r->map, page / 64, UINT64_C(1) << page % 64, &mine)) {
		hgm_request_put(req);
		return -EAGAIN;
	}
	if (!mine) { /* somebody was faster since we looked: look again */
		hgm_request_put(req);
		return -EEXIST;
	}
	req->first_page = page;
	req->pages = 1;
	/*
	 * The request holds the region now: sources must not be called inside a read-side
	 * section.
	 */
	hgm_rcu_read_unlock();
	hgm_request_run(req, false);
	hgm_rcu_read_lock();
	return -EINPROGRESS;
}

/* Who comes to write need not come twice. */
static int serve_present(struct hgm_region *r, uint64_t page, uint64_t flags)
{
	int in = hgm_guard_enter(r), rc = 0;

	hgm_stat_add(r->h, HGM_STAT_FAULTS_PRESENT, 1);
	if (flags & HGM_UFFD_FAULT_WRITE)
		rc = hgm_guard_write(r, page);
	rc = rc < 0 ? -EAGAIN : hgm_resolve_present(r, page);
	hgm_guard_exit(r, in);
	return rc;
}

static int serve_page(struct hgm_region *r, uint64_t page, uint64_t flags)
{
	struct hgm *h = r->h;
	int rc = -EEXIST;

	while (rc == -EEXIST) {
		switch (hgm_map_state(r->map, page)) {
		case HGM_PAGE_PRESENT:
			return serve_present(r, page, flags);
		case HGM_PAGE_POISONED:
			return hgm_resolve_poisoned(r, page);
		case HGM_PAGE_CLAIMED: /* no-lost-waiter: its owner will wake */
			hgm_stat_add(h, HGM_STAT_FAULTS_CLAIMED, 1);
			return 0;
		case HGM_PAGE_ABSENT:
			rc = demand_page(r, page);
			if (rc == -EINPROGRESS)
				hgm_stat_add(h, HGM_STAT_FAULTS_DEMAND, 1);
			break;
		}
	}
	return rc == -EINPROGRESS ? 0 : rc;
}

static int serve_block(struct hgm_region *r, uint64_t page, uint64_t flags)
{
	uint64_t block = hgm_region_block(r, page);
	struct hgm *h = r->h;

	if (atomic_load_explicit(&r->block_state[block], memory_order_acquire) ==
	    HGM_BLOCK_POISONED)
		return hgm_resolve_poisoned(r, page);
	if (hgm_region_block_present(r, block))
		return serve_present(r, page, flags);
	hgm_stat_add(h, HGM_STAT_FAULTS_DEMAND, 1);
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

int hgm_serve(struct hgm *h, uint64_t addr, uint64_t flags)
{
	struct hgm_region *r;
	uint64_t page;
	int rc = 0;

	hgm_rcu_read_lock();
	r = hgm_table_find(atomic_load_explicit(&h->table, memory_order_acquire), addr);
	if (!r || atomic_load_explicit(&r->dying, memory_order_acquire)) {
		/* Being destroyed: its end wakes everybody. */
		hgm_stat_add(h, HGM_STAT_FAULTS_UNKNOWN, 1);
	} else {
		page = (addr - (uintptr_t)r->primary) >> HGM_PAGE_SHIFT;
		rc = flags & HGM_UFFD_FAULT_WP	  ? serve_write(r, page)
		     : hgm_region_whole_blocks(r) ? serve_block(r, page, flags)
						  : serve_page(r, page, flags);
	}
	hgm_rcu_read_unlock();
	return rc;
}
