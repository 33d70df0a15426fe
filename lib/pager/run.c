/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Run a request: ask its source, and take all further steps that do not have to wait. hgm_io_done()
 * and hgm_io_done_sparse() bring an answer that comes later.
 */
#include <errno.h>

#include "fill_source.h"
#include "fill.h"
#include "fill_control.h"
#include "install/discard.h"
#include "install/resolve.h"
#include "install/suspects.h"
#include "region/hgm.h"
#include "request.h"
#include "source/source.h"
#include "step.h"
#include "util/cancel.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/trace.h"
#include "work.h"

/* Discarded pages at the start of the request are not asked for. False: there are none. */
static bool pass_discarded(struct hgm_request *req, bool *mine)
{
	bool discarded;
	uint64_t run;
	int rc;

	if (req->through)
		return false;
	hgm_suspects_check(req->in.r, req->in.first_page, hgm_request_asks(req));
	run = hgm_discard_run(req->in.r, req->in.first_page, hgm_request_asks(req), &discarded);
	if (!discarded)
		return false;
	run = run < hgm_step_not_taken(req) ? run : hgm_step_not_taken(req);
	rc = hgm_resolve_dropped(&req->in, &run);
	*mine = rc ? hgm_step_put_off_by_kernel(req, req->step) : hgm_step_go_on(req, run);
	return true;
}

static bool ask(struct hgm_request *req, bool may_sleep, uint64_t *now_ns)
{
	struct hgm_region *r = req->in.r;
	struct hgm *h = r->h;
	struct hgm_source *src = r->source;
	bool nowait = !may_sleep && src->blocking;
	uint64_t before_ns = *now_ns;
	uint64_t ticket = hgm_request_next_ticket(req);
	struct hgm_io io = {
		.engine = h,
		.id = hgm_request_id(h, req, ticket),
		.offset = hgm_region_source_at(r, req->in.first_page),
		.length = hgm_request_asks(req) << HGM_PAGE_SHIFT,
		.flags = req->in.demand ? HGM_IO_DEMAND : 0,
		.attempt = req->tries + req->attempt,
	};
	int64_t result;
	bool mine;

	req->buffer_page = req->in.first_page;
	io.buf = hgm_request_buffer(req);
	if (pass_discarded(req, &mine))
		return mine;
	if (req->through)
		hgm_kept_claim(req);
	*now_ns = 0; /* both paths below may take long */
	if (nowait && !src->read_nowait) {
		hgm_request_queue(req);
		return false;
	}
	req->asked_ns = before_ns ? before_ns : hgm_now_ns();
	HGM_TRACE4(ask, req, io.offset, io.length, io.flags & HGM_IO_DEMAND);
	if (req->in.demand) {
		hgm_fill_source_demand(r->fill->source, req->asked_ns);
		hgm_fill_fault(r, req->in.first_page);
	} else {
		hgm_work_fill_asked(h, req, io.length);
	}
	if (src->memory) /* answers at once, and no other thread can answer */
		return hgm_step_answered(req, src->read(src->user, &io), NULL, false, now_ns);
	hgm_region_ref(r); /* the answer may drop the request's reference while the source runs */
	hgm_request_asking(req, ticket);
	result = (nowait ? src->read_nowait : src->read)(src->user, &io);
	mine = result != HGM_IO_LATER && hgm_request_take_answer(req, ticket);
	hgm_region_unref(r);
	if (!mine)
		return false;
	if (nowait && result == -EAGAIN) {
		hgm_request_queue(req);
		return false;
	}
	return hgm_step_answered(req, result, NULL, false, now_ns);
}

/*
 * The pages after one that fails for good must not wait for it. They are given back and fetched
 * anew. If there is no room for that, they stay in the request.
 */
static void leave_behind(struct hgm_request *req)
{
	uint64_t page = req->in.first_page + 1, pages = req->pages - 1;
	struct hgm_region *r = req->in.r;

	if (!hgm_work_give_back(r, page, pages))
		return;
	req->pages = 1;
	hgm_region_wake(r, page, pages); /* no-lost-waiter: threads that found them claimed */
}

