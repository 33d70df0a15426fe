/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whose turn it is to be filled from, and what the work queue tells the fill windows.
 *
 * Failed answers are not measured: a source that fails quickly is not fast, and one that fails
 * after a timeout is not slow. A request without an answer holds up neither its own source nor
 * another one. A source that takes long leaves the workers to the others.
 */
#include <stdlib.h>
#include <string.h>

#include "pager/fill_source.h"
#include "pager/fill.h"
#include "pager/fill_control.h"
#include "pager/request.h"
#include "pager/work.h"
#include "region/hgm.h"
#include "source/source.h"
#include "test.h"
#include "util/clock.h"

#define KIB	 UINT64_C(1024)
#define US	 UINT64_C(1000)
#define MS	 (US * 1000)
#define SEC	 (MS * 1000)
#define LONG_AGO (10 * SEC)
#define REQUESTS 1024
#define SOURCES	 4

/* No engine: the parts of one that the work queue uses. */
struct scene {
	struct hgm *h;
	struct hgm_source source[SOURCES];
	struct hgm_region region[SOURCES];
	struct hgm_fill fill[SOURCES];
	struct hgm_request request[REQUESTS];
	unsigned int asked;
};

static struct scene *make(uint64_t window_bytes, uint32_t workers)
{
	struct scene *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	s->h = aligned_alloc(64, (sizeof(*s->h) + 63) / 64 * 64);
	assert_non_null(s->h);
	memset(s->h, 0, sizeof(*s->h));
	s->h->opts.fill_window_bytes = window_bytes;
	s->h->opts.workers = workers;
	hgm_work_init(s->h);
	for (unsigned int i = 0; i < SOURCES; i++)
		s->region[i].fill = &s->fill[i];
	return s;
}

/* A region with a source of its own, and something left to fill. */
static struct hgm_fill_source *add(struct scene *s, unsigned int i, bool blocking)
{
	s->source[i].blocking = blocking;
	s->region[i].h = s->h;
	s->region[i].source = &s->source[i];
	assert_int_equal(hgm_fill_source_join(&s->region[i]), 0);
	hgm_fill_source_add(s->h->work, &s->region[i]);
	return s->fill[i].source;
}

static void end(struct scene *s)
{
	for (unsigned int i = 0; i < SOURCES; i++) {
		if (!s->fill[i].source)
			continue;
		hgm_fill_source_remove(&s->region[i]);
		hgm_fill_source_leave(&s->region[i]);
	}
	assert_null(s->h->work->fill_sources);
	hgm_work_destroy(s->h);
	free(s->h);
	free(s);
}

static struct hgm_fill_source *next(struct scene *s)
{
	uint64_t soonest = UINT64_MAX;

	return hgm_fill_source_next(s->h->work, &soonest);
}

static struct hgm_request *ask(struct scene *s, unsigned int i, uint64_t asked_ns)
{
	struct hgm_request *req = &s->request[s->asked++];

	assert_true(s->asked <= REQUESTS);
	req->in.r = &s->region[i];
	req->asked_ns = asked_ns;
	hgm_work_fill_asked(s->h, req, hgm_fill_window_chunk(&s->fill[i].source->window));
	return req;
}

static void answer(struct scene *s, struct hgm_request *req, uint64_t now_ns, bool ok, bool later)
{
	req->answered_ns = now_ns;
	hgm_work_fill_done(s->h, req, ok ? req->asked_bytes : 0, later);
}

/* Ask as long as it is the source's turn. */
static unsigned int ask_all(struct scene *s, unsigned int i, uint64_t asked_ns)
{
	unsigned int count = 0;

	while (next(s) == s->fill[i].source) {
		ask(s, i, asked_ns);
		count++;
	}
	return count;
}

/* All that is unanswered was asked long ago. */
static void let_time_pass(struct hgm_fill_source *f)
{
	for (struct hgm_request *req = f->oldest; req; req = req->fill_next)
		req->asked_ns -= LONG_AGO;
}

/* 10 Gbit/s, 100 us: each time that the fill window is full, the oldest is answered. */
static uint64_t good_answers(struct scene *s, uint64_t now, unsigned int count)
{
	struct hgm_fill_source *f = s->fill[0].source;

	while (count--) {
		while (f->inflight < hgm_fill_window_bytes(&f->window)) {
			s->asked %= REQUESTS;
			ask(s, 0, now);
		}
		now += 13 * US;
		answer(s, f->oldest, now, true, true);
	}
	return now;
}

