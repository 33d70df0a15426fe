/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ranges of a region's file that are dropped, as an event says. It does not say how.
 */
#ifndef HGM_LIB_SUSPECTS_H
#define HGM_LIB_SUSPECTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct hgm_region;

#define HGM_SUSPECTS_MAX 64

struct hgm_suspect {
	uint64_t page;
	uint64_t pages;
	uint64_t seen_ns; /* ctime before the event */
	uint64_t read_ns; /* hgm_stamp_ns() before the event was read, so before the drop */
	uint64_t until_ns;
};

struct hgm_suspects {
	pthread_mutex_t lock; /* held for a few loads and stores */
	_Atomic unsigned int count;
	_Atomic uint64_t seen_ns;    /* ctime as last read */
	_Atomic uint64_t dropped_ns; /* ctime that showed a drop */
	struct hgm_suspect range[HGM_SUSPECTS_MAX];
};

void hgm_suspects_init(struct hgm_suspects *all);

void hgm_suspects_destroy(struct hgm_suspects *all);

/* No change of the file so far was a drop that an event reports. */
void hgm_suspects_look(struct hgm_region *r);

/*
 * When the file was changed last, in ns of the wall clock; 0: it does not matter. The second
 * function says that the caller itself has dropped pages of the file since that was @before_ns.
 */
uint64_t hgm_suspects_ctime(const struct hgm_region *r);
void hgm_suspects_dropped(struct hgm_region *r, uint64_t before_ns);

/* An event says that these pages are dropped. @read_ns: hgm_stamp_ns() before it was read. */
void hgm_suspects_add(struct hgm_region *r, uint64_t page, uint64_t pages, uint64_t read_ns);

/*
 * Discard those of these pages that were dropped from the file by now. True: for some of them this
 * is not known yet.
 */
bool hgm_suspects_check(struct hgm_region *r, uint64_t page, uint64_t pages);

/* A page that had not arrived is a hole in prepared memory, so its suspect ranges were dropped. */
void hgm_suspects_hole(struct hgm_region *r, uint64_t page);

/* Decide ranges that have waited long enough. True: some still wait. */
bool hgm_suspects_age(struct hgm_region *r);

#endif
