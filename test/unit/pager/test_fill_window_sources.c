/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fill window with simulated sources of many kinds, in virtual time: after half a second of it,
 * the rate must be within 5 % of that of the best of all fixed settings.
 */
#include <stdbool.h>
#include <string.h>

#include "pager/fill_window.h"
#include "random.h"
#include "test.h"

#define KIB	 UINT64_C(1024)
#define MIB	 (KIB * 1024)
#define US	 UINT64_C(1000)
#define MS	 (US * 1000)
#define SEC	 (MS * 1000)
#define SLOTS	 512 /* number of fill requests that the engine has */
#define SERVERS	 64
#define FOREVER	 UINT64_MAX
#define RETRY_NS MS
#define WORKERS	 3
#define BEGIN_NS (SEC / 2)
#define END_NS	 (3 * SEC / 2)
#define CLOSE	 0.95
#define SEED	 1 /* always the same, so that random events repeat in each run */

/*
 * A request travels for half of @rtt_ns, and waits for one of @servers, which takes @each_ns and
 * the time of its bytes at @server_rate. It then passes a wire of @wire_rate in order, and travels
 * back.
 */
struct kind {
	const char *name;
	unsigned int servers;
	uint64_t each_ns;
	double server_rate; /* bytes per second; 0: none; likewise @wire_rate */
	double wire_rate;
	uint64_t rtt_ns;
	uint64_t jitter_ns;  /* maximum extra time of the way back; answers overtake */
	unsigned int losses; /* of 1000 requests, that fail after @lost_ns and are retried */
	uint64_t lost_ns;
	bool slow_start;      /* the wire begins at 1/100 of its rate, and doubles every 50 ms */
	unsigned int workers; /* the source sleeps: maximum requests at a time */
	double limit_rate;    /* bytes per second on average, after a burst */
	uint64_t burst_bytes;
	uint64_t turn_ns; /* time for a worker to wake up and ask */
};

struct flight {
	uint64_t bytes;
	uint64_t asked_ns;
	uint64_t trip;
	uint64_t comes_ns;
	bool fails;
	bool again; /* the window does not count it while it waits for the retry */
};

struct sim {
	const struct kind *kind;
	struct random random;
	struct hgm_fill_window window;
	uint64_t fixed_chunk; /* 0: as the window says */
	uint64_t fixed_bytes;
	uint64_t now_ns;
	uint64_t room_ns; /* when room appeared: a worker has been waking up since then */
	double server_free[SERVERS];
	double wire_free;
	double tokens; /* bytes that may pass regardless of the limit */
	double tokens_ns;
	uint64_t inflight;
	uint64_t delivered;
	unsigned int count;
	struct flight flight[SLOTS];
};

static double later(double a, double b)
{
	return a > b ? a : b;
}

static double wire_rate(const struct kind *k, double at_ns)
{
	double rate = k->wire_rate / 100;

	if (!k->slow_start)
		return k->wire_rate;
	for (double t = 50e6; t < at_ns && rate < k->wire_rate; t += 50e6)
		rate *= 2;
	return rate < k->wire_rate ? rate : k->wire_rate;
}

/* A token bucket: returns when @bytes pass that could pass at @at without the limit. */
static double limit(struct sim *s, double at, double bytes)
{
	const struct kind *k = s->kind;

	at = later(at, s->tokens_ns);
	s->tokens += (at - s->tokens_ns) * k->limit_rate / 1e9;
	if (s->tokens > (double)k->burst_bytes)
		s->tokens = (double)k->burst_bytes;
	s->tokens_ns = at;
	s->tokens -= bytes;
	if (s->tokens < 0) {
		s->tokens_ns -= s->tokens * 1e9 / k->limit_rate;
		s->tokens = 0;
	}
	return s->tokens_ns;
}

