/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel's range operations return all outcomes that they can have, at random, while threads
 * touch the memory. All bytes are right, no thread hangs, each outcome is counted, and pages that
 * are given up are reported.
 */
#include "continued.h"
#include "harness.h"
#include "kernel/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(SMALLER(6, 4) * MIB + 5 * PAGE)

static const struct contents contents = { .seed = 77, .holes = true };
static const struct hgm_sys *kernel; /* the real one, or a model */
static struct hgm_sys sys;
static _Atomic uint64_t dice;

/* One in so many calls has this outcome. 0: none. */
static struct {
	_Atomic unsigned int again, partial, exist, emptied, no_memory, vanished, wrong;
} odds;

static void no_odds(void)
{
	odds.again = odds.partial = odds.exist = odds.emptied = 0;
	odds.no_memory = odds.vanished = odds.wrong = 0;
}

static _Atomic uint64_t injected;

static bool rolled(unsigned int one_in)
{
	if (!one_in || random_of(&dice) % one_in)
		return false;
	atomic_fetch_add(&injected, 1);
	return true;
}

struct op {
	int fd;
	void *addr;
	const void *src;
	uint64_t len, mode;
	enum {
		CONTINUE,
		COPY,
		ZEROPAGE,
		POISON
	} verb;
};

static _Thread_local unsigned int emptied; /* number of calls in a row */

static int do_op(const struct op *op, uint64_t len, uint64_t mode, int64_t *done)
{
	switch (op->verb) {
	case CONTINUE:
		return kernel->uffd_continue(op->fd, op->addr, len, mode, done);
	case COPY:
		return kernel->uffd_copy(op->fd, op->addr, op->src, len, mode, done);
	case ZEROPAGE:
		return kernel->uffd_zeropage(op->fd, op->addr, len, mode, done);
	default:
		return kernel->uffd_poison(op->fd, op->addr, len, mode, done);
	}
}

static int say(int rc, int64_t *done)
{
	*done = rc;
	return rc;
}

/* DONTWAKE is bit 0 of the mode of all four verbs. */
static int inject(const struct op *op, int64_t *done)
{
	if (rolled(odds.again))
		return say(-EAGAIN, done);
	if (rolled(odds.no_memory))
		return say(-ENOMEM, done);
	if (rolled(odds.vanished))
		return say(-ENOENT, done);
	if (op->verb != POISON && rolled(odds.wrong))
		return say(-EIO, done);
	if (op->len > PAGE && op->len < 2 * MIB && rolled(odds.partial)) {
		uint64_t part = (1 + random_of(&dice) % (op->len / PAGE - 1)) * PAGE;
		int rc = do_op(op, part, op->mode, done);

		return rc ? rc : -EAGAIN;
	}
	/* As when MADV_DONTNEED frees the page table during one call, or during two in a row. */
	if (op->len < 2 * MIB && emptied < 2 && rolled(odds.emptied)) {
		emptied++;
		return say(-EEXIST, done);
	}
	emptied = 0;
	/*
	 * The page is mapped, but the waiter is not woken. A race with a second fault looks like
	 * this.
	 */
	if (op->len < 2 * MIB && rolled(odds.exist)) {
		int rc = do_op(op, PAGE, op->mode | 1, done);

		return rc ? rc : say(-EEXIST, done);
	}
	return do_op(op, op->len, op->mode, done);
}

static int odd_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return inject(&(struct op){ fd, addr, NULL, len, mode, CONTINUE }, done);
}

static int odd_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode, int64_t *done)
{
	return inject(&(struct op){ fd, dst, src, len, mode, COPY }, done);
}

static int odd_zeropage(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return inject(&(struct op){ fd, addr, NULL, len, mode, ZEROPAGE }, done);
}

static int odd_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return inject(&(struct op){ fd, addr, NULL, len, mode, POISON }, done);
}

static int set_up(void **state)
{
	const char *wanted = getenv("HGM_TEST_SEED");
	uint64_t seed = wanted ? strtoull(wanted, NULL, 10) : (uint64_t)time(NULL);

	(void)state;
	watch("odd outcomes", 100);
	printf("# HGM_TEST_SEED=%llu\n", (unsigned long long)seed);
	atomic_store(&dice, seed);
	atomic_store(&injected, 0);
	no_odds();
	if (hgm_sys == &sys) /* it may be in use: a failed case leaves its engine behind */
		return 0;
	kernel = hgm_sys;
	sys = *kernel;
	sys.uffd_continue = odd_continue;
	sys.uffd_copy = odd_copy;
	sys.uffd_zeropage = odd_zeropage;
	sys.uffd_poison = odd_poison;
	hgm_sys = &sys;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	no_odds();
	calm();
	return 0;
}

static struct hgm_stats restore(enum backing backing, enum provider_kind kind, bool write)
{
	struct provider *provider = provider_make(kind, &contents, LENGTH);
	struct plan plan = {
		.contents = &contents, .pages = LENGTH / PAGE, .write = write, .passes = 2
	};
	struct touchers touchers;
	struct hgm *h = engine(2);
	struct hgm_stats stats;
	struct ram ram;

