/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fill window over an imitated link, in virtual time. Requests go to a server that sends
 * answers one after the other at the link's rate; fill keeps as much under way as the window says.
 * Measured are how much of the link is used, and how long the answer to a demand request would have
 * to queue behind fill, which is what the window is for.
 */
#include <stdbool.h>
#include <string.h>

#include "random.h"
#include "test.h"
#include "window.h"

#define KIB	  UINT64_C(1024)
#define MIB	  (KIB * 1024)
#define US	  UINT64_C(1000)
#define MS	  (US * 1000)
#define SEC	  (MS * 1000)
#define IN_FLIGHT 8192

struct answer {
	uint64_t bytes;
	uint64_t asked_ns;
	uint64_t delivered_before;
	uint64_t arrives_ns;
};

struct link {
	struct hgm_window window;
	double bytes_per_s;
	uint64_t rtt_ns;
	uint64_t now_ns;
	double free_ns; /* when the server has sent all that it was asked for */
	uint64_t inflight_bytes;
	uint64_t turn_ns; /* what a worker takes to see that there is room */
	uint64_t ask_ns;  /* when it will, if it is on its way */
	bool waking;
	uint64_t first, count;
	struct answer ring[IN_FLIGHT];
};

/* What was seen over some time. */
struct seen {
	double used;	   /* of the link, 0 to 1 */
	uint64_t queue_ns; /* mean time that a demand request would have queued behind fill */
	uint64_t worst_ns;
	uint64_t window; /* at the end */
};

static struct link l;

