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

static const struct contents contents = { .seed = 239 };

static int touched(const struct field *f, uint64_t page)
{
	struct waiter w;

	waiter_start(&w, f->addr + page * PAGE);
	waiter_join(&w);
	return w.signal;
}

static void parts_of_a_block(void **state)
{
	static const enum place places[] = { PLACE_HUGETLB_2M, PLACE_FD_HUGETLB_2M };
	static struct ledger ledger;
	unsigned int played = 0;

	(void)state;
	skip_unless(KERNEL_POISON);
	for (unsigned int i = 0; i < 2; i++) {
		struct hgm *h;
		struct field f;

		if (place_lacking(places[i], LENGTH))
			continue;
		watch(place_names[places[i]], 60);
		ledger_make(&ledger, &contents, LENGTH);
		atomic_store(&ledger.bad_page, BAD);
		atomic_store(&ledger.bad_pages, BADS);
		h = engine_with((struct hgm_opts){ .retries = 1 });
		field_make(&f, h, places[i], LENGTH, ledger.source, HGM_REGION_NO_FILL);
		assert_ok(hgm_start(h));
		assert_int_equal(touched(&f, 0), SIGBUS);
		assert_ok(hgm_region_discard(f.region, BAD * PAGE, PAGE));
		assert_int_equal(touched(&f, 0), SIGBUS);
		assert_ok(hgm_region_discard(f.region, (BAD + 1) * PAGE, (BADS - 1) * PAGE));
		assert_int_equal(touched(&f, 0), 0);
		assert_pages(&contents, 0, BAD, f.addr);
		assert_zeroes(f.addr + BAD * PAGE, BADS * PAGE, place_names[places[i]]);
		assert_pages(&contents, BAD + BADS, PAGES - BAD - BADS,
			     f.addr + (BAD + BADS) * PAGE);
		assert_int_equal(progress_of(h).poisoned_bytes, 0);
		field_end(&f);
		hgm_destroy(h);
		ledger_free(&ledger);
		calm();
		played++;
	}
	if (!played)
		test_skip("%s", place_lacking(PLACE_HUGETLB_2M, LENGTH));
}

#define RETRIES SMALLER(300, 50)

