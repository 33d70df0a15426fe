/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_ENGINE_H
#define HGM_LIB_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <hgm/engine.h>
#include <hgm/source.h>

#include "rcu.h"
#include "region.h"
#include "request.h"
#include "stats.h"
#include "uffd.h"
#include "window.h"

#define HGM_THREADS_MAX 64

#define HGM_REGIONS_MAX 1024

/* Regions by address; replaced whole, read under RCU. */
struct hgm_table {
	unsigned int count;
	struct hgm_region *region[HGM_REGIONS_MAX];
};

/* A block that somebody waits for, being fetched chunk by chunk. */
struct hgm_urgent {
	struct hgm_region *r;
	uint64_t next_page;
	uint64_t end_page;
};

#define HGM_URGENT_MAX 1024

/* What workers do; see fill.c. The lock is never held across a system call but futexes. */
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
	uint64_t fill_inflight;	 /* bytes */
	struct hgm_window window;
};

struct hgm_collapser {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool stop;
	bool wanted;
	pthread_t thread;
	int pagemap; /* -1: no PAGEMAP_SCAN here */
};

struct hgm_fault_thread {
	struct hgm *h;
	unsigned int stripe;
	pthread_t thread;
};

struct hgm {
	struct hgm_opts opts; /* defaults filled in */
	unsigned int stripes; /* = fault threads */
	struct hgm_uffd *uffd[HGM_THREADS_MAX];
	bool can_poison;
	int event_fd; /* the caller's */
	int stop_fd;  /* ends the fault threads' sleep */

	/* Writers of the table; never held across an ioctl, never taken on the fault path. */
	pthread_mutex_t table_lock;
	_Atomic(struct hgm_table *) table; /* one of these */
	struct hgm_table tables[2];

	/* Somebody waits in hgm_wait(). */
	pthread_mutex_t done_lock;
	pthread_cond_t done_cond;
	uint64_t done_generation;

	pthread_mutex_t gate; /* held while threads are being started */
	_Atomic bool running;
	_Atomic bool stopping;
	struct hgm_fault_thread fault[HGM_THREADS_MAX];
	pthread_t worker[HGM_THREADS_MAX];
	unsigned int started_faults;
	unsigned int started_workers;
	bool started_collapser;

	struct hgm_request_pool requests;
	struct hgm_work work;
	struct hgm_collapser collapser;

	_Atomic int last_error;
	_Atomic uint64_t failing_requests;
	struct hgm_stat_shard shards[HGM_STAT_SHARDS];
};

/* Inside a read-side section: the region that holds @addr, or NULL. */
struct hgm_region *hgm_table_find(const struct hgm_table *table, uint64_t addr);

/* Put a region in (-ENOSPC), take it out and wait until nobody can find it any more. */
int hgm_table_add(struct hgm *h, struct hgm_region *r);
void hgm_table_remove(struct hgm *h, struct hgm_region *r);

/* A region may have become complete: say so to those who wait. */
void hgm_region_check_complete(struct hgm_region *r);

/* Something that hgm_event_fd() reports. */
void hgm_notify(struct hgm *h);

/* A thread with a name, all signals blocked. */
int hgm_thread_start(pthread_t *thread, const char *name, unsigned int index, void *(*fn)(void *),
		     void *arg);

/* What each of the engine's threads does first; false: it must end at once. */
bool hgm_thread_may_begin(struct hgm *h);

/* fault.c */
void *hgm_fault_thread(void *arg);

/* fill.c */
void *hgm_worker_thread(void *arg);
int hgm_work_init(struct hgm *h);
void hgm_work_destroy(struct hgm *h);
void hgm_work_stop(struct hgm *h);
void hgm_work_demand(struct hgm *h, struct hgm_request *req);
void hgm_work_later(struct hgm *h, struct hgm_request *req, uint64_t due_ns);
void hgm_work_add_region(struct hgm_region *r);
void hgm_work_remove_region(struct hgm_region *r);
int hgm_work_urgent(struct hgm_region *r, uint64_t block);
void hgm_work_fill_asked(struct hgm *h, struct hgm_request *req, uint64_t bytes);
void hgm_work_fill_done(struct hgm *h, const struct hgm_request *req, uint64_t bytes, bool ok);

/* collapse.c */
void *hgm_collapser_thread(void *arg);
int hgm_collapser_init(struct hgm *h);
void hgm_collapser_destroy(struct hgm *h);
void hgm_collapser_stop(struct hgm *h);
void hgm_collapser_kick(struct hgm *h); /* look at all regions again */
void hgm_collapse_want(struct hgm_region *r, uint64_t block);
void hgm_collapse_again(struct hgm_region *r, uint64_t block);

#endif
