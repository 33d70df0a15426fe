/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fill window over a simulated link, in virtual time. Requests go to a server that sends
 * answers one after the other at the link's rate. Fill keeps as much in flight as the window says.
 * The test measures how much of the link is used, and how long the answer to a demand request would
 * queue behind fill, which is the purpose of the window.
 */
#include <stdbool.h>
#include <string.h>

#include "pager/fill_window.h"
#include "random.h"
#include "test.h"

#define KIB	  UINT64_C(1024)
#define MIB	  (KIB * 1024)
#define US	  UINT64_C(1000)
#define MS	  (US * 1000)
#define SEC	  (MS * 1000)
#define SLOTS	  512
#define IN_FLIGHT 65536

struct answer {
	uint64_t bytes;
	uint64_t asked_ns;
	uint64_t trip;
	uint64_t arrives_ns;
};

struct link {
	struct hgm_fill_window window;
	double bytes_per_s;
	uint64_t rtt_ns;
	uint64_t now_ns;
	double free_ns; /* when the server has sent all requested bytes */
	uint64_t inflight_bytes;
	uint64_t delivered_bytes;
	uint64_t turn_ns; /* time until a worker sees that there is room */
	uint64_t ask_ns;  /* when the worker will ask, if it is waking up */
	bool waking;
	bool busy; /* workers sometimes get no CPU for long */
	struct random random;
	uint64_t first, count;
	struct answer ring[IN_FLIGHT];
};

/* What was measured over some time. */
struct seen {
	double used;	   /* share of the link, 0 to 1 */
	uint64_t queue_ns; /* mean time that a demand request would have queued behind fill */
	uint64_t worst_ns;
	uint64_t window; /* at the end of the time */
};

static struct link l;

static void begin(double gbit, uint64_t rtt_ns, uint64_t fixed)
{
	memset(&l, 0, sizeof(l));
	hgm_fill_window_init(&l.window, fixed, SLOTS, false);
	l.bytes_per_s = gbit * 1e9 / 8;
	l.rtt_ns = rtt_ns;
}

static uint64_t product(void)
{
	return (uint64_t)(l.bytes_per_s * (double)l.rtt_ns / 1e9);
}

static uint64_t transfer_ns(uint64_t bytes)
{
	return (uint64_t)((double)bytes * 1e9 / l.bytes_per_s);
}

/* As the workers do, send another request while less than the window is in flight. */
static void ask(void)
{
	while (l.inflight_bytes < hgm_fill_window_bytes(&l.window)) {
		uint64_t bytes = hgm_fill_window_chunk(&l.window);
		double reaches = (double)l.now_ns + (double)l.rtt_ns / 2;

		assert_true(l.count < IN_FLIGHT);
		l.free_ns = l.free_ns > reaches ? l.free_ns : reaches;
		l.free_ns += (double)bytes * 1e9 / l.bytes_per_s;
		l.ring[(l.first + l.count++) % IN_FLIGHT] = (struct answer){
			.bytes = bytes,
			.asked_ns = l.now_ns,
			.trip = hgm_fill_window_asked(&l.window),
			.arrives_ns = (uint64_t)(l.free_ns + (double)l.rtt_ns / 2),
		};
		l.inflight_bytes += bytes;
	}
}

/* How much later the answer to a request sent now would begin than on an idle link. */
static uint64_t queue_ns(void)
{
	double reaches = (double)l.now_ns + (double)l.rtt_ns / 2;

	return l.free_ns > reaches ? (uint64_t)(l.free_ns - reaches) : 0;
}

static uint64_t turn_ns(void)
{
	return l.busy && random_one_in(&l.random, 16) ? 4 * l.rtt_ns : l.turn_ns;
}

static struct seen run(uint64_t ns)
{
	uint64_t start = l.now_ns;
	uint64_t bytes = l.delivered_bytes;
	double queue = 0;
	struct seen s = { 0 };

	while (l.now_ns < start + ns) {
		const struct answer *a = &l.ring[l.first % IN_FLIGHT];
		uint64_t before = l.now_ns;

		if (!l.waking && l.inflight_bytes < hgm_fill_window_bytes(&l.window)) {
			l.waking = true;
			l.ask_ns = l.now_ns + turn_ns();
		}
		if (l.waking && (!l.count || l.ask_ns <= a->arrives_ns)) {
			queue += (double)queue_ns() * (double)(l.ask_ns - before);
			l.now_ns = l.ask_ns;
			l.waking = false;
			ask();
			continue;
		}
		l.first++;
		l.count--;
		s.worst_ns = queue_ns() > s.worst_ns ? queue_ns() : s.worst_ns;
		queue += (double)queue_ns() * (double)(a->arrives_ns - before);
		l.now_ns = a->arrives_ns;
		l.inflight_bytes -= a->bytes;
		l.delivered_bytes += a->bytes;
		hgm_fill_window_answered(&l.window, a->bytes, a->asked_ns, a->trip, l.now_ns);
	}
	ns = l.now_ns - start;
	s.used = (double)(l.delivered_bytes - bytes) / (l.bytes_per_s * (double)ns / 1e9);
	s.queue_ns = (uint64_t)(queue / (double)ns);
	s.window = hgm_fill_window_bytes(&l.window);
	return s;
}

