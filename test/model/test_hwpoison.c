/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory errors. One is always that of a whole huge page.
 */
#include "play.h"

#include <setjmp.h>
#include <signal.h>

static void begin(uint64_t block, unsigned int pages)
{
	scene(block, pages);
	scene_split();
	scene_register(EXACT, MINOR);
}

static void poison(uint64_t offset)
{
	assert_int_equal(hgm_sys->madvise(s.alias + offset, K4, MADV_HWPOISON), 0);
}

/* CONTINUE is EIO always: in a hole, for a mapped piece, over a table, for the whole page */
static void continue_is_eio(void **state)
{
	(void)state;
	begin(M2, 2);
	fill(0, 2 * M2);
	assert_did(cont(0, K4), K4);
	poison(7 * K4);
	assert_none(cont(100 * K4, K4), EIO);
	assert_none(cont(0, K4), EIO);
	assert_none(cont(0, M2), EIO);
	assert_did(cont(M2, M2), M2);
	poison(M2);
	assert_none(cont(M2, M2), EIO);
	assert_none(cont(M2 + K4, K4), EIO);
}

static void continue_is_eio_in_1g(void **state)
{
	(void)state;
	begin(G1, 1);
	s.alias[0] = 1;
	assert_did(cont(M2, M2), M2);
	poison(3 * K4);
	assert_none(cont(M2, M2), EIO);
	assert_none(cont(M2 + K4, K4), EIO);
	assert_none(cont(0, G1), EIO);
}

/* 2.7 collapse skips it, and returns 0 */
static void collapse_skips_it(void **state)
{
	(void)state;
	begin(M2, 2);
	fill(0, 2 * M2);
	assert_did(cont(0, K4), K4);
	assert_did(cont(M2, K4), K4);
	poison(7 * K4);
	assert_int_equal(collapse(0, 2 * M2), 0);
	assert_leaves(0, 1, 1);
}

static _Thread_local sigjmp_buf back;
static _Atomic int touched; /* 1: without a signal */

static void on_sigbus(int sig)
{
	atomic_store(&touched, sig);
	siglongjmp(back, 1);
}

static void *touches(void *arg)
{
	if (!sigsetjmp(back, 1)) {
		*(volatile char *)arg;
		atomic_store(&touched, 1);
	}
	return NULL;
}

/* There is no message. */
static bool touch_is_sigbus(uint64_t offset)
{
	struct sigaction action = { .sa_handler = on_sigbus }, before;
	struct told t;
	pthread_t thread;

	atomic_store(&touched, 0);
	sigaction(SIGBUS, &action, &before);
	assert_int_equal(pthread_create(&thread, NULL, touches, s.primary + offset), 0);
	for (int i = 0; i < 500 && !atomic_load(&touched); i++)
		assert_false(told(&t, 0));
	pthread_join(thread, NULL);
	sigaction(SIGBUS, &before, NULL);
	return atomic_load(&touched) == SIGBUS;
}

/* The leaves are replaced: smaps counts them still, pagemap does not, and a touch is SIGBUS. */
static void leaves_are_replaced(void **state)
{
	(void)state;
	begin(M2, 2);
	fill(0, 2 * M2);
	assert_did(cont(0, 3 * K4), 3 * K4);
	assert_did(cont(M2, K4), K4);
	assert_int_equal(pages_with(PAGEMAP_PRESENT), 4);
	poison(100 * K4);
	assert_int_equal(smaps_kb(0, "HugetlbPteMapped"), 16);
	assert_int_equal(pages_with(PAGEMAP_PRESENT), 1);
	assert_true(touch_is_sigbus(K4));
	assert_true(touch_is_sigbus(200 * K4)); /* a hole */
	touch_silently(M2, true);
	/* After DONTNEED the entries are gone, but the page is bad. */
	assert_int_equal(advise(0, M2, MADV_DONTNEED), 0);
	assert_int_equal(smaps_kb(0, "HugetlbPteMapped"), 4);
	assert_true(touch_is_sigbus(K4));
	assert_none(cont(0, K4), EIO);
}

/* The page never returns to the pool: after the last close, after a hole was punched. */
static void lost_for_good(void **state)
{
	(void)state;
	begin(M2, 2);
	fill(0, 2 * M2);
	poison(0);
	poison(M2);
	assert_int_equal(pool_now(M2).free, 638);
	assert_int_equal(model_punch_hole(s.fd, M2, M2), 0);
	assert_int_equal(pool_now(M2).free, 638);
	fill(M2, M2); /* another page */
	assert_did(cont(M2, M2), M2);
	assert_int_equal(pool_now(M2).free, 637);
	scene_end();
	assert_int_equal(pool_now(M2).free, 638);
	assert_int_equal(pool_now(M2).total, 640);
	assert_int_equal(model_left(), 0);
}

static const struct CMUnitTest tests[] = {
	ON("hgm", continue_is_eio),   ON("hgm", continue_is_eio_in_1g),
	ON("hgm", collapse_skips_it), ON("hgm", leaves_are_replaced),
	ON("hgm", lost_for_good),
};

TEST_MAIN(tests)
