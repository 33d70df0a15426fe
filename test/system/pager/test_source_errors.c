/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sources that fail or lie. The waiter gets SIGBUS or the right bytes, never a wrong byte and never
 * a silent zero.
 */
#include "harness.h"
#include "kernel/sys.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#define WAIT_MS	  SMALLER(20000, 100000)
#define LENGTH	  (2 * MIB + 64 * PAGE)
#define FIRST_BAD 100
#define BAD_PAGES 3

static const struct contents contents = { .seed = 5, .holes = false };

/* A source with a list of bad pages, and what it does when it is asked for one. */
enum mischief {
	FAILS,
	FAILS_SCRIBBLING,
	ZERO_BYTES,
	LESS_THAN_A_PAGE,
	TOO_MUCH,
	GARBAGE,
	GARBAGE_LOW,
	MISCHIEFS,
};

static const char *const mischief_names[] = {
	[FAILS] = "-EIO",
	[FAILS_SCRIBBLING] = "scribbles, then -ENODATA",
	[ZERO_BYTES] = "0",
	[LESS_THAN_A_PAGE] = "4095",
	[TOO_MUCH] = "more than asked",
	[GARBAGE] = "INT64_MIN + 1",
	[GARBAGE_LOW] = "-2^40",
};

struct rogue {
	enum mischief mischief;
	bool later;
	_Atomic unsigned int failures; /* this many times, then it works */
	_Atomic unsigned int asked;    /* requests for bad pages */
	_Atomic uint64_t asked_us[32];
	_Atomic uint32_t attempt[32];
};

static int64_t misbehave(struct rogue *r, const struct hgm_io *io)
{
	switch (r->mischief) {
	case FAILS_SCRIBBLING:
		memset(io->buf, 0xbd, io->length);
		return -ENODATA;
	case ZERO_BYTES:
		return 0;
	case LESS_THAN_A_PAGE:
		return 4095;
	case TOO_MUCH:
		return (int64_t)io->length + 1;
	case GARBAGE:
		return INT64_MIN + 1;
	case GARBAGE_LOW:
		return -(INT64_C(1) << 40);
	default:
		return -EIO;
	}
}

static bool is_bad(uint64_t page)
{
	return page >= FIRST_BAD && page < FIRST_BAD + BAD_PAGES;
}

/*
 * Good pages are delivered up to the first bad one. In the end a bad page is requested by itself.
 */
static int64_t rogue_read(void *user, const struct hgm_io *io)
{
	uint64_t page = io->offset / PAGE;
	uint64_t n = io->length / PAGE;
	struct rogue *r = user;
	int64_t result;

	if (is_bad(page)) {
		unsigned int i = atomic_fetch_add(&r->asked, 1);

		if (i < 32) {
			atomic_store(&r->asked_us[i], now_us());
			atomic_store(&r->attempt[i], io->attempt);
		}
		if (i < atomic_load(&r->failures)) {
			result = misbehave(r, io);
			if (!r->later)
				return result;
			hgm_io_done(io, result);
			return HGM_IO_LATER;
		}
		n = 1;
	} else {
		for (uint64_t k = 1; k < n; k++)
			if (is_bad(page + k))
				n = k;
	}
	contents_write(&contents, page, n, io->buf);
	return (int64_t)(n * PAGE);
}

static struct hgm_source *rogue_source(struct rogue *r)
{
	struct hgm_source *src;

	assert_ok(hgm_source_fn(&src, rogue_read, r, NULL));
	return src;
}

static struct hgm *impatient(uint32_t retries)
{
	return engine_with(
		(struct hgm_opts){ .fault_threads = 1, .retries = retries, .retry_first_us = 500 });
}

/* Pages [from, to) raise SIGBUS. All others are right. */
static void assert_poison(const struct ram *ram, uint64_t from, uint64_t to)
{
	uint8_t value;

	for (uint64_t p = from; p < to; p++)
		if (touch(ram->addr + p * PAGE, &value) != SIGBUS)
			fail_msg("page %llu was given up, but reads as 0x%02x",
				 (unsigned long long)p, value);
	assert_pages(&contents, 0, from, ram->addr);
	assert_pages(&contents, to, ram->length / PAGE - to, ram->addr + to * PAGE);
}

