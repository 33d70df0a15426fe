/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regions are created and destroyed while other threads use them.
 */
#include "../system/margins.h"
#include "chaos.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>

static enum backing any_backing(struct random *r)
{
	enum backing backing;

	do
		backing = (enum backing)random_below(r, BACKINGS);
	while (!may(backing));
	return backing;
}

static uint64_t any_pages(struct random *r, enum backing backing)
{
	uint64_t block = backing_block(backing) / PAGE, pages;

	if (backing >= BACKINGS_SMALL)
		return block * (1 + random_below(r, 4));
	pages = UINT64_C(1) << random_below(r, 13);
	if (random_one_in(r, 2)) /* an arbitrary number */
		pages += random_below(r, pages);
	return pages < PAGES_MAX ? pages : PAGES_MAX;
}

static uint32_t any_flags(struct random *r)
{
	static const uint32_t flags[] = { 0,
					  0,
					  0,
					  HGM_REGION_NO_FILL,
					  HGM_REGION_NO_FILL,
					  HGM_REGION_NO_COLLAPSE,
					  HGM_REGION_DEFER_COLLAPSE,
					  HGM_REGION_NO_FILL | HGM_REGION_NO_COLLAPSE };

	return flags[random_below(r, sizeof(flags) / sizeof(flags[0]))];
}

/* Some regions begin and end anywhere in their blocks, and some at another place in their file. */
static struct margins any_margins(struct random *r, const struct arena *a)
{
	bool caller = a->backing >= BACKING_FD && a->backing <= BACKING_MAPPING_ANON;
	struct margins m = { .head = 0 };

	if (!caller || !may(ACT_UNALIGNED) || random_one_in(r, 2))
		return m;
	m.head = m.file_head = random_below(r, 600) * PAGE;
	m.tail = random_below(r, 600) * PAGE;
	if (random_one_in(r, 4))
		m.file_head = random_below(r, 600) * PAGE;
	return m;
}

static int try_backing(struct arena *a, struct random *r)
{
	struct margins m = any_margins(r, a);

	if (m.head || m.file_head || m.tail)
		return ram_try_within(&a->ram, life.h, a->backing, a->pages * PAGE,
				      supply_source(a->supply), a->index * ARENA_MAX, a->flags, &m);
	return ram_try(&a->ram, life.h, a->backing, a->pages * PAGE, supply_source(a->supply),
		       a->index * ARENA_MAX, a->flags);
}

/* All huge pages may be in use by others. */
static void make_ram(struct arena *a, struct random *r)
{
	int rc;

	a->backing = any_backing(r);
	a->pages = any_pages(r, a->backing);
	a->flags = any_flags(r);
	a->supply = supply_any(r);
	a->run = UINT64_C(1) << random_below(r, 7);
	rc = backing_lacking(a->backing, a->pages * PAGE) ? -ENOMEM : try_backing(a, r);
	if (rc == -ENOMEM && a->backing >= BACKINGS_SMALL) {
		a->backing = may(BACKING_SHMEM) ? BACKING_SHMEM : BACKING_ANON;
		rc = try_backing(a, r);
	}
	must(rc, "hgm_region_create");
}

void arena_begin(struct arena *a, struct random *r)
{
	for (uint64_t page = 0; page < PAGES_MAX; page++)
		atomic_store_explicit(&a->truth[page], SOURCE, memory_order_relaxed);
	make_ram(a, r);
	note(a, 0, "created", 0, a->pages, a->backing);
	atomic_store(&a->addr, a->ram.addr);
	atomic_store(&a->state, ARENA_LIVE);
	atomic_fetch_add(&tally.regions, 1);
}

/*
 * Threads that waited in the region have been released. The caller's mapping stays. Pages that have
 * arrived keep their contents, and all others raise a signal.
 */
void arena_ended(struct arena *a)
{
	uint64_t copy[WORDS];
	struct ram had;

	while (atomic_load(&a->pins))
		sched_yield();
	for (uint64_t page = 0; a->ram.mapping && page < a->pages; page++) {
		uint64_t truth = truth_of(a, page);
		int sig = page_copy(copy, a->ram.mapping + page * PAGE), word;

		if (truth & WRITING || (sig && !is_written(truth)))
			continue;
		if (sig)
			wrong(a, page, "after the region's end: signal %d for what was written",
			      sig);
		word = words_wrong(a, page, truth, truth & (MIXED | DROPPING), copy);
		if (word >= 0)
			wrong_page(a, page, truth, word, copy, "after the region's end");
	}
	free(a->left_watch);
	a->left_watch = NULL;
	assert_margins(&a->ram, "after the region's end");
	had = a->ram;
	ram_release(&a->ram);
	seam_release(a, &had);
	atomic_store(&a->state, ARENA_EMPTY);
}

void arena_end(struct arena *a, struct actor *by)
{
	pthread_rwlock_wrlock(&a->use);
	does(by, "hgm_region_destroy", a->index, 0, a->pages);
	note(a, 0, "ends", 0, a->pages, 0);
	atomic_store(&a->state, ARENA_ENDS);
	hgm_region_destroy(a->ram.region);
	does(by, "wait for who was in a region that has ended", a->index, 0, a->pages);
	arena_ended(a);
	did(by);
	pthread_rwlock_unlock(&a->use);
}

struct arena *arena_use(struct random *r)
{
	struct arena *a = &life.arena[random_below(r, ARENAS)];

	if (pthread_rwlock_tryrdlock(&a->use))
		return NULL;
	if (atomic_load(&a->state) == ARENA_LIVE)
		return a;
	pthread_rwlock_unlock(&a->use);
	return NULL;
}

void arena_release(struct arena *a)
{
	pthread_rwlock_unlock(&a->use);
}

/* Returns a random page, often one near pages that cannot be had. */
uint64_t arena_page(const struct arena *a, struct random *r)
{
	uint64_t odd = random_one_in(r, 4) ? supply_odd_page(a->supply, r) : UINT64_MAX;
	uint64_t near = odd + random_below(r, 8) - a->index * PAGES_MAX;

	return odd != UINT64_MAX && near < a->pages ? near : random_below(r, a->pages);
}

static void move_one(struct actor *self)
{
	struct arena *a = &life.arena[random_below(&self->random, ARENAS)];

	does(self, "wait to create or destroy", a->index, 0, 0);
	pthread_mutex_lock(&life.structure);
	if (atomic_load(&a->state) == ARENA_LIVE) {
		arena_end(a, self);
	} else {
		does(self, "hgm_region_create", a->index, 0, 0);
		pthread_rwlock_wrlock(&a->use);
		arena_begin(a, &self->random);
		pthread_rwlock_unlock(&a->use);
	}
	pthread_mutex_unlock(&life.structure);
	did(self);
}

void *mover(void *actor)
{
	struct actor *self = actor;

	while (!atomic_load(&life.actors_stop)) {
		nap_us((unsigned int)random_below(&self->random, 100000));
		move_one(self);
	}
	return NULL;
}
