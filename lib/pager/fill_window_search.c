/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The search of a fill window at the start: each round doubles the size or the number of requests,
 * until that gains too little.
 */
#include "fill_window_parts.h"

#define FLAT_ROUNDS 2 /* rounds with too little gain that end the search */
#define FLAT_BYTES  (UINT64_C(512) << 10)
/*
 * What a round must have measured, for the search and for comparisons. A round ends early when
 * fewer or smaller requests clearly cost too much, and when it has lasted long.
 */
#define SEARCH_LOOP_NS (1 * HGM_WINDOW_MS)

/*
 * SEARCH
 */
static bool grow(const struct hgm_fill_window *w, struct hgm_fill_window_setting *s)
{
	struct hgm_fill_window_setting more = hgm_window_bounded(w, s->order, 2 * s->requests);

	/* Requests with a worker each do not delay demand, so both may grow at a time. */
	if (s->order + 1 < HGM_FILL_WINDOW_ORDERS)
		more = hgm_window_bounded(w, s->order + 1, s->requests + w->sleeps);

	if (hgm_window_same(more, *s) || w->level + 1 == HGM_FILL_WINDOW_LEVELS)
		return false;
	*s = more;
	return true;
}

/*
 * The true rate does not fall as the fill window grows. Where a measured rate falls, it and the
 * rates before it are replaced by their mean (isotonic regression).
 */
static uint64_t level_rate(const struct hgm_fill_window *w, uint32_t level)
{
	uint64_t most = 0;

	for (uint32_t from = 0; from <= level; from++) {
		uint64_t least = UINT64_MAX, sum = 0;

		for (uint32_t i = from; i <= w->level; i++) {
			sum += w->level_rate[i];
			if (i >= level && sum / (i - from + 1) < least)
				least = sum / (i - from + 1);
		}
		most = least > most ? least : most;
	}
	return most;
}

static void settle(struct hgm_fill_window *w, uint64_t now_ns)
{
	uint64_t most = level_rate(w, w->level);
	uint32_t level = 0;

	while (level_rate(w, level) < most - most / 32)
		level++;
	w->best = w->level_setting[level];
	w->rate = 0;
	w->trial =
		HGM_FILL_WINDOW_LARGER - 1; /* LARGER first: a slow moment may have ended SEARCH */
	hgm_window_try_all(w, now_ns);
	hgm_window_use(w, HGM_FILL_WINDOW_REST, w->best);
}

/* A trial gained much, so the setting was far from the best: search for more. */
void hgm_window_search_from(struct hgm_fill_window *w, struct hgm_fill_window_setting s,
			    uint64_t rate)
{
	w->level = 0;
	w->flat = 0;
	w->level_setting[0] = s;
	w->level_rate[0] = rate;
	w->best = s;
	if (grow(w, &s))
		w->level = 1;
	hgm_window_use(w, HGM_FILL_WINDOW_SEARCH, s);
}

/* A round without gain counts only if all other causes are ruled out. */
static bool is_flat(const struct hgm_fill_window *w)
{
	if (w->sleeps)
		return w->now.order + 1 == HGM_FILL_WINDOW_ORDERS;
	return w->wait_ns >= w->answers * SEARCH_LOOP_NS ||
	       hgm_window_setting_bytes(w->now) >= FLAT_BYTES;
}

void hgm_window_searched(struct hgm_fill_window *w, uint64_t rate, uint64_t now_ns)
{
	struct hgm_fill_window_setting next = w->now;
	uint64_t best = 0;

	for (uint32_t i = 0; i < w->level; i++)
		best = w->level_rate[i] > best ? w->level_rate[i] : best;
	w->level_rate[w->level] = rate;
	w->level_setting[w->level] = w->now;
	w->flat = rate < best + best / 4 ? w->flat + is_flat(w) : 0;
	/* Where much is in flight, one round is enough. */
	if (rate < best + best / 16 && hgm_window_setting_bytes(w->now) >= FLAT_BYTES)
		w->flat = FLAT_ROUNDS;
	if (w->flat >= FLAT_ROUNDS || !grow(w, &next)) {
		settle(w, now_ns);
		return;
	}
	w->level++;
	hgm_window_use(w, HGM_FILL_WINDOW_SEARCH, next);
}
