/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ring: each request that threads ask arrives once, in the order of its thread and with what
 * was written into it, and the serving thread never sleeps over one. To ThreadSanitizer a missing
 * release or acquire is a data race.
 */
#include <pthread.h>
#include <semaphore.h>
#include <time.h>

#include "ring.h"
#include "test.h"

#define ASKERS 4
#define ROUNDS 60000

static struct ring ring;
static sem_t wakes;
static _Atomic unsigned int refused;

static void *asker(void *arg)
{
	uint64_t who = (uint64_t)(uintptr_t)arg;

	for (uint64_t i = 0; i < ROUNDS;) {
		struct ring_slot *slot = hgm_nbd_ring_get(&ring);

		if (!slot) {
			atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
			sched_yield();
			continue;
		}
		slot->io = (struct hgm_io){ .id = who, .offset = i, .length = i * who };
		slot->kind = RING_READ;
		if (hgm_nbd_ring_ask(&ring, slot))
			sem_post(&wakes);
		i++;
	}
	return NULL;
}

/* Nobody wakes it for a request that it should not have slept over. */
static void sleep_until_woken(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += 60;
	if (sem_timedwait(&wakes, &ts))
		fail_msg("a wake-up was lost");
}

static void all_arrive_once_and_in_order(void **state)
{
	struct ring_slot *kept = NULL, *slot, *next;
	uint64_t seen[ASKERS] = { 0 }, all = 0;
	pthread_t thread[ASKERS];

	(void)state;
	sem_init(&wakes, 0, 0);
	hgm_nbd_ring_init(&ring);
	for (uintptr_t i = 0; i < ASKERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, asker, (void *)i), 0);
	while (all < ASKERS * ROUNDS) {
		slot = hgm_nbd_ring_take(&ring);
		if (!slot && hgm_nbd_ring_may_sleep(&ring))
			sleep_until_woken();
		for (; slot; slot = next) {
			next = hgm_nbd_ring_next(&ring, slot);
			assert_true(slot->io.id < ASKERS);
			assert_int_equal(slot->io.offset, seen[slot->io.id]);
			assert_int_equal(slot->io.length, slot->io.offset * slot->io.id);
			seen[slot->io.id]++;
			all++;
			/* Slots come back in another order than they went out. */
			if (kept)
				hgm_nbd_ring_put(&ring, kept);
			kept = slot;
		}
	}
	for (unsigned int i = 0; i < ASKERS; i++)
		pthread_join(thread[i], NULL);
	hgm_nbd_ring_put(&ring, kept);
	for (unsigned int i = 0; i < RING_SLOTS; i++)
		assert_non_null(hgm_nbd_ring_get(&ring));
	assert_null(hgm_nbd_ring_get(&ring));
}

static void sleeps_only_over_nothing(void **state)
{
	struct ring_slot *a, *b;

	(void)state;
	hgm_nbd_ring_init(&ring);
	a = hgm_nbd_ring_get(&ring);
	b = hgm_nbd_ring_get(&ring);
	assert_null(hgm_nbd_ring_take(&ring));
	assert_false(hgm_nbd_ring_ask(&ring, a));
	assert_false(hgm_nbd_ring_may_sleep(&ring));
	assert_ptr_equal(hgm_nbd_ring_take(&ring), a);
	assert_true(hgm_nbd_ring_may_sleep(&ring));
	assert_true(hgm_nbd_ring_ask(&ring, a));
	assert_false(hgm_nbd_ring_ask(&ring, b)); /* it is woken already */
	assert_ptr_equal(hgm_nbd_ring_take(&ring), a);
	assert_ptr_equal(hgm_nbd_ring_next(&ring, a), b);
	assert_null(hgm_nbd_ring_next(&ring, b));
	/* Woken by something else. */
	assert_true(hgm_nbd_ring_may_sleep(&ring));
	assert_null(hgm_nbd_ring_take(&ring));
	assert_false(hgm_nbd_ring_ask(&ring, a));
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(sleeps_only_over_nothing),
	cmocka_unit_test(all_arrive_once_and_in_order),
};

TEST_MAIN(tests)
