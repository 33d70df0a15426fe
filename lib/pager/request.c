/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests: claimed pages on their way from the source into memory. Here are the slots, the
 * tickets, raising and cancelling. run.c runs requests.
 *
 * A request has exactly one owner at a time: the thread that runs it, the thread that answers it,
 * or the work queue. The ticket decides which thread has the answer. It is "asked" from just before
 * the source is called until a thread takes the answer. That thread is either the caller of
 * hgm_read_fn, for an immediate answer, or the caller of hgm_io_done(), and never both. If the
 * source returns LATER, the request may be answered, and its slot used again, even before the call
 * has returned. A memory source is not a function of the caller and always answers at once, so it
 * needs no ticket.
 */
#include <errno.h>
#include <sched.h>

#include "fill.h"
#include "install/resolve.h"
#include "region/hgm.h"
#include "request.h"
#include "source/source.h"
#include "work.h"

#define INDEX_BITS 16
#define INDEX_MASK ((UINT64_C(1) << INDEX_BITS) - 1)
#define ASKED	   UINT64_C(1)
#define RAISING	   UINT64_C(2)
#define FLAG_BITS  2
#define PAGES_BITS 8 /* of asked_fill */
#define PAGES_MASK ((UINT64_C(1) << PAGES_BITS) - 1)

_Static_assert(HGM_REQUESTS <= INDEX_MASK, "an id holds the slot's index");

uint64_t hgm_request_id(const struct hgm *h, const struct hgm_request *req, uint64_t ticket)
{
	return ticket >> FLAG_BITS << INDEX_BITS | (uint64_t)(req - h->requests->slot);
}

uint64_t hgm_request_next_ticket(const struct hgm_request *req)
{
	return ((atomic_load_explicit(&req->ticket, memory_order_relaxed) >> FLAG_BITS) + 1)
	       << FLAG_BITS;
}

void hgm_request_asking(struct hgm_request *req, uint64_t ticket)
{
	bool fills = !req->in.demand && (!req->through || req->kept);

	atomic_store_explicit(&req->asked_for, req->in.r, memory_order_release);
	atomic_store_explicit(&req->asked_fill,
			      fills ? req->in.first_page << PAGES_BITS | req->pages : 0,
			      memory_order_relaxed);
	atomic_store_explicit(&req->ticket, ticket | ASKED, memory_order_release);
}

struct hgm_request *hgm_request_of(const struct hgm_io *io, uint64_t *ticket)
{
	*ticket = io->id >> INDEX_BITS << FLAG_BITS;
	return (io->id & INDEX_MASK) < HGM_REQUESTS
		       ? &io->engine->requests->slot[io->id & INDEX_MASK]
		       : NULL;
}

bool hgm_request_was_asked(const struct hgm_request *req, uint64_t ticket)
{
	return ticket && ticket <= atomic_load_explicit(&req->ticket, memory_order_relaxed);
}

bool hgm_request_take_answer(struct hgm_request *req, uint64_t ticket)
{
	uint64_t asked = ticket | ASKED, now = asked;

	while (!atomic_compare_exchange_strong_explicit(
		&req->ticket, &now, ticket, memory_order_acq_rel, memory_order_acquire)) {
		if (now != (asked | RAISING))
			return false;
		now = asked;
		sched_yield(); /* raising takes only a few instructions */
	}
	return true;
}

/*
 * Find the unanswered fill request that covers a page, and mark it as raising. *ticket is the
 * ticket that it had before.
 */
static struct hgm_request *begin_raising(struct hgm_region *r, uint64_t page, uint64_t *ticket)
{
	struct hgm_request_pool *pool = r->h->requests;
	uint32_t top = atomic_load_explicit(&pool->top, memory_order_relaxed);

	for (uint32_t i = 0; i < top; i++) {
		struct hgm_request *req = &pool->slot[i];
		uint64_t fill;

		*ticket = atomic_load_explicit(&req->ticket, memory_order_acquire);
		if (!(*ticket & ASKED) || *ticket & RAISING ||
		    atomic_load_explicit(&req->asked_for, memory_order_relaxed) != r)
			continue;
		fill = atomic_load_explicit(&req->asked_fill, memory_order_relaxed);
		if (page < fill >> PAGES_BITS || page >= (fill >> PAGES_BITS) + (fill & PAGES_MASK))
			continue;
		/* If the ticket is unchanged, the fields read above are still valid. */
		if (atomic_compare_exchange_strong_explicit(&req->ticket, ticket, *ticket | RAISING,
							    memory_order_acq_rel,
							    memory_order_relaxed))
			return req;
	}
	return NULL;
}

bool hgm_request_raise(struct hgm_region *r, uint64_t page, uint64_t *id)
{
	struct hgm_request *req;
	uint64_t ticket, bit;
	bool taken = false;

	*id = 0;
	req = begin_raising(r, page, &ticket);
	if (!req)
		return false;
	bit = UINT64_C(1) << (page - req->in.first_page);
	if (r->copies) {
		taken = !(req->taken & bit);
		req->taken |= bit;
	} else if (!req->hurried) {
		req->hurried = true;
		*id = hgm_request_id(r->h, req, ticket);
	}
	atomic_store_explicit(&req->ticket, ticket, memory_order_release);
	return taken;
}

int hgm_request_read_through(struct hgm_region *r, struct hgm_read_through *through, uint64_t page,
			     uint64_t pages)
{
	struct hgm_request *req = hgm_request_get(r, false);

	if (!req)
		return -EAGAIN;
	req->through = through;
	req->through_pages = pages;
	atomic_store_explicit(&req->is_through, true, memory_order_relaxed);
	atomic_fetch_add_explicit(&r->fill->through, 1, memory_order_relaxed);
	req->in.first_page = page;
	req->pages = pages;
	hgm_request_queue_later(req, 0);
	return 0;
}

void hgm_request_queue(struct hgm_request *req)
{
	if (!hgm_work_demand(req->in.r->h, req))
		hgm_request_put(req);
}

void hgm_request_queue_later(struct hgm_request *req, uint64_t due_ns)
{
	if (!hgm_work_later(req->in.r->h, req, due_ns))
		hgm_request_put(req);
}

void hgm_requests_remove(struct hgm_region *r)
{
	struct hgm_request *req = hgm_work_remove_region(r), *next;

	for (; req; req = next) {
		next = req->next;
		hgm_request_put(req);
	}
}

static void cancel(struct hgm_region *r, bool only_through)
{
	struct hgm *h = r->h;

	if (!r->source->cancel)
		return;
	for (uint32_t i = 0; i < HGM_REQUESTS; i++) {
		struct hgm_request *req = &h->requests->slot[i];
		uint64_t ticket = atomic_load_explicit(&req->ticket, memory_order_acquire);

		/*
		 * Read the ticket again. asked_for belonged to this request only if the ticket is
		 * unchanged.
		 */
		if (ticket & ASKED &&
		    atomic_load_explicit(&req->asked_for, memory_order_acquire) == r &&
		    (!only_through ||
		     atomic_load_explicit(&req->is_through, memory_order_relaxed)) &&
		    atomic_load_explicit(&req->ticket, memory_order_acquire) == ticket)
			r->source->cancel(r->source->user, h, hgm_request_id(h, req, ticket));
	}
}

void hgm_requests_cancel(struct hgm_region *r)
{
	cancel(r, false);
}

void hgm_requests_cancel_through(struct hgm_region *r)
{
	hgm_work_hurry_through(r);
	cancel(r, true);
}
