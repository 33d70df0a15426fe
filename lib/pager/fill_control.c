/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The caller's control of fill at run time: rate, pause and order.
 *
 * A rate limit is a time before which nothing more is fetched. Each chunk advances that time by
 * what its bytes take at the rate. A worker wakes up some 50 us late, so fill catches up on time
 * that has passed, but on no more than CATCH_UP_NS: it must not fetch in one burst all that it did
 * not fetch during a pause of the source.
 */
#include <errno.h>

#include <hgm/region.h>

#include "fill.h"
#include "fill_control.h"
#include "region/hgm.h"
#include "util/bits.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/opts.h"
#include "work.h"

#define CATCH_UP_NS UINT64_C(5000000)
#define CHUNK_NS    UINT64_C(10000000)
#define SAMPLE_NS   UINT64_C(100000000)
#define SILENCE_NS  UINT64_C(2000000000)
#define NS_PER_S    UINT64_C(1000000000)

static bool is_held(const struct hgm_fill_control *c, uint64_t now_ns, uint64_t *soonest)
{
	if (c->paused)
		return true;
	if (!c->rate_bytes || now_ns >= c->next_ns)
		return false;
	*soonest = c->next_ns < *soonest ? c->next_ns : *soonest;
	return true;
}

bool hgm_fill_held(struct hgm_region *r, uint64_t *soonest)
{
	struct hgm_fill_control *all = &r->h->work->fill_control, *own = &r->fill->control;
	uint64_t now_ns;

	if (!all->paused && !all->rate_bytes && !own->paused && !own->rate_bytes)
		return false;
	now_ns = hgm_now_ns();
	return is_held(all, now_ns, soonest) || is_held(own, now_ns, soonest);
}

static void charge(struct hgm_fill_control *c, uint64_t bytes, uint64_t now_ns)
{
	uint64_t from_ns = c->next_ns;

	if (!c->rate_bytes)
		return;
	if (from_ns + CATCH_UP_NS < now_ns)
		from_ns = now_ns - CATCH_UP_NS;
	c->next_ns = from_ns + (uint64_t)((__uint128_t)bytes * NS_PER_S / c->rate_bytes);
}

/* Bytes that are asked for at a time: at most what the rate allows in CHUNK_NS, or one page. */
static uint64_t most_of(const struct hgm_fill_control *c, uint64_t bytes)
{
	uint64_t most = c->rate_bytes / (NS_PER_S / CHUNK_NS) & ~(HGM_PAGE_BYTES - 1);

	most = most > HGM_PAGE_BYTES ? most : HGM_PAGE_BYTES;
	return !c->rate_bytes || bytes < most ? bytes : most;
}

uint64_t hgm_fill_chunk(const struct hgm_region *r, uint64_t bytes)
{
	bytes = most_of(&r->fill->control, most_of(&r->h->work->fill_control, bytes));
	return UINT64_C(1) << (63 - __builtin_clzll(bytes)); /* chunks are aligned to their size */
}

uint64_t hgm_fill_failing(const struct hgm_region *r)
{
	return atomic_load_explicit(&r->fill->failed, memory_order_relaxed);
}

void hgm_fill_charge(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	struct hgm_fill_control *all = &r->h->work->fill_control, *own = &r->fill->control;
	uint64_t word = page / HGM_PAGES_PER_WORD, absent, bytes, now_ns;

	if (!all->rate_bytes && !own->rate_bytes)
		return;
	now_ns = hgm_now_ns();
	absent = hgm_map_absent_word(r->map, word) & hgm_bits_of_range(page, pages, word);
	bytes = (uint64_t)__builtin_popcountll(absent) << HGM_PAGE_SHIFT;
	charge(all, bytes, now_ns);
	charge(own, bytes, now_ns);
}

void hgm_fill_note(struct hgm *h, uint64_t bytes, uint64_t now_ns)
{
	struct hgm_fill_rate *f = &h->work->fill_rate;
	uint64_t ns = now_ns - f->since_ns, rate;

	f->bytes += bytes;
	if (now_ns < f->since_ns + SAMPLE_NS)
		return;
	rate = (uint64_t)((__uint128_t)f->bytes * NS_PER_S / ns);
	/* After a pause the rate is not known. */
	f->rate_bytes = ns > SILENCE_NS ? 0 : f->rate_bytes ? (3 * f->rate_bytes + rate) / 4 : rate;
	f->since_ns = now_ns;
	f->bytes = 0;
}