	/* With HGM_REGION_DEFER_COLLAPSE, fill installs all pages that it brings. */
	ram_make(&ram, h, backing, LENGTH, provider_source(provider), HGM_REGION_DEFER_COLLAPSE);
	plan.addr = ram.addr;
	assert_ok(hgm_start(h));
	touchers_start(&touchers, 4, &plan);
	touchers_join(&touchers);
	assert_ok(hgm_region_collapse(ram.region));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&contents, 0, LENGTH / PAGE, ram.addr);
	assert_huge(&ram, backing);
	stats = stats_of(h);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	if (!atomic_load(&injected))
		fail_msg("nothing was injected");
	return stats;
}

static void again(void **state)
{
	(void)state;
	odds.again = 3;
	assert_true(restore(BACKING_SHMEM, PROVIDER_LATER, true).again > 0);
	assert_true(restore(BACKING_SHMEM_LAZY, PROVIDER_NOW, true).again > 0);
	assert_true(restore(BACKING_ANON, PROVIDER_LATER, true).again > 0);
}

static void partial(void **state)
{
	(void)state;
	odds.partial = 2;
	assert_true(restore(BACKING_SHMEM, PROVIDER_NOW, true).partial > 0);
	assert_true(restore(BACKING_SHMEM_LAZY, PROVIDER_LATER, true).partial > 0);
	assert_true(restore(BACKING_ANON, PROVIDER_NOW, true).partial > 0);
}

/*
 * Where the library overwrites a page that it finds present, a writer could be faster than this
 * imitation.
 */
static void exist(void **state)
{
	(void)state;
	odds.exist = 3;
	assert_true(restore(BACKING_SHMEM, PROVIDER_LATER, true).exist > 0);
	assert_true(restore(BACKING_SHMEM_LAZY, PROVIDER_NOW, false).exist > 0);
}

/*
 * Pages that fallocate(2) has allocated are present, but have no contents yet. The library writes
 * the contents to them.
 */
static void allocated_before(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm_region_opts o = { .size = sizeof(o),
				     .length = LENGTH,
				     .backing = HGM_BACKING_FD,
				     .flags = HGM_REGION_LAZY,
				     .source = provider_source(provider) };
	struct hgm *h = engine(1);
	struct hgm_region *r;

	(void)state;
	o.fd = memfd_create("allocated", MFD_CLOEXEC);
	assert_int_equal(fallocate(o.fd, 0, 0, LENGTH), 0);
	assert_ok(hgm_region_create(&r, h, &o));
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&contents, 0, LENGTH / PAGE, hgm_region_addr(r));
	assert_true(stats_of(h).exist > 0);
	hgm_destroy(h);
	close(o.fd);
	provider_free(provider);
}

/*
 * The kernel says that a page is present, but it is not. The library neither gives it up nor takes
 * it for discarded.
 */
static void exist_not(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON };

	(void)state;
	odds.emptied = 2;
	for (unsigned int i = 0; i < 3; i++) {
		struct hgm_stats stats =
			restore(backings[i], i % 2 ? PROVIDER_NOW : PROVIDER_LATER, true);

		assert_int_equal(stats.poisoned_pages, 0);
		assert_int_equal(stats.discarded_pages, 0);
	}
}

static bool is_back(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->signal) != -1;
}

static bool is_told(void *arg)
{
	return progress_of(arg).last_error;
}

/*
 * Only the library can map a page of registered anonymous memory that it has not copied yet. A page
 * that is present nevertheless cannot be trusted, and must not count as arrived.
 */
