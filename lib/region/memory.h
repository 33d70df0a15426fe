/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading guest memory by system calls that can fail. Guest memory is never touched for this. A
 * touch allocates holes. It raises SIGBUS beyond the end of a truncated file and where no huge page
 * is available. It faults on pages that only the engine's own threads can supply.
 */
#ifndef HGM_LIB_MEMORY_H
#define HGM_LIB_MEMORY_H

#include <stdint.h>

#include "map/map.h"

struct hgm;
struct hgm_region;

/* Each page has one of three outcomes: contents, hole, unreadable. Bit 0 is the first page. */
struct hgm_memory_outcome {
	uint64_t hole; /* a known hole, zero in the buffer; a hole may also count as contents */
	uint64_t unreadable; /* contents not known; zero in the buffer */
	int error;	     /* why the last unreadable page could not be read; else 0 */
};

/*
 * Must be called before anonymous memory is read. hgm_create() opens /proc/self/mem, because later
 * the process may have lost /proc or the right to open it. If it could not be opened then, this is
 * tried again. -errno without text.
 */
int hgm_memory_open(const struct hgm_region *r);

/*
 * Read up to HGM_PAGES_PER_WORD pages as they are now. All of @buf is filled in. Any thread, fault
 * threads too: takes no lock, allocates nothing, and causes no userfaultfd message.
 */
struct hgm_memory_outcome hgm_memory_read(const struct hgm_region *r, uint64_t page, uint64_t pages,
					  void *buf);

#endif
