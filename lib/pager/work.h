/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The work queue of an engine: what its workers do next.
 */
#ifndef HGM_LIB_WORK_H
#define HGM_LIB_WORK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "fill_source.h"
#include "fill_control.h"
#include "pager.h"
#include "request.h"
#include "region/hgm.h"
#include "util/line.h"

struct hgm;
struct hgm_region;

/* A block that a thread waits for. It is fetched chunk by chunk. */
struct hgm_urgent {
	struct hgm_region *r;
	uint64_t next_page;
	uint64_t end_page;
};

#define HGM_URGENT_MAX 1024

/*
 * Pages that a worker is going to fetch. The chunk holds a reference to the region. @r is NULL:
 * there is no chunk.
 */
struct hgm_chunk {
	struct hgm_region *r;
	uint64_t page;
	uint64_t pages;
	bool demand;
	bool sequential;
	uint32_t tries; /* failed tries of fill for these pages */
	bool busy;	/* being fetched, without the lock; otherwise waiting for slots */
};

struct hgm_worker {
	struct hgm_chunk urgent;
	struct hgm_chunk fill;
	struct hgm_fill_source *at; /* the fill source that it works on, or NULL */
	uint64_t since_ns;	    /* when it began to work on that fill source */
	struct hgm_worker *next;
};

/* The lock is never held across a system call other than futex. */
struct hgm_work {
	_Alignas(64) pthread_mutex_t lock;
	pthread_cond_t cond;
	bool stop;
	pthread_t thread[HGM_THREADS_MAX];
	unsigned int started;
	unsigned int idle;		/* sleeping workers */
	struct hgm_request_list demand; /* to be run; a thread waits for them */
	struct hgm_request_list retry;	/* to be run when due */
	struct hgm_urgent urgent[HGM_URGENT_MAX];
	unsigned int urgent_first;
	unsigned int urgent_count;
	struct hgm_worker *workers;  /* the running workers */
	unsigned int threads;	     /* number of workers, once all of them run */
	unsigned int filling;	     /* workers that fill from a source that may sleep */
	unsigned int computing_most; /* limit of workers at sources that take a CPU, under demand */
	struct hgm_fill_source *fill_sources;
	struct hgm_fill_control fill_control; /* for all regions together */
	struct hgm_fill_rate fill_rate;	      /* of all regions together */
	uint64_t pass; /* number of a worker's pass through the fill sources */
};

HGM_WHOLE_LINES(struct hgm_work);

/* Have a worker run a request, now or later. False: its region is being destroyed. */
bool hgm_work_demand(struct hgm *h, struct hgm_request *req);
bool hgm_work_later(struct hgm *h, struct hgm_request *req, uint64_t due_ns);
/* Take the work of a dying region off the queues. Returns the list of its requests. */
struct hgm_request *hgm_work_remove_region(struct hgm_region *r);

/*
 * Release claimed pages of a region that has fill. Fill fetches them later. The caller wakes the
 * threads that wait for them.
 */
void hgm_work_let_go(struct hgm_region *r, uint64_t page, uint64_t pages);

/*
 * Release claimed pages and queue them to be fetched again. The caller wakes the threads that wait
 * for them. False: the queue has no room.
 */
bool hgm_work_give_back(struct hgm_region *r, uint64_t page, uint64_t pages);

/*
 * Claim the first run of unclaimed absent pages in [page, page + pages), which lies in one word of
 * the map. The run is *run pages from *first on; *run is 0 if there is none. Pages that were
 * claimed beyond the run are released again. -ENOMEM: try again later. Not on fault threads.
 */
int hgm_work_claim_run(struct hgm_region *r, uint64_t page, uint64_t pages, uint64_t *first,
		       uint64_t *run);

/* A read-through request has ended. */
void hgm_work_through_ended(struct hgm_region *r);

/* Retry all waiting read-through requests of the region now. */
void hgm_work_hurry_through(struct hgm_region *r);

/*
 * Fill has failed for the first @pages of a request. They are given back, and are asked for again
 * after fill has paused for a while. The caller wakes the threads that wait for them. False: there
 * is no room to remember the pages, and they stay claimed.
 */
bool hgm_work_fill_failed(const struct hgm_request *req, uint64_t pages);

/*
 * The source succeeds again. Requests that wait to ask it again are run now, and fill continues.
 * @recoveries: how often the source had recovered before.
 */
void hgm_work_source_well(struct hgm *h, const struct hgm_source *src, unsigned int recoveries);

/* Pages that were given up are wanted again. All waiting requests of the region are run now. */
void hgm_work_refill(struct hgm_region *r, uint64_t page, uint64_t pages);

/* A thread waits for a block: fetch its absent pages first. -EAGAIN: try again later. */
int hgm_work_urgent(struct hgm_region *r, uint64_t block);

/* Claimed pages were released: wake the threads that found them claimed (no-lost-waiter). */
void hgm_work_wake_released(struct hgm_region *r, uint64_t page, uint64_t pages);

/* fill_source.c: a fill request asks for @bytes; it has ended with @bytes delivered, 0: failed. */
void hgm_work_fill_asked(struct hgm *h, struct hgm_request *req, uint64_t bytes);
void hgm_work_fill_done(struct hgm *h, struct hgm_request *req, uint64_t bytes, bool later);

/*
 * The next request that a worker is to run, or NULL. *soonest is set to the time when the next one
 * is due. Under the lock.
 */
struct hgm_request *hgm_work_next_request(struct hgm_work *w, uint64_t *soonest);

/*
 * May a worker take fill from this region now? If fill pauses, *soonest is lowered to the time when
 * it continues. Otherwise fill returns to the pages that have failed, if it is time for that.
 */
bool hgm_work_fill_goes_on(struct hgm_region *r, uint64_t *soonest);

/* Fill was taken. After failures, one request at a time tests whether the source works again. */
void hgm_work_fill_taken(struct hgm_region *r);

/* End the round: fill continues where it was before the round. False: there was no round. */
bool hgm_work_fill_round_ends(struct hgm_region *r);

/* Only pages that have failed are left to fill: retry them later. False: no page has failed. */
bool hgm_work_fill_again(struct hgm_region *r, uint64_t *soonest);

/* Is this a request of fill that would keep a worker inside a source that may sleep? */
bool hgm_work_fill_sleeps(const struct hgm_request *req);

/* Wake a worker that sleeps, if any. Under the lock. */
static inline void hgm_work_wake_one(struct hgm_work *w)
{
	if (w->idle)
		pthread_cond_signal(&w->cond);
}

/* The work of a dying region is taken off the queues, and no more may be added. */
static inline bool hgm_work_is_over(const struct hgm_region *r)
{
	return atomic_load_explicit(&r->dying, memory_order_acquire);
}

/*
 * chunks.c: the next pages of a block that a thread waits for, or of fill. They become the worker's
 * chunk. False: there are none. *soonest is lowered to the time when the answer may change without
 * an event. Under the lock.
 */
bool hgm_chunk_take_urgent(struct hgm_work *w, struct hgm_chunk *c);
bool hgm_chunk_take_fill(struct hgm_work *w, struct hgm_chunk *c, uint64_t *soonest);

#endif
