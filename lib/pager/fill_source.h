/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A fill source: the state of one engine's fill from one source. The work queue's lock protects all
 * of it.
 */
#ifndef HGM_LIB_FILL_SOURCE_H
#define HGM_LIB_FILL_SOURCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fill_window.h"

struct hgm_region;
struct hgm_request;
struct hgm_source;
struct hgm_work;
struct hgm_worker;

/* How long fill makes room for demand after a thread last waited. */
#define HGM_FILL_DEMAND_NS UINT64_C(100000000)

/* A worker that is in a source for longer is stuck. */
#define HGM_FILL_STUCK_NS UINT64_C(50000000)

struct hgm_fill_source {
	struct hgm_fill_source *next; /* list of all fill sources */
	struct hgm_source *source;
	unsigned int users;	 /* regions, and workers that fill from it */
	struct hgm_region *ring; /* of regions that have pages left to fill */
	unsigned int workers;	 /* filling from it, if it may sleep */
	bool computes;		 /* the last worker did not sleep: the source takes a CPU */
	uint64_t spent_ns;	 /* time that workers have spent on it */
	struct hgm_fill_window window;
	struct hgm_request *oldest; /* list of unanswered fill requests */
	struct hgm_request *newest;
	unsigned int requests;	    /* in that list */
	unsigned int overdue;	    /* of these, no longer waited for */
	uint64_t inflight;	    /* bytes of those that are not overdue */
	uint64_t answered_ns;	    /* when the last answer came */
	_Atomic uint64_t demand_ns; /* when a thread last waited for it; any thread, no lock */
	uint64_t passed_over;	    /* the last pass that found nothing to take from it */
	unsigned int silences;	    /* how often patience has run out since the last answer */
};

/* Give a region its fill source, as long as the region exists. 0 or -ENOMEM. */
int hgm_fill_source_join(struct hgm_region *r);
void hgm_fill_source_leave(struct hgm_region *r);

/* One user less. Under the lock. */
void hgm_fill_source_put(struct hgm_work *w, struct hgm_fill_source *f);

/* hgm_fill_source_add(): the region has pages to fill; _remove(): it has none any more. */
void hgm_fill_source_add(struct hgm_work *w, struct hgm_region *r);
void hgm_fill_source_remove(struct hgm_region *r);

/*
 * The fill source whose turn it is, or NULL. *soonest is lowered to the time when the answer may
 * change without an event.
 */
struct hgm_fill_source *hgm_fill_source_next(struct hgm_work *w, uint64_t *soonest);

/* No fill can be taken from it at the moment. It gets no other turn in this pass. */
void hgm_fill_source_pass_over(struct hgm_work *w, struct hgm_fill_source *f);

/* The fill source of a source, or NULL. */
struct hgm_fill_source *hgm_fill_source_find(struct hgm_work *w, const struct hgm_source *src);

/*
 * While threads wait for pages, fill leaves CPUs to them and to the threads that serve them. May
 * one more worker fill from a source that takes a CPU? *soonest is lowered as above.
 */
bool hgm_fill_leaves_cpus(const struct hgm_work *w, const struct hgm_fill_source *f,
			  uint64_t now_ns, uint64_t *soonest);

/* May one more worker fill from this fill source? */
bool hgm_fill_source_has_worker(const struct hgm_work *w, const struct hgm_fill_source *f,
				uint64_t now_ns);

/* A thread waits for pages that the source is asked for now. Any thread, no lock. */
static inline void hgm_fill_source_demand(struct hgm_fill_source *f, uint64_t now_ns)
{
	/* Written seldom, because many threads share the cache line. */
	if (now_ns - atomic_load_explicit(&f->demand_ns, memory_order_relaxed) >
	    HGM_FILL_DEMAND_NS / 4)
		atomic_store_explicit(&f->demand_ns, now_ns, memory_order_relaxed);
}

/* A worker begins to fill from a fill source; it has ended. @slept: the worker slept in between. */
void hgm_fill_source_enter(struct hgm_work *w, struct hgm_worker *self, struct hgm_fill_source *f);
void hgm_fill_source_exit(struct hgm_work *w, struct hgm_worker *self, bool slept);

#endif
