/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The work queue: other threads add work, and the workers (fill.c) take it.
 *
 * Its lock covers queues and counters only. No source and no ioctl runs under it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "feed.h"
#include "fill.h"
#include "fill_control.h"
#include "install/resolve.h"
#include "region/hgm.h"
#include "request.h"
#include "source/source.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/thread.h"
#include "work.h"

#define PAUSE_MAX_US   1000000 /* pause of fill after failures */
#define ROUND_FIRST_US 10000   /* before a round asks again for pages that failed */
#define ROUND_MAX_US   1000000
#define PEEKS_NS       10000000 /* a snapshot that wants more asks for it within this time */

int hgm_work_init(struct hgm *h)
{
	struct hgm_work *w = aligned_alloc(_Alignof(struct hgm_work), sizeof(*w));
	unsigned int cpus = hgm_cpus();

	if (!w)
		return -ENOMEM;
	memset(w, 0, sizeof(*w));
	h->work = w;
	pthread_mutex_init(&w->lock, NULL);
	hgm_cond_init(&w->cond);
	w->threads = h->opts.workers;
	w->computing_most = cpus > 1 ? cpus / 2 : 1;
	w->pass = 1;
	return 0;
}

void hgm_work_destroy(struct hgm *h)
{
	if (!h->work)
		return;
	pthread_mutex_destroy(&h->work->lock);
	pthread_cond_destroy(&h->work->cond);
	free(h->work);
	h->work = NULL;
}

static void append(struct hgm_request_list *list, struct hgm_request *req)
{
	req->next = NULL;
	if (list->first)
		list->last->next = req;
	else
		list->first = req;
	list->last = req;
}

static struct hgm_request *pop(struct hgm_request_list *list)
{
	struct hgm_request *req = list->first;

	if (req)
		list->first = req->next;
	return req;
}

/* The first request that is due. *soonest is lowered to the time when the next one is due. */
static struct hgm_request *pop_due(struct hgm_work *w, uint64_t now, uint64_t *soonest)
{
	struct hgm_request_list *list = &w->retry;
	struct hgm_request **link = &list->first;
	struct hgm_request *before = NULL;

	for (; *link; before = *link, link = &before->next) {
		struct hgm_request *req = *link;

		if (hgm_work_fill_sleeps(req) &&
		    !hgm_feed_has_worker(w, req->in.r->fill->feed, now))
			continue;
		if (req->due_ns <= now) {
			*link = req->next;
			if (list->last == req)
				list->last = before;
			return req;
		}
		if (req->due_ns < *soonest)
			*soonest = req->due_ns;
	}
	return NULL;
}

static void wake_one(struct hgm_work *w)
{
	if (w->idle)
		pthread_cond_signal(&w->cond);
}

/* The work of a dying region is taken off the queues, and no more may be added. */
static bool is_dying(const struct hgm_region *r)
{
	return atomic_load_explicit(&r->dying, memory_order_acquire);
}

static void enqueue(struct hgm_work *w, struct hgm_request_list *list, struct hgm_request *req)
{
	bool dying;

	pthread_mutex_lock(&w->lock);
	dying = is_dying(req->in.r);
	if (!dying) {
		append(list, req);
		wake_one(w);
	}
	pthread_mutex_unlock(&w->lock);
	if (dying)
		hgm_request_put(req);
}

void hgm_work_demand(struct hgm *h, struct hgm_request *req)
{
	enqueue(h->work, &h->work->demand, req);
}

void hgm_work_later(struct hgm *h, struct hgm_request *req, uint64_t due_ns)
{
	req->due_ns = due_ns;
	enqueue(h->work, &h->work->retry, req);
}

void hgm_work_add_region(struct hgm_region *r)
{
	struct hgm_work *w = r->h->work;

	if (r->flags & HGM_REGION_NO_FILL)
		return;
	pthread_mutex_lock(&w->lock);
	hgm_feed_add(w, r);
	wake_one(w);
	pthread_mutex_unlock(&w->lock);
}

