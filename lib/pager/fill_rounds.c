/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rounds and pauses of fill, and the queue of prefetched ranges. Fill pauses after failures. A
 * round asks again for the pages that failed. Fill also pauses for a snapshot that fetches the same
 * pages.
 */
#include <errno.h>

#include "fill_source.h"
#include "fill.h"
#include "install/resolve.h"
#include "region/hgm.h"
#include "request.h"
#include "source/source.h"
#include "util/clock.h"
#include "util/error.h"
#include "work.h"

#define PAUSE_MAX_US   1000000 /* pause of fill after failures */
#define ROUND_FIRST_US 10000   /* before a round asks again for pages that failed */
#define ROUND_MAX_US   1000000
#define THROUGH_NS     10000000 /* a snapshot that wants more asks for it within this time */

static bool has_room(const struct hgm_region *r)
{
	return atomic_load_explicit(&r->prefetch_count, memory_order_relaxed) < HGM_PREFETCH_MAX;
}

static void add_prefetch(struct hgm_work *w, struct hgm_region *r, uint64_t page, uint64_t pages,
			 uint32_t tries)
{
	unsigned int count = atomic_load_explicit(&r->prefetch_count, memory_order_relaxed);
	unsigned int at = (r->fill->prefetch_first + count) % HGM_PREFETCH_MAX;

	/* After one failure it is next: the source may have been away. After more, it is last. */
	if (tries == 1)
		at = r->fill->prefetch_first =
			(r->fill->prefetch_first + HGM_PREFETCH_MAX - 1) % HGM_PREFETCH_MAX;
	r->fill->prefetch[at] = (struct hgm_prefetch){ page, pages, tries };
	atomic_store_explicit(&r->event_due, true, memory_order_seq_cst);
	atomic_store_explicit(&r->prefetch_count, count + 1, memory_order_seq_cst);
	hgm_fill_source_add(w, r);
	hgm_work_wake_one(w);
}

bool hgm_work_give_back(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	struct hgm_work *w = r->h->work;
	bool can;

	pthread_mutex_lock(&w->lock);
	/* A dying region has left the ring for good: see hgm_work_remove_region(). */
	can = !hgm_work_is_over(r) && has_room(r);
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
	hgm_fill_source_add(w, r);
}

void hgm_work_let_go(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	struct hgm_work *w = r->h->work;

	pthread_mutex_lock(&w->lock);
	hgm_map_release(r->map, page, pages);
	if (!hgm_work_is_over(r)) {
		note_failed(w, r, page, pages);
		hgm_work_wake_one(w);
	}
	pthread_mutex_unlock(&w->lock);
}

bool hgm_work_fill_failed(const struct hgm_request *req, uint64_t pages)
{
	struct hgm_region *r = req->in.r;
	bool fills = !(r->flags & HGM_REGION_NO_FILL), can;
	struct hgm_work *w = r->h->work;

	pthread_mutex_lock(&w->lock);
	can = !hgm_work_is_over(r) && (fills || has_room(r));
	if (can) {
		pause_fill(r, req->asked_ns);
		atomic_fetch_add_explicit(&r->fill->failed, 1, memory_order_relaxed);
		hgm_map_release(r->map, req->in.first_page, pages);
		if (fills)
			note_failed(w, r, req->in.first_page, pages);
		else
			add_prefetch(w, r, req->in.first_page, pages, req->tries + 1);
		hgm_work_wake_one(w); /* so that it sleeps no longer than the pause */
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
	r->fill->end = hgm_region_end(r);
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
	uint64_t through_ended_ns =
		atomic_load_explicit(&r->fill->through_ended_ns, memory_order_relaxed);
	uint64_t until_ns = through_ended_ns + THROUGH_NS;

	if (atomic_load_explicit(&r->prefetch_count, memory_order_relaxed))
		return false;
	if (atomic_load_explicit(&r->fill->through, memory_order_acquire))
		return true;
	if (!through_ended_ns || hgm_now_ns() >= until_ns)
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
	/* Pages that are known to fail at the moment must not keep fill from the other pages. */
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
 * Only its answers show whether a source works again. If a request failed both before and after a
 * good answer, the contents that it asks for are the cause. It waits until it is due, unless the
 * failure was transient.
 */
void hgm_work_source_well(struct hgm *h, const struct hgm_source *src, unsigned int recoveries)
{
	struct hgm_work *w = h->work;
	const struct hgm_fill_source *f;
	struct hgm_region *r;

	pthread_mutex_lock(&w->lock);
	for (struct hgm_request *req = w->retry.first; req; req = req->next)
		if (req->in.r->source == src && req->step == HGM_STEP_ASK &&
		    (req->transient || req->recoveries == recoveries))
			req->due_ns = 0;
	f = hgm_fill_source_find(w, src);
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
	if (pages && !(r->flags & HGM_REGION_NO_FILL) && !hgm_work_is_over(r))
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
		add_prefetch(w, r, hgm_region_page_at(r, offset), length >> HGM_PAGE_SHIFT, 0);
	else
		rc = hgm_fail(-ENOBUFS,
			      "hgm_region_prefetch: %d ranges already wait; try again when some "
			      "have arrived",
			      HGM_PREFETCH_MAX);
	pthread_mutex_unlock(&w->lock);
	return rc;
}
