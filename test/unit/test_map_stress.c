/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page-state map under threads. The guarantees are those of the essay in lib/map.c:
 *
 * claim-once: owners of pages are kept in an array that is changed by atomic exchange, relaxed, so
 *	that it orders nothing by itself.
 * contents-first, full-last: contents and the reasons of poison are plain memory, written before
 *	the state is set and read after it was seen: to ThreadSanitizer a missing release or
 *	acquire is a data race.
 * full-once: who is told that a leaf is full marks it; the mark must not be there.
 * leaf-life: writers work side by side on a few leaves at the front, so that all the time one of
 *	them holds a leaf that another makes full; used leaves serve the words that follow.
 * no-lost-waiter: every page that was released is claimed again in the end.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "clock.h"
#include "map.h"
#include "random.h"
#include "test.h"

#define WRITERS	 3
#define READERS	 2
#define LEAVES	 700
#define PAGES	 (UINT64_C(512) * LEAVES - 77) /* the last leaf is not whole */
#define FRONT	 3			       /* leaves worked on at a time */
#define RUN_NS	 UINT64_C(3500000000)
#define ROUND_NS UINT64_C(20000000000) /* a round takes a twentieth of a second */
#define NO_OWNER 0
#define SETTLED	 (~0u)

static struct hgm_map *map;
static uint32_t contents[PAGES];
static uint32_t reason[PAGES]; /* of poison */
static _Atomic unsigned int owner[PAGES];
static _Atomic bool told_full[LEAVES];
static _Atomic unsigned int settled[LEAVES]; /* pages present or poisoned */
static _Atomic unsigned int poisoned[LEAVES];
static _Atomic unsigned int round_salt;
static _Atomic bool readers_stop;
static _Atomic(const char *) failure; /* the first */
static _Atomic uint64_t releases, reads, rounds;

static void complain(const char *what)
{
	const char *none = NULL;

	atomic_compare_exchange_strong(&failure, &none, what);
}

#define CHECK(condition, what)          \
	do {                            \
		if (!(condition))       \
			complain(what); \
	} while (0)

static uint32_t contents_of(uint64_t page)
{
	return (uint32_t)((page + 1) * 2654435761u) ^
	       atomic_load_explicit(&round_salt, memory_order_relaxed);
}

static unsigned int pages_of(uint64_t leaf)
{
	return leaf == LEAVES - 1 ? (unsigned int)(PAGES % 512) : 512;
}

/* Pages of one run, all mine. */
static void take(uint64_t first, uint64_t pages, unsigned int me)
{
	for (uint64_t p = first; p < first + pages; p++)
		CHECK(atomic_exchange_explicit(&owner[p], me, memory_order_relaxed) == NO_OWNER,
		      "claim-once: the page had an owner");
}

static void part(uint64_t first, uint64_t pages, unsigned int me, unsigned int next)
{
	for (uint64_t p = first; p < first + pages; p++)
		CHECK(atomic_exchange_explicit(&owner[p], next, memory_order_relaxed) == me,
		      "claim-once: somebody else came to own the page");
}

static void settle(uint64_t first, uint64_t pages)
{
	atomic_fetch_add_explicit(&settled[first / 512], (unsigned int)pages, memory_order_relaxed);
}

