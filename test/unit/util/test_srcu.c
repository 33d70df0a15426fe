/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SRCU sections: a wait ends when the threads that were inside have left. It sees what they wrote,
 * and threads that enter after it see what was written before it. It does not wait for new threads.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "test.h"
#include "util/srcu.h"

#define READERS 3
#define WAITS	5000
#define LOOKS	1000

static struct hgm_srcu section;
static _Atomic bool stop;

/*
 * Two generations of an object: a reader looks up the current one and uses it in one SRCU section.
 * The writer changes the current one, waits, and removes the old one.
 */
static _Atomic unsigned int current;
static unsigned int alive[2] = { 1, 0 }; /* plain: ThreadSanitizer must see the order */
static _Atomic unsigned long dead_seen, looks;

static void *read_on(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg;

	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		unsigned int side = hgm_srcu_read_lock(&section);
		unsigned int which = atomic_load_explicit(&current, memory_order_acquire);

		for (int n = rand_r(&seed) % 64; n > 0; n--)
			if (!*(volatile unsigned int *)&alive[which])
				atomic_fetch_add(&dead_seen, 1);
		if (rand_r(&seed) % 256 == 0)
			nanosleep(&(struct timespec){ .tv_nsec = 1000 }, NULL);
		hgm_srcu_read_unlock(&section, side);
		atomic_fetch_add_explicit(&looks, 1, memory_order_relaxed);
	}
	return NULL;
}

static void nobody_uses_what_is_gone(void **state)
{
	pthread_t reader[READERS];

	(void)state;
	atomic_store(&stop, false);
	for (uintptr_t i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&reader[i], NULL, read_on, (void *)(i + 1)), 0);
	for (unsigned int i = 0; i < WAITS || atomic_load(&looks) < LOOKS; i++) {
		unsigned int old = atomic_load_explicit(&current, memory_order_relaxed);

		alive[!old] = 1;
		atomic_store_explicit(&current, !old, memory_order_release);
		hgm_srcu_synchronize(&section);
		alive[old] = 0;
	}
	atomic_store(&stop, true);
	for (int i = 0; i < READERS; i++)
		pthread_join(reader[i], NULL);
	assert_int_equal(atomic_load(&dead_seen), 0);
	assert_int_equal(atomic_load(&section.inside[0]), 0);
	assert_int_equal(atomic_load(&section.inside[1]), 0);
}

static _Atomic bool waited;

static void *wait_once(void *arg)
{
	(void)arg;
	hgm_srcu_synchronize(&section);
	atomic_store(&waited, true);
	return NULL;
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

static void waits_for_who_is_inside(void **state)
{
	(void)state;
	/* On either side, and with a thread that entered after the wait began. */
	for (int round = 0; round < 4; round++) {
		unsigned int side = hgm_srcu_read_lock(&section), later;
		pthread_t waiter;

		atomic_store(&waited, false);
		assert_int_equal(pthread_create(&waiter, NULL, wait_once, NULL), 0);
		while (atomic_load(&section.side) == side)
			nap();
		later = hgm_srcu_read_lock(&section);
		nap();
		assert_false(atomic_load(&waited));
		hgm_srcu_read_unlock(&section, side);
		pthread_join(waiter, NULL);
		assert_true(atomic_load(&waited));
		hgm_srcu_read_unlock(&section, later);
	}
}

/* The next wait includes a thread that read the side before, and was counted after, the switch. */
static void waits_for_stragglers(void **state)
{
	unsigned int side = atomic_load(&section.side);
	pthread_t waiter;

	(void)state;
	hgm_srcu_synchronize(&section);
	atomic_fetch_add(&section.inside[side], 1);
	atomic_store(&waited, false);
	assert_int_equal(pthread_create(&waiter, NULL, wait_once, NULL), 0);
	for (int i = 0; i < 5; i++)
		nap();
	assert_false(atomic_load(&waited));
	hgm_srcu_read_unlock(&section, side);
	pthread_join(waiter, NULL);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(nobody_uses_what_is_gone),
	cmocka_unit_test(waits_for_who_is_inside),
	cmocka_unit_test(waits_for_stragglers),
};

TEST_MAIN(tests)
