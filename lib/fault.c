/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fault threads: each reads the messages of its own userfaultfd and serves them inline.
 *
 * A thread that reads messages takes no lock that anybody holds across an ioctl, allocates nothing,
 * and touches no registered memory; so nothing that it waits for can wait for it.
 *
 * Waking a halted CPU costs more than serving a fault. So after a fault the thread polls for a
 * while before it sleeps. The while is halved each time it was in vain, down to nothing, and
 * restored by a fault that comes soon after the last: an idle engine sleeps, and one whose faults
 * are far apart does not spin.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>

#include "clock.h"
#include "engine.h"
#include "resolve.h"
#include "sys.h"
#include "trace.h"

#define READ_BATCH	32
#define PARKED_MAX	256
#define PARK_MIN_NS	30000
#define PARK_MAX_NS	5000000
#define READS_PER_YIELD 8
#define SPIN_FLOOR_NS	4000 /* below this spinning is not worth its start */

/* Faults that could not be served on their turn (EAGAIN, no slot, no memory): tried again later. */
struct parked {
	uint64_t addr;
	uint64_t flags;
	uint64_t due_ns;
	uint64_t backoff_ns;
};

struct server {
	struct hgm *h;
	struct hgm_uffd *uffd;
	uint64_t spin_ns; /* of the moment */
	unsigned int parked_count;
	struct parked parked[PARKED_MAX];
};

static void wake_page(struct server *s, uint64_t addr)
{
	hgm_sys->uffd_wake(hgm_uffd_fd(s->uffd), (void *)(uintptr_t)(addr & ~(HGM_PAGE_BYTES - 1)),
			   HGM_PAGE_BYTES);
}

static void park(struct server *s, uint64_t addr, uint64_t flags, uint64_t now, uint64_t backoff_ns)
{
	if (backoff_ns < PARK_MIN_NS)
		backoff_ns = PARK_MIN_NS;
	if (backoff_ns > PARK_MAX_NS)
		backoff_ns = PARK_MAX_NS;
	if (s->parked_count == PARKED_MAX) {
		/*
		 * The kernel can park it for us: a woken waiter faults again and gets a new
		 * message.
		 */
		wake_page(s, addr);
		return;
	}
	s->parked[s->parked_count++] = (struct parked){
		addr,
		flags,
		now + backoff_ns,
		backoff_ns,
	};
}

/* -EAGAIN: neither a slot nor the page; -EINPROGRESS: the request is on its way. */
static int demand_page(struct hgm_region *r, uint64_t page)
{
	struct hgm_request *req = hgm_request_get(r, true);
	uint64_t mine = 0;

	if (!req)
		return -EAGAIN;
	if (hgm_map_claim(r->map, page / 64, UINT64_C(1) << page % 64, &mine)) {
		hgm_request_put(req);
		return -EAGAIN;
	}
	if (!mine) { /* somebody was faster since we looked: look again */
		hgm_request_put(req);
		return -EEXIST;
	}
	req->first_page = page;
	req->pages = 1;
	/*
	 * The request holds the region now: sources must not be called inside a read-side
	 * section.
	 */
	hgm_rcu_read_unlock();
	hgm_request_run(req, false);
	hgm_rcu_read_lock();
	return -EINPROGRESS;
}

/* Who comes to write need not come twice. */
static int serve_present(struct hgm_region *r, uint64_t page, uint64_t flags)
{
	int in = hgm_guard_enter(r), rc = 0;

	hgm_stat_add(r->h, HGM_STAT_FAULTS_PRESENT, 1);
	if (flags & HGM_UFFD_FAULT_WRITE)
		rc = hgm_guard_write(r, page);
	rc = rc < 0 ? -EAGAIN : hgm_resolve_present(r, page);
	hgm_guard_exit(r, in);
	return rc;
}

static int serve_page(struct hgm_region *r, uint64_t page, uint64_t flags)
{
	struct hgm *h = r->h;
	int rc = -EEXIST;

	while (rc == -EEXIST) {
		switch (hgm_map_state(r->map, page)) {
		case HGM_PAGE_PRESENT:
			return serve_present(r, page, flags);
		case HGM_PAGE_POISONED:
			return hgm_resolve_poisoned(r, page);
		case HGM_PAGE_CLAIMED: /* no-lost-waiter: its owner will wake */
			hgm_stat_add(h, HGM_STAT_FAULTS_CLAIMED, 1);
			return 0;
		case HGM_PAGE_ABSENT:
			rc = demand_page(r, page);
			if (rc == -EINPROGRESS)
				hgm_stat_add(h, HGM_STAT_FAULTS_DEMAND, 1);
			break;
		}
	}
	return rc == -EINPROGRESS ? 0 : rc;
}

static int serve_block(struct hgm_region *r, uint64_t page, uint64_t flags)
{
	uint64_t block = hgm_region_block(r, page);
	struct hgm *h = r->h;

	if (atomic_load_explicit(&r->block_state[block], memory_order_acquire) ==
	    HGM_BLOCK_POISONED)
		return hgm_resolve_poisoned(r, page);
	if (hgm_region_block_present(r, block))
		return serve_present(r, page, flags);
	hgm_stat_add(h, HGM_STAT_FAULTS_DEMAND, 1);
	return hgm_work_urgent(r, block);
}

static int serve_write(struct hgm_region *r, uint64_t page)
{
	uint64_t start = hgm_now_ns();
	int in = hgm_guard_enter(r), rc = hgm_guard_fault(r, page);

	hgm_guard_exit(r, in);
	HGM_TRACE2(protect, hgm_region_at(r, page), rc);
	hgm_stat_add(r->h, rc ? HGM_STAT_WP_PUT_OFF : HGM_STAT_WP_FAULTS, 1);
	if (!rc)
		hgm_stat_phase(r->h, HGM_PHASE_PROTECT, hgm_now_ns() - start);
	return rc;
}

