/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trials of a fill window: which other setting to try next, and whether it is better.
 */
#include "fill_window_parts.h"

#define US UINT64_C(1000)
/* What decides a trial, relative to the rate. */
#define GAIN_LEAST    0.02
#define LOSS_MOST     0.01
#define DIFFERENCES   2	   /* needed to know how much rounds differ */
#define NOISE_QUIET   0.03 /* below this noise, one comparison is enough */
#define OUTLIER	      0.5  /* larger differences count as this */
#define PAIRS_MOST    12
#define TRIAL_LONG_NS (400 * HGM_WINDOW_MS)
/* How long until a setting is tried again. */
#define PAUSE_MAX_NS (500 * HGM_WINDOW_MS)
/* Where a trial costs throughput: multiples of the time that it took, at first and later. */
#define PAUSE_MIN_TIMES 32
#define PAUSE_MAX_TIMES 64
/*
 * Requests that are smaller than what passes in this time only cost CPU time. A request that has a
 * worker of its own delays only the threads that wait for its pages.
 */
#define SMALLEST_NS	   (25 * US)
#define SMALLEST_SLEEPS_NS (1000 * US)
/*
 * Fill that shares its source with other clients is faster if it has more in flight than they have.
 * The same is true of the other clients. So an answer must not take more than this many times as
 * long as the source needs for one request.
 */
#define LOOP_MOST   4
#define LOOP_POLITE UINT64_C(2) /* and a half, while a thread waits */

/*
 * REST
 */

/* The smallest size that is worth a request at the present rate. */
static uint32_t smallest(const struct hgm_fill_window *w)
{
	uint64_t ns = w->sleeps ? SMALLEST_SLEEPS_NS : SMALLEST_NS;
	double bytes = (double)w->rate * (double)ns / 1e9;
	uint32_t order = 0;

	while (order + 1 < HGM_FILL_WINDOW_ORDERS &&
	       (double)hgm_window_order_bytes(order + 1) <= bytes)
		order++;
	return order;
}

/* A thread that waits for an answer of the source would wait behind too many others. */
static bool is_impolite(const struct hgm_fill_window *w, uint32_t order, uint64_t loop_ns)
{
	uint64_t ns = hgm_window_least_ns(w, order);

	return w->polite && !w->sleeps && ns && 2 * loop_ns > 2 * LOOP_POLITE * ns + ns;
}

/* So many requests are in flight that nearly all of them only wait. */
static bool is_crowded(const struct hgm_fill_window *w)
{
	uint64_t ns = hgm_window_least_ns(w, w->best.order);

	return w->best.requests > HGM_WINDOW_START_REQUESTS && ns && w->loop_ns > LOOP_MOST * ns;
}

/* Twice as many requests as the source can work on at a time. */
static uint32_t uncrowded(const struct hgm_fill_window *w)
{
	return (uint32_t)(2 * hgm_window_least_ns(w, w->best.order) * w->best.requests /
			  w->loop_ns);
}

static bool neighbour(const struct hgm_fill_window *w, enum hgm_fill_window_trial trial,
		      struct hgm_fill_window_setting *s)
{
	uint32_t order = w->best.order, requests = w->best.requests, kept;

	*s = w->best;
	switch (trial) {
	case HGM_FILL_WINDOW_FEWER:
		if (is_crowded(w)) {
			*s = hgm_window_bounded(w, order, uncrowded(w));
			break;
		}
		*s = hgm_window_bounded(
			w, order, requests - (w->gently ? (requests + 7) / 8 : (requests + 1) / 2));
		break;
	case HGM_FILL_WINDOW_SMALLER:
		if (order > smallest(w))
			*s = hgm_window_bounded(w, order - 1, w->sleeps ? requests : 2 * requests);
		break;
	case HGM_FILL_WINDOW_MORE:
		*s = hgm_window_bounded(w, order, requests + (requests + 1) / 2);
		if (!w->sleeps && s->requests > HGM_WINDOW_START_REQUESTS &&
		    hgm_window_least_ns(w, order) &&
		    w->loop_ns * s->requests > hgm_window_least_ns(w, order) * LOOP_MOST * requests)
			*s = w->best;
		break;
	case HGM_FILL_WINDOW_LARGER:
		if (order + 1 == HGM_FILL_WINDOW_ORDERS)
			break;
		kept = requests < HGM_WINDOW_START_REQUESTS ? requests : HGM_WINDOW_START_REQUESTS;
		if (w->sleeps || w->boldly)
			kept = requests;
		*s = hgm_window_bounded(w, order + 1, requests / 2 > kept ? requests / 2 : kept);
		break;
	case HGM_FILL_WINDOW_TRIALS:
		break;
	}
	return !hgm_window_same(*s, w->best);
}