static void exist_on_anon(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm *h = engine(1);
	int before = continued();
	struct waiter waiter;
	struct ram ram;

	(void)state;
	ram_make(&ram, h, BACKING_ANON, LENGTH, provider_source(provider), HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	odds.exist = 1;
	waiter_start(&waiter, ram.addr + 3 * PAGE);
	if (kernel_has(KERNEL_POISON)) {
		if (!eventually(is_back, &waiter, 2000))
			fail_msg("after EEXIST on anonymous memory a waiter is left asleep");
		odds.exist = 0;
		waiter_join(&waiter);
		assert_int_equal(hgm_wait(h, WAIT_MS), -EIO);
		assert_int_equal(stats_of(h).poisoned_pages, 1);
		ram_end(&ram);
	} else {
		assert_true(eventually(is_told, h, 5000));
		assert_int_equal(progress_of(h).last_error, -EEXIST);
		assert_int_equal(hgm_wait(h, 100), -ETIMEDOUT);
		assert_true(waiter.signal == -1 || continued() != before);
		assert_int_equal(info_of(ram.region).present_bytes, 0);
		ram_end(&ram);
		waiter_join(&waiter);
		assert_true(waiter.signal == SIGSEGV || continued() != before);
	}
	hgm_destroy(h);
	provider_free(provider);
}

static void no_memory(void **state)
{
	(void)state;
	odds.no_memory = 4;
	assert_true(restore(BACKING_SHMEM, PROVIDER_LATER, true).no_memory > 0);
	assert_true(restore(BACKING_SHMEM_LAZY, PROVIDER_NOW, true).no_memory > 0);
	assert_true(restore(BACKING_ANON, PROVIDER_SHORT, true).no_memory > 0);
}

/*
 * ENOENT says that the memory is gone. If that was true only for a moment (an area was being moved,
 * split or merged), a waiter must be served or get a signal once it is over. It must never read
 * zeroes.
 */
static bool has_vanished(void *h)
{
	return stats_of(h).vanished > 0;
}

static void vanish_for_a_while(enum backing backing)
{
	/*
	 * Without UFFDIO_POISON, the waiter of a page that is given up is released only at the end.
	 */
	bool comes_back = kernel_has(KERNEL_POISON) || backing == BACKING_SHMEM;
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm *h = engine(1);
	struct waiter waiter;
	struct ram ram;

	ram_make(&ram, h, backing, LENGTH, provider_source(provider), HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	odds.vanished = 1;
	waiter_start(&waiter, ram.addr + 3 * PAGE);
	assert_true(eventually(has_vanished, h, WAIT_MS));
	odds.vanished = 0;
	if (!eventually(is_back, &waiter, comes_back ? WAIT_MS : 2000)) {
		if (comes_back)
			fail_msg("%s: after ENOENT a waiter is left asleep",
				 backing_names[backing]);
		assert_error(hgm_wait(h, WAIT_MS), -EIO);
		assert_int_equal(progress_of(h).poisoned_bytes, PAGE);
		ram_end(&ram);
		waiter_join(&waiter);
		assert_int_equal(waiter.signal, SIGSEGV);
	} else {
		waiter_join(&waiter);
		if (!waiter.signal)
			assert_pages(&contents, 3, 1, ram.addr + 3 * PAGE);
		ram_end(&ram);
	}
	hgm_destroy(h);
	provider_free(provider);
}

static void vanished_shmem(void **state)
{
	(void)state;
	vanish_for_a_while(BACKING_SHMEM);
}

static void vanished_lazy(void **state)
{
	(void)state;
	vanish_for_a_while(BACKING_SHMEM_LAZY);
}

static void vanished_anon(void **state)
{
	(void)state;
	vanish_for_a_while(BACKING_ANON);
}

static void all_together(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON, BACKING_FD,
						 BACKING_MAPPING };

	(void)state;
	odds.again = 8;
	odds.partial = 8;
	odds.no_memory = 16;
	for (size_t i = 0; i < 4; i++) {
		odds.exist = backings[i] == BACKING_ANON ? 0 : 8;
		for (int kind = 0; kind < PROVIDER_KINDS; kind += 1 + SANITIZED)
			restore(backings[i], (enum provider_kind)kind, true);
	}
}

static void hugetlb(void **state)
{
	struct provider *provider = provider_make(PROVIDER_LATER, &contents, 4 * MIB);
	struct plan plan = { .contents = &contents, .pages = 1024, .write = true, .passes = 2 };
	struct touchers touchers;
	struct hgm *h = engine(1);
	struct ram ram;

	(void)state;
	if (backing_lacking(BACKING_HUGETLB_2M, 4 * MIB)) {
		hgm_destroy(h);
		provider_free(provider);
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, 4 * MIB));
	}
	odds.again = 2;
	odds.no_memory = 3;
	ram_make(&ram, h, BACKING_HUGETLB_2M, 4 * MIB, provider_source(provider), 0);
	plan.addr = ram.addr;
	assert_ok(hgm_start(h));
	touchers_start(&touchers, 4, &plan);
	touchers_join(&touchers);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&contents, 0, 1024, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

/*
 * A page that the kernel permanently refuses to map is poisoned. hgm_wait() must not report success
 * for it. Without UFFDIO_POISON, the library retries for ever.
 */
static void refused_for_good(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	bool poison = kernel_has(KERNEL_POISON);
	struct hgm *h = engine(1);
	struct waiter waiter;
	struct ram ram;
	uint8_t value;

	(void)state;
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, provider_source(provider), HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	odds.wrong = 1;
	waiter_start(&waiter, ram.addr + 3 * PAGE);
	assert_true(eventually(is_told, h, 5000));
	if (poison)
		waiter_join(&waiter);
	else
		assert_error(hgm_wait(h, 100), -ETIMEDOUT);
	assert_int_equal(waiter.signal, poison ? SIGBUS : -1);
	odds.wrong = 0;
	if (poison)
		assert_error(hgm_wait(h, WAIT_MS), -EIO);
	else
		assert_ok(hgm_wait(h, WAIT_MS));
	if (!poison)
		waiter_join(&waiter);
	assert_int_equal(waiter.signal, poison ? SIGBUS : 0);
	assert_int_equal(progress_of(h).last_error, -EIO);
	assert_int_equal(touch(ram.addr + 9 * PAGE, &value), 0);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(again),
	CASE(partial),
	CASE(exist),
	CASE(exist_not),
	CASE(allocated_before),
	CASE(exist_on_anon),
	CASE(no_memory),
	CASE(all_together),
	CASE(hugetlb),
	CASE(refused_for_good),
	CASE(vanished_shmem),
	CASE(vanished_lazy),
	CASE(vanished_anon),
};

TEST_MAIN(tests)