static void begin(double gbit, uint64_t rtt_ns, uint64_t fixed)
{
	memset(&l, 0, sizeof(l));
	hgm_window_init(&l.window, fixed);
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

/* As the workers do: another request while less than the window is under way. */
static void ask(void)
{
	while (l.inflight_bytes < l.window.bytes) {
		uint64_t bytes = hgm_window_chunk(&l.window);
		double reaches = (double)l.now_ns + (double)l.rtt_ns / 2;

		assert_true(l.count < IN_FLIGHT);
		l.free_ns = l.free_ns > reaches ? l.free_ns : reaches;
		l.free_ns += (double)bytes * 1e9 / l.bytes_per_s;
		l.ring[(l.first + l.count++) % IN_FLIGHT] = (struct answer){
			.bytes = bytes,
			.asked_ns = l.now_ns,
			.delivered_before = l.window.delivered_bytes,
			.arrives_ns = (uint64_t)(l.free_ns + (double)l.rtt_ns / 2),
		};
		l.inflight_bytes += bytes;
	}
}

/* The answer to a request sent now would begin so much later than on an idle link. */
static uint64_t queue_ns(void)
{
	double reaches = (double)l.now_ns + (double)l.rtt_ns / 2;

	return l.free_ns > reaches ? (uint64_t)(l.free_ns - reaches) : 0;
}

static struct seen run(uint64_t ns)
{
	uint64_t start = l.now_ns;
	uint64_t bytes = l.window.delivered_bytes;
	double queue = 0;
	struct seen s = { 0 };

	while (l.now_ns < start + ns) {
		const struct answer *a = &l.ring[l.first % IN_FLIGHT];
		uint64_t before = l.now_ns;

		if (!l.waking && l.inflight_bytes < l.window.bytes) {
			hgm_window_room(&l.window, l.now_ns);
			l.waking = true;
			l.ask_ns = l.now_ns + l.turn_ns;
		}
		if (l.waking && (!l.count || l.ask_ns <= a->arrives_ns)) {
			queue += (double)queue_ns() * (double)(l.ask_ns - before);
			l.now_ns = l.ask_ns;
			l.waking = false;
			hgm_window_asked(&l.window, l.now_ns);
			ask();
			continue;
		}
		l.first++;
		l.count--;
		s.worst_ns = queue_ns() > s.worst_ns ? queue_ns() : s.worst_ns;
		queue += (double)queue_ns() * (double)(a->arrives_ns - before);
		l.now_ns = a->arrives_ns;
		l.inflight_bytes -= a->bytes;
		hgm_window_answered(&l.window, a->bytes, a->asked_ns, a->delivered_before,
				    l.now_ns);
	}
	ns = l.now_ns - start;
	s.used = (double)(l.window.delivered_bytes - bytes) / (l.bytes_per_s * (double)ns / 1e9);
	s.queue_ns = (uint64_t)(queue / (double)ns);
	s.window = l.window.bytes;
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
 * Half a round trip, for the quarter that the window is larger than the product and for the answer
 * times that it knows, which contain the transfer of a request; and the smallest window and a
 * smallest request, where the product is less than these.
 */
static uint64_t queue_allowed(void)
{
	return l.rtt_ns / 2 + transfer_ns(64 * KIB);
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
 * The smallest answer time is forgotten now and then; the window's own queue must not take its
 * place.
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
 * How far the search for the product may overshoot it: somebody is waiting from the first moment.
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

/* Waking a worker takes time, in which the link must have something to send. */
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

static void the_callers_window_is_kept(void **state)
{
	static const uint64_t fixed[] = { 1, 4 * KIB, 100 * KIB, 3 * MIB, 200 * MIB };

	(void)state;
	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
		begin(10, 100 * US, fixed[i]);
		assert_int_equal(l.window.bytes, fixed[i]);
		for (int n = 0; n < 20; n++) {
			run(100 * MS);
			assert_int_equal(l.window.bytes, fixed[i]);
		}
	}
	/* Measured for comparison: a window that is much too large keeps demand waiting. */
	begin(1, 100 * US, 4 * MIB);
	assert_true(run(SEC).queue_ns > 10 * queue_allowed());
}

static void chunks(void **state)
{
	uint64_t last = 0;

	(void)state;
	for (uint64_t bytes = 4 * KIB; bytes <= 256 * MIB; bytes += bytes / 7 + 1) {
		struct hgm_window w;
		uint64_t chunk;

		hgm_window_init(&w, bytes);
		chunk = hgm_window_chunk(&w);
		assert_true(chunk && !(chunk & (chunk - 1)));
		assert_in_range(chunk, 4 * KIB, 256 * KIB);
		/* At least four under way, and no smaller than that takes. */
		assert_true(chunk == 4 * KIB || chunk <= bytes / 4);
		assert_true(chunk == 256 * KIB || chunk * 2 > bytes / 4);
		assert_true(chunk >= last);
		last = chunk;
	}
	assert_int_equal(last, 256 * KIB);
}

/*
 * Clocks that stand still or run back, answers out of turn, any size: it stays within its bounds.
 */
static void any_input_leaves_it_within_bounds(void **state)
{
	struct random random = { random_seed() };
	struct hgm_window w;

	(void)state;
	hgm_window_init(&w, 0);
	for (int i = 0; i < 200000; i++) {
		uint64_t asked = random_below(&random, SEC) * (uint64_t)i;
		uint64_t before = random_below(&random, w.delivered_bytes + 1);
		uint64_t now = random_one_in(&random, 8) ? asked - random_below(&random, asked + 1)
							 : asked + random_below(&random, 10 * MS);

		hgm_window_answered(&w, random_below(&random, 256) * KIB, asked, before, now);
		if (random_one_in(&random, 2))
			hgm_window_room(&w, random_one_in(&random, 8) ? random_below(&random, SEC)
								      : now);
		if (random_one_in(&random, 2))
			hgm_window_asked(&w, now + random_below(&random, 10 * MS));
		assert_in_range(w.bytes, 1, 64 * MIB);
		assert_in_range(hgm_window_chunk(&w), 4 * KIB, 256 * KIB);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(the_link_is_used_and_demand_does_not_queue),
	cmocka_unit_test(the_window_does_not_creep),
	cmocka_unit_test(the_start_does_not_flood_the_link),
	cmocka_unit_test(a_link_that_changes),
	cmocka_unit_test(workers_that_wake_slowly),
	cmocka_unit_test(the_callers_window_is_kept),
	cmocka_unit_test(chunks),
	cmocka_unit_test(any_input_leaves_it_within_bounds),
};

TEST_MAIN(tests)
