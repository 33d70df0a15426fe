/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page-state map with many threads. The guarantees are those of the essay in lib/map/map.c:
 *
 * claim-once: an array keeps the owners of pages. It is changed by relaxed atomic exchange, so that
 *	it orders nothing by itself.
 * contents-first, full-last: contents and the reasons of poison are plain memory. They are written
 *	before the state is set, and read after it was seen. To ThreadSanitizer, a missing release
 *	or acquire is a data race.
 * full-once: a thread that gets the report of a full leaf marks it. The mark must not exist before.
 * leaf-life: writers work side by side on a few leaves at the front, so that at all times one of
 *	them uses a leaf that another makes full. Used leaves serve the words that follow.
 * no-lost-waiter: every released page is claimed again in the end.
 * discarded-wins: discarders write the contents of a dropped page when the map makes them its
 *	owner. Other owners do so when they find their page discarded. Each discard is recorded
 *	before the call of the map, so that a reader of the page knows its possible contents.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "map/map.h"
#include "random.h"
#include "test.h"
#include "util/clock.h"

#define WRITERS	 3
#define READERS	 2
#define LEAVES	 700
#define PAGES	 (UINT64_C(512) * LEAVES - 77) /* the last leaf is incomplete */
#define FRONT	 3			       /* leaves in use at a time */
#define RUN_NS	 UINT64_C(3500000000)
#define ROUND_NS UINT64_C(20000000000) /* a round takes a twentieth of a second */
#define NO_OWNER 0
#define SETTLED	 (~0u)
#define DROPPED	 0 /* the initial contents[]: those of a leaf that is discarded at once */

static struct hgm_map *map;
static uint32_t contents[PAGES];
static uint32_t reason[PAGES]; /* for poison */
static _Atomic unsigned int owner[PAGES];
static _Atomic bool told_full[LEAVES];
static _Atomic unsigned int settled[LEAVES]; /* present or poisoned pages */
static _Atomic unsigned int poisoned[LEAVES];
static _Atomic bool dropped[PAGES]; /* hgm_map_discard() has been called */
static _Atomic unsigned int round_salt;
static _Atomic bool readers_stop;
static _Atomic(const char *) failure; /* the first */
static _Atomic uint64_t releases, reads, rounds, discards;

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

/* Zeroes of a discarded page, or the contents that arrived before it was discarded. */
static bool is_right(uint64_t page)
{
	return contents[page] == contents_of(page) ||
	       (contents[page] == DROPPED &&
		atomic_load_explicit(&dropped[page], memory_order_relaxed));
}

static unsigned int pages_of(uint64_t leaf)
{
	return leaf == LEAVES - 1 ? (unsigned int)(PAGES % 512) : 512;
}

/* Take a run of pages, all of which the caller owns. */
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

static void tell_full(uint64_t leaf)
{
	CHECK(!atomic_exchange_explicit(&told_full[leaf], true, memory_order_relaxed),
	      "full-once: told twice");
	CHECK(hgm_map_leaf_full(map, leaf), "full-once: told of a leaf that is not full");
	for (uint64_t p = leaf * 512; p < leaf * 512 + pages_of(leaf); p++)
		CHECK(is_right(p), "full-last: contents");
}

static void publish(uint64_t first, uint64_t pages)
{
	if (hgm_map_set_present(map, first, pages))
		tell_full(first / 512);
}

static void finish_run(struct random *random, uint64_t first, uint64_t pages, unsigned int me)
{
	uint64_t leaf = first / 512;

	take(first, pages, me);
	/* Like a source that scribbles, then may fail. The next owner overwrites this. */
	for (uint64_t p = first; p < first + pages; p++)
		contents[p] = contents_of(p);
	if (random_one_in(random, 4)) {
		part(first, pages, me, NO_OWNER);
		atomic_fetch_add_explicit(&releases, 1, memory_order_relaxed);
		hgm_map_release(map, first, pages);
		return;
	}
	part(first, pages, me, SETTLED);
	for (uint64_t p = first; p < first + pages; p++)
		if (hgm_map_discarded_word(map, p / 64) >> p % 64 & 1)
			contents[p] = DROPPED;
	if (leaf % 8 == 5 && random_one_in(random, 8)) {
		for (uint64_t p = first; p < first + pages; p++)
			reason[p] = ~contents_of(p);
		atomic_fetch_add_explicit(&poisoned[leaf], (unsigned int)pages,
					  memory_order_relaxed);
		hgm_map_set_poisoned(map, first, pages);
	} else {
		publish(first, pages);
	}
	settle(first, pages);
}

