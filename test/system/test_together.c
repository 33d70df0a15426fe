/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that wait at the same time are served together. Adjacent pages are requested at once, and
 * one wake is for all threads. No thread is lost, delayed, or woken in vain.
 */
#include "crowd.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#define CROWD	 16
#define APART	 37 /* distance of pages that are not adjacent */
#define MANY	 8  /* enough to be served together */
#define FEW	 3
#define READ_MAX 32	  /* a wake is for this many messages at most */
#define LATER_NS 10000000 /* for so long after a late answer, each thread is served alone */

static void one_wake_for_many(enum place place, enum verb verb)
{
	struct trial *t = trial_begin(place, 0, 0);
	struct call call[CALLS];

	crowd_comes(t, 3, APART, CROWD);
	crowd_goes(t);
	assert_int_equal(calls_of(ASK, call), CROWD);
	assert_int_equal(calls_of(verb, call), CROWD);
	for (unsigned int i = 0; i < CROWD; i++) {
		assert_int_equal(call[i].page, 3 + i * APART);
		assert_int_equal(call[i].pages, 1);
		assert_false(call[i].wakes);
	}
	assert_int_equal(calls_of(WAKE, call), 1);
	assert_int_equal(call[0].page, 3);
	assert_int_equal(call[0].pages, (CROWD - 1) * APART + 1);
	/* No thread faulted twice. */
	assert_int_equal(stats_of(t->h).faults, CROWD);
	assert_int_equal(stats_of(t->h).fault_batches, 1);
	trial_end(t);
}

static void one_wake_is_for_many(void **state)
{
	(void)state;
	one_wake_for_many(PLACE_SHMEM, CONTINUE);
	one_wake_for_many(PLACE_SHMEM_LAZY, COPY);
	one_wake_for_many(PLACE_ANON, COPY);
}

static bool is_asked(void *unused)
{
	struct call call[CALLS];

	(void)unused;
	return calls_of(ASK, call) > 0;
}

static void who_comes_meanwhile_is_served_too(void **state)
{
	struct trial *t = trial_begin(PLACE_SHMEM, 0, 0);
	struct call call[CALLS];

	(void)state;
	atomic_store(&conduct.stalls, true);
	crowd_comes(t, 300, APART, MANY);
	assert_true(eventually(is_asked, NULL, 5000));
	crowd_comes(t, 3, APART, FEW);
	atomic_store(&conduct.stalls, false);
	crowd_goes(t);
	assert_int_equal(stats_of(t->h).fault_batches, 2);
	assert_int_equal(stats_of(t->h).faults, MANY + FEW);
	assert_int_equal(calls_of(WAKE, call), 1);
	assert_int_equal(call[0].page, 3);
	assert_int_equal(call[0].pages, 300 - 3 + (MANY - 1) * APART + 1);
	trial_end(t);
}

/* No thread waits for too many others, even if messages keep coming. */
static void nobody_waits_for_too_many(void **state)
{
	struct trial *t = trial_begin(PLACE_SHMEM, 0, 0);
	struct call call[CALLS];

	(void)state;
	atomic_store(&conduct.stalls, true);
	crowd_comes(t, 0, 20, MANY);
	assert_true(eventually(is_asked, NULL, 5000));
	hold_back();
	crowd_gathers(t, 200, 20, READ_MAX - MANY);
	crowd_gathers(t, 700, 20, MANY);
	let_go();
	atomic_store(&conduct.stalls, false);
	crowd_goes(t);
	assert_int_equal(stats_of(t->h).fault_batches, 3);
	assert_int_equal(calls_of(CONTINUE, call), READ_MAX + MANY);
	assert_int_equal(calls_of(WAKE, call), 2);
	assert_int_equal(call[0].page, 0);
	assert_int_equal(call[1].page, 700);
	trial_end(t);
}

/* The contents are present, and only have to be mapped. */
static void present_pages_are_woken_together(void **state)
{
	struct trial *t = trial_begin(PLACE_SHMEM, 0, 0);
	struct call call[CALLS];

	(void)state;
	assert_pages(&crowd_contents, 0, CROWD_LENGTH / PAGE, t->f.addr);
	assert_int_equal(madvise(t->f.addr, CROWD_LENGTH, MADV_DONTNEED), 0);
	forget_calls();
	crowd_comes(t, 3, APART, MANY);
	crowd_goes(t);
	assert_int_equal(calls_of(ASK, call), 0);
	assert_int_equal(calls_of(CONTINUE, call), MANY);
	for (unsigned int i = 0; i < MANY; i++)
		assert_false(call[i].wakes);
	assert_int_equal(calls_of(WAKE, call), 1);
	trial_end(t);
}

