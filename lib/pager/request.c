/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests: claimed pages on their way from the source into memory.
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
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "feed.h"
#include "fill.h"
#include "install/discard.h"
#include "install/resolve.h"
#include "install/suspects.h"
#include "kernel/sys.h"
#include "region/hgm.h"
#include "request.h"
#include "source/source.h"
#include "util/bits.h"
#include "util/cancel.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/trace.h"
#include "work.h"

#define GIVEN_UP_US    1000000 /* between tries of given-up pages that cannot be poisoned */
#define RETRY_MAX_US   50000   /* between tries: a request asks again this soon after an outage */
#define CROWD	       64      /* if more requests than this fail, fewer ask at a time */
#define CROWD_US       1000    /* each failing request lengthens the spread of delays by this */
#define OUTAGE_ROUND   4       /* this many failures in a row mean that the source is away */
#define PUT_OFF_MIN_US 50      /* after EAGAIN: about as long as a collapse takes */
#define PUT_OFF_MAX_US 100000
#define ERRNO_MAX      4095 /* a smaller result is garbage */
#define INDEX_BITS     16
#define INDEX_MASK     ((UINT64_C(1) << INDEX_BITS) - 1)
#define ASKED	       UINT64_C(1)
#define RAISING	       UINT64_C(2)
#define FLAG_BITS      2
#define PAGES_BITS     8 /* of asked_fill */
#define PAGES_MASK     ((UINT64_C(1) << PAGES_BITS) - 1)

_Static_assert(HGM_REQUESTS <= INDEX_MASK, "an id holds the slot's index");

int hgm_requests_init(struct hgm *h)
{
	struct hgm_request_pool *pool =
		aligned_alloc(_Alignof(struct hgm_request_pool), sizeof(*pool));

	if (!pool)
		return -ENOMEM;
	memset(pool, 0, sizeof(*pool));
	h->requests = pool;
	pool->slot =
		aligned_alloc(_Alignof(struct hgm_request), HGM_REQUESTS * sizeof(pool->slot[0]));
	if (!pool->slot)
		return -ENOMEM;
	memset(pool->slot, 0, HGM_REQUESTS * sizeof(pool->slot[0]));
	for (uint32_t i = 0; i < HGM_REQUESTS; i++)
		atomic_init(&pool->slot[i].next_free, i + 1 < HGM_REQUESTS ? i + 2 : 0);
	atomic_init(&pool->free, 1);
	return 0;
}

void hgm_requests_destroy(struct hgm *h)
{
	char *bounce;

	if (!h->requests)
		return;
	bounce = atomic_load_explicit(&h->requests->bounce, memory_order_acquire);
	if (bounce)
		hgm_sys->munmap(bounce, HGM_REQUESTS * HGM_REQUEST_MAX_BYTES);
	free(h->requests->slot);
	free(h->requests);
	h->requests = NULL;
}

int hgm_requests_need_bounce(struct hgm *h)
{
	char *expected = NULL;
	void *mem;
	int rc;

	if (atomic_load_explicit(&h->requests->bounce, memory_order_acquire))
		return 0;
	rc = hgm_sys->mmap(&mem, NULL, HGM_REQUESTS * HGM_REQUEST_MAX_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | HGM_MAP_UNLOCKED, -1, 0);
	if (rc)
		return rc;
	hgm_sys->madvise(mem, HGM_REQUESTS * HGM_REQUEST_MAX_BYTES, MADV_DONTDUMP);
	if (!atomic_compare_exchange_strong_explicit(&h->requests->bounce, &expected, mem,
						     memory_order_acq_rel, memory_order_acquire))
		hgm_sys->munmap(mem, HGM_REQUESTS * HGM_REQUEST_MAX_BYTES);
	return 0;
}

static void note_top(struct hgm_request_pool *pool, uint32_t top)
{
	uint32_t was = atomic_load_explicit(&pool->top, memory_order_relaxed);

	while (was < top &&
	       !atomic_compare_exchange_weak_explicit(&pool->top, &was, top, memory_order_relaxed,
						      memory_order_relaxed))
		;
}

