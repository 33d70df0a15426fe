/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page-state map: the time of a look-up and of a claim, and the memory of the map. The baseline
 * is a plain bitmap with the same atomic operations.
 */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "bench.h"
#include "clock.h"
#include "map/map.h"
#include "util/rcu.h"

#define HOT_PAGES ((uint64_t)64 * HGM_LEAF_PAGES) /* 16 KiB of leaves: fits in the L1 cache */
#define STRIDE	  40503				  /* odd: each page once */
#define PASSES	  16

static uint64_t sink; /* keeps the compiler from removing results */

static struct hgm_map *make(uint64_t pages)
{
	struct hgm_map *map;

	if (hgm_map_create(&map, pages))
		die("map", "no memory");
	return map;
}

static uint64_t claim_all(struct hgm_map *map, uint64_t pages)
{
	uint64_t got = 0, mine;

	for (uint64_t page = 0; page < pages; page++) {
		hgm_rcu_read_lock();
		if (hgm_map_claim(map, page / 64, UINT64_C(1) << page % 64, &mine))
			die("map", "no memory");
		hgm_rcu_read_unlock();
		got += mine != 0;
	}
	return got;
}

static uint64_t look_up_all(struct hgm_map *map)
{
	uint64_t found = 0;

	for (uint64_t i = 0; i < HOT_PAGES; i++) {
		hgm_rcu_read_lock();
		found += hgm_map_state(map, i * STRIDE % HOT_PAGES) == HGM_PAGE_CLAIMED;
		hgm_rcu_read_unlock();
	}
	return found;
}

static uint64_t claim_bits(_Atomic uint64_t *bitmap)
{
	uint64_t got = 0;

	for (uint64_t page = 0; page < HOT_PAGES; page++) {
		uint64_t bit = UINT64_C(1) << page % 64;

		got += !(atomic_fetch_or_explicit(&bitmap[page / 64], bit, memory_order_acq_rel) &
			 bit);
	}
	return got;
}

static uint64_t look_up_bits(_Atomic uint64_t *bitmap)
{
	uint64_t found = 0;

	for (uint64_t i = 0; i < HOT_PAGES; i++) {
		uint64_t page = i * STRIDE % HOT_PAGES;

		found += atomic_load_explicit(&bitmap[page / 64], memory_order_acquire) >>
				 page % 64 &
			 1;
	}
	return found;
}

/* Keep the best of several passes of a third of a millisecond: one that was not preempted. */
static void lower(double *best, uint64_t start)
{
	double ns = (double)(now_ns() - start) / (double)HOT_PAGES;

	*best = ns < *best ? ns : *best;
}

static void time_map(void)
{
	struct hgm_map *map = make(HOT_PAGES);
	double claim = INFINITY, lookup = INFINITY;

	/* The first pass creates the leaves. Only the claim is to be measured. */
	claim_all(map, HOT_PAGES);
	for (unsigned int pass = 0; pass < PASSES; pass++) {
		uint64_t start;

		hgm_map_release(map, 0, HOT_PAGES);
		start = now_ns();
		if (claim_all(map, HOT_PAGES) != HOT_PAGES)
			die("map", "a page could not be claimed");
		lower(&claim, start);
		start = now_ns();
		if (look_up_all(map) != HOT_PAGES)
			die("map", "a claimed page was not found so");
		lower(&lookup, start);
	}
	note("map", "claim", claim);
	note("map", "lookup", lookup);
	hgm_map_release(map, 0, HOT_PAGES);
	hgm_map_destroy(map);
}

static void time_bitmap(void)
{
	static _Atomic uint64_t bitmap[HOT_PAGES / 64];
	double claim = INFINITY, lookup = INFINITY;

	for (unsigned int pass = 0; pass < PASSES; pass++) {
		uint64_t start;

		memset((void *)bitmap, 0, sizeof(bitmap));
		start = now_ns();
		if (claim_bits(bitmap) != HOT_PAGES)
			die("bitmap", "a page could not be claimed");
		lower(&claim, start);
		start = now_ns();
		if (look_up_bits(bitmap) != HOT_PAGES)
			die("bitmap", "a claimed page was not found so");
		lower(&lookup, start);
	}
	note("bitmap", "claim", claim);
	note("bitmap", "lookup", lookup);
}

static void round_time(const struct bench *b)
{
	(void)b;
	time_map();
	time_bitmap();
}

static void rows_time(const struct bench *b)
{
	(void)b;
	compare("map.claim", LESS, "ns", "map", "claim", "bitmap");
	compare("map.lookup", LESS, "ns", "map", "lookup", "bitmap");
}

/*
 * Memory
 */
