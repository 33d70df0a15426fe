/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All other calls, at any time, and the actor that makes the sources misbehave.
 */
#include "chaos.h"

#include <errno.h>
#include <stdlib.h>

static void check_counts(struct arena *a)
{
	struct hgm_region_info i = info_of(a->ram.region);
	uint64_t length = a->pages * PAGE;

	if (i.length != length || i.present_bytes > length || i.huge_bytes > i.huge_bytes_max ||
	    i.poisoned_bytes > length || i.left_split > i.blocks)
		wrong(a, 0, "of %llu bytes present %llu, huge %llu, poisoned %llu; left split %llu",
		      (unsigned long long)length, (unsigned long long)i.present_bytes,
		      (unsigned long long)i.huge_bytes, (unsigned long long)i.poisoned_bytes,
		      (unsigned long long)i.left_split);
}

static void allow(int rc, int refusal, const char *call)
{
	if (rc != refusal)
		must(rc, call);
}

static void export_all(struct arena *a)
{
	uint64_t arrived[PAGES_MAX / 64];

	must(hgm_region_export(a->ram.region, 0, a->pages, arrived), "hgm_region_export");
}

static void set_fill(struct random *r, struct arena *a)
{
	struct hgm_fill_opts o = { .size = sizeof(o),
				   .flags = random_one_in(r, 4) ? HGM_FILL_PAUSED : 0,
				   .order = (uint32_t)random_below(r, 2),
				   .rate_bytes = random_below(r, 2) << (20 + random_below(r, 8)) };

	must(hgm_region_set_fill(a->ram.region, &o), "hgm_region_set_fill");
	o.order = HGM_FILL_ASCENDING;
	if (random_one_in(r, 4))
		must(hgm_set_fill(life.h, &o), "hgm_set_fill");
}

#define PUT_PAGES UINT64_C(64)

/* Puts the contents that the source would deliver. */
static void put_some(struct arena *a, uint64_t page, uint64_t pages)
{
	char *buf = malloc(pages * PAGE);
	int64_t n;

	assert_non_null(buf);
	contents_write(&chaos_contents, source_page(a, page), pages, buf);
	n = hgm_region_put(a->ram.region, page * PAGE, buf, pages * PAGE);
	free(buf);
	if (n != -ECANCELED)
		must(n < 0 ? (int)n : 0, "hgm_region_put");
}

static void call_any(struct actor *self)
{
	struct random *r = &self->random;
	struct arena *a = arena_use(r);
	uint64_t page, pages;

	if (!a)
		return;
	page = random_below(r, a->pages);
	pages = 1 + random_below(r, a->pages - page);
	switch (random_below(r, 8)) {
	case 0:
		does(self, "hgm_region_prefetch", a->index, page, pages);
		allow(hgm_region_prefetch(a->ram.region, page * PAGE, pages * PAGE), -ENOBUFS,
		      "hgm_region_prefetch");
		break;
	case 1:
		does(self, "hgm_region_retry", a->index, page, pages);
		note(a, self->number, "retry", 0, a->pages, 0);
		must(hgm_region_retry(a->ram.region), "hgm_region_retry");
		note(a, self->number, "retried", 0, a->pages, 0);
		break;
	case 2:
		does(self, "hgm_region_collapse", a->index, page, pages);
		note(a, self->number, "collapse", 0, a->pages, 0);
		allow(hgm_region_collapse(a->ram.region),
		      a->flags & HGM_REGION_NO_COLLAPSE ? -EOPNOTSUPP : 0, "hgm_region_collapse");
		break;
	case 3:
		does(self, "hgm_region_before_write", a->index, page, pages);
		allow(hgm_region_before_write(a->ram.region, page * PAGE, pages * PAGE), -EBUSY,
		      "hgm_region_before_write");
		break;
	case 4:
		export_all(a);
		break;
	case 6:
		does(self, "hgm_region_put", a->index, page, pages);
		put_some(a, page, pages < PUT_PAGES ? pages : PUT_PAGES);
		break;
	case 5:
		does(self, "hgm_region_set_fill", a->index, 0, 0);
		set_fill(r, a);
		break;
	default:
		check_counts(a);
	}
	did(self);
	arena_release(a);
}

static void wait_some(struct actor *self)
{
	int rc;

	does(self, "hgm_wait", 0, 0, 0);
	rc = hgm_wait(life.h, (int)random_below(&self->random, 50));
	did(self);
	if (rc != -ETIMEDOUT && rc != -EIO)
		must(rc, "hgm_wait");
	progress_of(life.h);
	stats_of(life.h);
}

void *caller(void *actor)
{
	struct actor *self = actor;

	while (!atomic_load(&life.actors_stop)) {
		call_any(self);
		if (random_one_in(&self->random, 8))
			wait_some(self);
		nap_us((unsigned int)random_below(&self->random, 5000));
	}
	return NULL;
}

void *spoiler(void *actor)
{
	struct actor *self = actor;

	while (!atomic_load(&life.actors_stop)) {
		nap_us((unsigned int)random_below(&self->random, 100000));
		supply_misbehave(supply_any(&self->random), &self->random);
	}
	return NULL;
}
