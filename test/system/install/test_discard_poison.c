/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parts of a poisoned hugetlb block are discarded. The poison goes with the last page that was
 * given up, and the rest of the block arrives. Poison also survives what is done to the memory.
 */
#include "discarding.h"
#include "kernel/sys.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#define LENGTH (4 * MIB)
#define PAGES  (LENGTH / PAGE)
#define BAD    5
#define BADS   (512 - BAD) /* to the end of the block */

#define NEVER ((struct hgm_opts){ .retries = HGM_RETRY_NEVER })

static const struct contents contents = { .seed = 239 };
static struct ledger ledger;

static const struct hgm_sys *kernel;
static struct hgm_sys odd;

/* From here to end() the library calls this one. The test replaces calls of it before begin(). */
static struct hgm_sys *odd_kernel(void)
{
	if (!kernel)
		kernel = hgm_sys;
	odd = *kernel;
	hgm_sys = &odd;
	return &odd;
}

struct scene {
	struct hgm *h;
	struct ram ram;
};

/* A region in which @bads pages from BAD on fail for good. */
static void begin(struct scene *s, const char *what, enum backing backing, uint64_t bads,
		  struct hgm_opts opts, uint32_t flags)
{
	watch(what, 60);
	ledger_make(&ledger, &contents, LENGTH);
	atomic_store(&ledger.bad_page, BAD);
	atomic_store(&ledger.bad_pages, bads);
	s->h = engine_with(opts);
	ram_make(&s->ram, s->h, backing, LENGTH, ledger.source, flags);
	assert_ok(hgm_start(s->h));
}

static void end(struct scene *s)
{
	ram_end(&s->ram);
	hgm_destroy(s->h);
	if (kernel)
		hgm_sys = kernel;
	ledger_free(&ledger);
	calm();
}

static int touched(const struct ram *ram, uint64_t page)
{
	struct waiter w;

	waiter_start(&w, ram->addr + page * PAGE);
	waiter_join(&w);
	return w.signal;
}

static void parts_of_a_block(void **state)
{
	static const enum backing backings[] = { BACKING_HUGETLB_2M, BACKING_FD_HUGETLB_2M };
	unsigned int played = 0;

	(void)state;
	skip_unless(KERNEL_POISON);
	for (unsigned int i = 0; i < 2; i++) {
		struct scene s;

		if (backing_lacking(backings[i], LENGTH))
			continue;
		begin(&s, backing_names[backings[i]], backings[i], BADS,
		      (struct hgm_opts){ .retries = 1 }, HGM_REGION_NO_FILL);
		assert_int_equal(touched(&s.ram, 0), SIGBUS);
		assert_ok(hgm_region_discard(s.ram.region, BAD * PAGE, PAGE));
		assert_int_equal(touched(&s.ram, 0), SIGBUS);
		assert_ok(hgm_region_discard(s.ram.region, (BAD + 1) * PAGE, (BADS - 1) * PAGE));
		assert_int_equal(touched(&s.ram, 0), 0);
		assert_pages(&contents, 0, BAD, s.ram.addr);
		assert_zeroes(s.ram.addr + BAD * PAGE, BADS * PAGE, backing_names[backings[i]]);
		assert_pages(&contents, BAD + BADS, PAGES - BAD - BADS,
			     s.ram.addr + (BAD + BADS) * PAGE);
		assert_int_equal(progress_of(s.h).poisoned_bytes, 0);
		end(&s);
		played++;
	}
	if (!played)
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, LENGTH));
}

#define RETRIES SMALLER(300, 50)

/* Pages of a block are asked for again, and fail again, while threads touch it. None hangs. */
static void fails_again_at_once(void **state)
{
	struct scene s;

	(void)state;
	skip_unless(KERNEL_POISON);
	if (backing_lacking(BACKING_HUGETLB_2M, LENGTH))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, LENGTH));
	begin(&s, "fails again at once", BACKING_HUGETLB_2M, BADS,
	      (struct hgm_opts){ .fault_threads = 1, .retries = HGM_RETRY_NEVER },
	      HGM_REGION_NO_FILL);
	for (unsigned int i = 0; i < RETRIES; i++) {
		struct waiter w[2];

		for (unsigned int n = 0; n < 2; n++)
			waiter_start(&w[n], s.ram.addr + (n ? BAD + 200 : 0) * PAGE);
		assert_ok(hgm_region_retry(s.ram.region));
		for (unsigned int n = 0; n < 2; n++) {
			waiter_join(&w[n]);
			assert_int_equal(w[n].signal, SIGBUS);
		}
	}
	end(&s);
}

static _Atomic int drops;

