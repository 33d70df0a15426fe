/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Contents that have arrived and are discarded again, as a balloon does by punching a hole. They
 * read as zero at once, for all threads, without a fault that is served over and over. Later writes
 * stay.
 */
#include "discarding.h"
#include "kernel/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS SMALLER(10000, 60000)
#define LENGTH	(6 * MIB)
#define WAITERS 4

static const struct contents contents = { .seed = 73 };
static const struct hgm_sys *kernel; /* the one that runs, or a model */
static struct hgm_sys sys;
static bool no_poison;

static int odd_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	int rc = kernel->uffd_api(fd, features, ioctls);

	if (no_poison)
		*features &= ~HGM_UFFD_FEATURE_POISON;
	return rc;
}

static int odd_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	if (!no_poison)
		return kernel->uffd_poison(fd, addr, len, mode, done);
	*done = -EINVAL;
	return -EINVAL;
}

/* A thread touches the first page that is punched, between the drop and what follows. */
static struct {
	const char *addr;
	struct waiter waiter;
} hole;

static bool is_back(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->signal) != -1;
}

static int punch_and_touch(int fd, uint64_t offset, uint64_t len)
{
	int rc = kernel->punch_hole(fd, offset, len);
	const char *addr = hole.addr;

	hole.addr = NULL;
	if (addr) {
		waiter_start(&hole.waiter, addr);
		eventually(is_back, &hole.waiter, 100); /* or it waits for this thread */
	}
	return rc;
}

static int set_up(void **state)
{
	(void)state;
	watch("discarded memory", 60);
	no_poison = false;
	if (hgm_sys == &sys) /* it may be in use: a failed case leaves its engine behind */
		return 0;
	kernel = hgm_sys;
	sys = *kernel;
	sys.uffd_api = odd_api;
	sys.uffd_poison = odd_poison;
	sys.punch_hole = punch_and_touch;
	hgm_sys = &sys;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	calm();
	return 0;
}

struct trial {
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
};

static void begin(struct trial *t, enum backing backing, uint32_t flags)
{
	t->provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	t->h = engine(2);
	ram_make(&t->ram, t->h, backing, LENGTH, provider_source(t->provider), flags);
	assert_ok(hgm_start(t->h));
	assert_ok(hgm_wait(t->h, WAIT_MS));
	assert_pages(&contents, 0, LENGTH / PAGE, t->ram.addr);
}

static void end(struct trial *t)
{
	ram_end(&t->ram);
	hgm_destroy(t->h);
	provider_free(t->provider);
}

static void discard(const struct trial *t, uint64_t offset, uint64_t length)
{
	int rc;

	if (t->ram.fd >= 0)
		rc = fallocate(t->ram.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			       (off_t)length);
	else
		rc = madvise(t->ram.addr + offset, length, MADV_DONTNEED);
	if (rc)
		fail_msg("discarding: %s", strerrorname_np(errno));
}

static uint64_t cpu_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Several threads at once, each on its own page in the discarded part. */
static void batch_reads_zero(struct trial *t, enum backing backing, uint64_t offset,
			     uint64_t length)
{
	uint64_t faults = stats_of(t->h).faults;
	uint64_t cpu = cpu_ms();
	struct waiter waiter[WAITERS];

	for (unsigned int i = 0; i < WAITERS; i++)
		waiter_start(&waiter[i], t->ram.addr + offset + i * (length / WAITERS));
	for (unsigned int i = 0; i < WAITERS; i++) {
		if (!eventually(is_back, &waiter[i], 3000))
			fail_msg("%s: who reads discarded memory is left asleep: %llu faults, %llu "
				 "ms of CPU time",
				 backing_names[backing],
				 (unsigned long long)(stats_of(t->h).faults - faults),
				 (unsigned long long)(cpu_ms() - cpu));
		waiter_join(&waiter[i]);
		assert_int_equal(waiter[i].signal, 0);
		assert_int_equal(waiter[i].value, 0);
	}
	/* Each thread faults once. A thread that was woken may fault once more. */
	nap_us(50000);
	assert_uint_in_range(stats_of(t->h).faults - faults, 0, 4 * WAITERS);
	assert_true(cpu_ms() - cpu < SMALLER(500, 5000));
}

static void reads_as_zero(enum backing backing, uint64_t offset, uint64_t length, uint32_t flags)
{
	struct trial t;

	begin(&t, backing, flags);
	for (unsigned int round = 0; round < 3; round++) {
		discard(&t, offset, length);
		batch_reads_zero(&t, backing, offset, length);
		assert_zeroes(t.ram.addr + offset, length, backing_names[backing]);
		/* Memory that is written now is memory like any other. */
		memset(t.ram.addr + offset, 0x5a, length);
		assert_int_equal(t.ram.addr[offset + length - 1], 0x5a);
	}
	assert_pages(&contents, 0, offset / PAGE, t.ram.addr);
	assert_pages(&contents, (offset + length) / PAGE, (LENGTH - offset - length) / PAGE,
		     t.ram.addr + offset + length);
	assert_int_equal(progress_of(t.h).poisoned_bytes, 0);
	assert_int_equal(progress_of(t.h).last_error, 0);
	assert_ok(hgm_wait(t.h, WAIT_MS));
	end(&t);
}

