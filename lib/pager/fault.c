/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fault threads. Each reads the messages of its own userfaultfd and serves them inline.
 *
 * A thread that reads messages takes no lock that any thread holds across an ioctl, allocates
 * nothing, and touches no primary. So nothing that it waits for can wait for it.
 *
 * Waking a halted CPU costs more than serving a fault. So after a fault the thread polls for a
 * while before it sleeps. A fault that comes soon after the last one sets this time to its maximum.
 * A fault that comes later halves it, down to 0. So an idle engine sleeps, and an engine with long
 * pauses between its faults does not spin.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "events.h"
#include "install/discard.h"
#include "kernel/sys.h"
#include "pager.h"
#include "park.h"
#include "region/hgm.h"
#include "serve.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/thread.h"
#include "util/trace.h"

#define READ_BATCH	32
#define READS_PER_YIELD 2
#define TOGETHER_MIN	4	 /* messages of one read; fewer are woken sooner one by one */
#define DEFER_MAX_NS	100000	 /* longest delay of a deferred wake; a halted CPU wakes in 40 us */
#define ALONE_NS	10000000 /* defer no wake for this long after pages were left to others */
#define LOWEST		UINT64_C(0x10000) /* address that can be mapped (vm.mmap_min_addr) */
#define LOOK_NS		1000000000 /* how often to look whether another process's memory is gone */
#define SPIN_FLOOR_NS	4000	   /* below this, spinning is not worth its start */

/* Sort by address. Adjacent pages are requested together, and one wake covers adjacent pages. */
static void sort(struct hgm_uffd_event *ev, unsigned int n)
{
	for (unsigned int i = 1; i < n; i++) {
		struct hgm_uffd_event e = ev[i];
		unsigned int at = i;

		for (; at && ev[at - 1].addr > e.addr; at--)
			ev[at] = ev[at - 1];
		ev[at] = e;
	}
}

static uint64_t page_of(const struct hgm_uffd_event *ev)
{
	return ev->addr >> HGM_PAGE_SHIFT;
}

/* Number of consecutive pages, from that of the first event on, that threads wait for. */
static uint64_t waiting_pages(const struct hgm_uffd_event *ev, unsigned int n)
{
	uint64_t pages = 1;

	for (unsigned int i = 1; i < n && page_of(&ev[i]) <= page_of(ev) + pages; i++)
		pages = page_of(&ev[i]) - page_of(ev) + 1;
	return pages;
}

static void wake_deferred(struct hgm_server *s)
{
	if (!s->wake_to)
		return;
	HGM_TRACE2(wake, s->wake_from, s->wake_to - s->wake_from);
	hgm_sys->uffd_wake(hgm_uffd_fd(s->uffd), (void *)(uintptr_t)s->wake_from,
			   s->wake_to - s->wake_from);
	s->wake_to = 0;
}

/*
 * Defer the wake of the pages that a fault was served with. Do the deferred wake now if the next
 * fault could delay it beyond DEFER_MAX_NS: the next fault may take as long as the last one. Return
 * true if waiters were woken, which takes a while.
 */
static bool defer_wake(struct hgm_server *s, const struct hgm_fault *f, uint64_t before,
		       uint64_t now)
{
	uint64_t from = f->addr & ~(HGM_PAGE_BYTES - 1);
	uint64_t to = from + (f->deferred_pages << HGM_PAGE_SHIFT);

	if (f->left_to_others)
		s->together_from_ns = now + ALONE_NS;
	if (f->deferred_pages) {
		if (!s->wake_to)
			s->wake_since_ns = now;
		if (!s->wake_to || from < s->wake_from)
			s->wake_from = from;
		s->wake_to = to > s->wake_to ? to : s->wake_to;
	}
	if (!s->wake_to || now + (now - before) <= s->wake_since_ns + DEFER_MAX_NS)
		return false;
	wake_deferred(s);
	return true;
}