static const struct kind {
	const char *name;
	double gbit;
	uint64_t rtt_ns;
} kinds[] = {
	{ "100 Mb/s, 10 ms", 0.1, 10 * MS }, { "1 Gb/s, 100 us", 1, 100 * US },
	{ "1 Gb/s, 1 ms", 1, 1 * MS },	     { "10 Gb/s, 100 us", 10, 100 * US },
	{ "10 Gb/s, 5 ms", 10, 5 * MS },     { "25 Gb/s, 50 us", 25, 50 * US },
	{ "25 Gb/s, 100 us", 25, 100 * US }, { "100 Gb/s, 20 us", 100, 20 * US },
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void print(const char *name, const char *when, const struct seen *s)
{
	printf("# %-16s %-8s used %3.0f %%, queue %6.0f us, worst %6.0f us, window %5llu KiB = "
	       "%.1f products\n",
	       name, when, s->used * 100, (double)s->queue_ns / 1e3, (double)s->worst_ns / 1e3,
	       (unsigned long long)(s->window / KIB), (double)s->window / (double)product());
}

/*
 * Half a round trip and half a turn: the window is a quarter larger than the product, and the
 * answer times that it knows include the transfer of a request. Also the smallest window and a
 * smallest request, if the product is less than these.
 */
static uint64_t queue_allowed(void)
{
	return (l.rtt_ns + l.turn_ns) / 2 + transfer_ns(64 * KIB);
}

static void check(const struct seen *s)
{
	assert_true(s->used >= 0.9);
	assert_true(s->queue_ns <= queue_allowed());
	assert_true(s->worst_ns <= 4 * queue_allowed());
}

static void the_link_is_used_and_demand_does_not_queue(void **state)
{
	(void)state;
	for (size_t i = 0; i < KINDS; i++) {
		struct seen s;

		begin(kinds[i].gbit, kinds[i].rtt_ns, 0);
		run(2 * SEC);
		s = run(6 * SEC);
		print(kinds[i].name, "2-8 s", &s);
		check(&s);
	}
}

/*
 * The smallest answer time is forgotten now and then. Times that include the window's own queue
 * must not replace it.
 */
static void the_window_does_not_creep(void **state)
{
	struct seen s[KINDS];

	(void)state;
	for (size_t i = 0; i < KINDS; i++) {
		begin(kinds[i].gbit, kinds[i].rtt_ns, 0);
		run(40 * SEC);
		s[i] = run(20 * SEC);
		print(kinds[i].name, "40-60 s", &s[i]);
	}
	for (size_t i = 0; i < KINDS; i++) {
		begin(kinds[i].gbit, kinds[i].rtt_ns, 0);
		check(&s[i]);
	}
}

/*
 * How far the search for the product may overshoot: there is demand from the beginning.
 */
static void the_start_does_not_flood_the_link(void **state)
{
	struct seen s[KINDS];

	(void)state;
	for (size_t i = 0; i < KINDS; i++) {
		begin(kinds[i].gbit, kinds[i].rtt_ns, 0);
		s[i] = run(2 * SEC);
		print(kinds[i].name, "0-2 s", &s[i]);
	}
	for (size_t i = 0; i < KINDS; i++) {
		begin(kinds[i].gbit, kinds[i].rtt_ns, 0);
		assert_true(s[i].worst_ns <= transfer_ns(MIB + 4 * product()));
	}
}

static void a_link_that_changes(void **state)
{
	(void)state;
	for (size_t i = 0; i < KINDS; i++) {
		for (int faster = 0; faster < 2; faster++) {
			struct seen s;

			begin(kinds[i].gbit, kinds[i].rtt_ns, 0);
			run(3 * SEC);
			l.bytes_per_s *= faster ? 2 : 0.5;
			run(2 * SEC);
			s = run(3 * SEC);
			print(kinds[i].name, faster ? "doubled" : "halved", &s);
			check(&s);
		}
	}
}

/* Waking a worker takes time. Meanwhile the link must have something to send. */
static void workers_that_wake_slowly(void **state)
{
	(void)state;
	for (size_t i = 0; i < KINDS; i++) {
		struct seen s;

		begin(kinds[i].gbit, kinds[i].rtt_ns, 0);
		l.turn_ns = l.rtt_ns < 150 * US ? l.rtt_ns * 2 / 3 : 100 * US;
		run(2 * SEC);
		s = run(6 * SEC);
		print(kinds[i].name, "slow", &s);
		check(&s);
	}
}

/*
 * Workers that sometimes get no CPU need much in flight to keep the link busy meanwhile, and demand
 * queues behind it. While there is demand, it is better that the link idles for a while.
 */
static void demand_is_worth_some_of_the_rate(void **state)
{
	(void)state;
	for (size_t i = 0; i < KINDS; i++) {
		struct seen alone, beside;

		begin(kinds[i].gbit, kinds[i].rtt_ns, 0);
		l.busy = true;
		run(2 * SEC);
		alone = run(4 * SEC);
		print(kinds[i].name, "alone", &alone);
		l.window.polite = true;
		run(2 * SEC);
		beside = run(4 * SEC);
		print(kinds[i].name, "beside", &beside);
		assert_true(alone.used >= 0.9);
		assert_true(beside.used >= 0.5);
		assert_true(beside.queue_ns <= alone.queue_ns * 3 / 4);
	}
}

static void the_callers_window_is_kept(void **state)
{
	static const uint64_t fixed[] = { 1, 4 * KIB, 100 * KIB, 3 * MIB, 200 * MIB };

	(void)state;
	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
		begin(10, 100 * US, fixed[i]);
		assert_int_equal(hgm_fill_window_bytes(&l.window), fixed[i]);
		for (int n = 0; n < 20; n++) {
			run(100 * MS);
			assert_int_equal(hgm_fill_window_bytes(&l.window), fixed[i]);
		}
	}
	/* For comparison: a window that is much too large makes demand wait. */
	begin(1, 100 * US, 4 * MIB);
	assert_true(run(SEC).queue_ns > 10 * queue_allowed());
}