static void failures_leave_no_trace(uint64_t took_ns, bool later)
{
	struct scene *s = make(0, 3);
	struct hgm_fill_source *f = add(s, 0, false);
	uint64_t now = good_answers(s, LONG_AGO, 4000), inflight = f->inflight;
	struct hgm_fill_window before = f->window;

	for (unsigned int i = 0; i < 100; i++) {
		struct hgm_request *req;

		s->asked %= REQUESTS;
		req = ask(s, 0, now);
		assert_int_equal(f->inflight, inflight + req->asked_bytes);
		now += took_ns;
		answer(s, req, now, false, later);
		assert_int_equal(f->inflight, inflight);
		assert_memory_equal(&f->window, &before, sizeof(before));
	}
	while (f->oldest)
		answer(s, f->oldest, now, false, true);
	assert_int_equal(f->inflight, 0);
	assert_int_equal(f->requests, 0);
	end(s);
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
	struct scene *s = make(0, 3);
	struct hgm_fill_source *f = add(s, 0, false);
	struct hgm_fill_window before = f->window;

	(void)state;
	for (unsigned int i = 0; i < 50; i++) {
		answer(s, ask(s, 0, SEC + i * MS), SEC + i * MS + 3 * US, false, i % 2);
		assert_memory_equal(&f->window, &before, sizeof(before));
	}
	assert_false(f->window.immediate);
	end(s);
}

/* Only good answers are measured, by when they came. */
static void good_ones_count(void **state)
{
	struct scene *s = make(0, 3);
	struct hgm_fill_source *f = add(s, 0, false), *sleeps = add(s, 1, true);

	(void)state;
	answer(s, ask(s, 0, SEC), SEC + 2 * US, true, false);
	assert_true(f->window.immediate);
	assert_int_equal(f->window.answers_ns, 0);
	answer(s, ask(s, 0, SEC), SEC + 90 * US, true, true);
	assert_false(f->window.immediate);
	assert_int_equal(f->window.answers_ns, 90 * US);
	/* A source that slept in its function has not answered at once. */
	answer(s, ask(s, 1, SEC), SEC + 80 * US, true, false);
	assert_false(sleeps->window.immediate);
	assert_int_equal(sleeps->window.answers_ns, 80 * US);
	end(s);
}

/* Answer half of the oldest request. Returns its bytes. */
static uint64_t answer_half(struct scene *s, uint64_t now_ns)
{
	struct hgm_fill_source *f = s->fill[0].source;
	struct hgm_request *req = f->oldest;
	uint64_t inflight = f->inflight, bytes = req->asked_bytes / 2;

	req->answered_ns = now_ns;
	hgm_work_fill_done(s->h, req, bytes, true);
	assert_int_equal(f->inflight, inflight - req->asked_bytes);
	return bytes;
}

static uint64_t rate_of(uint64_t bytes, uint64_t ns)
{
	return (uint64_t)((double)bytes * 1e9 / (double)ns);
}

/* What was asked for counts as in flight; what was delivered is measured. */
static void short_answers_count_for_what_they_are(void **state)
{
	struct scene *s = make(0, 3);
	struct hgm_fill_source *f = add(s, 0, false);
	struct hgm_fill_window *w = &f->window;
	struct hgm_fill_rate *all = &s->h->work->fill_rate;
	uint64_t now = LONG_AGO, bytes = 0, since_ns;

	(void)state;
	while (w->level < 3) {
		uint64_t round_ns = w->round_ns, level = w->level;

		while (f->inflight < hgm_fill_window_bytes(w)) {
			s->asked %= REQUESTS;
			ask(s, 0, now);
		}
		now += 100 * US;
		bytes += answer_half(s, now);
		assert_int_equal(w->phase, HGM_FILL_WINDOW_SEARCH);
		if (w->level > level)
			assert_int_equal(w->level_rate[level], rate_of(bytes, now - round_ns));
		else if (w->measuring && w->round_ns == round_ns)
			assert_int_equal(w->bytes, bytes);
		if (!w->measuring || w->round_ns != round_ns)
			bytes = 0;
	}
	/* The rate from which hgm_get_progress() estimates. */
	*all = (struct hgm_fill_rate){ .since_ns = since_ns = now };
	for (bytes = 0; !all->rate_bytes;) {
		s->asked %= REQUESTS;
		ask(s, 0, now);
		now += MS;
		bytes += answer_half(s, now);
	}
	assert_int_equal(all->rate_bytes, bytes * SEC / (now - since_ns));
	while (f->oldest)
		answer_half(s, now);
	end(s);
}