static void finish_run(struct random *random, uint64_t first, uint64_t pages, unsigned int me)
{
	uint64_t leaf = first / 512;

	take(first, pages, me);
	/* As a source that scribbles, then fails or not; the next owner writes over it. */
	for (uint64_t p = first; p < first + pages; p++)
		contents[p] = contents_of(p);
	if (random_one_in(random, 4)) {
		part(first, pages, me, NO_OWNER);
		atomic_fetch_add_explicit(&releases, 1, memory_order_relaxed);
		hgm_map_release(map, first, pages);
		return;
	}
	part(first, pages, me, SETTLED);
	if (leaf % 8 == 5 && random_one_in(random, 8)) {
		for (uint64_t p = first; p < first + pages; p++)
			reason[p] = ~contents_of(p);
		atomic_fetch_add_explicit(&poisoned[leaf], (unsigned int)pages,
					  memory_order_relaxed);
		hgm_map_set_poisoned(map, first, pages);
	} else if (hgm_map_set_present(map, first, pages)) {
		CHECK(!atomic_exchange_explicit(&told_full[leaf], true, memory_order_relaxed),
		      "full-once: told twice");
		CHECK(hgm_map_leaf_full(map, leaf), "full-once: told of a leaf that is not full");
		for (uint64_t p = leaf * 512; p < leaf * 512 + pages_of(leaf); p++)
			CHECK(contents[p] == contents_of(p), "full-last: contents");
	}
	settle(first, pages);
}

/* Claim some pages of a word and deal with each run of those that were got. */
static void write_some(struct random *random, uint64_t word, unsigned int me)
{
	uint64_t want =
		random_one_in(random, 2) ? ~UINT64_C(0) : random_next(random) | random_next(random);
	uint64_t mine;

	if (hgm_map_claim(map, word, want, &mine)) {
		complain("claim: no memory");
		return;
	}
	CHECK(!(mine & ~want), "claim: more than was asked for");
	while (mine) {
		uint64_t low = (uint64_t)__builtin_ctzll(mine);
		uint64_t rest = ~(mine >> low);
		uint64_t run = rest ? (uint64_t)__builtin_ctzll(rest) : 64;
		uint64_t some = 1 + random_below(random, run);

		finish_run(random, word * 64 + low, some, me);
		mine &= ~((some < 64 ? (UINT64_C(1) << some) - 1 : ~UINT64_C(0)) << low);
	}
}

static bool leaf_done(uint64_t leaf)
{
	return atomic_load_explicit(&settled[leaf], memory_order_relaxed) == pages_of(leaf);
}

static void *writer(void *arg)
{
	struct random random = { *(uint64_t *)arg };
	unsigned int me = 1 + (unsigned int)random_below(&random, 1u << 30);
	uint64_t give_up = hgm_now_ns() + ROUND_NS;
	uint64_t front = 0;
	uint64_t tries = 0;

	while (front < LEAVES && !atomic_load_explicit(&failure, memory_order_relaxed)) {
		uint64_t leaf = front + random_below(&random, FRONT);

		if (!(++tries % 4096) && hgm_now_ns() > give_up)
			complain("no-lost-waiter: a page can neither be claimed nor is it settled");
		if (leaf_done(front))
			front++;
		else if (leaf < LEAVES)
			write_some(&random, leaf * 8 + random_below(&random, 8), me);
	}
	return NULL;
}

static void read_page(uint64_t page)
{
	enum hgm_page_state state = hgm_map_state(map, page);

	switch (state) {
	case HGM_PAGE_PRESENT:
		CHECK(contents[page] == contents_of(page), "contents-first: contents");
		break;
	case HGM_PAGE_POISONED:
		CHECK(reason[page] == ~contents_of(page), "contents-first: reason of poison");
		break;
	default:
		return;
	}
	CHECK(hgm_map_state(map, page) == state, "states: left a state that is for ever");
	CHECK(!(hgm_map_absent_word(map, page / 64) >> page % 64 & 1), "states: absent again");
}

static void read_word(uint64_t word)
{
	uint64_t present = hgm_map_present_word(map, word);
	uint64_t later;

	for (uint64_t p = word * 64; p < word * 64 + 64 && p < PAGES; p++)
		if (present >> p % 64 & 1)
			CHECK(contents[p] == contents_of(p), "contents-first: contents by word");
	later = hgm_map_present_word(map, word);
	CHECK(!(present & ~later), "states: present no more");
	CHECK(!(present & hgm_map_absent_word(map, word)), "states: present and absent");
}

