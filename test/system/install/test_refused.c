/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One page that the kernel refuses to map, by CONTINUE or by COPY. The page is given up, the thread
 * that waits for it gets a signal, and all other pages arrive as usual. On a kernel without
 * UFFDIO_POISON, hgm_wait() does not wait for a page that is gone, and a page that is refused
 * arrives once the kernel accepts it.
 */
#include "harness.h"
#include "kernel/sys.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#define FAULT_US 5000 /* a waiter that is woken for nothing faults once in twice that time */
#define WAIT_MS	 SMALLER(10000, 60000)
#define LENGTH	 (4 * MIB)
#define REFUSED	 80 /* the page, which is not a hole; for hugetlb its block */

#define AFTER ((REFUSED / 64 + 1) * 64)

static const struct contents contents = { .seed = 59, .holes = true };
static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON };
static const struct hgm_sys *kernel; /* the real one, or a model */
static struct hgm_sys sys;

static struct {
	_Atomic(char *) at; /* NULL: nothing is refused */
	uint64_t bytes;
	int says;
	int poison_says; /* for the next @poison_calls calls */
	_Atomic unsigned int poison_calls;
	bool no_poison;
	bool overtaken; /* see counted_before_complete() */
	_Atomic bool poisoned;
	_Atomic unsigned int refusals;
} refuse;

struct op {
	int fd;
	char *addr;
	const void *src;
	uint64_t len, mode;
	enum {
		CONTINUE,
		COPY,
		ZEROPAGE
	} verb;
};

static bool is_true(void *arg)
{
	return atomic_load((_Atomic bool *)arg);
}

static int do_op(const struct op *op, uint64_t len, int64_t *done)
{
	switch (op->verb) {
	case CONTINUE:
		return kernel->uffd_continue(op->fd, op->addr, len, op->mode, done);
	case COPY:
		return kernel->uffd_copy(op->fd, op->addr, op->src, len, op->mode, done);
	default:
		return kernel->uffd_zeropage(op->fd, op->addr, len, op->mode, done);
	}
}

/* Like the kernel, works up to the page, and returns the error when called for the page itself. */
static int odd_op(const struct op *op, int64_t *done)
{
	char *at = atomic_load(&refuse.at);
	int rc;

	if (!at || op->addr >= at + refuse.bytes || op->addr + op->len <= at)
		return do_op(op, op->len, done);
	if (op->addr >= at) {
		if (!atomic_fetch_add(&refuse.refusals, 1) && refuse.overtaken)
			eventually(is_true, &refuse.poisoned, 2000);
		*done = refuse.says;
		return refuse.says;
	}
	rc = do_op(op, (uint64_t)(at - op->addr), done);
	return rc ? rc : -EAGAIN;
}

static int odd_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return odd_op(&(struct op){ fd, addr, NULL, len, mode, CONTINUE }, done);
}

static int odd_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode, int64_t *done)
{
	return odd_op(&(struct op){ fd, dst, src, len, mode, COPY }, done);
}

static int odd_zeropage(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return odd_op(&(struct op){ fd, addr, NULL, len, mode, ZEROPAGE }, done);
}

static int odd_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	unsigned int left = atomic_load(&refuse.poison_calls);

	if (refuse.no_poison) {
		*done = -EINVAL;
		return -EINVAL;
	}
	if (!left) {
		int rc = kernel->uffd_poison(fd, addr, len, mode, done);

		if (!rc && refuse.overtaken && !atomic_exchange(&refuse.poisoned, true))
			nap_us(200000);
		return rc;
	}
	atomic_store(&refuse.poison_calls, left - 1);
	*done = refuse.poison_says;
	return refuse.poison_says;
}

static int odd_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	int rc = kernel->uffd_api(fd, features, ioctls);

	if (refuse.no_poison)
		*features &= ~HGM_UFFD_FEATURE_POISON;
	return rc;
}

static int set_up(void **state)
{
	(void)state;
	watch("a page that is refused", 60);
	atomic_store(&refuse.at, NULL);
	atomic_store(&refuse.poison_calls, 0);
	atomic_store(&refuse.refusals, 0);
	refuse.no_poison = false;
	refuse.overtaken = false;
	atomic_store(&refuse.poisoned, false);
	if (hgm_sys == &sys) /* it may be in use: a failed case leaves its engine behind */
		return 0;
	kernel = hgm_sys;
	sys = *kernel;
	sys.uffd_continue = odd_continue;
	sys.uffd_copy = odd_copy;
	sys.uffd_zeropage = odd_zeropage;
	sys.uffd_poison = odd_poison;
	sys.uffd_api = odd_api;
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
	uint64_t bad, bad_end; /* pages */
	struct waiter waiter;
};

