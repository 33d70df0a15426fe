/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of the page-state map. The comment at the top of map.c explains them.
 */
#ifndef HGM_LIB_LEAF_H
#define HGM_LIB_LEAF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "map.h"
#include "util/line.h"
#include "util/rcu.h"

#define WORD_EMPTY ((uintptr_t)0)
#define WORD_FULL  ((uintptr_t)1)

/* Leaves beyond two per word. Each word takes one leaf, once, except for lost races. */
#define SPARE_LEAVES 1024

struct leaf {
	_Alignas(64) struct rcu_head rcu;
	struct hgm_map *map;
	struct leaf *next_free;
	_Atomic uint32_t present_count;
	_Alignas(64) _Atomic uint64_t claimed[HGM_LEAF_WORDS];
	_Atomic uint64_t discarded[HGM_LEAF_WORDS];
	_Atomic uint64_t present[HGM_LEAF_WORDS];
};

_Static_assert(sizeof(struct leaf) == 256, "half a byte per page");
HGM_WHOLE_LINES(struct leaf);
HGM_OWN_LINES(struct leaf, claimed, discarded);
HGM_OWN_LINES(struct leaf, discarded, present);

struct hgm_map {
	uint64_t pages;
	uint64_t left_out; /* the first ones of these */
	uint64_t leaves;
	_Atomic uintptr_t *words;
	_Atomic uint64_t *poisoned;
	struct leaf *arena;
	uint64_t arena_leaves;
	_Alignas(64) _Atomic uint64_t arena_next; /* the first leaf that was never used */
	_Atomic(struct leaf *) free_leaves;
	_Atomic uint64_t deferred; /* leaves that wait for a grace period */
	_Alignas(64) _Atomic uint64_t present_pages;
	_Atomic uint64_t poisoned_pages;
};

HGM_WHOLE_LINES(struct hgm_map);
HGM_OWN_LINES(struct hgm_map, arena_next, present_pages);

/* Make a leaf for a word that was EMPTY. As get_leaf(). */
struct leaf *hgm_map_make_leaf(struct hgm_map *map, uint64_t index, bool *full);

/* Nothing points to the leaf any more. It comes back after a grace period. */
void hgm_map_retire(struct leaf *leaf);

/*
 * Return the leaf of a word, and make one if there is none. NULL: the word is FULL, or there is no
 * memory. Inside a read-side section.
 */
static inline struct leaf *get_leaf(struct hgm_map *map, uint64_t index, bool *full)
{
	uintptr_t word = atomic_load_explicit(&map->words[index], memory_order_acquire);

	*full = word == WORD_FULL;
	if (word == WORD_EMPTY)
		return hgm_map_make_leaf(map, index, full);
	return *full ? NULL : (struct leaf *)word;
}

#endif
