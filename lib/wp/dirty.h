/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of dirty tracking:
 *
 *	dirty.c		its life: start, collect, stop, and the choice of the way
 *	dirty_sync.c	the synchronous way: wp bits of pages are set, and a write clears them
 *	dirty_async.c	the asynchronous way: the kernel records writes, PAGEMAP_SCAN collects them
 */
#ifndef HGM_LIB_DIRTY_H
#define HGM_LIB_DIRTY_H

#include <pthread.h>
#include <stdint.h>

#include <hgm/dirty.h>

#include "install/wp.h"

struct hgm_region;
struct hgm_uffd;

#define HGM_DIRTY_PIECE_WORDS 4096 /* 1 GiB: one wait for SRCU sections per piece */

struct hgm_dirty {
	struct hgm_wp wp;
	pthread_mutex_t lock;
	struct hgm_region *r; /* NULL: the region is gone */
	uint32_t flags;	      /* in effect */
	uint64_t unit_bytes;
	_Atomic uint64_t *pending; /* bitmap of pages: found, but not reported yet */
	_Atomic uint64_t *again;   /* the same, to be reported once more: see hgm_dirty_removed() */
	uint64_t *piece; /* synchronous: the pages that were found in a piece of the region */
	uint64_t words;
	uint64_t first;		/* page of the region's first byte */
	uint64_t pages;		/* in the region */
	uint64_t granule_pages; /* protected again as a whole: 1, or the block */
	struct hgm_uffd *uffd;	/* asynchronous: the region is registered with it */
	uint64_t collections;
	uint64_t dirty_pages;
	char sentence[512];
};

/*
 * All are called with the lock held. Collecting adds pages that were written to, in whole granules,
 * to d->pending, and protects them again. -errno with text: pages that were not collected will be
 * found by the next collection.
 */
int hgm_dirty_sync_begin(struct hgm_dirty *d);
int hgm_dirty_sync_collect(struct hgm_dirty *d, uint64_t page, uint64_t pages);
extern const struct hgm_wp_ops hgm_dirty_wp_ops;

/* As the member of struct hgm_wp_ops. */
void hgm_dirty_removed(struct hgm_wp *g, struct hgm_region *r, uint64_t page, uint64_t pages);

void hgm_dirty_leave(struct hgm_wp *g, struct hgm_region *r);
void hgm_dirty_free(struct hgm_wp *g);

/* NULL if the asynchronous way is possible, else the reason why not. */
const char *hgm_dirty_async_lacks(const struct hgm_dirty *d);
int hgm_dirty_async_begin(struct hgm_dirty *d);
int hgm_dirty_async_collect(struct hgm_dirty *d, uint64_t page, uint64_t pages);
/* Give the region's registration back to the engine, unless it is being destroyed. */
void hgm_dirty_async_end(struct hgm_dirty *d);

#endif
