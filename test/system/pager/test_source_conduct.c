/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a caller's function may behave. It may write more of the buffer than it delivers. It may
 * return long after another thread has given its answer. It may sleep, and then must delay only
 * fill.
 */
#include "harness.h"

#include <errno.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(4 * MIB)

static bool is_set(void *arg)
{
	return atomic_load((_Atomic bool *)arg);
}

/*
 * One page in three is zero, and the others hold 0x11. Each answer is one page. Everything behind
 * what it delivers is scribbled on first, as by a decoder that works in the buffer.
 */
enum scribbler {
	SHORT,	     /* a whole page, the rest is requested again */
	SHORT_LATER, /* the same by hgm_io_done() */
	SHORT_ODD,   /* a page and a half */
	FAILING,     /* the first try of each fails */
	SCRIBBLERS,
};

static bool is_hole(uint64_t page)
{
	return page % 3 == 1;
}

static int64_t scribbles(void *user, const struct hgm_io *io)
{
	enum scribbler how = *(enum scribbler *)user;
	struct hgm_io copy = *io;
	bool hole = is_hole(copy.offset / PAGE);

	if (how == FAILING && !copy.attempt) {
		memset(copy.buf, 0x22, copy.length);
		return -EIO;
	}
	if (hole)
		return (int64_t)PAGE | HGM_IO_ZERO;
	memset(copy.buf, 0x11, copy.length);
	if (how == SHORT_ODD && copy.length > PAGE)
		return (int64_t)PAGE + 2000;
	if (how != SHORT_LATER)
		return (int64_t)PAGE;
	hgm_io_done(&copy, (int64_t)PAGE);
	return HGM_IO_LATER;
}

static void assert_not_scribbled(const char *addr, const char *what)
{
	for (uint64_t p = 0; p < LENGTH / PAGE; p++) {
		uint8_t want = is_hole(p) ? 0 : 0x11;

		for (unsigned int i = 0; i < PAGE; i++)
			if ((uint8_t)addr[p * PAGE + i] != want)
				fail_msg("%s: page %llu, byte %u: %#x instead of %#x", what,
					 (unsigned long long)p, i, (uint8_t)addr[p * PAGE + i],
					 want);
	}
}

static void zeroes_behind_a_scribble(enum backing backing)
{
	for (int how = 0; how < SCRIBBLERS; how++) {
		enum scribbler scribbler = (enum scribbler)how;
		struct hgm *h = engine_with((struct hgm_opts){ .retry_first_us = 100 });
		struct hgm_source *src;
		struct ram ram;

		watch("zeroes behind a scribble", 60);
		assert_ok(hgm_source_fn(&src, scribbles, &scribbler, NULL));
		ram_make(&ram, h, backing, LENGTH, src, 0);
		assert_ok(hgm_start(h));
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_not_scribbled(ram.addr, backing_names[backing]);
		ram_end(&ram);
		hgm_destroy(h);
		hgm_source_destroy(src);
		calm();
	}
}

static void scribbled_small_pages(void **state)
{
	(void)state;
	for (int backing = 0; backing < BACKINGS_SMALL; backing++)
		zeroes_behind_a_scribble((enum backing)backing);
}

static void scribbled_hugetlb(void **state)
{
	(void)state;
	if (backing_lacking(BACKING_HUGETLB_2M, LENGTH))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, LENGTH));
	zeroes_behind_a_scribble(BACKING_HUGETLB_2M);
	zeroes_behind_a_scribble(BACKING_FD_HUGETLB_2M);
}

/* Records the request, and is still busy when another thread has answered it. */
struct lingerer {
	struct hgm_io io;
	_Atomic bool noted;
	_Atomic bool inside;
};

static int64_t lingers(void *user, const struct hgm_io *io)
{
	struct lingerer *l = user;

	atomic_store(&l->inside, true);
	l->io = *io;
	atomic_store(&l->noted, true);
	nap_us(300000);
	atomic_store(&l->inside, false);
	return HGM_IO_LATER;
}

static void *answer(void *arg)
{
	struct lingerer *l = arg;

	while (!atomic_load(&l->noted))
		nap_us(100);
	memset(l->io.buf, 0, l->io.length);
	hgm_io_done(&l->io, (int64_t)l->io.length);
	return NULL;
}

