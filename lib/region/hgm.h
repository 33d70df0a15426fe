/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * struct hgm, the engine: the fields that all modules may use, the table of regions, and the order
 * between readers of messages and threads that copy (reads.c).
 */
#ifndef HGM_LIB_HGM_H
#define HGM_LIB_HGM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <hgm/engine.h>
#include <hgm/source.h>

#include "caps/choice.h"
#include "region.h"
#include "uffd/uffd.h"
#include "util/line.h"
#include "util/log.h"
#include "util/rcu.h"
#include "util/stats.h"
#include "util/thread.h"

struct hgm_collapser;
struct hgm_request_pool;
struct hgm_work;
struct hgm_events;
struct hgm_fault_thread;
struct hgm_peer;

_Static_assert(HGM_THREADS_MAX <= HGM_STAT_SHARDS_OWNED, "each fault thread has a shard");

#define HGM_REGIONS_MAX 1024

/* Regions by address space and address; replaced as a whole, read under RCU. */
struct hgm_table {
	unsigned int count;
	struct hgm_region *region[HGM_REGIONS_MAX];
};

struct hgm {
	const struct hgm_region_ops *ops;
	struct hgm_opts opts;	     /* defaults filled in */
	struct hgm_space space;	     /* of this process; one userfaultfd for each fault thread */
	struct hgm_uffd *alias_uffd; /* serves the aliases of all regions */
	bool user_mode_only;
	bool can_poison;
	int event_fd; /* the caller's */
	int stop_fd;  /* ends the fault threads' sleep */

	/* For writers of the table. Never held across an ioctl, never taken on the fault path. */
	pthread_mutex_t table_lock;
	_Atomic(struct hgm_table *) table; /* one of the two below */
	struct hgm_table tables[2];
	struct hgm_claim *claims; /* of all regions, also of those that are being made */
	struct hgm_peer *peers;

	/* Threads that wait in hgm_wait(). */
	pthread_mutex_t done_lock;
	pthread_cond_t done_cond;
	uint64_t done_generation;
	_Atomic unsigned int waiters;

	struct hgm_gate gate;
	_Atomic bool running;

	/* The state of other modules for this engine. Each module uses only its own. */
	struct hgm_collapser *collapser;
	struct hgm_request_pool *requests;
	struct hgm_work *work;
	struct hgm_events *events;
	struct hgm_fault_thread *fault;

	struct hgm_abilities abilities;

	_Atomic int last_error;
	_Atomic uint64_t failing_requests;
	struct hgm_log log;
	struct hgm_counters stats;
};

/* The region that contains @addr of @space, or NULL. Call it inside a read-side section. */
struct hgm_region *hgm_table_find(const struct hgm_table *table, const struct hgm_space *space,
				  uint64_t addr);

/* Add a region (-ENOSPC). Remove it, and wait until no thread can find it any more. */
int hgm_table_add(struct hgm *h, struct hgm_region *r);
void hgm_table_remove(struct hgm *h, struct hgm_region *r);

/*
 * For threads other than the page's fault thread. Between these two calls no event of the page's
 * memory is read, so a page that is not discarded in the map was not dropped either.
 * hgm_reads_hold() may have to wait, so it must not be called inside a read-side section.
 */
void hgm_reads_hold(struct hgm_region *r, uint64_t page);
void hgm_reads_release(struct hgm_region *r, uint64_t page);

/*
 * Call it between these two calls, after a copy. Wait until the pages of an event that was read in
 * spite of the hold are marked. Until then the fault thread waits only for threads that drop pages
 * of the file.
 */
void hgm_reads_wait_marks(struct hgm_region *r, uint64_t page);

/* Wait until the fault thread has handled what it has read. */
void hgm_reads_wait(const struct hgm_reads *reads);

#endif