/* A tag in the upper half changes with each pop and push, which prevents ABA. */
struct hgm_request *hgm_request_get(struct hgm_region *r, bool demand)
{
	struct hgm_request_pool *pool = r->h->requests;
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
	if ((uint32_t)head > atomic_load_explicit(&pool->top, memory_order_relaxed))
		note_top(pool, (uint32_t)head);
	req->in.r = r;
	req->in.demand = demand;
	req->in.sequential = req->in.shared = false;
	req->tries = 0;
	req->step = HGM_STEP_ASK;
	req->attempt = 0;
	req->in.backoff_us = 0;
	req->peek = NULL;
	req->kept = false;
	atomic_store_explicit(&req->peeks, false, memory_order_relaxed);
	req->taken = req->delivered = 0;
	req->awaited = UINT64_MAX;
	req->starved = req->given = false;
	req->hurried = req->fell_short = false;
	req->sparse = req->in.zero = req->in.scribbled = req->in.filled_block = req->piecewise =
		req->in.wake_later = false;
	hgm_region_hold(r);
	return req;
}

/* A starved request counts as failing, so that the counter shows why it takes so long. */
static void set_starved(struct hgm_request *req, bool starved)
{
	_Atomic uint64_t *failing = &req->in.r->h->failing_requests;

	if (starved && !req->starved)
		atomic_fetch_add_explicit(failing, 1, memory_order_relaxed);
	else if (!starved && req->starved)
		atomic_fetch_sub_explicit(failing, 1, memory_order_relaxed);
	req->starved = starved;
}

void hgm_request_put(struct hgm_request *req)
{
	struct hgm_region *r = req->in.r;
	struct hgm *h = r->h;
	struct hgm_request_pool *pool = h->requests;
	uint64_t index = (uint64_t)(req - pool->slot) + 1;
	uint64_t head = atomic_load_explicit(&pool->free, memory_order_relaxed);
	uint64_t next;

	if (req->attempt)
		atomic_fetch_sub_explicit(&h->failing_requests, 1, memory_order_relaxed);
	set_starved(req, false);
	hgm_kept_give_back(req);
	if (!req->in.demand)
		atomic_fetch_sub_explicit(&pool->fill_used, 1, memory_order_relaxed);
	if (req->given)
		atomic_fetch_sub_explicit(&pool->given, 1, memory_order_relaxed);
	if (req->peek) {
		req->peek->done(req->peek, req->peek_pages);
		hgm_work_peeked(r);
	}
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
	struct hgm_request_pool *pool = req->in.r->h->requests;

	if (req->peek)
		return req->peek->buf + (req->in.first_page % HGM_PAGES_PER_WORD << HGM_PAGE_SHIFT);
	if (!req->in.r->copies && !req->in.r->bounces)
		return req->in.r->alias + (req->in.first_page << HGM_PAGE_SHIFT);
	if (req->in.r->source->memory && !req->given) /* they are there; no thread writes to them */
		return (char *)(uintptr_t)req->in.r->source->memory + req->in.r->source_offset +
		       (req->in.first_page << HGM_PAGE_SHIFT);
	return atomic_load_explicit(&pool->bounce, memory_order_acquire) +
	       (size_t)(req - pool->slot) * HGM_REQUEST_MAX_BYTES +
	       ((req->in.first_page - req->buffer_page) << HGM_PAGE_SHIFT);
}

static uint64_t ticket_id(const struct hgm *h, const struct hgm_request *req, uint64_t ticket)
{
	return ticket >> FLAG_BITS << INDEX_BITS | (uint64_t)(req - h->requests->slot);
}

/* Of all threads that bring an answer to a ticket, exactly one gets true. */
static bool take_answer(struct hgm_request *req, uint64_t ticket)
{
	uint64_t now = ticket;

	while (!atomic_compare_exchange_strong_explicit(
		&req->ticket, &now, ticket & ~ASKED, memory_order_acq_rel, memory_order_acquire)) {
		if (now != (ticket | RAISING))
			return false;
		now = ticket;
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
		*id = ticket_id(r->h, req, ticket);
	}
	atomic_store_explicit(&req->ticket, ticket, memory_order_release);
	return taken;
}

