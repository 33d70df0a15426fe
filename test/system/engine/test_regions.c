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
	static const enum provider_kind kinds[] = { PROVIDER_LATER, PROVIDER_NOW, PROVIDER_BLOCKING,
						    PROVIDER_SHORT };
	static const enum backing passing[] = { BACKING_SHMEM,	   BACKING_SHMEM_LAZY,
						BACKING_ANON,	   BACKING_FD_LAZY,
						BACKING_MAPPING,   BACKING_MAPPING_ANON,
						BACKING_HUGETLB_2M };
	static const enum backing staying[] = { BACKING_SHMEM, BACKING_ANON };
	uint64_t length = SMALLER(8, 4) * MIB;
	struct provider *provider[4];
	struct touchers touchers[2];
	_Atomic bool stop = false;
	struct ram stay[2], ram;
	struct hgm *h = engine(2);

	(void)state;
	watch("regions come and go", 60);
	for (unsigned int i = 0; i < 4; i++)
		provider[i] = provider_make(kinds[i], &contents, length);
	assert_ok(hgm_start(h));
	for (unsigned int i = 0; i < 2; i++) {
		struct plan plan = {
			.contents = &contents, .pages = length / PAGE, .write = true, .stop = &stop
		};

		ram_make(&stay[i], h, staying[i], length, provider_source(provider[0]), 0);
		plan.addr = stay[i].addr;
		touchers_start(&touchers[i], 4, &plan);
	}
	for (unsigned int i = 0; i < SMALLER(60, 20); i++) {
		enum backing backing = passing[i % (sizeof(passing) / sizeof(passing[0]))];
		uint32_t flags = i % 5 == 4 ? HGM_REGION_NO_FILL : 0;
		struct touchers passers;
		struct plan plan = { .contents = &contents, .pages = 40 };

		if (backing_lacking(backing, length))
			backing = BACKING_SHMEM;
		ram_make(&ram, h, backing, length, provider_source(provider[i % 4]), flags);
		plan.addr = ram.addr;
		touchers_start(&passers, 2, &plan);
		touchers_join(&passers);
		nap_us(i * 50);
		ram_end(&ram);
	}
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < 2; i++) {
		touchers_join(&touchers[i]);
	}
	assert_ok(hgm_wait(h, WAIT_MS));
	for (unsigned int i = 0; i < 2; i++) {
		assert_pages(&contents, 0, length / PAGE, stay[i].addr);
		assert_huge(&stay[i], staying[i]);
		ram_end(&stay[i]);
	}
	hgm_destroy(h);
	for (unsigned int i = 0; i < 4; i++)
		provider_free(provider[i]);
	calm();
}

static bool keeps_one(void *arg)
{
	return provider_kept(arg) > 0;
}