/* 0, or -EAGAIN and the like: to be tried again. */
static int serve(struct hgm *h, uint64_t addr, uint64_t flags)
{
	struct hgm_region *r;
	uint64_t page;
	int rc = 0;

	hgm_rcu_read_lock();
	r = hgm_table_find(atomic_load_explicit(&h->table, memory_order_acquire), addr);
	if (!r || atomic_load_explicit(&r->dying, memory_order_acquire)) {
		/* Being destroyed: its end wakes everybody. */
		hgm_stat_add(h, HGM_STAT_FAULTS_UNKNOWN, 1);
	} else {
		page = (addr - (uintptr_t)r->primary) >> HGM_PAGE_SHIFT;
		rc = flags & HGM_UFFD_FAULT_WP	  ? serve_write(r, page)
		     : hgm_region_whole_blocks(r) ? serve_block(r, page, flags)
						  : serve_page(r, page, flags);
	}
	hgm_rcu_read_unlock();
	return rc;
}

static void serve_events(struct server *s, const struct hgm_uffd_event *ev, unsigned int n,
			 uint64_t read_ns)
{
	struct hgm *h = s->h;
	uint64_t now = read_ns;

	hgm_stat_add(h, HGM_STAT_FAULT_BATCHES, 1);
	hgm_stat_add(h, HGM_STAT_FAULTS, n);
	for (unsigned int i = 0; i < n; i++) {
		/*
		 * No other events are enabled yet; they would be handled here, by this same rule.
		 */
		if (ev[i].type != HGM_UFFD_EVENT_PAGEFAULT)
			continue;
		HGM_TRACE2(fault, ev[i].addr, ev[i].flags);
		hgm_stat_phase(h, HGM_PHASE_QUEUED, now - read_ns);
		if (serve(h, ev[i].addr, ev[i].flags))
			park(s, ev[i].addr, ev[i].flags, now, 0);
		if (i + 1 < n)
			now = hgm_now_ns();
	}
}

/* Serve parked faults that are due; the time until the next one, negative for none. */
static int64_t serve_parked(struct server *s)
{
	uint64_t soonest = UINT64_MAX;
	uint64_t now;

	if (!s->parked_count)
		return -1;
	now = hgm_now_ns();
	for (unsigned int i = 0; i < s->parked_count;) {
		struct parked p = s->parked[i];

		if (p.due_ns <= now) {
			int rc = serve(s->h, p.addr, p.flags);

			s->parked[i] = s->parked[--s->parked_count];
			if (rc == -ENOENT && p.backoff_ns == PARK_MAX_NS)
				wake_page(s, p.addr); /* if anybody waits it faults again */
			else if (rc)
				park(s, p.addr, p.flags, now, p.backoff_ns * 2);
			continue;
		}
		soonest = p.due_ns < soonest ? p.due_ns : soonest;
		i++;
	}
	for (unsigned int i = 0; i < s->parked_count; i++)
		soonest = s->parked[i].due_ns < soonest ? s->parked[i].due_ns : soonest;
	if (!s->parked_count)
		return -1;
	return soonest > now ? (int64_t)(soonest - now) : 0;
}

/* Poll for messages for a while. Returns what hgm_uffd_read() did. */
static int spin(struct server *s, struct hgm_uffd_event *ev, int64_t parked_ns)
{
	uint64_t start = hgm_now_ns();
	uint64_t end = start + s->spin_ns;
	unsigned int reads = 0;
	int n;

	if (parked_ns >= 0 && start + (uint64_t)parked_ns < end)
		end = start + (uint64_t)parked_ns;
	do {
		n = hgm_uffd_read(s->uffd, ev, READ_BATCH);
		if (n != -EAGAIN || atomic_load_explicit(&s->h->stopping, memory_order_relaxed))
			return n;
		/* Whom we woke may wait for this very CPU. */
		if (++reads % READS_PER_YIELD == 0)
			sched_yield();
	} while (hgm_now_ns() < end);
	return -EAGAIN;
}

static void sleep_until_message(struct server *s, int64_t parked_ns)
{
	struct pollfd fds[2] = {
		{ .fd = hgm_uffd_fd(s->uffd), .events = POLLIN },
		{ .fd = s->h->stop_fd, .events = POLLIN },
	};

	hgm_stat_add(s->h, HGM_STAT_SLEEPS, 1);
	hgm_sys->poll(fds, 2, parked_ns);
}

static void adapt(struct server *s, uint64_t gap_ns)
{
	uint64_t bound_ns = UINT64_C(1000) * s->h->opts.spin_us;

	if (gap_ns <= bound_ns)
		s->spin_ns = bound_ns;
	else if (s->spin_ns > SPIN_FLOOR_NS)
		s->spin_ns /= 2;
	else
		s->spin_ns = 0;
}

void *hgm_fault_thread(void *arg)
{
	struct hgm_fault_thread *self = arg;
	struct server s = { .h = self->h, .uffd = self->h->uffd[self->stripe] };
	struct hgm_uffd_event ev[READ_BATCH];
	uint64_t last_ns = 0;

	if (!hgm_thread_may_begin(s.h))
		return NULL;
	while (!atomic_load_explicit(&s.h->stopping, memory_order_acquire)) {
		int64_t parked_ns = serve_parked(&s);
		int n = s.spin_ns ? spin(&s, ev, parked_ns) : hgm_uffd_read(s.uffd, ev, READ_BATCH);

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
	return NULL;
}