static void few_are_woken_at_once(void **state)
{
	struct trial *t;
	struct call call[CALLS];

	(void)state;
	for (unsigned int few = 1; few <= FEW; few++) {
		t = trial_begin(PLACE_SHMEM, 0, 0);
		crowd_comes(t, 3, APART, few);
		crowd_goes(t);
		assert_int_equal(calls_of(CONTINUE, call), few);
		for (unsigned int i = 0; i < few; i++)
			assert_true(call[i].wakes);
		assert_int_equal(calls_of(WAKE, call), 0);
		trial_end(t);
	}
}

static void neighbours_are_asked_for_together(void **state)
{
	static const struct {
		enum place place;
		enum verb verb;
	} of[] = { { PLACE_SHMEM, CONTINUE }, { PLACE_ANON, COPY } };
	struct trial *t;
	struct call call[CALLS];

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		t = trial_begin(of[i].place, 0, 0);
		/* The second run is cut where the leaf ends. */
		for (uint64_t page = 11; page < 600; page += 508 - 11) {
			crowd_comes(t, page, 1, MANY);
			crowd_goes(t);
		}
		assert_int_equal(calls_of(ASK, call), 3);
		assert_true(call[0].page == 11 && call[0].pages == MANY);
		assert_true(call[1].page == 508 && call[1].pages == 4);
		assert_true(call[2].page == 512 && call[2].pages == 4);
		assert_int_equal(calls_of(of[i].verb, call), 3);
		assert_true(call[0].page == 11 && call[0].pages == MANY);
		assert_int_equal(calls_of(WAKE, call), 2);
		assert_int_equal(stats_of(t->h).faults_demand, MANY + 4 + 4);
		assert_int_equal(stats_of(t->h).faults_present, 0);
		trial_end(t);
	}
}

struct claimed {
	struct hgm *h;
	uint64_t faults;
};

/* The threads are awake before the last of them is counted. */
static bool is_claimed(void *arg)
{
	const struct claimed *c = arg;

	return stats_of(c->h).faults_claimed == c->faults;
}

/* Few or many threads fault on the same page. */
static void a_page_is_asked_for_once(void **state)
{
	struct trial *t;
	struct call call[CALLS];

	(void)state;
	for (unsigned int count = 2; count <= MANY; count += MANY - 2) {
		t = trial_begin(PLACE_SHMEM, 0, 0);
		crowd_comes(t, 7, 0, count);
		crowd_goes(t);
		assert_int_equal(calls_of(ASK, call), 1);
		assert_int_equal(calls_of(CONTINUE, call), 1);
		assert_int_equal(stats_of(t->h).faults, count);
		assert_true(eventually(is_claimed, &(struct claimed){ t->h, count - 1 }, 5000));
		trial_end(t);
	}
}

static void runs_end_at_what_is_somebodys(void **state)
{
	struct trial *t = trial_begin(PLACE_SHMEM, 0, 0);
	struct call call[CALLS];

	(void)state;
	conduct.later_page = 100;
	crowd_comes(t, 100, 1, 1);
	assert_true(eventually(source_keeps, NULL, 5000));
	crowd_comes(t, 97, 1, MANY);
	for (unsigned int i = 1; i < t->count; i++)
		if (t->page[i] != 100)
			assert_back(t, i);
	assert_false(is_back(&t->crowd[0]));
	assert_int_equal(calls_of(ASK, call), 3);
	assert_true(call[0].page == 100 && call[0].pages == 1);
	assert_true(call[1].page == 97 && call[1].pages == 3);
	assert_true(call[2].page == 101 && call[2].pages == 4);
	source_give();
	crowd_goes(t);
	assert_int_equal(calls_of(ASK, call), 3);
	trial_end(t);
}

/*
 * Whichever thread serves them, each fault is queued behind the last one, and the histograms say
 * so.
 */
