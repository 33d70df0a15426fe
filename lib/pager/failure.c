/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Handle a failure of a source: when the request is asked again, when its pages are given back to
 * fill, and when they are given up.
 */
#include <errno.h>

#include "install/discard.h"
#include "install/resolve.h"
#include "region/hgm.h"
#include "request.h"
#include "source/source.h"
#include "step.h"
#include "util/error.h"
#include "work.h"

#define RETRY_MAX_US 50000 /* the longest pause between tries, so also after an outage */
#define MANY_FAILING 64	   /* if more requests than this fail, fewer ask at a time */
#define SPREAD_US    1000  /* each failing request lengthens the spread of delays by this */
#define OUTAGE_ROUND 4	   /* this many failures in a row mean that the source is away */

/* Transient errors concern the path to the contents, and not the contents. */
static bool is_transient(int rc)
{
	switch (-rc) {
	case EAGAIN:
	case EBUSY:
	case EINTR:
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
	case ECOMM:
	case ECONNABORTED:
	case ECONNREFUSED:
	case ECONNRESET:
	case EHOSTDOWN:
	case EHOSTUNREACH:
	case ENETDOWN:
	case ENETRESET:
	case ENETUNREACH:
	case ENOLINK:
	case ENONET:
	case ENOTCONN:
	case EPIPE:
	case ESHUTDOWN:
	case ETIME:
	case ETIMEDOUT:
		return true;
	default:
		return false;
	}
}

/* Only demand is given up, and only after it has been tried for long enough. */
static bool may_give_up(const struct hgm_request *req)
{
	const struct hgm_opts *o = &req->in.r->h->opts;

	return req->attempt > o->retries &&
	       (!req->transient ||
		req->answered_ns - req->failed_ns >= UINT64_C(1000000) * o->outage_ms);
}

/*
 * The time until the next try. If many requests fail, only some of them ask at a time, so that they
 * do not storm a source that is away. The first good answer makes all others ask at once
 * (hgm_work_source_well()).
 */
static uint64_t backoff_us(const struct hgm_request *req)
{
	struct hgm *h = req->in.r->h;
	uint64_t first_us = h->opts.retry_first_us, us = first_us;
	uint64_t max_us = first_us > RETRY_MAX_US ? first_us : RETRY_MAX_US;
	uint64_t failing = atomic_load_explicit(&h->failing_requests, memory_order_relaxed);

	for (uint32_t i = 1; i < req->attempt && us < max_us; i++)
		us *= 2;
	us = us < max_us ? us : max_us;
	if (failing > MANY_FAILING)
		us += req->answered_ns / 1000 * (uint64_t)(req - h->requests->slot + 1) %
		      (failing * SPREAD_US);
	return us;
}

static void log_failure(struct hgm_request *req, int rc)
{
	unsigned long long at = hgm_region_source_at(req->in.r, req->in.first_page);
	unsigned long long length = hgm_request_asks(req) << HGM_PAGE_SHIFT;
	struct hgm *h = req->in.r->h;

	hgm_log_some(&h->log, HGM_LOG_SOURCE_FAILED, HGM_LOG_WARNING,
		     "source: %s for bytes [%llu, +%llu), try %u", hgm_errno_name(rc), at, length,
		     req->attempt + 1);
}

/* Fill gives back the first @pages of the request. False: they still belong to the request. */
static bool give_back(struct hgm_request *req, uint64_t pages)
{
	if (!hgm_work_fill_failed(req, pages))
		return false;
	hgm_work_wake_released(req->in.r, req->in.first_page, pages);
	return true;
}

/*
 * Fill never gives pages up, because they may not be needed before the source recovers. It gives
 * them back. The second time it goes page by page, so that a bad page does not hold up good ones.
 */