/* A fill window that the caller fixed never changes. */
static void a_fixed_window_stays(void **state)
{
	struct scene *s = make(300 * KIB, 3);
	struct hgm_fill_source *f = add(s, 0, false);

	(void)state;
	for (unsigned int i = 0; i < 400; i++) {
		answer(s, ask(s, 0, SEC + i * MS), SEC + i * MS + (1 + i % 7) * 100 * US, i % 3,
		       i % 2);
		assert_int_equal(hgm_fill_window_bytes(&f->window), 300 * KIB);
	}
	end(s);
}

static void each_source_has_its_own_window(void **state)
{
	struct scene *s = make(0, 3);
	struct hgm_fill_source *a = add(s, 0, false), *b = add(s, 1, false);
	uint64_t now = hgm_now_ns();

	(void)state;
	assert_ptr_not_equal(a, b);
	while (a->inflight < hgm_fill_window_bytes(&a->window))
		ask(s, 0, now);
	assert_ptr_equal(next(s), b);
	assert_true(ask_all(s, 1, now) > 1);
	assert_null(next(s));
	end(s);
}

static void regions_share_the_window_of_their_source(void **state)
{
	struct scene *s = make(0, 3);
	struct hgm_fill_source *f = add(s, 0, false);

	(void)state;
	s->region[1].h = s->h;
	s->region[1].source = &s->source[0];
	assert_int_equal(hgm_fill_source_join(&s->region[1]), 0);
	assert_ptr_equal(s->fill[1].source, f);
	hgm_fill_source_leave(&s->region[1]);
	s->fill[1].source = NULL;
	assert_ptr_equal(s->h->work->fill_sources, f);
	end(s);
}

/* One answer that never comes, beside others that do. */
static void a_lost_answer_is_not_waited_for(void **state)
{
	struct scene *s = make(0, 3);
	struct hgm_fill_source *f = add(s, 0, false);
	uint64_t now = hgm_now_ns(), bytes;
	struct hgm_request *lost;

	(void)state;
	ask_all(s, 0, now);
	let_time_pass(f);
	lost = &s->request[0];
	for (unsigned int i = 1; i < s->asked; i++)
		answer(s, &s->request[i], lost->asked_ns + i * 100 * US, true, true);
	bytes = lost->asked_bytes;
	assert_int_equal(f->inflight, bytes);
	assert_ptr_equal(next(s), f);
	assert_int_equal(f->inflight, 0);
	assert_int_equal(f->overdue, 1);
	assert_int_equal(f->silences, 0);
	/* It may come after all. */
	answer(s, lost, now, true, true);
	assert_int_equal(f->overdue, 0);
	assert_int_equal(f->requests, 0);
	assert_int_equal(f->inflight, 0);
	end(s);
}

/* A source that answers nothing is asked for little, and less and less. */
static void a_silent_source_is_asked_for_little(void **state)
{
	struct scene *s = make(0, 3);
	struct hgm_fill_source *f = add(s, 0, false), *good;
	uint64_t soonest = UINT64_MAX;
	unsigned int first;

	(void)state;
	first = ask_all(s, 0, hgm_now_ns());
	let_time_pass(f);
	assert_ptr_equal(next(s), f);
	assert_int_equal(f->overdue, first);
	/* Each time that an answer is overdue, one more request is made, up to a limit. */
	for (unsigned int i = 0; i < 500 && next(s); i++) {
		ask(s, 0, hgm_now_ns());
		assert_null(next(s));
		f->newest->asked_ns -= LONG_AGO;
	}
	assert_null(next(s));
	assert_uint_in_range(f->requests, first + 1, 80);
	/* Other sources lose nothing by it. */
	good = add(s, 1, false);
	assert_ptr_equal(next(s), good);
	assert_true(ask_all(s, 1, hgm_now_ns()) >= first);
	hgm_fill_source_remove(&s->region[1]);
	/* One answer makes it a source like any other. */
	answer(s, &s->request[0], hgm_now_ns(), true, true);
	assert_int_equal(f->silences, 0);
	assert_ptr_equal(hgm_fill_source_next(s->h->work, &soonest), f);
	assert_true(ask_all(s, 0, hgm_now_ns()) > 1);
	end(s);
}