/* Once the region is gone, the caller may free what the function works on. */
static void end_comes_inside_the_function(bool on_demand, bool whole_engine)
{
	struct lingerer lingerer = { .noted = false };
	struct hgm *h = engine(1);
	struct hgm_source *src;
	pthread_t answerer;
	struct waiter waiter;
	struct ram ram;

	watch("the end of a region whose source is still busy", 20);
	assert_ok(hgm_source_fn(&src, lingers, &lingerer, NULL));
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	assert_int_equal(pthread_create(&answerer, NULL, answer, &lingerer), 0);
	if (on_demand)
		waiter_start(&waiter, ram.addr);
	else
		assert_ok(hgm_region_prefetch(ram.region, 0, PAGE));
	assert_true(eventually(is_set, &lingerer.noted, 5000));
	pthread_join(answerer, NULL);
	if (on_demand)
		waiter_join(&waiter);
	assert_true(atomic_load(&lingerer.inside));
	if (whole_engine)
		hgm_destroy(h);
	else
		ram_end(&ram);
	if (atomic_load(&lingerer.inside))
		fail_msg("the %s is gone, and its source's function still runs on a %s",
			 whole_engine ? "engine" : "region", on_demand ? "fault thread" : "worker");
	if (!whole_engine)
		hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

static void no_call_runs_after_the_end(void **state)
{
	(void)state;
	end_comes_inside_the_function(true, false);
	end_comes_inside_the_function(false, false);
	end_comes_inside_the_function(true, true);
}

/* Sleeps for long on requests that no thread waits for. */
#define SLOW_US	 600000
#define SLOWNESS (SLOW_US / 2)

struct sleeper {
	bool fails_first; /* requests of fill fail at once, and sleep when retried */
	_Atomic unsigned int asleep;
	_Atomic bool over;
};

static int64_t sleeps(void *user, const struct hgm_io *io)
{
	struct sleeper *s = user;

	memset(io->buf, 0x11, io->length);
	if (!(io->flags & HGM_IO_DEMAND) && !io->attempt && s->fails_first)
		return -EIO;
	if (!(io->flags & HGM_IO_DEMAND) && !atomic_load(&s->over)) {
		atomic_fetch_add(&s->asleep, 1);
		nap_us(SLOW_US);
		atomic_fetch_sub(&s->asleep, 1);
	}
	return (int64_t)io->length;
}

static bool somebody_sleeps(void *arg)
{
	return atomic_load(&((struct sleeper *)arg)->asleep);
}

static void demand_while_fill_sleeps(uint32_t workers, enum backing backing, bool prefetch,
				     bool retries)
{
	struct hgm_source_fn_opts opts = { .size = sizeof(opts), .flags = HGM_SOURCE_BLOCKING };
	struct hgm *h = engine_with((struct hgm_opts){ .fault_threads = 1, .workers = workers });
	struct sleeper sleeper = { .fails_first = retries };
	struct hgm_source *src;
	struct ram ram;
	uint64_t began;
	uint8_t value = 0;

	watch("demand behind slow fill", 30);
	assert_ok(hgm_source_fn(&src, sleeps, &sleeper, &opts));
	ram_make(&ram, h, backing, 16 * MIB, src, prefetch ? HGM_REGION_NO_FILL : 0);
	if (prefetch)
		assert_ok(hgm_region_prefetch(ram.region, 0, 64 * PAGE));
	assert_ok(hgm_start(h));
	assert_true(eventually(somebody_sleeps, &sleeper, 5000));
	nap_us(20000); /* other workers sleep by then too, if they may */
	for (unsigned int i = 0; i < 3; i++) {
		began = now_us();
		assert_int_equal(touch(ram.addr + (10 + i) * MIB, &value), 0);
		assert_int_equal(value, 0x11);
		if (now_us() - began > SLOWNESS)
			fail_msg("%s, %u workers: a demand page waited %llu ms behind fill",
				 backing_names[backing], workers,
				 (unsigned long long)(now_us() - began) / 1000);
	}
	atomic_store(&sleeper.over, true);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

static void demand_passes_sleeping_fill(void **state)
{
	(void)state;
	demand_while_fill_sleeps(2, BACKING_SHMEM, false, false);
	demand_while_fill_sleeps(3, BACKING_ANON, false, false);
	demand_while_fill_sleeps(2, BACKING_SHMEM_LAZY, true, false);
}

/* After an outage, all requests of fill are retried. They must not occupy all workers either. */
static void demand_passes_sleeping_retries(void **state)
{
	(void)state;
	demand_while_fill_sleeps(2, BACKING_SHMEM, true, true);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(scribbled_small_pages),
	cmocka_unit_test(scribbled_hugetlb),
	cmocka_unit_test(no_call_runs_after_the_end),
	cmocka_unit_test(demand_passes_sleeping_fill),
	cmocka_unit_test(demand_passes_sleeping_retries),
};

TEST_MAIN(tests)
