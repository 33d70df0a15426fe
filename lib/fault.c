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
#define READS_PER_YIELD 2
#define TOGETHER_MIN	4	 /* messages of one read; fewer are woken sooner one by one */
#define OWED_MAX_NS	100000	 /* how long waiters wait for others: a halted CPU wakes in 40 us */
#define APART_NS	10000000 /* while a source that did not answer at once may be asked again */
#define SPIN_FLOOR_NS	4000	 /* below this spinning is not worth its start */

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
	uint64_t spin_ns;	   /* of the moment */
	uint64_t owed_from;	   /* [owed_from, owed_to): pages mapped, their waiters not woken */
	uint64_t owed_to;	   /* 0: none */
	uint64_t owed_since_ns;	   /* the first of them */
	uint64_t together_from_ns; /* until then each is woken alone */
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

/* By address: neighbours are asked for together, and what is woken together lies together. */
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

/* How many pages from the first event's on are waited for without a gap. */
static uint64_t waiting_pages(const struct hgm_uffd_event *ev, unsigned int n)
{
	uint64_t pages = 1;

	for (unsigned int i = 1; i < n && page_of(&ev[i]) <= page_of(ev) + pages; i++)
		pages = page_of(&ev[i]) - page_of(ev) + 1;
	return pages;
}

static void wake_owed(struct server *s)
{
	if (!s->owed_to)
		return;
	HGM_TRACE2(wake, s->owed_from, s->owed_to - s->owed_from);
	hgm_sys->uffd_wake(hgm_uffd_fd(s->uffd), (void *)(uintptr_t)s->owed_from,
			   s->owed_to - s->owed_from);
	s->owed_to = 0;
}

/*
 * A batch that takes long is woken piece by piece; the next fault may take as long as the last.
 * True: somebody was woken, which takes a while.
 */
static bool owe(struct server *s, const struct hgm_fault *f, uint64_t before, uint64_t now)
{
	uint64_t from = f->addr & ~(HGM_PAGE_BYTES - 1);
	uint64_t to = from + (f->owed_pages << HGM_PAGE_SHIFT);

	if (f->left_to_others)
		s->together_from_ns = now + APART_NS;
	if (f->owed_pages) {
		if (!s->owed_to)
			s->owed_since_ns = now;
		if (!s->owed_to || from < s->owed_from)
			s->owed_from = from;
		s->owed_to = to > s->owed_to ? to : s->owed_to;
	}
	if (!s->owed_to || now + (now - before) <= s->owed_since_ns + OWED_MAX_NS)
		return false;
	wake_owed(s);
	return true;
}

static void serve_batch(struct server *s, struct hgm_uffd_event *ev, unsigned int n,
			uint64_t read_ns, bool together)
{
	uint64_t now = read_ns, served_to = 0;
	struct hgm *h = s->h;

	hgm_stat_add(h, HGM_STAT_FAULT_BATCHES, 1);
	hgm_stat_add(h, HGM_STAT_FAULTS, n);
	sort(ev, n);
	for (unsigned int i = 0; i < n; i++) {
		struct hgm_fault f = {
			.addr = ev[i].addr,
			.flags = ev[i].flags,
			.wake_later = together,
			.now_ns = now,
		};
		uint64_t before = now;

		/*
		 * No other events are enabled yet; they would be handled here, by this same rule.
		 */
		if (ev[i].type != HGM_UFFD_EVENT_PAGEFAULT)
			continue;
		HGM_TRACE2(fault, ev[i].addr, ev[i].flags);
		hgm_stat_phase(h, HGM_PHASE_QUEUED, now - read_ns);
		if (page_of(&ev[i]) < served_to && !(f.flags & HGM_UFFD_FAULT_WP)) {
			if (page_of(&ev[i]) == page_of(&ev[i - 1])) /* another who waits for it */
				hgm_stat_add(h, HGM_STAT_FAULTS_CLAIMED, 1);
			continue;
		}
		f.waiting_pages = waiting_pages(ev + i, n - i);
		if (hgm_serve(h, &f))
			park(s, f.addr, f.flags, now, 0);
		else if (!(f.flags & HGM_UFFD_FAULT_WP)) /* a write let go maps nothing */
			served_to = page_of(&ev[i]) + f.served_pages;
		if (together || i + 1 < n)
			now = f.ended_ns ? f.ended_ns : hgm_now_ns();
		if (together && owe(s, &f, before, now))
			now = hgm_now_ns();
	}
}

/*
 * Waking costs more than mapping, and one UFFDIO_WAKE for many less than one for each. So where
 * several wait, those who come meanwhile are served too before all are woken, by one call from the
 * first page to the last. Who waits for a page in between that has not come is woken in vain: so
 * not while pages are on their way from a source that answers later.
 */
static void serve_events(struct server *s, struct hgm_uffd_event *ev, unsigned int n,
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
		more = hgm_uffd_read(s->uffd, ev, READ_BATCH - served);
		read_ns = hgm_now_ns();
	}
	wake_owed(s);
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
			struct hgm_fault f = { .addr = p.addr, .flags = p.flags };
			int rc = hgm_serve(s->h, &f);

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
	hgm_stat_own(s.h, self->stripe);
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