/* A worker that goes to sleep is told when an answer will be overdue. */
static void an_overdue_answer_wakes_a_worker(void **state)
{
	struct scene *s = make(0, 3);
	uint64_t now = hgm_now_ns(), soonest = UINT64_MAX;

	(void)state;
	add(s, 0, false);
	ask_all(s, 0, now);
	assert_null(hgm_fill_source_next(s->h->work, &soonest));
	assert_uint_in_range(soonest, now, now + SEC);
	end(s);
}

static void work_for(struct scene *s, struct hgm_fill_source *f, uint64_t ns)
{
	struct hgm_worker worker = { .next = NULL };

	hgm_fill_source_enter(s->h->work, &worker, f);
	worker.since_ns -= ns;
	hgm_fill_source_exit(s->h->work, &worker, true);
}

/* A source that occupies a worker for long gets no more of the workers' time than others. */
static void time_is_shared(void **state)
{
	struct scene *s = make(0, 4);
	struct hgm_fill_source *slow = add(s, 0, true), *quick = add(s, 1, true);
	uint64_t turns = 0, before_ns = 0;

	(void)state;
	work_for(s, slow, 100 * MS);
	while (next(s) == quick && turns < 1000) {
		before_ns = quick->spent_ns;
		work_for(s, quick, MS);
		turns++;
	}
	assert_true(slow->spent_ns >= 100 * MS && quick->spent_ns >= turns * MS);
	assert_true(quick->spent_ns >= slow->spent_ns && before_ns <= slow->spent_ns);
	end(s);
}

/* Time without anything to fill gives no credit. */
static void idleness_is_no_credit(void **state)
{
	struct scene *s = make(0, 4);
	struct hgm_fill_source *busy = add(s, 0, true), *late;

	(void)state;
	work_for(s, busy, LONG_AGO);
	late = add(s, 1, true);
	assert_true(late->spent_ns >= LONG_AGO);
	end(s);
}

/* While a thread waits, workers that need a CPU leave CPUs free. */
static void cpus_are_left(void **state)
{
	struct scene *s = make(0, 4);
	struct hgm_fill_source *memory = add(s, 0, false), *link = add(s, 1, false);
	struct hgm_worker one = { .next = NULL };
	struct hgm_work *w = s->h->work;
	uint64_t now = hgm_now_ns(), soonest = UINT64_MAX;

	(void)state;
	w->workers = &one;
	w->computing_most = 1;
	memory->window.immediate = true;
	hgm_fill_source_enter(w, &one, memory);
	hgm_fill_source_exit(w, &one, false);
	hgm_fill_source_enter(w, &one, memory);
	one.since_ns = now;
	assert_true(hgm_fill_leaves_cpus(w, memory, now, &soonest));
	hgm_fill_source_demand(link, now); /* whatever it is that somebody waits for */
	assert_false(hgm_fill_leaves_cpus(w, memory, now, &soonest));
	assert_uint_in_range(soonest, now + MS, now + HGM_FILL_DEMAND_NS);
	/* It takes longer than a copy, so it sleeps and needs no CPU. */
	assert_true(hgm_fill_leaves_cpus(w, memory, soonest, &soonest));
	assert_true(hgm_fill_leaves_cpus(w, link, now, &soonest));
	one.since_ns = now + HGM_FILL_DEMAND_NS; /* nobody waits any more */
	assert_true(hgm_fill_leaves_cpus(w, memory, one.since_ns, &soonest));
	hgm_fill_source_exit(w, &one, true);
	hgm_fill_source_enter(w, &one, memory); /* it has slept, and may do so again */
	one.since_ns = now;
	assert_true(hgm_fill_leaves_cpus(w, memory, now, &soonest));
	hgm_fill_source_exit(w, &one, true);
	hgm_fill_source_enter(w, &one, link);
	hgm_fill_source_exit(w, &one, false); /* it was only asked */
	assert_false(link->computes);
	w->workers = NULL;
	end(s);
}

static struct hgm_worker workers[9];
static unsigned int occupied;

static void occupy(struct scene *s, unsigned int i, uint64_t since_ns)
{
	assert_true(occupied < 9);
	hgm_fill_source_enter(s->h->work, &workers[occupied++], s->fill[i].source);
	ask(s, i, since_ns);
}