static bool fill_failed(struct hgm_request *req, unsigned int in_a_row)
{
	struct hgm_region *r = req->in.r;
	bool piecewise = req->piecewise;

	if (!hgm_step_go_on(req, 0)) /* demand has taken all pages by now */
		return false;
	if (req->tries && req->pages > 1 && !piecewise) {
		req->piecewise = true;
		req->tries++;
		return true;
	}
	piecewise &= !req->transient || in_a_row < OUTAGE_ROUND;
	for (;;) {
		uint64_t run = piecewise ? 1 : hgm_step_not_taken(req);

		if (!give_back(req, run))
			break;
		if (!hgm_step_go_on(req, run))
			return false;
		if (piecewise)
			return true;
	}
	/* There is no room to remember the pages, so they wait in the request. */
	if (!req->attempt++)
		atomic_fetch_add_explicit(&r->h->failing_requests, 1, memory_order_relaxed);
	hgm_step_put_off(req, HGM_STEP_ASK, HGM_GIVEN_UP_US);
	return false;
}

/* The first page, and so every page after it, is beyond the end of a truncated file. */
bool hgm_step_cut_off(struct hgm_request *req, int rc)
{
	if (rc != -EFAULT || req->through || req->in.r->copies ||
	    !hgm_shrunk(req->in.r, req->in.first_page))
		return false;
	hgm_poison_shrunk(req->in.r, req->in.first_page, hgm_request_asks(req));
	req->step = HGM_STEP_POISON;
	return true;
}

/* No thread waits for pages that were read ahead. Fill fetches them when the source recovers. */
static void leave_read_ahead(struct hgm_request *req)
{
	uint64_t page = req->in.first_page + req->awaited;

	if (req->through || req->awaited >= req->pages)
		return;
	hgm_work_let_go(req->in.r, page, req->pages - req->awaited);
	hgm_work_wake_released(req->in.r, page, req->pages - req->awaited);
	req->pages = req->awaited;
}

bool hgm_step_failed(struct hgm_request *req, int rc)
{
	struct hgm_source *src = req->in.r->source;
	struct hgm *h = req->in.r->h;
	unsigned int in_a_row;

	/* It was cancelled on request, which is not a failure of the source. */
	if (hgm_step_unwanted(req)) {
		hgm_request_put(req);
		return false;
	}
	hgm_kept_give_back(req);
	if (hgm_step_cut_off(req, rc))
		return true;
	/* Where only faults of user mode are served, the kernel cannot write to holes. */
	if (rc == -EFAULT && !req->through)
		hgm_discard_holes(req->in.r, req->in.first_page, req->pages);
	hgm_stat_add(&h->stats, HGM_STAT_SOURCE_ERRORS, 1);
	log_failure(req, rc);
	atomic_store_explicit(&h->last_error, rc, memory_order_relaxed);
	req->in.scribbled = true;
	req->transient = is_transient(rc);
	atomic_store_explicit(&req->in.r->scribbled, true, memory_order_release);
	in_a_row = 1 + atomic_fetch_add_explicit(&src->failures, 1, memory_order_acq_rel);
	if (!req->in.demand && !req->through)
		return fill_failed(req, in_a_row);
	if (!req->attempt++) {
		atomic_fetch_add_explicit(&h->failing_requests, 1, memory_order_relaxed);
		req->failed_ns = req->answered_ns;
		req->recoveries = atomic_load_explicit(&src->recoveries, memory_order_acquire);
	}
	if (may_give_up(req)) {
		bool split;

		leave_read_ahead(req);
		if (!req->pages) { /* the awaited pages have arrived */
			hgm_request_put(req);
			return false;
		}
		split = req->pages > 1 && !req->piecewise && !hgm_region_whole_blocks(req->in.r);

		req->piecewise |= split;
		req->step = split ? HGM_STEP_ASK : HGM_STEP_POISON;
		return true;
	}
	hgm_stat_add(&h->stats, HGM_STAT_SOURCE_RETRIES, 1);
	hgm_step_put_off(req, HGM_STEP_ASK, (uint32_t)backoff_us(req));
	return false;
}

/* A good answer. Requests that failed before it need not wait any longer. */
void hgm_step_succeeded(struct hgm_request *req)
{
	struct hgm_source *src = req->in.r->source;

	if (!atomic_load_explicit(&src->failures, memory_order_relaxed) ||
	    !atomic_exchange_explicit(&src->failures, 0, memory_order_acq_rel))
		return;
	hgm_work_source_well(req->in.r->h, src,
			     atomic_fetch_add_explicit(&src->recoveries, 1, memory_order_acq_rel));
}
