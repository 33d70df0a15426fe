/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Completion of regions, hgm_wait(), progress, and the references that keep regions alive.
 */
#include <errno.h>

#include "clock.h"
#include "engine.h"
#include "error.h"
#include "opts.h"

#define CANCEL_AGAIN_NS 10000000

/*
 * Waiting threads check again whenever the generation has changed. No earlier result is remembered,
 * because a complete region may become incomplete again (a collapse that is requested late, a
 * prefetch, a page that is being given up). So a thread that brings one of a region's counts to 0
 * looks at all of them.
 */
void hgm_something_is_done(struct hgm *h)
{
	/* seq_cst: a thread that begins to wait sees what was done before this, or is seen here. */
	if (!atomic_load_explicit(&h->waiters, memory_order_seq_cst))
		return;
	pthread_mutex_lock(&h->done_lock);
	h->done_generation++;
	pthread_cond_broadcast(&h->done_cond);
	pthread_mutex_unlock(&h->done_lock);
}

static bool is_complete(const struct hgm_region *r)
{
	/*
	 * The order matters: a block is counted as unsettled before its last page is counted off.
	 * If the two counts drop to 0 at the same time, one of the threads must see both. Hence
	 * seq_cst, here and there.
	 */
	if (r->flags & HGM_REGION_NO_FILL) {
		if (atomic_load_explicit(&r->prefetch_count, memory_order_seq_cst) ||
		    atomic_load_explicit(&r->refs, memory_order_seq_cst))
			return false;
	} else if (atomic_load_explicit(&r->open_pages, memory_order_seq_cst)) {
		return false;
	}
	return !atomic_load_explicit(&r->unsettled, memory_order_seq_cst);
}

/* As is_complete(), for a caller that must be notified when the region becomes complete. */
static bool looks_complete(struct hgm_region *r)
{
	if (is_complete(r))
		return true;
	atomic_store_explicit(&r->event_due, true, memory_order_seq_cst);
	return is_complete(r); /* a thread that completed it since may not have seen the mark */
}

void hgm_region_check_complete(struct hgm_region *r)
{
	if (!is_complete(r))
		return;
	hgm_something_is_done(r->h);
	/* Without fill, each fault makes it busy and then complete: not an event every time. */
	if (!(r->flags & HGM_REGION_NO_FILL) ||
	    (atomic_load_explicit(&r->event_due, memory_order_seq_cst) &&
	     atomic_exchange_explicit(&r->event_due, false, memory_order_seq_cst)))
		hgm_notify(r->h);
}

void hgm_region_unsettle(struct hgm_region *r)
{
	atomic_fetch_add_explicit(&r->unsettled, 1, memory_order_seq_cst);
}

void hgm_region_settled(struct hgm_region *r)
{
	if (atomic_fetch_sub_explicit(&r->unsettled, 1, memory_order_seq_cst) == 1)
		hgm_region_check_complete(r);
}

void hgm_region_hold(struct hgm_region *r)
{
	atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
}

void hgm_region_drop(struct hgm_region *r)
{
	/*
	 * The thread that destroys the region waits for 0, then for readers. We are one after the
	 * count drops.
	 */
	hgm_rcu_read_lock();
	if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_seq_cst) == 1) {
		if (r->flags & HGM_REGION_NO_FILL)
			hgm_region_check_complete(r);
		if (atomic_load_explicit(&r->dying, memory_order_seq_cst))
			hgm_something_is_done(r->h);
	}
	hgm_rcu_read_unlock();
}

static void stop_waiting(void *arg)
{
	struct hgm *h = arg;

	pthread_mutex_unlock(&h->done_lock);
	atomic_fetch_sub_explicit(&h->waiters, 1, memory_order_relaxed);
}

/*
 * Sleep until the generation has changed. True: the deadline has passed. A cancellation point: a
 * thread that is cancelled here leaves nothing locked, and no longer counts as a waiter.
 */
static bool sleep_until_news(struct hgm *h, uint64_t generation, uint64_t deadline_ns)
{
	bool late;

	pthread_mutex_lock(&h->done_lock);
	pthread_cleanup_push(stop_waiting, h);
	late = false; /* not earlier: the macro calls setjmp(), and gcc would warn */
	while (generation == h->done_generation && !late)
		late = hgm_cond_wait(&h->done_cond, &h->done_lock, deadline_ns);
	pthread_cleanup_pop(0);
	pthread_mutex_unlock(&h->done_lock);
	return late;
}

