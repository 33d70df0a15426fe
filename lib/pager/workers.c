/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Workers. Everything that a thread waits for comes first, fill comes last:
 *
 *	1. demand requests of sources that may sleep
 *	2. requests that the kernel or a source put off, when they are due
 *	3. blocks that a thread waits for (map granularity above a page), chunk by chunk
 *	4. prefetched ranges, then pages near the last fault if the caller wants that order,
 *	   then sequential fill; all within the source's fill window (fill_source.c) and at the
 *	   caller's rate (fill_control.c)
 */
#include <errno.h>
#include <stdlib.h>

#include "fill_source.h"
#include "fill.h"
#include "install/discard.h"
#include "install/resolve.h"
#include "install/suspects.h"
#include "region/hgm.h"
#include "request.h"
#include "util/bits.h"
#include "util/clock.h"
#include "util/thread.h"
#include "work.h"

/* A chunk lies in one word of the map. */
_Static_assert(HGM_REQUEST_MAX_BYTES <= HGM_PAGES_PER_WORD * HGM_PAGE_BYTES, "chunk size");

/* How long a worker waits for a free request slot before it looks again. */
#define SLOT_WAIT_NS 200000

int hgm_fill_make(struct hgm_region *r)
{
	struct hgm_fill *fill = calloc(1, sizeof(*fill));

	if (!fill)
		return -ENOMEM;
	pthread_mutex_init(&fill->retry_lock, NULL);
	hgm_readahead_init(&fill->readahead);
	fill->next = hgm_region_first(r);
	fill->end = hgm_region_end(r);
	r->fill = fill;
	fill->block_urgent = calloc(hgm_bits_words(r->blocks), sizeof(fill->block_urgent[0]));
	fill->prefetch = calloc(HGM_PREFETCH_MAX, sizeof(fill->prefetch[0]));
	if (!fill->block_urgent || !fill->prefetch)
		return -ENOMEM;
	return hgm_fill_source_join(r);
}

void hgm_fill_free(struct hgm_region *r)
{
	struct hgm_fill *fill = r->fill;

	if (!fill)
		return;
	hgm_fill_source_leave(r);
	pthread_mutex_destroy(&fill->retry_lock);
	free(fill->block_urgent);
	free(fill->prefetch);
	free(fill);
	r->fill = NULL;
}

/* Release pages that were claimed beyond a run. Threads that wait for them must try again. */
static void give_back(struct hgm_region *r, uint64_t word, uint64_t bits)
{
	while (bits) {
		uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(bits);

		hgm_map_release(r->map, page, 1);
		hgm_region_wake(r, page, 1);
		bits &= bits - 1;
	}
}

/*
 * Holes in prepared memory mean that it was discarded there, perhaps without an event. Pages that
 * an event has reported are decided before they are claimed, so that the source is not asked for
 * them.
 */
static void find_holes(const struct hgm_chunk *c)
{
	hgm_suspects_check(c->r, c->page, c->pages);
	if (hgm_map_absent_word(c->r->map, c->page / HGM_PAGES_PER_WORD) &
	    hgm_bits_of_range(c->page, c->pages, c->page / HGM_PAGES_PER_WORD))
		hgm_discard_holes(c->r, c->page, c->pages);
}

int hgm_work_claim_run(struct hgm_region *r, uint64_t page, uint64_t pages, uint64_t *first,
		       uint64_t *run)
{
	uint64_t word = page / HGM_PAGES_PER_WORD, mine, want;

	do {
		want = hgm_map_absent_word(r->map, word) & hgm_bits_of_range(page, pages, word);
		if (!hgm_bits_take_run(&want, first, run))
			return *run = 0;
		if (hgm_map_claim(r->map, word, hgm_bits_low(*run) << *first, &mine))
			return -ENOMEM;
	} while (!hgm_bits_take_run(&mine, first, run)); /* another thread was first: look again */
	*first += word * HGM_PAGES_PER_WORD;
	give_back(r, word, mine);
	return 0;
}

/*
 * Make one request for each run of unclaimed pages. False: there are no slots, and the rest stays
 * in the chunk. A chunk never crosses a word of the map: see HGM_REQUEST_MAX_BYTES.
 */