struct memory_case {
	uint64_t tib;
};

/* The exact resident memory of the process. */
static uint64_t resident(void)
{
	FILE *f = fopen("/proc/self/smaps_rollup", "re");
	unsigned long long kb = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Rss: %llu kB", &kb) == 1)
			break;
	if (!f || !kb)
		die("/proc/self/smaps_rollup", "cannot be read");
	fclose(f);
	return kb << 10;
}

static void claim_leaves(struct hgm_map *map, uint64_t leaves)
{
	uint64_t mine;

	for (uint64_t word = 0; word < leaves * HGM_LEAF_WORDS; word++) {
		hgm_rcu_read_lock();
		if (hgm_map_claim(map, word, ~UINT64_C(0), &mine) || ~mine)
			die("map", "a page could not be claimed");
		hgm_rcu_read_unlock();
	}
}

#define FULL_AT_A_TIME 2048

/* Everything arrives, leaf by leaf. Used leaves come back as they do in practice. */
static void fill_up(struct hgm_map *map, uint64_t leaves)
{
	uint64_t mine;

	for (uint64_t leaf = 0; leaf < leaves; leaf++) {
		hgm_rcu_read_lock();
		for (uint64_t word = 0; word < HGM_LEAF_WORDS; word++)
			hgm_map_claim(map, leaf * HGM_LEAF_WORDS + word, ~UINT64_C(0), &mine);
		if (!hgm_map_set_present(map, leaf * HGM_LEAF_PAGES, HGM_LEAF_PAGES))
			die("map", "a leaf did not become full");
		hgm_rcu_read_unlock();
		if (leaf % FULL_AT_A_TIME == 0)
			urcu_bp_barrier(); /* in practice memory does not arrive faster */
	}
}

static void round_memory(const struct bench *b)
{
	const struct memory_case *c = b->arg;
	uint64_t pages = c->tib << (40 - HGM_PAGE_SHIFT), leaves = pages / HGM_LEAF_PAGES;
	uint64_t one_percent = leaves / 100, before = resident(), idle, taken;
	struct hgm_map *map;

	map = make(pages);
	/* Look at each leaf, as export and progress do. */
	for (uint64_t leaf = 0; leaf < leaves; leaf++)
		sink += hgm_map_leaf_full(map, leaf);
	idle = resident() - before;
	claim_leaves(map, one_percent);
	taken = resident() - before - idle;
	/* Their words belong to the memory that an idle map uses once it is full. */
	taken -= one_percent * sizeof(uint64_t);
	note("map", "in flight", (double)taken / (double)(one_percent * HGM_LEAF_PAGES));
	hgm_map_release(map, 0, one_percent * HGM_LEAF_PAGES);
	hgm_map_destroy(map);

	note("map", "idle", (double)idle / (double)MIB);
	/* One bit per page: the size of a present bitmap alone. */
	note("bitmap", "idle", (double)(pages / 8) / (double)MIB);
	note("allowed", "in flight", 0.5);
}

static void round_full(const struct bench *b)
{
	const struct memory_case *c = b->arg;
	uint64_t pages = c->tib << (40 - HGM_PAGE_SHIFT), before = resident();
	struct hgm_map *map = make(pages);

	fill_up(map, pages / HGM_LEAF_PAGES);
	note("map", "full", (double)(resident() - before) / (double)MIB);
	hgm_map_destroy(map);
	note("bitmap", "full", (double)(pages / 8) / (double)MIB);
}

static void rows_full(const struct bench *b)
{
	char name[64];

	snprintf(name, sizeof(name), "%s.memory", b->name);
	compare(name, LESS, "MiB", "map", "full", "bitmap");
}

static void rows_memory(const struct bench *b)
{
	char name[64];

	snprintf(name, sizeof(name), "%s.idle", b->name);
	compare(name, LESS, "MiB", "map", "idle", "bitmap");
	snprintf(name, sizeof(name), "%s.in-flight", b->name);
	compare(name, LESS, "B/page", "map", "in flight", "allowed");
}

const struct bench map_benches[] = {
	{ "map", "the page-state map: claim and look-up, one thread, hot", true, round_time,
	  rows_time, NULL },
	{ "map-memory-1t", "memory of the map of 1 TiB: idle, and with 1 % in flight", true,
	  round_memory, rows_memory, &(const struct memory_case){ 1 } },
	{ "map-memory-12t", "the same of 12 TiB", false, round_memory, rows_memory,
	  &(const struct memory_case){ 12 } },
	{ "map-full-1t", "the same after everything has arrived", false, round_full, rows_full,
	  &(const struct memory_case){ 1 } },
	{ NULL },
};