/* Wait until @done(@arg) is true or the deadline has passed. False: it has passed. */
static bool wait_for(struct hgm *h, bool (*done)(void *), void *arg, uint64_t deadline_ns)
{
	bool late = false, is_done = false;
	uint64_t generation;

	atomic_fetch_add_explicit(&h->waiters, 1, memory_order_seq_cst);
	for (;;) {
		pthread_mutex_lock(&h->done_lock);
		generation = h->done_generation;
		pthread_mutex_unlock(&h->done_lock);
		is_done = done(arg);
		if (is_done || late)
			break;
		late = sleep_until_news(h, generation, deadline_ns);
	}
	atomic_fetch_sub_explicit(&h->waiters, 1, memory_order_relaxed);
	return is_done;
}

void hgm_region_visit(struct hgm_region *r)
{
	atomic_fetch_add_explicit(&r->visits, 1, memory_order_relaxed);
}

void hgm_region_leave(struct hgm_region *r)
{
	hgm_rcu_read_lock();
	if (atomic_fetch_sub_explicit(&r->visits, 1, memory_order_seq_cst) == 1 &&
	    atomic_load_explicit(&r->dying, memory_order_seq_cst))
		hgm_something_is_done(r->h);
	hgm_rcu_read_unlock();
}

struct regions {
	struct hgm_region **r;
	unsigned int count;
};

static bool no_refs(void *arg)
{
	const struct regions *all = arg;

	for (unsigned int i = 0; i < all->count; i++)
		if (atomic_load_explicit(&all->r[i]->refs, memory_order_seq_cst) ||
		    atomic_load_explicit(&all->r[i]->visits, memory_order_seq_cst))
			return false;
	return true;
}

void hgm_regions_wait_refs(struct hgm_region **r, unsigned int count)
{
	struct regions all = { r, count };

	if (!count)
		return;
	/*
	 * A request may be about to enter the source while we look. The source ignores the
	 * cancellation of a request that it does not know yet, so cancel it again until the source
	 * has answered.
	 */
	while (!wait_for(r[0]->h, no_refs, &all, hgm_now_ns() + CANCEL_AGAIN_NS))
		for (unsigned int i = 0; i < count; i++)
			hgm_requests_cancel(r[i]);
	hgm_rcu_synchronize(); /* the last thread may still be inside hgm_region_drop() */
}

static bool all_complete(void *arg)
{
	struct hgm *h = arg;
	struct hgm_table *t;
	bool all = true;

	hgm_rcu_read_lock();
	t = atomic_load_explicit(&h->table, memory_order_acquire);
	for (unsigned int i = 0; all && i < t->count; i++)
		all = looks_complete(t->region[i]);
	hgm_rcu_read_unlock();
	return all;
}

void hgm_region_gone(struct hgm_region *r)
{
	hgm_something_is_done(r->h);
	if (!is_complete(r) && all_complete(r->h))
		hgm_notify(r->h);
}

/* The result of hgm_get_progress(): the sums over all regions. */
static struct hgm_progress add_up(struct hgm *h)
{
	struct hgm_progress p = { .size = sizeof(p) };
	uint64_t open_pages = 0;
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
		p.failing_requests += atomic_load_explicit(&r->fill_failed, memory_order_relaxed);
		p.complete &= looks_complete(r);
		if (!(r->flags & HGM_REGION_NO_FILL))
			open_pages += atomic_load_explicit(&r->open_pages, memory_order_relaxed);
	}
	hgm_rcu_read_unlock();
	p.remaining_us = hgm_fill_remaining_us(h, open_pages << HGM_PAGE_SHIFT);
	p.failing_requests += atomic_load_explicit(&h->failing_requests, memory_order_relaxed);
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
	if (hgm_stat_read(&h->stats, HGM_STAT_POISONED_PAGES)) {
		struct hgm_progress p = add_up(h);

		if (p.poisoned_bytes)
			return hgm_fail(-EIO,
					"hgm_wait: %llu bytes were given up, and are poisoned; "
					"last error %s",
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
	return hgm_opts_out(out, &p, sizeof(p), HGM_FIRST_SIZE(struct hgm_progress, remaining_us),
			    "hgm_get_progress");
}
