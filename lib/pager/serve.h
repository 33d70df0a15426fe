/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_SERVE_H
#define HGM_LIB_SERVE_H

#include <stdbool.h>
#include <stdint.h>

struct hgm;

/* A message of the kernel's, alone or one of several that a thread has read. */
struct hgm_fault {
	uint64_t addr;
	uint64_t flags;	     /* HGM_UFFD_FAULT_* */
	unsigned int stripe; /* whose thread this is */
	uint64_t
		waiting_pages; /* from addr's page on, by the same batch: to be asked for at once */
	bool wake_later;       /* the caller wakes those who wait for deferred_pages */
	uint64_t now_ns;       /* the time, or 0 */

	/* What came of it. */
	uint64_t served_pages;	 /* from addr's page on: of these none needs to be served again */
	uint64_t deferred_pages; /* of these, mapped or about to be, and not woken for */
	bool left_to_others;	 /* some come later, and wake their waiters by themselves */
	uint64_t ended_ns;	 /* the time at the end, if somebody has looked then, else 0 */
};

/* 0, or -EAGAIN and the like: to be tried again. On fault threads. */
int hgm_serve(struct hgm *h, struct hgm_fault *f);

/*
 * A fault on memory that does not belong to the region any more: it was mapped a moment before the
 * region was registered again. From now on the kernel serves it. -EAGAIN: try again later.
 */
int hgm_lost_release(struct hgm_region *r, uint64_t page);

/* A fault outside all regions. -EAGAIN: try again later. */
int hgm_lost_fault(struct hgm *h, unsigned int stripe, uint64_t addr);

#endif