static void chunks(void **state)
{
	uint64_t last = 0;

	(void)state;
	for (uint64_t bytes = 4 * KIB; bytes <= 256 * MIB; bytes += bytes / 7 + 1) {
		struct hgm_fill_window w;
		uint64_t chunk;

		hgm_fill_window_init(&w, bytes, SLOTS, false);
		chunk = hgm_fill_window_chunk(&w);
		assert_true(chunk && !(chunk & (chunk - 1)));
		assert_uint_in_range(chunk, 4 * KIB, 256 * KIB);
		/* At least four under way, and no smaller than that takes. */
		assert_true(chunk == 4 * KIB || chunk <= bytes / 4);
		assert_true(chunk == 256 * KIB || chunk * 2 > bytes / 4);
		assert_true(chunk >= last);
		last = chunk;
	}
	assert_int_equal(last, 256 * KIB);
}

/*
 * Clocks that stop or run backwards, answers out of order, any size: the window stays within its
 * bounds.
 */
static void any_input_leaves_it_within_bounds(void **state)
{
	struct random random = { random_seed() };
	struct hgm_fill_window w;

	(void)state;
	hgm_fill_window_init(&w, 0, SLOTS, false);
	for (int i = 0; i < 200000; i++) {
		uint64_t asked = random_below(&random, SEC) * (uint64_t)i;
		uint64_t trip = w.trip - random_below(&random, 2);
		uint64_t now = random_one_in(&random, 8) ? asked - random_below(&random, asked + 1)
							 : asked + random_below(&random, 10 * MS);

		hgm_fill_window_answered(&w, random_below(&random, 256) * KIB, asked, trip, now);
		if (random_one_in(&random, 100))
			hgm_fill_window_unused(&w);
		assert_uint_in_range(hgm_fill_window_bytes(&w), 16 * KIB, 64 * MIB);
		assert_uint_in_range(hgm_fill_window_chunk(&w), 4 * KIB, 256 * KIB);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(the_link_is_used_and_demand_does_not_queue),
	cmocka_unit_test(the_window_does_not_creep),
	cmocka_unit_test(the_start_does_not_flood_the_link),
	cmocka_unit_test(a_link_that_changes),
	cmocka_unit_test(workers_that_wake_slowly),
	cmocka_unit_test(demand_is_worth_some_of_the_rate),
	cmocka_unit_test(the_callers_window_is_kept),
	cmocka_unit_test(chunks),
	cmocka_unit_test(any_input_leaves_it_within_bounds),
};

TEST_MAIN(tests)
