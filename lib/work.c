/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The work queue: what the workers (fill.c) take from, and what others put in.
 *
 * Its lock covers queues and counters only: no source and no ioctl runs under it.
 */
#include <errno.h>

#include "clock.h"
#include "engine.h"
#include "error.h"
#include "source.h"

void hgm_work_init(struct hgm *h)
{
	struct hgm_work *w = &h->work;

	pthread_mutex_init(&w->lock, NULL);
	hgm_cond_init(&w->cond);
	hgm_window_init(&w->window, h->opts.fill_window_bytes);
}

void hgm_work_destroy(struct hgm *h)
{
	pthread_mutex_destroy(&h->work.lock);
	pthread_cond_destroy(&h->work.cond);
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

/* The first request that is due; *soonest is lowered to the time of the next that is not. */
static struct hgm_request *pop_due(struct hgm_work *w, uint64_t now, uint64_t *soonest)
{
	struct hgm_request_list *list = &w->retry;
	struct hgm_request **link = &list->first;
	struct hgm_request *before = NULL;

	for (; *link; before = *link, link = &before->next) {
		struct hgm_request *req = *link;

		if (hgm_work_fill_sleeps(req) && !hgm_work_may_fill(w, req->r))
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

void hgm_work_demand(struct hgm *h, struct hgm_request *req)
{
	pthread_mutex_lock(&h->work.lock);
	append(&h->work.demand, req);
	wake_one(&h->work);
	pthread_mutex_unlock(&h->work.lock);
}

void hgm_work_later(struct hgm *h, struct hgm_request *req, uint64_t due_ns)
{
	pthread_mutex_lock(&h->work.lock);
	req->due_ns = due_ns;
	append(&h->work.retry, req);
	wake_one(&h->work);
	pthread_mutex_unlock(&h->work.lock);
}

void hgm_work_fill_asked(struct hgm *h, struct hgm_request *req, uint64_t bytes)
{
	pthread_mutex_lock(&h->work.lock);
	if (!req->peek)
		hgm_window_asked(&h->work.window, req->asked_ns);
	h->work.fill_inflight += bytes;
	req->delivered_before = h->work.window.delivered_bytes;
	pthread_mutex_unlock(&h->work.lock);
	hgm_stat_add(h, HGM_STAT_FILL_REQUESTS, 1);
}

void hgm_work_fill_done(struct hgm *h, const struct hgm_request *req, uint64_t bytes, bool ok,
			bool later)
{
	struct hgm_work *w = &h->work;

	pthread_mutex_lock(&w->lock);
	w->fill_inflight -= bytes;
	if (ok && later)
		hgm_window_answered(&w->window, bytes, req->asked_ns, req->delivered_before,
				    req->answered_ns);
	else if (ok)
		hgm_window_immediate(&w->window);
	if (w->fill && w->fill_inflight < w->window.bytes)
		hgm_window_room(&w->window, req->answered_ns);
	wake_one(w);
	pthread_mutex_unlock(&w->lock);
}

static void ring_add(struct hgm_work *w, struct hgm_region *r)
{
	if (r->fill_link)
		return;
	r->fill_link = w->fill ? w->fill->fill_link : r;
	if (w->fill)
		w->fill->fill_link = r;
	w->fill = r;
}

void hgm_work_ring_remove(struct hgm_work *w, struct hgm_region *r)
{
	struct hgm_region *before = r;

	if (!r->fill_link)
		return;
	while (before->fill_link != r)
		before = before->fill_link;
	before->fill_link = r->fill_link;
	if (w->fill == r)
		w->fill = before == r ? NULL : before;
	r->fill_link = NULL;
}

void hgm_work_add_region(struct hgm_region *r)
{
	struct hgm_work *w = &r->h->work;

	if (r->flags & HGM_REGION_NO_FILL)
		return;
	pthread_mutex_lock(&w->lock);
	ring_add(w, r);
	wake_one(w);
	pthread_mutex_unlock(&w->lock);
}

/* The region is dying: what waits for it is run now, which drops it. */
void hgm_work_remove_region(struct hgm_region *r)
{
	struct hgm_work *w = &r->h->work;

	pthread_mutex_lock(&w->lock);
	hgm_work_ring_remove(w, r);
	atomic_store_explicit(&r->prefetch_count, 0, memory_order_relaxed);
	for (struct hgm_request *req = w->retry.first; req; req = req->next)
		if (req->r == r)
			req->due_ns = 0;
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

int hgm_work_urgent(struct hgm_region *r, uint64_t block)
{
	struct hgm_work *w = &r->h->work;
	uint64_t bit = UINT64_C(1) << block % 64;
	uint64_t block_pages = r->block_bytes >> HGM_PAGE_SHIFT;
	int rc = 0;

	if (atomic_fetch_or_explicit(&r->block_urgent[block / 64], bit, memory_order_acq_rel) & bit)
		return 0; /* is in the queue or has been: its owner is on it */
	pthread_mutex_lock(&w->lock);
	if (w->urgent_count == HGM_URGENT_MAX) {
		rc = -EAGAIN;
	} else {
		w->urgent[(w->urgent_first + w->urgent_count++) % HGM_URGENT_MAX] =
			(struct hgm_urgent){ r, block * block_pages, (block + 1) * block_pages };
		hgm_region_hold(r);
		pthread_cond_broadcast(&w->cond); /* a block has work for all */
	}
	pthread_mutex_unlock(&w->lock);
	if (rc)
		atomic_fetch_and_explicit(&r->block_urgent[block / 64], ~bit, memory_order_acq_rel);
	return rc;
}

static bool has_room(const struct hgm_region *r)
{
	return atomic_load_explicit(&r->prefetch_count, memory_order_relaxed) < HGM_PREFETCH_MAX;
}

static void add_prefetch(struct hgm_work *w, struct hgm_region *r, uint64_t page, uint64_t pages)
{
	unsigned int count = atomic_load_explicit(&r->prefetch_count, memory_order_relaxed);

	r->prefetch[(r->prefetch_first + count) % HGM_PREFETCH_MAX] =
		(struct hgm_prefetch){ page, pages };
	atomic_store_explicit(&r->prefetch_count, count + 1, memory_order_release);
	atomic_store_explicit(&r->complete, false, memory_order_relaxed);
	ring_add(w, r);
	wake_one(w);
}

bool hgm_work_give_back(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	struct hgm_work *w = &r->h->work;
	bool can;

	pthread_mutex_lock(&w->lock);
	/* A dying region has left the ring for good: see hgm_work_remove_region(). */
	can = !atomic_load_explicit(&r->dying, memory_order_acquire) && has_room(r);
	if (can) {
		hgm_map_release(r->map, page, pages);
		add_prefetch(w, r, page, pages);
	}
	pthread_mutex_unlock(&w->lock);
	return can;
}

int hgm_region_prefetch(struct hgm_region *r, uint64_t offset, uint64_t length)
{
	struct hgm_work *w;
	int rc = 0;

	if (!r)
		return hgm_fail(-EINVAL, "hgm_region_prefetch: the region is NULL");
	w = &r->h->work;
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
		add_prefetch(w, r, offset >> HGM_PAGE_SHIFT, length >> HGM_PAGE_SHIFT);
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

/* One worker stays free for those who wait. */
bool hgm_work_may_fill(const struct hgm_work *w, const struct hgm_region *r)
{
	return !r->source->blocking || !w->filling || w->filling + 1 < r->h->opts.workers;
}

bool hgm_work_fill_sleeps(const struct hgm_request *req)
{
	return !req->demand && req->step == HGM_STEP_ASK && req->r->source->blocking &&
	       !atomic_load_explicit(&req->r->dying, memory_order_acquire);
}

void hgm_work_stop(struct hgm *h)
{
	pthread_mutex_lock(&h->work.lock);
	h->work.stop = true;
	pthread_cond_broadcast(&h->work.cond);
	pthread_mutex_unlock(&h->work.lock);
}
