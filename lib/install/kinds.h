/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How the kinds of memory differ in what is done to pages. One table of functions for each kind.
 */
#ifndef HGM_LIB_KINDS_H
#define HGM_LIB_KINDS_H

#include <stdbool.h>
#include <stdint.h>

struct hgm_arrival;
struct hgm_range;
struct hgm_region;

/* What an event says that announces a drop of memory. */
enum hgm_removal {
	HGM_REMOVAL_DROPS,   /* the pages are dropped, whatever raised the event */
	HGM_REMOVAL_SUSPECT, /* perhaps only their page table entries: suspects.c */
	HGM_REMOVAL_NOTHING, /* only whole huge pages are dropped, and are found as holes */
};

struct hgm_kind {
	/*
	 * The contents of @pages are in the buffer, or are zero: make them present, and install
	 * them. install() goes on with what is left.
	 */
	int (*contents)(struct hgm_arrival *a, uint64_t pages);
	int (*install)(struct hgm_arrival *a);
	/* Map a present page that may have neighbours. -EFAULT: it is not in memory. */
	int (*map_present)(struct hgm_region *r, uint64_t page, bool wake_later, bool *installed);
	/* Map a page that was discarded. */
	int (*map_zero)(struct hgm_region *r, uint64_t page, struct hgm_range *range);
	/* Drop memory of pages that all belong to the region. -errno of the system call. */
	int (*drop)(struct hgm_region *r, uint64_t page, uint64_t pages);
	const char *drop_call; /* its name */
	/* Remove poison of pages that were discarded. */
	int (*drop_poison)(struct hgm_region *r, uint64_t page, uint64_t pages);
	enum hgm_removal removal;
};

const struct hgm_kind *hgm_kind_of(const struct hgm_region *r);

/* resolve.c */
int hgm_contents_copied(struct hgm_arrival *a, uint64_t pages);
int hgm_contents_copied_anon(struct hgm_arrival *a, uint64_t pages);
int hgm_contents_by_alias(struct hgm_arrival *a, uint64_t pages);
int hgm_contents_by_leaf(struct hgm_arrival *a, uint64_t pages);
int hgm_contents_by_block(struct hgm_arrival *a, uint64_t pages);
int hgm_install_by_page(struct hgm_arrival *a);
int hgm_install_by_leaf(struct hgm_arrival *a);

/*
 * present.c. hgm_map_around(): map a present page with present neighbours, or its whole block where
 * that is the granularity.
 */
int hgm_map_around(struct hgm_region *r, uint64_t page, bool wake_later, bool *installed);
int hgm_map_anon(struct hgm_region *r, uint64_t page, bool wake_later, bool *installed);
int hgm_map_file(struct hgm_region *r, uint64_t page, bool wake_later, bool *installed);
int hgm_map_leaf(struct hgm_region *r, uint64_t page, bool wake_later, bool *installed);
int hgm_map_zero_page(struct hgm_region *r, uint64_t page, struct hgm_range *range);
int hgm_map_zero_block(struct hgm_region *r, uint64_t page, struct hgm_range *range);

/* discard.c */
int hgm_drop_not(struct hgm_region *r, uint64_t page, uint64_t pages);
int hgm_drop_anon(struct hgm_region *r, uint64_t page, uint64_t pages);
int hgm_drop_file(struct hgm_region *r, uint64_t page, uint64_t pages);

/* unpoison.c */
int hgm_drop_poison_of_blocks(struct hgm_region *r, uint64_t page, uint64_t pages);

#endif
