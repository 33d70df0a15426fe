/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Workers: everything that somebody waits for first, fill with what is left.
 *
 *	1. requests that the kernel or a source put off, when they are due
 *	2. demand requests of sources that may sleep
 *	3. blocks that somebody waits for (map granularity above a page), chunk by chunk
 *	4. prefetched ranges, then sequential fill, inside the window, regions in turn
 *
 * The queue's lock covers queues and counters only: no source and no ioctl runs under it.
 */
#include <errno.h>
#include <time.h>

#include "clock.h"
#include "engine.h"
#include "error.h"
#include "resolve.h"

/* A chunk lies in one word of the map. */
_Static_assert(HGM_REQUEST_MAX_BYTES <= HGM_PAGES_PER_WORD * HGM_PAGE_BYTES, "chunk size");

/* How long a worker waits for a free request slot before it looks again. */
#define SLOT_WAIT_NS 200000

struct chunk {
	struct hgm_region *r;
	uint64_t page;
	uint64_t pages;
	bool demand;
};

int hgm_work_init(struct hgm *h)
{
	struct hgm_work *w = &h->work;
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, &attr);
	pthread_condattr_destroy(&attr);
	hgm_window_init(&w->window, h->opts.fill_window_bytes);
	return 0;
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
static struct hgm_request *pop_due(struct hgm_request_list *list, uint64_t now, uint64_t *soonest)
{
	struct hgm_request **link = &list->first;
	struct hgm_request *before = NULL;

