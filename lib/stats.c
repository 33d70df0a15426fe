/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counters and latency histograms.
 */
#include <errno.h>
#include <string.h>

#include "engine.h"
#include "error.h"
#include "opts.h"
#include "stats.h"

#define FIRST_COUNTER offsetof(struct hgm_stats, faults)

_Static_assert(sizeof(struct hgm_stats) == FIRST_COUNTER + HGM_STAT_COUNT * sizeof(uint64_t),
	       "enum hgm_stat follows struct hgm_stats");

static _Thread_local struct {
	struct hgm *h; /* the engine that this fault thread belongs to */
	struct hgm_stat_shard *owned;
	unsigned int shared; /* shard to use elsewhere; 0 before the first use */
} mine;

void hgm_stat_own(struct hgm *h, unsigned int nth)
{
	mine.h = h;
	mine.owned = &h->shards[nth];
}

static struct hgm_stat_shard *shared_shard(struct hgm *h)
{
	static _Atomic unsigned int threads;

	if (!mine.shared)
		mine.shared = HGM_STAT_SHARDS_OWNED +
			      atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) %
				      HGM_STAT_SHARDS_SHARED;
	return &h->shards[mine.shared];
}

static struct hgm_stat_shard *shard(struct hgm *h)
{
	return mine.h == h ? mine.owned : shared_shard(h);
}

/* Add to a counter in the thread's shard of @h. */
static void count(const struct hgm *h, _Atomic uint64_t *counter, uint64_t n)
{
	if (mine.h == h)
		atomic_store_explicit(counter,
				      atomic_load_explicit(counter, memory_order_relaxed) + n,
				      memory_order_relaxed);
	else
		atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

void hgm_stat_add(struct hgm *h, enum hgm_stat stat, uint64_t n)
{
	if (n)
		count(h, &shard(h)->counter[stat], n);
}

void hgm_stat_phase(struct hgm *h, enum hgm_phase phase, uint64_t ns)
{
	struct hgm_phase_counts *p = &shard(h)->phase[phase];
	unsigned int bits = ns ? 64 - (unsigned int)__builtin_clzll(ns) : 0;
	unsigned int bucket = bits <= 8 ? 0 : bits - 8;
	uint64_t max = atomic_load_explicit(&p->max_ns, memory_order_relaxed);

	if (bucket >= HGM_HIST_BUCKETS)
		bucket = HGM_HIST_BUCKETS - 1;
	count(h, &p->bucket[bucket], 1);
	count(h, &p->sum_ns, ns);
	while (ns > max &&
	       !atomic_compare_exchange_weak_explicit(&p->max_ns, &max, ns, memory_order_relaxed,
						      memory_order_relaxed))
		;
}

/* The next shard that a thread counts in. */
static unsigned int behind(const struct hgm *h, unsigned int shard)
{
	return ++shard == h->stripes ? HGM_STAT_SHARDS_OWNED : shard;
}

uint64_t hgm_stat_read(const struct hgm *h, enum hgm_stat stat)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < HGM_STAT_SHARDS; i = behind(h, i))
		sum += atomic_load_explicit(&h->shards[i].counter[stat], memory_order_relaxed);
	return sum;
}

static void read_phase(const struct hgm *h, enum hgm_phase phase, struct hgm_hist *hist)
{
	for (unsigned int i = 0; i < HGM_STAT_SHARDS; i = behind(h, i)) {
		const struct hgm_phase_counts *p = &h->shards[i].phase[phase];
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

int hgm_get_stats(const struct hgm *h, struct hgm_stats *stats)
{
	struct hgm_stats own = { .size = sizeof(own) };

	if (!h)
		return hgm_fail(-EINVAL, "hgm_get_stats: the engine is NULL");
	read_phase(h, HGM_PHASE_QUEUED, &own.queued);
	read_phase(h, HGM_PHASE_SOURCE, &own.source);
	read_phase(h, HGM_PHASE_INSTALL, &own.install);
	read_phase(h, HGM_PHASE_PROTECT, &own.protect);
	for (int i = 0; i < HGM_STAT_COUNT; i++) {
		uint64_t sum = hgm_stat_read(h, (enum hgm_stat)i);

		memcpy((char *)&own + FIRST_COUNTER + (size_t)i * sizeof(sum), &sum, sizeof(sum));
	}
	return hgm_opts_out(stats, &own, sizeof(own), HGM_STATS_FIRST_SIZE, "hgm_get_stats");
}

uint64_t hgm_hist_quantile(const struct hgm_hist *hist, unsigned int permille)
{
	uint64_t below = 0;
	uint64_t rank;

	if (!hist || !hist->count)
		return 0;
	if (permille >= 1000)
		return hist->max_ns;
	rank = hist->count * permille / 1000;
	for (unsigned int b = 0; b < HGM_HIST_BUCKETS; b++) {
		uint64_t n = hist->bucket[b];

		if (n && rank < below + n) {
			uint64_t low = b ? UINT64_C(1) << (b + 7) : 0;
			uint64_t high = UINT64_C(1) << (b + 8);
			double part = ((double)(rank - below) + 0.5) / (double)n;
			uint64_t ns = low + (uint64_t)((double)(high - low) * part);

			return ns < hist->max_ns ? ns : hist->max_ns;
		}
		below += n;
	}
	return hist->max_ns;
}
