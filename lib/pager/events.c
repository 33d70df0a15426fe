/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Events of userfaultfd, and the events thread.
 *
 * The kernel blocks a thread that drops, unmaps or moves registered memory until the event has been
 * read. Meanwhile it refuses every range operation on that userfaultfd (EAGAIN). Fault threads read
 * the events of the memory that they serve. Before hgm_start() there are no fault threads, and the
 * events thread reads in their place. It does not serve faults. They are raised again when the
 * fault threads begin.
 *
 * An event announces what is going to happen: the memory is dropped after the event has been read.
 * MADV_DONTNEED also raises REMOVE, but drops nothing of a file. For anonymous memory, the event
 * decides what was discarded. For files, see suspects.c. For hugetlb, the holes that are found
 * decide, because only whole huge pages are dropped.
 *
 * The events thread also serves faults on the aliases (alias.c).
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "alias.h"
#include "collapse/collapse.h"
#include "events.h"
#include "events_state.h"
#include "install/discard.h"
#include "install/wp.h"
#include "install/suspects.h"
#include "kernel/sys.h"
#include "region/hgm.h"
#include "util/clock.h"
#include "util/error.h"

#define READ_BATCH  16
#define SUSPECTS_NS 10000000

static void kick(struct hgm_events *e)
{
	uint64_t one = 1;

	hgm_sys->write(e->kick_fd, &one, sizeof(one));
}

static void removed(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	if (hgm_discard_event(r, page, pages))
		kick(r->h->events); /* to decide about the range */
	hgm_wp_removed(r, page, pages);
	hgm_collapse_discarded(r, page, pages, false);
}

/* The part of [start, end) of @space that lies in a region, in bytes from its page 0 on. */
static bool clip(const struct hgm_region *r, const struct hgm_space *space, uint64_t start,
		 uint64_t end, uint64_t *from, uint64_t *to)
{
	uint64_t base = (uintptr_t)r->view.base, first = (uintptr_t)r->view.start;

	if (r->view.space != space || end <= first || start >= base + r->mapped || start >= end)
		return false;
	*from = (start > first ? start : first) - base;
	*to = end < base + r->mapped ? end - base : r->mapped;
	return true;
}

void hgm_event_mark(struct hgm *h, const struct hgm_space *space, struct hgm_uffd_event *ev,
		    uint64_t read_ns)
{
	struct hgm_table *t;
	uint64_t from, to;

	if (ev->type != HGM_UFFD_EVENT_REMOVE)
		return;
	hgm_rcu_read_lock();
	t = atomic_load_explicit(&h->table, memory_order_acquire);
	for (unsigned int i = 0; i < t->count; i++) {
		struct hgm_region *r = t->region[i];
		uint64_t page, pages;

		if (!clip(r, space, ev->addr, ev->end, &from, &to))
			continue;
		page = from >> HGM_PAGE_SHIFT;
		pages = (to - from) >> HGM_PAGE_SHIFT;
		/* Exactly this piece, and nothing of a neighbour. */
		if (to - from == ev->end - ev->addr && hgm_retry_dropped(r, page, pages))
			ev->end = ev->addr; /* ignore the event */
		else
			hgm_discard_event_mark(r, page, pages, read_ns);
	}
	hgm_rcu_read_unlock();
}

void hgm_event(struct hgm *h, const struct hgm_space *space, const struct hgm_uffd_event *ev)
{
	struct hgm_table *t;
	uint64_t from, to;

	hgm_stat_add(&h->stats, HGM_STAT_EVENTS, 1);
	hgm_rcu_read_lock();
	t = atomic_load_explicit(&h->table, memory_order_acquire);
	for (unsigned int i = 0; i < t->count; i++) {
		struct hgm_region *r = t->region[i];
		uint64_t end = ev->type == HGM_UFFD_EVENT_REMAP ? ev->addr + ev->len : ev->end;

		if (!clip(r, space, ev->addr, end, &from, &to))
			continue;
		if (ev->type == HGM_UFFD_EVENT_REMOVE)
			removed(r, from >> HGM_PAGE_SHIFT, (to - from) >> HGM_PAGE_SHIFT);
		else
			hgm_region_lost(r, from, to);
		if (ev->type == HGM_UFFD_EVENT_REMAP)
			hgm_region_moved(r, ev->end, ev->len);
	}
	hgm_rcu_read_unlock();
}