static void ask_one(struct sim *s, struct flight *f)
{
	const struct kind *k = s->kind;
	double at = (double)s->now_ns + (double)k->rtt_ns / 2, *server = NULL;

	f->asked_ns = s->now_ns;
	f->trip = hgm_fill_window_asked(&s->window);
	f->again = false;
	f->fails = k->losses && random_below(&s->random, 1000) < k->losses;
	s->inflight += f->bytes;
	if (f->fails) {
		f->comes_ns = s->now_ns + k->lost_ns;
		return;
	}
	if (k->servers) {
		server = &s->server_free[0];
		for (unsigned int i = 1; i < k->servers; i++)
			if (s->server_free[i] < *server)
				server = &s->server_free[i];
		at = later(at, *server) + (double)k->each_ns;
		if (k->server_rate > 0)
			at += (double)f->bytes * 1e9 / k->server_rate;
		*server = at;
	}
	if (k->wire_rate > 0) {
		at = later(at, s->wire_free);
		at += (double)f->bytes * 1e9 / wire_rate(k, at);
		s->wire_free = at;
	}
	if (k->limit_rate > 0)
		at = limit(s, at, (double)f->bytes);
	at += (double)k->rtt_ns / 2;
	if (k->jitter_ns)
		at += (double)random_below(&s->random, k->jitter_ns);
	f->comes_ns = (uint64_t)at + 1;
}

static bool has_room(const struct sim *s)
{
	uint64_t bytes = s->fixed_bytes ? s->fixed_bytes : hgm_fill_window_bytes(&s->window);

	return s->count < SLOTS && s->inflight < bytes &&
	       (!s->kind->workers || s->count < s->kind->workers);
}

static void ask(struct sim *s)
{
	while (has_room(s)) {
		struct flight *f = &s->flight[s->count++];

		f->bytes = s->fixed_chunk ? s->fixed_chunk : hgm_fill_window_chunk(&s->window);
		ask_one(s, f);
	}
}

static void answer(struct sim *s, struct flight *f)
{
	if (f->again) {
		ask_one(s, f);
		return;
	}
	s->inflight -= f->bytes;
	if (f->fails) {
		f->again = true;
		f->comes_ns = s->now_ns + RETRY_NS;
		return;
	}
	s->delivered += f->bytes;
	hgm_fill_window_answered(&s->window, f->bytes, f->asked_ns, f->trip, s->now_ns);
	*f = s->flight[--s->count];
}

static void run(struct sim *s, uint64_t until_ns)
{
	while (s->now_ns < until_ns) {
		struct flight *next = NULL;

		for (unsigned int i = 0; i < s->count; i++)
			if (!next || s->flight[i].comes_ns < next->comes_ns)
				next = &s->flight[i];
		if (has_room(s) && s->room_ns == FOREVER)
			s->room_ns = s->now_ns + s->kind->turn_ns;
		if (s->room_ns != FOREVER && (!next || s->room_ns <= next->comes_ns)) {
			s->now_ns = s->room_ns;
			s->room_ns = FOREVER;
			ask(s);
			continue;
		}
		if (!next) {
			fail_msg("%s", "nothing is under way, and nothing can be asked for");
			return;
		}
		s->now_ns = next->comes_ns;
		answer(s, next);
	}
}

static void begin(struct sim *s, const struct kind *k)
{
	memset(s, 0, sizeof(*s));
	s->kind = k;
	s->random.state = SEED;
	s->tokens = (double)k->burst_bytes;
	s->room_ns = FOREVER;
	hgm_fill_window_init(&s->window, 0, k->workers ? k->workers : SLOTS, k->workers);
}

static double rate_between(struct sim *s, uint64_t from_ns, uint64_t to_ns)
{
	uint64_t before;

	run(s, from_ns);
	before = s->delivered;
	run(s, to_ns);
	return (double)(s->delivered - before) * 1e9 / (double)(to_ns - from_ns);
}