static int second_drop_fails(void *addr, uint64_t len, int advice)
{
	if (advice == HGM_MADV_DONTNEED_LOCKED && atomic_fetch_add(&drops, 1) == 1)
		return -ENOMEM;
	return kernel->madvise(addr, len, advice);
}

/* Some pages of a block cannot be had again. The block stays poison, and no thread waits for it. */
static void had_again_in_part(void **state)
{
	struct scene s;

	(void)state;
	skip_unless(KERNEL_POISON);
	if (backing_lacking(BACKING_HUGETLB_2M, LENGTH))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, LENGTH));
	odd_kernel()->madvise = second_drop_fails;
	begin(&s, "had again in part", BACKING_HUGETLB_2M, BADS, NEVER, HGM_REGION_NO_FILL);
	assert_int_equal(touched(&s.ram, 0), SIGBUS);
	atomic_store(&ledger.bad_pages, 0);
	atomic_store(&drops, 0);
	assert_int_equal(hgm_region_retry(s.ram.region), -ENOMEM);
	assert_int_equal(touched(&s.ram, 0), SIGBUS);
	assert_ok(hgm_region_retry(s.ram.region));
	assert_int_equal(touched(&s.ram, 0), 0);
	assert_pages(&contents, 0, PAGES, s.ram.addr);
	end(&s);
}

/* Its page table entry is dropped. The file's former contents are seen neither now nor later. */
static void outlives_its_entry(void **state)
{
	struct scene s;

	(void)state;
	skip_unless(KERNEL_POISON);
	begin(&s, "poison that is unmapped", BACKING_MAPPING, 1, NEVER, 0);
	assert_int_equal(touched(&s.ram, BAD), SIGBUS);
	hgm_wait(s.h, -1);
	assert_int_equal(madvise(s.ram.addr, LENGTH, MADV_DONTNEED), 0);
	hgm_region_destroy(s.ram.region);
	s.ram.region = NULL;
	assert_int_equal(touched(&s.ram, BAD), SIGBUS);
	assert_pages(&contents, BAD + 1, PAGES - BAD - 1, s.ram.addr + (BAD + 1) * PAGE);
	end(&s);
}

static _Atomic unsigned int poisoned_times;

/* Like a kernel while the address space changes all the time. It refuses every third call. */
static int odd_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	if (atomic_fetch_add(&poisoned_times, 1) % 3)
		return kernel->uffd_poison(fd, addr, len, mode, done);
	*done = -EAGAIN;
	return -EAGAIN;
}

/* A region ends although it cannot be poisoned in one pass without a refusal. */
static void a_region_ends(void **state)
{
	struct scene s;

	(void)state;
	skip_unless(KERNEL_POISON);
	odd_kernel()->uffd_poison = odd_poison;
	begin(&s, "an end under refusals", BACKING_MAPPING_LAZY, BADS, NEVER, HGM_REGION_NO_FILL);
	for (uint64_t page = BAD; page < BAD + BADS; page++)
		assert_int_equal(touched(&s.ram, page), SIGBUS);
	hgm_region_destroy(s.ram.region);
	s.ram.region = NULL;
	assert_int_equal(touched(&s.ram, BAD), SIGBUS);
	assert_int_equal(touched(&s.ram, PAGES - 1), SIGBUS);
	end(&s);
}

/* Other pages that are dropped while hgm_region_retry() removes poison. */
static struct {
	_Atomic bool armed;
	const struct ram *ram;
	enum way way;
	uint64_t page, pages;
} besides;

static int drops_besides(void *addr, uint64_t len, int advice)
{
	if (addr == besides.ram->addr + BAD * PAGE && atomic_exchange(&besides.armed, false))
		discard_by(besides.way, besides.ram, besides.page * PAGE, besides.pages * PAGE);
	return kernel->madvise(addr, len, advice);
}

/* The caller drops them at the same time. They are zero, and the pages around them arrive. */
static void discarded_during_a_retry(enum backing backing, enum way way, uint64_t page,
				     uint64_t pages)
{
	struct scene s;

	odd_kernel()->madvise = drops_besides;
	besides.ram = &s.ram;
	besides.way = way;
	besides.page = page;
	besides.pages = pages;
	begin(&s, "a discard during a retry", backing, 8, NEVER, HGM_REGION_NO_FILL);
	for (uint64_t p = BAD; p < BAD + 8; p++)
		assert_int_equal(touched(&s.ram, p), SIGBUS);
	atomic_store(&ledger.bad_pages, 0);
	atomic_store(&besides.armed, true);
	assert_ok(hgm_region_retry(s.ram.region));
	assert_false(atomic_load(&besides.armed));
	assert_zeroes(s.ram.addr + page * PAGE, pages * PAGE, "discarded during a retry");
	assert_pages(&contents, 0, page, s.ram.addr);
	assert_pages(&contents, page + pages, 20, s.ram.addr + (page + pages) * PAGE);
	end(&s);
}

