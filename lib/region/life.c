/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * References and pins, which keep a region alive, completion of regions, and waiting for both.
 */
#include "hgm.h"
#include "kernel/sys.h"
#include "util/clock.h"

#define CANCEL_AGAIN_NS 10000000

void hgm_notify(struct hgm *h)
{
	uint64_t one = 1;

	hgm_sys->write(h->event_fd, &one, sizeof(one));
}

/*
 * Make the threads that wait in hgm_wait() look again.
 *
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
	if (atomic_load_explicit(&r->view.space->gone, memory_order_seq_cst))
		return true;
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

bool hgm_region_looks_complete(struct hgm_region *r)
{
	if (is_complete(r))
		return true;
	atomic_store_explicit(&r->event_due, true, memory_order_seq_cst);
	return is_complete(r); /* a thread that completed it since may not have seen the mark */
}

/* A count of the region is now 0: if the region is complete, tell the threads that wait. */
static void check_complete(struct hgm_region *r)
{
	if (!is_complete(r))
		return;
	hgm_something_is_done(r->h);
	/* Without fill, each fault makes it busy, then complete: report it only if event_due. */
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
		check_complete(r);
}

void hgm_region_count_off(struct hgm_region *r, uint64_t pages)
{
	bool last = atomic_fetch_sub_explicit(&r->open_pages, pages, memory_order_seq_cst) == pages;

	if (!last)
		return;
	r->h->ops->arrived(r);
	check_complete(r);
}

void hgm_region_ref(struct hgm_region *r)
{
	atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
}

void hgm_region_unref(struct hgm_region *r)
{
	/*
	 * The thread that destroys the region waits for 0, then for a grace period. This thread is
	 * a reader after the count drops.
	 */
	hgm_rcu_read_lock();
	if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_seq_cst) == 1) {
		if (r->flags & HGM_REGION_NO_FILL)
			check_complete(r);
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

bool hgm_wait_for(struct hgm *h, bool (*done)(void *), void *arg, uint64_t deadline_ns)
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

void hgm_region_pin(struct hgm_region *r)
{
	atomic_fetch_add_explicit(&r->pins, 1, memory_order_relaxed);
}

void hgm_region_unpin(struct hgm_region *r)
{
	hgm_rcu_read_lock();
	if (atomic_fetch_sub_explicit(&r->pins, 1, memory_order_seq_cst) == 1 &&
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
		    atomic_load_explicit(&all->r[i]->pins, memory_order_seq_cst))
			return false;
	return true;
}

void hgm_regions_wait_refs(struct hgm_region **r, unsigned int count,
			   void (*cancel)(struct hgm_region *))
{
	struct regions all = { r, count };

	if (!count)
		return;
	/*
	 * A request may be about to enter the source during the check. The source ignores the
	 * cancellation of a request that it does not know yet, so cancel it again until the source
	 * has answered.
	 */
	while (!hgm_wait_for(r[0]->h, no_refs, &all, hgm_now_ns() + CANCEL_AGAIN_NS))
		for (unsigned int i = 0; i < count; i++)
			cancel(r[i]);
	hgm_rcu_synchronize(); /* the last thread may still be inside hgm_region_unref() */
}

bool hgm_all_complete(void *arg)
{
	struct hgm *h = arg;
	struct hgm_table *t;
	bool all = true;

	hgm_rcu_read_lock();
	t = atomic_load_explicit(&h->table, memory_order_acquire);
	for (unsigned int i = 0; all && i < t->count; i++)
		all = hgm_region_looks_complete(t->region[i]);
	hgm_rcu_read_unlock();
	return all;
}

void hgm_region_gone(struct hgm_region *r)
{
	hgm_something_is_done(r->h);
	if (!is_complete(r) && hgm_all_complete(r->h))
		hgm_notify(r->h);
}