/* The last request is given back just after its pages were subtracted from the count. */
static bool none_fails(void *arg)
{
	return !progress_of(arg).failing_requests;
}

/*
 * Without UFFDIO_POISON, the waiter waits on, the error is reported to the caller, all other pages
 * are served, and the page still arrives once the source recovers.
 */
static bool is_reported(void *arg)
{
	struct hgm_progress p = progress_of(arg);

	return p.failing_requests && p.last_error < 0;
}

static void stays_missing(enum backing backing, enum mischief mischief, bool later, uint32_t flags,
			  uint32_t retries)
{
	struct rogue r = { .mischief = mischief, .later = later, .failures = 1000000 };
	bool whole = backing >= BACKINGS_SMALL;
	uint64_t length = whole ? 4 * MIB : LENGTH;
	uint64_t good = whole ? 2 * MIB / PAGE : 0;
	struct hgm_source *src = rogue_source(&r);
	struct hgm *h = impatient(retries);
	struct pollfd poll_event = { .fd = hgm_event_fd(h), .events = POLLIN };
	struct waiter waiter;
	struct ram ram;

	watch(mischief_names[mischief], 60);
	ram_make(&ram, h, backing, length, src, flags);
	assert_ok(hgm_start(h));
	waiter_start(&waiter, ram.addr + FIRST_BAD * PAGE);
	assert_true(eventually(is_reported, h, 5000));
	if (poll(&poll_event, 1, 5000 * (int)slowness()) != 1)
		fail_msg("%s: nobody is told", backing_names[backing]);
	assert_error(hgm_wait(h, 100), -ETIMEDOUT);
	assert_int_equal(waiter.signal, -1);
	assert_pages(&contents, good, FIRST_BAD, ram.addr + good * PAGE);
	assert_int_equal(progress_of(h).poisoned_bytes, 0);
	assert_int_equal(stats_of(h).poisoned_pages, 0);
	assert_false(progress_of(h).complete);
	assert_int_equal(waiter.signal, -1);

	atomic_store(&r.failures, 0);
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, 0);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_true(eventually(none_fails, h, 1000));
	assert_pages(&contents, 0, length / PAGE, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

static bool all_good_came(void *arg)
{
	return info_of(arg).present_bytes == LENGTH - BAD_PAGES * PAGE;
}

static bool one_is_poison(void *h)
{
	return progress_of(h).poisoned_bytes == PAGE;
}

static void poison(enum backing backing, enum mischief mischief, bool later, uint32_t flags)
{
	struct rogue r = { .mischief = mischief, .later = later, .failures = 1000000 };
	struct hgm_source *src = rogue_source(&r);
	struct hgm *h = impatient(2);
	struct pollfd poll_event = { .fd = hgm_event_fd(h), .events = POLLIN };
	struct waiter waiter;
	struct ram ram;
	uint64_t told = 0;
	uint64_t huge;

	watch(mischief_names[mischief], 60);
	ram_make(&ram, h, backing, LENGTH, src, flags);
	assert_ok(hgm_start(h));
	waiter_start(&waiter, ram.addr + FIRST_BAD * PAGE + 5);
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, SIGBUS);
	assert_int_equal(poll(&poll_event, 1, 5000 * (int)slowness()), 1);
	assert_int_equal(read(poll_event.fd, &told, sizeof(told)), sizeof(told));
	if (!flags) { /* unwanted pages are neither given up nor present */
		assert_true(eventually(all_good_came, ram.region, WAIT_MS));
		assert_error(hgm_wait(h, 20), -ETIMEDOUT);
		assert_true(eventually(one_is_poison, h, 5000)); /* before it is counted */
	}
	assert_poison(&ram, FIRST_BAD, FIRST_BAD + BAD_PAGES);
	assert_error(hgm_wait(h, WAIT_MS), -EIO);
	if (progress_of(h).last_error >= 0)
		fail_msg("the source answered %s; last_error is %d", mischief_names[mischief],
			 progress_of(h).last_error);
	assert_true(eventually(none_fails, h, 1000));
	assert_int_equal(progress_of(h).poisoned_bytes, BAD_PAGES * PAGE);
	assert_int_equal(info_of(ram.region).poisoned_bytes, BAD_PAGES * PAGE);
	assert_int_equal(info_of(ram.region).present_bytes, LENGTH - BAD_PAGES * PAGE);
	if (kernel_has(KERNEL_PAGEMAP_SCAN)) {
		assert_int_equal(hgm_mapped_huge(ram.addr, 2 * MIB, &huge), 0);
		assert_int_equal(huge, 0); /* never collapsed over poison */
	}
	assert_int_equal(stats_of(h).poisoned_pages, BAD_PAGES);
	assert_true(stats_of(h).source_errors >= 3);
	assert_true(stats_of(h).source_retries >= 2);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

static void given_up(enum backing backing, enum mischief mischief, bool later, uint32_t flags)
{
	if (kernel_has(KERNEL_POISON))
		poison(backing, mischief, later, flags);
	else
		stays_missing(backing, mischief, later, flags, 2);
}

static void failed_pages_are_given_up(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON,
						 BACKING_MAPPING };

	(void)state;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++)
		given_up(backings[i], FAILS_SCRIBBLING, i % 2, HGM_REGION_NO_FILL);
	/* Where that takes long, answers are in turn immediate and late. */
	for (int m = 0; m < MISCHIEFS; m++) {
		if (SMALLER(true, m % 2 == 0))
			given_up(BACKING_SHMEM, (enum mischief)m, false, HGM_REGION_NO_FILL);
		if (SMALLER(true, m % 2 == 1))
			given_up(BACKING_SHMEM_LAZY, (enum mischief)m, true, HGM_REGION_NO_FILL);
	}
}