static bool fetch(struct hgm_chunk *c)
{
	struct hgm_region *r = c->r;
	uint64_t end = c->page + c->pages;

	if (c->pages)
		find_holes(c);
	while (c->pages && !atomic_load_explicit(&r->dying, memory_order_acquire)) {
		uint64_t word = c->page / HGM_PAGES_PER_WORD, first, run;
		struct hgm_request *req;

		if (!(hgm_map_absent_word(r->map, word) &
		      hgm_bits_of_range(c->page, c->pages, word)))
			break;
		req = hgm_request_get(r, c->demand);
		if (!req)
			return false;
		if (hgm_work_claim_run(r, c->page, c->pages, &first, &run)) {
			hgm_request_put(req);
			return false;
		}
		if (!run) {
			hgm_request_put(req);
			break;
		}
		req->in.first_page = first;
		req->pages = run;
		req->in.sequential = c->sequential;
		req->tries = c->tries;
		c->page = first + run;
		c->pages = end - c->page;
		hgm_request_run(req, true, 0);
	}
	c->pages = 0;
	return true;
}

/* Fetch the missing pages of a chunk. False: it must wait for slots. */
static bool work_on(struct hgm_work *w, struct hgm_worker *self, struct hgm_chunk *c)
{
	struct hgm_region *r = c->r;
	struct hgm_fill_source *source = c->demand ? NULL : r->fill->source;
	uint64_t sleeps;
	bool done, slept;

	if (source)
		hgm_fill_source_enter(w, self, source);
	c->busy = true;
	pthread_mutex_unlock(&w->lock);
	sleeps = source ? hgm_thread_sleeps() : 0;
	done = fetch(c);
	slept = source && hgm_thread_sleeps() != sleeps;
	pthread_mutex_lock(&w->lock);
	c->busy = false;
	if (source)
		hgm_fill_source_exit(w, self, slept);
	/* hgm_work_remove_region() takes chunks that wait, but this one may have been busy then. */
	done |= atomic_load_explicit(&r->dying, memory_order_acquire);
	if (!done)
		return false;
	c->r = NULL;
	pthread_mutex_unlock(&w->lock);
	hgm_region_unref(r);
	pthread_mutex_lock(&w->lock);
	return true;
}

/* Under the lock. From now on until end(), the worker's chunks can be found. */
static void begin(struct hgm_work *w, struct hgm_worker *self)
{
	self->next = w->workers;
	w->workers = self;
}

static void end(struct hgm_work *w, struct hgm_worker *self)
{
	struct hgm_worker **link = &w->workers;

	while (*link != self)
		link = &(*link)->next;
	*link = self->next;
}

static void *worker_thread(void *arg)
{
	struct hgm *h = arg;
	struct hgm_work *w = h->work;
	struct hgm_worker self = { .next = NULL };
	uint64_t soonest;

	if (!hgm_thread_may_begin(&h->gate))
		return NULL;
	pthread_mutex_lock(&w->lock);
	begin(w, &self);
	while (!w->stop) {
		struct hgm_request *req = hgm_work_next_request(w, &soonest);
		bool worked = false;

		if (req) {
			struct hgm_fill_source *source =
				hgm_work_fill_sleeps(req) ? req->in.r->fill->source : NULL;

			if (source)
				hgm_fill_source_enter(w, &self, source);
			pthread_mutex_unlock(&w->lock);
			hgm_request_run(req, true, 0);
			pthread_mutex_lock(&w->lock);
			if (source)
				hgm_fill_source_exit(w, &self, true);
			continue;
		}
		if (self.urgent.r || hgm_chunk_take_urgent(w, &self.urgent))
			worked = work_on(w, &self, &self.urgent);
		else if (self.fill.r || hgm_chunk_take_fill(w, &self.fill, &soonest))
			worked = work_on(w, &self, &self.fill);
		if (worked)
			continue;
		if ((self.urgent.r || self.fill.r) && soonest > hgm_now_ns() + SLOT_WAIT_NS)
			soonest = hgm_now_ns() + SLOT_WAIT_NS;
		/* Work that came in while the lock was open did not signal us: we were not idle. */
		if (!w->demand.first && !w->stop) {
			w->idle++;
			hgm_cond_wait(&w->cond, &w->lock, soonest);
			w->idle--;
		}
	}
	end(w, &self);
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

int hgm_workers_start(struct hgm *h)
{
	struct hgm_work *w = h->work;
	int rc = 0;

	while (!rc && w->started < h->opts.workers) {
		rc = hgm_thread_start(&w->thread[w->started], "hgm-work", w->started, worker_thread,
				      h);
		w->started += !rc;
	}
	return rc;
}

void hgm_workers_join(struct hgm *h)
{
	struct hgm_work *w = h->work;

	while (w->started)
		pthread_join(w->thread[--w->started], NULL);
	w->stop = false;
}