uint64_t hgm_fill_remaining_us(struct hgm *h, uint64_t bytes)
{
	const struct hgm_fill_rate *f = &h->work->fill_rate;
	uint64_t us = UINT64_MAX;

	if (!bytes)
		return 0;
	pthread_mutex_lock(&h->work->lock);
	if (f->rate_bytes && hgm_now_ns() - f->since_ns < SILENCE_NS)
		us = (uint64_t)((__uint128_t)bytes * (NS_PER_S / 1000) / f->rate_bytes);
	pthread_mutex_unlock(&h->work->lock);
	return us;
}

void hgm_fill_fault(struct hgm_region *r, uint64_t page)
{
	if (atomic_load_explicit(&r->fill->near.wanted, memory_order_relaxed))
		atomic_store_explicit(&r->fill->near.fault, page + 1, memory_order_relaxed);
}

uint64_t hgm_fill_near(struct hgm_region *r)
{
	struct hgm_fill_near *near = &r->fill->near;
	uint64_t fault, leaf;

	if (!atomic_load_explicit(&near->wanted, memory_order_relaxed))
		return 0;
	fault = atomic_exchange_explicit(&near->fault, 0, memory_order_relaxed);
	leaf = fault ? (fault - 1) / HGM_LEAF_PAGES : 0;
	if (fault && !hgm_map_leaf_full(r->map, leaf)) {
		near->next = fault - 1;
		near->end = (leaf + 1) * HGM_LEAF_PAGES;
		near->end = near->end < hgm_region_end(r) ? near->end : hgm_region_end(r);
		near->before = leaf * HGM_LEAF_PAGES;
		near->before_end = near->next;
	}
	if (near->next == near->end) {
		near->next = near->before;
		near->end = near->before = near->before_end;
	}
	return near->end - near->next;
}

static int check(struct hgm_fill_opts *o, const struct hgm_fill_opts *opts, const char *function)
{
	static const struct hgm_fill_opts defaults = { .size = sizeof(defaults) };
	int rc = hgm_opts_in(o, sizeof(*o), HGM_FIRST_SIZE(struct hgm_fill_opts, rate_bytes),
			     opts ? opts : &defaults, function);

	if (rc)
		return rc;
	if (o->flags & ~HGM_FILL_PAUSED)
		return hgm_fail(-EINVAL, "%s: unknown flags 0x%x", function, o->flags);
	if (o->order > HGM_FILL_NEAR_FAULTS)
		return hgm_fail(-EINVAL, "%s: unknown order %u", function, o->order);
	return 0;
}

/* Under the lock. Bytes that were asked for in advance are charged at the new rate. */
static void set(struct hgm_work *w, struct hgm_fill_control *c, const struct hgm_fill_opts *o)
{
	uint64_t now_ns = hgm_now_ns(), debt_ns = c->next_ns > now_ns ? c->next_ns - now_ns : 0;

	if (c->rate_bytes && o->rate_bytes)
		c->next_ns =
			now_ns + (uint64_t)((__uint128_t)debt_ns * c->rate_bytes / o->rate_bytes);
	else
		c->next_ns = 0;
	c->paused = o->flags & HGM_FILL_PAUSED;
	c->rate_bytes = o->rate_bytes;
	pthread_cond_broadcast(&w->cond);
}

int hgm_set_fill(struct hgm *h, const struct hgm_fill_opts *opts)
{
	struct hgm_fill_opts o;
	int rc;

	if (!h)
		return hgm_fail(-EINVAL, "hgm_set_fill: the engine is NULL");
	rc = check(&o, opts, "hgm_set_fill");
	if (!rc && o.order)
		rc = hgm_fail(
			-EINVAL,
			"hgm_set_fill: only a region has an order; use hgm_region_set_fill()");
	if (rc)
		return rc;
	pthread_mutex_lock(&h->work->lock);
	set(h->work, &h->work->fill_control, &o);
	pthread_mutex_unlock(&h->work->lock);
	return 0;
}

int hgm_region_set_fill(struct hgm_region *r, const struct hgm_fill_opts *opts)
{
	struct hgm_fill_opts o;
	int rc;

	if (!r)
		return hgm_fail(-EINVAL, "hgm_region_set_fill: the region is NULL");
	rc = check(&o, opts, "hgm_region_set_fill");
	if (rc)
		return rc;
	pthread_mutex_lock(&r->h->work->lock);
	atomic_store_explicit(&r->fill->near.wanted, o.order == HGM_FILL_NEAR_FAULTS,
			      memory_order_relaxed);
	set(r->h->work, &r->fill->control, &o);
	pthread_mutex_unlock(&r->h->work->lock);
	return 0;
}