static void read_events(struct hgm *h, struct hgm_uffd *u)
{
	struct hgm_uffd_event ev[READ_BATCH];
	uint64_t read_ns = hgm_stamp_ns();
	int n = hgm_uffd_read(u, ev, READ_BATCH);

	for (int i = 0; i < n; i++)
		if (ev[i].type != HGM_UFFD_EVENT_PAGEFAULT) {
			hgm_event_mark(h, &h->space, &ev[i], read_ns);
			hgm_event(h, &h->space, &ev[i]);
		}
}

/* The userfaultfds that the thread reads now. */
struct watched {
	unsigned int count;
	struct hgm_uffd *uffd[HGM_THREADS_MAX + HGM_EVENTS_EXTRA_MAX];
};

/* Returns false if the thread must end. */
static bool look(struct hgm *h, struct watched *w)
{
	struct hgm_events *e = h->events;
	bool go_on;

	w->count = 0;
	pthread_mutex_lock(&e->lock);
	go_on = !e->stop;
	for (unsigned int i = 0; !e->faults_taken && i < h->space.stripes; i++)
		w->uffd[w->count++] = h->space.uffd[i];
	for (unsigned int i = 0; i < HGM_EVENTS_EXTRA_MAX; i++)
		if (e->extra[i])
			w->uffd[w->count++] = e->extra[i];
	e->gave_faults = e->faults_taken;
	e->round++;
	pthread_cond_broadcast(&e->cond);
	pthread_mutex_unlock(&e->lock);
	return go_on;
}

/* Returns true if ranges still wait for a decision. */
static bool age_suspects(struct hgm *h)
{
	struct hgm_table *t;
	bool some = false;

	hgm_rcu_read_lock();
	t = atomic_load_explicit(&h->table, memory_order_acquire);
	for (unsigned int i = 0; i < t->count; i++)
		some |= hgm_suspects_age(t->region[i]);
	hgm_rcu_read_unlock();
	return some;
}

/* The longest time to sleep. */
static int64_t patience(const struct hgm_alias_retries *again, bool suspects)
{
	if (again->count)
		return (int64_t)again->backoff_ns;
	return suspects ? SUSPECTS_NS : -1;
}

static void *events_thread(void *arg)
{
	struct hgm *h = arg;
	struct hgm_events *e = h->events;
	struct pollfd fds[2 + HGM_THREADS_MAX + HGM_EVENTS_EXTRA_MAX];
	struct hgm_alias_retries again = { .count = 0 };
	struct watched w;
	uint64_t drained;
	bool suspects = false;

	/* The first read-side section registers the thread, which allocates. */
	hgm_rcu_read_lock();
	hgm_rcu_read_unlock();
	hgm_events_reader_begins();
	fds[0] = (struct pollfd){ .fd = e->kick_fd, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = hgm_uffd_fd(h->alias_uffd), .events = POLLIN };
	while (look(h, &w)) {
		for (unsigned int i = 0; i < w.count; i++)
			fds[2 + i] =
				(struct pollfd){ .fd = hgm_uffd_fd(w.uffd[i]), .events = POLLIN };
		hgm_sys->poll(fds, 2 + w.count, patience(&again, suspects));
		if (fds[0].revents)
			hgm_sys->read(e->kick_fd, &drained, sizeof(drained));
		hgm_alias_retry(h, &again);
		hgm_alias_read(h, &again);
		for (unsigned int i = 0; i < w.count; i++)
			read_events(h, w.uffd[i]);
		suspects = age_suspects(h);
	}
	return NULL;
}

int hgm_events_init(struct hgm *h)
{
	struct hgm_events *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	pthread_mutex_init(&e->lock, NULL);
	pthread_mutex_init(&e->ending_lock, NULL);
	hgm_cond_init(&e->cond);
	e->kick_fd = -1;
	h->events = e;
	return 0;
}