/* Move the region's requests from one queue to another. */
static void take_requests(struct hgm_request_list *from, const struct hgm_region *r,
			  struct hgm_request_list *to)
{
	struct hgm_request_list rest = { NULL, NULL };
	struct hgm_request *req;

	while ((req = pop(from)))
		append(req->in.r == r ? to : &rest, req);
	*from = rest;
}

/* Take the region's blocks off the queue. Returns their number; each of them holds the region. */
static unsigned int take_urgent(struct hgm_work *w, const struct hgm_region *r)
{
	unsigned int kept = 0, count = w->urgent_count;

	for (unsigned int i = 0; i < count; i++) {
		struct hgm_urgent u = w->urgent[(w->urgent_first + i) % HGM_URGENT_MAX];

		if (u.r != r)
			w->urgent[(w->urgent_first + kept++) % HGM_URGENT_MAX] = u;
	}
	w->urgent_count = kept;
	return count - kept;
}

static bool take_chunk(struct hgm_chunk *c, const struct hgm_region *r)
{
	if (c->r != r || c->busy)
		return false;
	c->r = NULL;
	return true;
}

/*
 * Drop all work of a dying region that waits in queues and with workers. The workers cannot be
 * relied on to do this, because all of them may be inside sources of other regions.
 */
void hgm_work_remove_region(struct hgm_region *r)
{
	struct hgm_request_list mine = { NULL, NULL };
	struct hgm_work *w = r->h->work;
	struct hgm_request *req;
	unsigned int holds;

	pthread_mutex_lock(&w->lock);
	hgm_feed_remove(r);
	atomic_store_explicit(&r->prefetch_count, 0, memory_order_relaxed);
	take_requests(&w->demand, r, &mine);
	take_requests(&w->retry, r, &mine);
	holds = take_urgent(w, r);
	for (struct hgm_worker *each = w->workers; each; each = each->next)
		holds += (unsigned int)take_chunk(&each->urgent, r) +
			 (unsigned int)take_chunk(&each->fill, r);
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
	while ((req = pop(&mine)))
		hgm_request_put(req);
	while (holds--)
		hgm_region_drop(r);
}

/* What a slow source needs at the start, before the window has measured it. */
#define PEEK_ROOM_MIN (UINT64_C(128) << 10)

uint64_t hgm_work_peek_room(struct hgm_region *r, uint64_t *chunk)
{
	struct hgm_work *w = r->h->work;
	uint64_t room;

	pthread_mutex_lock(&w->lock);
	*chunk = hgm_window_chunk(&r->fill->feed->window);
	room = hgm_window_bytes(&r->fill->feed->window);
	room = room > PEEK_ROOM_MIN ? room : PEEK_ROOM_MIN;
	pthread_mutex_unlock(&w->lock);
	return room;
}

void hgm_work_peeked(struct hgm_region *r)
{
	struct hgm_work *w = r->h->work;

	atomic_store_explicit(&r->fill->peeked_ns, hgm_now_ns(), memory_order_relaxed);
	if (atomic_fetch_sub_explicit(&r->fill->peeks, 1, memory_order_acq_rel) != 1)
		return;
	pthread_mutex_lock(&w->lock);
	wake_one(w);
	pthread_mutex_unlock(&w->lock);
}