static void begin(struct trial *t, enum backing backing, enum provider_kind kind, int says)
{
	uint64_t pages = backing >= BACKINGS_SMALL ? backing_block(backing) / PAGE : 1;

	t->provider = provider_make(kind, &contents, LENGTH);
	t->h = engine(2);
	/* A collapse would map the page in another way. */
	ram_make(&t->ram, t->h, backing, LENGTH, provider_source(t->provider),
		 HGM_REGION_NO_COLLAPSE);
	t->bad = REFUSED / pages * pages;
	t->bad_end = t->bad + pages;
	refuse.bytes = pages * PAGE;
	refuse.says = says;
	atomic_store(&refuse.at, t->ram.addr + t->bad * PAGE);
	waiter_start(&t->waiter, t->ram.addr + REFUSED * PAGE);
}

static void assert_the_rest(const struct trial *t)
{
	assert_pages(&contents, 0, t->bad, t->ram.addr);
	assert_pages(&contents, t->bad_end, LENGTH / PAGE - t->bad_end,
		     t->ram.addr + t->bad_end * PAGE);
}

static void end(struct trial *t)
{
	ram_end(&t->ram);
	atomic_store(&refuse.at, NULL);
	hgm_destroy(t->h);
	provider_free(t->provider);
}

static bool told(const struct hgm *h)
{
	struct pollfd fd = { .fd = hgm_event_fd(h), .events = POLLIN };

	return poll(&fd, 1, 5000 * (int)slowness()) == 1;
}

static bool is_back(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->signal) != -1;
}

static void poisons_it_alone(enum backing backing, enum provider_kind kind)
{
	struct trial t;
	uint8_t value;

	begin(&t, backing, kind, -EIO);
	assert_ok(hgm_start(t.h));
	if (!eventually(is_back, &t.waiter, 5000))
		fail_msg("%s: the waiter of a refused page is left asleep", backing_names[backing]);
	waiter_join(&t.waiter);
	assert_int_equal(t.waiter.signal, SIGBUS);
	assert_error(hgm_wait(t.h, WAIT_MS), -EIO);
	assert_true(told(t.h));
	assert_int_equal(progress_of(t.h).poisoned_bytes, (t.bad_end - t.bad) * PAGE);
	assert_int_equal(info_of(t.ram.region).poisoned_bytes, (t.bad_end - t.bad) * PAGE);
	assert_int_equal(progress_of(t.h).last_error, -EIO);
	assert_the_rest(&t);
	/* The page stays poisoned, although the kernel no longer refuses it. */
	atomic_store(&refuse.at, NULL);
	for (uint64_t p = t.bad; p < t.bad_end; p++)
		assert_int_equal(touch(t.ram.addr + p * PAGE, &value), SIGBUS);
	end(&t);
}

static void poisoned_alone(void **state)
{
	(void)state;
	skip_unless(KERNEL_POISON);
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		poisons_it_alone(backings[i], PROVIDER_NOW);
		poisons_it_alone(backings[i], PROVIDER_LATER);
	}
}

static void poisoned_block(void **state)
{
	(void)state;
	skip_unless(KERNEL_POISON);
	if (backing_lacking(BACKING_HUGETLB_2M, LENGTH))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, LENGTH));
	poisons_it_alone(BACKING_HUGETLB_2M, PROVIDER_NOW);
}

/* POISON itself fails a few times first. */
static void poisoned_by_a_busy_kernel(void **state)
{
	static const int busy[] = { -EAGAIN, -ENOMEM };

	(void)state;
	skip_unless(KERNEL_POISON);
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		for (size_t k = 0; k < 2; k++) {
			refuse.poison_says = busy[k];
			atomic_store(&refuse.poison_calls, 3);
			poisons_it_alone(backings[i], PROVIDER_NOW);
			assert_int_equal(atomic_load(&refuse.poison_calls), 0);
		}
	}
}

static bool is_refused(void *arg)
{
	(void)arg;
	return atomic_load(&refuse.refusals);
}

/*
 * The fault of a second waiter finds the page present and poisons it, while the request that was
 * refused first is still about to do the same. When all is complete, the page must have been
 * counted.
 */