static void hugetlb(void **state)
{
	(void)state;
	if (backing_lacking(BACKING_FD_HUGETLB_2M, LENGTH))
		test_skip("%s", backing_lacking(BACKING_FD_HUGETLB_2M, LENGTH));
	reads_as_zero(BACKING_FD_HUGETLB_2M, 2 * MIB, 2 * MIB, 0);
	reads_as_zero(BACKING_FD_HUGETLB_2M, 0, 2 * MIB, HGM_REGION_NO_COLLAPSE);
}

static void hugetlb_without_poison(void **state)
{
	(void)state;
	if (backing_lacking(BACKING_FD_HUGETLB_2M, LENGTH))
		test_skip("%s", backing_lacking(BACKING_FD_HUGETLB_2M, LENGTH));
	no_poison = true;
	reads_as_zero(BACKING_FD_HUGETLB_2M, 2 * MIB, 2 * MIB, 0);
}

static void small_pages(void **state)
{
	static const enum backing backings[] = { BACKING_FD,	       BACKING_FD_LAZY,
						 BACKING_MAPPING,      BACKING_ANON,
						 BACKING_MAPPING_LAZY, BACKING_MAPPING_ANON };

	unsigned int turn = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		if (turn_of(&turn, 3))
			reads_as_zero(backings[i], 300 * PAGE, 8 * PAGE, HGM_REGION_NO_COLLAPSE);
		if (turn_of(&turn, 3))
			reads_as_zero(backings[i], 2 * MIB, 2 * MIB, 0);
	}
}

static void small_pages_without_poison(void **state)
{
	(void)state;
	no_poison = true;
	reads_as_zero(BACKING_FD, 300 * PAGE, 8 * PAGE, HGM_REGION_NO_COLLAPSE);
	reads_as_zero(BACKING_ANON, 300 * PAGE, 8 * PAGE, HGM_REGION_NO_COLLAPSE);
}

/*
 * MADV_DONTNEED of lazy shmem that has not arrived may be taken for a discard, if the file changes
 * at the same time. Even then the former contents of the caller's file must not be seen.
 */
static void not_what_the_file_held_before(void **state)
{
	static const enum backing backings[] = { BACKING_FD_LAZY, BACKING_MAPPING_LAZY };
	const uint64_t first = MIB / PAGE, pages = 2 * MIB / PAGE;

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
		struct hgm *h = engine(2);
		struct ram ram;

		ram_make(&ram, h, backings[i], LENGTH, provider_source(provider),
			 HGM_REGION_NO_FILL);
		assert_ok(hgm_start(h));
		assert_int_equal(madvise(ram.addr + first * PAGE, pages * PAGE, MADV_DONTNEED), 0);
		assert_int_equal(
			fallocate(ram.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);
		for (uint64_t page = first; page < first + pages; page++) {
			const uint64_t *word = (uint64_t *)(ram.addr + page * PAGE);

			if (*word) /* it was not taken for a discard */
				assert_pages(&contents, page, 1, word);
		}
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
	}
}

/* A page that is being discarded proves nothing about pages whose entries were dropped. */
static void not_of_its_neighbours(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_FD, BACKING_MAPPING };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
		struct hgm *h = engine(2);
		struct ram ram;

		ram_make(&ram, h, backings[i], LENGTH, provider_source(provider),
			 HGM_REGION_NO_FILL);
		assert_ok(hgm_start(h));
		assert_int_equal(madvise(ram.addr, 64 * PAGE, MADV_DONTNEED), 0);
		hole.addr = ram.addr + 8 * PAGE;
		assert_ok(hgm_region_discard(ram.region, 8 * PAGE, PAGE));
		assert_null(hole.addr);
		waiter_join(&hole.waiter);
		assert_int_equal(hole.waiter.signal, 0);
		assert_int_equal(hole.waiter.value, 0);
		assert_pages(&contents, 0, 8, ram.addr);
		assert_pages(&contents, 9, 55, ram.addr + 9 * PAGE);
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
	}
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(not_what_the_file_held_before),
	CASE(not_of_its_neighbours),
	CASE(hugetlb),
	CASE(hugetlb_without_poison),
	CASE(small_pages),
	CASE(small_pages_without_poison),
};

TEST_MAIN(tests)
