/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MADV_COLLAPSE that fails, for a while or always, or reports success and does nothing. Blocks
 * become huge in the end or are reported as left split, and faults continue to be served.
 */
#include "harness.h"
#include "kernel/sys.h"
#include "region/hgm.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#define WAIT_MS SMALLER(20000, 100000)

static const struct contents contents = { .seed = 78, .holes = true };
static const struct hgm_sys *kernel;
static struct hgm_sys sys;

/*
 * MADV_COLLAPSE of watched memory: it fails a number of times for each block, or does nothing and
 * returns 0.
 */
#define COLLAPSE_ALWAYS UINT32_MAX

static struct {
	char *addr;
	uint64_t length;
	int rc;
	uint32_t times;
	_Atomic uint32_t done[64];
	unsigned int together; /* calls that must be under way before the first returns */
	_Atomic unsigned int calls;
	_Atomic unsigned int first_calls; /* calls for a block that no call has named before */
	_Atomic uint64_t asked;		  /* bitmap of blocks */
	_Atomic bool held;		  /* nothing is collapsed */
} collapse;

static bool is_let_go(void *arg)
{
	(void)arg;
	return !atomic_load(&collapse.held);
}

static bool enough_calls(void *arg)
{
	(void)arg;
	return atomic_load(&collapse.calls) >= collapse.together;
}

/* If a call for several blocks fails for one of them, it is repeated for each block. */
static bool refuses(uint64_t at, uint64_t len)
{
	bool refused = false;

	for (uint64_t block = at >> 21; block < (at + len) >> 21; block++)
		if (collapse.rc && len > 2 * MIB)
			refused |= atomic_load(&collapse.done[block & 63]) < collapse.times;
		else
			refused |= atomic_fetch_add(&collapse.done[block & 63], 1) < collapse.times;
	return refused;
}

static void note_blocks(uint64_t at, uint64_t len)
{
	uint64_t blocks = ((UINT64_C(1) << (len >> 21)) - 1) << (at >> 21 & 63);

	if (blocks & ~atomic_fetch_or(&collapse.asked, blocks))
		atomic_fetch_add(&collapse.first_calls, 1);
}

static int odd_madvise(void *addr, uint64_t len, int advice)
{
	uint64_t at = (uint64_t)((char *)addr - collapse.addr);

	if (advice == HGM_MADV_COLLAPSE && collapse.addr && at < collapse.length) {
		atomic_fetch_add(&collapse.calls, 1);
		note_blocks(at, len);
		assert_true(eventually(is_let_go, NULL, WAIT_MS));
		assert_true(eventually(enough_calls, NULL, WAIT_MS));
		if (refuses(at, len))
			return collapse.rc;
	}
	return kernel->madvise(addr, len, advice);
}

/* After the kernel reports a block as huge, and before the library does, it is split once. */
static struct {
	_Atomic(char *) addr;
	_Atomic bool looked; /* PAGEMAP_SCAN exists and was used */
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
	*(volatile char *)addr; /* served while the collapser is still in this call */
	return rc;
}

static int set_up(void **state)
{
	(void)state;
	watch("collapse", 100);
	memset(&collapse, 0, sizeof(collapse));
	memset(&verify, 0, sizeof(verify));
	if (hgm_sys == &sys) /* it may be in use: a failed case leaves its engine behind */
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
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON };

	(void)state;
	for (size_t i = 0; i < 15; i++) {
		enum backing backing = backings[i / 5];
		struct provider *provider = provider_make(PROVIDER_NOW, &contents, 4 * MIB);
		struct hgm *h = engine(1);
		struct ram ram;

		memset(&collapse, 0, sizeof(collapse));
		ram_make(&ram, h, backing, 4 * MIB, provider_source(provider), 0);
		collapse.length = 4 * MIB;
		collapse.rc = errors[i % 5];
		collapse.times = 3;
		collapse.addr = ram.addr;
		assert_ok(hgm_start(h));
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_pages(&contents, 0, 1024, ram.addr);
		assert_int_equal(info_of(ram.region).left_split, 0);
		assert_huge(&ram, backing);
		assert_true(stats_of(h).collapse_tries >= 8);
		/* After EINVAL, a block with nothing mapped is tried again at once. */
		assert_true(stats_of(h).collapse_retries >=
			    (backing == BACKING_SHMEM && collapse.rc == -EINVAL ? 4 : 6));
		if (!collapse.rc)
			assert_true(stats_of(h).collapse_unproved >= 6);
		assert_int_equal(stats_of(h).collapsed_blocks, 2);
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
	}
}

