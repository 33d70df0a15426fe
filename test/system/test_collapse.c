/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MADV_COLLAPSE that fails, for a while or always, or does nothing and says that it did: blocks
 * become huge in the end or are told as left split, and faults are served for ever.
 */
#include "harness.h"
#include "sys.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#define WAIT_MS SMALLER(20000, 100000)

static const struct contents contents = { .seed = 78, .holes = true };
static const struct hgm_sys *kernel;
static struct hgm_sys sys;

/*
 * MADV_COLLAPSE of watched memory: fails so many times for each block, or does nothing and says
 * 0.
 */
#define COLLAPSE_ALWAYS UINT32_MAX

static struct {
	char *addr;
	uint64_t length;
	int rc;
	uint32_t times;
	_Atomic uint32_t done[64];
} collapse;

static int odd_madvise(void *addr, uint64_t len, int advice)
{
	uint64_t at = (uint64_t)((char *)addr - collapse.addr);

	if (advice == HGM_MADV_COLLAPSE && collapse.addr && at < collapse.length &&
	    atomic_fetch_add(&collapse.done[at >> 21 & 63], 1) < collapse.times)
		return collapse.rc;
	return kernel->madvise(addr, len, advice);
}

/* Between the kernel's word that a block is huge and ours somebody takes it apart, once. */
static struct {
	_Atomic(char *) addr;
	_Atomic bool looked; /* it has PAGEMAP_SCAN for that */
	_Atomic bool taken_apart;
} verify;

static int odd_scan(int fd, const void *start, const void *end, uint64_t category,
		    struct hgm_pm_region *found, uint64_t max, uint64_t *walk_end)
{
	int rc = kernel->pagemap_scan(fd, start, end, category, found, max, walk_end);
	char *addr = atomic_load(&verify.addr);

	if (!addr || start != addr || rc < 0)
		return rc;
	atomic_store(&verify.looked, true);
	if (!rc || !(found[0].categories & HGM_PAGE_IS_HUGE))
		return rc;
	atomic_store(&verify.addr, NULL);
	atomic_store(&verify.taken_apart, true);
	madvise(addr, PAGE, MADV_DONTNEED);
	*(volatile char *)addr; /* served while the collapser is still here */
	return rc;
}

static int set_up(void **state)
{
	(void)state;
	watch("collapse", 100);
	memset(&collapse, 0, sizeof(collapse));
	memset(&verify, 0, sizeof(verify));
	if (hgm_sys == &sys) /* and perhaps in use: a failed case leaves its engine behind */
		return 0;
	kernel = hgm_sys;
	sys = *kernel;
	sys.madvise = odd_madvise;
	sys.pagemap_scan = odd_scan;
	hgm_sys = &sys;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	memset(&collapse, 0, sizeof(collapse));
	calm();
	return 0;
}

/* MADV_COLLAPSE that fails a few times with each errno, or does nothing. */
static void collapse_fails_at_first(void **state)
{
	static const int errors[] = { -EAGAIN, -EBUSY, -EINVAL, -ENOMEM, 0 };
	static const enum place places[] = { PLACE_SHMEM, PLACE_SHMEM_LAZY, PLACE_ANON };

	(void)state;
	for (size_t i = 0; i < 15; i++) {
		enum place place = places[i / 5];
		struct feed *feed = feed_make(FEED_NOW, &contents, 4 * MIB);
		struct hgm *h = engine(1);
		struct field f;

		memset(&collapse, 0, sizeof(collapse));
		field_make(&f, h, place, 4 * MIB, feed_source(feed), 0);
		collapse.length = 4 * MIB;
		collapse.rc = errors[i % 5];
		collapse.times = 3;
		collapse.addr = f.addr;
		assert_ok(hgm_start(h));
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_pages(&contents, 0, 1024, f.addr);
		assert_int_equal(info_of(f.region).left_split, 0);
		assert_huge(&f, place);
		assert_true(stats_of(h).collapse_tries >= 8);
		/* EINVAL of a block with nothing mapped is asked about again at once. */
		assert_true(stats_of(h).collapse_retries >=
			    (place == PLACE_SHMEM && collapse.rc == -EINVAL ? 4 : 6));
		if (!collapse.rc)
			assert_true(stats_of(h).collapse_unproved >= 6);
		assert_int_equal(stats_of(h).collapsed_blocks, 2);
		field_end(&f);
		hgm_destroy(h);
		feed_free(feed);
	}
}

