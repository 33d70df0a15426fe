/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lives of regions and engines. They are created and removed while others are served, they end
 * while threads wait for pages that never arrive, and they are created and destroyed again and
 * again.
 */
#include "harness.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/sys.h"

#define WAITERS 4
#define WAIT_MS SMALLER(20000, 100000)

static const struct contents contents = { .seed = 99, .holes = true };

/*
 * Regions are created and destroyed, half filled and touched, while others are touched and checked.
 */
static void regions_come_and_go(void **state)
{
	static const enum feed_kind kinds[] = { FEED_LATER, FEED_NOW, FEED_BLOCKING, FEED_SHORT };
	static const enum place passing[] = { PLACE_SHMEM,     PLACE_SHMEM_LAZY, PLACE_ANON,
					      PLACE_FD_LAZY,   PLACE_MAPPING,	 PLACE_MAPPING_ANON,
					      PLACE_HUGETLB_2M };
	static const enum place staying[] = { PLACE_SHMEM, PLACE_ANON };
	uint64_t length = SMALLER(8, 4) * MIB;
	struct feed *feed[4];
	struct touchers touchers[2];
	_Atomic bool stop = false;
	struct field stay[2], f;
	struct hgm *h = engine(2);

	(void)state;
	watch("regions come and go", 60);
	for (unsigned int i = 0; i < 4; i++)
		feed[i] = feed_make(kinds[i], &contents, length);
	assert_ok(hgm_start(h));
	for (unsigned int i = 0; i < 2; i++) {
		struct plan plan = {
			.contents = &contents, .pages = length / PAGE, .write = true, .stop = &stop
		};

		field_make(&stay[i], h, staying[i], length, feed_source(feed[0]), 0);
		plan.addr = stay[i].addr;
		touchers_start(&touchers[i], 4, &plan);
	}
	for (unsigned int i = 0; i < SMALLER(60, 20); i++) {
		enum place place = passing[i % (sizeof(passing) / sizeof(passing[0]))];
		uint32_t flags = i % 5 == 4 ? HGM_REGION_NO_FILL : 0;
		struct touchers passers;
		struct plan plan = { .contents = &contents, .pages = 40 };

		if (place_lacking(place, length))
			place = PLACE_SHMEM;
		field_make(&f, h, place, length, feed_source(feed[i % 4]), flags);
		plan.addr = f.addr;
		touchers_start(&passers, 2, &plan);
		touchers_join(&passers);
		nap_us(i * 50);
		field_end(&f);
	}
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < 2; i++) {
		touchers_join(&touchers[i]);
	}
	assert_ok(hgm_wait(h, WAIT_MS));
	for (unsigned int i = 0; i < 2; i++) {
		assert_pages(&contents, 0, length / PAGE, stay[i].addr);
		assert_huge(&stay[i], staying[i]);
		field_end(&stay[i]);
	}
	hgm_destroy(h);
	for (unsigned int i = 0; i < 4; i++)
		feed_free(feed[i]);
	calm();
}

static bool keeps_one(void *arg)
{
	return feed_kept(arg) > 0;
}

