/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A caller's memory that is not aligned to blocks, and what lies around it. That must neither
 * change nor be named to the kernel.
 */
#ifndef HGM_TEST_MARGINS_H
#define HGM_TEST_MARGINS_H

#include "harness.h"

/* What precedes the region from the border of a block on, and what follows it. All in bytes. */
struct margins {
	uint64_t head; /* in the address space; BACKING_FD: the library chooses file_head */
	uint64_t file_head;
	uint64_t tail;
};

/*
 * Like ram_try(), for BACKING_FD to BACKING_MAPPING_ANON. After an error, too, call ram_release().
 */
int ram_try_within(struct ram *ram, struct hgm *h, enum backing backing, uint64_t length,
		   struct hgm_source *src, uint64_t source_offset, uint32_t flags,
		   const struct margins *m);

/* Fails the test if a byte around the caller's memory has changed. */
void assert_margins(const struct ram *ram, const char *what);

/*
 * After fence_set_up(), the library's calls are watched while a region of ram_try_within()
 * exists. No address range that a call gets may meet the margins of the region or of its alias, and
 * no range of the caller's file may lie outside of the region. fence_end(), to be called after
 * hgm_region_destroy(), fails the test if one did.
 */
void fence_set_up(void);
void fence_end(void);

/* The kernel has no PAGEMAP_SCAN (before 6.7). To be called before the engine is made. */
void fence_without_scan(bool without);

#endif