	for (; *link; before = *link, link = &before->next) {
		struct hgm_request *req = *link;

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
	h->work.fill_inflight += bytes;
	req->delivered_before = h->work.window.delivered_bytes;
	pthread_mutex_unlock(&h->work.lock);
	hgm_stat_add(h, HGM_STAT_FILL_REQUESTS, 1);
}

void hgm_work_fill_done(struct hgm *h, const struct hgm_request *req, uint64_t bytes, bool measure)
{
	struct hgm_work *w = &h->work;

	pthread_mutex_lock(&w->lock);
	w->fill_inflight -= bytes;
	if (measure)
		hgm_window_answered(&w->window, bytes, req->asked_ns, req->delivered_before,
				    req->answered_ns);
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

static void ring_remove(struct hgm_work *w, struct hgm_region *r)
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
	ring_remove(w, r);
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

int hgm_region_prefetch(struct hgm_region *r, uint64_t offset, uint64_t length)
{
	struct hgm_work *w = &r->h->work;
	unsigned int count;
	int rc = 0;

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
	count = atomic_load_explicit(&r->prefetch_count, memory_order_relaxed);
	if (count == HGM_PREFETCH_MAX) {
		rc = hgm_fail(-ENOBUFS,
			      "hgm_region_prefetch: %d ranges wait already; try again "
			      "when some have arrived",
			      HGM_PREFETCH_MAX);
	} else {
		r->prefetch[(r->prefetch_first + count) % HGM_PREFETCH_MAX] = (struct hgm_prefetch){
			offset >> HGM_PAGE_SHIFT,
			length >> HGM_PAGE_SHIFT,
		};
		atomic_store_explicit(&r->prefetch_count, count + 1, memory_order_release);
		atomic_store_explicit(&r->complete, false, memory_order_relaxed);
		ring_add(w, r);
		wake_one(w);
	}
	pthread_mutex_unlock(&w->lock);
	return rc;
}

/* As much of [page, page + pages) as one request may have: up to a chunk's border. */
static uint64_t clip(uint64_t page, uint64_t pages, uint64_t chunk_bytes)
{
	uint64_t chunk_pages = chunk_bytes >> HGM_PAGE_SHIFT;
	uint64_t to_border = chunk_pages - page % chunk_pages;

	return pages < to_border ? pages : to_border;
}

static bool take_urgent(struct hgm_work *w, struct chunk *c)
{
	struct hgm_urgent *u = &w->urgent[w->urgent_first];

	if (!w->urgent_count)
		return false;
	*c = (struct chunk){ .r = u->r, .page = u->next_page, .demand = true };
	c->pages = clip(c->page, u->end_page - c->page, HGM_REQUEST_MAX_BYTES);
	u->next_page += c->pages;
	if (u->next_page == u->end_page) { /* the queue's hold of the region becomes the chunk's */
		w->urgent_first = (w->urgent_first + 1) % HGM_URGENT_MAX;
		w->urgent_count--;
	} else {
		hgm_region_hold(c->r);
	}
	return true;
}

static bool take_prefetch(struct hgm_region *r, uint64_t chunk_bytes, struct chunk *c)
{
	struct hgm_prefetch *p = &r->prefetch[r->prefetch_first];
	unsigned int count = atomic_load_explicit(&r->prefetch_count, memory_order_relaxed);

	if (!count)
		return false;
	hgm_region_hold(r); /* before the count falls, so that the region never looks idle */
	c->page = p->first_page;
	c->pages = clip(p->first_page, p->pages, chunk_bytes);
	p->first_page += c->pages;
	p->pages -= c->pages;
	if (!p->pages) {
		r->prefetch_first = (r->prefetch_first + 1) % HGM_PREFETCH_MAX;
		atomic_store_explicit(&r->prefetch_count, count - 1, memory_order_release);
	}
	return true;
}

static bool take_sequential(struct hgm_region *r, uint64_t chunk_bytes, struct chunk *c)
{
	uint64_t pages = hgm_region_pages(r);

	if (r->flags & HGM_REGION_NO_FILL)
		return false;
	while (r->fill_next < pages && hgm_map_leaf_full(r->map, r->fill_next / HGM_LEAF_PAGES))
		r->fill_next = (r->fill_next / HGM_LEAF_PAGES + 1) * HGM_LEAF_PAGES;
	if (r->fill_next >= pages)
		return false;
	hgm_region_hold(r);
	c->page = r->fill_next;
	c->pages = clip(c->page, pages - c->page, chunk_bytes);
	r->fill_next += c->pages;
	return true;
}

static bool take_fill(struct hgm_work *w, struct chunk *c)
{
	uint64_t chunk_bytes = hgm_window_chunk(&w->window);

	while (w->fill && w->fill_inflight < w->window.bytes) {
		struct hgm_region *r = w->fill->fill_link;

		*c = (struct chunk){ .r = r };
		if (take_prefetch(r, chunk_bytes, c) || take_sequential(r, chunk_bytes, c)) {
			w->fill = r; /* the next region's turn */
			return true;
		}
		ring_remove(w, r);
	}
	c->r = NULL;
	return false;
}

/* Release pages that were claimed beyond a run. Their waiters, if any, must try again. */
static void give_back(struct hgm_region *r, uint64_t word, uint64_t bits)
{
	while (bits) {
		uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(bits);

		hgm_map_release(r->map, page, 1);
		hgm_resolve_wake(r, page, 1);
		bits &= bits - 1;
	}
}

/*
 * One request for each run of pages that nobody has claimed yet. False: no slots; the rest is left
 * in the chunk. A chunk never crosses a word of the map: see HGM_REQUEST_MAX_BYTES.
 */
static bool fetch(struct chunk *c)
{
	struct hgm_region *r = c->r;
	uint64_t word = c->page / 64;

	while (c->pages && !atomic_load_explicit(&r->dying, memory_order_acquire)) {
		uint64_t want = hgm_map_absent_word(r->map, word) >> c->page % 64;
		uint64_t skip = want ? (uint64_t)__builtin_ctzll(want) : c->pages;
		uint64_t run, mine;
		struct hgm_request *req;

		skip = skip < c->pages ? skip : c->pages;
		c->page += skip;
		c->pages -= skip;
		if (!c->pages)
			break;
		want >>= skip;
		run = ~want ? (uint64_t)__builtin_ctzll(~want) : 64;
		run = run < c->pages ? run : c->pages;
		req = hgm_request_get(r, c->demand);
		if (!req)
			return false;
		want = (run < 64 ? (UINT64_C(1) << run) - 1 : ~UINT64_C(0)) << c->page % 64;
		if (hgm_map_claim(r->map, word, want, &mine)) {
			hgm_request_put(req);
			return false;
		}
		if (!(mine >> c->page % 64 & 1)) { /* somebody was faster: look again */
			hgm_request_put(req);
			give_back(r, word, mine);
			continue;
		}
		mine >>= c->page % 64;
		run = ~mine ? (uint64_t)__builtin_ctzll(~mine) : 64;
		give_back(r, word, run < 64 ? mine >> run << run << c->page % 64 : 0);
		req->first_page = c->page;
		req->pages = run;
		c->page += run;
		c->pages -= run;
		hgm_request_run(req, true);
	}
	return true;
}

/* The next request to be run, or NULL and the time at which there will be one. Under the lock. */
static struct hgm_request *next_request(struct hgm_work *w, uint64_t *soonest)
{
	struct hgm_request *req = NULL;

	*soonest = UINT64_MAX;
	if (w->retry.first)
		req = pop_due(&w->retry, hgm_now_ns(), soonest);
	return req ? req : pop(&w->demand);
}

static void sleep_until(struct hgm_work *w, uint64_t ns)
{
	struct timespec ts = { .tv_sec = (time_t)(ns / 1000000000),
			       .tv_nsec = (long)(ns % 1000000000) };

	w->idle++;
	if (ns == UINT64_MAX)
		pthread_cond_wait(&w->cond, &w->lock);
	else
		pthread_cond_timedwait(&w->cond, &w->lock, &ts);
	w->idle--;
}

/* Fetch what a chunk still lacks. False: it must wait for slots. */
static bool work_on(struct hgm_work *w, struct chunk *c)
{
	bool done;

	pthread_mutex_unlock(&w->lock);
	done = fetch(c);
	if (done) {
		hgm_region_drop(c->r);
		c->r = NULL;
	}
	pthread_mutex_lock(&w->lock);
	return done;
}

void *hgm_worker_thread(void *arg)
{
	struct hgm *h = arg;
	struct hgm_work *w = &h->work;
	struct chunk urgent = { .r = NULL };
	struct chunk fill = { .r = NULL };
	uint64_t soonest;

	if (!hgm_thread_may_begin(h))
		return NULL;
	pthread_mutex_lock(&w->lock);
	while (!w->stop) {
		struct hgm_request *req = next_request(w, &soonest);
		bool worked = false;

		if (req) {
			pthread_mutex_unlock(&w->lock);
			hgm_request_run(req, true);
			pthread_mutex_lock(&w->lock);
			continue;
		}
		if (urgent.r || take_urgent(w, &urgent))
			worked = work_on(w, &urgent);
		else if (fill.r || take_fill(w, &fill))
			worked = work_on(w, &fill);
		if (worked)
			continue;
		if ((urgent.r || fill.r) && soonest > hgm_now_ns() + SLOT_WAIT_NS)
			soonest = hgm_now_ns() + SLOT_WAIT_NS;
		/* What came in while the lock was open has not signalled us: we were not idle. */
		if (!w->demand.first && !w->stop)
			sleep_until(w, soonest);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

void hgm_work_stop(struct hgm *h)
{
	pthread_mutex_lock(&h->work.lock);
	h->work.stop = true;
	pthread_cond_broadcast(&h->work.cond);
	pthread_mutex_unlock(&h->work.lock);
}
