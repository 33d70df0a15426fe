/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The life of a live snapshot, from its begin to its destruction. snapshot_create.c creates it.
 */
#include <errno.h>

#include "install/suspects.h"
#include "pager/events.h"
#include "region/hgm.h"
#include "snapshot.h"
#include "util/cancel.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/opts.h"

/* A snapshot of all regions must also have the regions that were added since its creation. */
static int check_complete(const struct hgm_snapshot *s)
{
	unsigned int regions;

	if (s->opts.regions)
		return 0;
	hgm_rcu_read_lock();
	regions = atomic_load_explicit(&s->h->table, memory_order_acquire)->count;
	hgm_rcu_read_unlock();
	return regions > s->parts ? hgm_fail(-ESTALE,
					     "hgm_snapshot_begin: the engine has %u regions, but "
					     "the snapshot has %u: some were added after "
					     "hgm_snapshot_create(); create another snapshot",
					     regions, s->parts)
				  : 0;
}

/* Locked. As long as the snapshot has not failed, its thread waits and keeps the regions alive. */
static int may_begin(struct hgm_snapshot *s)
{
	int error;

	if (s->begun)
		return hgm_fail(-EALREADY, "hgm_snapshot_begin: the snapshot was already begun");
	for (uint32_t i = 0; i < s->parts && !atomic_load(&s->error); i++)
		if (atomic_load_explicit(&s->part[i].r->dying, memory_order_acquire))
			hgm_snapshot_fail(s, -ECANCELED);
	error = atomic_load_explicit(&s->error, memory_order_acquire);
	if (error)
		return hgm_fail(error, "hgm_snapshot_begin: the snapshot has already failed: %s",
				hgm_errno_name(error));
	error = check_complete(s);
	/* Check again: there may be new regions, which are not in the snapshot. */
	if (!error && !s->opts.write)
		error = hgm_sink_check_file(s->h, s->opts.fd, "hgm_snapshot_begin");
	return error;
}

static int arm_all(struct hgm_snapshot *s)
{
	int rc = 0;

	/* What events announced, and is dropped by now, was dropped before the instant. */
	for (uint32_t i = 0; i < s->parts; i++)
		if (!i || s->part[i].r->view.space != s->part[i - 1].r->view.space)
			hgm_events_settle(s->h, s->part[i].r->view.space);
	for (uint32_t i = 0; i < s->parts; i++)
		hgm_suspects_check(s->part[i].r, 0, hgm_region_end(s->part[i].r));
	/*
	 * One instant for all regions: none of them maps anything writable from the end of the
	 * second loop on, and its waits overlap. The caller has stopped the guest.
	 */
	for (uint32_t i = 0; i < s->parts; i++)
		hgm_wp_quiesce(s->part[i].r);
	for (uint32_t i = 0; i < s->parts; i++)
		hgm_wp_synchronize(s->part[i].r);
	for (uint32_t i = 0; i < s->parts && !rc; i++)
		rc = hgm_wp_arm(s->part[i].r, s->part[i].armed, s->part[i].discarded);
	return rc;
}

int hgm_snapshot_begin(struct hgm_snapshot *s)
{
	HGM_UNCANCELLED;
	uint64_t start = hgm_now_ns();
	bool failed = false;
	struct hgm *h;
	int rc;

	if (!s)
		return hgm_fail(-EINVAL, "hgm_snapshot_begin: the snapshot is NULL");
	h = s->h;
	pthread_mutex_lock(&s->lock);
	rc = may_begin(s);
	if (!rc) {
		/* The thread does nothing before the state changes. */
		s->begun = true;
		rc = arm_all(s);
		failed = hgm_snapshot_set_error(s, rc);
		s->state = HGM_SNAPSHOT_RUNNING;
		atomic_store(&s->begin_ns, hgm_now_ns() - start);
	}
	/* Locked: the sink may destroy the snapshot as soon as its thread continues. */
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
	if (failed)
		hgm_snapshot_log_error(h, rc);
	return rc;
}

static void unlock(void *lock)
{
	pthread_mutex_unlock(lock);
}

/* A cancellation point, like hgm_wait(): the lock is released if the thread is cancelled. */
static bool wait_locked(struct hgm_snapshot *s, uint64_t deadline)
{
	bool late;

	pthread_cleanup_push(unlock, &s->lock);
	late = hgm_cond_wait(&s->cond, &s->lock, deadline);
	pthread_cleanup_pop(0);
	return late;
}

