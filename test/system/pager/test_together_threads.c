/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Many threads need the same few pages and their neighbours at the same time. The sources answer in
 * every way, and the kernel often says EAGAIN. Another thread drops the pages from the page tables
 * again and again. Every byte is right, and no thread is lost.
 */
#include "harness.h"
#include "kernel/sys.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#define TOUCHERS     SMALLER(16, 8)
#define ROUNDS	     SMALLER(40, 10)
#define ROUND_PAGES  UINT64_C(48)
#define LENGTH	     (ROUNDS * ROUND_PAGES * PAGE)
#define AGAIN_ONE_IN 8
#define NAP_ONE_IN   4
#define NAP_US	     100 /* time for messages to gather */

static const struct contents contents = { .seed = 42, .holes = true };
static const struct hgm_sys *kernel;
static struct hgm_sys sys;
static _Atomic uint64_t dice;
static _Atomic bool again;
static _Atomic uint64_t unwoken; /* CONTINUE calls that left the wake to another call */

static ssize_t late_read(int fd, void *buf, size_t len)
{
	if (random_of(&dice) % NAP_ONE_IN == 0)
		nap_us(NAP_US);
	return kernel->read(fd, buf, len);
}

static bool rolled(int64_t *done)
{
	*done = -EAGAIN;
	return atomic_load(&again) && random_of(&dice) % AGAIN_ONE_IN == 0;
}

static int odd_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	if (mode & HGM_UFFD_CONTINUE_DONTWAKE)
		atomic_fetch_add(&unwoken, 1);
	return rolled(done) ? -EAGAIN : kernel->uffd_continue(fd, addr, len, mode, done);
}

static int odd_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode, int64_t *done)
{
	return rolled(done) ? -EAGAIN : kernel->uffd_copy(fd, dst, src, len, mode, done);
}

static int set_up(void **state)
{
	(void)state;
	watch("many who want the same pages", 100);
	atomic_store(&again, false);
	atomic_store(&unwoken, 0);
	if (hgm_sys == &sys) /* it may be in use: a failed case leaves its engine behind */
		return 0;
	kernel = hgm_sys;
	sys = *kernel;
	sys.read = late_read;
	sys.uffd_continue = odd_continue;
	sys.uffd_copy = odd_copy;
	hgm_sys = &sys;
	return 0;
}

/* The thread does not outlive its case, even if the case fails. */
static struct {
	pthread_t thread;
	char *addr;
	bool runs;
	_Atomic bool stop;
} dropper;

static void *drop(void *arg)
{
	while (!atomic_load(&dropper.stop)) {
		madvise(dropper.addr, LENGTH, MADV_DONTNEED);
		nap_us(SMALLER(200, 2000));
	}
	return arg;
}

static void drop_pages(char *addr)
{
	dropper.addr = addr;
	atomic_store(&dropper.stop, false);
	assert_int_equal(pthread_create(&dropper.thread, NULL, drop, NULL), 0);
	dropper.runs = true;
}

static void drop_no_more(void)
{
	if (!dropper.runs)
		return;
	atomic_store(&dropper.stop, true);
	pthread_join(dropper.thread, NULL);
	dropper.runs = false;
}

static int tear_down(void **state)
{
	(void)state;
	drop_no_more();
	calm();
	return 0;
}

static void batch_touches(struct ram *ram, enum backing backing)
{
	struct plan plan = {
		.contents = &contents, .pages = ROUND_PAGES, .passes = 3, .write = true
	};

	if (backing != BACKING_ANON) /* anonymous memory would lose its bytes */
		drop_pages(ram->addr);
	for (uint64_t round = 0; round < ROUNDS; round++) {
		struct touchers touchers;

		plan.first_page = round * ROUND_PAGES;
		plan.addr = ram->addr + plan.first_page * PAGE;
		touchers_start(&touchers, TOUCHERS, &plan);
		touchers_join(&touchers);
	}
	drop_no_more();
	assert_pages(&contents, 0, LENGTH / PAGE, ram->addr);
}

static void restore(enum backing backing, enum provider_kind kind, bool often_again)
{
	struct provider *provider = provider_make(kind, &contents, LENGTH);
	struct hgm *h = engine(often_again ? 2 : 1);
	struct ram ram;

	atomic_store(&again, often_again);
	ram_make(&ram, h, backing, LENGTH, provider_source(provider),
		 HGM_REGION_NO_FILL | HGM_REGION_NO_COLLAPSE);
	assert_ok(hgm_start(h));
	batch_touches(&ram, backing);
	assert_true(!often_again || stats_of(h).again > 0);
	assert_int_equal(progress_of(h).poisoned_bytes, 0);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

static void in_all_ways(enum backing backing)
{
	static const enum provider_kind kinds[] = { PROVIDER_NOW, PROVIDER_SHORT, PROVIDER_LATER,
						    PROVIDER_MIXED };
	static unsigned int turn; /* static, so that other memory gets other trials */

	for (unsigned int i = 0; i < 8; i++)
		if (turn_of(&turn, 3))
			restore(backing, kinds[i / 2], i % 2);
}

static void shmem(void **state)
{
	(void)state;
	in_all_ways(BACKING_SHMEM);
	assert_true(atomic_load(&unwoken) > 0);
}

static void shmem_lazy(void **state)
{
	(void)state;
	in_all_ways(BACKING_SHMEM_LAZY);
}

static void anon(void **state)
{
	(void)state;
	in_all_ways(BACKING_ANON);
}

static void the_end_in_the_midst(void **state)
{
	static uint64_t page[PAGE / sizeof(uint64_t)];

	(void)state;
	for (unsigned int round = 0; round < ROUNDS; round++) {
		struct provider *provider = provider_make(PROVIDER_MIXED, &contents, LENGTH);
		enum backing backing = round % 2 ? BACKING_SHMEM : BACKING_ANON;
		struct hgm *h = engine(1 + round / 2 % 2);
		struct waiter waiter[16];
		struct ram ram;

		atomic_store(&again, round % 3);
		ram_make(&ram, h, backing, LENGTH, provider_source(provider), HGM_REGION_NO_FILL);
		assert_ok(hgm_start(h));
		for (unsigned int i = 0; i < TOUCHERS; i++)
			waiter_start(&waiter[i], ram.addr + i * (1 + round % 4 * 5) * PAGE);
		nap_us((unsigned int)(random_of(&dice) % 500));
		hgm_destroy(h);
		for (unsigned int i = 0; i < TOUCHERS; i++) {
			waiter_join(&waiter[i]);
			contents_write(&contents, i * (1 + round % 4 * 5), 1, page);
			if (waiter[i].signal != SIGSEGV) {
				assert_int_equal(waiter[i].signal, 0);
				assert_int_equal(waiter[i].value, *(uint8_t *)page);
			}
		}
		ram_release(&ram);
		provider_free(provider);
	}
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(shmem),
	CASE(shmem_lazy),
	CASE(anon),
	CASE(the_end_in_the_midst),
};

TEST_MAIN(tests)