static void serve_batch(struct hgm_server *s, struct hgm_uffd_event *ev, unsigned int n,
			uint64_t read_ns, bool together)
{
	uint64_t now = read_ns, served_to = 0, waited_to = 0;
	struct hgm *h = s->h;

	hgm_stat_add(&h->stats, HGM_STAT_FAULT_BATCHES, 1);
	hgm_stat_add(&h->stats, HGM_STAT_FAULTS, n);
	sort(ev, n);
	for (unsigned int i = 0; i < n; i++) {
		struct hgm_fault f = {
			.space = s->self->space,
			.addr = ev[i].addr,
			.flags = ev[i].flags,
			.stripe = s->self->stripe,
			.wake_later = together,
			.now_ns = now,
		};
		uint64_t before = now;

		HGM_TRACE2(fault, ev[i].addr, ev[i].flags);
		hgm_stat_phase(&h->stats, HGM_PHASE_QUEUED, now - read_ns);
		if (page_of(&ev[i]) < served_to && !(f.flags & HGM_UFFD_FAULT_WP)) {
			/* Another waiter, or a page that was read ahead */
			if (page_of(&ev[i]) == page_of(&ev[i - 1]) || page_of(&ev[i]) >= waited_to)
				hgm_stat_add(&h->stats, HGM_STAT_FAULTS_CLAIMED, 1);
			continue;
		}
		f.waiting_pages = waiting_pages(ev + i, n - i);
		waited_to = page_of(&ev[i]) + f.waiting_pages;
		if (hgm_serve(h, &f))
			hgm_park(s, f.addr, f.flags, now, 0);
		else if (!(f.flags & HGM_UFFD_FAULT_WP)) /* a write fault maps nothing */
			served_to = page_of(&ev[i]) + f.served_pages;
		if (together || i + 1 < n)
			now = f.ended_ns ? f.ended_ns : hgm_now_ns();
		if (together && defer_wake(s, &f, before, now))
			now = hgm_now_ns();
	}
}

/*
 * Waking costs more than mapping, and one UFFDIO_WAKE for many pages costs much less than one for
 * each. So if several threads wait, defer their wakes, serve the faults that arrive in the
 * meantime, too, and then wake all threads by one call from the first page to the last. This call
 * also wakes threads that wait for pages in that range that have not arrived; they fault again. So
 * do not defer wakes while pages are on their way from a source that answers later.
 */
static void serve_events(struct hgm_server *s, struct hgm_uffd_event *ev, unsigned int n,
			 uint64_t read_ns)
{
	bool together = n >= TOGETHER_MIN && read_ns >= s->together_from_ns;
	unsigned int served = 0;
	int more = (int)n;

	while (more > 0) {
		serve_batch(s, ev, (unsigned int)more, read_ns, together);
		served += (unsigned int)more;
		if (!together || served == READ_BATCH)
			break;
		more = hgm_fault_read_batch(s, ev, READ_BATCH - served);
		read_ns = hgm_now_ns();
	}
	wake_deferred(s);
}

/* Poll for messages for a while. Returns what hgm_uffd_read() did. */
static int spin(struct hgm_server *s, struct hgm_uffd_event *ev, int64_t parked_ns)
{
	uint64_t start = hgm_now_ns();
	uint64_t end = start + s->spin_ns;
	unsigned int reads = 0;
	int n;

	if (parked_ns >= 0 && start + (uint64_t)parked_ns < end)
		end = start + (uint64_t)parked_ns;
	do {
		n = hgm_fault_read_batch(s, ev, READ_BATCH);
		if (n != -EAGAIN ||
		    atomic_load_explicit(&s->h->gate.stopping, memory_order_relaxed))
			return n;
		/* A thread that was woken here, or one that copies, may wait for this CPU. */
		if (++reads % READS_PER_YIELD == 0 ||
		    atomic_load_explicit(&s->reads->events_first, memory_order_relaxed))
			sched_yield();
	} while (hgm_now_ns() < end);
	return -EAGAIN;
}

