/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Discards: pages that the owner of the guest gives back.
 */
#ifndef HGM_LIB_DISCARD_H
#define HGM_LIB_DISCARD_H

#include <stdbool.h>
#include <stdint.h>

struct hgm_region;

/*
 * Pages are being discarded, or were found to be discarded. Those that have not arrived never will,
 * and read as zeroes. Returns whether another thread was fetching some of them. Allocates nothing;
 * any thread.
 */
bool hgm_discard_pages(struct hgm_region *r, uint64_t page, uint64_t pages);

/*
 * An event says that these pages are dropped. First mark them, then discard them. True: it is not
 * known yet whether they are discarded, and hgm_suspects_age() decides. @read_ns: hgm_stamp_ns()
 * before the event was read.
 */
void hgm_discard_event_mark(struct hgm_region *r, uint64_t page, uint64_t pages, uint64_t read_ns);
bool hgm_discard_event(struct hgm_region *r, uint64_t page, uint64_t pages);

/* Discard those of these pages of the region that are holes. For memory that was prepared. */
void hgm_discard_holes(struct hgm_region *r, uint64_t page, uint64_t pages);

/* A page was found to be a hole. Discards its unit: a block for hugetlb, a page elsewhere. */
void hgm_discard_found(struct hgm_region *r, uint64_t page);

/*
 * The owner of these pages, all of one leaf, has written contents to the alias. Drop what was
 * discarded meanwhile. Must come before the pages are published (discarded-wins).
 */
void hgm_discard_drop(struct hgm_region *r, uint64_t page, uint64_t pages);

/*
 * The length of the run from @page on in which all pages were discarded, or none was. The caller
 * owns all of them.
 */
uint64_t hgm_discard_run(const struct hgm_region *r, uint64_t page, uint64_t pages,
			 bool *discarded);

/* Are the first of these pages discarded? *run: how many of them are, or are not. */
static inline bool hgm_discard_front(const struct hgm_region *r, uint64_t page, uint64_t pages,
				     uint64_t *run)
{
	bool discarded;

	*run = hgm_discard_run(r, page, pages, &discarded);
	return discarded;
}

/* Drop memory of these pages that still belongs to the region. -errno without text. */
int hgm_discard_memory(struct hgm_region *r, uint64_t page, uint64_t pages);

/*
 * Mark the calling thread: a fault thread, the events thread, or a snapshot's thread. It must not
 * wait for what such a thread reads.
 */
void hgm_events_reader_begins(void);
bool hgm_reads_events(void);

/*
 * Check the arguments of @function. -EINVAL: the range is not aligned or not inside the region.
 * -EDEADLK: the calling thread reads events, or is inside a callback. With text.
 */
int hgm_discard_check(const struct hgm_region *r, uint64_t offset, uint64_t length,
		      const char *function);

#endif
