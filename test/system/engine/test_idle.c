/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An engine with nothing to do costs nothing. An engine that has done everything continues to
 * serve: a block that is split is mapped again and becomes huge again.
 */
#include "harness.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define LENGTH	(16 * MIB)
#define WAIT_MS 20000

static const struct contents contents = { .seed = 3 };

static uint64_t cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* Threads that are still finishing after the last work may do so first. */
static void assert_idle(struct hgm *h, const char *what)
{
	uint64_t before, start, used, passed, sleeps;

	nap_us(300000);
	sleeps = stats_of(h).sleeps;
	before = cpu_us();
	start = now_us();
	nap_us(2000000);
	used = cpu_us() - before;
	passed = now_us() - start;
	if (used * 100 >= passed)
		fail_msg("%s: %llu us of CPU time in %llu us", what, (unsigned long long)used,
			 (unsigned long long)passed);
	if (stats_of(h).sleeps - sleeps > 20)
		fail_msg("%s: fault threads woke %llu times", what,
			 (unsigned long long)(stats_of(h).sleeps - sleeps));
}

/*
 * The same measurement of an engine that is not idle: it tries a parked request every millisecond.
 */
static int64_t burns(void *user, const struct hgm_io *io)
{
	uint64_t end = now_us() + 20000;

	(void)user;
	(void)io;
	while (now_us() < end)
		;
	return -EIO;
}

static void work_is_seen(void **state)
{
	struct hgm *h = engine_with((struct hgm_opts){ .fault_threads = 1, .retries = 1000000 });
	struct hgm_source *src;
	struct waiter waiter;
	struct ram ram;
	uint64_t before;

	(void)state;
	watch("an engine that works", 60);
	assert_ok(hgm_source_fn(&src, burns, NULL, NULL));
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, 0);
	assert_ok(hgm_start(h));
	waiter_start(&waiter, ram.addr);
	before = cpu_us();
	nap_us(300000);
	assert_true((cpu_us() - before) * 100 >= 300000);
	ram_end(&ram);
	waiter_join(&waiter);
	hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

static void idle_when_complete(void **state)
{
	struct provider *provider = provider_make(PROVIDER_LATER, &contents, LENGTH);
	struct hgm *h = engine(4);
	struct ram ram;

	(void)state;
	watch("idle when complete", 60);
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	assert_pages(&contents, 0, LENGTH / PAGE, ram.addr);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_idle(h, "complete");
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	calm();
}

/* An engine that was started and touched, without fill, and a request that a source keeps. */
static void idle_without_fill(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NEVER, &contents, LENGTH);
	struct hgm *h = engine(4);
	struct waiter waiter;
	struct ram ram;

	(void)state;
	watch("idle without fill", 60);
	provider_answer_below(provider, 200);
	ram_make(&ram, h, BACKING_SHMEM_LAZY, LENGTH, provider_source(provider),
		 HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	assert_pages(&contents, 0, 200, ram.addr);
	assert_idle(h, "without fill");
	waiter_start(&waiter, ram.addr + MIB);
	assert_idle(h, "while a source takes its time");
	assert_int_equal(waiter.signal, -1);
	ram_end(&ram);
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, SIGSEGV);
	hgm_destroy(h);
	provider_free(provider);
	calm();
}

static bool is_huge_again(void *arg)
{
	const struct ram *ram = arg;
	uint64_t huge;

	if (hgm_mapped_huge(ram->addr, LENGTH, &huge))
		huge = huge_in_smaps(ram->addr, LENGTH);
	/* The library must know it, too. It may take a block that is split before that for huge. */
	return huge >= LENGTH * 95 / 100 && info_of(ram->region).huge_bytes >= LENGTH * 95 / 100;
}

enum blow {
	DONTNEED_ALL,
	DONTNEED_PAGES,
	MPROTECT_PAGE
};

/* Splits huge mappings as the kernel and callers do, and touches everything again. */
static void strike(const struct ram *ram, enum blow blow)
{
	for (uint64_t at = 0; at < LENGTH; at += 2 * MIB) {
		char *page = ram->addr + at + 9 * PAGE;

		if (blow == DONTNEED_ALL) {
			assert_int_equal(madvise(ram->addr + at, 2 * MIB, MADV_DONTNEED), 0);
		} else if (blow == DONTNEED_PAGES) {
			assert_int_equal(madvise(page, PAGE, MADV_DONTNEED), 0);
		} else {
			assert_int_equal(mprotect(page, PAGE, PROT_READ), 0);
			assert_int_equal(mprotect(page, PAGE, PROT_READ | PROT_WRITE), 0);
		}
	}
	assert_pages(&contents, 0, LENGTH / PAGE, ram->addr);
}

static void falls_apart_and_heals(enum backing backing)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct plan plan = { .contents = &contents, .pages = LENGTH / PAGE };
	_Atomic bool stop = false;
	struct touchers touchers;
	struct hgm *h = engine(2);
	struct ram ram;
	uint64_t asked;

	watch("blocks that fall apart", 60);
	ram_make(&ram, h, backing, LENGTH, provider_source(provider), 0);
	plan.addr = ram.addr;
	plan.stop = &stop;
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_huge(&ram, backing);
	asked = stats_of(h).fill_requests + stats_of(h).faults_demand;
	touchers_start(&touchers, 2, &plan);
	for (int i = 0; i < 6; i++) {
		strike(&ram, (enum blow)(i % 3));
		if (!eventually(is_huge_again, &ram, 5000))
			fail_msg("%s: after blow %d of kind %d not huge again: %llu kB in smaps",
				 backing_names[backing], i, i % 3,
				 (unsigned long long)huge_in_smaps(ram.addr, LENGTH) >> 10);
	}
	atomic_store(&stop, true);
	touchers_join(&touchers);
	assert_ok(hgm_wait(h, WAIT_MS));
	/* Pages are mapped again, but never fetched again. */
	assert_int_equal(stats_of(h).fill_requests + stats_of(h).faults_demand, asked);
	assert_true(stats_of(h).faults_present > 0);
	assert_int_equal(info_of(ram.region).left_split, 0);
	assert_idle(h, "after blocks fell apart");
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	calm();
}

static void shmem_heals(void **state)
{
	(void)state;
	falls_apart_and_heals(BACKING_SHMEM);
}

static void lazy_shmem_heals(void **state)
{
	(void)state;
	falls_apart_and_heals(BACKING_SHMEM_LAZY);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(work_is_seen),	     cmocka_unit_test(idle_when_complete),
	cmocka_unit_test(idle_without_fill), cmocka_unit_test(shmem_heals),
	cmocka_unit_test(lazy_shmem_heals),
};

TEST_MAIN(tests)