/* When the rate changes, the results of earlier trials are no longer valid. */
void hgm_window_look_for_change(struct hgm_fill_window *w, uint64_t now_ns)
{
	uint64_t differs;

	w->smooth = w->smooth ? (7 * w->smooth + w->rate) / 8 : w->rate;
	differs = w->smooth > w->smooth_then ? w->smooth - w->smooth_then
					     : w->smooth_then - w->smooth;
	if (differs <= w->smooth_then / 4)
		return;
	w->smooth_then = w->smooth;

	hgm_window_try_all(w, now_ns);
}

void hgm_window_rest(struct hgm_fill_window *w, uint64_t now_ns)
{
	if (is_impolite(w, w->best.order, w->loop_ns) &&
	    w->best.requests > HGM_WINDOW_FEWEST_REQUESTS) {
		w->best = hgm_window_bounded(w, w->best.order, uncrowded(w));
		hgm_window_use(w, HGM_FILL_WINDOW_REST, w->best);
		return;
	}

	if (is_crowded(w))
		w->trial = HGM_FILL_WINDOW_TRIALS - 1; /* FEWER is next */
	for (int i = 0; i < HGM_FILL_WINDOW_TRIALS && w->differences >= DIFFERENCES; i++) {
		enum hgm_fill_window_trial trial =
			(w->trial + 1 + (unsigned int)i) % HGM_FILL_WINDOW_TRIALS;

		if (now_ns < w->due_ns[trial])
			continue;
		if (neighbour(w, trial, &w->other)) {
			w->trial = trial;
			w->trial_ns = now_ns;
			w->gain = 0;
			w->pairs = 0;
			hgm_window_use(w, HGM_FILL_WINDOW_TRY, w->other);
			return;
		}
		w->due_ns[trial] = now_ns + w->pause_ns[trial];
	}
	hgm_window_use(w, HGM_FILL_WINDOW_REST, w->best);
}

static void decided(struct hgm_fill_window *w, bool better, uint64_t now_ns)
{
	uint64_t *pause_ns = &w->pause_ns[w->trial];
	uint64_t cost_ns = hgm_window_saves(w->trial) ? now_ns - w->trial_ns : 0;
	uint64_t most_ns = PAUSE_MAX_NS;

	if (better && !hgm_window_saves(w->trial) && w->gain >= 0.25 * w->pairs && !w->polite) {
		hgm_window_search_from(w, w->other, w->rate + w->rate / 4);
		return;
	}
	if (better) {
		w->best = w->other;
		w->rate = w->tried;
		*pause_ns = HGM_WINDOW_PAUSE_MIN_NS;
		w->due_ns[w->trial] = now_ns;
		w->trial = (w->trial + HGM_FILL_WINDOW_TRIALS - 1) %
			   HGM_FILL_WINDOW_TRIALS; /* again */
	} else if (w->trial == HGM_FILL_WINDOW_FEWER && !w->gently) {
		w->gently = true;
		w->trial = (w->trial + HGM_FILL_WINDOW_TRIALS - 1) % HGM_FILL_WINDOW_TRIALS;
	} else if (w->trial == HGM_FILL_WINDOW_LARGER && !w->boldly && !w->sleeps) {
		w->boldly = true;
		w->trial = (w->trial + HGM_FILL_WINDOW_TRIALS - 1) % HGM_FILL_WINDOW_TRIALS;
	} else {
		if (w->trial == HGM_FILL_WINDOW_FEWER)
			w->gently = false;
		if (w->trial == HGM_FILL_WINDOW_LARGER)
			w->boldly = false;

		if (*pause_ns < PAUSE_MIN_TIMES * cost_ns)
			*pause_ns = PAUSE_MIN_TIMES * cost_ns;
		if (most_ns < PAUSE_MAX_TIMES * cost_ns)
			most_ns = PAUSE_MAX_TIMES * cost_ns;
		w->due_ns[w->trial] = now_ns + *pause_ns;
		*pause_ns = *pause_ns * 2 < most_ns ? *pause_ns * 2 : most_ns;
	}
	hgm_window_use(w, HGM_FILL_WINDOW_REST, w->best);
}