/* Threads wait for pages that the source never delivers. Then the region or the engine ends. */
static void end_with_waiters(enum place place, bool whole_engine)
{
	bool mapping = place == PLACE_MAPPING || place == PLACE_MAPPING_LAZY ||
		       place == PLACE_MAPPING_ANON;
	uint64_t block_pages = place_block(place) / PAGE;
	uint64_t given = place < PLACES_SMALL ? 100 : block_pages;
	int end_signal = mapping && kernel_has(KERNEL_POISON) ? SIGBUS : SIGSEGV;
	struct feed *feed = feed_make(FEED_NEVER, &contents, 4 * MIB);
	struct hgm *h = engine(2);
	struct waiter waiter[WAITERS];
	struct field f;
	uint8_t value;

	watch(place_names[place], 60);
	feed_answer_below(feed, given);
	field_make(&f, h, place, 4 * MIB, feed_source(feed), HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	assert_pages(&contents, 0, given, f.addr);
	for (unsigned int i = 0; i < WAITERS; i++)
		waiter_start(&waiter[i], f.addr + (given + i * 7) * PAGE);
	assert_true(eventually(keeps_one, feed, 5000));
	nap_us(20000);
	for (unsigned int i = 0; i < WAITERS; i++)
		assert_int_equal(atomic_load(&waiter[i].signal), -1);
	if (whole_engine)
		hgm_destroy(h);
	else
		hgm_region_destroy(f.region);
	for (unsigned int i = 0; i < WAITERS; i++) {
		waiter_join(&waiter[i]);
		assert_int_equal(waiter[i].signal, end_signal);
	}
	assert_true(feed_cancels(feed) > 0);
	assert_int_equal(feed_kept(feed), 0);
	/*
	 * Pages that had not arrived can never be read. Pages that had arrived stay, if the library
	 * can distinguish them.
	 */
	if (end_signal == SIGBUS)
		assert_pages(&contents, 0, given, f.mapping);
	else
		assert_int_equal(touch(f.addr, &value), SIGSEGV);
	for (uint64_t p = given; mapping && p < f.length / PAGE; p += 61)
		assert_int_equal(touch(f.mapping + p * PAGE, &value), end_signal);
	field_release(&f);
	if (!whole_engine)
		hgm_destroy(h);
	feed_free(feed);
	calm();
}

static void waiters_are_released(void **state)
{
	(void)state;
	for (int place = 0; place < PLACES_SMALL; place++) {
		end_with_waiters((enum place)place, false);
		end_with_waiters((enum place)place, true);
	}
}

static void waiters_are_released_hugetlb(void **state)
{
	(void)state;
	if (place_lacking(PLACE_HUGETLB_2M, 4 * MIB))
		test_skip("%s", place_lacking(PLACE_HUGETLB_2M, 4 * MIB));
	end_with_waiters(PLACE_HUGETLB_2M, false);
	end_with_waiters(PLACE_FD_HUGETLB_2M, true);
}

struct wait_call {
	struct hgm *h;
	_Atomic int rc; /* 1: it has not returned */
};

static void *wait_call(void *arg)
{
	struct wait_call *w = arg;

	atomic_store(&w->rc, hgm_wait(w->h, -1));
	return NULL;
}

static bool wait_is_back(void *arg)
{
	return atomic_load(&((struct wait_call *)arg)->rc) != 1;
}

/* A thread that waits for an engine must notice that the incomplete region is gone. */
static void wait_ends_with_the_last_region(void **state)
{
	static const enum feed_kind kinds[] = { FEED_BLOCKING, FEED_NOW, FEED_NEVER };

	(void)state;
	watch("hgm_wait() while the last region is destroyed", 60);
	for (unsigned int i = 0; i < 3 * 3; i++) {
		struct feed *feed = feed_make(kinds[i % 3], &contents, 64 * MIB);
		struct wait_call w = { .h = engine(1), .rc = 1 };
		pthread_t thread;
		struct field f;

		field_make(&f, w.h, PLACE_SHMEM_LAZY, 64 * MIB, feed_source(feed), 0);
		assert_ok(hgm_start(w.h));
		assert_int_equal(pthread_create(&thread, NULL, wait_call, &w), 0);
		nap_us(1000 + 200 * i);
		field_end(&f);
		if (!eventually(wait_is_back, &w, 3000))
			fail_msg("hgm_wait() goes on although no region is left (source: %s)",
				 i % 3 == 2 ? "never" : feed_names[kinds[i % 3]]);
		pthread_join(thread, NULL);
		assert_int_equal(w.rc, 0);
		hgm_destroy(w.h);
		feed_free(feed);
	}
	calm();
}

/*
 * Without fill, hgm_wait() ends when the pages that were requested so far have arrived. This holds
 * the first time and every time.
 */
static void wait_without_fill(void **state)
{
	struct feed *feed = feed_make(FEED_NEVER, &contents, 4 * MIB);
	struct wait_call w = { .h = engine(1), .rc = 1 };
	struct waiter waiter;
	pthread_t thread;
	struct field f;

	(void)state;
	watch("hgm_wait() without fill", 60);
	field_make(&f, w.h, PLACE_SHMEM, 4 * MIB, feed_source(feed), HGM_REGION_NO_FILL);
	assert_ok(hgm_start(w.h));
	assert_ok(hgm_wait(w.h, 0));
	for (uint64_t p = 0; p < 5; p++) {
		waiter_start(&waiter, f.addr + p * PAGE);
		assert_true(eventually(keeps_one, feed, 5000));
		assert_error(hgm_wait(w.h, 0), -ETIMEDOUT);
		atomic_store(&w.rc, 1);
		assert_int_equal(pthread_create(&thread, NULL, wait_call, &w), 0);
		nap_us(5000);
		assert_int_equal(w.rc, 1);
		feed_give(feed);
		waiter_join(&waiter);
		if (!eventually(wait_is_back, &w, 2000))
			fail_msg("hgm_wait() goes on although page %llu, the last asked for, is "
				 "there",
				 (unsigned long long)p);
		pthread_join(thread, NULL);
		assert_int_equal(w.rc, 0);
	}
	feed_answer_below(feed, 1024);
	assert_ok(hgm_region_prefetch(f.region, MIB + 1, 3 * PAGE));
	assert_ok(hgm_wait(w.h, 3000));
	assert_int_equal(info_of(f.region).present_bytes, (5 + 4) * PAGE);
	field_end(&f);
	hgm_destroy(w.h);
	feed_free(feed);
	calm();
}

/* Regions are created before the start and after it. An engine ends without a start. */
static void any_order(void **state)
{
	struct feed *feed = feed_make(FEED_MEMORY, &contents, 4 * MIB);
	struct waiter waiter;
	struct hgm *h;
	struct field f;

	(void)state;
	watch("any order", 60);
	hgm_destroy(engine(3));

	h = engine(1);
	field_make(&f, h, PLACE_SHMEM, 4 * MIB, feed_source(feed), 0);
	assert_ok(hgm_region_prefetch(f.region, 0, MIB));
	hgm_destroy(h);
	field_release(&f);

	h = engine(1);
	field_make(&f, h, PLACE_ANON, 4 * MIB, feed_source(feed), 0);
	waiter_start(&waiter, f.addr + 17 * PAGE);
	nap_us(10000);
	assert_int_equal(waiter.signal, -1);
	assert_ok(hgm_start(h));
	assert_error(hgm_start(h), -EALREADY);
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, 0);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&contents, 0, f.length / PAGE, f.addr);
	hgm_destroy(h);

	h = engine(1);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, 0));
	field_make(&f, h, PLACE_SHMEM_LAZY, 4 * MIB, feed_source(feed), 0);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&contents, 0, f.length / PAGE, f.addr);
	hgm_destroy(h);

	/* A thread waits, and the engine is never started. The source is not read. */
	h = engine(1);
	field_make(&f, h, PLACE_SHMEM, 4 * MIB, feed_source(feed), 0);
	waiter_start(&waiter, f.addr);
	nap_us(10000);
	hgm_destroy(h);
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, SIGSEGV);
	feed_free(feed);
	calm();
}

