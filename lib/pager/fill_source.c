/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What keeps the fill of different sources apart, so that a slow or silent source does not hold up
 * the fill of the others.
 *
 * Each fill source has its own fill window and counts its own requests. Of those whose fill window
 * has room, the one that has used the least of the workers' time is next. So a source that occupies
 * a worker for a long time with each answer gets no more time than one that needs little.
 *
 * If an answer takes several times as long as answers have taken lately, it is no longer waited
 * for: its bytes no longer count in the fill window, and it is overdue until it comes. Its pages
 * stay claimed, because the source may still write to them. If nothing else was answered meanwhile,
 * the source is silent. It is then asked for one request at a time, each with more patience than
 * the last, until it answers one.
 *
 * All of them share the requests of fill, so none has more than its share of them.
 *
 * One worker is reserved for demand. While threads wait, workers that fill from sources that
 * take a CPU (memory, a file in the page cache) leave half of the CPUs free. Otherwise threads that
 * are woken would find no CPU for as long as a time slice lasts.
 */
#include <errno.h>
#include <stdlib.h>

#include "fill_source.h"
#include "fill.h"
#include "region/hgm.h"
#include "request.h"
#include "source/source.h"
#include "util/clock.h"
#include "work.h"

#define SHARE_MIN     8	 /* requests that each fill source may have in any case */
#define OVERDUE_MAX   64 /* with this many overdue answers, no other becomes overdue */
#define SILENT_MAX_NS UINT64_C(5000000000)

struct hgm_fill_source *hgm_fill_source_find(struct hgm_work *w, const struct hgm_source *src)
{
	struct hgm_fill_source *f = w->fill_sources;

	while (f && f->source != src)
		f = f->next;
	return f;
}

static void init(struct hgm_fill_source *f, struct hgm_region *r)
{
	const struct hgm_opts *o = &r->h->opts;
	uint32_t most = HGM_REQUESTS_FILL;

	if (r->source->blocking)
		most = o->workers > 2 ? o->workers - 1 : 1;
	f->source = r->source;
	hgm_fill_window_init(&f->window, o->fill_window_bytes, most, r->source->blocking);
}

int hgm_fill_source_join(struct hgm_region *r)
{
	struct hgm_fill_source *fresh = calloc(1, sizeof(*fresh));
	struct hgm_work *w = r->h->work;

	if (!fresh)
		return -ENOMEM;
	pthread_mutex_lock(&w->lock);
	r->fill->source = hgm_fill_source_find(w, r->source);
	if (!r->fill->source) {
		init(fresh, r);
		fresh->next = w->fill_sources;
		w->fill_sources = fresh;
		r->fill->source = fresh;
		fresh = NULL;
	}
	r->fill->source->users++;
	pthread_mutex_unlock(&w->lock);
	free(fresh);
	return 0;
}

void hgm_fill_source_put(struct hgm_work *w, struct hgm_fill_source *f)
{
	struct hgm_fill_source **link = &w->fill_sources;

	if (--f->users)
		return;
	while (*link != f)
		link = &(*link)->next;
	*link = f->next;
	free(f);
}

void hgm_fill_source_leave(struct hgm_region *r)
{
	struct hgm_work *w = r->h->work;

	if (!r->fill->source)
		return;
	pthread_mutex_lock(&w->lock);
	hgm_fill_source_put(w, r->fill->source);
	pthread_mutex_unlock(&w->lock);
}

/* A fill source gets no credit for the time in which it had nothing to fill. */
static void catch_up(struct hgm_work *w, struct hgm_fill_source *f)
{
	uint64_t least = UINT64_MAX;

	for (struct hgm_fill_source *each = w->fill_sources; each; each = each->next)
		if (each->ring && each->spent_ns < least)
			least = each->spent_ns;
	if (least != UINT64_MAX && f->spent_ns < least)
		f->spent_ns = least;
}

void hgm_fill_source_add(struct hgm_work *w, struct hgm_region *r)
{
	struct hgm_fill_source *f = r->fill->source;

	if (r->fill->link)
		return;
	if (!f->ring)
		catch_up(w, f);
	r->fill->link = f->ring ? f->ring->fill->link : r;
	if (f->ring)
		f->ring->fill->link = r;
	f->ring = r;
}

void hgm_fill_source_remove(struct hgm_region *r)
{
	struct hgm_fill_source *f = r->fill->source;
	struct hgm_region *before = r;

	if (!r->fill->link)
		return;
	while (before->fill->link != r)
		before = before->fill->link;
	before->fill->link = r->fill->link;
	if (f->ring == r)
		f->ring = before == r ? NULL : before;
	r->fill->link = NULL;
	if (!f->ring)
		hgm_fill_window_unused(&f->window);
}

static uint64_t patience_ns(const struct hgm_fill_source *f)
{
	uint64_t ns = hgm_fill_window_patience_ns(&f->window);

	for (unsigned int i = 0; i < f->silences && ns < SILENT_MAX_NS; i++)
		ns *= 2;
	return ns;
}

/* The oldest request that is still waited for, or NULL. */
static struct hgm_request *awaited(const struct hgm_fill_source *f)
{
	struct hgm_request *req = f->oldest;