static double relative(uint64_t rate, uint64_t to)
{
	return ((double)rate - (double)to) / (double)(to + 1);
}

static double clamped(double x)
{
	return x > OUTLIER ? OUTLIER : x < -OUTLIER ? -OUTLIER : x;
}

/*
 * Update the median difference between two rounds with the same setting. The median is used because
 * another process sometimes has the CPU for a whole round.
 */
void hgm_window_note_noise(struct hgm_fill_window *w, uint64_t rate)
{
	double differs = relative(rate, w->rate);

	differs = clamped(differs < 0 ? -differs : differs);
	if (!w->differences++)
		w->noise = differs;
	else if (differs > w->noise)
		w->noise = w->noise * 1.3 + 0.001;
	else
		w->noise /= 1.3;
	w->noise = clamped(w->noise);
}

enum verdict {
	WORSE,
	UNCLEAR,
	BETTER,
};

/* Judge the mean of some comparisons, each of which may be off by as much as rounds differ. */
static enum verdict judge(const struct hgm_fill_window *w, double gain, uint32_t pairs)
{
	double beyond = gain / pairs - (hgm_window_saves(w->trial) ? -LOSS_MOST : GAIN_LEAST);

	if (beyond * beyond * pairs < w->noise * w->noise)
		return UNCLEAR;
	if (beyond > 0 && pairs == 1 && w->noise > NOISE_QUIET)
		return UNCLEAR;
	return beyond < 0 ? WORSE : BETTER;
}

/*
 * How much better the other setting is: by its rate and, if threads queue behind fill, by its
 * answer time, which counts a quarter as much.
 */
static double gain(const struct hgm_fill_window *w, uint64_t rate)
{
	double faster = clamped(relative(w->tried, rate));
	double longer = (double)w->tried_loop_ns - (double)w->loop_ns;

	if (!w->polite || w->sleeps)
		return faster;
	/* A good approximation of the logarithm of the quotient. */
	return faster - 2 * longer / (double)(w->tried_loop_ns + w->loop_ns + 1) / 4;
}

void hgm_window_tried(struct hgm_fill_window *w, uint64_t rate, uint64_t now_ns)
{
	w->tried = rate;
	w->tried_loop_ns = w->wait_ns / w->answers;
	if (judge(w, w->gain + gain(w, w->rate), w->pairs + 1) == WORSE ||
	    (!hgm_window_saves(w->trial) && is_impolite(w, w->other.order, w->tried_loop_ns)))
		decided(w, false, now_ns);
	else
		hgm_window_use(w, HGM_FILL_WINDOW_CHECK, w->best);
}

void hgm_window_checked(struct hgm_fill_window *w, uint64_t rate, uint64_t now_ns)
{
	enum verdict verdict;

	hgm_window_note_noise(w, rate);
	w->loop_ns = (w->loop_ns + w->wait_ns / w->answers) / 2;
	/* Take the faster round: another process may have had the CPU in the slower one. */
	w->gain += gain(w, rate > w->rate ? rate : w->rate);
	w->pairs++;
	w->rate = rate;
	verdict = judge(w, w->gain, w->pairs);
	if (verdict == UNCLEAR && w->pairs < PAIRS_MOST && now_ns - w->trial_ns < TRIAL_LONG_NS)
		hgm_window_use(w, HGM_FILL_WINDOW_TRY, w->other);
	else
		decided(w, verdict == BETTER, now_ns);
}