static void sleep_until_message(struct hgm_server *s, int64_t parked_ns)
{
	struct hgm_space *space = s->self->space;
	struct pollfd fds[4] = {
		{ .fd = hgm_uffd_fd(s->uffd), .events = POLLIN },
		{ .fd = s->h->stop_fd, .events = POLLIN },
		{ .fd = space->stop_fd, .events = POLLIN },
		{ .fd = space->pidfd, .events = POLLIN },
	};

	if (atomic_load_explicit(&s->reads->events_first, memory_order_relaxed)) {
		if (hgm_fault_has_messages(s)) {
			sched_yield(); /* perhaps to a thread that copies */
			return;
		}
		/* There is nothing to read any more: keep no thread from copying while we sleep. */
		atomic_store_explicit(&s->reads->events_first, false, memory_order_relaxed);
	}
	hgm_stat_add(&s->h->stats, HGM_STAT_SLEEPS, 1);
	if (!space->foreign) {
		hgm_sys->poll(fds, 2, parked_ns);
		return;
	}
	if (parked_ns < 0 || parked_ns > LOOK_NS)
		parked_ns = LOOK_NS;
	/* Exit is reported. That the process runs another program is not. */
	if (!hgm_sys->poll(fds, 4, parked_ns) ? hgm_space_is_gone(space) : fds[3].revents)
		atomic_store_explicit(&space->vanished, true, memory_order_release);
}

/* Must the thread end? The memory of a process that is gone is lost. */
static bool is_ending(const struct hgm_server *s)
{
	struct hgm_space *space = s->self->space;

	if (atomic_load_explicit(&s->h->gate.stopping, memory_order_acquire))
		return true;
	if (!space->foreign)
		return false;
	if (atomic_load_explicit(&space->vanished, memory_order_acquire)) {
		hgm_space_lost(s->h, space);
		return true;
	}
	return atomic_load_explicit(&space->ending, memory_order_acquire);
}

/*
 * Until there is a region, read nothing: threads that drop memory wait, and what they drop is
 * noticed.
 */
static void await_region(struct hgm_server *s)
{
	struct hgm_space *space = s->self->space;
	struct pollfd fds[3] = {
		{ .fd = s->h->stop_fd, .events = POLLIN },
		{ .fd = space->stop_fd, .events = POLLIN },
		{ .fd = space->pidfd, .events = POLLIN },
	};
	uint64_t drained;

	while (!is_ending(s) && !atomic_load_explicit(&space->served, memory_order_acquire)) {
		if (!hgm_sys->poll(fds, 3, LOOK_NS) ? hgm_space_is_gone(space) : fds[2].revents)
			atomic_store_explicit(&space->vanished, true, memory_order_release);
	}
	hgm_sys->read(space->stop_fd, &drained, sizeof(drained));
}

static void adapt(struct hgm_server *s, uint64_t gap_ns)
{
	uint64_t bound_ns = UINT64_C(1000) * s->h->opts.spin_us;

	if (gap_ns <= bound_ns)
		s->spin_ns = bound_ns;
	else if (s->spin_ns > SPIN_FLOOR_NS)
		s->spin_ns /= 2;
	else
		s->spin_ns = 0;
}

static void *fault_thread(void *arg)
{
	struct hgm_fault_thread *self = arg;
	struct hgm_server s = { .h = self->h,
				.uffd = self->space->uffd[self->stripe],
				.self = self,
				.reads = &self->space->reads[self->stripe] };
	struct hgm_uffd_event ev[READ_BATCH];
	uint64_t last_ns = 0;

	if (!hgm_thread_may_begin(&s.h->gate))
		return NULL;
	hgm_thread_shorten_slice();
	hgm_park_init(&s);
	if (!self->space->foreign)
		hgm_stat_own(&s.h->stats, self->stripe);
	hgm_events_reader_begins();
	if (self->space->foreign)
		await_region(&s);
	while (!is_ending(&s)) {
		int64_t parked_ns = hgm_park_serve(&s);
		int n = s.spin_ns ? spin(&s, ev, parked_ns)
				  : hgm_fault_read_batch(&s, ev, READ_BATCH);

		if (n > 0) {
			uint64_t now = hgm_now_ns();

			adapt(&s, now - last_ns);
			serve_events(&s, ev, (unsigned int)n, now);
			last_ns = hgm_now_ns();
			continue;
		}
		if (parked_ns)
			sleep_until_message(&s, parked_ns);
	}
	atomic_store_explicit(&s.reads->events_first, false, memory_order_relaxed);
	hgm_park_destroy(&s);
	return NULL;
}

