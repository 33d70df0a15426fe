/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pool of a snapshot: slots are handed out once, come back with their contents, and are found
 * by page. Tested with threads, and with random calls against the simplest model.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "random.h"
#include "region/hgm.h"
#include "test.h"
#include "wp/snapshot.h"

#define SLOTS	37
#define FILLERS 3
#define EACH	200000

static struct hgm_pool pool;
static _Atomic bool taken[SLOTS];
static _Atomic unsigned int twice;
static _Atomic uint64_t full;

/* The contents are plain memory: to ThreadSanitizer, a missing barrier is a data race. */
static void *fill(void *arg)
{
	uint64_t who = (uintptr_t)arg;

	for (uint64_t i = 0; i < EACH;) {
		int64_t slot = hgm_pool_get(&pool);

		if (slot < 0) {
			atomic_fetch_add(&full, 1);
			sched_yield(); /* to the emptying thread: CPUs may be fewer than threads */
			continue;
		}
		if (atomic_exchange(&taken[slot], true))
			atomic_fetch_add(&twice, 1);
		pool.slot[slot].part = (uint32_t)who;
		pool.slot[slot].page = i;
		*(uint64_t *)hgm_pool_page(&pool, (uint32_t)slot) = who << 32 | i;
		hgm_pool_ready(&pool, (uint32_t)slot);
		i++;
	}
	return NULL;
}

static void stacks_under_threads(void **state)
{
	uint64_t next[FILLERS] = { 0 }, total = 0;
	pthread_t thread[FILLERS];

	(void)state;
	memset(&pool, 0, sizeof(pool));
	assert_int_equal(hgm_pool_make(&pool, SLOTS * HGM_PAGE_BYTES, false), 0);
	for (uintptr_t i = 0; i < FILLERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, fill, (void *)i), 0);
	while (total < FILLERS * EACH) {
		uint32_t at = hgm_pool_take_ready(&pool);

		if (!at)
			sched_yield();
		while (at) {
			uint32_t slot = at - 1;
			uint32_t who = pool.slot[slot].part;

			at = atomic_load(&pool.slot[slot].next);
			assert_true(who < FILLERS);
			/* oldest first: in order for each filler */
			assert_int_equal(pool.slot[slot].page, next[who]);
			assert_int_equal(*(uint64_t *)hgm_pool_page(&pool, slot),
					 (uint64_t)who << 32 | next[who]);
			next[who]++;
			atomic_store(&taken[slot], false);
			hgm_pool_put(&pool, slot);
			total++;
		}
	}
	for (unsigned int i = 0; i < FILLERS; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(atomic_load(&twice), 0);
	assert_int_equal(atomic_load(&pool.used), 0);
	for (unsigned int i = 0; i < SLOTS; i++)
		assert_true(hgm_pool_get(&pool) >= 0);
	assert_int_equal(hgm_pool_get(&pool), -1);
	assert_int_equal(atomic_load(&pool.used), SLOTS);
	hgm_pool_free(&pool);
}

/* Pages that share homes, so that runs of entries grow, wrap round and are closed again. */
static void index_against_a_model(void **state)
{
	struct {
		bool used;
		uint32_t part;
		uint64_t page;
	} model[SLOTS];
	struct random rng = { .state = random_seed() };

	(void)state;
	for (unsigned int slots = 1; slots <= SLOTS; slots += slots < 5 ? 1 : 8) {
		memset(&pool, 0, sizeof(pool));
		memset(model, 0, sizeof(model));
		assert_int_equal(hgm_pool_make(&pool, slots * HGM_PAGE_BYTES, true), 0);
		for (unsigned int step = 0; step < 200000; step++) {
			uint32_t part = (uint32_t)(random_next(&rng) % 3);
			uint64_t page = random_next(&rng) % 40;
			int64_t want = -1, slot;

			for (unsigned int i = 0; i < slots; i++)
				if (model[i].used && model[i].part == part && model[i].page == page)
					want = i;
			if (random_next(&rng) % 2) {
				slot = hgm_pool_find(&pool, part, page);
				assert_int_equal(slot, want);
				if (slot >= 0) {
					model[slot].used = false;
					hgm_pool_put(&pool, (uint32_t)slot);
				}
			} else if (want < 0 && (slot = hgm_pool_get(&pool)) >= 0) {
				assert_false(model[slot].used);
				model[slot].used = true;
				model[slot].part = pool.slot[slot].part = part;
				model[slot].page = pool.slot[slot].page = page;
				hgm_pool_index(&pool, (uint32_t)slot);
			}
		}
		hgm_pool_free(&pool);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(stacks_under_threads),
	cmocka_unit_test(index_against_a_model),
};

TEST_MAIN(tests)
