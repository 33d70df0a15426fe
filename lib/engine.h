/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_ENGINE_H
#define HGM_LIB_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <hgm/engine.h>
#include <hgm/source.h>

#include "collapse.h"
#include "ladder.h"
#include "log.h"
#include "rcu.h"
#include "region.h"
#include "request.h"
#include "stats.h"
#include "uffd.h"
#include "work.h"

#define HGM_THREADS_MAX 64

#define HGM_REGIONS_MAX 1024

/* Regions by address; replaced whole, read under RCU. */
struct hgm_table {
	unsigned int count;
	struct hgm_region *region[HGM_REGIONS_MAX];
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
	bool user_mode_only;
	bool can_poison;
	bool can_continue_wp; /* UFFDIO_CONTINUE can install protected pages */
	int event_fd;	      /* the caller's */
	int stop_fd;	      /* ends the fault threads' sleep */

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
	struct hgm_abilities abilities;

	_Atomic int last_error;
	_Atomic uint64_t failing_requests;
	struct hgm_log_counts log_counts;
	struct hgm_stat_shard shards[HGM_STAT_SHARDS];
};

/* Inside a read-side section: the region that holds @addr, or NULL. */
struct hgm_region *hgm_table_find(const struct hgm_table *table, uint64_t addr);

/* Put a region in (-ENOSPC), take it out and wait until nobody can find it any more. */
int hgm_table_add(struct hgm *h, struct hgm_region *r);
void hgm_table_remove(struct hgm *h, struct hgm_region *r);

/* Have those who wait in hgm_wait() look again. */
void hgm_something_is_done(struct hgm *h);

/* A region may have become complete: say so to those who wait. */
void hgm_region_check_complete(struct hgm_region *r);
/* Something of the region is not decided yet, although its pages may all be counted off: and is. */
void hgm_region_unsettle(struct hgm_region *r);
void hgm_region_settled(struct hgm_region *r);

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

#endif
