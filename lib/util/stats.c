/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counters and latency histograms, spread over shards.
 */
#include "stats.h"

static _Thread_local struct {
	struct hgm_counters *c; /* of the engine that this fault thread belongs to */
	struct hgm_stat_shard *owned;
	unsigned int shared; /* shard to use elsewhere; 0 before the first use */
} mine;

void hgm_stat_own(struct hgm_counters *c, unsigned int nth)
{
	mine.c = c;
	mine.owned = &c->shard[nth];
}

static struct hgm_stat_shard *shared_shard(struct hgm_counters *c)
{
	static _Atomic unsigned int threads;

	if (!mine.shared)
		mine.shared = HGM_STAT_SHARDS_OWNED +
			      atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) %
				      HGM_STAT_SHARDS_SHARED;
	return &c->shard[mine.shared];
}

static struct hgm_stat_shard *shard(struct hgm_counters *c)
{
	return mine.c == c ? mine.owned : shared_shard(c);
}

/* Add to a counter in the thread's shard of @c. */
static void count(const struct hgm_counters *c, _Atomic uint64_t *counter, uint64_t n)
{
	if (mine.c == c)
		atomic_store_explicit(counter,
				      atomic_load_explicit(counter, memory_order_relaxed) + n,
				      memory_order_relaxed);
	else
		atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

void hgm_stat_add(struct hgm_counters *c, enum hgm_stat stat, uint64_t n)
{
	if (n)
		count(c, &shard(c)->counter[stat], n);
}

void hgm_stat_phase(struct hgm_counters *c, enum hgm_phase phase, uint64_t ns)
{
	struct hgm_phase_counts *p = &shard(c)->phase[phase];
	unsigned int bits = ns ? 64 - (unsigned int)__builtin_clzll(ns) : 0;
	unsigned int bucket = bits <= 8 ? 0 : bits - 8;
	uint64_t max = atomic_load_explicit(&p->max_ns, memory_order_relaxed);

	if (bucket >= HGM_HIST_BUCKETS)
		bucket = HGM_HIST_BUCKETS - 1;
	count(c, &p->bucket[bucket], 1);
	count(c, &p->sum_ns, ns);
	while (ns > max &&
	       !atomic_compare_exchange_weak_explicit(&p->max_ns, &max, ns, memory_order_relaxed,
						      memory_order_relaxed))
		;
}

/* The next shard that a thread counts in. */
static unsigned int behind(const struct hgm_counters *c, unsigned int shard)
{
	return ++shard == c->owned ? HGM_STAT_SHARDS_OWNED : shard;
}

uint64_t hgm_stat_read(const struct hgm_counters *c, enum hgm_stat stat)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < HGM_STAT_SHARDS; i = behind(c, i))
		sum += atomic_load_explicit(&c->shard[i].counter[stat], memory_order_relaxed);
	return sum;
}

void hgm_stat_read_phase(const struct hgm_counters *c, enum hgm_phase phase, struct hgm_hist *hist)
{
	for (unsigned int i = 0; i < HGM_STAT_SHARDS; i = behind(c, i)) {
		const struct hgm_phase_counts *p = &c->shard[i].phase[phase];
		uint64_t max = atomic_load_explicit(&p->max_ns, memory_order_relaxed);

		hist->sum_ns += atomic_load_explicit(&p->sum_ns, memory_order_relaxed);
		hist->max_ns = max > hist->max_ns ? max : hist->max_ns;
		for (int b = 0; b < HGM_HIST_BUCKETS; b++) {
			uint64_t n = atomic_load_explicit(&p->bucket[b], memory_order_relaxed);

			hist->bucket[b] += n;
			hist->count += n;
		}
	}
}
