/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Watches. No thread writes to protected memory unless the callback was asked and has allowed it.
 */
#include "chaos.h"

#include <errno.h>

struct watched {
	struct arena *a;
	uint64_t seed;
	unsigned int allow; /* of 16 units */
	uint64_t unit;	    /* bytes */
	uint64_t before[PAGES_MAX];
	_Atomic bool asked[PAGES_MAX]; /* for the unit that begins there */
};

static bool allows(const struct watched *w, uint64_t offset)
{
	return mix(w->seed + offset / w->unit) % 16 < w->allow;
}

static enum hgm_write_verdict on_write(void *user, struct hgm_region *r,
				       const struct hgm_span *what)
{
	struct watched *w = user;
	bool yes = allows(w, what->offset);

	(void)r;
	atomic_store(&w->asked[what->offset / PAGE], true);
	note(w->a, 101, "asked", what->offset / PAGE, what->length / PAGE, yes);
	return yes ? HGM_WRITE_ALLOW : HGM_WRITE_WAIT;
}

static void check(struct watched *w, const struct hgm_span *span)
{
	for (uint64_t page = span->offset / PAGE; page < (span->offset + span->length) / PAGE;
	     page++) {
		uint64_t now = truth_of(w->a, page), gen = now & GENERATION;
		uint64_t first = page * PAGE / w->unit * w->unit;

		if (page >= w->a->pages || now & WRITING || !is_written(now) ||
		    gen == (w->before[page] & GENERATION))
			continue;
		if (!allows(w, first))
			wrong(w->a, page, "was written to, though it was protected");
		if (!atomic_load(&w->asked[first / PAGE]))
			wrong(w->a, page, "was written to, and nobody was asked");
	}
}

static struct hgm_span protect_any(struct watched *w, struct actor *self)
{
	struct random *r = &self->random;
	uint64_t page = random_below(r, w->a->pages);
	uint64_t pages = 1 + random_below(r, w->a->pages - page);
	struct hgm_span span;

	does(self, "hgm_region_protect", w->a->index, page, pages);
	note(w->a, self->number, "protect", page, pages, 0);
	must(hgm_region_protect(w->a->ram.region, page * PAGE, pages * PAGE, HGM_PROTECT_ROUND,
				&span),
	     "hgm_region_protect");
	did(self);
	note(w->a, self->number, "protected", span.offset / PAGE, span.length / PAGE, 0);
	for (page = 0; page < w->a->pages; page++)
		w->before[page] = truth_of(w->a, page);
	return span;
}

static void watch_round(struct watched *w, struct actor *self)
{
	struct random *r = &self->random;
	struct hgm_span span = protect_any(w, self);

	nap_us((unsigned int)random_below(r, 30000));
	check(w, &span);
	if (random_one_in(r, 3))
		return;
	does(self, "hgm_region_unprotect", w->a->index, span.offset / PAGE, span.length / PAGE);
	note(w->a, self->number, "unprotect", span.offset / PAGE, span.length / PAGE, 0);
	must(hgm_region_unprotect(w->a->ram.region, span.offset, span.length, 0, NULL),
	     "hgm_region_unprotect");
	did(self);
}

static void unwatch(struct arena *a, struct actor *self)
{
	does(self, "hgm_region_unwatch", a->index, 0, a->pages);
	note(a, self->number, "unwatch", 0, a->pages, 0);
	must(hgm_region_unwatch(a->ram.region), "hgm_region_unwatch");
	did(self);
	atomic_fetch_add(&tally.watches, 1);
}

void watch_once(struct actor *by)
{
	struct random *r = &by->random;
	struct arena *a = arena_use(r);
	struct watched *w;
	int rc;

	if (!a)
		return;
	w = calloc(1, sizeof(*w));
	w->a = a;
	w->seed = random_next(r);
	w->allow = random_one_in(r, 3) ? 16 : (unsigned int)random_below(r, 16);
	w->unit = info_of(a->ram.region).protect_bytes;
	does(by, "hgm_region_watch", a->index, 0, a->pages);
	rc = hgm_region_watch(a->ram.region,
			      &(struct hgm_watch_opts){ .size = sizeof(struct hgm_watch_opts),
							.write = on_write,
							.user = w });
	did(by);
	if (rc && rc != -EBUSY)
		must(rc, "hgm_region_watch");
	for (unsigned int i = 0; !rc && i < 1 + random_below(r, 3); i++)
		watch_round(w, by);
	if (!rc && w->allow == 16 && random_one_in(r, 4)) {
		a->left_watch = w; /* until the region ends, which ends the watch */
		w = NULL;
	} else if (!rc) {
		unwatch(a, by);
	}
	arena_release(a);
	free(w);
}