static void rounds(unsigned int n, struct feed *feed)
{
	for (unsigned int i = 0; i < n; i++) {
		struct hgm *h = engine(1 + i % 3);
		struct field a, b;
		uint8_t value;

		if (i % 4)
			assert_ok(hgm_start(h));
		field_make(&a, h, (enum place)(i % PLACES_SMALL), MIB, feed_source(feed), 0);
		field_make(&b, h, PLACE_SHMEM, 2 * MIB, feed_source(feed), HGM_REGION_NO_FILL);
		if (i % 4)
			assert_int_equal(touch(b.addr + 5 * PAGE, &value), 0);
		if (i % 2)
			hgm_region_destroy(b.region);
		if (i % 8 == 7)
			assert_ok(hgm_wait(h, WAIT_MS));
		hgm_destroy(h);
		field_release(&a);
		field_release(&b);
	}
}

static void nothing_is_left_behind(void **state)
{
	struct feed *feed = feed_make(FEED_NOW, &contents, 4 * MIB);
	struct holdings before;

	(void)state;
	watch("200 rounds", 100);
	rounds(32, feed); /* allocates what the C library and liburcu keep */
	before = take_holdings();
	rounds(SMALLER(200, 40), feed);
	assert_same_holdings(&before);
	feed_free(feed);
	calm();
}

static const struct hgm_sys *kernel;
static _Atomic unsigned int smaps_reads;

static int no_pagemap_scan(int fd, const void *start, const void *end, uint64_t category,
			   struct hgm_pm_region *out, uint64_t out_len, uint64_t *walk_end)
{
	(void)fd;
	(void)start;
	(void)end;
	(void)category;
	(void)out;
	(void)out_len;
	(void)walk_end;
	return -ENOTTY;
}

static int counting_open(const char *path, int flags)
{
	if (!strcmp(path, "/proc/self/smaps"))
		atomic_fetch_add(&smaps_reads, 1);
	return kernel->open(path, flags);
}

#define MANY SMALLER(100, 20)

/* Where smaps must tell whether blocks are huge (before 6.7), it is not read for each region. */
static void many_are_verified_at_a_time(void **state)
{
	struct hgm_region_opts o = { .size = sizeof(o), .length = 4 * MIB };
	struct hgm_source *src;
	struct hgm_region *r;
	struct hgm_sys sys;
	struct hgm *h;
	char *memory = calloc(1, o.length);

	(void)state;
	watch("many regions are verified", 100);
	kernel = hgm_sys;
	sys = *kernel;
	sys.pagemap_scan = no_pagemap_scan;
	sys.open = counting_open;
	hgm_sys = &sys;
	assert_ok(hgm_source_memory(&src, memory, o.length));
	o.source = src;
	h = engine(1);
	for (unsigned int i = 0; i < MANY; i++)
		assert_ok(hgm_region_create(&r, h, &o));
	atomic_store(&smaps_reads, 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_true(atomic_load(&smaps_reads) > 0);
	assert_true(atomic_load(&smaps_reads) < MANY / 2);
	hgm_destroy(h);
	hgm_source_destroy(src);
	hgm_sys = kernel;
	free(memory);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(any_order),
	cmocka_unit_test(many_are_verified_at_a_time),
	cmocka_unit_test(nothing_is_left_behind),
	cmocka_unit_test(regions_come_and_go),
	cmocka_unit_test(waiters_are_released),
	cmocka_unit_test(waiters_are_released_hugetlb),
	cmocka_unit_test(wait_without_fill),
	cmocka_unit_test(wait_ends_with_the_last_region),
};

TEST_MAIN(tests)
