/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests: claimed pages on their way from the source into memory.
 *
 * A request belongs to exactly one thread at a time: the one that runs it, or the one that answers
 * it, or the work queue. The ticket decides who has the answer: it is "asked" from just before the
 * source is called until somebody takes the answer, which is the caller of hgm_read_fn for an
 * answer at once, or that of hgm_io_done(), and never both. After the source said LATER the request
 * may be answered, and its slot used again, before the call has even returned. Memory is no
 * function of anybody's, answers at once, and needs no ticket.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"
#include "engine.h"
#include "error.h"
#include "request.h"
#include "resolve.h"
#include "source.h"
#include "sys.h"
#include "trace.h"

#define RETRY_MAX_US   1000000 /* between tries of a failing source */
#define PUT_OFF_MIN_US 50      /* after EAGAIN: about as long as a collapse takes */
#define PUT_OFF_MAX_US 100000
#define ERRNO_MAX      4095 /* a smaller result is garbage */
#define INDEX_BITS     16
#define INDEX_MASK     ((UINT64_C(1) << INDEX_BITS) - 1)
#define ASKED	       UINT64_C(1)

_Static_assert(HGM_REQUESTS <= INDEX_MASK, "an id holds the slot's index");

int hgm_requests_init(struct hgm *h)
{
	struct hgm_request_pool *pool = &h->requests;

	pool->slot = calloc(HGM_REQUESTS, sizeof(pool->slot[0]));
	if (!pool->slot)
		return -ENOMEM;
	for (uint32_t i = 0; i < HGM_REQUESTS; i++)
		atomic_init(&pool->slot[i].next_free, i + 1 < HGM_REQUESTS ? i + 2 : 0);
	atomic_init(&pool->free, 1);
	return 0;
}

void hgm_requests_destroy(struct hgm *h)
{
	char *bounce = atomic_load_explicit(&h->requests.bounce, memory_order_acquire);

	if (bounce)
		hgm_sys->munmap(bounce, HGM_REQUESTS * HGM_REQUEST_MAX_BYTES);
	free(h->requests.slot);
}