int hgm_snapshot_wait(struct hgm_snapshot *s, int timeout_ms)
{
	uint64_t deadline = UINT64_MAX, left;
	bool late = timeout_ms == 0;
	int rc, why;

	if (!s)
		return hgm_fail(-EINVAL, "hgm_snapshot_wait: the snapshot is NULL");
	if (timeout_ms >= 0)
		deadline = hgm_now_ns() + (uint64_t)timeout_ms * 1000000;
	if (pthread_equal(pthread_self(), s->thread))
		return hgm_fail(-EDEADLK, "hgm_snapshot_wait: called from inside hgm_sink_fn, so "
					  "it would wait for itself; call it on another thread");
	pthread_mutex_lock(&s->lock);
	rc = s->state == HGM_SNAPSHOT_PREPARED && !atomic_load(&s->error) ? -EINVAL : 0;
	/* Failed before it began: no sink or source is called any more, so it ends at once. */
	if (!s->begun && !rc) {
		deadline = UINT64_MAX;
		late = false;
	}
	while (!rc && s->state != HGM_SNAPSHOT_ENDED && !late)
		late = wait_locked(s, deadline);
	if (!rc && s->state != HGM_SNAPSHOT_ENDED)
		rc = -ETIMEDOUT;
	pthread_mutex_unlock(&s->lock);
	if (rc == -EINVAL)
		return hgm_fail(
			rc,
			"hgm_snapshot_wait: the snapshot was not begun; call hgm_snapshot_begin()");
	left = atomic_load_explicit(&s->unreadable_pages, memory_order_relaxed);
	if (rc)
		return hgm_fail(rc, "hgm_snapshot_wait: %llu of %llu bytes are done after %d ms",
				(unsigned long long)atomic_load(&s->done_pages) << HGM_PAGE_SHIFT,
				(unsigned long long)s->total_pages << HGM_PAGE_SHIFT, timeout_ms);
	why = atomic_load_explicit(&s->read_error, memory_order_relaxed);
	rc = atomic_load_explicit(&s->error, memory_order_acquire);
	if (rc)
		return hgm_fail(rc, "hgm_snapshot_wait: the snapshot has failed: %s",
				hgm_errno_name(rc));
	if (left)
		return hgm_fail(-ENODATA,
				"hgm_snapshot_wait: %llu bytes could not be read and are zeroes in "
				"the snapshot; last error %s",
				(unsigned long long)left << HGM_PAGE_SHIFT,
				why ? hgm_errno_name(why) : "unknown");
	return 0;
}

int hgm_snapshot_cancel(struct hgm_snapshot *s)
{
	HGM_UNCANCELLED;

	if (!s)
		return hgm_fail(-EINVAL, "hgm_snapshot_cancel: the snapshot is NULL");
	pthread_mutex_lock(&s->lock);
	if (s->state != HGM_SNAPSHOT_ENDED)
		hgm_snapshot_fail(s, -ECANCELED);
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

int hgm_snapshot_get_progress(struct hgm_snapshot *s, struct hgm_snapshot_progress *out)
{
	struct hgm_snapshot_progress p = { .size = sizeof(p) };

	if (!s)
		return hgm_fail(-EINVAL, "hgm_snapshot_get_progress: the snapshot is NULL");
	p.total_bytes = s->total_pages << HGM_PAGE_SHIFT;
	p.done_bytes = atomic_load(&s->done_pages) << HGM_PAGE_SHIFT;
	p.zero_bytes = atomic_load(&s->zero_pages) << HGM_PAGE_SHIFT;
	p.copied_bytes = atomic_load(&s->copied_pages) << HGM_PAGE_SHIFT;
	p.source_bytes = atomic_load(&s->source_pages) << HGM_PAGE_SHIFT;
	p.unreadable_bytes = atomic_load(&s->unreadable_pages) << HGM_PAGE_SHIFT;
	p.pool_used_bytes = (uint64_t)atomic_load(&s->pool.used) << HGM_PAGE_SHIFT;
	p.pool_full = atomic_load(&s->pool_full);
	p.begin_ns = atomic_load(&s->begin_ns);
	pthread_mutex_lock(&s->lock);
	p.done = s->state == HGM_SNAPSHOT_ENDED;
	pthread_mutex_unlock(&s->lock);
	p.error = atomic_load(&s->error);
	return hgm_opts_out(out, &p, sizeof(p), HGM_FIRST_SIZE(struct hgm_snapshot_progress, error),
			    "hgm_snapshot_get_progress");
}

void hgm_snapshot_destroy(struct hgm_snapshot *s)
{
	HGM_UNCANCELLED;

	if (!s)
		return;
	hgm_snapshot_cancel(s);
	if (pthread_equal(pthread_self(), s->thread)) { /* inside the sink: it frees itself */
		s->unowned = true;
		return;
	}
	pthread_join(s->thread, NULL);
	hgm_snapshot_free(s);
}
