/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Snapshots. The sink compares what it gets with what each page held at the instant.
 */
#include "chaos.h"

#include <errno.h>

/* The contents of a page at the instant are unknown: it was being written to or discarded. */
#define UNKNOWN UINT64_MAX

struct shot {
	struct hgm_snapshot *s;
	struct arena *of[ARENAS];
	unsigned int count;
	/* Of the regions at the instant. Later, their arenas may have others. */
	struct origin origin[ARENAS];
	uint64_t pages[ARENAS];
	struct random random;	   /* the sink's */
	unsigned int slow, partly; /* of 16 calls */
	unsigned int calls_left;   /* then it fails; 0: never */
	_Atomic bool begun;	   /* the truth is known */
	uint64_t truth[ARENAS][PAGES_MAX];
	uint32_t drops[ARENAS][PAGES_MAX];
	uint16_t given[ARENAS][PAGES_MAX]; /* bytes */
};

/* Memory that is dropped without the library is lost to the snapshot. */
static bool may_be_zero(const struct shot *shot, const struct arena *a, uint64_t page,
			uint64_t truth)
{
	return truth & MIXED || atomic_load(&a->drops[page]) != shot->drops[a->index][page] ||
	       origin_may_be_poisoned(a, shot->origin[a->index], page, truth);
}

static void check_part(struct shot *shot, struct arena *a, uint64_t page, const void *buf,
		       uint64_t from, uint64_t bytes)
{
	uint64_t truth = shot->truth[a->index][page];
	uint16_t *given = &shot->given[a->index][page];
	uint64_t want[WORDS];
	int word;

	if (*given != from % PAGE)
		wrong(a, page, "snapshot: given from byte %llu on, after %u bytes",
		      (unsigned long long)from % PAGE, *given);
	*given = (uint16_t)(*given + bytes);
	if (truth == UNKNOWN)
		return;
	words_expected(a, page, truth, want);
	memcpy((char *)want + from % PAGE, buf, bytes);
	word = words_wrong(a, page, truth, may_be_zero(shot, a, page, truth), want);
	if (word >= 0)
		wrong_page(a, page, truth, word, want, "snapshot");
}

static int64_t sink(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	struct shot *shot = user;
	uint64_t taken = length;

	while (!atomic_load(&shot->begun))
		nap_us(100);
	if (random_below(&shot->random, 16) < shot->slow)
		nap_us((unsigned int)random_below(&shot->random, 3000));
	if (shot->calls_left && !--shot->calls_left)
		return -EDQUOT;
	if (random_below(&shot->random, 16) < shot->partly)
		taken = length > 512 ? 512 * (1 + random_below(&shot->random, length / 512))
				     : length;
	for (uint64_t at = offset, bytes; at < offset + taken; at += bytes) {
		struct arena *a = &life.arena[at / ARENA_MAX];

		bytes = PAGE - at % PAGE;
		bytes = bytes < offset + taken - at ? bytes : offset + taken - at;
		check_part(shot, a, at % ARENA_MAX / PAGE, (const char *)buf + (at - offset), at,
			   bytes);
	}
	return (int64_t)taken;
}

static void take_truth(struct shot *shot, bool again)
{
	for (unsigned int i = 0; i < shot->count; i++) {
		struct arena *a = shot->of[i];
		uint64_t *truth = shot->truth[a->index];

		shot->origin[a->index] = (struct origin){ a->backing, a->supply };
		shot->pages[a->index] = a->pages;
		for (uint64_t page = 0; page < a->pages; page++) {
			uint64_t now;

			/* This comes first, so that a later drop shows in one or the other. */
			if (!again)
				shot->drops[a->index][page] = atomic_load(&a->drops[page]);
			now = truth_of(a, page);
			if (now & (WRITING | DROPPING) || (again && now != truth[page]))
				now = UNKNOWN;
			truth[page] = now;
		}
	}
}

static int begin(struct shot *shot, struct actor *self)
{
	int rc;

	does(self, "hgm_snapshot_begin", shot->of[0]->index, 0, 0);
	pause_writers();
	take_truth(shot, false);
	for (unsigned int i = 0; i < shot->count; i++)
		note(shot->of[i], self->number, "snapshot begins", 0, shot->of[i]->pages, 0);
	rc = hgm_snapshot_begin(shot->s);
	take_truth(shot, true);
	atomic_store(&shot->begun, true);
	for (unsigned int i = 0; i < shot->count; i++)
		note(shot->of[i], self->number, "snapshot has begun", 0, shot->of[i]->pages,
		     (uint64_t)rc);
	resume_writers();
	did(self);
	return rc;
}

