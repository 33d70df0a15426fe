/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How much fill may be under way.
 *
 * More in flight than the source's bandwidth-delay product gains no throughput, and every demand
 * request queues behind it. So the window follows the product, measured as BBR does it (Cardwell et
 * al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016): the largest delivery
 * rate of the last rounds times the smallest answer time of the last ten seconds. It starts small
 * and doubles until three rounds in a row brought no quarter more.
 *
 * Only sources that answer later are measured: one that answers at once has exactly one request
 * under way per worker.
 */
#include "window.h"

#define WINDOW_START_BYTES (UINT64_C(512) << 10)
#define WINDOW_MIN_BYTES   (UINT64_C(32) << 10)
#define WINDOW_MAX_BYTES   (UINT64_C(64) << 20)
#define CHUNK_MIN_BYTES	   (UINT64_C(16) << 10)
#define CHUNK_MAX_BYTES	   (UINT64_C(256) << 10)
#define RTT_LIFE_NS	   UINT64_C(10000000000)
#define FLAT_ROUNDS	   3

void hgm_window_init(struct hgm_window *w, uint64_t fixed_bytes)
{
	*w = (struct hgm_window){
		.fixed_bytes = fixed_bytes,
		.bytes = fixed_bytes ? fixed_bytes : WINDOW_START_BYTES,
	};
}

static uint64_t best_rate(const struct hgm_window *w)
{
	uint64_t best = 0;

	for (unsigned int i = 0; i < HGM_WINDOW_RATES; i++)
		best = w->rate[i] > best ? w->rate[i] : best;
	return best;
}

static void end_round(struct hgm_window *w)
{
	uint64_t rate = best_rate(w);

	if (!w->filled && rate < w->best_rate + w->best_rate / 4) {
		w->filled = ++w->flat_rounds >= FLAT_ROUNDS;
	} else {
		w->flat_rounds = 0;
		w->best_rate = rate;
	}
	w->round++;
	w->rate[w->round % HGM_WINDOW_RATES] = 0;
	w->round_end = w->delivered_bytes + w->bytes;
}

void hgm_window_answered(struct hgm_window *w, uint64_t bytes, uint64_t asked_ns,
			 uint64_t delivered_before, uint64_t now_ns)
{
	uint64_t rtt = now_ns > asked_ns ? now_ns - asked_ns : 1;
	uint64_t *rate = &w->rate[w->round % HGM_WINDOW_RATES];
	uint64_t sample, product;

	w->delivered_bytes += bytes;
	if (!w->min_rtt_ns || rtt <= w->min_rtt_ns || now_ns - w->min_rtt_seen_ns > RTT_LIFE_NS) {
		w->min_rtt_ns = rtt;
		w->min_rtt_seen_ns = now_ns;
	}
	sample = (uint64_t)((double)(w->delivered_bytes - delivered_before) * 1e9 / (double)rtt);
	*rate = sample > *rate ? sample : *rate;
	if (w->delivered_bytes >= w->round_end)
		end_round(w);
	if (w->fixed_bytes)
		return;
	product = (uint64_t)((double)best_rate(w) * (double)w->min_rtt_ns / 1e9);
	if (!w->filled)
		w->bytes += bytes;
	else /* a quarter more, so that a rate that has grown can be seen */
		w->bytes = product + product / 4;
	if (w->bytes < WINDOW_MIN_BYTES)
		w->bytes = WINDOW_MIN_BYTES;
	if (w->bytes > WINDOW_MAX_BYTES)
		w->bytes = WINDOW_MAX_BYTES;
}

uint64_t hgm_window_chunk(const struct hgm_window *w)
{
	uint64_t chunk = CHUNK_MAX_BYTES;

	if (!w->delivered_bytes && !w->fixed_bytes)
		return chunk;
	while (chunk > CHUNK_MIN_BYTES && chunk > w->bytes / 4)
		chunk /= 2;
	return chunk;
}
