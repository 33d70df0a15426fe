/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process that locks its memory (mlockall, as QEMU does with -overcommit mem-lock=on): the kernel
 * then fills each new mapping by itself, and mapped pages never fault. The library must not take
 * pages that were mapped that way for contents.
 *
 * A program of its own: what is locked stays so for all that comes after.
 */
#include "harness.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define WAIT_MS 20000
#define LENGTH	(4 * MIB)

/* The memory that an engine maps, with room to spare. Most of it is request buffers. */
#define MUST_BE_LOCKABLE (512 * MIB)

static const struct contents contents = { .seed = 41, .holes = true };

/* Sanitizers make mlockall() do nothing, and limits may forbid it. */
static const char *lock_all(void)
{
	void *probe;

	if (SANITIZED)
		return "sanitizers do not lock memory";
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		return errno == EPERM ? "mlockall: EPERM" : "mlockall: RLIMIT_MEMLOCK is too low";
	probe = mmap(NULL, MUST_BE_LOCKABLE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (probe == MAP_FAILED) {
		munlockall();
		return "RLIMIT_MEMLOCK is too low";
	}
	munmap(probe, MUST_BE_LOCKABLE);
	return NULL;
}

static int unlock_all(void **state)
{
	(void)state;
	munlockall();
	calm();
	return 0;
}

/* No page is mapped before it is served. Each page faults, and each holds its contents. */
static void on_demand(enum backing backing, uint32_t flags)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct plan plan = { .contents = &contents, .pages = LENGTH / PAGE, .write = true };
	struct touchers touchers;
	struct hgm *h = engine(2);
	struct ram ram;

	ram_make(&ram, h, backing, LENGTH, provider_source(provider), HGM_REGION_NO_FILL | flags);
	plan.addr = ram.addr;
	assert_ok(hgm_start(h));
	touchers_start(&touchers, 2, &plan);
	touchers_join(&touchers);
	if (!stats_of(h).faults_demand)
		fail_msg("%s: nothing faulted", backing_names[backing]);
	assert_int_equal(info_of(ram.region).present_bytes, LENGTH);
	assert_pages(&contents, 0, LENGTH / PAGE, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

/* The same without a touch. Memory that hgm_wait() reports as complete is right. */
static void by_fill(enum backing backing)
{
	struct provider *provider = provider_make(PROVIDER_LATER, &contents, LENGTH);
	struct hgm *h = engine(1);
	struct ram ram;

	ram_make(&ram, h, backing, LENGTH, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&contents, 0, LENGTH / PAGE, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

static void serves(enum backing backing)
{
	const char *lacking = backing_lacking(backing, LENGTH);

	if (!lacking)
		lacking = lock_all();
	if (lacking)
		test_skip("%s", lacking);
	watch(backing_names[backing], 60);
	on_demand(backing, 0);
	on_demand(backing, HGM_REGION_NO_COLLAPSE);
	by_fill(backing);
}

/* The value of @key in /proc/self/status, in KiB of the process's memory. */
static uint64_t status_kib(const char *key)
{
	FILE *status = fopen("/proc/self/status", "r");
	uint64_t kib = 0;
	char line[256];

	assert_non_null(status);
	while (fgets(line, sizeof(line), status))
		if (!strncmp(line, key, strlen(key)))
			kib = strtoull(line + strlen(key), NULL, 10);
	fclose(status);
	return kib;
}

/*
 * Untouched memory is not allocated, however the process locks: neither guest memory nor the
 * library's own.
 */
static void stays_lazy(enum backing backing, uint64_t most_kib)
{
	const uint64_t length = 256 * MIB;
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, length);
	const char *lacking = lock_all();
	uint64_t before, after;
	struct hgm *h;
	struct ram ram;

	if (lacking)
		test_skip("%s", lacking);
	watch(backing_names[backing], 60);
	before = status_kib("RssAnon:") + status_kib("RssShmem:");
	h = engine(2);
	ram_make(&ram, h, backing, length, provider_source(provider), HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	after = status_kib("RssAnon:") + status_kib("RssShmem:");
	if (after > before + most_kib)
		fail_msg("%s: %llu KiB came with a region of which nothing was touched",
			 backing_names[backing], (unsigned long long)(after - before));
	/* Pages that have arrived are locked, as the process wants. */
	before = status_kib("VmLck:");
	assert_pages(&contents, 0, 1, ram.addr);
	assert_true(before >= length >> 10);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

static void lazy_stays_lazy(void **state)
{
	(void)state;
	/* The threads' stacks, liburcu's of RLIMIT_STACK among them. */
	stays_lazy(BACKING_SHMEM_LAZY, 40 << 10);
	stays_lazy(BACKING_ANON, 40 << 10);
}

static void shmem(void **state)
{
	(void)state;
	serves(BACKING_SHMEM);
}

static void shmem_lazy(void **state)
{
	(void)state;
	serves(BACKING_SHMEM_LAZY);
}

static void anon(void **state)
{
	(void)state;
	serves(BACKING_ANON);
}

static void hugetlb(void **state)
{
	(void)state;
	serves(BACKING_HUGETLB_2M);
}

static void callers_file(void **state)
{
	(void)state;
	serves(BACKING_FD);
}

static void callers_file_lazy(void **state)
{
	(void)state;
	serves(BACKING_FD_LAZY);
}

static void callers_mapping(void **state)
{
	(void)state;
	serves(BACKING_MAPPING);
}

static void callers_anonymous_mapping(void **state)
{
	(void)state;
	serves(BACKING_MAPPING_ANON);
}

static void callers_hugetlb(void **state)
{
	(void)state;
	serves(BACKING_FD_HUGETLB_2M);
}

#define CASE(fn) cmocka_unit_test_teardown(fn, unlock_all)

static const struct CMUnitTest tests[] = {
	CASE(lazy_stays_lazy),
	CASE(shmem),
	CASE(shmem_lazy),
	CASE(anon),
	CASE(hugetlb),
	CASE(callers_file),
	CASE(callers_file_lazy),
	CASE(callers_mapping),
	CASE(callers_anonymous_mapping),
	CASE(callers_hugetlb),
};

TEST_MAIN(tests)
