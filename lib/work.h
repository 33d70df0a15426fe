/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The work queue of an engine: what its workers do next.
 */
#ifndef HGM_LIB_WORK_H
#define HGM_LIB_WORK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "request.h"
#include "window.h"

struct hgm;
struct hgm_region;

/* A block that somebody waits for, being fetched chunk by chunk. */
struct hgm_urgent {
	struct hgm_region *r;
	uint64_t next_page;
	uint64_t end_page;
};

#define HGM_URGENT_MAX 1024

/* The lock is never held across a system call but futexes. */
struct hgm_work {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool stop;
	unsigned int idle;		/* workers that sleep */
	struct hgm_request_list demand; /* to be run, somebody waits */
	struct hgm_request_list retry;	/* to be run when due */
	struct hgm_urgent urgent[HGM_URGENT_MAX];
	unsigned int urgent_first;
	unsigned int urgent_count;
	struct hgm_region *fill; /* ring of regions that have something left to fill */
	unsigned int filling;	 /* workers that read from a source that may sleep */
	uint64_t fill_inflight;	 /* bytes */
	struct hgm_window window;
};

void hgm_work_init(struct hgm *h);
void hgm_work_destroy(struct hgm *h);
void hgm_work_stop(struct hgm *h);
void hgm_work_demand(struct hgm *h, struct hgm_request *req);
void hgm_work_later(struct hgm *h, struct hgm_request *req, uint64_t due_ns);
void hgm_work_add_region(struct hgm_region *r);
void hgm_work_remove_region(struct hgm_region *r);

/* Release claimed pages and have them fetched again; false: there is no room for that. */
bool hgm_work_give_back(struct hgm_region *r, uint64_t page, uint64_t pages);

int hgm_work_urgent(struct hgm_region *r, uint64_t block);
void hgm_work_fill_asked(struct hgm *h, struct hgm_request *req, uint64_t bytes);
void hgm_work_fill_done(struct hgm *h, const struct hgm_request *req, uint64_t bytes, bool ok,
			bool later);

/*
 * What the workers take, under the lock: the next request to be run, or NULL and the time at which
 * there will be one; a region that has nothing left to fill.
 */
struct hgm_request *hgm_work_next_request(struct hgm_work *w, uint64_t *soonest);
void hgm_work_ring_remove(struct hgm_work *w, struct hgm_region *r);

/* May another worker fill from the region's source? Would this request be such fill? */
bool hgm_work_may_fill(const struct hgm_work *w, const struct hgm_region *r);
bool hgm_work_fill_sleeps(const struct hgm_request *req);

#endif