static void each_is_queued_behind_the_last(void **state)
{
	static const uint32_t flags[] = { 0, HGM_SOURCE_BLOCKING };
	const uint64_t tick_ns = 1000;

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct trial *t = trial_begin(PLACE_SHMEM, flags[i], 0);
		struct hgm_hist queued;

		clock_ticks(tick_ns);
		crowd_comes(t, 3, APART, MANY);
		crowd_goes(t);
		queued = stats_of(t->h).queued;
		assert_int_equal(queued.count, MANY);
		assert_true(queued.sum_ns >= MANY * (MANY - 1) / 2 * tick_ns);
		assert_true(queued.max_ns >= (MANY - 1) * tick_ns);
		trial_end(t);
	}
}

/* A thread waits for at most one answer more than its own, and not for long. */
static void slow_sources_hold_nobody_up(void **state)
{
	struct trial *t = trial_begin(PLACE_SHMEM, 0, 0);
	struct call wake[CALLS], map[CALLS];
	unsigned int wakes;

	(void)state;
	conduct.takes_ns = 1000000;
	crowd_comes(t, 3, APART, MANY);
	crowd_goes(t);
	assert_int_equal(calls_of(CONTINUE, map), MANY);
	assert_int_equal(calls_of(WAKE, wake), MANY);
	for (unsigned int i = 0; i < MANY; i++) {
		assert_int_equal(wake[i].page, map[i].page);
		assert_int_equal(wake[i].at_ns, map[i].at_ns);
	}
	trial_end(t);

	/* Several answers come within 100 us. */
	t = trial_begin(PLACE_SHMEM, 0, 0);
	conduct.takes_ns = 30000;
	crowd_comes(t, 3, APART, CROWD);
	crowd_goes(t);
	assert_int_equal(calls_of(CONTINUE, map), CROWD);
	wakes = calls_of(WAKE, wake);
	assert_uint_in_range(wakes, 3, CROWD / 2);
	for (unsigned int i = 0, w = 0; i < CROWD; i++) {
		while (w < wakes && wake[w].page + wake[w].pages <= map[i].page)
			w++;
		assert_true(w < wakes && wake[w].page <= map[i].page);
		assert_uint_in_range(wake[w].at_ns - map[i].at_ns, 0, 100000);
	}
	trial_end(t);
}

struct faults_read {
	struct hgm *h;
	uint64_t want;
};

static bool faults_are_read(void *arg)
{
	struct faults_read *f = arg;

	return stats_of(f->h).faults == f->want;
}

static void assert_woken_alone(struct trial *t, uint64_t first_page)
{
	unsigned int before = t->count;
	struct call call[CALLS];

	forget_calls();
	crowd_comes(t, first_page, 10, MANY);
	for (unsigned int i = before; i < t->count; i++)
		assert_back(t, i);
	assert_int_equal(calls_of(CONTINUE, call), MANY);
	for (unsigned int i = 0; i < MANY; i++)
		assert_true(call[i].wakes);
	assert_int_equal(calls_of(WAKE, call), 0);
}

static void later_answers_wake_nobody_in_vain(void **state)
{
	struct faults_read read = { .want = MANY + 1 };
	struct trial *t = trial_begin(PLACE_SHMEM, 0, 0);
	struct call call[CALLS];

	(void)state;
	read.h = t->h;
	conduct.later_page = 100 + 2 * 10;
	crowd_comes(t, 100, 10, MANY);
	/* One wake is for all threads around the late one, and wakes the late one once in vain. */
	assert_true(eventually(faults_are_read, &read, 5000));
	for (unsigned int i = 0; i < MANY; i++)
		if (i != 2)
			assert_back(t, i);
	assert_int_equal(calls_of(WAKE, call), 1);

	/* From now on each thread is woken alone, for a while. */
	clock_goes_on(LATER_NS - 1);
	assert_woken_alone(t, 101);
	assert_false(is_back(&t->crowd[2]));
	source_give();
	crowd_goes(t);
	assert_int_equal(stats_of(t->h).faults, 2 * MANY + 1);

	forget_calls();
	clock_goes_on(1);
	crowd_comes(t, 102, 10, MANY);
	crowd_goes(t);
	assert_int_equal(calls_of(WAKE, call), 1);
	assert_int_equal(stats_of(t->h).faults, 3 * MANY + 1);
	trial_end(t);
}

