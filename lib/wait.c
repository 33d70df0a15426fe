/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When is it done? Completion of regions, hgm_wait(), progress, and holding regions alive.
 */
#include <errno.h>

#include "clock.h"
#include "engine.h"
#include "error.h"
#include "opts.h"

#define CANCEL_AGAIN_NS 10000000

/* Those who wait look again whenever the generation has changed. */
void hgm_something_is_done(struct hgm *h)
{
	pthread_mutex_lock(&h->done_lock);
	h->done_generation++;
	pthread_cond_broadcast(&h->done_cond);
	pthread_mutex_unlock(&h->done_lock);
}

static bool is_complete(const struct hgm_region *r)
{
	/*
	 * The order matters: a block is counted as unsettled before its last page is counted off.
	 * Of two that are counted off at the same time one must see that both are: hence seq_cst,
	 * here and there.
	 */
	if (r->flags & HGM_REGION_NO_FILL) {
		if (atomic_load_explicit(&r->prefetch_count, memory_order_acquire) ||
		    atomic_load_explicit(&r->refs, memory_order_seq_cst))
			return false;
	} else if (atomic_load_explicit(&r->open_pages, memory_order_seq_cst)) {
		return false;
	}
	return !atomic_load_explicit(&r->unsettled, memory_order_seq_cst);
}

void hgm_region_check_complete(struct hgm_region *r)
{
	bool first;

	if (!is_complete(r))
		return;
	first = !atomic_exchange_explicit(&r->complete, true, memory_order_acq_rel);
	/* Without fill a region can be complete, busy and complete again. */
	if (first || r->flags & HGM_REGION_NO_FILL)
		hgm_something_is_done(r->h);
	if (first)
		hgm_notify(r->h);
}

void hgm_region_unsettle(struct hgm_region *r)
{
	atomic_fetch_add_explicit(&r->unsettled, 1, memory_order_seq_cst);
}

void hgm_region_settled(struct hgm_region *r)
{
	atomic_fetch_sub_explicit(&r->unsettled, 1, memory_order_seq_cst);
	hgm_region_check_complete(r);
}

void hgm_region_hold(struct hgm_region *r)
{
	atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
}

void hgm_region_drop(struct hgm_region *r)
{
	/*
	 * Whoever destroys the region waits for 0, then for readers: after the count falls we are
	 * one.
	 */
	hgm_rcu_read_lock();
	if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_seq_cst) == 1) {
		if (r->flags & HGM_REGION_NO_FILL)
			hgm_region_check_complete(r);
		if (atomic_load_explicit(&r->dying, memory_order_acquire))
			hgm_something_is_done(r->h);
	}
	hgm_rcu_read_unlock();
}

/* Wait until @done(@arg) or the deadline; false: too late. */
static bool wait_for(struct hgm *h, bool (*done)(void *), void *arg, uint64_t deadline_ns)
{
	uint64_t generation;
	bool late = false;

	pthread_mutex_lock(&h->done_lock);
	for (;;) {
		bool is_done;

		generation = h->done_generation;
		pthread_mutex_unlock(&h->done_lock);
		is_done = done(arg);
		if (is_done || late)
			return is_done;
		pthread_mutex_lock(&h->done_lock);
		while (generation == h->done_generation && !late)
			late = hgm_cond_wait(&h->done_cond, &h->done_lock, deadline_ns);
	}
}

void hgm_region_visit(struct hgm_region *r)
{
	atomic_fetch_add_explicit(&r->visits, 1, memory_order_relaxed);
}

void hgm_region_leave(struct hgm_region *r)
{
	hgm_rcu_read_lock();
	if (atomic_fetch_sub_explicit(&r->visits, 1, memory_order_acq_rel) == 1 &&
	    atomic_load_explicit(&r->dying, memory_order_acquire))
		hgm_something_is_done(r->h);
	hgm_rcu_read_unlock();
}

