/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which pages a worker fetches next.
 */
#include "fill_source.h"
#include "fill.h"
#include "fill_control.h"
#include "region/hgm.h"
#include "request.h"
#include "work.h"

/* How many pages of [page, page + pages) one request may have: up to a chunk's boundary. */
static uint64_t clip(uint64_t page, uint64_t pages, uint64_t chunk_bytes)
{
	uint64_t chunk_pages = chunk_bytes >> HGM_PAGE_SHIFT;
	uint64_t to_border = chunk_pages - page % chunk_pages;

	return pages < to_border ? pages : to_border;
}

bool hgm_chunk_take_urgent(struct hgm_work *w, struct hgm_chunk *c)
{
	struct hgm_urgent *u = &w->urgent[w->urgent_first];

	if (!w->urgent_count)
		return false;
	*c = (struct hgm_chunk){ .r = u->r, .page = u->next_page, .demand = true };
	c->pages = clip(c->page, u->end_page - c->page, HGM_REQUEST_MAX_BYTES);
	u->next_page += c->pages;
	if (u->next_page == u->end_page) { /* the queue's region reference becomes the chunk's */
		w->urgent_first = (w->urgent_first + 1) % HGM_URGENT_MAX;
		w->urgent_count--;
	} else {
		hgm_region_ref(c->r);
	}
	return true;
}

static bool take_prefetch(struct hgm_region *r, uint64_t chunk_bytes, struct hgm_chunk *c)
{
	struct hgm_prefetch *p = &r->fill->prefetch[r->fill->prefetch_first];
	unsigned int count = atomic_load_explicit(&r->prefetch_count, memory_order_relaxed);

	if (!count)
		return false;
	hgm_region_ref(r); /* before the count drops, so that the region never looks idle */
	c->page = p->first_page;
	c->pages = clip(p->first_page, p->pages, chunk_bytes);
	c->tries = p->tries;
	p->first_page += c->pages;
	p->pages -= c->pages;
	if (!p->pages) {
		r->fill->prefetch_first = (r->fill->prefetch_first + 1) % HGM_PREFETCH_MAX;
		atomic_store_explicit(&r->prefetch_count, count - 1, memory_order_seq_cst);
	}
	if (r->flags & HGM_REGION_NO_FILL) /* every failed request is such a range */
		atomic_store_explicit(&r->fill->failed, 0, memory_order_relaxed);
	return true;
}

static bool take_near(struct hgm_region *r, uint64_t chunk_bytes, struct hgm_chunk *c)
{
	uint64_t pages = r->flags & HGM_REGION_NO_FILL ? 0 : hgm_fill_near(r);

	if (!pages)
		return false;
	hgm_region_ref(r);
	c->page = r->fill->near.next;
	c->pages = clip(c->page, pages, chunk_bytes);
	r->fill->near.next += c->pages;
	return true;
}

static bool take_sequential(struct hgm_region *r, uint64_t chunk_bytes, struct hgm_chunk *c)
{
	if (r->flags & HGM_REGION_NO_FILL)
		return false;
	do {
		while (r->fill->next < r->fill->end &&
		       hgm_map_leaf_full(r->map, r->fill->next / HGM_LEAF_PAGES))
			r->fill->next = (r->fill->next / HGM_LEAF_PAGES + 1) * HGM_LEAF_PAGES;
	} while (r->fill->next >= r->fill->end && hgm_work_fill_round_ends(r));
	if (r->fill->next >= r->fill->end)
		return false;
	hgm_region_ref(r);
	c->page = r->fill->next;
	c->pages = clip(c->page, r->fill->end - c->page, chunk_bytes);
	c->sequential = true;
	c->tries = r->fill->again ? r->fill->tries : 0;
	r->fill->next += c->pages;
	return true;
}

/* Regions take turns. *soonest is lowered to the time when paused fill of one continues. */
static bool take_from(struct hgm_fill_source *f, struct hgm_chunk *c, uint64_t *soonest)
{
	uint64_t chunk_bytes = hgm_fill_window_chunk(&f->window);
	const struct hgm_region *first_pausing = NULL;

	while (f->ring) {
		struct hgm_region *r = f->ring->fill->link;
		uint64_t bytes = hgm_fill_chunk(r, chunk_bytes);
		bool goes_on;

		if (r == first_pausing)
			break;
		*c = (struct hgm_chunk){ .r = r };
		goes_on = hgm_work_fill_goes_on(r, soonest);
		if (goes_on && (take_prefetch(r, bytes, c) || take_near(r, bytes, c) ||
				take_sequential(r, bytes, c))) {
			hgm_work_fill_taken(r);
			hgm_fill_charge(r, c->page, c->pages);
			f->ring = r; /* the next region's turn */
			return true;
		}
		if (!goes_on || hgm_work_fill_again(r, soonest)) {
			first_pausing = first_pausing ? first_pausing : r;
			f->ring = r;
			continue;
		}
		hgm_fill_source_remove(r);
	}
	return false;
}

bool hgm_chunk_take_fill(struct hgm_work *w, struct hgm_chunk *c, uint64_t *soonest)
{
	struct hgm_fill_source *f;

	w->pass++;
	while ((f = hgm_fill_source_next(w, soonest))) {
		if (take_from(f, c, soonest))
			return true;
		hgm_fill_source_pass_over(w, f);
	}
	c->r = NULL;
	return false;
}
