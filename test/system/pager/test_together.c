/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that wait at the same time are served together. Adjacent pages are requested at once, and
 * one wake is for all threads. No thread is lost, delayed, or woken in vain.
 */
#include "batch.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#define WAITERS	 16
#define APART	 37 /* distance of pages that are not adjacent */
#define MANY	 8  /* enough to be served together */
#define FEW	 3
#define READ_MAX 32	  /* a wake is for this many messages at most */
#define LATER_NS 10000000 /* for so long after a late answer, each thread is served alone */

static void one_wake_for_many(enum backing backing, enum verb verb)
{
	struct trial *t = trial_begin(backing, 0, 0);
	struct call call[CALLS];

	batch_comes(t, 3, APART, WAITERS);
	batch_returns(t);
	assert_int_equal(calls_of(ASK, call), WAITERS);
	assert_int_equal(calls_of(verb, call), WAITERS);
	for (unsigned int i = 0; i < WAITERS; i++) {
		assert_int_equal(call[i].page, 3 + i * APART);
		assert_int_equal(call[i].pages, 1);
		assert_false(call[i].wakes);
	}
	assert_int_equal(calls_of(WAKE, call), 1);
	assert_int_equal(call[0].page, 3);
	assert_int_equal(call[0].pages, (WAITERS - 1) * APART + 1);
	/* No thread faulted twice. */
	assert_int_equal(stats_of(t->h).faults, WAITERS);
	assert_int_equal(stats_of(t->h).fault_batches, 1);
	trial_end(t);
}

static void one_wake_is_for_many(void **state)
{
	(void)state;
	one_wake_for_many(BACKING_SHMEM, CONTINUE);
	one_wake_for_many(BACKING_SHMEM_LAZY, COPY);
	one_wake_for_many(BACKING_ANON, COPY);
}

static bool is_asked(void *unused)
{
	struct call call[CALLS];

	(void)unused;
	return calls_of(ASK, call) > 0;
}

static void who_comes_meanwhile_is_served_too(void **state)
{
	struct trial *t = trial_begin(BACKING_SHMEM, 0, 0);
	struct call call[CALLS];

	(void)state;
	atomic_store(&conduct.stalls, true);
	batch_comes(t, 300, APART, MANY);
	assert_true(eventually(is_asked, NULL, 5000));
	batch_comes(t, 3, APART, FEW);
	atomic_store(&conduct.stalls, false);
	batch_returns(t);
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
	struct trial *t = trial_begin(BACKING_SHMEM, 0, 0);
	struct call call[CALLS];

	(void)state;
	atomic_store(&conduct.stalls, true);
	batch_comes(t, 0, 20, MANY);
	assert_true(eventually(is_asked, NULL, 5000));
	hold_back();
	batch_grows(t, 200, 20, READ_MAX - MANY);
	batch_grows(t, 700, 20, MANY);
	let_go();
	atomic_store(&conduct.stalls, false);
	batch_returns(t);
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
	struct trial *t = trial_begin(BACKING_SHMEM, 0, 0);
	struct call call[CALLS];

	(void)state;
	assert_pages(&batch_contents, 0, BATCH_LENGTH / PAGE, t->ram.addr);
	assert_int_equal(madvise(t->ram.addr, BATCH_LENGTH, MADV_DONTNEED), 0);
	forget_calls();
	batch_comes(t, 3, APART, MANY);
	batch_returns(t);
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
		t = trial_begin(BACKING_SHMEM, 0, 0);
		batch_comes(t, 3, APART, few);
		batch_returns(t);
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
		enum backing backing;
		enum verb verb;
	} of[] = { { BACKING_SHMEM, CONTINUE }, { BACKING_ANON, COPY } };
	struct trial *t;
	struct call call[CALLS];

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		t = trial_begin(of[i].backing, 0, 0);
		/* The second run is cut where the leaf ends. */
		for (uint64_t page = 11; page < 600; page += 508 - 11) {
			batch_comes(t, page, 1, MANY);
			batch_returns(t);
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
		t = trial_begin(BACKING_SHMEM, 0, 0);
		batch_comes(t, 7, 0, count);
		batch_returns(t);
		assert_int_equal(calls_of(ASK, call), 1);
		assert_int_equal(calls_of(CONTINUE, call), 1);
		assert_int_equal(stats_of(t->h).faults, count);
		assert_true(eventually(is_claimed, &(struct claimed){ t->h, count - 1 }, 5000));
		trial_end(t);
	}
}