int hgm_events_start(struct hgm *h, const struct hgm_uffd_opts *opts)
{
	struct hgm_events *e = h->events;
	struct hgm_uffd_opts o = {
		.size = sizeof(o),
		.optional = HGM_UFFD_FEATURE_MISSING_HUGETLBFS | HGM_UFFD_FEATURE_MISSING_SHMEM |
			    HGM_UFFD_FEATURE_EXACT_ADDRESS,
		.flags = opts->flags,
	};
	int rc;

	e->kick_fd = hgm_sys->eventfd();
	if (e->kick_fd < 0)
		return hgm_fail(e->kick_fd, "hgm_create: eventfd: %s; " HGM_FD_HINT,
				hgm_errno_name(e->kick_fd));
	rc = hgm_uffd_open(&h->alias_uffd, &o);
	if (!rc)
		rc = hgm_thread_start(&e->thread, "hgm-events", 0, events_thread, h);
	e->started = !rc;
	return rc;
}

void hgm_events_stop(struct hgm *h)
{
	struct hgm_events *e = h->events;

	if (!e || !e->started)
		return;
	pthread_mutex_lock(&e->lock);
	e->stop = true;
	pthread_mutex_unlock(&e->lock);
	kick(e);
	pthread_join(e->thread, NULL);
	e->started = false;
}

void hgm_events_destroy(struct hgm *h)
{
	struct hgm_events *e = h->events;

	hgm_uffd_close(h->alias_uffd);
	if (!e)
		return;
	if (e->kick_fd >= 0)
		hgm_sys->close(e->kick_fd);
	pthread_mutex_destroy(&e->lock);
	pthread_mutex_destroy(&e->ending_lock);
	pthread_cond_destroy(&e->cond);
	free(e);
	h->events = NULL;
}

void hgm_events_give_faults(struct hgm *h)
{
	struct hgm_events *e = h->events;

	pthread_mutex_lock(&e->lock);
	e->faults_taken = true;
	kick(e);
	while (!e->gave_faults)
		pthread_cond_wait(&e->cond, &e->lock);
	pthread_mutex_unlock(&e->lock);
}

void hgm_events_take_faults(struct hgm *h)
{
	pthread_mutex_lock(&h->events->lock);
	h->events->faults_taken = false;
	pthread_mutex_unlock(&h->events->lock);
	kick(h->events);
}

/* Wait for the next round. The round under way may have begun before this call. */
static void next_round(struct hgm_events *e)
{
	uint64_t round = e->round;

	kick(e);
	while (e->round == round)
		pthread_cond_wait(&e->cond, &e->lock);
}

void hgm_events_settle(struct hgm *h, struct hgm_space *space)
{
	pthread_mutex_lock(&h->events->lock);
	next_round(h->events);
	pthread_mutex_unlock(&h->events->lock);
	for (unsigned int i = 0; i < space->stripes; i++)
		hgm_reads_wait(&space->reads[i]);
}

int hgm_events_add(struct hgm *h, struct hgm_uffd *u)
{
	struct hgm_events *e = h->events;
	int rc = -ENOSPC;

	pthread_mutex_lock(&e->lock);
	for (unsigned int i = 0; rc && i < HGM_EVENTS_EXTRA_MAX; i++) {
		if (e->extra[i])
			continue;
		e->extra[i] = u;
		rc = 0;
	}
	pthread_mutex_unlock(&e->lock);
	if (rc)
		return hgm_fail(rc,
				"at most %d regions can have a userfaultfd of their own for events",
				HGM_EVENTS_EXTRA_MAX);
	kick(e);
	return 0;
}

void hgm_events_remove(struct hgm *h, struct hgm_uffd *u)
{
	struct hgm_events *e = h->events;

	pthread_mutex_lock(&e->lock);
	for (unsigned int i = 0; i < HGM_EVENTS_EXTRA_MAX; i++)
		if (e->extra[i] == u)
			e->extra[i] = NULL;
	next_round(e);
	pthread_mutex_unlock(&e->lock);
}
