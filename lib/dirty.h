/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty tracking's parts:
 *
 *	dirty.c		its life: start, collect, stop, and the choice of the way
 *	dirty_sync.c	the synchronous way: pages are guarded, a write takes the guard off
 *	dirty_async.c	the asynchronous way: the kernel notes writes, PAGEMAP_SCAN collects them
 */
#ifndef HGM_LIB_DIRTY_H
#define HGM_LIB_DIRTY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <hgm/dirty.h>

#include "guard.h"

struct hgm_region;
struct hgm_uffd;

#define HGM_DIRTY_PIECE_WORDS 4096 /* 1 GiB: one wait for sections each */

struct hgm_dirty {
	struct hgm_guard guard;
	pthread_mutex_t lock;
	struct hgm_region *r; /* NULL: the region is gone */
	uint32_t flags;	      /* in force */
	uint64_t unit_bytes;
	uint64_t *pending; /* bitmap of pages: found, and not told yet */
	uint64_t *piece;   /* the synchronous way: what was found of a piece of the region */
	uint64_t words;
	uint64_t pages;		/* of the region */
	uint64_t granule_pages; /* what is protected again as a whole: 1, or the block */
	struct hgm_uffd *uffd;	/* asynchronous: has the region registered */
	uint64_t collections;
	uint64_t dirty_pages;
	char sentence[512];
};

/*
 * All with the lock held. Collecting: what was written to in whole granules goes into d->pending,
 * and is protected again. -errno with text: what was not collected is still to be found.
 */
int hgm_dirty_sync_begin(struct hgm_dirty *d);
int hgm_dirty_sync_collect(struct hgm_dirty *d, uint64_t page, uint64_t pages);
extern const struct hgm_guard_ops hgm_dirty_guard_ops;

void hgm_dirty_leave(struct hgm_guard *g, struct hgm_region *r);
void hgm_dirty_free(struct hgm_guard *g);

/* NULL: the asynchronous way can be gone; else why not. */
const char *hgm_dirty_async_lacks(const struct hgm_dirty *d);
int hgm_dirty_async_begin(struct hgm_dirty *d);
int hgm_dirty_async_collect(struct hgm_dirty *d, uint64_t page, uint64_t pages);
/* Give the region's registration back to the engine, unless it is being destroyed. */
void hgm_dirty_async_end(struct hgm_dirty *d);

#endif