	while (req && req->overdue)
		req = req->fill_next;
	return f->overdue < OVERDUE_MAX ? req : NULL;
}

/* Stop waiting for answers that take longer than the patience of the fill source. */
static void give_up_waiting(struct hgm_fill_source *f, uint64_t now_ns)
{
	uint64_t patience = patience_ns(f);
	struct hgm_request *req;
	bool silent = false;

	while ((req = awaited(f)) && now_ns > req->asked_ns && now_ns - req->asked_ns > patience) {
		req->overdue = true;
		f->overdue++;
		f->inflight -= req->asked_bytes;
		silent |= f->answered_ns <= req->asked_ns;
	}
	if (silent) {
		f->silences++;
		hgm_fill_window_unused(&f->window); /* silence does not measure a rate */
	}
}

static unsigned int share(const struct hgm_work *w)
{
	unsigned int sources = 0, part;

	for (struct hgm_fill_source *f = w->fill_sources; f; f = f->next)
		sources += f->ring || f->requests;
	part = HGM_REQUESTS_FILL / (sources ? sources : 1);
	return part > SHARE_MIN ? part : SHARE_MIN;
}

static bool has_room(const struct hgm_fill_source *f, unsigned int most)
{
	if (f->requests >= most)
		return false;
	return f->silences ? !f->inflight : f->inflight < hgm_fill_window_bytes(&f->window);
}

struct hgm_fill_source *hgm_fill_source_next(struct hgm_work *w, uint64_t *soonest)
{
	struct hgm_fill_source *best = NULL;
	unsigned int most = 0;
	uint64_t now_ns = 0;

	for (struct hgm_fill_source *f = w->fill_sources; f; f = f->next) {
		const struct hgm_request *req;
		uint64_t due_ns;

		if (!f->ring || f->passed_over == w->pass)
			continue;
		if (!now_ns) {
			now_ns = hgm_now_ns();
			most = share(w);
		}
		give_up_waiting(f, now_ns);
		if (!hgm_fill_leaves_cpus(w, f, now_ns, soonest))
			continue;
		if (has_room(f, most) && hgm_fill_source_has_worker(w, f, now_ns)) {
			if (!best || f->spent_ns < best->spent_ns)
				best = f;
			continue;
		}
		req = awaited(f);
		due_ns = req ? req->asked_ns + patience_ns(f) + 1 : UINT64_MAX;
		/* When the workers that fill are stuck, others may begin. */
		if (f->source->blocking && w->filling && due_ns > now_ns + HGM_FILL_STUCK_NS)
			due_ns = now_ns + HGM_FILL_STUCK_NS;
		if (due_ns < *soonest)
			*soonest = due_ns;
	}
	return best;
}

void hgm_fill_source_pass_over(struct hgm_work *w, struct hgm_fill_source *f)
{
	f->passed_over = w->pass;
	hgm_fill_window_unused(&f->window);
}

void hgm_work_fill_asked(struct hgm *h, struct hgm_request *req, uint64_t bytes)
{
	struct hgm_fill_source *f = req->in.r->fill->source;

	pthread_mutex_lock(&h->work->lock);
	req->filling = true;
	req->overdue = false;
	req->asked_bytes = bytes;
	req->trip = hgm_fill_window_asked(&f->window);
	req->fill_next = NULL;
	req->fill_before = f->newest;
	if (f->newest)
		f->newest->fill_next = req;
	else
		f->oldest = req;
	f->newest = req;
	f->requests++;
	f->inflight += bytes;
	pthread_mutex_unlock(&h->work->lock);
	hgm_stat_add(&h->stats, HGM_STAT_FILL_REQUESTS, 1);
}

static void forget(struct hgm_fill_source *f, struct hgm_request *req)
{
	if (req->fill_before)
		req->fill_before->fill_next = req->fill_next;
	else
		f->oldest = req->fill_next;
	if (req->fill_next)
		req->fill_next->fill_before = req->fill_before;
	else
		f->newest = req->fill_before;
	req->filling = false;
	f->requests--;
	if (req->overdue)
		f->overdue--;
	else
		f->inflight -= req->asked_bytes;
}

void hgm_work_fill_done(struct hgm *h, struct hgm_request *req, uint64_t bytes, bool later)
{
	struct hgm_fill_source *f = req->in.r->fill->source;
	struct hgm_work *w = h->work;
	uint64_t soonest = UINT64_MAX;

	pthread_mutex_lock(&w->lock);
	forget(f, req);
	f->window.polite =
		req->answered_ns - atomic_load_explicit(&f->demand_ns, memory_order_relaxed) <
		HGM_FILL_DEMAND_NS;

	f->answered_ns = req->answered_ns;
	f->silences = 0;
	hgm_fill_note(h, bytes, req->answered_ns);
	if (bytes) {
		if (later || f->source->blocking)
			hgm_fill_window_answered(&f->window, bytes, req->asked_ns, req->trip,
						 req->answered_ns);
		else
			hgm_fill_window_immediate(&f->window);
	}
	if (w->idle && hgm_fill_leaves_cpus(w, f, req->answered_ns, &soonest))
		pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}