int hgm_requests_need_bounce(struct hgm *h)
{
	char *expected = NULL;
	void *mem;
	int rc;

	if (atomic_load_explicit(&h->requests.bounce, memory_order_acquire))
		return 0;
	rc = hgm_sys->mmap(&mem, NULL, HGM_REQUESTS * HGM_REQUEST_MAX_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (rc)
		return rc;
	if (!atomic_compare_exchange_strong_explicit(&h->requests.bounce, &expected, mem,
						     memory_order_acq_rel, memory_order_acquire))
		hgm_sys->munmap(mem, HGM_REQUESTS * HGM_REQUEST_MAX_BYTES);
	return 0;
}

/* A tag in the upper half changes with each pop and push, which keeps ABA away. */
struct hgm_request *hgm_request_get(struct hgm_region *r, bool demand)
{
	struct hgm_request_pool *pool = &r->h->requests;
	struct hgm_request *req;
	uint64_t head, next;

	if (!demand && atomic_fetch_add_explicit(&pool->fill_used, 1, memory_order_relaxed) >=
			       HGM_REQUESTS_FILL) {
		atomic_fetch_sub_explicit(&pool->fill_used, 1, memory_order_relaxed);
		return NULL;
	}
	head = atomic_load_explicit(&pool->free, memory_order_acquire);
	do {
		if (!(uint32_t)head) {
			if (!demand)
				atomic_fetch_sub_explicit(&pool->fill_used, 1,
							  memory_order_relaxed);
			return NULL;
		}
		req = &pool->slot[(uint32_t)head - 1];
		next = ((head >> 32) + 1) << 32 |
		       atomic_load_explicit(&req->next_free, memory_order_relaxed);
	} while (!atomic_compare_exchange_weak_explicit(
		&pool->free, &head, next, memory_order_acq_rel, memory_order_acquire));
	req->r = r;
	req->demand = demand;
	req->sequential = false;
	req->step = HGM_STEP_ASK;
	req->attempt = 0;
	req->backoff_us = 0;
	req->peek = NULL;
	req->zero = req->scribbled = req->filled_block = req->piecewise = req->wake_later = false;
	hgm_region_hold(r);
	return req;
}

void hgm_request_put(struct hgm_request *req)
{
	struct hgm_region *r = req->r;
	struct hgm *h = r->h;
	struct hgm_peek *peek = req->peek;
	struct hgm_request_pool *pool = &h->requests;
	uint64_t index = (uint64_t)(req - pool->slot) + 1;
	uint64_t head = atomic_load_explicit(&pool->free, memory_order_relaxed);
	uint64_t next;

	if (req->attempt)
		atomic_fetch_sub_explicit(&h->failing_requests, 1, memory_order_relaxed);
	if (!req->demand)
		atomic_fetch_sub_explicit(&pool->fill_used, 1, memory_order_relaxed);
	if (peek) /* while the slot is still its own */
		peek->done(peek);
	do {
		atomic_store_explicit(&req->next_free, (uint32_t)head, memory_order_relaxed);
		next = ((head >> 32) + 1) << 32 | index;
	} while (!atomic_compare_exchange_weak_explicit(
		&pool->free, &head, next, memory_order_acq_rel, memory_order_relaxed));
	hgm_region_drop(r);
}

uint64_t hgm_request_asks(const struct hgm_request *req)
{
	return req->piecewise ? 1 : req->pages;
}

void *hgm_request_buffer(const struct hgm_request *req)
{
	struct hgm_request_pool *pool = &req->r->h->requests;

	if (req->peek)
		return req->peek->buf +
		       ((req->first_page - req->peek->first_page) << HGM_PAGE_SHIFT);
	if (!req->r->copies)
		return req->r->alias + (req->first_page << HGM_PAGE_SHIFT);
	if (req->r->source->memory) /* they are there; nobody writes to them */
		return (char *)(uintptr_t)req->r->source->memory + req->r->source_offset +
		       (req->first_page << HGM_PAGE_SHIFT);
	return atomic_load_explicit(&pool->bounce, memory_order_acquire) +
	       (size_t)(req - pool->slot) * HGM_REQUEST_MAX_BYTES;
}

static uint64_t ticket_id(const struct hgm *h, const struct hgm_request *req, uint64_t ticket)
{
	return ticket >> 1 << INDEX_BITS | (uint64_t)(req - h->requests.slot);
}

/* Of all who bring an answer to a ticket, one gets true. */
static bool take_answer(struct hgm_request *req, uint64_t ticket)
{
	return atomic_compare_exchange_strong_explicit(&req->ticket, &ticket, ticket & ~ASKED,
						       memory_order_acq_rel, memory_order_relaxed);
}

static void put_off(struct hgm_request *req, enum hgm_request_step step, uint32_t us)
{
	req->step = step;
	hgm_work_later(req->r->h, req, hgm_now_ns() + UINT64_C(1000) * us);
}

/* The kernel said EAGAIN, or has no memory: on another turn, later each time. */
static bool put_off_by_kernel(struct hgm_request *req, enum hgm_request_step step)
{
	req->backoff_us = req->backoff_us * 2;
	if (req->backoff_us < PUT_OFF_MIN_US)
		req->backoff_us = PUT_OFF_MIN_US;
	if (req->backoff_us > PUT_OFF_MAX_US)
		req->backoff_us = PUT_OFF_MAX_US;
	put_off(req, step, req->backoff_us);
	return false;
}

/*
 * The functions below return whether the request is still the caller's, to be run on. *now_ns is
 * the time if somebody has just looked, else 0: a look costs as much as four locked instructions.
 */
static bool go_on(struct hgm_request *req, uint64_t settled)
{
	if (settled == req->pages) {
		hgm_request_put(req);
		return false;
	}
	req->first_page += settled;
	req->pages -= settled;
	req->step = HGM_STEP_ASK;
	req->backoff_us = 0;
	/* These bytes have failed as often as the request had, and no oftener. */
	if (req->piecewise)
		req->attempt = req->r->h->opts.retries + 1;
	return true;
}

static bool given_up(const struct hgm_request *req)
{
	return req->peek && atomic_load_explicit(&req->peek->given_up, memory_order_acquire);
}

static bool after_install(struct hgm_request *req, int rc, uint64_t *now_ns)
{
	struct hgm *h = req->r->h;

	if (rc)
		return put_off_by_kernel(req, HGM_STEP_INSTALL);
	if (req->demand) {
		*now_ns = hgm_now_ns();
		hgm_stat_phase(h, HGM_PHASE_INSTALL, *now_ns - req->answered_ns);
	}
	if (req->settling_pages < hgm_request_asks(req)) {
		hgm_stat_add(h, HGM_STAT_SOURCE_SHORT, 1);
		/* Behind what it delivered the source may have written too. */
		req->scribbled = true;
		if (req->attempt)
			atomic_fetch_sub_explicit(&h->failing_requests, 1, memory_order_relaxed);
		req->attempt = 0;
	}
	return go_on(req, req->settling_pages);
}

static bool failed(struct hgm_request *req, int rc)
{
	struct hgm *h = req->r->h;
	uint64_t us = h->opts.retry_first_us;

	hgm_stat_add(h, HGM_STAT_SOURCE_ERRORS, 1);
	hgm_log_some(
		h, HGM_LOG_SOURCE_FAILED, HGM_LOG_WARNING,
		"source: %s for bytes [%llu, +%llu), try %u", hgm_errno_name(rc),
		(unsigned long long)(req->r->source_offset + (req->first_page << HGM_PAGE_SHIFT)),
		(unsigned long long)hgm_request_asks(req) << HGM_PAGE_SHIFT, req->attempt + 1);
	atomic_store_explicit(&h->last_error, rc, memory_order_relaxed);
	req->scribbled = true;
	if (!req->attempt++)
		atomic_fetch_add_explicit(&h->failing_requests, 1, memory_order_relaxed);
	if (req->attempt > h->opts.retries) {
		bool split = req->pages > 1 && !req->piecewise && !hgm_region_whole_blocks(req->r);

		req->piecewise |= split;
		req->step = split ? HGM_STEP_ASK : HGM_STEP_POISON;
		return true;
	}
	for (uint32_t i = 1; i < req->attempt && us < RETRY_MAX_US; i++)
		us *= 2;
	hgm_stat_add(h, HGM_STAT_SOURCE_RETRIES, 1);
	put_off(req, HGM_STEP_ASK, us < RETRY_MAX_US ? (uint32_t)us : RETRY_MAX_US);
	return false;
}

/* Pages of a peek have come, or never will. */
static bool peeked(struct hgm_request *req, uint64_t pages, bool readable)
{
	struct hgm_peek *peek = req->peek;

	if (!readable || req->zero)
		memset(hgm_request_buffer(req), 0, pages << HGM_PAGE_SHIFT);
	if (!readable)
		peek->unreadable_pages += pages;
	peek->settled_pages += pages;
	return go_on(req, pages);
}

static bool answered(struct hgm_request *req, int64_t result, bool later, uint64_t *now_ns)
{
	struct hgm *h = req->r->h;
	uint64_t length = hgm_request_asks(req) << HGM_PAGE_SHIFT;
	uint64_t bytes = result < 0 ? 0 : (uint64_t)(result & ~HGM_IO_ZERO);
	bool ok = bytes >= HGM_PAGE_BYTES && bytes <= length;

	req->answered_ns = hgm_now_ns();
	HGM_TRACE2(answer, req, result);
	if (req->demand)
		hgm_stat_phase(h, HGM_PHASE_SOURCE, req->answered_ns - req->asked_ns);
	else
		hgm_work_fill_done(h, req, length, ok, later);
	if (!ok)
		return failed(req, result < 0 && result >= -ERRNO_MAX ? (int)result : -EIO);
	req->zero = result & HGM_IO_ZERO;
	if (req->peek)
		return peeked(req, bytes >> HGM_PAGE_SHIFT, true);
	return after_install(req, hgm_resolve_contents(req, bytes >> HGM_PAGE_SHIFT), now_ns);
}

static bool ask(struct hgm_request *req, bool may_sleep, uint64_t *now_ns)
{
	struct hgm_region *r = req->r;
	struct hgm *h = r->h;
	struct hgm_source *src = r->source;
	bool nowait = !may_sleep && src->blocking;
	uint64_t before_ns = *now_ns;
	uint64_t ticket = ((atomic_load_explicit(&req->ticket, memory_order_relaxed) >> 1) + 1)
			  << 1;
	struct hgm_io io = {
		.engine = h,
		.id = ticket_id(h, req, ticket),
		.offset = r->source_offset + (req->first_page << HGM_PAGE_SHIFT),
		.length = hgm_request_asks(req) << HGM_PAGE_SHIFT,
		.buf = hgm_request_buffer(req),
		.flags = req->demand ? HGM_IO_DEMAND : 0,
		.attempt = req->attempt,
	};
	int64_t result;
	bool mine;

	*now_ns = 0; /* both ways below may take long */
	if (nowait && !src->read_nowait) {
		hgm_work_demand(h, req);
		return false;
	}
	req->asked_ns = before_ns ? before_ns : hgm_now_ns();
	HGM_TRACE4(ask, req, io.offset, io.length, io.flags & HGM_IO_DEMAND);
	if (!req->demand)
		hgm_work_fill_asked(h, req, io.length);
	if (src->memory) /* answers at once, and nobody else can */
		return answered(req, src->read(src->user, &io), false, now_ns);
	hgm_region_hold(r); /* the answer may drop the request's hold while the source still runs */
	atomic_store_explicit(&req->asked_for, r, memory_order_release);
	atomic_store_explicit(&req->ticket, ticket | ASKED, memory_order_release);
	result = (nowait ? src->read_nowait : src->read)(src->user, &io);
	mine = result != HGM_IO_LATER && take_answer(req, ticket | ASKED);
	hgm_region_drop(r);
	if (!mine)
		return false;
	if (nowait && result == -EAGAIN) {
		hgm_work_demand(h, req);
		return false;
	}
	return answered(req, result, false, now_ns);
}

/*
 * The pages behind one that fails for good must not wait for it: they are given back, to be fetched
 * anew. Where there is no room for that they stay.
 */
static void leave_behind(struct hgm_request *req)
{
	uint64_t page = req->first_page + 1, pages = req->pages - 1;
	struct hgm_region *r = req->r;

	/* Failed tries may have left something there, which the next request would not know. */
	if (r->zeroed)
		memset(r->alias + (page << HGM_PAGE_SHIFT), 0, pages << HGM_PAGE_SHIFT);
	if (!hgm_work_give_back(r, page, pages))
		return;
	req->pages = 1;
	hgm_resolve_wake(r, page, pages); /* no-lost-waiter: those who found them claimed */
}

static bool give_up(struct hgm_request *req)
{
	int rc;

	if (req->peek)
		return peeked(req, hgm_request_asks(req), false);
	rc = hgm_resolve_poison(req);
	if (hgm_put_off(rc))
		return put_off_by_kernel(req, HGM_STEP_POISON);
	if (!rc)
		return go_on(req, req->settling_pages);
	/* No poison here: the waiter waits on, the caller is told, the source may recover. */
	hgm_log_some(req->r->h, HGM_LOG_GIVEN_UP, HGM_LOG_ERROR,
		     "the source failed for good and nothing can be poisoned here: %llu KiB at %p "
		     "stay missing, and are asked for again",
		     (unsigned long long)hgm_request_asks(req) * HGM_PAGE_BYTES >> 10,
		     hgm_region_at(req->r, req->first_page));
	if (req->pages > 1 && !hgm_region_whole_blocks(req->r))
		leave_behind(req);
	req->attempt = req->r->h->opts.retries + 1;
	hgm_notify(req->r->h);
	put_off(req, HGM_STEP_ASK, RETRY_MAX_US);
	return false;
}

uint64_t hgm_request_run(struct hgm_request *req, bool may_sleep, uint64_t now_ns)
{
	bool mine = true;

	if (may_sleep)
		req->wake_later = false; /* it was a fault thread's, and is not any more */
	while (mine) {
		if (atomic_load_explicit(&req->r->dying, memory_order_acquire) || given_up(req)) {
			hgm_request_put(req);
			return 0;
		}
		switch (req->step) {
		case HGM_STEP_ASK:
			mine = ask(req, may_sleep, &now_ns);
			break;
		case HGM_STEP_INSTALL:
			mine = after_install(req, hgm_resolve_install(req), &now_ns);
			break;
		case HGM_STEP_POISON:
			mine = give_up(req);
			break;
		}
	}
	return now_ns;
}

int hgm_request_peek(struct hgm_region *r, struct hgm_peek *peek)
{
	struct hgm_request *req = hgm_request_get(r, false);

	if (!req)
		return -EAGAIN;
	req->peek = peek;
	req->first_page = peek->first_page;
	req->pages = peek->pages;
	atomic_store_explicit(&peek->req, req, memory_order_release);
	hgm_request_run(req, true, 0);
	return 0;
}

bool hgm_request_give_up(struct hgm_peek *peek, uint64_t *id)
{
	struct hgm_request *req = atomic_load_explicit(&peek->req, memory_order_acquire);
	uint64_t ticket;

	atomic_store_explicit(&peek->given_up, true, memory_order_release);
	if (!req)
		return false;
	ticket = atomic_load_explicit(&req->ticket, memory_order_acquire);
	*id = ticket_id(req->r->h, req, ticket);
	return ticket & ASKED;
}

void hgm_request_cancel(struct hgm_region *r, uint64_t id)
{
	if (r->source->cancel)
		r->source->cancel(r->source->user, r->h, id);
}

int hgm_io_done(const struct hgm_io *io, int64_t result)
{
	struct hgm_request *req;
	uint64_t ticket, bytes, asked, now_ns = 0;
	int rc = 0;

	if (!io || !io->engine || (io->id & INDEX_MASK) >= HGM_REQUESTS)
		return hgm_fail(-EINVAL, "hgm_io_done: no request of this engine");
	req = &io->engine->requests.slot[io->id & INDEX_MASK];
	ticket = io->id >> INDEX_BITS << 1 | ASKED;
	if (ticket > (atomic_load_explicit(&req->ticket, memory_order_relaxed) | ASKED))
		return hgm_fail(-EINVAL, "hgm_io_done: request %llu was never asked",
				(unsigned long long)io->id);
	if (!take_answer(req, ticket))
		return hgm_fail(-EALREADY, "hgm_io_done: request %llu was answered before",
				(unsigned long long)io->id);

	req->wake_later = false; /* whoever has asked has gone on */
	bytes = (uint64_t)(result & ~HGM_IO_ZERO);
	asked = hgm_request_asks(req) << HGM_PAGE_SHIFT;
	if (result == HGM_IO_LATER || (result > 0 && bytes > asked)) {
		rc = hgm_fail(-EINVAL,
			      "hgm_io_done: result %lld is no possible answer to a request of %llu "
			      "bytes; it counts as failed",
			      (long long)result, (unsigned long long)asked);
		result = -EIO;
	}
	/*
	 * What is left to ask goes to the workers: the source must not be called from inside
	 * itself.
	 */
	if (answered(req, result, true, &now_ns))
		hgm_work_demand(io->engine, req);
	return rc;
}

void hgm_requests_cancel(struct hgm_region *r)
{
	struct hgm *h = r->h;

	if (!r->source->cancel)
		return;
	for (uint32_t i = 0; i < HGM_REQUESTS; i++) {
		struct hgm_request *req = &h->requests.slot[i];
		uint64_t ticket = atomic_load_explicit(&req->ticket, memory_order_acquire);

		/*
		 * The ticket is read again: only if it still stands was asked_for this request's.
		 */
		if (ticket & ASKED &&
		    atomic_load_explicit(&req->asked_for, memory_order_acquire) == r &&
		    atomic_load_explicit(&req->ticket, memory_order_acquire) == ticket)
			r->source->cancel(r->source->user, h, ticket_id(h, req, ticket));
	}
}
