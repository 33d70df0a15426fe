/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fill window: how much fill of a source may be in flight, and in requests of which size.
 *
 * More bytes in flight than the source's bandwidth-delay product gain no throughput, and every
 * demand request queues behind them. Requests that are larger than needed to outweigh the cost per
 * request gain none either, and a demand request waits for the one that is being answered. Sources
 * differ. Over a wire, requests of any size pass at the same rate, and several round trips' worth
 * must be in flight. A server that works on one request at a time wants two large ones. A storage
 * array wants many.
 *
 * Measurements with requests of different sizes show the cost per request and the cost per byte
 * separately. No model is fitted to the figures, because a wrong model reinforces itself: a fill
 * window computed from a rate that was measured with too small a fill window shrinks further.
 * Instead, settings (size and number of requests) are compared by the rate measured with each:
 *
 *	SEARCH	Begin with eight small requests. Each round doubles their size, then their number,
 *		until rounds no longer gain a quarter. Take the first setting that comes close to
 *		the fastest.
 *	REST	From time to time try a neighbour: fewer requests; smaller ones, same total;
 *		more; larger ones. Rounds with both settings alternate until the mean gain is
 *		clearer than the difference between rounds with the same setting. Fewer or smaller
 *		is better if it is as fast, more or larger if it is faster. A setting that was not
 *		better is tried again later, each time after twice as long. Where the trial costs no
 *		throughput it is repeated at least twice a second, so a wrong decision does not
 *		last.
 *
 * While a thread waits for other answers of the source, the answer time counts too: doubling it for
 * a tenth of the rate is no gain.
 *
 * A round counts whole round trips. It begins with the first answer to a request that was asked
 * with its setting, and ends with the first answer to a request that was asked after such an
 * answer. So a source that answers in bursts is measured correctly.
 *
 * Sources that sleep in their read function are measured in the same way. Each of their requests in
 * flight occupies a worker, and these do not keep each other waiting, so the search begins with
 * larger requests.
 *
 * A source that answers at once has one request in flight per worker, and nothing is measured.
 */
#include <string.h>

#include "fill_window_parts.h"

#define CHUNK_MAX_BYTES	   (HGM_WINDOW_CHUNK_MIN_BYTES << (HGM_FILL_WINDOW_ORDERS - 1))
#define START_SLEEPS_ORDER 4
/*
 * What a round must have measured, for the search and for comparisons. A round ends early when
 * fewer or smaller requests clearly cost too much, and when it has lasted long.
 */
#define SEARCH_NS	   (1 * HGM_WINDOW_MS)
#define SEARCH_ANSWERS	   8
#define ROUND_NS	   (2 * HGM_WINDOW_MS)
#define ROUND_ANSWERS	   16
#define ROUND_TRIPS	   2
#define CLEAR_ANSWERS	   4
#define CLEAR_LOSS	   0.85 /* of the rate */
#define ROUND_LONG_NS	   (30 * HGM_WINDOW_MS)
#define ROUND_LONG_ANSWERS 4
#define LEAST_LIFE_NS	   (10000 * HGM_WINDOW_MS)
#define PATIENCE_TIMES	   8
#define PATIENCE_MIN_NS	   (20 * HGM_WINDOW_MS)
#define PATIENCE_MAX_NS	   (5000 * HGM_WINDOW_MS)

void hgm_fill_window_init(struct hgm_fill_window *w, uint64_t fixed_bytes, uint32_t most,
			  bool sleeps)
{
	memset(w, 0, sizeof(*w));
	w->fixed_bytes = fixed_bytes;
	w->most = most;
	w->sleeps = sleeps;
	w->now = w->best = sleeps ? hgm_window_bounded(w, START_SLEEPS_ORDER, 1)
				  : hgm_window_bounded(w, 0, HGM_WINDOW_START_REQUESTS);
}

uint64_t hgm_fill_window_bytes(const struct hgm_fill_window *w)
{
	if (w->fixed_bytes)
		return w->fixed_bytes;
	return w->immediate ? HGM_WINDOW_MAX_BYTES : hgm_window_setting_bytes(w->now);
}

uint64_t hgm_fill_window_chunk(const struct hgm_fill_window *w)
{
	uint64_t chunk = CHUNK_MAX_BYTES;

	if (w->immediate)
		return chunk;
	if (!w->fixed_bytes)
		return hgm_window_order_bytes(w->now.order);
	while (chunk > HGM_WINDOW_CHUNK_MIN_BYTES && chunk > w->fixed_bytes / 4)
		chunk /= 2;
	return chunk;
}