/* The same for adjacent pages that are requested together. */
static void half_an_answer_is_a_later_one(void **state)
{
	struct trial *t = trial_begin(PLACE_SHMEM, 0, 0);
	struct faults_read read = { .h = t->h, .want = MANY + MANY / 2 };

	(void)state;
	conduct.later_page = 100 + MANY / 2;
	crowd_comes(t, 100, 1, MANY);
	assert_true(eventually(faults_are_read, &read, 5000));
	assert_woken_alone(t, 200);
	for (unsigned int i = 0; i < MANY; i++)
		assert_int_equal(is_back(&t->crowd[i]), i < MANY / 2);
	source_give();
	crowd_goes(t);
	assert_int_equal(stats_of(t->h).faults, read.want + MANY);
	trial_end(t);
}

/* The fault thread must not wake for requests that it has handed on. */
static void who_is_left_to_others_is_woken(void **state)
{
	static const enum place places[] = { PLACE_SHMEM, PLACE_SHMEM_LAZY, PLACE_ANON };
	struct trial *t;

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		t = trial_begin(places[i], HGM_SOURCE_BLOCKING, 0);
		crowd_comes(t, 3, APART, MANY);
		crowd_goes(t);
		trial_end(t);

		/* The first page of a run, and a page alone. */
		for (uint64_t page = 50; page < 56; page += 5) {
			t = trial_begin(places[i], 0, 0);
			kernel_refuses(page, -EAGAIN);
			crowd_comes(t, 50, page == 50 ? 1 : 5, MANY);
			crowd_goes(t);
			assert_true(kernel_refused());
			trial_end(t);
		}
	}
}

/* The pages adjacent to a page that is given up were requested with it, and arrive. */
static void assert_given_up(struct trial *t)
{
	for (unsigned int i = 0; i < t->count; i++) {
		assert_back(t, i);
		waiter_join(&t->crowd[i]);
		assert_int_equal(t->crowd[i].signal, i ? 0 : SIGBUS);
	}
	assert_pages(&crowd_contents, t->page[1], t->count - 1, t->f.addr + t->page[1] * PAGE);
	assert_int_equal(stats_of(t->h).poisoned_pages, 1);
	trial_end(t);
}

static void neighbours_of_a_bad_page_are_woken(void **state)
{
	struct trial *t;

	(void)state;
	skip_unless(KERNEL_POISON);
	t = trial_begin(PLACE_SHMEM, 0, HGM_RETRY_NEVER);
	conduct.bad_page = 20;
	crowd_comes(t, 20, 1, MANY);
	assert_given_up(t);

	t = trial_begin(PLACE_ANON, 0, 0);
	kernel_refuses(20, -EIO);
	crowd_comes(t, 20, 1, MANY);
	assert_given_up(t);
}

/* Some threads have been served, some are being served, and some are not served yet. */
static void the_end_releases_all(void **state)
{
	static uint8_t page[PAGE] __attribute__((aligned(8)));
	struct trial *t;

	(void)state;
	for (unsigned int round = 0; round < SMALLER(50, 10); round++) {
		t = trial_begin(round % 2 ? PLACE_SHMEM : PLACE_ANON, 0, 0);
		clock_runs();
		crowd_comes(t, 3, round % 3 ? 1 : APART, CROWD);
		if (round % 5 == 0)
			nap_us(20 * round);
		field_end(&t->f);
		for (unsigned int i = 0; i < t->count; i++) {
			assert_back(t, i);
			waiter_join(&t->crowd[i]);
			contents_write(&crowd_contents, t->page[i], 1, page);
			if (t->crowd[i].signal != SIGSEGV) {
				assert_int_equal(t->crowd[i].signal, 0);
				assert_int_equal(t->crowd[i].value, page[0]);
			}
		}
		trial_forget(t);
	}
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, crowd_set_up, crowd_tear_down)

static const struct CMUnitTest tests[] = {
	CASE(one_wake_is_for_many),
	CASE(who_comes_meanwhile_is_served_too),
	CASE(nobody_waits_for_too_many),
	CASE(present_pages_are_woken_together),
	CASE(few_are_woken_at_once),
	CASE(neighbours_are_asked_for_together),
	CASE(a_page_is_asked_for_once),
	CASE(runs_end_at_what_is_somebodys),
	CASE(each_is_queued_behind_the_last),
	CASE(slow_sources_hold_nobody_up),
	CASE(later_answers_wake_nobody_in_vain),
	CASE(half_an_answer_is_a_later_one),
	CASE(who_is_left_to_others_is_woken),
	CASE(neighbours_of_a_bad_page_are_woken),
	CASE(the_end_releases_all),
};

TEST_MAIN(tests)