static void collapse_never_works(void **state)
{
	static const int errors[] = { -EINVAL, 0 };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct feed *feed = feed_make(FEED_NOW, &contents, 4 * MIB);
		struct hgm *h = engine(1);
		struct field f;

		field_make(&f, h, PLACE_SHMEM, 4 * MIB, feed_source(feed), 0);
		collapse.length = 4 * MIB;
		collapse.rc = errors[i];
		collapse.times = COLLAPSE_ALWAYS;
		collapse.addr = f.addr;
		assert_ok(hgm_start(h));
		assert_pages(&contents, 0, 1024, f.addr);
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_true(progress_of(h).complete);
		assert_int_equal(info_of(f.region).left_split, 2);
		assert_int_equal(info_of(f.region).collapse_error, errors[i] ? errors[i] : -EAGAIN);
		assert_int_equal(info_of(f.region).huge_bytes, 0);
		assert_int_equal(stats_of(h).collapsed_blocks, 0);
		/* Faults are served for ever, huge or not. */
		assert_int_equal(madvise(f.addr, 4 * MIB, MADV_DONTNEED), 0);
		assert_pages(&contents, 0, 1024, f.addr);
		assert_ok(hgm_wait(h, WAIT_MS));
		field_end(&f);
		hgm_destroy(h);
		feed_free(feed);
	}
}

static void *wait_for_all(void *arg)
{
	return (void *)(intptr_t)hgm_wait(arg, -1);
}

static bool is_collapsing(void *arg)
{
	return stats_of(arg).collapse_retries >= 8;
}

/*
 * All pages are there, no request is under way, a collapse is to be tried again: and the region
 * goes.
 */
static void wait_sees_a_collapsing_region_go(void **state)
{
	struct feed *feed = feed_make(FEED_NOW, &contents, 2 * MIB);
	struct hgm *h = engine(1);
	struct timespec ts;
	pthread_t thread;
	struct field f;
	void *rc;

	(void)state;
	field_make(&f, h, PLACE_SHMEM, 2 * MIB, feed_source(feed), 0);
	collapse.length = 2 * MIB;
	collapse.rc = -EAGAIN;
	collapse.times = COLLAPSE_ALWAYS;
	collapse.addr = f.addr;
	assert_ok(hgm_start(h));
	assert_int_equal(pthread_create(&thread, NULL, wait_for_all, h), 0);
	assert_true(eventually(is_collapsing, h, 5000));
	field_end(&f);
	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += SMALLER(3, 20);
	if (pthread_timedjoin_np(thread, &rc, &ts))
		fail_msg("hgm_wait() goes on although its only region is gone");
	assert_null(rc);
	hgm_destroy(h);
	feed_free(feed);
}

static bool is_huge(void *arg)
{
	const struct field *f = arg;

	return huge_in_smaps(f->addr, 2 * MIB) == 2 * MIB;
}

static void taken_apart_before_we_know(void **state)
{
	struct feed *feed = feed_make(FEED_NOW, &contents, 2 * MIB);
	struct hgm *h = engine(1);
	struct field f;

	(void)state;
	field_make(&f, h, PLACE_SHMEM, 2 * MIB, feed_source(feed), 0);
	atomic_store(&verify.addr, f.addr);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_int_equal(atomic_load(&verify.taken_apart), atomic_load(&verify.looked));
	assert_true(eventually(is_huge, &f, 5000));
	field_end(&f);
	hgm_destroy(h);
	feed_free(feed);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(collapse_fails_at_first),
	CASE(collapse_never_works),
	CASE(wait_sees_a_collapsing_region_go),
	CASE(taken_apart_before_we_know),
};

TEST_MAIN(tests)