/* State for a thread for each userfaultfd of an address space; NULL: out of memory. */
static struct hgm_fault_thread *make(struct hgm *h, struct hgm_space *space)
{
	size_t bytes = space->stripes * sizeof(struct hgm_fault_thread);
	struct hgm_fault_thread *f = aligned_alloc(_Alignof(struct hgm_fault_thread), bytes);
	char path[40];

	if (!f)
		return NULL;
	memset(f, 0, bytes);
	for (unsigned int i = 0; i < space->stripes; i++) {
		f[i].h = h;
		f[i].space = space;
		f[i].stripe = i;
		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", hgm_uffd_fd(space->uffd[i]));
		f[i].fdinfo = hgm_sys->open(path, O_RDONLY);
	}
	return f;
}

static void dispose(struct hgm_fault_thread *f)
{
	for (unsigned int i = 0; f && i < f->space->stripes; i++)
		if (f[i].fdinfo >= 0)
			hgm_sys->close(f[i].fdinfo);
	free(f);
}

int hgm_faults_init(struct hgm *h)
{
	h->fault = make(h, &h->space);
	return h->fault ? 0 : hgm_fail(-ENOMEM, "hgm_create: out of memory");
}

void hgm_faults_destroy(struct hgm *h)
{
	dispose(h->fault);
}

int hgm_faults_serve(struct hgm_fault_thread **out, struct hgm *h, struct hgm_space *space)
{
	struct hgm_fault_thread *f = make(h, space);
	int rc;

	if (!f)
		return hgm_fail(-ENOMEM, "hgm_peer_create: out of memory");
	rc = hgm_thread_start(&f->thread, "hgm-peer", (unsigned int)space->pid, fault_thread, f);
	if (rc)
		dispose(f);
	else
		*out = f;
	return rc;
}

/*
 * Faults that were read, and not served, must be seen by the next handler: the threads fault again.
 * The kernel refuses ranges beyond the end of the address space, which depends on the machine.
 */
static void wake_everybody(const struct hgm_fault_thread *f)
{
	int fd = hgm_uffd_fd(f->space->uffd[0]), rc = -EINVAL;

	for (unsigned int bits = 57; rc == -EINVAL && bits >= 32; bits--)
		rc = hgm_sys->uffd_wake(fd, (void *)LOWEST,
					(UINT64_C(1) << bits) - LOWEST - HGM_PAGE_BYTES);
}

void hgm_faults_serve_no_more(struct hgm_fault_thread *f)
{
	uint64_t one = 1;

	if (!f)
		return;
	atomic_store_explicit(&f->space->ending, true, memory_order_release);
	hgm_sys->write(f->space->stop_fd, &one, sizeof(one));
	pthread_join(f->thread, NULL);
	wake_everybody(f);
	dispose(f);
}

int hgm_faults_start(struct hgm *h)
{
	int rc = 0;

	for (unsigned int i = 0; !rc && i < h->space.stripes; i++) {
		struct hgm_fault_thread *f = &h->fault[i];

		rc = hgm_thread_start(&f->thread, "hgm-fault", i, fault_thread, f);
		f->started = !rc;
	}
	return rc;
}

void hgm_faults_join(struct hgm *h)
{
	for (unsigned int i = 0; i < h->space.stripes; i++) {
		if (h->fault[i].started)
			pthread_join(h->fault[i].thread, NULL);
		h->fault[i].started = false;
	}
}
