/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory of the page-state map: the arena, and the life of a leaf (leaf-life in map.c).
 */
#include "leaf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "kernel/sys.h"

static uint64_t words_bytes(const struct hgm_map *map)
{
	return map->leaves * sizeof(map->words[0]);
}

static uint64_t poisoned_bytes(const struct hgm_map *map)
{
	return map->leaves * HGM_LEAF_WORDS * sizeof(map->poisoned[0]);
}

static uint64_t arena_bytes(const struct hgm_map *map)
{
	return map->arena_leaves * sizeof(struct leaf);
}

static int reserve(void **out, uint64_t bytes)
{
	return hgm_sys->mmap(out, NULL, bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | HGM_MAP_UNLOCKED, -1, 0);
}

int hgm_map_create(struct hgm_map **out, uint64_t pages)
{
	struct hgm_map *map = aligned_alloc(64, sizeof(*map));
	void *mem;
	int rc;

	if (!map)
		return -ENOMEM;
	memset(map, 0, sizeof(*map));
	map->pages = pages;
	map->leaves = (pages + HGM_LEAF_PAGES - 1) / HGM_LEAF_PAGES;
	map->arena_leaves = 2 * map->leaves + SPARE_LEAVES;
	rc = reserve(&mem, words_bytes(map));
	if (rc)
		goto no_words;
	map->words = mem;
	rc = reserve(&mem, arena_bytes(map));
	if (rc)
		goto no_arena;
	map->arena = mem;
	rc = reserve(&mem, poisoned_bytes(map));
	if (rc)
		goto no_poisoned;
	map->poisoned = mem;
	*out = map;
	return 0;
no_poisoned:
	hgm_sys->munmap(map->arena, arena_bytes(map));
no_arena:
	hgm_sys->munmap(map->words, words_bytes(map));
no_words:
	free(map);
	return rc;
}

void hgm_map_destroy(struct hgm_map *map)
{
	if (!map)
		return;
	/*
	 * Wait until all replaced leaves are back in the arena. reclaim() accesses this count last.
	 */
	while (atomic_load_explicit(&map->deferred, memory_order_acquire))
		nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
	hgm_sys->munmap(map->arena, arena_bytes(map));
	hgm_sys->munmap(map->poisoned, poisoned_bytes(map));
	hgm_sys->munmap(map->words, words_bytes(map));
	free(map);
}

/* Inside a read-side section. */
static struct leaf *pop_free(struct hgm_map *map)
{
	struct leaf *leaf = atomic_load_explicit(&map->free_leaves, memory_order_acquire);

	while (leaf &&
	       !atomic_compare_exchange_weak_explicit(&map->free_leaves, &leaf, leaf->next_free,
						      memory_order_acquire, memory_order_acquire))
		;
	return leaf;
}

static void reclaim(struct rcu_head *head)
{
	struct leaf *leaf = caa_container_of(head, struct leaf, rcu);
	struct hgm_map *map;
	struct leaf *first;

	hgm_rcu_tsan_acquire();
	map = leaf->map;
	atomic_store_explicit(&leaf->present_count, 0, memory_order_relaxed);
	for (int i = 0; i < HGM_LEAF_WORDS; i++) {
		atomic_store_explicit(&leaf->claimed[i], 0, memory_order_relaxed);
		atomic_store_explicit(&leaf->discarded[i], 0, memory_order_relaxed);
		atomic_store_explicit(&leaf->present[i], 0, memory_order_relaxed);
	}
	first = atomic_load_explicit(&map->free_leaves, memory_order_relaxed);
	do
		leaf->next_free = first;
	while (!atomic_compare_exchange_weak_explicit(&map->free_leaves, &first, leaf,
						      memory_order_release, memory_order_relaxed));
	atomic_fetch_sub_explicit(&map->deferred, 1, memory_order_release);
}

void hgm_map_retire(struct leaf *leaf)
{
	atomic_fetch_add_explicit(&leaf->map->deferred, 1, memory_order_relaxed);
	hgm_rcu_defer(&leaf->rcu, reclaim);
}

static struct leaf *new_leaf(struct hgm_map *map, uint64_t index)
{
	struct leaf *leaf = pop_free(map);
	uint64_t tail = map->pages - index * HGM_LEAF_PAGES;

	if (!leaf) {
		uint64_t n = atomic_fetch_add_explicit(&map->arena_next, 1, memory_order_relaxed);

		if (n >= map->arena_leaves) {
			atomic_fetch_sub_explicit(&map->arena_next, 1, memory_order_relaxed);
			return NULL;
		}
		leaf = &map->arena[n];
		leaf->map = map;
	}
	/* Pages beyond the region's end are never fetched. */
	for (uint64_t page = tail; page < HGM_LEAF_PAGES; page++) {
		leaf->claimed[page / 64] |= UINT64_C(1) << page % 64;
		leaf->present[page / 64] |= UINT64_C(1) << page % 64;
		leaf->present_count++;
	}
	return leaf;
}

struct leaf *hgm_map_make_leaf(struct hgm_map *map, uint64_t index, bool *full)
{
	struct leaf *leaf = new_leaf(map, index);
	uintptr_t word = WORD_EMPTY;

	if (!leaf)
		return NULL;
	if (atomic_compare_exchange_strong_explicit(&map->words[index], &word, (uintptr_t)leaf,
						    memory_order_acq_rel, memory_order_acquire))
		return leaf;
	/*
	 * Another thread has installed a leaf first. This leaf must go through a grace period,
	 * because another thread that pops may be reading it.
	 */
	hgm_map_retire(leaf);
	*full = word == WORD_FULL;
	return *full ? NULL : (struct leaf *)word;
}