uint64_t hgm_fill_window_patience_ns(const struct hgm_fill_window *w)
{
	uint64_t ns = w->answers_ns * PATIENCE_TIMES;

	if (ns < PATIENCE_MIN_NS)
		return PATIENCE_MIN_NS;
	return ns < PATIENCE_MAX_NS ? ns : PATIENCE_MAX_NS;
}

void hgm_fill_window_immediate(struct hgm_fill_window *w)
{
	if (!w->answers_ns)
		w->immediate = true;
}

uint64_t hgm_fill_window_asked(const struct hgm_fill_window *w)
{
	return w->trip;
}

static void start_round(struct hgm_fill_window *w, uint64_t now_ns)
{
	w->measuring = true;
	w->round_ns = now_ns;
	w->bytes = 0;
	w->answers = 0;
	w->wait_ns = 0;
}

static bool round_is_over(const struct hgm_fill_window *w, uint64_t now_ns)
{
	uint64_t ns = now_ns > w->round_ns ? now_ns - w->round_ns : 0;

	if (ns >= ROUND_LONG_NS)
		return w->answers >= ROUND_LONG_ANSWERS;
	if (w->phase == HGM_FILL_WINDOW_SEARCH)
		return ns >= SEARCH_NS && w->answers >= SEARCH_ANSWERS;
	if (w->phase == HGM_FILL_WINDOW_TRY && hgm_window_saves(w->trial) &&
	    w->answers >= CLEAR_ANSWERS && ns * w->answers >= w->wait_ns && !w->polite &&
	    (double)w->bytes * 1e9 < (CLEAR_LOSS - 2 * w->noise) * (double)w->rate * (double)ns)
		return true;
	return ns >= ROUND_NS && w->answers >= ROUND_ANSWERS &&
	       ns * w->answers >= w->wait_ns * ROUND_TRIPS;
}

static void end_round(struct hgm_fill_window *w, uint64_t now_ns)
{
	uint64_t ns = now_ns > w->round_ns ? now_ns - w->round_ns : 1;
	uint64_t rate = (uint64_t)((double)w->bytes * 1e9 / (double)ns);

	switch (w->phase) {
	case HGM_FILL_WINDOW_SEARCH:
		hgm_window_searched(w, rate, now_ns);
		break;
	case HGM_FILL_WINDOW_REST:
		if (w->rate)
			hgm_window_note_noise(w, rate);
		w->rate = rate;
		w->loop_ns = w->wait_ns / w->answers;
		hgm_window_look_for_change(w, now_ns);
		hgm_window_rest(w, now_ns);
		break;
	case HGM_FILL_WINDOW_TRY:
		hgm_window_tried(w, rate, now_ns);
		break;
	case HGM_FILL_WINDOW_CHECK:
		hgm_window_checked(w, rate, now_ns);
		break;
	}
}

static void note_answer_time(struct hgm_fill_window *w, uint64_t bytes, uint64_t ns,
			     uint64_t now_ns)
{
	uint64_t most_ns = 2 * hgm_fill_window_patience_ns(w);
	uint64_t counts_ns = ns < most_ns ? ns : most_ns; /* a lost answer is no measure */

	w->answers_ns = w->answers_ns ? (7 * w->answers_ns + counts_ns) / 8 : ns;
	if (!w->answers_ns)
		w->answers_ns = 1;
	if (now_ns > w->least_since_ns + LEAST_LIFE_NS) {
		memcpy(w->least_before_ns, w->least_ns, sizeof(w->least_ns));
		memset(w->least_ns, 0, sizeof(w->least_ns));
		w->least_since_ns = now_ns;
	}
	for (uint32_t order = 0; order < HGM_FILL_WINDOW_ORDERS; order++)
		if (bytes == hgm_window_order_bytes(order) &&
		    (!w->least_ns[order] || ns < w->least_ns[order]))
			w->least_ns[order] = ns;
}

void hgm_fill_window_answered(struct hgm_fill_window *w, uint64_t bytes, uint64_t asked_ns,
			      uint64_t trip, uint64_t now_ns)
{
	uint64_t ns = now_ns > asked_ns ? now_ns - asked_ns : 1;
	bool new_trip = trip == w->trip;

	if (w->immediate) { /* not always, after all */
		w->immediate = false;
		hgm_fill_window_unused(w);
		new_trip = false;
	}
	note_answer_time(w, bytes, ns, now_ns);
	if (w->fixed_bytes)
		return;
	w->trip += new_trip;
	if (w->measuring) {
		w->bytes += bytes;
		w->answers++;
		w->wait_ns += ns;
	}
	if (!new_trip)
		return;
	if (!w->measuring) {
		start_round(w, now_ns);
	} else if (round_is_over(w, now_ns)) {
		end_round(w, now_ns);
		if (w->measuring)
			start_round(w, now_ns);
	}
}