static void collapse_never_works(void **state)
{
	static const int errors[] = { -EINVAL, 0 };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct provider *provider = provider_make(PROVIDER_NOW, &contents, 4 * MIB);
		struct hgm *h = engine(1);
		struct ram ram;

		ram_make(&ram, h, BACKING_SHMEM, 4 * MIB, provider_source(provider), 0);
		collapse.length = 4 * MIB;
		collapse.rc = errors[i];
		collapse.times = COLLAPSE_ALWAYS;
		collapse.addr = ram.addr;
		assert_ok(hgm_start(h));
		assert_pages(&contents, 0, 1024, ram.addr);
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_true(progress_of(h).complete);
		assert_int_equal(info_of(ram.region).left_split, 2);
		assert_int_equal(info_of(ram.region).collapse_error,
				 errors[i] ? errors[i] : -EAGAIN);
		assert_int_equal(info_of(ram.region).huge_bytes, 0);
		assert_int_equal(stats_of(h).collapsed_blocks, 0);
		/* Faults continue to be served, whether the memory is huge or not. */
		assert_int_equal(madvise(ram.addr, 4 * MIB, MADV_DONTNEED), 0);
		assert_pages(&contents, 0, 1024, ram.addr);
		assert_ok(hgm_wait(h, WAIT_MS));
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
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
 * All pages have arrived, no request is under way, and a collapse is still to be tried again. Then
 * the region ends.
 */
static void wait_sees_a_collapsing_region_go(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, 2 * MIB);
	struct hgm *h = engine(1);
	struct timespec ts;
	pthread_t thread;
	struct ram ram;
	void *rc;

	(void)state;
	ram_make(&ram, h, BACKING_SHMEM, 2 * MIB, provider_source(provider), 0);
	collapse.length = 2 * MIB;
	collapse.rc = -EAGAIN;
	collapse.times = COLLAPSE_ALWAYS;
	collapse.addr = ram.addr;
	assert_ok(hgm_start(h));
	assert_int_equal(pthread_create(&thread, NULL, wait_for_all, h), 0);
	assert_true(eventually(is_collapsing, h, 5000));
	ram_end(&ram);
	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += SMALLER(3, 20);
	if (pthread_timedjoin_np(thread, &rc, &ts))
		fail_msg("hgm_wait() goes on although its only region is gone");
	assert_null(rc);
	hgm_destroy(h);
	provider_free(provider);
}

static bool is_huge(void *arg)
{
	const struct ram *ram = arg;

	return huge_in_smaps(ram->addr, 2 * MIB) == 2 * MIB;
}

static void taken_apart_before_we_know(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, 2 * MIB);
	struct hgm *h = engine(1);
	struct ram ram;

	(void)state;
	ram_make(&ram, h, BACKING_SHMEM, 2 * MIB, provider_source(provider), 0);
	atomic_store(&verify.addr, ram.addr);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_int_equal(atomic_load(&verify.taken_apart), atomic_load(&verify.looked));
	assert_true(eventually(is_huge, &ram, 5000));
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

static void assert_helped(enum backing backing, unsigned int threads)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, 16 * MIB);
	struct hgm *h = engine_with((struct hgm_opts){ .collapse_threads = threads });
	struct ram ram;

	memset(&collapse, 0, sizeof(collapse));
	ram_make(&ram, h, backing, 16 * MIB, provider_source(provider), HGM_REGION_DEFER_COLLAPSE);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	collapse.rc = -EAGAIN;
	collapse.times = 2;
	collapse.length = 16 * MIB;
	collapse.addr = ram.addr;
	collapse.together = kernel_has(KERNEL_PAGEMAP_SCAN) ? threads : 1;
	assert_ok(hgm_region_collapse(ram.region));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&contents, 0, 16 * MIB / PAGE, ram.addr);
	assert_int_equal(info_of(ram.region).left_split, 0);
	assert_huge(&ram, backing);
	assert_int_equal(stats_of(h).collapsed_blocks, 8);
	assert_true(stats_of(h).collapse_tries >= 3 * 8);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

/* Several threads collapse blocks of one region at a time. Failed blocks are tried again. */
static void several_threads(void **state)
{
	(void)state;
	assert_helped(BACKING_SHMEM_LAZY, 2);
	assert_helped(BACKING_MAPPING_LAZY, 3);
	assert_helped(BACKING_FD_LAZY, 8);
}

/*
 * Each call makes all CPUs empty their lists of pages. Therefore adjacent blocks that need no copy
 * share one call. The first call may be for some of them only, as they are marked one by one.
 */
static void blocks_in_a_row_are_one_call(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, 32 * MIB);
	struct hgm *h = engine(1);
	struct ram ram;
	bool prepared;

	(void)state;
	ram_make(&ram, h, BACKING_SHMEM, 32 * MIB, provider_source(provider),
		 HGM_REGION_DEFER_COLLAPSE);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	prepared = ram.region->prepared_blocks == 16;
	collapse.length = 32 * MIB;
	collapse.held = true;
	collapse.addr = ram.addr;
	assert_ok(hgm_region_collapse(ram.region));
	atomic_store(&collapse.held, false);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_int_equal(collapse.asked, 0xffff);
	if (prepared)
		assert_uint_in_range(collapse.first_calls, 1, 2);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	if (!prepared)
		test_skip("no huge pages to prepare 32 MiB with");
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(collapse_fails_at_first),
	CASE(collapse_never_works),
	CASE(wait_sees_a_collapsing_region_go),
	CASE(taken_apart_before_we_know),
	CASE(several_threads),
	CASE(blocks_in_a_row_are_one_call),
};

TEST_MAIN(tests)
