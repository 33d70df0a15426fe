/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty tracking. Each page that changes is in a collection.
 */
#include "chaos.h"

#include <errno.h>

#define ROUNDS 8

struct track {
	struct arena *a;
	struct hgm_dirty *d;
	uint64_t pages;
	uint64_t before[PAGES_MAX]; /* truth when the last collection began */
	uint64_t after[PAGES_MAX];  /* truth when it had returned */
	uint64_t now[PAGES_MAX];    /* truth when this one began */
	uint64_t last[PAGES_MAX / 64], bitmap[PAGES_MAX / 64];
};

static bool bit(const uint64_t *bitmap, uint64_t page)
{
	return bitmap[page / 64] >> page % 64 & 1;
}

/*
 * True if something happened to the whole page between two looks. Its truth is another one. It is
 * not that of a discard that had begun before, nor that from before a write that failed.
 */
static bool changed(uint64_t from, uint64_t to)
{
	if (to & WRITING || (to & GENERATION) == (from & GENERATION))
		return false;
	return is_written(to) || (is_zero(to) && !(from & (DROPPING | WRITING)));
}

static void check(struct track *t)
{
	for (uint64_t page = 0; page < t->pages; page++) {
		if (bit(t->bitmap, page))
			continue;
		if (changed(t->after[page], t->now[page]))
			wrong(t->a, page,
			      "changed after a collection, and is not in the next: %#llx, %#llx",
			      (unsigned long long)t->after[page], (unsigned long long)t->now[page]);
		if (changed(t->before[page], t->now[page]) && !bit(t->last, page))
			wrong(t->a, page,
			      "changed during a collection, and is neither in it nor in the next: "
			      "%#llx, %#llx, %#llx",
			      (unsigned long long)t->before[page],
			      (unsigned long long)t->after[page], (unsigned long long)t->now[page]);
	}
}

static void look(const struct track *t, uint64_t *to)
{
	for (uint64_t page = 0; page < t->pages; page++)
		to[page] = truth_of(t->a, page);
}

static bool collect(struct track *t, struct actor *self)
{
	int rc;

	look(t, t->now);
	note(t->a, self->number, "collect", 0, t->pages, 0);
	does(self, "hgm_dirty_collect", t->a->index, 0, t->pages);
	rc = hgm_dirty_collect(t->d, 0, t->pages, t->bitmap, NULL);
	did(self);
	note(t->a, self->number, "collected", 0, t->pages, (uint64_t)rc);
	if (rc == -ECANCELED)
		return false;
	must(rc, "hgm_dirty_collect");
	check(t);
	memcpy(t->before, t->now, sizeof(t->now));
	memcpy(t->last, t->bitmap, sizeof(t->last));
	look(t, t->after);
	atomic_fetch_add(&tally.collections, 1);
	return true;
}

static void set_dirty(struct arena *a, struct hgm_dirty *d)
{
	pthread_mutex_lock(&a->dirty_lock);
	a->dirty = d;
	pthread_mutex_unlock(&a->dirty_lock);
}

/* The arena may have a new region, which another thread tracks. */
static void unset_dirty(struct arena *a, const struct hgm_dirty *d)
{
	pthread_mutex_lock(&a->dirty_lock);
	if (a->dirty == d)
		a->dirty = NULL;
	pthread_mutex_unlock(&a->dirty_lock);
}

/* The arena may end meanwhile. The object outlives the region. */
static void track(struct track *t, struct actor *self)
{
	struct random *r = &self->random;

	for (unsigned int round = 1 + (unsigned int)random_below(r, ROUNDS); round; round--) {
		nap_us((unsigned int)random_below(r, 20000));
		if (!collect(t, self))
			break;
	}
	unset_dirty(t->a, t->d);
	does(self, "hgm_dirty_stop", t->a->index, 0, t->pages);
	note(t->a, self->number, "dirty stop", 0, t->pages, 0);
	hgm_dirty_stop(t->d);
	did(self);
}

void dirty_once(struct actor *by)
{
	struct random *r = &by->random;
	struct hgm_dirty_opts o = { .size = sizeof(o) };
	struct arena *a = arena_use(r);
	struct track *t;
	int rc;

	if (!a)
		return;
	t = calloc(1, sizeof(*t));
	t->a = a;
	t->pages = a->pages;
	o.flags = (random_one_in(r, 2) ? HGM_DIRTY_SYNC : 0) |
		  (random_one_in(r, 2) && a->backing < BACKINGS_SMALL ? HGM_DIRTY_EXACT : 0) |
		  (random_one_in(r, 4) ? HGM_DIRTY_ARRIVALS : 0);
	note(a, by->number, "dirty start", 0, a->pages, o.flags);
	does(by, "hgm_dirty_start", a->index, 0, a->pages);
	rc = hgm_dirty_start(&t->d, a->ram.region, &o);
	did(by);
	if (!rc) {
		set_dirty(a, t->d);
		look(t, t->before);
		memcpy(t->after, t->before, sizeof(t->after));
		memset(t->last, 0, sizeof(t->last));
	}
	arena_release(a);
	if (!rc)
		track(t, by);
	else if (rc != -EBUSY)
		must(rc, "hgm_dirty_start");
	free(t);
}
