/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * HGM_REGION_DEFER_COLLAPSE and hgm_region_collapse(): called before and after fill, twice, and at
 * any time during it.
 */
#include "native.h"

#include <errno.h>

#define LENGTH SMALLER(16 * MIB, 8 * MIB)

static void put_off_and_done(uint64_t block)
{
	uint64_t length = block == GIB ? GIB : LENGTH;
	unsigned int once;
	struct native n;
	uint8_t value;

	native_make(&n, block, length, PROVIDER_NOW, HGM_REGION_DEFER_COLLAPSE);
	assert_ok(hgm_start(n.h));
	assert_int_equal(touch(n.addr + 9 * PAGE, &value), 0);
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_true(progress_of(n.h).complete);
	nap_us(20000);
	assert_int_equal(calls_in(CALL_COLLAPSE, n.addr, length), 0);
	assert_int_equal(info_of(n.r).huge_bytes, 0);

	assert_ok(hgm_region_collapse(n.r));
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_int_equal(info_of(n.r).huge_bytes, length);
	assert_int_equal(info_of(n.r).left_split, 0);
	assert_all_huge(&n);
	once = calls_in(CALL_COLLAPSE, n.addr, length);
	assert_true(once >= length / block);

	assert_ok(hgm_region_collapse(n.r));
	assert_ok(hgm_wait(n.h, WAIT_MS));
	nap_us(20000);
	assert_int_equal(calls_in(CALL_COLLAPSE, n.addr, length), once);
	assert_int_equal(stats_of(n.h).collapsed_blocks, length / block);
	native_free(&n);
}

static void of_2m(void **state)
{
	(void)state;
	put_off_and_done(LEAF);
}

__attribute__((unused)) static void of_1g(void **state)
{
	(void)state;
	put_off_and_done(GIB);
}

static void *collapse_it(void *arg)
{
	struct native *n = arg;

	return (void *)(intptr_t)hgm_region_collapse(n->r);
}

/* Two threads ask for it while pages arrive and are touched: each block is collapsed, and once. */
static void while_filling(void **state)
{
	_Atomic uint64_t random = now_us();
	unsigned int i;

	(void)state;
	printf("# seed %llu\n", (unsigned long long)random);
	for (i = 0; i < SMALLER(40, 8); i++) {
		struct plan plan = { .contents = &native_contents, .pages = LENGTH / PAGE };
		struct touchers touchers;
		pthread_t thread[2];
		struct native n;
		void *rc;

		native_make(&n, LEAF, LENGTH, i % 2 ? PROVIDER_LATER : PROVIDER_NOW,
			    HGM_REGION_DEFER_COLLAPSE);
		plan.addr = n.addr;
		plan.write = i % 3 == 0;
		assert_ok(hgm_start(n.h));
		touchers_start(&touchers, 2, &plan);
		nap_us((unsigned int)(random_of(&random) % SMALLER(4000, 40000)));
		for (int k = 0; k < 2; k++)
			assert_int_equal(pthread_create(&thread[k], NULL, collapse_it, &n), 0);
		for (int k = 0; k < 2; k++) {
			pthread_join(thread[k], &rc);
			assert_null(rc);
		}
		touchers_join(&touchers);
		assert_ok(hgm_wait(n.h, WAIT_MS));
		assert_all_huge(&n);
		assert_int_equal(info_of(n.r).left_split, 0);
		assert_int_equal(atomic_load(&n.r->unsettled), 0);
		native_free(&n);
	}
}

/* The region is destroyed while its blocks are about to be collapsed. */
static void while_it_ends(void **state)
{
	_Atomic uint64_t random = now_us();
	unsigned int i;

	(void)state;
	printf("# seed %llu\n", (unsigned long long)random);
	for (i = 0; i < SMALLER(60, 12); i++) {
		struct native n;

		native_make(&n, LEAF, LENGTH, i % 2 ? PROVIDER_LATER : PROVIDER_NOW,
			    HGM_REGION_DEFER_COLLAPSE);
		assert_ok(hgm_start(n.h));
		if (i % 3)
			assert_ok(hgm_wait(n.h, WAIT_MS));
		assert_ok(hgm_region_collapse(n.r));
		if (i % 4)
			nap_us((unsigned int)(random_of(&random) % 2000));
		hgm_region_destroy(n.r);
		assert_ok(hgm_wait(n.h, WAIT_MS));
		hgm_destroy(n.h);
		provider_free(n.provider);
	}
}

static void where_there_is_nothing_to_collapse(void **state)
{
	struct native n;

	(void)state;
	assert_error(hgm_region_collapse(NULL), -EINVAL);
	native_make(&n, LEAF, LENGTH, PROVIDER_NOW, HGM_REGION_DEFER_COLLAPSE);
	assert_ok(hgm_region_collapse(n.r)); /* nothing is full yet */
	assert_ok(hgm_start(n.h));
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_all_huge(&n);
	native_free(&n);
}

static const struct CMUnitTest tests[] = {
	ON_BOTH(of_2m),
	ON_BOTH(while_filling),
	ON_BOTH(while_it_ends),
	ON_BOTH(where_there_is_nothing_to_collapse),
#if !SANITIZED
	{ "of_1g", of_1g, on_hgm, off, NULL },
#endif
};

TEST_MAIN(tests)
