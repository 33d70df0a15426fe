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

#include "fill_window.h"

#define CHUNK_MIN_BYTES	   (UINT64_C(4) << 10)
#define CHUNK_MAX_BYTES	   (CHUNK_MIN_BYTES << (HGM_FILL_WINDOW_ORDERS - 1))
#define WINDOW_MIN_BYTES   (UINT64_C(16) << 10)
#define WINDOW_MAX_BYTES   (UINT64_C(64) << 20)
#define START_REQUESTS	   8
#define START_SLEEPS_ORDER 4
#define FEWEST_REQUESTS	   2 /* one is being answered, one is on its way */
#define FLAT_ROUNDS	   2 /* rounds with too little gain that end the search */
#define FLAT_BYTES	   (UINT64_C(512) << 10)
#define US		   UINT64_C(1000)
#define MS		   UINT64_C(1000000)

/*
 * What a round must have measured, for the search and for comparisons. A round ends early when
 * fewer or smaller requests clearly cost too much, and when it has lasted long.
 */
#define SEARCH_NS	   (1 * MS)
#define SEARCH_ANSWERS	   8
#define SEARCH_LOOP_NS	   (1 * MS)
#define ROUND_NS	   (2 * MS)
#define ROUND_ANSWERS	   16
#define ROUND_TRIPS	   2
#define CLEAR_ANSWERS	   4
#define CLEAR_LOSS	   0.85 /* of the rate */
#define ROUND_LONG_NS	   (30 * MS)
#define ROUND_LONG_ANSWERS 4

/* What decides a trial, relative to the rate. */
#define GAIN_LEAST    0.02
#define LOSS_MOST     0.01
#define DIFFERENCES   2	   /* needed to know how much rounds differ */
#define NOISE_QUIET   0.03 /* below this noise, one comparison is enough */
#define OUTLIER	      0.5  /* larger differences count as this */
#define PAIRS_MOST    12
#define TRIAL_LONG_NS (400 * MS)

/* How long until a setting is tried again. */
#define PAUSE_MIN_NS (20 * MS)
#define PAUSE_MAX_NS (500 * MS)
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

#define LEAST_LIFE_NS (10000 * MS)

#define PATIENCE_TIMES	8
#define PATIENCE_MIN_NS (20 * MS)
#define PATIENCE_MAX_NS (5000 * MS)

static uint64_t order_bytes(uint32_t order)
{
	return CHUNK_MIN_BYTES << order;
}

static uint64_t setting_bytes(struct hgm_fill_window_setting s)
{
	return s.requests * order_bytes(s.order);
}

static bool same(struct hgm_fill_window_setting a, struct hgm_fill_window_setting b)
{
	return a.order == b.order && a.requests == b.requests;
}

static uint32_t fewest(const struct hgm_fill_window *w, uint32_t order)
{
	uint64_t requests = WINDOW_MIN_BYTES / order_bytes(order);

	if (w->sleeps)
		return 1;
	return requests > FEWEST_REQUESTS ? (uint32_t)requests : FEWEST_REQUESTS;
}

static struct hgm_fill_window_setting bounded(const struct hgm_fill_window *w, uint32_t order,
					      uint32_t requests)
{
	struct hgm_fill_window_setting s = { order, requests };

	if (s.requests < fewest(w, order))
		s.requests = fewest(w, order);
	if (s.requests > w->most)
		s.requests = w->most;
	if (setting_bytes(s) > WINDOW_MAX_BYTES)
		s.requests = (uint32_t)(WINDOW_MAX_BYTES / order_bytes(order));
	return s;
}

void hgm_fill_window_init(struct hgm_fill_window *w, uint64_t fixed_bytes, uint32_t most,
			  bool sleeps)
{
	memset(w, 0, sizeof(*w));
	w->fixed_bytes = fixed_bytes;
	w->most = most;
	w->sleeps = sleeps;
	w->now = w->best =
		sleeps ? bounded(w, START_SLEEPS_ORDER, 1) : bounded(w, 0, START_REQUESTS);
}

uint64_t hgm_fill_window_bytes(const struct hgm_fill_window *w)
{
	if (w->fixed_bytes)
		return w->fixed_bytes;
	return w->immediate ? WINDOW_MAX_BYTES : setting_bytes(w->now);
}

