/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Serving faults: see serve.c.
 */
#ifndef HGM_LIB_SERVE_H
#define HGM_LIB_SERVE_H

#include <stdbool.h>
#include <stdint.h>

struct hgm;
struct hgm_space;

/* A fault message of the kernel. A thread may have read it together with others. */
struct hgm_fault {
	struct hgm_space *space;
	uint64_t addr;
	uint64_t flags;		/* HGM_UFFD_FAULT_* */
	unsigned int stripe;	/* of the fault thread */
	uint64_t waiting_pages; /* from addr's page on, by the same batch: request them together */
	bool wake_later;	/* the caller does the deferred wake of deferred_pages */
	uint64_t now_ns;	/* the time, or 0 */

	/* The outcome. */
	uint64_t served_pages;	 /* from addr's page on: none of them needs to be served again */
	uint64_t deferred_pages; /* of these: mapped or about to be, with a deferred wake */
	bool left_to_others;	 /* some pages come later; their owner wakes the waiters */
	uint64_t ended_ns;	 /* the time at the end, if it was read then, else 0 */
};

/* Serve a fault. An error such as -EAGAIN: try again later. Runs on fault threads. */
int hgm_serve(struct hgm *h, struct hgm_fault *f);

/*
 * moved.c: a fault on memory that does not belong to the region any more. The memory was mapped
 * just before the region was registered again. The kernel serves the memory from now on. -EAGAIN:
 * try again later.
 */
int hgm_lost_release(struct hgm_region *r, uint64_t page);

/* moved.c: a fault outside all regions. -EAGAIN: try again later. */
int hgm_lost_fault(struct hgm *h, const struct hgm_fault *f);

#endif
