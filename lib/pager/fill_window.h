/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fill window: how much fill of one source may be in flight, and in requests of which size. See
 * fill_window.c. It does no locking; the work queue's lock protects it.
 */
#ifndef HGM_LIB_FILL_WINDOW_H
#define HGM_LIB_FILL_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#define HGM_FILL_WINDOW_ORDERS 7  /* requests of 4 KiB << order */
#define HGM_FILL_WINDOW_LEVELS 16 /* limit of rounds of the search at the start */

/* The size of requests, and how many may be in flight. */
struct hgm_fill_window_setting {
	uint32_t order;
	uint32_t requests;
};

enum hgm_fill_window_phase {
	HGM_FILL_WINDOW_SEARCH, /* the start: each round doubles the size or the number */
	HGM_FILL_WINDOW_REST,	/* with the best setting so far */
	HGM_FILL_WINDOW_TRY,	/* with another setting */
	HGM_FILL_WINDOW_CHECK,	/* with the best one again, after another that looked better */
};

enum hgm_fill_window_trial {
	HGM_FILL_WINDOW_FEWER,
	HGM_FILL_WINDOW_SMALLER,
	HGM_FILL_WINDOW_MORE,
	HGM_FILL_WINDOW_LARGER,
	HGM_FILL_WINDOW_TRIALS,
};

struct hgm_fill_window {
	uint64_t fixed_bytes; /* set by the caller; 0: measure */
	uint32_t most;	      /* limit of requests in flight */
	bool sleeps;	      /* each request in flight occupies a worker */
	bool immediate;	      /* all answers so far have come at once */
	bool polite;	      /* a thread waits for other answers of the source */
	struct hgm_fill_window_setting now;
	struct hgm_fill_window_setting best;
	struct hgm_fill_window_setting other; /* the one that is being tried */
	enum hgm_fill_window_phase phase;

	/* The round: a measurement over whole round trips. */
	uint64_t trip;				   /* an answer to a request of this trip ends it */
	bool measuring;				   /* requests of earlier settings are answered */
	uint64_t round_ns;			   /* when it began */
	uint64_t bytes;				   /* delivered since */
	uint32_t answers;			   /* number of answers since */
	uint64_t wait_ns;			   /* sum of their answer times */
	uint64_t loop_ns;			   /* mean answer time with this setting */
	uint64_t answers_ns;			   /* average of all answer times, for deadlines */
	uint64_t least_ns[HGM_FILL_WINDOW_ORDERS]; /* the smallest recent answer time, by size */
	uint64_t least_before_ns[HGM_FILL_WINDOW_ORDERS];
	uint64_t least_since_ns;

	/* SEARCH */
	uint32_t level;
	uint32_t flat;
	uint64_t level_rate[HGM_FILL_WINDOW_LEVELS]; /* bytes per second */
	struct hgm_fill_window_setting level_setting[HGM_FILL_WINDOW_LEVELS];

	/* The other phases */
	enum hgm_fill_window_trial trial;
	uint64_t rate;		/* of the last round with the best setting */
	uint64_t smooth;	/* the same, averaged */
	uint64_t smooth_then;	/* the same when the rate last changed */
	double noise;		/* relative difference between such rounds */
	uint32_t differences;	/* number of differences that have gone into @noise */
	uint64_t tried_loop_ns; /* the mean answer time in that round */
	uint64_t tried;		/* the rate of the last round with the other setting */
	double gain;		/* how much better it was, relative: sum of all pairs */
	uint32_t pairs;
	uint64_t trial_ns; /* when the trial began */
	uint64_t due_ns[HGM_FILL_WINDOW_TRIALS];
	uint64_t pause_ns[HGM_FILL_WINDOW_TRIALS];
	bool gently; /* FEWER: by an eighth, because half was too much */
	bool boldly; /* LARGER: as many as now, because half as many gained nothing */
};

/*
 * @fixed_bytes: the size of the fill window; 0: measure. @most: limit of requests in flight.
 * @sleeps: each request occupies a worker while it is in flight.
 */
void hgm_fill_window_init(struct hgm_fill_window *w, uint64_t fixed_bytes, uint32_t most,
			  bool sleeps);

/* A fill request is being asked. Returns the trip, to be passed to hgm_fill_window_answered(). */
uint64_t hgm_fill_window_asked(const struct hgm_fill_window *w);

/* A request that was asked at @asked_ns, during @trip, has delivered @bytes. */
void hgm_fill_window_answered(struct hgm_fill_window *w, uint64_t bytes, uint64_t asked_ns,
			      uint64_t trip, uint64_t now_ns);

/* A fill request has been answered at once. */
void hgm_fill_window_immediate(struct hgm_fill_window *w);

/* Less was asked for a while than the fill window allowed, so the round measures nothing. */
void hgm_fill_window_unused(struct hgm_fill_window *w);

/* How many bytes may be in flight. */
uint64_t hgm_fill_window_bytes(const struct hgm_fill_window *w);

/* The size of one request in bytes, a power of two. */
uint64_t hgm_fill_window_chunk(const struct hgm_fill_window *w);

/* How long an answer may take before it is no longer waited for. */
uint64_t hgm_fill_window_patience_ns(const struct hgm_fill_window *w);

#endif
