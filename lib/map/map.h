/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page-state map of one region: which pages are claimed, discarded, present and poisoned. Pure
 * memory. The comment at the top of map.c describes the states, transitions and guarantees.
 *
 * Pages are numbered from the start of the region. "Word" w covers pages 64 w to 64 w + 63. "Leaf"
 * l covers pages 512 l to 512 l + 511 (2 MiB). Bits for pages beyond the region's end mean nothing.
 */
#ifndef HGM_LIB_MAP_H
#define HGM_LIB_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "util/page.h"

struct hgm_map;

enum hgm_page_state {
	HGM_PAGE_ABSENT,
	HGM_PAGE_CLAIMED,
	HGM_PAGE_DISCARDED,
	HGM_PAGE_PRESENT,
	HGM_PAGE_POISONED,
};

/* Returns 0 or -ENOMEM. @pages may be anything from 1 to 2^40. */
int hgm_map_create(struct hgm_map **out, uint64_t pages);

/*
 * The first @pages, fewer than a leaf, do not belong to the region: they are claimed for good, and
 * are neither present nor counted. Their leaf never becomes full for hgm_map_leaf_full(). To be
 * called at most once, before the map is used.
 */
void hgm_map_leave_out(struct hgm_map *map, uint64_t pages);

/* There must be no readers or writers any more. Waits for a grace period. */
void hgm_map_destroy(struct hgm_map *map);

uint64_t hgm_map_pages(const struct hgm_map *map);

/* Wait-free. */
enum hgm_page_state hgm_map_state(const struct hgm_map *map, uint64_t page);

/* The pages of a word that are present. Wait-free. */
uint64_t hgm_map_present_word(const struct hgm_map *map, uint64_t word);

/*
 * The pages of a word that were discarded. For pages that are also present the answer means
 * nothing. Wait-free.
 */
uint64_t hgm_map_discarded_word(const struct hgm_map *map, uint64_t word);

/* The pages of a word that are neither claimed nor present. Wait-free. */
uint64_t hgm_map_absent_word(const struct hgm_map *map, uint64_t word);

/* Wait-free. */
bool hgm_map_leaf_full(const struct hgm_map *map, uint64_t leaf);

/*
 * Claim the pages of @want in a word. *mine: those that had no owner; the caller owns them now and
 * must make them present, poison or release them. -ENOMEM: there is no memory for a leaf, and
 * nothing was claimed.
 */
int hgm_map_claim(struct hgm_map *map, uint64_t word, uint64_t want, uint64_t *mine);

/*
 * Discard the pages of @want in a word. Their contents are zeroes from now on and are never
 * fetched. *mine: those that had no owner or were poisoned; the caller owns them now and must make
 * them present. *poisoned: those of *mine that were poisoned. *in_flight: those that have another
 * owner, which will find them discarded. -ENOMEM: there is no memory for a leaf, and nothing was
 * discarded.
 */
int hgm_map_discard(struct hgm_map *map, uint64_t word, uint64_t want, uint64_t *mine,
		    uint64_t *poisoned, uint64_t *in_flight);

/*
 * Announce that hgm_map_discard() will follow. A thread that owns some of these pages finds them
 * discarded already. A leaf of which no page was ever claimed is not marked. A thread that claims
 * pages there must not copy into them before hgm_map_discard(); hgm_reads_hold() sees to
 * that. Wait-free.
 */
void hgm_map_mark_discarded(struct hgm_map *map, uint64_t word, uint64_t want);

/*
 * Discard a leaf of which no page was ever claimed. It becomes full at once. Returns the number of
 * pages that became present. 0: the leaf is not untouched, and nothing was changed.
 */
uint64_t hgm_map_discard_leaf(struct hgm_map *map, uint64_t leaf);

/* Release claimed pages. The caller must wake their waiters afterwards (no-lost-waiter). */
void hgm_map_release(struct hgm_map *map, uint64_t first_page, uint64_t pages);

/*
 * Make claimed pages present, all of one leaf. Their contents are in place, or they were discarded.
 * Returns true if this made the leaf full; exactly one caller gets true for a leaf.
 */
bool hgm_map_set_present(struct hgm_map *map, uint64_t first_page, uint64_t pages);

/* Poison claimed pages that were given up, all of one leaf. */
void hgm_map_set_poisoned(struct hgm_map *map, uint64_t first_page, uint64_t pages);

/*
 * Take the poisoned pages of a word. They are claimed from now on, and the caller owns them and
 * must release them or poison them again.
 */
uint64_t hgm_map_take_poisoned(struct hgm_map *map, uint64_t word);

uint64_t hgm_map_present_pages(const struct hgm_map *map);
uint64_t hgm_map_poisoned_pages(const struct hgm_map *map);

#endif