static void put_off(struct hgm_request *req, enum hgm_request_step step, uint32_t us)
{
	req->step = step;
	hgm_work_later(req->in.r->h, req, hgm_now_ns() + UINT64_C(1000) * us);
}

/* The kernel returned EAGAIN or has no memory. Try again later, with a longer delay each time. */
static bool put_off_by_kernel(struct hgm_request *req, enum hgm_request_step step)
{
	req->in.backoff_us = req->in.backoff_us * 2;
	if (req->in.backoff_us < PUT_OFF_MIN_US)
		req->in.backoff_us = PUT_OFF_MIN_US;
	if (req->in.backoff_us > PUT_OFF_MAX_US)
		req->in.backoff_us = PUT_OFF_MAX_US;
	put_off(req, step, req->in.backoff_us);
	return false;
}

/*
 * The functions below return true if the request still belongs to the caller, who runs it further.
 * *now_ns is the time if it has just been read, else 0. Reading it costs as much as four locked
 * instructions.
 */
static void advance(struct hgm_request *req, uint64_t pages)
{
	req->in.first_page += pages;
	req->pages -= pages;
	req->delivered -= pages < req->delivered ? pages : req->delivered;
	req->awaited -= pages < req->awaited ? pages : req->awaited;
	req->taken = pages < 64 ? req->taken >> pages : 0;
}

/* The number of pages, from the first one on, that still belong to the request. */
static uint64_t not_taken(const struct hgm_request *req)
{
	return req->taken ? (uint64_t)__builtin_ctzll(req->taken) : req->pages;
}

static bool go_on(struct hgm_request *req, uint64_t settled)
{
	advance(req, settled);
	while (req->taken & 1 && !req->peek)
		advance(req, 1);
	if (!req->pages) {
		hgm_request_put(req);
		return false;
	}
	req->step = req->delivered ? HGM_STEP_CONTENTS : HGM_STEP_ASK;
	if (!req->delivered) /* the source may also have written past what it delivered */
		req->in.scribbled |= req->fell_short;
	req->in.backoff_us = 0;
	/* The remaining pages have failed exactly as often as the request had. */
	if (req->piecewise && (req->in.demand || req->peek))
		req->attempt = req->in.r->h->opts.retries + 1;
	return true;
}

/* The contents are no longer needed. */
static bool unwanted(const struct hgm_request *req)
{
	return atomic_load_explicit(&req->in.r->dying, memory_order_acquire) ||
	       (req->peek && atomic_load_explicit(&req->peek->given_up, memory_order_acquire));
}

static bool after_install(struct hgm_request *req, int rc, uint64_t *now_ns)
{
	struct hgm *h = req->in.r->h;

	if (rc == -ENOMEM || req->starved)
		set_starved(req, rc);
	if (rc)
		return put_off_by_kernel(req, HGM_STEP_INSTALL);
	if (req->in.demand) {
		*now_ns = hgm_now_ns();
		hgm_stat_phase(&h->stats, HGM_PHASE_INSTALL, *now_ns - req->answered_ns);
	}
	return go_on(req, req->in.settling_pages);
}

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
	uint64_t crowd = atomic_load_explicit(&h->failing_requests, memory_order_relaxed);

	for (uint32_t i = 1; i < req->attempt && us < max_us; i++)
		us *= 2;
	us = us < max_us ? us : max_us;
	if (crowd > CROWD)
		us += req->answered_ns / 1000 * (uint64_t)(req - h->requests->slot + 1) %
		      (crowd * CROWD_US);
	return us;
}

static void log_failure(struct hgm_request *req, int rc)
{
	unsigned long long at = req->in.r->source_offset + (req->in.first_page << HGM_PAGE_SHIFT);
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
	hgm_work_released(req->in.r, req->in.first_page, pages);
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

	if (!go_on(req, 0)) /* demand has taken all pages by now */
		return false;
	if (req->tries && req->pages > 1 && !piecewise) {
		req->piecewise = true;
		req->tries++;
		return true;
	}
	piecewise &= !req->transient || in_a_row < OUTAGE_ROUND;
	for (;;) {
		uint64_t run = piecewise ? 1 : not_taken(req);

		if (!give_back(req, run))
			break;
		if (!go_on(req, run))
			return false;
		if (piecewise)
			return true;
	}
	/* There is no room to remember the pages, so they wait in the request. */
	if (!req->attempt++)
		atomic_fetch_add_explicit(&r->h->failing_requests, 1, memory_order_relaxed);
	put_off(req, HGM_STEP_ASK, GIVEN_UP_US);
	return false;
}