static void read_leaf(uint64_t leaf)
{
	if (!hgm_map_leaf_full(map, leaf))
		return;
	for (uint64_t p = leaf * 512; p < leaf * 512 + pages_of(leaf); p++)
		CHECK(contents[p] == contents_of(p), "full-last: contents of a full leaf");
	CHECK(hgm_map_present_word(map, leaf * 8 + 3) == ~UINT64_C(0), "full-last: not present");
	CHECK(!hgm_map_absent_word(map, leaf * 8 + 3), "full-last: absent");
}

static void *reader(void *arg)
{
	struct random random = { *(uint64_t *)arg };
	uint64_t n = 0;
	uint64_t front = 0;

	while (!atomic_load_explicit(&readers_stop, memory_order_relaxed)) {
		/* Mostly where something happens. */
		uint64_t leaf = random_one_in(&random, 8) ? random_below(&random, LEAVES)
							  : front + random_below(&random, FRONT);

		while (front + FRONT < LEAVES && leaf_done(front))
			front++;
		switch (random_below(&random, 8)) {
		case 0:
			read_leaf(leaf);
			break;
		case 1:
			read_word(leaf * 8 + random_below(&random, 8));
			break;
		default:
			read_page((leaf * 512 + random_below(&random, 512)) % PAGES);
		}
		n++;
	}
	atomic_fetch_add_explicit(&reads, n, memory_order_relaxed);
	return NULL;
}

/* All threads have gone: what is left must add up. */
static void check_rest(void)
{
	uint64_t present = 0, bad = 0;

	for (uint64_t leaf = 0; leaf < LEAVES; leaf++) {
		unsigned int lost = atomic_load(&poisoned[leaf]);

		assert_int_equal(atomic_load(&told_full[leaf]), !lost);
		assert_int_equal(hgm_map_leaf_full(map, leaf), !lost);
		present += pages_of(leaf) - lost;
		bad += lost;
	}
	assert_int_equal(hgm_map_present_pages(map), present);
	assert_int_equal(hgm_map_poisoned_pages(map), bad);
}

static void one_round(struct random *random)
{
	pthread_t thread[WRITERS + READERS];
	uint64_t seed[WRITERS + READERS];

	assert_int_equal(hgm_map_create(&map, PAGES), 0);
	memset(contents, 0, sizeof(contents));
	memset(reason, 0, sizeof(reason));
	memset(owner, 0, sizeof(owner));
	memset(told_full, 0, sizeof(told_full));
	memset(settled, 0, sizeof(settled));
	memset(poisoned, 0, sizeof(poisoned));
	atomic_store(&round_salt, (unsigned int)random_next(random));
	atomic_store(&readers_stop, false);
	for (int i = 0; i < WRITERS + READERS; i++) {
		seed[i] = random_next(random);
		assert_int_equal(pthread_create(&thread[i], NULL, i < WRITERS ? writer : reader,
						&seed[i]),
				 0);
	}
	for (int i = 0; i < WRITERS; i++)
		pthread_join(thread[i], NULL);
	atomic_store(&readers_stop, true);
	for (int i = WRITERS; i < WRITERS + READERS; i++)
		pthread_join(thread[i], NULL);
	if (atomic_load(&failure))
		fail_msg("%s", atomic_load(&failure));
	check_rest();
	hgm_map_destroy(map);
	atomic_fetch_add(&rounds, 1);
}

static void many_threads_many_leaves(void **state)
{
	struct random random = { random_seed() };
	uint64_t end = hgm_now_ns() + RUN_NS;

	(void)state;
	do
		one_round(&random);
	while (hgm_now_ns() < end);
	printf("# %llu rounds of %d leaves, %llu releases, %llu reads\n",
	       (unsigned long long)atomic_load(&rounds), LEAVES,
	       (unsigned long long)atomic_load(&releases), (unsigned long long)atomic_load(&reads));
	assert_true(atomic_load(&releases) > 0);
	assert_true(atomic_load(&reads) > 0);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(many_threads_many_leaves),
};

TEST_MAIN(tests)
