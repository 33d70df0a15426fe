/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the events thread keeps of an engine. Only events.c, alias.c, moved.c and retry.c use it.
 */
#ifndef HGM_LIB_EVENTS_STATE_H
#define HGM_LIB_EVENTS_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct hgm_region;
struct hgm_uffd;

#define HGM_EVENTS_EXTRA_MAX 64

/* Memory of a region at another address. */
struct hgm_moved {
	uint64_t addr;
	uint64_t step;
	_Atomic uint64_t len; /* 0: not valid yet */
};

#define HGM_MOVED_MAX 64

struct hgm_events {
	pthread_t thread;
	bool started;
	int kick_fd;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool stop;
	bool faults_taken; /* fault threads read the regions' userfaultfds */
	bool gave_faults;  /* the thread has seen faults_taken */
	struct hgm_uffd *extra[HGM_EVENTS_EXTRA_MAX]; /* it reads their events, too */
	uint64_t round; /* how often the thread has looked at all this */
	pthread_mutex_t ending_lock;
	struct hgm_region *ending; /* regions in no table whose aliases it serves */
	struct hgm_moved moved[HGM_MOVED_MAX];
	_Atomic unsigned int moved_count;
};

/*
 * retry.c: an event says that these pages are dropped. Returns true if hgm_region_retry() raised
 * the event. It removes poison, and nothing was discarded.
 */
bool hgm_retry_dropped(struct hgm_region *r, uint64_t page, uint64_t pages);

/*
 * moved.c. Both run on the thread that has read the event. hgm_region_lost(): bytes [from, to) of a
 * region were unmapped, or belong to another mapping now. hgm_region_moved(): memory of a region
 * was moved to @addr.
 */
void hgm_region_lost(struct hgm_region *r, uint64_t from, uint64_t to);
void hgm_region_moved(struct hgm_region *r, uint64_t addr, uint64_t len);

#endif
