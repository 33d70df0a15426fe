/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many pages a source is asked for when a thread waits for one of them: see readahead.c.
 * Wait-free. If several threads count at the same time, some counts may be lost.
 */
#ifndef HGM_LIB_READAHEAD_H
#define HGM_LIB_READAHEAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "install/fault_around.h"

#define HGM_READAHEAD_ORDERS 6 /* 1 to 32 pages */

struct hgm_readahead {
	struct hgm_fault_around around;
	_Atomic uint64_t took_ns[HGM_READAHEAD_ORDERS]; /* shortest recent time, by order; or 0 */
	_Atomic bool probe_due; /* request the next whole fault-around window, however slow */
};

void hgm_readahead_init(struct hgm_readahead *a);

/* A thread waits for @page. Returns how many pages to ask for from @page on. */
uint64_t hgm_readahead_pages(struct hgm_readahead *a, uint64_t page);

/* The source took @ns to answer for all of @pages pages. */
void hgm_readahead_took(struct hgm_readahead *a, uint64_t pages, uint64_t ns);

#endif
