/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the fill window share.
 */
#ifndef HGM_LIB_FILL_WINDOW_PARTS_H
#define HGM_LIB_FILL_WINDOW_PARTS_H

#include "fill_window.h"

#define HGM_WINDOW_MS		   UINT64_C(1000000)
#define HGM_WINDOW_CHUNK_MIN_BYTES (UINT64_C(4) << 10)
#define HGM_WINDOW_MAX_BYTES	   (UINT64_C(64) << 20)
#define HGM_WINDOW_START_REQUESTS  8
#define HGM_WINDOW_FEWEST_REQUESTS 2 /* one is being answered, one is on its way */
#define HGM_WINDOW_PAUSE_MIN_NS	   (20 * HGM_WINDOW_MS) /* until a setting is tried again */

static inline bool hgm_window_same(struct hgm_fill_window_setting a,
				   struct hgm_fill_window_setting b)
{
	return a.order == b.order && a.requests == b.requests;
}

static inline bool hgm_window_saves(enum hgm_fill_window_trial trial)
{
	return trial == HGM_FILL_WINDOW_FEWER || trial == HGM_FILL_WINDOW_SMALLER;
}

/* Bytes of a request of that order; of all requests of a setting that are in flight. */
uint64_t hgm_window_order_bytes(uint32_t order);
uint64_t hgm_window_setting_bytes(struct hgm_fill_window_setting s);

/* The setting closest to @order and @requests that is allowed. */
struct hgm_fill_window_setting hgm_window_bounded(const struct hgm_fill_window *w, uint32_t order,
						  uint32_t requests);

/* Go on with a setting, in a phase. */
void hgm_window_use(struct hgm_fill_window *w, enum hgm_fill_window_phase phase,
		    struct hgm_fill_window_setting s);

/* All other settings may be tried now. */
void hgm_window_try_all(struct hgm_fill_window *w, uint64_t now_ns);

/* The time that the source needs for an answer of that size, or an upper bound; 0: not known. */
uint64_t hgm_window_least_ns(const struct hgm_fill_window *w, uint32_t order);

/*
 * fill_window_search.c: a trial gained much, so the setting was far from the best: search for more.
 */
void hgm_window_search_from(struct hgm_fill_window *w, struct hgm_fill_window_setting s,
			    uint64_t rate);

/* A round of the search has ended. */
void hgm_window_searched(struct hgm_fill_window *w, uint64_t rate, uint64_t now_ns);

/* fill_window_trial.c: when the rate changes, the results of earlier trials are no longer valid. */
void hgm_window_look_for_change(struct hgm_fill_window *w, uint64_t now_ns);

/* A round with the best setting has ended: go on, or try another one. */
void hgm_window_rest(struct hgm_fill_window *w, uint64_t now_ns);

/*
 * Update the median difference between two rounds with the same setting. The median is used because
 * another process sometimes has the CPU for a whole round.
 */
void hgm_window_note_noise(struct hgm_fill_window *w, uint64_t rate);

/* A round with another setting has ended; one with the best setting again, after it. */
void hgm_window_tried(struct hgm_fill_window *w, uint64_t rate, uint64_t now_ns);
void hgm_window_checked(struct hgm_fill_window *w, uint64_t rate, uint64_t now_ns);

#endif