static void had_again_and_discarded(void **state)
{
	(void)state;
	skip_unless(KERNEL_POISON);
	discarded_during_a_retry(BACKING_ANON, WAY_DONTNEED, BAD + 2, 3);
	discarded_during_a_retry(BACKING_ANON, WAY_DONTNEED, BAD, 1);
	discarded_during_a_retry(BACKING_ANON, WAY_DONTNEED, BAD, 8);
	discarded_during_a_retry(BACKING_ANON, WAY_DONTNEED, BAD - 3, 14);
	discarded_during_a_retry(BACKING_SHMEM_LAZY, WAY_REMOVE, BAD, 1);
	discarded_during_a_retry(BACKING_SHMEM_LAZY, WAY_REMOVE, BAD, 8);
}

/* The pages belong to several memory areas now. One event for each of them proves nothing. */
static void had_again_of_several_areas(void **state)
{
	struct scene s;

	(void)state;
	skip_unless(KERNEL_POISON);
	begin(&s, "several areas", BACKING_ANON, 8, NEVER, HGM_REGION_NO_FILL);
	for (uint64_t p = BAD; p < BAD + 8; p++)
		assert_int_equal(touched(&s.ram, p), SIGBUS);
	assert_int_equal(madvise(s.ram.addr + (BAD + 3) * PAGE, 2 * PAGE, MADV_DONTDUMP), 0);
	atomic_store(&ledger.bad_pages, 0);
	assert_ok(hgm_region_retry(s.ram.region));
	assert_pages(&contents, 0, 20, s.ram.addr);
	end(&s);
}

/* The page is poison, and the engine records that late. */
static int late_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	int rc = kernel->uffd_poison(fd, addr, len, mode, done);

	nap_us(20000);
	return rc;
}

/* A thread that gets SIGBUS asks for the page again at once, and gets it. */
static void had_again_at_once(void **state)
{
	static const enum backing backings[] = { BACKING_ANON, BACKING_SHMEM, BACKING_SHMEM_LAZY };

	(void)state;
	skip_unless(KERNEL_POISON);
	for (unsigned int i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		struct scene s;

		odd_kernel()->uffd_poison = late_poison;
		begin(&s, backing_names[backings[i]], backings[i], 1, NEVER, HGM_REGION_NO_FILL);
		assert_int_equal(touched(&s.ram, BAD), SIGBUS);
		atomic_store(&ledger.bad_pages, 0);
		assert_ok(hgm_region_retry(s.ram.region));
		assert_int_equal(touched(&s.ram, BAD), 0);
		assert_pages(&contents, BAD, 1, s.ram.addr + BAD * PAGE);
		end(&s);
	}
}

/* What the caller has mapped into the region is not dropped with poison that is elsewhere. */
static void a_foreign_mapping_stays(void **state)
{
	static const enum backing backings[] = { BACKING_ANON, BACKING_SHMEM, BACKING_SHMEM_LAZY };

	(void)state;
	skip_unless(KERNEL_POISON);
	for (unsigned int i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		struct scene s;
		char *theirs;

		begin(&s, backing_names[backings[i]], backings[i], 1, NEVER, HGM_REGION_NO_FILL);
		assert_int_equal(touched(&s.ram, BAD), SIGBUS);
		theirs = mmap(s.ram.addr + (BAD + 3) * PAGE, PAGE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		assert_ptr_equal(theirs, s.ram.addr + (BAD + 3) * PAGE);
		memset(theirs, 0x77, PAGE);
		assert_ok(hgm_region_discard(s.ram.region, BAD * PAGE, 8 * PAGE));
		for (uint64_t at = 0; at < PAGE; at++)
			assert_int_equal(theirs[at], 0x77);
		assert_zeroes(s.ram.addr + BAD * PAGE, 3 * PAGE, "discarded beside it");
		end(&s);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(a_foreign_mapping_stays), cmocka_unit_test(had_again_at_once),
	cmocka_unit_test(had_again_and_discarded), cmocka_unit_test(had_again_of_several_areas),
	cmocka_unit_test(outlives_its_entry),	   cmocka_unit_test(a_region_ends),
	cmocka_unit_test(parts_of_a_block),	   cmocka_unit_test(fails_again_at_once),
	cmocka_unit_test(had_again_in_part),
};

TEST_MAIN(tests)