/* Threads wait for pages that the source never delivers. Then the region or the engine ends. */
static void end_with_waiters(enum backing backing, bool whole_engine)
{
	bool mapping = backing == BACKING_MAPPING || backing == BACKING_MAPPING_LAZY ||
		       backing == BACKING_MAPPING_ANON;
	uint64_t block_pages = backing_block(backing) / PAGE;
	uint64_t given = backing < BACKINGS_SMALL ? 100 : block_pages;
	int end_signal = mapping && kernel_has(KERNEL_POISON) ? SIGBUS : SIGSEGV;
	struct provider *provider = provider_make(PROVIDER_NEVER, &contents, 4 * MIB);
	struct hgm *h = engine(2);
	struct waiter waiter[WAITERS];
	struct ram ram;
	uint8_t value;

	watch(backing_names[backing], 60);
	provider_answer_below(provider, given);
	ram_make(&ram, h, backing, 4 * MIB, provider_source(provider), HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	assert_pages(&contents, 0, given, ram.addr);
	for (unsigned int i = 0; i < WAITERS; i++)
		waiter_start(&waiter[i], ram.addr + (given + i * 7) * PAGE);
	assert_true(eventually(keeps_one, provider, 5000));
	nap_us(20000);
	for (unsigned int i = 0; i < WAITERS; i++)
		assert_int_equal(atomic_load(&waiter[i].signal), -1);
	if (whole_engine)
		hgm_destroy(h);
	else
		hgm_region_destroy(ram.region);
	for (unsigned int i = 0; i < WAITERS; i++) {
		waiter_join(&waiter[i]);
		assert_int_equal(waiter[i].signal, end_signal);
	}
	assert_true(provider_cancels(provider) > 0);
	assert_int_equal(provider_kept(provider), 0);
	/*
	 * Pages that had not arrived can never be read. Pages that had arrived stay, if the library
	 * can distinguish them.
	 */
	if (end_signal == SIGBUS)
		assert_pages(&contents, 0, given, ram.mapping);
	else
		assert_int_equal(touch(ram.addr, &value), SIGSEGV);
	for (uint64_t p = given; mapping && p < ram.length / PAGE; p += 61)
		assert_int_equal(touch(ram.mapping + p * PAGE, &value), end_signal);
	ram_release(&ram);
	if (!whole_engine)
		hgm_destroy(h);
	provider_free(provider);
	calm();
}

static void waiters_are_released(void **state)
{
	(void)state;
	for (int backing = 0; backing < BACKINGS_SMALL; backing++) {
		end_with_waiters((enum backing)backing, false);
		end_with_waiters((enum backing)backing, true);
	}
}

static void waiters_are_released_hugetlb(void **state)
{
	(void)state;
	if (backing_lacking(BACKING_HUGETLB_2M, 4 * MIB))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, 4 * MIB));
	end_with_waiters(BACKING_HUGETLB_2M, false);
	end_with_waiters(BACKING_FD_HUGETLB_2M, true);
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
	static const enum provider_kind kinds[] = { PROVIDER_BLOCKING, PROVIDER_NOW,
						    PROVIDER_NEVER };

	(void)state;
	watch("hgm_wait() while the last region is destroyed", 60);
	for (unsigned int i = 0; i < 3 * 3; i++) {
		struct provider *provider = provider_make(kinds[i % 3], &contents, 64 * MIB);
		struct wait_call w = { .h = engine(1), .rc = 1 };
		pthread_t thread;
		struct ram ram;

		ram_make(&ram, w.h, BACKING_SHMEM_LAZY, 64 * MIB, provider_source(provider), 0);
		assert_ok(hgm_start(w.h));
		assert_int_equal(pthread_create(&thread, NULL, wait_call, &w), 0);
		nap_us(1000 + 200 * i);
		ram_end(&ram);
		if (!eventually(wait_is_back, &w, 3000))
			fail_msg("hgm_wait() goes on although no region is left (source: %s)",
				 i % 3 == 2 ? "never" : provider_names[kinds[i % 3]]);
		pthread_join(thread, NULL);
		assert_int_equal(w.rc, 0);
		hgm_destroy(w.h);
		provider_free(provider);
	}
	calm();
}

/*
 * Without fill, hgm_wait() ends when the pages that were requested so far have arrived. This holds
 * the first time and every time.
 */