static bool no_refs(void *arg)
{
	struct hgm_region *r = arg;

	return !atomic_load_explicit(&r->refs, memory_order_acquire) &&
	       !atomic_load_explicit(&r->visits, memory_order_acquire);
}

void hgm_region_wait_refs(struct hgm_region *r)
{
	/*
	 * A request may be on its way into the source while we look: the source ignores what it
	 * does not know yet, so it is cancelled again until it has answered.
	 */
	do
		hgm_requests_cancel(r);
	while (!wait_for(r->h, no_refs, r, hgm_now_ns() + CANCEL_AGAIN_NS));
	hgm_rcu_synchronize(); /* the last to drop it may still be inside hgm_region_drop() */
}

static bool all_complete(void *arg)
{
	struct hgm *h = arg;
	struct hgm_table *t;
	bool all = true;

	hgm_rcu_read_lock();
	t = atomic_load_explicit(&h->table, memory_order_acquire);
	for (unsigned int i = 0; all && i < t->count; i++)
		all = is_complete(t->region[i]);
	hgm_rcu_read_unlock();
	return all;
}

/* A struct with what hgm_get_progress() says, all regions together. */
static struct hgm_progress add_up(struct hgm *h)
{
	struct hgm_progress p = { .size = sizeof(p) };
	struct hgm_table *t;

	p.complete = true;
	hgm_rcu_read_lock();
	t = atomic_load_explicit(&h->table, memory_order_acquire);
	for (unsigned int i = 0; i < t->count; i++) {
		struct hgm_region *r = t->region[i];

		p.total_bytes += r->length;
		p.present_bytes += hgm_map_present_pages(r->map) << HGM_PAGE_SHIFT;
		p.poisoned_bytes += hgm_region_poisoned_bytes(r);
		p.huge_bytes += hgm_region_huge_bytes(r);
		p.complete &= is_complete(r);
	}
	hgm_rcu_read_unlock();
	p.failing_requests = atomic_load_explicit(&h->failing_requests, memory_order_relaxed);
	p.last_error = atomic_load_explicit(&h->last_error, memory_order_relaxed);
	return p;
}

int hgm_wait(struct hgm *h, int timeout_ms)
{
	uint64_t deadline = UINT64_MAX;

	if (!h)
		return hgm_fail(-EINVAL, "hgm_wait: the engine is NULL");
	if (!atomic_load_explicit(&h->running, memory_order_acquire))
		return hgm_fail(-EINVAL, "hgm_wait: the engine was not started; call hgm_start()");
	if (timeout_ms >= 0)
		deadline = hgm_now_ns() + (uint64_t)timeout_ms * 1000000;
	if (timeout_ms ? !wait_for(h, all_complete, h, deadline) : !all_complete(h)) {
		struct hgm_progress p = add_up(h);

		return hgm_fail(
			-ETIMEDOUT,
			"hgm_wait: %llu of %llu bytes are present and %llu are huge after %d ms; "
			"%llu requests are failing, last error %s",
			(unsigned long long)p.present_bytes, (unsigned long long)p.total_bytes,
			(unsigned long long)p.huge_bytes, timeout_ms,
			(unsigned long long)p.failing_requests,
			p.last_error ? hgm_errno_name(p.last_error) : "none");
	}
	if (hgm_stat_read(h, HGM_STAT_POISONED_PAGES)) {
		struct hgm_progress p = add_up(h);

		if (p.poisoned_bytes)
			return hgm_fail(-EIO,
					"hgm_wait: the source failed for %llu bytes, which are "
					"poisoned; last error %s",
					(unsigned long long)p.poisoned_bytes,
					hgm_errno_name(p.last_error));
	}
	return 0;
}

int hgm_get_progress(struct hgm *h, struct hgm_progress *out)
{
	struct hgm_progress p;

	if (!h)
		return hgm_fail(-EINVAL, "hgm_get_progress: the engine is NULL");
	p = add_up(h);
	return hgm_opts_out(out, &p, sizeof(p), HGM_FIRST_SIZE(struct hgm_progress, complete),
			    "hgm_get_progress");
}