uint64_t hgm_fill_window_chunk(const struct hgm_fill_window *w)
{
	uint64_t chunk = CHUNK_MAX_BYTES;

	if (w->immediate)
		return chunk;
	if (!w->fixed_bytes)
		return order_bytes(w->now.order);
	while (chunk > CHUNK_MIN_BYTES && chunk > w->fixed_bytes / 4)
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

void hgm_fill_window_unused(struct hgm_fill_window *w)
{
	w->trip++;
	w->measuring = false;
}

static void use(struct hgm_fill_window *w, enum hgm_fill_window_phase phase,
		struct hgm_fill_window_setting s)
{
	w->phase = phase;
	if (same(w->now, s) && w->measuring)
		return; /* the next round follows this one */
	w->now = s;
	hgm_fill_window_unused(w);
}

static void start_round(struct hgm_fill_window *w, uint64_t now_ns)
{
	w->measuring = true;
	w->round_ns = now_ns;
	w->bytes = 0;
	w->answers = 0;
	w->wait_ns = 0;
}

static bool saves(enum hgm_fill_window_trial trial)
{
	return trial == HGM_FILL_WINDOW_FEWER || trial == HGM_FILL_WINDOW_SMALLER;
}

static bool round_is_over(const struct hgm_fill_window *w, uint64_t now_ns)
{
	uint64_t ns = now_ns > w->round_ns ? now_ns - w->round_ns : 0;

	if (ns >= ROUND_LONG_NS)
		return w->answers >= ROUND_LONG_ANSWERS;
	if (w->phase == HGM_FILL_WINDOW_SEARCH)
		return ns >= SEARCH_NS && w->answers >= SEARCH_ANSWERS;
	if (w->phase == HGM_FILL_WINDOW_TRY && saves(w->trial) && w->answers >= CLEAR_ANSWERS &&
	    ns * w->answers >= w->wait_ns && !w->polite &&
	    (double)w->bytes * 1e9 < (CLEAR_LOSS - 2 * w->noise) * (double)w->rate * (double)ns)
		return true;
	return ns >= ROUND_NS && w->answers >= ROUND_ANSWERS &&
	       ns * w->answers >= w->wait_ns * ROUND_TRIPS;
}

/*
 * SEARCH
 */
static bool grow(const struct hgm_fill_window *w, struct hgm_fill_window_setting *s)
{
	struct hgm_fill_window_setting more = bounded(w, s->order, 2 * s->requests);

	/* Requests with a worker each do not delay demand, so both may grow at a time. */
	if (s->order + 1 < HGM_FILL_WINDOW_ORDERS)
		more = bounded(w, s->order + 1, s->requests + w->sleeps);

	if (same(more, *s) || w->level + 1 == HGM_FILL_WINDOW_LEVELS)
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

static void try_all(struct hgm_fill_window *w, uint64_t now_ns)
{
	w->gently = w->boldly = false;
	for (int i = 0; i < HGM_FILL_WINDOW_TRIALS; i++) {
		w->pause_ns[i] = PAUSE_MIN_NS;
		w->due_ns[i] = now_ns;
	}
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
	try_all(w, now_ns);
	use(w, HGM_FILL_WINDOW_REST, w->best);
}

/* A trial gained much, so the setting was far from the best: search for more. */
static void search_from(struct hgm_fill_window *w, struct hgm_fill_window_setting s, uint64_t rate)
{
	w->level = 0;
	w->flat = 0;
	w->level_setting[0] = s;
	w->level_rate[0] = rate;
	w->best = s;
	if (grow(w, &s))
		w->level = 1;
	use(w, HGM_FILL_WINDOW_SEARCH, s);
}

/* A round without gain counts only if all other causes are ruled out. */
static bool is_flat(const struct hgm_fill_window *w)
{
	if (w->sleeps)
		return w->now.order + 1 == HGM_FILL_WINDOW_ORDERS;
	return w->wait_ns >= w->answers * SEARCH_LOOP_NS || setting_bytes(w->now) >= FLAT_BYTES;
}

static void searched(struct hgm_fill_window *w, uint64_t rate, uint64_t now_ns)
{
	struct hgm_fill_window_setting next = w->now;
	uint64_t best = 0;

	for (uint32_t i = 0; i < w->level; i++)
		best = w->level_rate[i] > best ? w->level_rate[i] : best;
	w->level_rate[w->level] = rate;
	w->level_setting[w->level] = w->now;
	w->flat = rate < best + best / 4 ? w->flat + is_flat(w) : 0;
	/* Where much is in flight, one round is enough. */
	if (rate < best + best / 16 && setting_bytes(w->now) >= FLAT_BYTES)
		w->flat = FLAT_ROUNDS;
	if (w->flat >= FLAT_ROUNDS || !grow(w, &next)) {
		settle(w, now_ns);
		return;
	}
	w->level++;
	use(w, HGM_FILL_WINDOW_SEARCH, next);
}

/*
 * REST
 */

/* The smallest size that is worth a request at the present rate. */
static uint32_t smallest(const struct hgm_fill_window *w)
{
	uint64_t ns = w->sleeps ? SMALLEST_SLEEPS_NS : SMALLEST_NS;
	double bytes = (double)w->rate * (double)ns / 1e9;
	uint32_t order = 0;

	while (order + 1 < HGM_FILL_WINDOW_ORDERS && (double)order_bytes(order + 1) <= bytes)
		order++;
	return order;
}

/* The time that the source needs for an answer of that size, or an upper bound; 0: not known. */
static uint64_t least_ns(const struct hgm_fill_window *w, uint32_t order)
{
	uint64_t ns = 0;

	for (; !ns && order < HGM_FILL_WINDOW_ORDERS; order++) {
		uint64_t lately = w->least_ns[order], before = w->least_before_ns[order];

		ns = !lately || (before && before < lately) ? before : lately;
	}
	return ns;
}

/* A thread that waits for an answer of the source would wait behind too many others. */
static bool is_impolite(const struct hgm_fill_window *w, uint32_t order, uint64_t loop_ns)
{
	uint64_t ns = least_ns(w, order);

	return w->polite && !w->sleeps && ns && 2 * loop_ns > 2 * LOOP_POLITE * ns + ns;
}

/* So many requests are in flight that nearly all of them only wait. */
static bool is_crowded(const struct hgm_fill_window *w)
{
	uint64_t ns = least_ns(w, w->best.order);

	return w->best.requests > START_REQUESTS && ns && w->loop_ns > LOOP_MOST * ns;
}

/* Twice as many requests as the source can work on at a time. */
static uint32_t uncrowded(const struct hgm_fill_window *w)
{
	return (uint32_t)(2 * least_ns(w, w->best.order) * w->best.requests / w->loop_ns);
}

static bool neighbour(const struct hgm_fill_window *w, enum hgm_fill_window_trial trial,
		      struct hgm_fill_window_setting *s)
{
	uint32_t order = w->best.order, requests = w->best.requests, kept;

	*s = w->best;
	switch (trial) {
	case HGM_FILL_WINDOW_FEWER:
		if (is_crowded(w)) {
			*s = bounded(w, order, uncrowded(w));
			break;
		}
		*s = bounded(w, order,
			     requests - (w->gently ? (requests + 7) / 8 : (requests + 1) / 2));
		break;
	case HGM_FILL_WINDOW_SMALLER:
		if (order > smallest(w))
			*s = bounded(w, order - 1, w->sleeps ? requests : 2 * requests);
		break;
	case HGM_FILL_WINDOW_MORE:
		*s = bounded(w, order, requests + (requests + 1) / 2);
		if (!w->sleeps && s->requests > START_REQUESTS && least_ns(w, order) &&
		    w->loop_ns * s->requests > least_ns(w, order) * LOOP_MOST * requests)
			*s = w->best;
		break;
	case HGM_FILL_WINDOW_LARGER:
		if (order + 1 == HGM_FILL_WINDOW_ORDERS)
			break;
		kept = requests < START_REQUESTS ? requests : START_REQUESTS;
		if (w->sleeps || w->boldly)
			kept = requests;
		*s = bounded(w, order + 1, requests / 2 > kept ? requests / 2 : kept);
		break;
	case HGM_FILL_WINDOW_TRIALS:
		break;
	}
	return !same(*s, w->best);
}

/* When the rate changes, the results of earlier trials are no longer valid. */
static void look_for_change(struct hgm_fill_window *w, uint64_t now_ns)
{
	uint64_t differs;

	w->smooth = w->smooth ? (7 * w->smooth + w->rate) / 8 : w->rate;
	differs = w->smooth > w->smooth_then ? w->smooth - w->smooth_then
					     : w->smooth_then - w->smooth;
	if (differs <= w->smooth_then / 4)
		return;
	w->smooth_then = w->smooth;

	try_all(w, now_ns);
}

static void rest(struct hgm_fill_window *w, uint64_t now_ns)
{
	if (is_impolite(w, w->best.order, w->loop_ns) && w->best.requests > FEWEST_REQUESTS) {
		w->best = bounded(w, w->best.order, uncrowded(w));
		use(w, HGM_FILL_WINDOW_REST, w->best);
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
			use(w, HGM_FILL_WINDOW_TRY, w->other);
			return;
		}
		w->due_ns[trial] = now_ns + w->pause_ns[trial];
	}
	use(w, HGM_FILL_WINDOW_REST, w->best);
}

static void decided(struct hgm_fill_window *w, bool better, uint64_t now_ns)
{
	uint64_t *pause_ns = &w->pause_ns[w->trial];
	uint64_t cost_ns = saves(w->trial) ? now_ns - w->trial_ns : 0;
	uint64_t most_ns = PAUSE_MAX_NS;

	if (better && !saves(w->trial) && w->gain >= 0.25 * w->pairs && !w->polite) {
		search_from(w, w->other, w->rate + w->rate / 4);
		return;
	}
	if (better) {
		w->best = w->other;
		w->rate = w->tried;
		*pause_ns = PAUSE_MIN_NS;
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
	use(w, HGM_FILL_WINDOW_REST, w->best);
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
static void note_noise(struct hgm_fill_window *w, uint64_t rate)
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
	double beyond = gain / pairs - (saves(w->trial) ? -LOSS_MOST : GAIN_LEAST);

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

static void tried(struct hgm_fill_window *w, uint64_t rate, uint64_t now_ns)
{
	w->tried = rate;
	w->tried_loop_ns = w->wait_ns / w->answers;
	if (judge(w, w->gain + gain(w, w->rate), w->pairs + 1) == WORSE ||
	    (!saves(w->trial) && is_impolite(w, w->other.order, w->tried_loop_ns)))
		decided(w, false, now_ns);
	else
		use(w, HGM_FILL_WINDOW_CHECK, w->best);
}

static void checked(struct hgm_fill_window *w, uint64_t rate, uint64_t now_ns)
{
	enum verdict verdict;

	note_noise(w, rate);
	w->loop_ns = (w->loop_ns + w->wait_ns / w->answers) / 2;
	/* Take the faster round: another process may have had the CPU in the slower one. */
	w->gain += gain(w, rate > w->rate ? rate : w->rate);
	w->pairs++;
	w->rate = rate;
	verdict = judge(w, w->gain, w->pairs);
	if (verdict == UNCLEAR && w->pairs < PAIRS_MOST && now_ns - w->trial_ns < TRIAL_LONG_NS)
		use(w, HGM_FILL_WINDOW_TRY, w->other);
	else
		decided(w, verdict == BETTER, now_ns);
}

static void end_round(struct hgm_fill_window *w, uint64_t now_ns)
{
	uint64_t ns = now_ns > w->round_ns ? now_ns - w->round_ns : 1;
	uint64_t rate = (uint64_t)((double)w->bytes * 1e9 / (double)ns);

	switch (w->phase) {
	case HGM_FILL_WINDOW_SEARCH:
		searched(w, rate, now_ns);
		break;
	case HGM_FILL_WINDOW_REST:
		if (w->rate)
			note_noise(w, rate);
		w->rate = rate;
		w->loop_ns = w->wait_ns / w->answers;
		look_for_change(w, now_ns);
		rest(w, now_ns);
		break;
	case HGM_FILL_WINDOW_TRY:
		tried(w, rate, now_ns);
		break;
	case HGM_FILL_WINDOW_CHECK:
		checked(w, rate, now_ns);
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
		if (bytes == order_bytes(order) && (!w->least_ns[order] || ns < w->least_ns[order]))
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
