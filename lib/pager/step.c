/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The steps of a request that all of its stages have in common. step.h describes the return values.
 */
#include <errno.h>

#include "region/hgm.h"
#include "request.h"
#include "step.h"
#include "util/clock.h"

#define PUT_OFF_MIN_US 50 /* after EAGAIN: about as long as a collapse takes */
#define PUT_OFF_MAX_US 100000

void hgm_step_put_off(struct hgm_request *req, enum hgm_request_step step, uint32_t us)
{
	req->step = step;
	hgm_request_queue_later(req, hgm_now_ns() + UINT64_C(1000) * us);
}

/* The kernel returned EAGAIN or has no memory. Try again later, with a longer delay each time. */
bool hgm_step_put_off_by_kernel(struct hgm_request *req, enum hgm_request_step step)
{
	req->in.backoff_us = req->in.backoff_us * 2;
	if (req->in.backoff_us < PUT_OFF_MIN_US)
		req->in.backoff_us = PUT_OFF_MIN_US;
	if (req->in.backoff_us > PUT_OFF_MAX_US)
		req->in.backoff_us = PUT_OFF_MAX_US;
	hgm_step_put_off(req, step, req->in.backoff_us);
	return false;
}

void hgm_step_advance(struct hgm_request *req, uint64_t pages)
{
	req->in.first_page += pages;
	req->pages -= pages;
	req->delivered -= pages < req->delivered ? pages : req->delivered;
	req->awaited -= pages < req->awaited ? pages : req->awaited;
	req->taken = pages < 64 ? req->taken >> pages : 0;
}

/* The number of pages from the first one on, up to the first one that demand has taken over. */
uint64_t hgm_step_not_taken(const struct hgm_request *req)
{
	return req->taken ? (uint64_t)__builtin_ctzll(req->taken) : req->pages;
}

bool hgm_step_go_on(struct hgm_request *req, uint64_t settled)
{
	hgm_step_advance(req, settled);
	while (req->taken & 1 && !req->through)
		hgm_step_advance(req, 1);
	if (!req->pages) {
		hgm_request_put(req);
		return false;
	}
	req->step = req->delivered ? HGM_STEP_CONTENTS : HGM_STEP_ASK;
	if (!req->delivered) /* the source may also have written past what it delivered */
		req->in.scribbled |= req->fell_short;
	req->in.backoff_us = 0;
	/* The remaining pages have failed exactly as often as the request had. */
	if (req->piecewise && (req->in.demand || req->through))
		req->attempt = req->in.r->h->opts.retries + 1;
	return true;
}

/* The contents are no longer needed. */
bool hgm_step_unwanted(const struct hgm_request *req)
{
	return atomic_load_explicit(&req->in.r->dying, memory_order_acquire) ||
	       (req->through &&
		atomic_load_explicit(&req->through->given_up, memory_order_acquire));
}

bool hgm_step_installed(struct hgm_request *req, int rc, uint64_t *now_ns)
{
	struct hgm *h = req->in.r->h;

	if (rc == -ENOMEM || req->starved)
		hgm_request_set_starved(req, rc);
	if (rc)
		return hgm_step_put_off_by_kernel(req, HGM_STEP_INSTALL);
	if (req->in.demand) {
		*now_ns = hgm_now_ns();
		hgm_stat_phase(&h->stats, HGM_PHASE_INSTALL, *now_ns - req->answered_ns);
	}
	return hgm_step_go_on(req, req->in.settling_pages);
}