/* Fill requests many pages at once. Bad pages must not keep the good ones from arriving. */
static void fill_lacks_no_good_page(void **state)
{
	(void)state;
	given_up(BACKING_SHMEM, FAILS, false, 0);
	given_up(BACKING_SHMEM_LAZY, FAILS, true, 0);
	given_up(BACKING_ANON, ZERO_BYTES, false, 0);
}

/* Where a fault waits for its whole block, the whole block is given up, and no other. */
static void poisoned_block(void)
{
	struct rogue r = { .mischief = FAILS, .failures = 1000000 };
	struct hgm_source *src = rogue_source(&r);
	struct hgm *h = impatient(1);
	struct waiter waiter;
	struct ram ram;

	watch("poison in hugetlb", 60);
	ram_make(&ram, h, BACKING_HUGETLB_2M, 4 * MIB, src, 0);
	assert_ok(hgm_start(h));
	waiter_start(&waiter, ram.addr + 7 * PAGE);
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, SIGBUS);
	assert_error(hgm_wait(h, WAIT_MS), -EIO);
	assert_poison(&ram, 0, 2 * MIB / PAGE);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

static void failed_blocks_are_given_up(void **state)
{
	(void)state;
	if (backing_lacking(BACKING_HUGETLB_2M, 4 * MIB))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, 4 * MIB));
	if (kernel_has(KERNEL_POISON))
		poisoned_block();
	else
		stays_missing(BACKING_HUGETLB_2M, FAILS, false, 0, 1);
}

