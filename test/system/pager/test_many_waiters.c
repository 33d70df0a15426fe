/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * More threads wait than an engine has requests. All of them sleep until there is room, and none
 * faults again and again.
 */
#include "harness.h"

#include <errno.h>
#include <stdlib.h>

#define LENGTH	 (16 * MIB)
#define REQUESTS 1024
#define WAITERS	 1800
#define TRIES	 50
#define WAIT_MS	 SMALLER(20000, 100000)

static const struct contents contents = { .seed = 25 };

struct one {
	pthread_t thread;
	const char *at;
	uint64_t page;
	_Atomic unsigned int *wrong;
};

static void *look(void *arg)
{
	struct one *one = arg;
	char why[160];

	if (!words_right(&contents, one->page, (const uint64_t *)one->at, -1, why))
		atomic_fetch_add(one->wrong, 1);
	return NULL;
}

static bool all_have_faulted(void *arg)
{
	return stats_of(arg).faults >= WAITERS;
}

static bool asks_for_all(void *arg)
{
	return provider_kept(arg) >= REQUESTS;
}

static void more_than_requests(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NEVER, &contents, LENGTH);
	struct one *one = calloc(WAITERS, sizeof(*one));
	struct hgm *h = engine(1);
	_Atomic unsigned int wrong = 0;
	pthread_attr_t attr;
	uint64_t faults = 0;
	struct ram ram;

	(void)state;
	watch("more threads than requests", 100);
	assert_non_null(one);
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, provider_source(provider), HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	/* Not adjacent pages: the library would request those together. */
	for (unsigned int i = 0; i < WAITERS; i++) {
		one[i] = (struct one){ .page = 2 * i,
				       .at = ram.addr + 2 * i * PAGE,
				       .wrong = &wrong };
		if (pthread_create(&one[i].thread, &attr, look, &one[i]))
			fail_msg("thread %u of %u cannot be had", i, WAITERS);
	}
	pthread_attr_destroy(&attr);
	assert_true(eventually(asks_for_all, provider, 20000));
	assert_true(eventually(all_have_faulted, h, 20000));
	/* All fault again after a stop. If they do so all the time, no window is quiet. */
	for (int tries = 0; tries < TRIES && (!tries || faults > WAITERS / 10); tries++) {
		uint64_t before = stats_of(h).faults;

		nap_us(100000); /* at 6000 faults a second, more than a tenth of the waiters */
		faults = stats_of(h).faults - before;
	}
	if (faults > WAITERS / 10)
		fail_msg("%llu faults while all wait", (unsigned long long)faults);
	provider_answer_below(provider, LENGTH / PAGE);
	provider_give(provider);
	for (unsigned int i = 0; i < WAITERS; i++)
		pthread_join(one[i].thread, NULL);
	assert_int_equal(wrong, 0);
	assert_ok(hgm_wait(h, WAIT_MS));
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	free(one);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(more_than_requests),
};

TEST_MAIN(tests)
