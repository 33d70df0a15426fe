/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How much fill may be under way.
 *
 * More in flight than the source's bandwidth-delay product gains no throughput, and every demand
 * request queues behind it. So the window follows the product, measured as BBR does it (Cardwell et
 * al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016): the largest delivery
 * rate of the last rounds times the smallest answer time of the last ten seconds. It starts small
 * and doubles, up to three products, until three rounds in a row brought no quarter more. Then, and
 * every ten seconds, the pipe is drained and a few requests go one by one, so that fill's own queue
 * is not taken for the source's delay.
 *
 * A worker has to wake up before it asks for more. Of what arrives meanwhile the first waits for
 * all of this turn and the last not at all: so half a turn is added to the answer time.
 *
 * The answer time is that of the smallest requests. Longer ones take longer to pass; one of them is
 * passing at any time, and half of it is not there yet.
 *
 * Only sources that answer later are measured: one that answers at once has exactly one request
 * under way per worker.
 */
#include "window.h"

#define WINDOW_START_BYTES (UINT64_C(128) << 10)
#define WINDOW_MIN_BYTES   (UINT64_C(16) << 10)
#define WINDOW_MAX_BYTES   (UINT64_C(64) << 20)
#define CHUNK_MIN_BYTES	   (UINT64_C(4) << 10)
#define CHUNK_MAX_BYTES	   (UINT64_C(256) << 10)
#define DELAY_LIFE_NS	   UINT64_C(10000000000)
#define FLAT_ROUNDS	   3
#define PROBES		   4

void hgm_window_init(struct hgm_window *w, uint64_t fixed_bytes)
{
	*w = (struct hgm_window){
		.fixed_bytes = fixed_bytes,
		.bytes = fixed_bytes ? fixed_bytes : WINDOW_START_BYTES,
	};
}

void hgm_window_immediate(struct hgm_window *w)
{
	if (w->delivered_bytes || w->fixed_bytes)
		return;
	w->immediate = true;
	w->bytes = WINDOW_MAX_BYTES;
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

/* Drain the pipe: a window of one byte has one request under way at a time. */
static void begin_probe(struct hgm_window *w, uint64_t now_ns)
{
	w->probing = true;
	w->probes = 0;
	w->probe_ns = now_ns;
	w->bytes = 1;
}

/* Only requests that were asked into the empty pipe tell its delay. */
static void probe(struct hgm_window *w, uint64_t rtt_ns, uint64_t asked_ns, uint64_t now_ns)
{
	if (asked_ns < w->probe_ns)
		return;
	if (!w->probes++ || rtt_ns < w->delay_ns)
		w->delay_ns = rtt_ns;
	if (w->probes < PROBES)
		return;
	w->probing = false;
	w->probed_ns = now_ns;
	w->round_end = w->delivered_bytes;
}

void hgm_window_room(struct hgm_window *w, uint64_t now_ns)
{
	if (!w->room_ns)
		w->room_ns = now_ns;
}

void hgm_window_asked(struct hgm_window *w, uint64_t now_ns)
{
	uint64_t turn_ns = now_ns > w->room_ns ? now_ns - w->room_ns : 0;

	/* Longer is no turn: the worker had something better to do. */
	if (w->room_ns && turn_ns < w->delay_ns)
		w->turn_ns = (7 * w->turn_ns + turn_ns) / 8;
	w->room_ns = 0;
}

static uint64_t aim(const struct hgm_window *w, uint64_t bytes)
{
	/* The delay may have been found to be less since. */
	uint64_t turn_ns = w->turn_ns < w->delay_ns ? w->turn_ns : w->delay_ns;
	uint64_t loop_ns = w->delay_ns + turn_ns / 2;
	uint64_t product = (uint64_t)((double)best_rate(w) * (double)loop_ns / 1e9) +
			   (hgm_window_chunk(w) - CHUNK_MIN_BYTES) / 2;
	uint64_t want =
		product + product / 8; /* an eighth more, so that a rate that grows is seen */

	if (!w->filled) {
		want = w->bytes + bytes;
		if (w->round > 1 && want > 3 * product)
			want = 3 * product;
	}
	if (want < WINDOW_MIN_BYTES)
		want = WINDOW_MIN_BYTES;
	return want < WINDOW_MAX_BYTES ? want : WINDOW_MAX_BYTES;
}

void hgm_window_answered(struct hgm_window *w, uint64_t bytes, uint64_t asked_ns,
			 uint64_t delivered_before, uint64_t now_ns)
{
	uint64_t rtt_ns = now_ns > asked_ns ? now_ns - asked_ns : 1;
	uint64_t *rate = &w->rate[w->round % HGM_WINDOW_RATES];
	bool was_filled = w->filled;
	uint64_t sample;

	if (w->immediate) { /* not every source of this engine, as it seems */
		w->immediate = false;
		w->bytes = WINDOW_START_BYTES;
	}
	w->delivered_bytes += bytes;
	if (w->fixed_bytes)
		return;
	if (!w->delay_ns || rtt_ns < w->delay_ns)
		w->delay_ns = rtt_ns;
	if (w->probing)
		probe(w, rtt_ns, asked_ns, now_ns);
	if (w->probing)
		return;
	sample = (uint64_t)((double)(w->delivered_bytes - delivered_before) * 1e9 / (double)rtt_ns);
	*rate = sample > *rate ? sample : *rate;
	if (w->delivered_bytes >= w->round_end)
		end_round(w);
	w->bytes = aim(w, bytes);
	if (w->filled && (!was_filled || now_ns > w->probed_ns + DELAY_LIFE_NS))
		begin_probe(w, now_ns);
}

uint64_t hgm_window_chunk(const struct hgm_window *w)
{
	uint64_t chunk = CHUNK_MAX_BYTES;

	if (w->immediate)
		return chunk;
	if (!w->delivered_bytes && !w->fixed_bytes)
		return CHUNK_MIN_BYTES;
	while (chunk > CHUNK_MIN_BYTES && chunk > w->bytes / 4)
		chunk /= 2;
	return chunk;
}
