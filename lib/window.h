/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How much fill may be under way: see window.c. No locking; the work queue's lock protects it.
 */
#ifndef HGM_LIB_WINDOW_H
#define HGM_LIB_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#define HGM_WINDOW_RATES 8

struct hgm_window {
	uint64_t fixed_bytes; /* the caller's wish, 0 to measure */
	uint64_t bytes;
	uint64_t delivered_bytes;
	uint64_t rate[HGM_WINDOW_RATES]; /* bytes per second: the best of each of the last rounds */
	unsigned int round;
	uint64_t round_end; /* delivered_bytes at which the round ends */
	uint64_t best_rate; /* when the pipe was last found to be filling */
	unsigned int flat_rounds;
	bool filled;
	bool immediate;	   /* answers have come at once so far */
	uint64_t delay_ns; /* the smallest answer time seen lately */
	uint64_t room_ns;  /* since when there has been room for more, unless 0 */
	uint64_t turn_ns;  /* how long room stays empty before a worker fills it, on average */
	bool probing;	   /* the pipe is being drained, to see the delay without a queue */
	unsigned int probes;
	uint64_t probe_ns;  /* when it began */
	uint64_t probed_ns; /* when the last one ended */
};

void hgm_window_init(struct hgm_window *w, uint64_t fixed_bytes);

/*
 * A fill request of @bytes, asked at @asked_ns when @delivered_before had arrived, has been
 * answered.
 */
void hgm_window_answered(struct hgm_window *w, uint64_t bytes, uint64_t asked_ns,
			 uint64_t delivered_before, uint64_t now_ns);

/* There is room for another request now; and it has been asked for. */
void hgm_window_room(struct hgm_window *w, uint64_t now_ns);
void hgm_window_asked(struct hgm_window *w, uint64_t now_ns);

/* A fill request has been answered at once. */
void hgm_window_immediate(struct hgm_window *w);

/* How long one request should be, a power of two of bytes. */
uint64_t hgm_window_chunk(const struct hgm_window *w);

#endif