/* The first page, and so every page after it, is beyond the end of a truncated file. */
static bool cut_off(struct hgm_request *req, int rc)
{
	if (rc != -EFAULT || req->peek || req->in.r->copies ||
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

	if (req->peek || req->awaited >= req->pages)
		return;
	hgm_work_let_go(req->in.r, page, req->pages - req->awaited);
	hgm_work_released(req->in.r, page, req->pages - req->awaited);
	req->pages = req->awaited;
}

static bool failed(struct hgm_request *req, int rc)
{
	struct hgm_source *src = req->in.r->source;
	struct hgm *h = req->in.r->h;
	unsigned int in_a_row;

	/* It was cancelled on request, which is not a failure of the source. */
	if (unwanted(req)) {
		hgm_request_put(req);
		return false;
	}
	hgm_kept_give_back(req);
	if (cut_off(req, rc))
		return true;
	/* Where only faults of user mode are served, the kernel cannot write to holes. */
	if (rc == -EFAULT && !req->peek)
		hgm_discard_holes(req->in.r, req->in.first_page, req->pages);
	hgm_stat_add(&h->stats, HGM_STAT_SOURCE_ERRORS, 1);
	log_failure(req, rc);
	atomic_store_explicit(&h->last_error, rc, memory_order_relaxed);
	req->in.scribbled = true;
	req->transient = is_transient(rc);
	atomic_store_explicit(&req->in.r->scribbled, true, memory_order_release);
	in_a_row = 1 + atomic_fetch_add_explicit(&src->failures, 1, memory_order_acq_rel);
	if (!req->in.demand && !req->peek)
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
	put_off(req, HGM_STEP_ASK, (uint32_t)backoff_us(req));
	return false;
}

/* A good answer. Requests that failed before it need not wait any longer. */
static void succeeded(struct hgm_request *req)
{
	struct hgm_source *src = req->in.r->source;

	if (!atomic_load_explicit(&src->failures, memory_order_relaxed) ||
	    !atomic_exchange_explicit(&src->failures, 0, memory_order_acq_rel))
		return;
	hgm_work_source_well(req->in.r->h, src,
			     atomic_fetch_add_explicit(&src->recoveries, 1, memory_order_acq_rel));
}

/* For a sparse answer: how many pages from the first on are alike, and whether they are zero. */
static uint64_t alike(const struct hgm_request *req, uint64_t most, bool *zero)
{
	uint64_t at = req->in.first_page - req->buffer_page, run = 0;

	for (; run < most; run++, at++) {
		bool is = req->zeroes[at / 64] >> at % 64 & 1;

		if (!run)
			*zero = is;
		else if (is != *zero)
			break;
	}
	return run;
}

static void write_zeroes(const struct hgm_request *req, uint64_t pages)
{
	char *buf = hgm_request_buffer(req);
	uint64_t at = req->in.first_page - req->buffer_page;

	for (uint64_t i = 0; i < pages; i++, at++)
		if (req->zeroes[at / 64] >> at % 64 & 1)
			memset(buf + (i << HGM_PAGE_SHIFT), 0, HGM_PAGE_BYTES);
}

/* Pages of a peek have arrived, or never will. */
static bool peeked(struct hgm_request *req, uint64_t pages, bool readable)
{
	struct hgm_peek *peek = req->peek;
	uint64_t bits = hgm_bits_low(pages) << req->in.first_page % HGM_PAGES_PER_WORD;

	if (readable && req->sparse)
		write_zeroes(req, pages);
	if (!readable || req->in.zero)
		memset(hgm_request_buffer(req), 0, pages << HGM_PAGE_SHIFT);
	if (!readable)
		atomic_fetch_or_explicit(&peek->unreadable, bits, memory_order_relaxed);
	atomic_fetch_and_explicit(&peek->open, ~bits, memory_order_release);
	hgm_kept_install(req, pages);
	return go_on(req, pages);
}

static void fell_short(struct hgm_request *req)
{
	struct hgm *h = req->in.r->h;

	hgm_stat_add(&h->stats, HGM_STAT_SOURCE_SHORT, 1);
	req->fell_short = true;
	if (req->attempt)
		atomic_fetch_sub_explicit(&h->failing_requests, 1, memory_order_relaxed);
	req->attempt = 0;
}

/* Delivered pages cannot be put into memory. Ask the source for them again. */
static bool not_placed(struct hgm_request *req, int rc)
{
	if (cut_off(req, rc))
		return true;
	hgm_discard_holes(req->in.r, req->in.first_page, req->pages);
	req->delivered = 0;
	return put_off_by_kernel(req, HGM_STEP_ASK);
}

/*
 * Where contents go into the alias by system calls only: put the request's first pages there,
 * perhaps fewer than *pages. -errno: none.
 */
static int place(struct hgm_request *req, uint64_t *pages)
{
	int64_t n;

	if (!req->in.r->bounces && (!req->in.zero || !req->in.r->may_shrink || req->in.r->copies))
		return 0;
	n = hgm_shrunk_write(req->in.r, req->in.first_page, *pages,
			     req->in.zero ? NULL : hgm_request_buffer(req));
	if (n <= 0)
		return n ? (int)n : -EFAULT;
	*pages = (uint64_t)n;
	return 0;
}

/* Handle the delivered pages, up to the first one that demand has taken. */
static bool contents(struct hgm_request *req, uint64_t *now_ns)
{
	uint64_t run = not_taken(req);
	int rc;

	run = run < req->delivered ? run : req->delivered;
	if (req->sparse)
		run = alike(req, run, &req->delivered_zero);
	req->in.zero = req->delivered_zero; /* a run may have been written out as zeroes */
	rc = req->given ? 0 : place(req, &run);
	if (rc)
		return not_placed(req, rc);
	req->in.buffer = hgm_request_buffer(req);
	return after_install(req, hgm_resolve_contents(&req->in, run), now_ns);
}

/* @zeroes: a bit for each page that is zero; NULL: all pages or none are zero, as @result says. */
static bool answered(struct hgm_request *req, int64_t result, const uint64_t *zeroes, bool later,
		     uint64_t *now_ns)
{
	struct hgm *h = req->in.r->h;
	uint64_t length = hgm_request_asks(req) << HGM_PAGE_SHIFT;
	uint64_t bytes = result < 0 ? 0 : (uint64_t)(result & ~HGM_IO_ZERO);
	bool ok = bytes >= HGM_PAGE_BYTES && bytes <= length;

	req->answered_ns = hgm_now_ns();
	HGM_TRACE2(answer, req, result);
	if (req->in.demand)
		hgm_stat_phase(&h->stats, HGM_PHASE_SOURCE, req->answered_ns - req->asked_ns);
	if (req->filling)
		hgm_work_fill_done(h, req, ok ? bytes & ~(HGM_PAGE_BYTES - 1) : 0, later);
	if (!ok)
		return failed(req, result < 0 && result >= -ERRNO_MAX ? (int)result : -EIO);
	succeeded(req);
	req->in.zero = req->delivered_zero = result & HGM_IO_ZERO;
	req->sparse = zeroes;
	if (zeroes)
		memcpy(req->zeroes, zeroes, hgm_bits_words(bytes >> HGM_PAGE_SHIFT) * 8);
	if (req->peek)
		return peeked(req, bytes >> HGM_PAGE_SHIFT, true);
	req->delivered = bytes >> HGM_PAGE_SHIFT;
	if (req->delivered < hgm_request_asks(req))
		fell_short(req);
	else if (req->in.demand)
		hgm_readahead_took(&req->in.r->fill->readahead, req->delivered,
				   req->answered_ns - req->asked_ns);
	while (req->taken & 1)
		advance(req, 1);
	/*
	 * A thread that reads events can neither drop pages that were discarded meanwhile nor wait
	 * for a thread that does so. Leave the copying to the workers.
	 */
	if (later && req->delivered && req->in.r->copies && hgm_discard_forbidden()) {
		req->step = HGM_STEP_CONTENTS;
		return true;
	}
	return req->delivered ? contents(req, now_ns) : go_on(req, 0);
}

/* Discarded pages at the front of the request need no source. False: there are none. */
static bool pass_discarded(struct hgm_request *req, bool *mine)
{
	bool discarded;
	uint64_t run;
	int rc;

	if (req->peek)
		return false;
	hgm_suspects_check(req->in.r, req->in.first_page, hgm_request_asks(req));
	run = hgm_discard_run(req->in.r, req->in.first_page, hgm_request_asks(req), &discarded);
	if (!discarded)
		return false;
	run = run < not_taken(req) ? run : not_taken(req);
	rc = hgm_resolve_dropped(&req->in, &run);
	*mine = rc ? put_off_by_kernel(req, req->step) : go_on(req, run);
	return true;
}

static bool ask(struct hgm_request *req, bool may_sleep, uint64_t *now_ns)
{
	struct hgm_region *r = req->in.r;
	struct hgm *h = r->h;
	struct hgm_source *src = r->source;
	bool nowait = !may_sleep && src->blocking;
	uint64_t before_ns = *now_ns;
	uint64_t ticket =
		((atomic_load_explicit(&req->ticket, memory_order_relaxed) >> FLAG_BITS) + 1)
		<< FLAG_BITS;
	struct hgm_io io = {
		.engine = h,
		.id = ticket_id(h, req, ticket),
		.offset = r->source_offset + (req->in.first_page << HGM_PAGE_SHIFT),
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
	if (req->peek)
		hgm_kept_claim(req);
	*now_ns = 0; /* both paths below may take long */
	if (nowait && !src->read_nowait) {
		hgm_work_demand(h, req);
		return false;
	}
	req->asked_ns = before_ns ? before_ns : hgm_now_ns();
	HGM_TRACE4(ask, req, io.offset, io.length, io.flags & HGM_IO_DEMAND);
	if (req->in.demand) {
		hgm_feed_demand(r->fill->feed, req->asked_ns);
		hgm_fill_fault(r, req->in.first_page);
	} else {
		hgm_work_fill_asked(h, req, io.length);
	}
	if (src->memory) /* answers at once, and no other thread can answer */
		return answered(req, src->read(src->user, &io), NULL, false, now_ns);
	hgm_region_hold(r); /* the answer may drop the request's reference while the source runs */
	atomic_store_explicit(&req->asked_for, r, memory_order_release);
	atomic_store_explicit(&req->asked_fill,
			      req->in.demand || (req->peek && !req->kept)
				      ? 0
				      : req->in.first_page << PAGES_BITS | req->pages,
			      memory_order_relaxed);
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
	return answered(req, result, NULL, false, now_ns);
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

	if (req->peek)
		return peeked(req, hgm_request_asks(req), false);
	if (pass_discarded(req, &mine))
		return mine;
	rc = hgm_resolve_poison(&req->in, hgm_request_asks(req));
	if (hgm_put_off(rc))
		return put_off_by_kernel(req, HGM_STEP_POISON);
	if (!rc)
		return go_on(req, req->in.settling_pages);
	/*
	 * Pages cannot be poisoned here. The waiter goes on waiting, the caller is told, and the
	 * source may recover.
	 */
	hgm_log_some(&req->in.r->h->log, HGM_LOG_GIVEN_UP, HGM_LOG_ERROR,
		     "the source failed for good and nothing can be poisoned here: %llu KiB at %p "
		     "stay missing, and are asked for again",
		     (unsigned long long)hgm_request_asks(req) * HGM_PAGE_BYTES >> 10,
		     hgm_region_at(req->in.r, req->in.first_page));
	if (req->pages > 1 && !hgm_region_whole_blocks(req->in.r))
		leave_behind(req);
	req->attempt = req->in.r->h->opts.retries + 1;
	hgm_notify(req->in.r->h);
	put_off(req, HGM_STEP_ASK, GIVEN_UP_US);
	return false;
}

static uint64_t run(struct hgm_request *req, bool may_sleep, uint64_t now_ns)
{
	bool mine = true;

	req->in.on_fault_thread = !may_sleep;
	if (may_sleep)
		req->in.wake_later = false; /* it no longer belongs to a fault thread */
	while (mine) {
		if (unwanted(req)) {
			hgm_request_put(req);
			return 0;
		}
		switch (req->step) {
		case HGM_STEP_ASK:
			mine = ask(req, may_sleep, &now_ns);
			break;
		case HGM_STEP_CONTENTS:
			mine = contents(req, &now_ns);
			break;
		case HGM_STEP_INSTALL:
			mine = after_install(req, hgm_resolve_install(&req->in), &now_ns);
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

int hgm_request_peek(struct hgm_region *r, struct hgm_peek *peek, uint64_t page, uint64_t pages)
{
	struct hgm_request *req = hgm_request_get(r, false);

	if (!req)
		return -EAGAIN;
	req->peek = peek;
	req->peek_pages = pages;
	atomic_store_explicit(&req->peeks, true, memory_order_relaxed);
	atomic_fetch_add_explicit(&r->fill->peeks, 1, memory_order_relaxed);
	req->in.first_page = page;
	req->pages = pages;
	hgm_work_later(r->h, req, 0);
	return 0;
}

static int done(const struct hgm_io *io, int64_t result, const uint64_t *zeroes, const char *call)
{
	uint64_t ticket, bytes, asked, now_ns = 0;
	struct hgm_request *req;
	struct hgm_region *r;
	bool logs;
	int rc = 0;

	if (!io || !io->engine || (io->id & INDEX_MASK) >= HGM_REQUESTS)
		return hgm_fail(-EINVAL, "%s: no request of this engine", call);
	req = &io->engine->requests->slot[io->id & INDEX_MASK];
	ticket = io->id >> INDEX_BITS << FLAG_BITS | ASKED;
	if (ticket > (atomic_load_explicit(&req->ticket, memory_order_relaxed) | ASKED | RAISING))
		return hgm_fail(-EINVAL, "%s: request %llu was never asked", call,
				(unsigned long long)io->id);
	if (!take_answer(req, ticket))
		return hgm_fail(-EALREADY, "%s: request %llu was answered before", call,
				(unsigned long long)io->id);

	r = req->in.r;
	logs = r->h->log.write;
	req->in.wake_later = req->in.on_fault_thread =
		false; /* the thread that asked has gone on */
	bytes = (uint64_t)(result & ~HGM_IO_ZERO);
	asked = hgm_request_asks(req) << HGM_PAGE_SHIFT;
	if (result == HGM_IO_LATER || (result > 0 && bytes > asked)) {
		rc = hgm_fail(-EINVAL,
			      "%s: result %lld is no possible answer to a request of %llu bytes; "
			      "it counts as failed",
			      call, (long long)result, (unsigned long long)asked);
		result = -EIO;
	}
	/*
	 * Leave further requests to the workers, because the source must not be called from inside
	 * itself.
	 */
	if (logs) /* without this, the engine may be gone with the request */
		hgm_region_hold(r);
	if (answered(req, result, zeroes, true, &now_ns))
		hgm_work_demand(r->h, req);
	if (logs) {
		hgm_log_flush(&r->h->log);
		hgm_region_drop(r);
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

static void cancel(struct hgm_region *r, bool only_peeks)
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
		    (!only_peeks || atomic_load_explicit(&req->peeks, memory_order_relaxed)) &&
		    atomic_load_explicit(&req->ticket, memory_order_acquire) == ticket)
			r->source->cancel(r->source->user, h, ticket_id(h, req, ticket));
	}
}

void hgm_requests_cancel(struct hgm_region *r)
{
	cancel(r, false);
}

void hgm_requests_cancel_peeks(struct hgm_region *r)
{
	hgm_work_hurry_peeks(r);
	cancel(r, true);
}