/* Double the window as long as that increases the rate. */
static double best_fixed(const struct kind *k, struct hgm_fill_window_setting *setting)
{
	static struct sim s;
	double best = 0;

	for (uint32_t order = 0; order < HGM_FILL_WINDOW_ORDERS; order += 2) {
		double last = 0, most = 0;

		for (uint32_t n = 1; n <= SLOTS && last >= most * 0.99; n *= 2) {
			begin(&s, k);
			s.fixed_chunk = 4 * KIB << order;
			s.fixed_bytes = n * s.fixed_chunk;
			last = rate_between(&s, BEGIN_NS, END_NS);
			most = last > most ? last : most;
			if (last > best * 1.001) {
				best = last;
				*setting = (struct hgm_fill_window_setting){ order, n };
			}
		}
	}
	return best;
}

#define GBIT(n)	 ((n)*1e9 / 8)
#define MBYTE(n) ((n)*1e6)

static const struct kind kinds[] = {
	{ "serial, 200 us each", .servers = 1, .each_ns = 200 * US, .server_rate = MBYTE(1000) },
	{ "serial, 20 us each", .servers = 1, .each_ns = 20 * US, .server_rate = MBYTE(1000) },
	{ "serial, slow turns", .servers = 1, .each_ns = 20 * US, .server_rate = MBYTE(2000),
	  .turn_ns = 60 * US },
	{ "serial, far away", .servers = 1, .each_ns = 50 * US, .server_rate = MBYTE(500),
	  .rtt_ns = 2 * MS },
	{ "serial, only requests cost", .servers = 1, .each_ns = 100 * US },
	{ "wire", .wire_rate = GBIT(10), .rtt_ns = 100 * US },
	{ "wire, far away", .wire_rate = GBIT(10), .rtt_ns = 5 * MS },
	{ "wire, slow turns", .wire_rate = GBIT(10), .rtt_ns = 100 * US, .turn_ns = 50 * US },
	{ "thin wire", .wire_rate = GBIT(0.1), .rtt_ns = 10 * MS },
	{ "parallel, 8", .servers = 8, .each_ns = 300 * US, .server_rate = MBYTE(500) },
	{ "parallel, 64", .servers = 64, .each_ns = 1 * MS, .server_rate = MBYTE(200) },
	{ "parallel behind a wire", .servers = 16, .each_ns = 500 * US, .server_rate = MBYTE(500),
	  .wire_rate = GBIT(25), .rtt_ns = 50 * US },
	{ "jittery", .wire_rate = GBIT(10), .rtt_ns = 100 * US, .jitter_ns = 400 * US },
	{ "jittery, far away", .wire_rate = GBIT(1), .rtt_ns = 2 * MS, .jitter_ns = 8 * MS },
	{ "jittery, parallel", .servers = 8, .each_ns = 300 * US, .server_rate = MBYTE(500),
	  .jitter_ns = 600 * US },
	{ "lossy", .wire_rate = GBIT(10), .rtt_ns = 100 * US, .losses = 10, .lost_ns = 1 * MS },
	{ "lossy, slow to say", .servers = 1, .each_ns = 50 * US, .server_rate = MBYTE(1000),
	  .losses = 10, .lost_ns = 3 * MS },
	{ "slow start", .wire_rate = GBIT(10), .rtt_ns = 200 * US, .slow_start = true },
	{ "slow start, far away", .wire_rate = GBIT(10), .rtt_ns = 3 * MS, .slow_start = true },
	{ "sleeps, serial", .workers = WORKERS, .servers = 1, .each_ns = 100 * US,
	  .server_rate = MBYTE(1000) },
	{ "sleeps, parallel", .workers = WORKERS, .servers = 8, .each_ns = 100 * US,
	  .server_rate = MBYTE(1000) },
	{ "sleeps, many workers", .workers = 31, .servers = 8, .each_ns = 500 * US,
	  .server_rate = MBYTE(400) },
	{ "sleeps, a slow disk", .workers = WORKERS, .servers = 2, .each_ns = 4 * MS,
	  .server_rate = MBYTE(100) },
};

