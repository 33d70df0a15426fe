/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The settings of a fill window: sizes and numbers of requests, and their bounds.
 */
#include "fill_window_parts.h"

#define WINDOW_MIN_BYTES (UINT64_C(16) << 10)
/* How long until a setting is tried again. */

uint64_t hgm_window_order_bytes(uint32_t order)
{
	return HGM_WINDOW_CHUNK_MIN_BYTES << order;
}

uint64_t hgm_window_setting_bytes(struct hgm_fill_window_setting s)
{
	return s.requests * hgm_window_order_bytes(s.order);
}

static uint32_t fewest(const struct hgm_fill_window *w, uint32_t order)
{
	uint64_t requests = WINDOW_MIN_BYTES / hgm_window_order_bytes(order);

	if (w->sleeps)
		return 1;
	return requests > HGM_WINDOW_FEWEST_REQUESTS ? (uint32_t)requests
						     : HGM_WINDOW_FEWEST_REQUESTS;
}

struct hgm_fill_window_setting hgm_window_bounded(const struct hgm_fill_window *w, uint32_t order,
						  uint32_t requests)
{
	struct hgm_fill_window_setting s = { order, requests };

	if (s.requests < fewest(w, order))
		s.requests = fewest(w, order);
	if (s.requests > w->most)
		s.requests = w->most;
	if (hgm_window_setting_bytes(s) > HGM_WINDOW_MAX_BYTES)
		s.requests = (uint32_t)(HGM_WINDOW_MAX_BYTES / hgm_window_order_bytes(order));
	return s;
}

void hgm_window_use(struct hgm_fill_window *w, enum hgm_fill_window_phase phase,
		    struct hgm_fill_window_setting s)
{
	w->phase = phase;
	if (hgm_window_same(w->now, s) && w->measuring)
		return; /* the next round follows this one */
	w->now = s;
	hgm_fill_window_unused(w);
}

void hgm_window_try_all(struct hgm_fill_window *w, uint64_t now_ns)
{
	w->gently = w->boldly = false;
	for (int i = 0; i < HGM_FILL_WINDOW_TRIALS; i++) {
		w->pause_ns[i] = HGM_WINDOW_PAUSE_MIN_NS;
		w->due_ns[i] = now_ns;
	}
}

/* The time that the source needs for an answer of that size, or an upper bound; 0: not known. */
uint64_t hgm_window_least_ns(const struct hgm_fill_window *w, uint32_t order)
{
	uint64_t ns = 0;

	for (; !ns && order < HGM_FILL_WINDOW_ORDERS; order++) {
		uint64_t lately = w->least_ns[order], before = w->least_before_ns[order];

		ns = !lately || (before && before < lately) ? before : lately;
	}
	return ns;
}

void hgm_fill_window_unused(struct hgm_fill_window *w)
{
	w->trip++;
	w->measuring = false;
}
