/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Workers: everything that somebody waits for first, fill with what is left.
 *
 *	1. demand requests of sources that may sleep
 *	2. requests that the kernel or a source put off, when they are due
 *	3. blocks that somebody waits for (map granularity above a page), chunk by chunk
 *	4. prefetched ranges, then sequential fill, inside the window, regions in turn
 */
#include "bits.h"
#include "clock.h"
#include "engine.h"
#include "resolve.h"
#include "source.h"

/* A chunk lies in one word of the map. */
_Static_assert(HGM_REQUEST_MAX_BYTES <= HGM_PAGES_PER_WORD * HGM_PAGE_BYTES, "chunk size");

/* How long a worker waits for a free request slot before it looks again. */
#define SLOT_WAIT_NS 200000

struct chunk {
	struct hgm_region *r;
	uint64_t page;
	uint64_t pages;
	bool demand;
	bool sequential;
};

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
	c->sequential = true;
	r->fill_next += c->pages;
	return true;
}

static bool take_fill(struct hgm_work *w, struct chunk *c)
{
	uint64_t chunk_bytes = hgm_window_chunk(&w->window);

	while (w->fill && w->fill_inflight < w->window.bytes) {
		struct hgm_region *r = w->fill->fill_link;

		if (!hgm_work_may_fill(w, r))
			break;
		*c = (struct chunk){ .r = r };
		if (take_prefetch(r, chunk_bytes, c) || take_sequential(r, chunk_bytes, c)) {
			w->fill = r; /* the next region's turn */
			return true;
		}
		hgm_work_ring_remove(w, r);
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
		run = hgm_bits_ones(want);
		run = run < c->pages ? run : c->pages;
		req = hgm_request_get(r, c->demand);
		if (!req)
			return false;
		want = hgm_bits_low(run) << c->page % 64;
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
		run = hgm_bits_ones(mine);
		give_back(r, word, (mine & ~hgm_bits_low(run)) << c->page % 64);
		req->first_page = c->page;
		req->pages = run;
		req->sequential = c->sequential;
		c->page += run;
		c->pages -= run;
		hgm_request_run(req, true, 0);
	}
	return true;
}

/* Fetch what a chunk still lacks. False: it must wait for slots. */
static bool work_on(struct hgm_work *w, struct chunk *c)
{
	bool fills = !c->demand && c->r->source->blocking;
	bool done;

	w->filling += fills;
	pthread_mutex_unlock(&w->lock);
	done = fetch(c);
	if (done) {
		hgm_region_drop(c->r);
		c->r = NULL;
	}
	pthread_mutex_lock(&w->lock);
	w->filling -= fills;
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
		struct hgm_request *req = hgm_work_next_request(w, &soonest);
		bool worked = false;

		if (req) {
			bool fills = hgm_work_fill_sleeps(req);

			w->filling += fills;
			pthread_mutex_unlock(&w->lock);
			hgm_request_run(req, true, 0);
			pthread_mutex_lock(&w->lock);
			w->filling -= fills;
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
		if (!w->demand.first && !w->stop) {
			w->idle++;
			hgm_cond_wait(&w->cond, &w->lock, soonest);
			w->idle--;
		}
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}