static void counted_before_complete(void **state)
{
	struct waiter second;
	struct trial t;

	(void)state;
	skip_unless(KERNEL_POISON);
	refuse.overtaken = true;
	begin(&t, BACKING_SHMEM, PROVIDER_LATER, -EIO);
	assert_ok(hgm_start(t.h));
	assert_true(eventually(is_refused, NULL, 5000));
	waiter_start(&second, t.ram.addr + REFUSED * PAGE + 1);
	assert_error(hgm_wait(t.h, WAIT_MS), -EIO);
	assert_int_equal(progress_of(t.h).poisoned_bytes, PAGE);
	assert_true(atomic_load(&refuse.poisoned));
	waiter_join(&t.waiter);
	waiter_join(&second);
	assert_int_equal(t.waiter.signal, SIGBUS);
	assert_int_equal(second.signal, SIGBUS);
	end(&t);
}

static uint8_t first_byte(uint64_t page)
{
	uint8_t bytes[PAGE] __attribute__((aligned(8)));

	contents_write(&contents, page, 1, bytes);
	return bytes[0];
}

/*
 * There is no UFFDIO_POISON, and the memory is gone. No thread can need the page, and all others
 * are complete.
 */
static void vanished_without_poison(void **state)
{
	(void)state;
	refuse.no_poison = true;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		struct trial t;
		uint64_t faults, since_us;
		int rc;

		begin(&t, backings[i], PROVIDER_NOW, -ENOENT);
		assert_ok(hgm_start(t.h));
		rc = hgm_wait(t.h, WAIT_MS);
		if (rc && rc != -EIO)
			fail_msg("%s: hgm_wait() of a page that is gone: %d, %s",
				 backing_names[backings[i]], rc, hgm_errmsg());
		assert_true(atomic_load(&refuse.refusals) > 0);
		assert_true(told(t.h));
		assert_true(progress_of(t.h).complete);
		assert_the_rest(&t);
		/*
		 * The waiter may sleep, but must not be woken for nothing again and again. Copies
		 * that were given up are not tried again. Pages that are present are tried again
		 * now and then.
		 */
		since_us = now_us();
		faults = stats_of(t.h).faults;
		nap_us(200000);
		faults = stats_of(t.h).faults - faults;
		if (faults > (now_us() - since_us) / FAULT_US)
			fail_msg("%s: %llu faults of one waiter", backing_names[backings[i]],
				 (unsigned long long)faults);
		end(&t); /* releases the waiter if it sleeps */
		waiter_join(&t.waiter);
		/* A collapse may have mapped the page nevertheless. Then its contents are right. */
		if (!t.waiter.signal)
			assert_int_equal(t.waiter.value, first_byte(REFUSED));
	}
}

/*
 * There is no UFFDIO_POISON, and the page is refused. The waiter waits, the error is reported to
 * the caller, and the page arrives once the kernel accepts it.
 */
static void refused_without_poison(void **state)
{
	(void)state;
	refuse.no_poison = true;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		struct trial t;

		begin(&t, backings[i], PROVIDER_NOW, -EIO);
		assert_ok(hgm_start(t.h));
		assert_true(told(t.h));
		assert_int_equal(hgm_wait(t.h, SMALLER(300, 1000)), -ETIMEDOUT);
		assert_int_equal(progress_of(t.h).last_error, -EIO);
		assert_int_equal(progress_of(t.h).poisoned_bytes, 0);
		assert_true(atomic_load(&t.waiter.signal) <= 0); /* 0: a collapse mapped it */
		/*
		 * Pages that were requested together with it may wait too, at most one word of the
		 * map.
		 */
		assert_pages(&contents, 0, REFUSED / 64 * 64, t.ram.addr);
		assert_pages(&contents, AFTER, LENGTH / PAGE - AFTER, t.ram.addr + AFTER * PAGE);
		atomic_store(&refuse.at, NULL);
		assert_ok(hgm_wait(t.h, WAIT_MS));
		waiter_join(&t.waiter);
		assert_int_equal(t.waiter.signal, 0);
		assert_int_equal(t.waiter.value, first_byte(REFUSED));
		assert_pages(&contents, 0, LENGTH / PAGE, t.ram.addr);
		end(&t);
	}
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(poisoned_alone),
	CASE(poisoned_block),
	CASE(poisoned_by_a_busy_kernel),
	CASE(counted_before_complete),
	CASE(vanished_without_poison),
	CASE(refused_without_poison),
};

TEST_MAIN(tests)
