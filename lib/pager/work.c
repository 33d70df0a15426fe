/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The work queue: other threads add work, and the workers (workers.c) take it.
 *
 * Its lock covers queues and counters only. No source and no ioctl runs under it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fill_source.h"
#include "fill.h"
#include "install/resolve.h"
#include "region/hgm.h"
#include "request.h"
#include "source/source.h"
#include "util/clock.h"
#include "util/thread.h"
#include "work.h"

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
		    !hgm_fill_source_has_worker(w, req->in.r->fill->source, now))
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

static bool enqueue(struct hgm_work *w, struct hgm_request_list *list, struct hgm_request *req)
{
	bool dying;

	pthread_mutex_lock(&w->lock);
	dying = hgm_work_is_over(req->in.r);
	if (!dying) {
		append(list, req);
		hgm_work_wake_one(w);
	}
	pthread_mutex_unlock(&w->lock);
	return !dying;
}

bool hgm_work_demand(struct hgm *h, struct hgm_request *req)
{
	return enqueue(h->work, &h->work->demand, req);
}

bool hgm_work_later(struct hgm *h, struct hgm_request *req, uint64_t due_ns)
{
	req->due_ns = due_ns;
	return enqueue(h->work, &h->work->retry, req);
}

void hgm_work_add_region(struct hgm_region *r)
{
	struct hgm_work *w = r->h->work;

	if (r->flags & HGM_REGION_NO_FILL)
		return;
	pthread_mutex_lock(&w->lock);
	hgm_fill_source_add(w, r);
	hgm_work_wake_one(w);
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

/*
 * Take the region's blocks off the queue. Returns their number. Each of them holds a reference to
 * the region.
 */
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
struct hgm_request *hgm_work_remove_region(struct hgm_region *r)
{
	struct hgm_request_list mine = { NULL, NULL };
	struct hgm_work *w = r->h->work;
	unsigned int holds;

	pthread_mutex_lock(&w->lock);
	hgm_fill_source_remove(r);
	atomic_store_explicit(&r->prefetch_count, 0, memory_order_relaxed);
	take_requests(&w->demand, r, &mine);
	take_requests(&w->retry, r, &mine);
	holds = take_urgent(w, r);
	for (struct hgm_worker *each = w->workers; each; each = each->next)
		holds += (unsigned int)take_chunk(&each->urgent, r) +
			 (unsigned int)take_chunk(&each->fill, r);
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
	while (holds--)
		hgm_region_unref(r);
	return mine.first;
}

/* What a slow source needs at the start, before the fill window has measured it. */
#define THROUGH_ROOM_MIN (UINT64_C(128) << 10)

uint64_t hgm_work_through_room(struct hgm_region *r, uint64_t *chunk)
{
	struct hgm_work *w = r->h->work;
	uint64_t room;

	pthread_mutex_lock(&w->lock);
	*chunk = hgm_fill_window_chunk(&r->fill->source->window);
	room = hgm_fill_window_bytes(&r->fill->source->window);
	room = room > THROUGH_ROOM_MIN ? room : THROUGH_ROOM_MIN;
	pthread_mutex_unlock(&w->lock);
	return room;
}

void hgm_work_through_ended(struct hgm_region *r)
{
	struct hgm_work *w = r->h->work;

	atomic_store_explicit(&r->fill->through_ended_ns, hgm_now_ns(), memory_order_relaxed);
	if (atomic_fetch_sub_explicit(&r->fill->through, 1, memory_order_acq_rel) != 1)
		return;
	pthread_mutex_lock(&w->lock);
	hgm_work_wake_one(w);
	pthread_mutex_unlock(&w->lock);
}

void hgm_work_hurry_through(struct hgm_region *r)
{
	struct hgm_work *w = r->h->work;

	pthread_mutex_lock(&w->lock);
	for (struct hgm_request *req = w->retry.first; req; req = req->next)
		if (req->in.r == r && req->through)
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
	if (hgm_work_is_over(r)) {
		rc = 0;
	} else if (w->urgent_count == HGM_URGENT_MAX) {
		rc = -EAGAIN;
	} else {
		w->urgent[(w->urgent_first + w->urgent_count++) % HGM_URGENT_MAX] =
			(struct hgm_urgent){ r, block * block_pages, (block + 1) * block_pages };
		hgm_region_ref(r);
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

void hgm_work_wake_released(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	if (hgm_region_whole_blocks(r))
		hgm_work_not_urgent(r, hgm_region_block(r, page));
	hgm_region_wake(r, page, pages);
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
	       !hgm_work_is_over(req->in.r) &&
	       !(req->through &&
		 atomic_load_explicit(&req->through->given_up, memory_order_acquire));
}

void hgm_work_stop(struct hgm *h)
{
	pthread_mutex_lock(&h->work->lock);
	h->work->stop = true;
	pthread_cond_broadcast(&h->work->cond);
	pthread_mutex_unlock(&h->work->lock);
}