static void wait_without_fill(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NEVER, &contents, 4 * MIB);
	struct wait_call w = { .h = engine(1), .rc = 1 };
	struct waiter waiter;
	pthread_t thread;
	struct ram ram;

	(void)state;
	watch("hgm_wait() without fill", 60);
	ram_make(&ram, w.h, BACKING_SHMEM, 4 * MIB, provider_source(provider), HGM_REGION_NO_FILL);
	assert_ok(hgm_start(w.h));
	assert_ok(hgm_wait(w.h, 0));
	for (uint64_t p = 0; p < 5; p++) {
		waiter_start(&waiter, ram.addr + p * PAGE);
		assert_true(eventually(keeps_one, provider, 5000));
		assert_error(hgm_wait(w.h, 0), -ETIMEDOUT);
		atomic_store(&w.rc, 1);
		assert_int_equal(pthread_create(&thread, NULL, wait_call, &w), 0);
		nap_us(5000);
		assert_int_equal(w.rc, 1);
		provider_give(provider);
		waiter_join(&waiter);
		if (!eventually(wait_is_back, &w, 2000))
			fail_msg("hgm_wait() goes on although page %llu, the last asked for, is "
				 "there",
				 (unsigned long long)p);
		pthread_join(thread, NULL);
		assert_int_equal(w.rc, 0);
	}
	provider_answer_below(provider, 1024);
	assert_ok(hgm_region_prefetch(ram.region, MIB + 1, 3 * PAGE));
	assert_ok(hgm_wait(w.h, 3000));
	assert_int_equal(info_of(ram.region).present_bytes, (5 + 4) * PAGE);
	ram_end(&ram);
	hgm_destroy(w.h);
	provider_free(provider);
	calm();
}

/* Regions are created before the start and after it. An engine ends without a start. */
static void any_order(void **state)
{
	struct provider *provider = provider_make(PROVIDER_MEMORY, &contents, 4 * MIB);
	struct waiter waiter;
	struct hgm *h;
	struct ram ram;

	(void)state;
	watch("any order", 60);
	hgm_destroy(engine(3));

	h = engine(1);
	ram_make(&ram, h, BACKING_SHMEM, 4 * MIB, provider_source(provider), 0);
	assert_ok(hgm_region_prefetch(ram.region, 0, MIB));
	hgm_destroy(h);
	ram_release(&ram);

	h = engine(1);
	ram_make(&ram, h, BACKING_ANON, 4 * MIB, provider_source(provider), 0);
	waiter_start(&waiter, ram.addr + 17 * PAGE);
	nap_us(10000);
	assert_int_equal(waiter.signal, -1);
	assert_ok(hgm_start(h));
	assert_error(hgm_start(h), -EALREADY);
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, 0);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&contents, 0, ram.length / PAGE, ram.addr);
	hgm_destroy(h);

	h = engine(1);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, 0));
	ram_make(&ram, h, BACKING_SHMEM_LAZY, 4 * MIB, provider_source(provider), 0);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&contents, 0, ram.length / PAGE, ram.addr);
	hgm_destroy(h);

	/* A thread waits, and the engine is never started. The source is not read. */
	h = engine(1);
	ram_make(&ram, h, BACKING_SHMEM, 4 * MIB, provider_source(provider), 0);
	waiter_start(&waiter, ram.addr);
	nap_us(10000);
	hgm_destroy(h);
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, SIGSEGV);
	provider_free(provider);
	calm();
}

static void rounds(unsigned int n, struct provider *provider)
{
	for (unsigned int i = 0; i < n; i++) {
		struct hgm *h = engine(1 + i % 3);
		struct ram a, b;
		uint8_t value;

		if (i % 4)
			assert_ok(hgm_start(h));
		ram_make(&a, h, (enum backing)(i % BACKINGS_SMALL), MIB, provider_source(provider),
			 0);
		ram_make(&b, h, BACKING_SHMEM, 2 * MIB, provider_source(provider),
			 HGM_REGION_NO_FILL);
		if (i % 4)
			assert_int_equal(touch(b.addr + 5 * PAGE, &value), 0);
		if (i % 2)
			hgm_region_destroy(b.region);
		if (i % 8 == 7)
			assert_ok(hgm_wait(h, WAIT_MS));
		hgm_destroy(h);
		ram_release(&a);
		ram_release(&b);
	}
}

static void nothing_is_left_behind(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, 4 * MIB);
	struct holdings before;

	(void)state;
	watch("200 rounds", 100);
	rounds(32, provider); /* allocates what the C library and liburcu keep */
	before = take_holdings();
	rounds(SMALLER(200, 40), provider);
	assert_same_holdings(&before);
	provider_free(provider);
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
