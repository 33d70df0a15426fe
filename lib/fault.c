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
#include "serve.h"
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
		if (hgm_serve(h, ev[i].addr, ev[i].flags))
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
			int rc = hgm_serve(s->h, p.addr, p.flags);

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