static void release(struct scene *s)
{
	hgm_fill_source_exit(s->h->work, &workers[--occupied], true);
}

/* One worker is kept for those who wait, unless all others are stuck. */
static void the_last_worker(void **state)
{
	struct scene *s = make(0, 3);
	struct hgm_fill_source *stuck = add(s, 0, true), *good = add(s, 1, true), *memory;

	(void)state;
	answer(s, ask(s, 1, SEC), SEC + 100 * US, true, false);
	occupy(s, 0, hgm_now_ns());
	occupy(s, 0, hgm_now_ns());
	assert_null(next(s)); /* they may be back soon */
	memory = add(s, 2, false);
	assert_ptr_equal(next(s), memory); /* needs none of them */
	hgm_fill_source_remove(&s->region[2]);
	stuck->oldest->asked_ns -= LONG_AGO;
	assert_null(next(s));
	stuck->newest->asked_ns -= LONG_AGO;
	assert_ptr_equal(next(s), good);
	/* But seldom for what is slow. */
	good->window.answers_ns = SEC;
	good->answered_ns = hgm_now_ns();
	assert_null(next(s));
	good->answered_ns -= 20 * SEC;
	assert_ptr_equal(next(s), good);
	good->workers = 1; /* and may be stuck in its turn */
	assert_null(next(s));
	good->workers = 0;
	release(s);
	release(s);
	end(s);
}

/* A source that sleeps and is silent gets one more worker at a time, and leaves half to others. */
static void a_silent_source_takes_few_workers(void **state)
{
	struct scene *s = make(0, 9);
	struct hgm_fill_source *f = add(s, 0, true);

	(void)state;
	f->window.now.requests = f->window.best.requests = 8;
	occupy(s, 0, hgm_now_ns());
	assert_ptr_equal(next(s), f);
	let_time_pass(f);
	assert_ptr_equal(next(s), f);
	assert_int_equal(f->silences, 1);
	occupy(s, 0, hgm_now_ns());
	assert_null(next(s));
	let_time_pass(f);
	assert_ptr_equal(next(s), f);
	occupy(s, 0, hgm_now_ns());
	occupy(s, 0, hgm_now_ns());
	let_time_pass(f);
	assert_ptr_equal(next(s), f);
	add(s, 1, true);
	assert_ptr_equal(next(s), s->fill[1].source);
	s->fill[1].source->spent_ns = SEC;
	assert_ptr_equal(next(s), s->fill[1].source);
	/* One answer makes it a source like any other. */
	answer(s, f->oldest, hgm_now_ns(), true, false);
	release(s);
	assert_ptr_equal(next(s), f);
	while (f->workers)
		release(s);
	end(s);
}

/* With many sources none may have all requests of fill. */
static void requests_are_shared(void **state)
{
	struct scene *s = make(UINT64_C(1) << 40, 3);
	uint64_t now = hgm_now_ns();

	(void)state;
	for (unsigned int i = 0; i < SOURCES; i++)
		add(s, i, false);
	s->fill[0].source->spent_ns = 0;
	for (unsigned int i = 1; i < SOURCES; i++)
		s->fill[i].source->spent_ns = SEC;
	assert_uint_in_range(ask_all(s, 0, now), 2, HGM_REQUESTS_FILL / SOURCES);
	end(s);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(quick_failures),
	cmocka_unit_test(slow_failures),
	cmocka_unit_test(failures_from_the_start),
	cmocka_unit_test(good_ones_count),
	cmocka_unit_test(short_answers_count_for_what_they_are),
	cmocka_unit_test(a_fixed_window_stays),
	cmocka_unit_test(each_source_has_its_own_window),
	cmocka_unit_test(regions_share_the_window_of_their_source),
	cmocka_unit_test(a_lost_answer_is_not_waited_for),
	cmocka_unit_test(a_silent_source_is_asked_for_little),
	cmocka_unit_test(an_overdue_answer_wakes_a_worker),
	cmocka_unit_test(time_is_shared),
	cmocka_unit_test(cpus_are_left),
	cmocka_unit_test(idleness_is_no_credit),
	cmocka_unit_test(the_last_worker),
	cmocka_unit_test(a_silent_source_takes_few_workers),
	cmocka_unit_test(requests_are_shared),
};

TEST_MAIN(tests)
