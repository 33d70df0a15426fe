/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Look-ups in the page-state map. All are wait-free.
 */
#include "leaf.h"

uint64_t hgm_map_pages(const struct hgm_map *map)
{
	return map->pages;
}

enum hgm_page_state hgm_map_state(const struct hgm_map *map, uint64_t page)
{
	enum hgm_page_state state = HGM_PAGE_ABSENT;
	unsigned int w = page / 64 % HGM_LEAF_WORDS;
	uint64_t bit = UINT64_C(1) << page % 64;
	uintptr_t word;

	hgm_rcu_read_lock();
	word = atomic_load_explicit(&map->words[page / HGM_LEAF_PAGES], memory_order_acquire);
	if (word == WORD_FULL) {
		state = HGM_PAGE_PRESENT;
	} else if (word != WORD_EMPTY) {
		struct leaf *leaf = (struct leaf *)word;

		if (atomic_load_explicit(&leaf->present[w], memory_order_acquire) & bit)
			state = HGM_PAGE_PRESENT;
		else if (atomic_load_explicit(&map->poisoned[page / 64], memory_order_acquire) &
			 bit)
			state = HGM_PAGE_POISONED;
		else if (atomic_load_explicit(&leaf->discarded[w], memory_order_acquire) & bit)
			state = HGM_PAGE_DISCARDED;
		else if (atomic_load_explicit(&leaf->claimed[w], memory_order_acquire) & bit)
			state = HGM_PAGE_CLAIMED;
	}
	hgm_rcu_read_unlock();
	return state;
}

uint64_t hgm_map_present_word(const struct hgm_map *map, uint64_t w)
{
	uint64_t bits = 0;
	uintptr_t word;

	hgm_rcu_read_lock();
	word = atomic_load_explicit(&map->words[w / HGM_LEAF_WORDS], memory_order_acquire);
	if (word == WORD_FULL)
		bits = ~UINT64_C(0);
	else if (word != WORD_EMPTY)
		bits = atomic_load_explicit(&((struct leaf *)word)->present[w % HGM_LEAF_WORDS],
					    memory_order_acquire);
	hgm_rcu_read_unlock();
	return bits;
}

uint64_t hgm_map_discarded_word(const struct hgm_map *map, uint64_t w)
{
	uint64_t bits = 0;
	uintptr_t word;

	hgm_rcu_read_lock();
	word = atomic_load_explicit(&map->words[w / HGM_LEAF_WORDS], memory_order_acquire);
	if (word != WORD_EMPTY && word != WORD_FULL)
		bits = atomic_load_explicit(&((struct leaf *)word)->discarded[w % HGM_LEAF_WORDS],
					    memory_order_seq_cst);
	hgm_rcu_read_unlock();
	return bits;
}

uint64_t hgm_map_absent_word(const struct hgm_map *map, uint64_t w)
{
	uint64_t bits = ~UINT64_C(0);
	uintptr_t word;

	hgm_rcu_read_lock();
	word = atomic_load_explicit(&map->words[w / HGM_LEAF_WORDS], memory_order_acquire);
	if (word == WORD_FULL)
		bits = 0;
	else if (word != WORD_EMPTY)
		bits = ~atomic_load_explicit(&((struct leaf *)word)->claimed[w % HGM_LEAF_WORDS],
					     memory_order_acquire);
	hgm_rcu_read_unlock();
	return bits;
}

bool hgm_map_leaf_full(const struct hgm_map *map, uint64_t leaf)
{
	return atomic_load_explicit(&map->words[leaf], memory_order_acquire) == WORD_FULL;
}

uint64_t hgm_map_present_pages(const struct hgm_map *map)
{
	return atomic_load_explicit(&map->present_pages, memory_order_relaxed);
}

uint64_t hgm_map_poisoned_pages(const struct hgm_map *map)
{
	return atomic_load_explicit(&map->poisoned_pages, memory_order_relaxed);
}
