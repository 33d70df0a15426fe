/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the work queue tells the fill window: good answers only. A source that fails in no time is
 * no fast source, and one that fails after a timeout is no slow one: neither may leave a trace in
 * what was measured, while the bytes under way are counted off all the same.
 */
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "test.h"

#define KIB   UINT64_C(1024)
#define US    UINT64_C(1000)
#define MS    (US * 1000)
#define SEC   (MS * 1000)
#define BYTES (16 * KIB)

/* No engine: the part of one that the work queue uses. */
static struct hgm *make(uint64_t window_bytes)
{
	struct hgm *h = aligned_alloc(64, (sizeof(*h) + 63) / 64 * 64);

	assert_non_null(h);
	memset(h, 0, sizeof(*h));
	h->opts.fill_window_bytes = window_bytes;
	hgm_work_init(h);
	return h;
}

static void end(struct hgm *h)
{
	hgm_work_destroy(h);
	free(h);
}

struct exchange {
	uint64_t now_ns;
	uint64_t took_ns;
	uint64_t before; /* delivered so much earlier than the answer */
	bool ok, later;
};

static void answer(struct hgm *h, const struct exchange *e)
{
	struct hgm_request req = { .demand = false };
	uint64_t delivered, inflight = h->work.fill_inflight;

	hgm_work_fill_asked(h, &req, BYTES);
	assert_int_equal(h->work.fill_inflight, inflight + BYTES);
	delivered = h->work.window.delivered_bytes;
	assert_int_equal(req.delivered_before, delivered);
	req.delivered_before = delivered > e->before ? delivered - e->before : 0;
	req.answered_ns = e->now_ns;
	req.asked_ns = e->now_ns - e->took_ns;
	hgm_work_fill_done(h, &req, BYTES, e->ok, e->later);
	assert_int_equal(h->work.fill_inflight, inflight);
}

/* 10 Gbit/s, 100 us: an answer each 13 us, 128 KiB under way. */
static uint64_t good_answers(struct hgm *h, uint64_t now, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		now += 13 * US;
		answer(h, &(struct exchange){ .now_ns = now,
					      .took_ns = 100 * US,
					      .before = 128 * KIB,
					      .ok = true,
					      .later = true });
	}
	return now;
}

static void failures_leave_no_trace(uint64_t took_ns, bool later)
{
	struct hgm *h = make(0);
	struct hgm_window before;
	uint64_t now = good_answers(h, SEC, 4000);

	before = h->work.window;
	assert_in_range(before.bytes, 64 * KIB, 512 * KIB);
	for (unsigned int i = 0; i < 100; i++) {
		now += 13 * US;
		answer(h, &(struct exchange){ .now_ns = now, .took_ns = took_ns, .later = later });
		assert_memory_equal(&h->work.window, &before, sizeof(before));
	}
	/* And the next good ones find it as it was. */
	good_answers(h, now, 10);
	assert_in_range(h->work.window.bytes, before.bytes / 2, before.bytes * 2);
	assert_int_equal(h->work.window.delivered_bytes, before.delivered_bytes + 10 * BYTES);
	end(h);
}

static void quick_failures(void **state)
{
	(void)state;
	failures_leave_no_trace(5 * US, true);
	failures_leave_no_trace(5 * US, false);
}

static void slow_failures(void **state)
{
	(void)state;
	failures_leave_no_trace(500 * MS, true);
	failures_leave_no_trace(500 * MS, false);
}

/* A source that has only failed so far is neither one that answers at once nor one that is slow. */
static void failures_from_the_start(void **state)
{
	struct hgm *h = make(0);
	struct hgm_window before = h->work.window;

	(void)state;
	for (unsigned int i = 0; i < 50; i++) {
		answer(h, &(struct exchange){
				  .now_ns = SEC + i * MS, .took_ns = 3 * US, .later = i % 2 });
		assert_memory_equal(&h->work.window, &before, sizeof(before));
	}
	assert_false(h->work.window.immediate);
	end(h);
}

/* Good answers are told apart by when they came. */
static void good_ones_count(void **state)
{
	struct exchange at_once = { .now_ns = SEC, .took_ns = 2 * US, .ok = true };
	struct exchange later = { .now_ns = SEC, .took_ns = 90 * US, .ok = true, .later = true };
	struct hgm *h = make(0);

	(void)state;
	answer(h, &at_once);
	assert_true(h->work.window.immediate);
	assert_int_equal(h->work.window.delivered_bytes, 0);
	answer(h, &later);
	assert_false(h->work.window.immediate);
	assert_int_equal(h->work.window.delivered_bytes, BYTES);
	assert_int_equal(h->work.window.delay_ns, 90 * US);
	end(h);
}

/* The caller's own window never moves, whatever comes. */
static void a_fixed_window_stays(void **state)
{
	struct hgm *h = make(300 * KIB);

	(void)state;
	for (unsigned int i = 0; i < 400; i++) {
		answer(h, &(struct exchange){ .now_ns = SEC + i * MS,
					      .took_ns = (1 + i % 7) * 100 * US,
					      .ok = i % 3,
					      .later = i % 2 });
		assert_int_equal(h->work.window.bytes, 300 * KIB);
	}
	end(h);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(quick_failures),	   cmocka_unit_test(slow_failures),
	cmocka_unit_test(failures_from_the_start), cmocka_unit_test(good_ones_count),
	cmocka_unit_test(a_fixed_window_stays),
};

TEST_MAIN(tests)