/* Fast at the start, and limited after that. */
static const struct kind limited = {
	.name = "rate-limited after a burst",
	.wire_rate = GBIT(10),
	.rtt_ns = 200 * US,
	.limit_rate = MBYTE(150),
	.burst_bytes = 4 * MIB,
};

static unsigned int misses;

static void is_close(const struct kind *k, const char *when, double rate, double best,
		     const struct sim *s)
{
	print_message("# %-26s %-12s %5.0f MB/s, %.3f of the best, %3llu KiB x %u\n", k->name, when,
		      rate / 1e6, rate / best,
		      (unsigned long long)(hgm_fill_window_chunk(&s->window) / KIB),
		      s->window.now.requests);
	misses += rate < CLOSE * best;
}

static void close_to_the_best(const struct kind *k)
{
	static struct sim s;
	struct hgm_fill_window_setting setting = { 0, 0 };
	double best = best_fixed(k, &setting), rate;

	print_message("# %-26s %-12s %5.0f MB/s, %u KiB x %u\n", k->name, "best fixed", best / 1e6,
		      4u << setting.order, setting.requests);
	begin(&s, k);
	rate = rate_between(&s, BEGIN_NS, END_NS);
	is_close(k, "0.5-1.5 s", rate, best, &s);
	rate = rate_between(&s, 4 * SEC, 5 * SEC);
	is_close(k, "4-5 s", rate, best, &s);
}

static void all_kinds(void **state)
{
	(void)state;
	misses = 0;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		close_to_the_best(&kinds[i]);
	assert_int_equal(misses, 0);
}

static void a_limit_after_a_burst(void **state)
{
	(void)state;
	misses = 0;
	close_to_the_best(&limited);
	assert_int_equal(misses, 0);
}

/* Whatever the wrong estimate, it lasts for at most a second. */
static void a_bad_estimate_does_not_last(void **state)
{
	static const struct hgm_fill_window_setting bad[] = {
		{ 0, 4 }, { 0, 512 }, { 6, 2 }, { 6, 256 }
	};
	static struct sim s;

	(void)state;
	misses = 0;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		double best, rate;

		if (kinds[i].workers || kinds[i].jitter_ns || kinds[i].slow_start)
			continue;
		begin(&s, &kinds[i]);
		best = rate_between(&s, 2 * SEC, 3 * SEC);
		for (size_t j = 0; j < sizeof(bad) / sizeof(bad[0]); j++) {
			s.window.best = bad[j];
			s.window.now = bad[j];
			s.window.phase = HGM_FILL_WINDOW_REST;
			hgm_fill_window_unused(&s.window);
			rate = rate_between(&s, s.now_ns + SEC, s.now_ns + 3 * SEC / 2);
			is_close(&kinds[i], "after bad", rate, best, &s);
		}
	}
	assert_int_equal(misses, 0);
}

/* A source that pauses for a while is as fast as before when it continues. */
static void a_pause_is_forgotten(void **state)
{
	static struct sim s;

	(void)state;
	misses = 0;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		double best, rate;

		if (kinds[i].jitter_ns)
			continue;
		begin(&s, &kinds[i]);
		best = rate_between(&s, 2 * SEC, 3 * SEC);
		for (unsigned int f = 0; f < s.count; f++)
			s.flight[f].comes_ns += SEC;
		hgm_fill_window_unused(&s.window); /* as fill_source.c does when nothing arrives */
		s.wire_free += (double)SEC;
		for (unsigned int n = 0; n < SERVERS; n++)
			s.server_free[n] += (double)SEC;
		rate = rate_between(&s, s.now_ns + 2 * SEC, s.now_ns + 3 * SEC);
		is_close(&kinds[i], "after a pause", rate, best, &s);
	}
	assert_int_equal(misses, 0);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(all_kinds),
	cmocka_unit_test(a_limit_after_a_burst),
	cmocka_unit_test(a_bad_estimate_does_not_last),
	cmocka_unit_test(a_pause_is_forgotten),
};

TEST_MAIN(tests)