/* Each try comes later than the one before, waits twice as long, and knows its number. */
static void failures_are_retried_with_backoff(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON };

	(void)state;
	for (int i = 0; i < 3 * MISCHIEFS; i++) {
		struct rogue r = { .mischief = (enum mischief)(i % MISCHIEFS),
				   .later = i % 2,
				   .failures = 4 };
		struct hgm_source *src = rogue_source(&r);
		struct hgm *h = engine_with((struct hgm_opts){
			.fault_threads = 1, .retries = 4, .retry_first_us = 2000 });
		struct waiter waiter;
		struct ram ram;

		watch("retries", 60);
		ram_make(&ram, h, backings[i / MISCHIEFS], LENGTH, src, HGM_REGION_NO_FILL);
		assert_ok(hgm_start(h));
		waiter_start(&waiter, ram.addr + FIRST_BAD * PAGE);
		waiter_join(&waiter);
		assert_int_equal(waiter.signal, 0);
		assert_pages(&contents, FIRST_BAD, 1, ram.addr + FIRST_BAD * PAGE);
		assert_int_equal(r.asked, 5);
		for (unsigned int k = 1; k < 5; k++) {
			uint64_t gap = r.asked_us[k] - r.asked_us[k - 1];

			assert_int_equal(r.attempt[k], k);
			assert_uint_in_range(gap, 2000 << (k - 1), 2000000);
		}
		assert_int_equal(stats_of(h).source_errors, 4);
		assert_int_equal(stats_of(h).source_retries, 4);
		assert_int_equal(stats_of(h).poisoned_pages, 0);
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_true(eventually(none_fails, h, 1000));
		ram_end(&ram);
		hgm_destroy(h);
		hgm_source_destroy(src);
		calm();
	}
}

static void retry_never_means_never(void **state)
{
	struct rogue r = { .mischief = FAILS, .failures = 1 };
	struct hgm_source *src;
	struct hgm *h;
	struct ram ram;
	uint8_t value;

	(void)state;
	if (!kernel_has(KERNEL_POISON)) {
		stays_missing(BACKING_SHMEM, FAILS, false, HGM_REGION_NO_FILL, HGM_RETRY_NEVER);
		return;
	}
	watch("no retries", 60);
	src = rogue_source(&r);
	h = impatient(HGM_RETRY_NEVER);
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	assert_int_equal(touch(ram.addr + FIRST_BAD * PAGE, &value), SIGBUS);
	assert_int_equal(r.asked, 1);
	hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

/* The current kernel, which may be a model, but without UFFDIO_POISON. */
static const struct hgm_sys *kernel;

static int api_without_poison(int fd, uint64_t *features, uint64_t *ioctls)
{
	int rc = kernel->uffd_api(fd, features, ioctls);

	*features &= ~HGM_UFFD_FEATURE_POISON;
	return rc;
}

static int without_poison(void **state)
{
	static struct hgm_sys sys; /* static: a failed case leaves its engine behind */

	(void)state;
	if (!kernel)
		kernel = hgm_sys;
	sys = *kernel;
	sys.uffd_api = api_without_poison;
	hgm_sys = &sys;
	return 0;
}

static int as_before(void **state)
{
	(void)state;
	hgm_sys = kernel;
	return 0;
}

static void without_poison_the_page_stays_missing(void **state)
{
	(void)state;
	stays_missing(BACKING_SHMEM, FAILS, false, 0, 2);
	stays_missing(BACKING_ANON, FAILS, true, HGM_REGION_NO_FILL, 2);
}

/* The region ends while its source fails. A mapping of the caller's must not become readable. */
static void without_poison_the_mapping_is_sealed(void **state)
{
	struct rogue r = { .mischief = FAILS, .failures = 1000000 };
	struct hgm_source *src = rogue_source(&r);
	struct hgm *h = impatient(2);
	struct waiter waiter;
	struct ram ram;

	(void)state;
	watch("no UFFDIO_POISON", 60);
	assert_ok(hgm_start(h));
	ram_make(&ram, h, BACKING_MAPPING, LENGTH, src, 0);
	waiter_start(&waiter, ram.addr + FIRST_BAD * PAGE);
	nap_us(20000);
	hgm_region_destroy(ram.region);
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, SIGSEGV);
	ram_release(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

#define WITHOUT_POISON(fn) cmocka_unit_test_setup_teardown(fn, without_poison, as_before)

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(failed_pages_are_given_up),
	cmocka_unit_test(fill_lacks_no_good_page),
	cmocka_unit_test(failed_blocks_are_given_up),
	cmocka_unit_test(failures_are_retried_with_backoff),
	cmocka_unit_test(retry_never_means_never),
	WITHOUT_POISON(without_poison_the_page_stays_missing),
	WITHOUT_POISON(without_poison_the_mapping_is_sealed),
};

TEST_MAIN(tests)