/* The caller owns a discarded page, which had no owner or was given up. */
static void take_discarded(uint64_t page)
{
	bool was_poisoned =
		atomic_exchange_explicit(&owner[page], SETTLED, memory_order_relaxed) == SETTLED;

	contents[page] = DROPPED;
	if (was_poisoned)
		atomic_fetch_sub_explicit(&poisoned[page / 512], 1, memory_order_relaxed);
	publish(page, 1);
	if (!was_poisoned)
		settle(page, 1);
}

static void discard_some(struct random *random, uint64_t word)
{
	uint64_t want = random_next(random) & random_next(random) & random_next(random);
	uint64_t mine, poisoned_now, in_flight;

	for (uint64_t p = word * 64; p < word * 64 + 64 && p < PAGES; p++)
		if (want >> p % 64 & 1)
			atomic_store_explicit(&dropped[p], true, memory_order_relaxed);
	if (hgm_map_discard(map, word, want, &mine, &poisoned_now, &in_flight)) {
		complain("discard: no memory");
		return;
	}
	CHECK(!((mine | in_flight) & ~want) && !(mine & in_flight), "discard: wrong pages");
	for (; mine; mine &= mine - 1)
		take_discarded(word * 64 + (uint64_t)__builtin_ctzll(mine));
	atomic_fetch_add_explicit(&discards, 1, memory_order_relaxed);
}

static void discard_leaf(uint64_t leaf)
{
	uint64_t pages;

	for (uint64_t p = leaf * 512; p < leaf * 512 + pages_of(leaf); p++)
		atomic_store_explicit(&dropped[p], true, memory_order_relaxed);
	pages = hgm_map_discard_leaf(map, leaf);
	if (!pages)
		return;
	CHECK(pages == pages_of(leaf), "discard leaf: not all of it");
	tell_full(leaf);
	settle(leaf * 512, pages);
}

/* Claim some pages of a word, and process each run of claimed pages. */
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
		else if (leaf < LEAVES && leaf % 16 == 9 && random_one_in(&random, 2))
			discard_leaf(leaf);
		else if (leaf < LEAVES && leaf % 4 == 1 && random_one_in(&random, 4))
			discard_some(&random, leaf * 8 + random_below(&random, 8));
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
		CHECK(is_right(page), "contents-first: contents");
		break;
	case HGM_PAGE_POISONED:
		CHECK(reason[page] == ~contents_of(page), "contents-first: reason of poison");
		break;
	default:
		return;
	}
	CHECK(state != HGM_PAGE_PRESENT || hgm_map_state(map, page) == state,
	      "states: left a state that is for ever");
	CHECK(!(hgm_map_absent_word(map, page / 64) >> page % 64 & 1), "states: absent again");
}

static void read_word(uint64_t word)
{
	uint64_t present = hgm_map_present_word(map, word);
	uint64_t later;

	for (uint64_t p = word * 64; p < word * 64 + 64 && p < PAGES; p++)
		if (present >> p % 64 & 1)
			CHECK(is_right(p), "contents-first: contents by word");
	later = hgm_map_present_word(map, word);
	CHECK(!(present & ~later), "states: present no more");
	CHECK(!(present & hgm_map_absent_word(map, word)), "states: present and absent");
}

static void read_leaf(uint64_t leaf)
{
	if (!hgm_map_leaf_full(map, leaf))
		return;
	for (uint64_t p = leaf * 512; p < leaf * 512 + pages_of(leaf); p++)
		CHECK(is_right(p), "full-last: contents of a full leaf");
	CHECK(hgm_map_present_word(map, leaf * 8 + 3) == ~UINT64_C(0), "full-last: not present");
	CHECK(!hgm_map_absent_word(map, leaf * 8 + 3), "full-last: absent");
}

static void *reader(void *arg)
{
	struct random random = { *(uint64_t *)arg };
	uint64_t n = 0;
	uint64_t front = 0;

	while (!atomic_load_explicit(&readers_stop, memory_order_relaxed)) {
		/* Mostly where the other threads work. */
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

/* All threads have ended: the final state must be consistent. */
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
	memset(dropped, 0, sizeof(dropped));
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
	printf("# %llu rounds of %d leaves, %llu releases, %llu discards, %llu reads\n",
	       (unsigned long long)atomic_load(&rounds), LEAVES,
	       (unsigned long long)atomic_load(&releases),
	       (unsigned long long)atomic_load(&discards), (unsigned long long)atomic_load(&reads));
	assert_true(atomic_load(&releases) > 0);
	assert_true(atomic_load(&discards) > 0);
	assert_true(atomic_load(&reads) > 0);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(many_threads_many_leaves),
};

TEST_MAIN(tests)