/* Zero pages are left out, and no others are. */
static void check_all_given(struct shot *shot)
{
	for (unsigned int i = 0; i < shot->count; i++) {
		struct arena *a = shot->of[i];

		for (uint64_t page = 0; page < shot->pages[a->index]; page++) {
			uint64_t truth = shot->truth[a->index][page];
			const uint64_t none[WORDS] = { 0 };

			if (shot->given[a->index][page] == PAGE || truth == UNKNOWN)
				continue;
			if (shot->given[a->index][page])
				wrong(a, page, "snapshot: given in part");
			if (words_wrong(a, page, truth, may_be_zero(shot, a, page, truth), none) >=
			    0)
				wrong(a, page, "snapshot: missing; truth at the instant: %#llx",
				      (unsigned long long)truth);
			atomic_fetch_add_explicit(&tally.snapshot_pages, 1, memory_order_relaxed);
		}
	}
}

static void end(struct shot *shot, struct actor *self)
{
	struct random *r = &self->random;
	int rc;

	does(self, "hgm_snapshot_wait", shot->of[0]->index, 0, 0);
	rc = hgm_snapshot_wait(shot->s, random_one_in(r, 3) ? (int)random_below(r, 50) : -1);
	if (rc == -ETIMEDOUT && random_one_in(r, 2)) {
		must(hgm_snapshot_cancel(shot->s), "hgm_snapshot_cancel");
		rc = hgm_snapshot_wait(shot->s, -1);
	}
	if (rc == -EDQUOT || rc == -ECANCELED || rc == -ETIMEDOUT)
		return;
	if (rc != -ENODATA)
		must(rc, "hgm_snapshot_wait");
	check_all_given(shot);
	atomic_fetch_add(&tally.snapshots, 1);
}

/* Chooses all regions, or some. */
static void choose_regions(struct shot *shot, bool all, struct random *r)
{
	for (unsigned int i = 0; i < ARENAS; i++)
		if (atomic_load(&life.arena[i].state) == ARENA_LIVE && (all || random_one_in(r, 2)))
			shot->of[shot->count++] = &life.arena[i];
}

static int create(struct shot *shot, bool all, struct random *r)
{
	struct hgm_region *regions[ARENAS];
	struct hgm_snapshot_opts o = {
		.size = sizeof(o),
		.write = sink,
		.user = shot,
		.flags = random_one_in(r, 4) ? HGM_SNAPSHOT_ORDERED : 0,
		.pool_bytes = random_one_in(r, 2) ? 0 : 2 * MIB,
	};

	for (unsigned int i = 0; i < shot->count; i++)
		regions[i] = shot->of[i]->ram.region;
	if (!all) {
		o.regions = regions;
		o.count = shot->count;
	}
	return hgm_snapshot_create(&shot->s, life.h, &o);
}

void snapshot_once(struct actor *by)
{
	struct random *r = &by->random;
	struct shot *shot = calloc(1, sizeof(*shot));
	bool all = random_one_in(r, 2), begun = false;
	int rc = -EBUSY;

	shot->random.state = random_next(r);
	shot->slow = random_one_in(r, 2) ? (unsigned int)random_below(r, 17) : 0;
	shot->partly = random_one_in(r, 2) ? (unsigned int)random_below(r, 17) : 0;
	shot->calls_left = random_one_in(r, 6) ? 1 + (unsigned int)random_below(r, 100) : 0;
	does(by, "wait to create a snapshot", 0, 0, 0);
	pthread_mutex_lock(&life.structure);
	choose_regions(shot, all, r);
	does(by, "hgm_snapshot_create", 0, 0, 0);
	if (shot->count)
		rc = create(shot, all, r);
	if (rc != -EBUSY)
		must(rc, "hgm_snapshot_create");
	if (!rc && !random_one_in(r, 16)) {
		must(begin(shot, by), "hgm_snapshot_begin");
		begun = true;
	}
	pthread_mutex_unlock(&life.structure);
	if (begun)
		end(shot, by);
	does(by, "hgm_snapshot_destroy", 0, 0, 0);
	if (!rc)
		hgm_snapshot_destroy(shot->s);
	did(by);
	free(shot);
}
