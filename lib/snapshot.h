/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A live snapshot's parts:
 *
 *	snapshot.c		its life: create, begin, wait, cancel
 *	snapshot_pool.c		old contents, copied before somebody writes
 *	snapshot_sweep.c	its thread: over all pages, to the sink
 *	snapshot_sink.c		where the bytes go, and how fast
 */
#ifndef HGM_LIB_SNAPSHOT_H
#define HGM_LIB_SNAPSHOT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <hgm/snapshot.h>

#include "guard.h"
#include "map.h"
#include "request.h"

struct hgm_region;

/* A slot of the pool holds one page. */
struct hgm_slot {
	_Atomic uint32_t next; /* index + 1, 0: none */
	uint32_t part;
	uint64_t page;
};

struct hgm_pool {
	char *data;
	uint64_t bytes;
	struct hgm_slot *slot;
	uint32_t slots;
	_Atomic uint64_t free;	/* tag << 32 | index + 1 */
	_Atomic uint32_t ready; /* stack, newest first */
	_Atomic uint32_t used;
	/* HGM_SNAPSHOT_ORDERED: the thread's own, slots by page, open addressing */
	uint32_t *index;
	uint32_t index_mask;
};

/* A region in a snapshot. */
struct hgm_part {
	struct hgm_snapshot *s;
	struct hgm_region *r;
	bool guarded; /* taken from hgm_guard_begin() on */
	uint32_t number;
	_Atomic uint64_t *saving; /* bitmap of pages: somebody copies, or has copied */
	uint64_t *armed;	  /* bitmap of pages: present at the instant */
};

enum hgm_snapshot_state {
	HGM_SNAPSHOT_PREPARED,
	HGM_SNAPSHOT_RUNNING,
	HGM_SNAPSHOT_ENDED,
};

struct hgm_snapshot {
	struct hgm_guard guard;
	struct hgm *h;
	struct hgm_snapshot_opts opts;
	bool stream; /* fd cannot seek: everything in order, zeroes too */
	bool is_file;
	uint64_t stale_bytes; /* that the file had before: zeroes are written here */
	uint64_t stream_at;
	uint64_t length;       /* end of the last region */
	uint64_t mapped_bytes; /* of all regions */
	struct hgm_part *part;
	uint32_t parts;
	struct hgm_pool pool;

	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond; /* state, peeking */
	enum hgm_snapshot_state state;
	bool begun;
	bool peeking;
	struct hgm_peek peek;
	struct hgm_region *peeked; /* whom it is for */
	_Atomic int error;
	uint64_t rate_start_ns; /* the thread's own */
	uint64_t rate_bytes;

	_Atomic uint64_t done_pages, zero_pages, copied_pages, source_pages, unreadable_pages;
	_Atomic uint64_t pool_full;
	uint64_t total_pages;
	_Atomic uint64_t begin_ns;
};

int hgm_pool_make(struct hgm_pool *p, uint64_t bytes, bool ordered);
void hgm_pool_free(struct hgm_pool *p);
/* A free slot's number, or -1. Lock-free; any thread. */
int64_t hgm_pool_get(struct hgm_pool *p);
void hgm_pool_put(struct hgm_pool *p, uint32_t slot);
/* Its page is in it: for the snapshot's thread. Lock-free; any thread. */
void hgm_pool_ready(struct hgm_pool *p, uint32_t slot);
/* All that are ready, oldest first: the first one's number + 1; go on by slot.next. */
uint32_t hgm_pool_take_ready(struct hgm_pool *p);
void *hgm_pool_page(const struct hgm_pool *p, uint32_t slot);
/* By page. hgm_pool_find() takes it out: -1, there is none. */
void hgm_pool_index(struct hgm_pool *p, uint32_t slot);
int64_t hgm_pool_find(struct hgm_pool *p, uint32_t part, uint64_t page);

extern const struct hgm_guard_ops hgm_snapshot_guard_ops;

/* Contents at the instant, for the sink; pages of zeroes are found and left out. -errno. */
int hgm_sink_pages(struct hgm_snapshot *s, const struct hgm_part *part, uint64_t page,
		   uint64_t pages, const char *buf);
int hgm_sink_begin(struct hgm_snapshot *s);
int hgm_sink_finish(struct hgm_snapshot *s);

void *hgm_snapshot_thread(void *arg);

/* Locked; unlocked meanwhile: what is being read from the source is not wanted any more. */
void hgm_snapshot_give_up_peek(struct hgm_snapshot *s);

/* It has failed; the first reason stays. */
void hgm_snapshot_fail(struct hgm_snapshot *s, int error);

#endif
