/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many present neighbours are mapped with a page: see around.c. Wait-free; of what several
 * threads count at a time some may be lost.
 */
#ifndef HGM_LIB_AROUND_H
#define HGM_LIB_AROUND_H

#include <stdatomic.h>
#include <stdint.h>

#define HGM_AROUND_RECENT_SHIFT 6
#define HGM_AROUND_RECENT	(1 << HGM_AROUND_RECENT_SHIFT)

struct hgm_around {
	_Atomic uint32_t wider; /* the window is the smallest one, doubled so many times */
	_Atomic uint32_t faults;
	_Atomic uint32_t hits;
	_Atomic uint64_t recent[HGM_AROUND_RECENT]; /* window + 1, by the pair that it belongs to */
};

/* A fault on @page: the window around it, in pages; a power of two, aligned to itself. */
uint64_t hgm_around_fault(struct hgm_around *a, uint64_t page);

#endif
