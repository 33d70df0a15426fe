/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page-state map of one region: which pages are claimed, present, poisoned. Pure memory; the
 * essay at the top of map.c tells states, transitions and guarantees.
 *
 * Pages are numbered from the start of the region. "Word" w covers pages 64 w to 64 w + 63, "leaf"
 * l pages 512 l to 512 l + 511 (2 MiB). Bits for pages behind the region's end mean nothing.
 */
#ifndef HGM_LIB_MAP_H
#define HGM_LIB_MAP_H

#include <stdbool.h>
#include <stdint.h>

#define HGM_PAGE_SHIFT	   12
#define HGM_PAGE_BYTES	   (UINT64_C(1) << HGM_PAGE_SHIFT)
#define HGM_LEAF_SHIFT	   21
#define HGM_LEAF_BYTES	   (UINT64_C(1) << HGM_LEAF_SHIFT)
#define HGM_LEAF_PAGES	   512
#define HGM_LEAF_WORDS	   8
#define HGM_PAGES_PER_WORD 64

struct hgm_map;

enum hgm_page_state {
	HGM_PAGE_ABSENT,
	HGM_PAGE_CLAIMED,
	HGM_PAGE_PRESENT,
	HGM_PAGE_POISONED,
};

/* -ENOMEM, or 0. @pages may be anything from 1 to 2^40. */
int hgm_map_create(struct hgm_map **out, uint64_t pages);

/* No reader or writer may be left. Waits for a grace period. */
void hgm_map_destroy(struct hgm_map *map);

uint64_t hgm_map_pages(const struct hgm_map *map);

/* Wait-free. */
enum hgm_page_state hgm_map_state(const struct hgm_map *map, uint64_t page);

/* The pages of a word that are present. Wait-free. */
uint64_t hgm_map_present_word(const struct hgm_map *map, uint64_t word);

/* The pages of a word that are neither claimed nor present. Wait-free. */
uint64_t hgm_map_absent_word(const struct hgm_map *map, uint64_t word);

/* Wait-free. */
bool hgm_map_leaf_full(const struct hgm_map *map, uint64_t leaf);

/*
 * Claim the pages of @want in a word. *mine: those that nobody had claimed; they are the caller's
 * now, to be made present, poisoned, or released. -ENOMEM: no leaf could be had, nothing was
 * claimed.
 */
int hgm_map_claim(struct hgm_map *map, uint64_t word, uint64_t want, uint64_t *mine);

/* Give claimed pages back. The caller must wake their waiters afterwards (no-lost-waiter). */
void hgm_map_release(struct hgm_map *map, uint64_t first_page, uint64_t pages);

/*
 * Claimed pages whose contents are in place, all of one leaf. Returns true if this made the leaf
 * full: then exactly one caller is told so.
 */
bool hgm_map_set_present(struct hgm_map *map, uint64_t first_page, uint64_t pages);

/* Claimed pages that were given up, all of one leaf. */
void hgm_map_set_poisoned(struct hgm_map *map, uint64_t first_page, uint64_t pages);

uint64_t hgm_map_present_pages(const struct hgm_map *map);
uint64_t hgm_map_poisoned_pages(const struct hgm_map *map);

#endif