void hgm_work_hurry_peeks(struct hgm_region *r)
{
	struct hgm_work *w = r->h->work;

	pthread_mutex_lock(&w->lock);
	for (struct hgm_request *req = w->retry.first; req; req = req->next)
		if (req->in.r == r && req->peek)
			req->due_ns = 0;
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

int hgm_work_urgent(struct hgm_region *r, uint64_t block)
{
	struct hgm_work *w = r->h->work;
	uint64_t bit = UINT64_C(1) << block % 64;
	uint64_t block_pages = r->block_bytes >> HGM_PAGE_SHIFT;
	int rc = 0;

	if (atomic_fetch_or_explicit(&r->fill->block_urgent[block / 64], bit,
				     memory_order_acq_rel) &
	    bit)
		return 0; /* is or was in the queue: its owner fetches it */
	pthread_mutex_lock(&w->lock);
	if (is_dying(r)) {
		rc = 0;
	} else if (w->urgent_count == HGM_URGENT_MAX) {
		rc = -EAGAIN;
	} else {
		w->urgent[(w->urgent_first + w->urgent_count++) % HGM_URGENT_MAX] =
			(struct hgm_urgent){ r, block * block_pages, (block + 1) * block_pages };
		hgm_region_hold(r);
		pthread_cond_broadcast(&w->cond); /* a block has work for all workers */
	}
	pthread_mutex_unlock(&w->lock);
	if (rc)
		hgm_work_not_urgent(r, block);
	return rc;
}

void hgm_work_not_urgent(struct hgm_region *r, uint64_t block)
{
	atomic_fetch_and_explicit(&r->fill->block_urgent[block / 64], ~(UINT64_C(1) << block % 64),
				  memory_order_acq_rel);
}

void hgm_work_released(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	if (hgm_region_whole_blocks(r))
		hgm_work_not_urgent(r, hgm_region_block(r, page));
	hgm_region_wake(r, page, pages);
}

static bool has_room(const struct hgm_region *r)
{
	return atomic_load_explicit(&r->prefetch_count, memory_order_relaxed) < HGM_PREFETCH_MAX;
}

static void add_prefetch(struct hgm_work *w, struct hgm_region *r, uint64_t page, uint64_t pages,
			 uint32_t tries)
{
	unsigned int count = atomic_load_explicit(&r->prefetch_count, memory_order_relaxed);
	unsigned int at = (r->fill->prefetch_first + count) % HGM_PREFETCH_MAX;

	/* After one failure it comes next, as the source may have been away; later, in its turn. */
	if (tries == 1)
		at = r->fill->prefetch_first =
			(r->fill->prefetch_first + HGM_PREFETCH_MAX - 1) % HGM_PREFETCH_MAX;
	r->fill->prefetch[at] = (struct hgm_prefetch){ page, pages, tries };
	atomic_store_explicit(&r->event_due, true, memory_order_seq_cst);
	atomic_store_explicit(&r->prefetch_count, count + 1, memory_order_seq_cst);
	hgm_feed_add(w, r);
	wake_one(w);
}

bool hgm_work_give_back(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	struct hgm_work *w = r->h->work;
	bool can;

	pthread_mutex_lock(&w->lock);
	/* A dying region has left the ring for good: see hgm_work_remove_region(). */
	can = !is_dying(r) && has_room(r);
	if (can) {
		hgm_map_release(r->map, page, pages);
		add_prefetch(w, r, page, pages, 0);
	}
	pthread_mutex_unlock(&w->lock);
	return can;
}

/*
 * Fill must not lose a page that no thread has asked for, however long the source is unavailable.
 * It gives back the pages that failed, and pauses, each time for longer. Failures of requests that
 * were asked before the pause say nothing new.
 */
static void pause_fill(struct hgm_region *r, uint64_t asked_ns)
{
	uint64_t us =
		r->fill->pause_us ? UINT64_C(2) * r->fill->pause_us : r->h->opts.retry_first_us;

	if (r->fill->pause_us && asked_ns < r->fill->paused_ns)
		return;
	r->fill->pause_us = (uint32_t)(us < PAUSE_MAX_US ? us : PAUSE_MAX_US);
	r->fill->paused_ns = hgm_now_ns();
	r->fill->resume_ns = r->fill->paused_ns + UINT64_C(1000) * r->fill->pause_us;
}

static void end_pause(struct hgm_region *r)
{
	r->fill->pause_us = 0;
	r->fill->resume_ns = 0;
}

/* A later round fetches these pages. */
static void note_failed(struct hgm_work *w, struct hgm_region *r, uint64_t page, uint64_t pages)
{
	if (r->fill->low == r->fill->high) {
		r->fill->low = page;
		r->fill->high = page + pages;
	}
	r->fill->low = page < r->fill->low ? page : r->fill->low;
	r->fill->high = page + pages > r->fill->high ? page + pages : r->fill->high;
	hgm_feed_add(w, r);
}

void hgm_work_let_go(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	struct hgm_work *w = r->h->work;

	pthread_mutex_lock(&w->lock);
	hgm_map_release(r->map, page, pages);
	if (!is_dying(r)) {
		note_failed(w, r, page, pages);
		wake_one(w);
	}
	pthread_mutex_unlock(&w->lock);
}

bool hgm_work_fill_failed(const struct hgm_request *req, uint64_t pages)
{
	struct hgm_region *r = req->in.r;
	bool fills = !(r->flags & HGM_REGION_NO_FILL), can;
	struct hgm_work *w = r->h->work;

	pthread_mutex_lock(&w->lock);
	can = !is_dying(r) && (fills || has_room(r));
	if (can) {
		pause_fill(r, req->asked_ns);
		atomic_fetch_add_explicit(&r->fill->failed, 1, memory_order_relaxed);
		hgm_map_release(r->map, req->in.first_page, pages);
		if (fills)
			note_failed(w, r, req->in.first_page, pages);
		else
			add_prefetch(w, r, req->in.first_page, pages, req->tries + 1);
		wake_one(w); /* so that it sleeps no longer than the pause */
	}
	pthread_mutex_unlock(&w->lock);
	return can;
}

static void begin_round(struct hgm_region *r)
{
	r->fill->rest = r->fill->next;
	r->fill->next = r->fill->low;
	r->fill->end = r->fill->high;
	r->fill->low = r->fill->high = 0;
	r->fill->again = true;
	r->fill->tries++;
	atomic_store_explicit(&r->fill->failed, 0, memory_order_relaxed);
}

bool hgm_work_fill_round_ends(struct hgm_region *r)
{
	if (!r->fill->again)
		return false;
	r->fill->next = r->fill->rest;
	r->fill->end = hgm_region_pages(r);
	r->fill->again = false;
	r->fill->onwards = true;
	if (r->fill->low == r->fill->high) /* so far */
		r->fill->tries = 0;
	return true;
}

/*
 * A snapshot in progress fetches the same pages as fill would, and they are kept. Fill leaves them
 * to the snapshot; otherwise it would run just ahead of it, and everything would be fetched twice.
 * This does not apply while the snapshot's sink keeps it from asking for more.
 */
static bool lets_snapshot_fetch(const struct hgm_region *r, uint64_t *soonest)
{
	uint64_t peeked_ns = atomic_load_explicit(&r->fill->peeked_ns, memory_order_relaxed);
	uint64_t until_ns = peeked_ns + PEEKS_NS;

	if (atomic_load_explicit(&r->prefetch_count, memory_order_relaxed))
		return false;
	if (atomic_load_explicit(&r->fill->peeks, memory_order_acquire))
		return true;
	if (!peeked_ns || hgm_now_ns() >= until_ns)
		return false;
	*soonest = until_ns < *soonest ? until_ns : *soonest;
	return true;
}

bool hgm_work_fill_goes_on(struct hgm_region *r, uint64_t *soonest)
{
	if (hgm_fill_held(r, soonest) || lets_snapshot_fetch(r, soonest))
		return false;
	if (r->fill->resume_ns && hgm_now_ns() < r->fill->resume_ns) {
		if (r->fill->resume_ns < *soonest)
			*soonest = r->fill->resume_ns;
		return false;
	}
	/* Pages that are known to fail at the moment must not keep fill from the rest. */
	if (r->fill->pause_us && !r->fill->again && !r->fill->onwards &&
	    r->fill->low < r->fill->high)
		begin_round(r);
	return true;
}

void hgm_work_fill_taken(struct hgm_region *r)
{
	if (!r->fill->again)
		r->fill->onwards = false;
	r->fill->resume_ns = 0;
	if (r->fill->pause_us)
		r->fill->resume_ns = hgm_now_ns() + UINT64_C(1000) * r->fill->pause_us;
}

bool hgm_work_fill_again(struct hgm_region *r, uint64_t *soonest)
{
	if (r->fill->low == r->fill->high)
		return false;
	begin_round(r);
	r->fill->round_us = r->fill->round_us ? 2 * r->fill->round_us : ROUND_FIRST_US;
	if (r->fill->round_us > ROUND_MAX_US)
		r->fill->round_us = ROUND_MAX_US;
	r->fill->resume_ns = hgm_now_ns() + UINT64_C(1000) * r->fill->round_us;
	if (r->fill->resume_ns < *soonest)
		*soonest = r->fill->resume_ns;
	return true;
}

/*
 * Only its answers tell whether a source works again. If a request failed both before and after a
 * good answer, the cause is what it asks for. It waits for its turn, unless the failure was
 * transient.
 */
void hgm_work_source_well(struct hgm *h, const struct hgm_source *src, unsigned int recoveries)
{
	struct hgm_work *w = h->work;
	const struct hgm_feed *f;
	struct hgm_region *r;

	pthread_mutex_lock(&w->lock);
	for (struct hgm_request *req = w->retry.first; req; req = req->next)
		if (req->in.r->source == src && req->step == HGM_STEP_ASK &&
		    (req->transient || req->recoveries == recoveries))
			req->due_ns = 0;
	f = hgm_feed_find(w, src);
	r = f ? f->ring : NULL;
	do {
		if (r && r->fill->pause_us)
			end_pause(r);
		r = r ? r->fill->link : NULL;
	} while (f && r != f->ring);
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

void hgm_work_refill(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	struct hgm_work *w = r->h->work;

	pthread_mutex_lock(&w->lock);
	for (struct hgm_request *req = w->retry.first; req; req = req->next)
		if (req->in.r == r)
			req->due_ns = 0;
	end_pause(r);
	r->fill->round_us = 0;
	if (pages && !(r->flags & HGM_REGION_NO_FILL) && !is_dying(r))
		note_failed(w, r, page, pages);
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

int hgm_region_prefetch(struct hgm_region *r, uint64_t offset, uint64_t length)
{
	struct hgm_work *w;
	int rc = 0;

	if (!r)
		return hgm_fail(-EINVAL, "hgm_region_prefetch: the region is NULL");
	w = r->h->work;
	if (!length || offset >= r->length || length > r->length - offset)
		return hgm_fail(
			-EINVAL,
			"hgm_region_prefetch: [%llu, +%llu) is empty or not inside the region",
			(unsigned long long)offset, (unsigned long long)length);
	length += offset % r->map_bytes;
	offset -= offset % r->map_bytes;
	length = (length + r->map_bytes - 1) / r->map_bytes * r->map_bytes;
	if (length > r->length - offset)
		length = r->length - offset;
	pthread_mutex_lock(&w->lock);
	if (has_room(r))
		add_prefetch(w, r, offset >> HGM_PAGE_SHIFT, length >> HGM_PAGE_SHIFT, 0);
	else
		rc = hgm_fail(-ENOBUFS,
			      "hgm_region_prefetch: %d ranges wait already; try again "
			      "when some have arrived",
			      HGM_PREFETCH_MAX);
	pthread_mutex_unlock(&w->lock);
	return rc;
}

struct hgm_request *hgm_work_next_request(struct hgm_work *w, uint64_t *soonest)
{
	struct hgm_request *req = pop(&w->demand);

	*soonest = UINT64_MAX;
	if (!req && w->retry.first)
		req = pop_due(w, hgm_now_ns(), soonest);
	return req;
}

bool hgm_work_fill_sleeps(const struct hgm_request *req)
{
	return !req->in.demand && req->step == HGM_STEP_ASK && req->in.r->source->blocking &&
	       !is_dying(req->in.r) &&
	       !(req->peek && atomic_load_explicit(&req->peek->given_up, memory_order_acquire));
}

void hgm_work_stop(struct hgm *h)
{
	pthread_mutex_lock(&h->work->lock);
	h->work->stop = true;
	pthread_cond_broadcast(&h->work->cond);
	pthread_mutex_unlock(&h->work->lock);
}