/* Pages of a block are asked for again, and fail again, while threads touch it. None hangs. */
static void fails_again_at_once(void **state)
{
	static struct ledger ledger;
	struct hgm *h;
	struct field f;

	(void)state;
	skip_unless(KERNEL_POISON);
	if (place_lacking(PLACE_HUGETLB_2M, LENGTH))
		test_skip("%s", place_lacking(PLACE_HUGETLB_2M, LENGTH));
	watch("fails again at once", 60);
	ledger_make(&ledger, &contents, LENGTH);
	atomic_store(&ledger.bad_page, BAD);
	atomic_store(&ledger.bad_pages, BADS);
	h = engine_with((struct hgm_opts){ .fault_threads = 1, .retries = HGM_RETRY_NEVER });
	field_make(&f, h, PLACE_HUGETLB_2M, LENGTH, ledger.source, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	for (unsigned int i = 0; i < RETRIES; i++) {
		struct waiter w[2];

		for (unsigned int n = 0; n < 2; n++)
			waiter_start(&w[n], f.addr + (n ? BAD + 200 : 0) * PAGE);
		assert_ok(hgm_region_retry(f.region));
		for (unsigned int n = 0; n < 2; n++) {
			waiter_join(&w[n]);
			assert_int_equal(w[n].signal, SIGBUS);
		}
	}
	field_end(&f);
	hgm_destroy(h);
	ledger_free(&ledger);
	calm();
}

static const struct hgm_sys *kernel;
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
	static struct ledger ledger;
	static struct hgm_sys odd;
	struct hgm *h;
	struct field f;

	(void)state;
	skip_unless(KERNEL_POISON);
	if (place_lacking(PLACE_HUGETLB_2M, LENGTH))
		test_skip("%s", place_lacking(PLACE_HUGETLB_2M, LENGTH));
	watch("had again in part", 60);
	kernel = hgm_sys;
	odd = *kernel;
	odd.madvise = second_drop_fails;
	hgm_sys = &odd;
	ledger_make(&ledger, &contents, LENGTH);
	atomic_store(&ledger.bad_page, BAD);
	atomic_store(&ledger.bad_pages, BADS);
	h = engine_with((struct hgm_opts){ .retries = HGM_RETRY_NEVER });
	field_make(&f, h, PLACE_HUGETLB_2M, LENGTH, ledger.source, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	assert_int_equal(touched(&f, 0), SIGBUS);
	atomic_store(&ledger.bad_pages, 0);
	atomic_store(&drops, 0);
	assert_int_equal(hgm_region_retry(f.region), -ENOMEM);
	assert_int_equal(touched(&f, 0), SIGBUS);
	assert_ok(hgm_region_retry(f.region));
	assert_int_equal(touched(&f, 0), 0);
	assert_pages(&contents, 0, PAGES, f.addr);
	field_end(&f);
	hgm_destroy(h);
	hgm_sys = kernel;
	ledger_free(&ledger);
	calm();
}

/* Its page table entry is dropped. The file's former contents are seen neither now nor later. */
static void outlives_its_entry(void **state)
{
	static struct ledger ledger;
	struct hgm *h;
	struct field f;

	(void)state;
	skip_unless(KERNEL_POISON);
	watch("poison that is unmapped", 60);
	ledger_make(&ledger, &contents, LENGTH);
	atomic_store(&ledger.bad_page, BAD);
	atomic_store(&ledger.bad_pages, 1);
	h = engine_with((struct hgm_opts){ .retries = HGM_RETRY_NEVER });
	field_make(&f, h, PLACE_MAPPING, LENGTH, ledger.source, 0);
	assert_ok(hgm_start(h));
	assert_int_equal(touched(&f, BAD), SIGBUS);
	hgm_wait(h, -1);
	assert_int_equal(madvise(f.addr, LENGTH, MADV_DONTNEED), 0);
	hgm_region_destroy(f.region);
	assert_int_equal(touched(&f, BAD), SIGBUS);
	assert_pages(&contents, BAD + 1, PAGES - BAD - 1, f.addr + (BAD + 1) * PAGE);
	field_release(&f);
	hgm_destroy(h);
	ledger_free(&ledger);
	calm();
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
	static struct ledger ledger;
	static struct hgm_sys odd;
	struct hgm *h;
	struct field f;

	(void)state;
	skip_unless(KERNEL_POISON);
	watch("an end under refusals", 60);
	ledger_make(&ledger, &contents, LENGTH);
	atomic_store(&ledger.bad_page, BAD);
	atomic_store(&ledger.bad_pages, BADS);
	kernel = hgm_sys;
	odd = *kernel;
	odd.uffd_poison = odd_poison;
	hgm_sys = &odd;
	h = engine_with((struct hgm_opts){ .retries = HGM_RETRY_NEVER });
	field_make(&f, h, PLACE_MAPPING_LAZY, LENGTH, ledger.source, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	for (uint64_t page = BAD; page < BAD + BADS; page++)
		assert_int_equal(touched(&f, page), SIGBUS);
	hgm_region_destroy(f.region);
	assert_int_equal(touched(&f, BAD), SIGBUS);
	assert_int_equal(touched(&f, PAGES - 1), SIGBUS);
	field_release(&f);
	hgm_destroy(h);
	hgm_sys = kernel;
	ledger_free(&ledger);
	calm();
}

/* Other pages that are dropped while hgm_region_retry() removes poison. */
static struct {
	_Atomic bool armed;
	const struct field *f;
	enum way way;
	uint64_t page, pages;
} besides;

static int drops_besides(void *addr, uint64_t len, int advice)
{
	if (addr == besides.f->addr + BAD * PAGE && atomic_exchange(&besides.armed, false))
		discard_by(besides.way, besides.f, besides.page * PAGE, besides.pages * PAGE);
	return kernel->madvise(addr, len, advice);
}

/* The caller drops them at the same time. They are zero, and the pages around them arrive. */
static void discarded_during_a_retry(enum place place, enum way way, uint64_t page, uint64_t pages)
{
	static struct ledger ledger;
	static struct hgm_sys odd;
	struct hgm *h;
	struct field f;

	watch("a discard during a retry", 60);
	ledger_make(&ledger, &contents, LENGTH);
	atomic_store(&ledger.bad_page, BAD);
	atomic_store(&ledger.bad_pages, 8);
	kernel = hgm_sys;
	odd = *kernel;
	odd.madvise = drops_besides;
	hgm_sys = &odd;
	besides.f = &f;
	besides.way = way;
	besides.page = page;
	besides.pages = pages;
	h = engine_with((struct hgm_opts){ .retries = HGM_RETRY_NEVER });
	field_make(&f, h, place, LENGTH, ledger.source, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	for (uint64_t p = BAD; p < BAD + 8; p++)
		assert_int_equal(touched(&f, p), SIGBUS);
	atomic_store(&ledger.bad_pages, 0);
	atomic_store(&besides.armed, true);
	assert_ok(hgm_region_retry(f.region));
	assert_false(atomic_load(&besides.armed));
	assert_zeroes(f.addr + page * PAGE, pages * PAGE, "discarded during a retry");
	assert_pages(&contents, 0, page, f.addr);
	assert_pages(&contents, page + pages, 20, f.addr + (page + pages) * PAGE);
	field_end(&f);
	hgm_destroy(h);
	hgm_sys = kernel;
	ledger_free(&ledger);
	calm();
}

static void had_again_and_discarded(void **state)
{
	(void)state;
	skip_unless(KERNEL_POISON);
	discarded_during_a_retry(PLACE_ANON, WAY_DONTNEED, BAD + 2, 3);
	discarded_during_a_retry(PLACE_ANON, WAY_DONTNEED, BAD, 1);
	discarded_during_a_retry(PLACE_ANON, WAY_DONTNEED, BAD, 8);
	discarded_during_a_retry(PLACE_ANON, WAY_DONTNEED, BAD - 3, 14);
	discarded_during_a_retry(PLACE_SHMEM_LAZY, WAY_REMOVE, BAD, 1);
	discarded_during_a_retry(PLACE_SHMEM_LAZY, WAY_REMOVE, BAD, 8);
}

/* The pages belong to several memory areas now. One event for each of them proves nothing. */
static void had_again_of_several_areas(void **state)
{
	static struct ledger ledger;
	struct hgm *h;
	struct field f;

	(void)state;
	skip_unless(KERNEL_POISON);
	watch("several areas", 60);
	ledger_make(&ledger, &contents, LENGTH);
	atomic_store(&ledger.bad_page, BAD);
	atomic_store(&ledger.bad_pages, 8);
	h = engine_with((struct hgm_opts){ .retries = HGM_RETRY_NEVER });
	field_make(&f, h, PLACE_ANON, LENGTH, ledger.source, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	for (uint64_t p = BAD; p < BAD + 8; p++)
		assert_int_equal(touched(&f, p), SIGBUS);
	assert_int_equal(madvise(f.addr + (BAD + 3) * PAGE, 2 * PAGE, MADV_DONTDUMP), 0);
	atomic_store(&ledger.bad_pages, 0);
	assert_ok(hgm_region_retry(f.region));
	assert_pages(&contents, 0, 20, f.addr);
	field_end(&f);
	hgm_destroy(h);
	ledger_free(&ledger);
	calm();
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
	static const enum place places[] = { PLACE_ANON, PLACE_SHMEM, PLACE_SHMEM_LAZY };
	static struct ledger ledger;
	static struct hgm_sys odd;

	(void)state;
	skip_unless(KERNEL_POISON);
	kernel = hgm_sys;
	odd = *kernel;
	odd.uffd_poison = late_poison;
	hgm_sys = &odd;
	for (unsigned int i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		struct hgm *h;
		struct field f;

		watch(place_names[places[i]], 60);
		ledger_make(&ledger, &contents, LENGTH);
		atomic_store(&ledger.bad_page, BAD);
		atomic_store(&ledger.bad_pages, 1);
		h = engine_with((struct hgm_opts){ .retries = HGM_RETRY_NEVER });
		field_make(&f, h, places[i], LENGTH, ledger.source, HGM_REGION_NO_FILL);
		assert_ok(hgm_start(h));
		assert_int_equal(touched(&f, BAD), SIGBUS);
		atomic_store(&ledger.bad_pages, 0);
		assert_ok(hgm_region_retry(f.region));
		assert_int_equal(touched(&f, BAD), 0);
		assert_pages(&contents, BAD, 1, f.addr + BAD * PAGE);
		field_end(&f);
		hgm_destroy(h);
		ledger_free(&ledger);
		calm();
	}
	hgm_sys = kernel;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(had_again_at_once),
	cmocka_unit_test(had_again_and_discarded),
	cmocka_unit_test(had_again_of_several_areas),
	cmocka_unit_test(outlives_its_entry),
	cmocka_unit_test(a_region_ends),
	cmocka_unit_test(parts_of_a_block),
	cmocka_unit_test(fails_again_at_once),
	cmocka_unit_test(had_again_in_part),
};

TEST_MAIN(tests)