static void runs_end_at_what_is_somebodys(void **state)
{
	struct trial *t = trial_begin(BACKING_SHMEM, 0, 0);
	struct call call[CALLS];

	(void)state;
	conduct.later_page = 100;
	batch_comes(t, 100, 1, 1);
	assert_true(eventually(source_keeps, NULL, 5000));
	batch_comes(t, 97, 1, MANY);
	for (unsigned int i = 1; i < t->count; i++)
		if (t->page[i] != 100)
			assert_back(t, i);
	assert_false(is_back(&t->waiter[0]));
	assert_int_equal(calls_of(ASK, call), 3);
	assert_true(call[0].page == 100 && call[0].pages == 1);
	assert_true(call[1].page == 97 && call[1].pages == 3);
	assert_true(call[2].page == 101 && call[2].pages == 4);
	source_give();
	batch_returns(t);
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
		struct trial *t = trial_begin(BACKING_SHMEM, flags[i], 0);
		struct hgm_hist queued;

		clock_ticks(tick_ns);
		batch_comes(t, 3, APART, MANY);
		batch_returns(t);
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
	struct trial *t = trial_begin(BACKING_SHMEM, 0, 0);
	struct call wake[CALLS], map[CALLS];
	unsigned int wakes;

	(void)state;
	conduct.takes_ns = 1000000;
	batch_comes(t, 3, APART, MANY);
	batch_returns(t);
	assert_int_equal(calls_of(CONTINUE, map), MANY);
	assert_int_equal(calls_of(WAKE, wake), MANY);
	for (unsigned int i = 0; i < MANY; i++) {
		assert_int_equal(wake[i].page, map[i].page);
		assert_int_equal(wake[i].at_ns, map[i].at_ns);
	}
	trial_end(t);

	/* Several answers come within 100 us. */
	t = trial_begin(BACKING_SHMEM, 0, 0);
	conduct.takes_ns = 30000;
	batch_comes(t, 3, APART, WAITERS);
	batch_returns(t);
	assert_int_equal(calls_of(CONTINUE, map), WAITERS);
	wakes = calls_of(WAKE, wake);
	assert_uint_in_range(wakes, 3, WAITERS / 2);
	for (unsigned int i = 0, w = 0; i < WAITERS; i++) {
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
	struct faults_read *ram = arg;

	return stats_of(ram->h).faults == ram->want;
}

static void assert_woken_alone(struct trial *t, uint64_t first_page)
{
	unsigned int before = t->count;
	struct call call[CALLS];

	forget_calls();
	batch_comes(t, first_page, 10, MANY);
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
	struct trial *t = trial_begin(BACKING_SHMEM, 0, 0);
	struct call call[CALLS];

	(void)state;
	read.h = t->h;
	conduct.later_page = 100 + 2 * 10;
	batch_comes(t, 100, 10, MANY);
	/* One wake is for all threads around the late one, and wakes the late one once in vain. */
	assert_true(eventually(faults_are_read, &read, 5000));
	for (unsigned int i = 0; i < MANY; i++)
		if (i != 2)
			assert_back(t, i);
	assert_int_equal(calls_of(WAKE, call), 1);

	/* From now on each thread is woken alone, for a while. */
	clock_goes_on(LATER_NS - 1);
	assert_woken_alone(t, 101);
	assert_false(is_back(&t->waiter[2]));
	source_give();
	batch_returns(t);
	assert_int_equal(stats_of(t->h).faults, 2 * MANY + 1);

	forget_calls();
	clock_goes_on(1);
	batch_comes(t, 102, 10, MANY);
	batch_returns(t);
	assert_int_equal(calls_of(WAKE, call), 1);
	assert_int_equal(stats_of(t->h).faults, 3 * MANY + 1);
	trial_end(t);
}

/* The same for adjacent pages that are requested together. */
static void half_an_answer_is_a_later_one(void **state)
{
	struct trial *t = trial_begin(BACKING_SHMEM, 0, 0);
	struct faults_read read = { .h = t->h, .want = MANY + MANY / 2 };

	(void)state;
	conduct.later_page = 100 + MANY / 2;
	batch_comes(t, 100, 1, MANY);
	assert_true(eventually(faults_are_read, &read, 5000));
	assert_woken_alone(t, 200);
	for (unsigned int i = 0; i < MANY; i++)
		assert_int_equal(is_back(&t->waiter[i]), i < MANY / 2);
	source_give();
	batch_returns(t);
	assert_int_equal(stats_of(t->h).faults, read.want + MANY);
	trial_end(t);
}

/* The fault thread must not wake for requests that it has handed on. */
static void who_is_left_to_others_is_woken(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON };
	struct trial *t;

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		t = trial_begin(backings[i], HGM_SOURCE_BLOCKING, 0);
		batch_comes(t, 3, APART, MANY);
		batch_returns(t);
		trial_end(t);

		/* The first page of a run, and a page alone. */
		for (uint64_t page = 50; page < 56; page += 5) {
			t = trial_begin(backings[i], 0, 0);
			kernel_refuses(page, -EAGAIN);
			batch_comes(t, 50, page == 50 ? 1 : 5, MANY);
			batch_returns(t);
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
		waiter_join(&t->waiter[i]);
		assert_int_equal(t->waiter[i].signal, i ? 0 : SIGBUS);
	}
	assert_pages(&batch_contents, t->page[1], t->count - 1, t->ram.addr + t->page[1] * PAGE);
	assert_int_equal(stats_of(t->h).poisoned_pages, 1);
	trial_end(t);
}