static bool give_up(struct hgm_request *req)
{
	bool mine;
	int rc;

	if (req->through)
		return hgm_step_through(req, hgm_request_asks(req), false);
	if (pass_discarded(req, &mine))
		return mine;
	rc = hgm_resolve_poison(&req->in, hgm_request_asks(req));
	if (hgm_put_off(rc))
		return hgm_step_put_off_by_kernel(req, HGM_STEP_POISON);
	if (!rc)
		return hgm_step_go_on(req, req->in.settling_pages);
	/*
	 * Pages cannot be poisoned here. The waiter goes on waiting, the caller is told, and the
	 * source may recover.
	 */
	hgm_log_some(&req->in.r->h->log, HGM_LOG_GIVEN_UP, HGM_LOG_ERROR,
		     "the source failed for good, and pages cannot be poisoned here: %llu KiB at "
		     "%p stay missing and are requested again",
		     (unsigned long long)hgm_request_asks(req) * HGM_PAGE_BYTES >> 10,
		     hgm_region_at(req->in.r, req->in.first_page));
	if (req->pages > 1 && !hgm_region_whole_blocks(req->in.r))
		leave_behind(req);
	req->attempt = req->in.r->h->opts.retries + 1;
	hgm_notify(req->in.r->h);
	hgm_step_put_off(req, HGM_STEP_ASK, HGM_GIVEN_UP_US);
	return false;
}

static uint64_t run(struct hgm_request *req, bool may_sleep, uint64_t now_ns)
{
	bool mine = true;

	req->in.on_fault_thread = !may_sleep;
	if (may_sleep)
		req->in.wake_later = false; /* it no longer belongs to a fault thread */
	while (mine) {
		if (hgm_step_unwanted(req)) {
			hgm_request_put(req);
			return 0;
		}
		switch (req->step) {
		case HGM_STEP_ASK:
			mine = ask(req, may_sleep, &now_ns);
			break;
		case HGM_STEP_CONTENTS:
			mine = hgm_step_contents(req, &now_ns);
			break;
		case HGM_STEP_INSTALL:
			mine = hgm_step_installed(req, hgm_resolve_install(&req->in), &now_ns);
			break;
		case HGM_STEP_POISON:
			mine = give_up(req);
			break;
		}
	}
	return now_ns;
}

uint64_t hgm_request_run(struct hgm_request *req, bool may_sleep, uint64_t now_ns)
{
	struct hgm *h = req->in.r->h;

	now_ns = run(req, may_sleep, now_ns);
	hgm_log_flush(&h->log);
	return now_ns;
}

static int done(const struct hgm_io *io, int64_t result, const uint64_t *zeroes, const char *call)
{
	uint64_t ticket, bytes, asked, now_ns = 0;
	struct hgm_request *req;
	struct hgm_region *r;
	bool logs;
	int rc = 0;

	req = io && io->engine ? hgm_request_of(io, &ticket) : NULL;
	if (!req)
		return hgm_fail(-EINVAL, "%s: this is not a request of this engine", call);
	if (!hgm_request_was_asked(req, ticket))
		return hgm_fail(-EINVAL, "%s: request %llu was never made", call,
				(unsigned long long)io->id);
	if (!hgm_request_take_answer(req, ticket))
		return hgm_fail(-EALREADY, "%s: request %llu was already answered", call,
				(unsigned long long)io->id);

	r = req->in.r;
	logs = r->h->log.write;
	req->in.wake_later = req->in.on_fault_thread =
		false; /* the thread that asked does other work now */
	bytes = (uint64_t)(result & ~HGM_IO_ZERO);
	asked = hgm_request_asks(req) << HGM_PAGE_SHIFT;
	if (result == HGM_IO_LATER || (result > 0 && bytes > asked)) {
		rc = hgm_fail(-EINVAL,
			      "%s: result %lld is not a valid answer to a request of %llu bytes; "
			      "the request counts as failed",
			      call, (long long)result, (unsigned long long)asked);
		result = -EIO;
	}
	/*
	 * Leave further requests to the workers, because the source must not be called from inside
	 * itself.
	 */
	if (logs) /* without the reference, the engine may end with the request */
		hgm_region_ref(r);
	if (hgm_step_answered(req, result, zeroes, true, &now_ns))
		hgm_request_queue(req);
	if (logs) {
		hgm_log_flush(&r->h->log);
		hgm_region_unref(r);
	}
	return rc;
}

int hgm_io_done(const struct hgm_io *io, int64_t result)
{
	HGM_UNCANCELLED;

	return done(io, result, NULL, "hgm_io_done");
}

int hgm_io_done_sparse(const struct hgm_io *io, uint64_t length, const uint64_t *zeroes)
{
	HGM_UNCANCELLED;

	if (!zeroes)
		return hgm_fail(-EINVAL, "hgm_io_done_sparse: the bitmap is NULL");
	return done(io, length > HGM_LEAF_BYTES ? INT64_MAX & ~HGM_IO_ZERO : (int64_t)length,
		    zeroes, "hgm_io_done_sparse");
}
