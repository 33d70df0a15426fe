/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parked faults: those that could not be served in their turn (EAGAIN, no slot, no memory). A fault
 * thread keeps them and tries them again.
 */
#include <errno.h>
#include <sys/mman.h>

#include "fault.h"
#include "kernel/sys.h"
#include "park.h"
#include "region/hgm.h"
#include "request.h"
#include "serve.h"
#include "util/clock.h"

#define PARKED_MAX  65536 /* costs only address space until so many are parked */
#define PARK_MIN_NS 30000
#define PARK_MAX_NS 5000000

static void wake_page(struct hgm_server *s, uint64_t addr)
{
	hgm_sys->uffd_wake(hgm_uffd_fd(s->uffd), (void *)(uintptr_t)(addr & ~(HGM_PAGE_BYTES - 1)),
			   HGM_PAGE_BYTES);
}

void hgm_park(struct hgm_server *s, uint64_t addr, uint64_t flags, uint64_t now,
	      uint64_t backoff_ns)
{
	if (backoff_ns < PARK_MIN_NS)
		backoff_ns = PARK_MIN_NS;
	if (backoff_ns > PARK_MAX_NS)
		backoff_ns = PARK_MAX_NS;
	if (s->parked_count == s->parked_max) {
		/*
		 * The kernel can keep it instead: a waiter that is woken faults again and causes a
		 * new message.
		 */
		wake_page(s, addr);
		return;
	}
	s->parked[s->parked_count++] = (struct hgm_parked){
		.addr = addr,
		.flags = (uint32_t)flags,
		.starved = hgm_requests_full(s->h->requests),
		.due_ns = now + backoff_ns,
		.backoff_ns = backoff_ns,
	};
	if (now + backoff_ns < s->parked_due_ns)
		s->parked_due_ns = now + backoff_ns;
}

/* Serve a parked fault that is due and has been removed from the list. */
static void serve_again(struct hgm_server *s, const struct hgm_parked *p, uint64_t now)
{
	struct hgm_fault f = { .space = s->self->space,
			       .addr = p->addr,
			       .flags = p->flags,
			       .stripe = s->self->stripe };
	int rc = hgm_serve(s->h, &f);

	if (rc == -ENOENT && p->backoff_ns == PARK_MAX_NS)
		wake_page(s, p->addr); /* a thread that still waits faults again */
	else if (rc)
		hgm_park(s, p->addr, p->flags, now, p->backoff_ns * 2);
}

int64_t hgm_park_serve(struct hgm_server *s)
{
	uint64_t now;

	if (!s->parked_count)
		return -1;
	now = hgm_now_ns();
	if (now < s->parked_due_ns)
		return (int64_t)(s->parked_due_ns - now);
	s->parked_due_ns = UINT64_MAX;
	for (unsigned int i = 0; i < s->parked_count;) {
		struct hgm_parked p = s->parked[i];

		if (p.due_ns <= now && p.starved && hgm_requests_full(s->h->requests))
			p.due_ns = s->parked[i].due_ns = now + PARK_MAX_NS;
		if (p.due_ns <= now) {
			s->parked[i] = s->parked[--s->parked_count];
			serve_again(s, &p, now);
			continue;
		}
		s->parked_due_ns = p.due_ns < s->parked_due_ns ? p.due_ns : s->parked_due_ns;
		i++;
	}
	if (!s->parked_count)
		return -1;
	return s->parked_due_ns > now ? (int64_t)(s->parked_due_ns - now) : 0;
}

void hgm_park_init(struct hgm_server *s)
{
	void *mem;

	s->parked_due_ns = UINT64_MAX;
	s->parked = s->few;
	s->parked_max = HGM_PARKED_FEW;
	if (hgm_sys->mmap(&mem, NULL, PARKED_MAX * sizeof(s->parked[0]), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | HGM_MAP_UNLOCKED, -1, 0))
		return;
	s->parked = mem;
	s->parked_max = PARKED_MAX;
}

void hgm_park_destroy(struct hgm_server *s)
{
	if (s->parked != s->few)
		hgm_sys->munmap(s->parked, PARKED_MAX * sizeof(s->parked[0]));
}
