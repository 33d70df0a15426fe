/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many workers may fill from a source: one that takes long leaves workers to the others, and
 * one that takes a CPU leaves CPUs to threads that wait for pages.
 */
#include "fill_source.h"
#include "region/hgm.h"
#include "source/source.h"
#include "util/clock.h"
#include "work.h"

#define SOON_NS	    UINT64_C(10000000) /* an answer that takes less keeps no thread waiting */
#define COMPUTES_NS UINT64_C(5000000)  /* a worker that takes longer sleeps this time */
#define SELDOM	    20 /* a slower source gets the last worker 1 / SELDOM of the time */

/*
 * All workers but one are stuck in sources. The last one is reserved for demand, and fills only
 * from a source that keeps no thread waiting for long: the source is known to answer soon, or it
 * has not answered yet and there is only one bad source so far. A slow source is asked seldom,
 * because the delay may have had another cause. Without this, fill would never ask it again.
 */
static bool may_have_the_last(const struct hgm_work *w, const struct hgm_fill_source *f,
			      uint64_t now_ns)
{
	unsigned int stuck = 0, bad = 0;

	for (const struct hgm_fill_source *each = w->fill_sources; each; each = each->next) {
		const struct hgm_request *req = each->source->blocking ? each->oldest : NULL;

		bad += req && req->asked_ns + HGM_FILL_STUCK_NS < now_ns;
		for (; req && req->asked_ns + HGM_FILL_STUCK_NS < now_ns; req = req->fill_next)
			stuck++;
	}
	if (stuck < w->filling || w->filling >= w->threads || f->silences)
		return false;
	if (!f->window.answers_ns)
		return bad == 1;
	return f->window.answers_ns < SOON_NS ||
	       (!f->workers && now_ns > f->answered_ns + SELDOM * f->window.answers_ns);
}

/* How many workers may be stuck in a source: all, or half of them if another one can use them. */
static unsigned int stuck_most(const struct hgm_work *w, const struct hgm_fill_source *f)
{
	for (const struct hgm_fill_source *each = w->fill_sources; each; each = each->next)
		if (each != f && each->source->blocking && each->ring)
			return f->window.most > 1 ? f->window.most / 2 : 1;
	return f->window.most;
}

bool hgm_fill_source_has_worker(const struct hgm_work *w, const struct hgm_fill_source *f,
				uint64_t now_ns)
{
	if (!f->source->blocking)
		return true;
	if (f->workers >= f->window.most)
		return false;
	/* One more worker tries a silent source. */
	if (f->silences && (f->workers > f->overdue || f->workers >= stuck_most(w, f)))
		return false;
	return !w->filling || w->filling + 1 < w->threads || may_have_the_last(w, f, now_ns);
}

/* The time until which a thread counts as waiting; 0: none does. */
static uint64_t demand_until(const struct hgm_work *w, uint64_t now_ns)
{
	uint64_t until = 0;

	for (const struct hgm_fill_source *f = w->fill_sources; f; f = f->next) {
		uint64_t end = atomic_load_explicit(&f->demand_ns, memory_order_relaxed);

		end += end ? HGM_FILL_DEMAND_NS : 0;
		until = end > until ? end : until;
	}
	return until > now_ns ? until : 0;
}

bool hgm_fill_leaves_cpus(const struct hgm_work *w, const struct hgm_fill_source *f,
			  uint64_t now_ns, uint64_t *soonest)
{
	uint64_t until = f->computes ? demand_until(w, now_ns) : 0;
	unsigned int computing = 0;

	if (!until)
		return true;
	for (const struct hgm_worker *each = w->workers; each; each = each->next) {
		uint64_t end = each->since_ns + COMPUTES_NS;

		if (!each->at || !each->at->computes || end <= now_ns)
			continue;
		computing++;
		until = end < until ? end : until;
	}
	if (computing < w->computing_most)
		return true;
	*soonest = until < *soonest ? until : *soonest;
	return false;
}

void hgm_fill_source_enter(struct hgm_work *w, struct hgm_worker *self, struct hgm_fill_source *f)
{
	self->at = f;
	self->since_ns = hgm_now_ns();
	f->users++;
	f->workers += f->source->blocking;
	w->filling += f->source->blocking;
}

void hgm_fill_source_exit(struct hgm_work *w, struct hgm_worker *self, bool slept)
{
	uint64_t now_ns = hgm_now_ns();
	struct hgm_fill_source *f = self->at;

	self->at = NULL;
	f->workers -= f->source->blocking;
	w->filling -= f->source->blocking;
	/* A source that answers later takes no CPU of the worker's. */
	f->computes = !slept && (f->source->blocking || f->window.immediate);
	f->spent_ns += now_ns > self->since_ns ? now_ns - self->since_ns : 0;
	hgm_fill_source_put(w, f);
}
