/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A life: an engine is created, all actors act on it for a while, and it ends, in order or in use.
 */
#include "chaos.h"

#include <errno.h>

#define ACTORS (DISCARDERS + GUARDS + 3)
#define END_MS (int)(SMALLER(30000, 200000))

struct life life;

static struct actor actors[ACTORS];
static struct actor keeper = { .name = "main" };
static unsigned int actor_count;

static void add(const char *name, void *(*run)(void *), unsigned int count)
{
	while (count--) {
		struct actor *a = &actors[actor_count];

		a->name = name;
		a->number = TOUCHERS + actor_count;
		a->random.state = mix(life.seed + 1000 + actor_count++);
		pthread_create(&a->thread, NULL, run, a);
	}
}

static void start_actors(void)
{
	actor_count = 0;
	atomic_store(&life.actors_stop, false);
	if (may(ACT_DISCARD) || may(ACT_RAW))
		add("discarder", discarder, DISCARDERS);
	if (may(ACT_SNAPSHOT) || may(ACT_DIRTY) || may(ACT_WATCH))
		add("guard", guard, GUARDS);
	if (may(ACT_CALLS))
		add("caller", caller, 1);
	if (may(ACT_ENDS))
		add("mover", mover, 1);
	if (may(ACT_ERRORS))
		add("spoiler", spoiler, 1);
}

static void end_actors(void)
{
	atomic_store(&life.actors_stop, true);
	for (unsigned int i = 0; i < actor_count; i++)
		pthread_join(actors[i].thread, NULL);
}

static void start_touchers(void)
{
	atomic_store(&life.touchers_stop, false);
	for (unsigned int i = 0; i < TOUCHERS; i++) {
		struct actor *t = &life.toucher[i];

		t->name = "toucher";
		t->number = i;
		t->random.state = mix(life.seed + 2000 + i);
		pthread_create(&t->thread, NULL, toucher, t);
	}
}

static void end_touchers(void)
{
	atomic_store(&life.touchers_stop, true);
	for (unsigned int i = 0; i < TOUCHERS; i++)
		pthread_join(life.toucher[i].thread, NULL);
}

static void make_engine(struct random *r)
{
	struct hgm_opts o = {
		.size = sizeof(o),
		.fault_threads = 1 + (uint32_t)random_below(r, 4),
		.collapse_threads = 1 + (uint32_t)random_below(r, 3),
		.workers = 1 + (uint32_t)random_below(r, 4),
		.spin_us = random_one_in(r, 2) ? HGM_SPIN_NEVER : (uint32_t)random_below(r, 200),
		.retries = 2,
		.retry_first_us = 100 + (uint32_t)random_below(r, 1000),
	};

	must(hgm_create(&life.h, &o), "hgm_create");
}

/* Poison that errors cause goes away with them. Only requests in flight may still cause some. */
static void heal(struct arena *a)
{
	uint64_t end = now_us() + (uint64_t)END_MS * 1000;

	do {
		does(&keeper, "hgm_region_retry", a->index, 0, a->pages);
		must(hgm_region_retry(a->ram.region), "hgm_region_retry");
		nap_us(1000);
		if (now_us() > end)
			wrong(a, 0, "poison does not go");
	} while (info_of(a->ram.region).poisoned_bytes);
}

static void check_all(void)
{
	int rc;

	must(hgm_set_fill(life.h, NULL), "hgm_set_fill");
	for (unsigned int i = 0; i < ARENAS; i++) {
		if (atomic_load(&life.arena[i].state) != ARENA_LIVE)
			continue;
		must(hgm_region_set_fill(life.arena[i].ram.region, NULL), "hgm_region_set_fill");
		heal(&life.arena[i]);
	}
	does(&keeper, "hgm_wait", 0, 0, 0);
	rc = hgm_wait(life.h, END_MS);
	if (rc)
		wrong(&life.arena[0], 0, "at the end hgm_wait() says %s; present %llu of %llu",
		      strerrorname_np(-rc), (unsigned long long)progress_of(life.h).present_bytes,
		      (unsigned long long)progress_of(life.h).total_bytes);
	for (unsigned int i = 0; i < ARENAS; i++) {
		struct arena *a = &life.arena[i];

		if (atomic_load(&a->state) != ARENA_LIVE)
			continue;
		does(&keeper, "look at all pages", i, 0, a->pages);
		for (uint64_t page = 0; page < a->pages; page++)
			check_page(a, page, "at the end");
	}
	did(&keeper);
}

