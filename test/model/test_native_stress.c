/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everything at the same time: threads that read and write, fill, mappings that the caller drops,
 * and collapse.
 */
#include "native.h"

#include <sys/mman.h>

static _Atomic uint64_t seed;

struct discards {
	const struct native *n;
	uint64_t block;
	_Atomic bool stop;
	unsigned int count;
	pthread_t thread;
};

/* The contents stay, so dropped mappings must be restored, and become huge again. */
static void *discard(void *arg)
{
	struct discards *d = arg;

	while (!atomic_load(&d->stop)) {
		uint64_t block = random_of(&seed) % (d->n->length / d->block);

		hgm_sys->madvise(d->n->addr + block * d->block, d->block, MADV_DONTNEED);
		d->count++;
		nap_us((unsigned int)(random_of(&seed) % SMALLER(3000, 30000)));
	}
	return NULL;
}

static void stress(uint64_t block, uint64_t length, unsigned int rounds, uint64_t step)
{
	printf("# seed %llu\n", (unsigned long long)seed);
	for (unsigned int i = 0; i < rounds; i++) {
		struct plan plan = { .contents = &native_contents,
				     .pages = length / PAGE,
				     .step = step,
				     .passes = 3,
				     .write = true };
		bool defer = random_of(&seed) % 2;
		struct discards d = { .block = block };
		struct touchers touchers;
		struct native n;

		native_make(&n, block, length, i % 2 ? PROVIDER_LATER : PROVIDER_NOW,
			    defer ? HGM_REGION_DEFER_COLLAPSE : 0);
		plan.addr = n.addr;
		d.n = &n;
		assert_ok(hgm_start(n.h));
		touchers_start(&touchers, 8, &plan);
		assert_int_equal(pthread_create(&d.thread, NULL, discard, &d), 0);
		nap_us((unsigned int)(random_of(&seed) % 20000));
		if (defer)
			assert_ok(hgm_region_collapse(n.r));
		touchers_join(&touchers);
		assert_ok(hgm_wait(n.h, WAIT_MS));
		atomic_store(&d.stop, true);
		pthread_join(d.thread, NULL);
		assert_ok(hgm_wait(n.h, WAIT_MS));
		assert_pages(&native_contents, 0, length / PAGE, n.addr);
		assert_int_equal(info_of(n.r).present_bytes, length);
		assert_int_equal(atomic_load(&n.r->unsettled), 0);
		assert_int_equal(progress_of(n.h).failing_requests, 0);
		/* Each block is settled, and the counts do not exceed the length. */
		assert_true(info_of(n.r).huge_bytes + info_of(n.r).left_split * block <= length);
		native_free(&n);
	}
}

static void of_2m(void **state)
{
	(void)state;
	stress(LEAF, SMALLER(32, 8) * MIB, SMALLER(6, 2), 1);
}

__attribute__((unused)) static void of_1g(void **state)
{
	(void)state;
	stress(GIB, GIB, 1, 127);
}

static int seeded(void **state)
{
	(void)state;
	seed = now_us();
	return 0;
}

static const struct CMUnitTest tests[] = {
	ON_BOTH(of_2m),
#if !SANITIZED
	ON_BOTH(of_1g),
#endif
};

TEST_MAIN_UNLESS(tests, seeded, lacking_userfaultfd())