static void neighbours_of_a_bad_page_are_woken(void **state)
{
	struct trial *t;

	(void)state;
	skip_unless(KERNEL_POISON);
	t = trial_begin(BACKING_SHMEM, 0, HGM_RETRY_NEVER);
	conduct.bad_page = 20;
	batch_comes(t, 20, 1, MANY);
	assert_given_up(t);

	t = trial_begin(BACKING_ANON, 0, 0);
	kernel_refuses(20, -EIO);
	batch_comes(t, 20, 1, MANY);
	assert_given_up(t);
}

/* Some threads have been served, some are being served, and some are not served yet. */
static void the_end_releases_all(void **state)
{
	static uint8_t page[PAGE] __attribute__((aligned(8)));
	struct trial *t;

	(void)state;
	for (unsigned int round = 0; round < SMALLER(50, 10); round++) {
		t = trial_begin(round % 2 ? BACKING_SHMEM : BACKING_ANON, 0, 0);
		clock_runs();
		batch_comes(t, 3, round % 3 ? 1 : APART, WAITERS);
		if (round % 5 == 0)
			nap_us(20 * round);
		ram_end(&t->ram);
		for (unsigned int i = 0; i < t->count; i++) {
			assert_back(t, i);
			waiter_join(&t->waiter[i]);
			contents_write(&batch_contents, t->page[i], 1, page);
			if (t->waiter[i].signal != SIGSEGV) {
				assert_int_equal(t->waiter[i].signal, 0);
				assert_int_equal(t->waiter[i].value, page[0]);
			}
		}
		trial_forget(t);
	}
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, batch_set_up, batch_tear_down)

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
