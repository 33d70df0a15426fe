/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How large a fault-around window is useful, judged by where other faults are: see fault_around.c.
 * Wait-free. If several threads count at the same time, some counts may be lost.
 */
#ifndef HGM_LIB_FAULT_AROUND_H
#define HGM_LIB_FAULT_AROUND_H

#include <stdatomic.h>
#include <stdint.h>

#define HGM_FAULT_AROUND_RECENT_SHIFT 6
#define HGM_FAULT_AROUND_RECENT	      (1 << HGM_FAULT_AROUND_RECENT_SHIFT)

struct hgm_fault_around {
	uint32_t smallest_pages; /* a power of two */
	uint32_t wider_max;	 /* times that smallest_pages is doubled at most; up to 7 */
	_Atomic uint32_t wider;	 /* times that smallest_pages is doubled now */
	_Atomic uint32_t faults;
	_Atomic uint32_t hits;
	_Atomic uint64_t recent[HGM_FAULT_AROUND_RECENT]; /* window + 1, indexed by its pair */
};

void hgm_fault_around_init(struct hgm_fault_around *a, uint32_t smallest_pages, uint32_t wider_max);

/*
 * A fault on @page. Returns the size of its fault-around window, in pages. The size is a
 * power of two, and the window is aligned to it.
 */
uint64_t hgm_fault_around_fault(struct hgm_fault_around *a, uint64_t page);

#endif