static void end_in_order(struct random *r)
{
	end_actors();
	supplies_calm();
	end_touchers();
	check_all();
	for (unsigned int i = 0; i < ARENAS; i++) {
		struct arena *a = &life.arena[i];

		if (random_one_in(r, 2) && atomic_load(&a->state) == ARENA_LIVE)
			arena_end(a, &keeper);
	}
	for (unsigned int i = 0; i < ARENAS; i++)
		if (atomic_load(&life.arena[i].state) == ARENA_LIVE)
			atomic_store(&life.arena[i].state, ARENA_ENDS);
	does(&keeper, "hgm_destroy", 0, 0, 0);
	hgm_destroy(life.h);
	did(&keeper);
}

/* The engine ends while touchers wait, sources are silent, and fill is in flight. */
static void end_in_the_midst(void)
{
	end_actors();
	for (unsigned int i = 0; i < ARENAS; i++) {
		if (atomic_load(&life.arena[i].state) != ARENA_LIVE)
			continue;
		note(&life.arena[i], 0, "engine ends", 0, life.arena[i].pages, 0);
		atomic_store(&life.arena[i].state, ARENA_ENDS);
	}
	does(&keeper, "hgm_destroy", 0, 0, 0);
	hgm_destroy(life.h);
	did(&keeper);
	end_touchers();
	atomic_fetch_add(&tally.kills, 1);
}

static void life_end(struct random *r)
{
	if (may(ACT_ENDS) && random_one_in(r, 3))
		end_in_the_midst();
	else
		end_in_order(r);
	for (unsigned int i = 0; i < ARENAS; i++)
		if (atomic_load(&life.arena[i].state) == ARENA_ENDS)
			arena_ended(&life.arena[i]);
	supplies_free();
}

static void life_begin(uint64_t seed)
{
	struct random *r = &life.random;

	life.seed = seed;
	life.begun_us = now_us();
	r->state = mix(seed);
	atomic_store(&life.generation, 0);
	life.again_one_in = may(ACT_EAGAIN) && random_one_in(r, 4) ? 4U << random_below(r, 8) : 0;
	supplies_make(r);
	make_engine(r);
	for (unsigned int i = 0; i < ARENAS; i++) {
		life.arena[i].index = i;
		atomic_store(&life.arena[i].events, 0);
		if (!may(ACT_ENDS) || !random_one_in(r, 4))
			arena_begin(&life.arena[i], r);
	}
}

static void watch_all(void)
{
	static struct actor *all[ACTORS + TOUCHERS + 1];
	unsigned int n = 0;

	for (unsigned int i = 0; i < ACTORS; i++)
		all[n++] = &actors[i];
	for (unsigned int i = 0; i < TOUCHERS; i++)
		all[n++] = &life.toucher[i];
	all[n++] = &keeper;
	hang_watch(all, n);
}

static void live_once(void)
{
	pthread_rwlockattr_t attr;

	/* Prefers writers, so that a thread that ends a region need not wait for ever. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_mutex_init(&life.structure, NULL);
	for (unsigned int i = 0; i < ARENAS; i++) {
		pthread_rwlock_init(&life.arena[i].use, &attr);
		pthread_mutex_init(&life.arena[i].dirty_lock, NULL);
	}
	watch_all();
	seam_begin();
	catch_signals();
}

void live(uint64_t seed, uint64_t us)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, live_once);
	life_begin(seed);
	start_touchers();
	if (random_one_in(&life.random, 2))
		nap_us((unsigned int)random_below(&life.random, 20000));
	must(hgm_start(life.h), "hgm_start");
	start_actors();
	for (uint64_t end = now_us() + us; now_us() < end;)
		nap_us(2000);
	life_end(&life.random);
	atomic_fetch_add(&tally.lives, 1);
}
