/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counters and latency histograms of an engine, spread over shards.
 */
#ifndef HGM_LIB_STATS_H
#define HGM_LIB_STATS_H

#include <stdatomic.h>

#include <hgm/stats.h>

#include "line.h"
#include "opts.h"

#define HGM_STATS_FIRST_SIZE HGM_FIRST_SIZE(struct hgm_stats, events)

/* The counters of struct hgm_stats, in the same order. */
enum hgm_stat {
	HGM_STAT_FAULTS,
	HGM_STAT_FAULT_BATCHES,
	HGM_STAT_FAULTS_DEMAND,
	HGM_STAT_FAULTS_PRESENT,
	HGM_STAT_FAULTS_CLAIMED,
	HGM_STAT_FAULTS_UNKNOWN,
	HGM_STAT_FILL_REQUESTS,
	HGM_STAT_INSTALLED_PAGES,
	HGM_STAT_NEIGHBOUR_PAGES,
	HGM_STAT_ZERO_PAGES,
	HGM_STAT_EXIST,
	HGM_STAT_AGAIN,
	HGM_STAT_PARTIAL,
	HGM_STAT_VANISHED,
	HGM_STAT_NO_MEMORY,
	HGM_STAT_SOURCE_ERRORS,
	HGM_STAT_SOURCE_SHORT,
	HGM_STAT_SOURCE_RETRIES,
	HGM_STAT_POISONED_PAGES,
	HGM_STAT_COLLAPSED_BLOCKS,
	HGM_STAT_COLLAPSE_TRIES,
	HGM_STAT_COLLAPSE_RETRIES,
	HGM_STAT_COLLAPSE_UNPROVED,
	HGM_STAT_SLEEPS,
	HGM_STAT_WP_FAULTS,
	HGM_STAT_WP_PUT_OFF,
	HGM_STAT_DISCARDED_PAGES,
	HGM_STAT_EVENTS,
	HGM_STAT_COUNT,
};

enum hgm_phase {
	HGM_PHASE_QUEUED,
	HGM_PHASE_SOURCE,
	HGM_PHASE_INSTALL,
	HGM_PHASE_PROTECT,
	HGM_PHASE_COUNT,
};

struct hgm_phase_counts {
	_Atomic uint64_t sum_ns;
	_Atomic uint64_t max_ns;
	_Atomic uint64_t bucket[HGM_HIST_BUCKETS];
};

/*
 * Threads are spread over shards, so that counting rarely moves a cache line between them. Each of
 * the first shards belongs to one fault thread, which needs no locked instruction to count there.
 */
#define HGM_STAT_SHARDS_OWNED  64 /* the maximum number of fault threads */
#define HGM_STAT_SHARDS_SHARED 8
#define HGM_STAT_SHARDS	       (HGM_STAT_SHARDS_OWNED + HGM_STAT_SHARDS_SHARED)

struct hgm_stat_shard {
	_Alignas(64) _Atomic uint64_t counter[HGM_STAT_COUNT];
	struct hgm_phase_counts phase[HGM_PHASE_COUNT];
};

HGM_WHOLE_LINES(struct hgm_stat_shard);

/* An engine's counters. */
struct hgm_counters {
	unsigned int owned; /* shards that belong to fault threads */
	struct hgm_stat_shard shard[HGM_STAT_SHARDS];
};

/* Declare the calling thread to be fault thread @nth of the engine, the only one of that number. */
void hgm_stat_own(struct hgm_counters *c, unsigned int nth);

void hgm_stat_add(struct hgm_counters *c, enum hgm_stat stat, uint64_t n);
void hgm_stat_phase(struct hgm_counters *c, enum hgm_phase phase, uint64_t ns);

/* The sums over the shards. */
uint64_t hgm_stat_read(const struct hgm_counters *c, enum hgm_stat stat);
void hgm_stat_read_phase(const struct hgm_counters *c, enum hgm_phase phase, struct hgm_hist *hist);

#endif
