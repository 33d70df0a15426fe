/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading the messages of a userfaultfd: how many, and in which order to threads that copy pages.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "fault.h"
#include "kernel/sys.h"
#include "park.h"
#include "region/hgm.h"
#include "util/clock.h"

bool hgm_fault_has_messages(const struct hgm_server *s)
{
	struct pollfd fd = { .fd = hgm_uffd_fd(s->uffd), .events = POLLIN };

	if (hgm_sys->poll(&fd, 1, 0) <= 0)
		return false;
	/*
	 * O_NONBLOCK belongs to all who have the userfaultfd, and another process may clear it. The
	 * kernel then reports an error instead of messages, and a read would block.
	 */
	if (fd.revents & POLLERR && s->self->space->foreign)
		hgm_sys->set_nonblock(fd.fd);
	return !(fd.revents & POLLERR);
}

/* Number of pending faults, or -1 if unknown. */
static int pending_faults(const struct hgm_server *s)
{
	static const char name[] = "pending:";
	char text[32];
	ssize_t n = hgm_sys->pread(s->self->fdinfo, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return -1;
	text[n] = 0;
	return strncmp(text, name, sizeof(name) - 1) ? -1 : atoi(text + sizeof(name) - 1);
}

/*
 * Return how many messages may be read now.
 *
 * The kernel drops memory as soon as the event has been read, before this thread can know of it. So
 * read nothing while an event is pending and another thread copies in pages that it has found not
 * to be discarded. No fault could be answered then anyway. If no event is pending, read as many
 * messages as faults are pending, because the kernel delivers faults first. A race remains: a fault
 * may be woken and an event raised between this check and the read. The read then returns the event
 * in place of the fault; see hgm_reads_wait_marks().
 */
static unsigned int may_read(struct hgm_server *s, unsigned int max)
{
	bool something = hgm_fault_has_messages(s);
	bool event = something && hgm_uffd_changing(s->uffd);
	int faults;

	atomic_store_explicit(&s->reads->events_first, event, memory_order_seq_cst);
	if (event || !something)
		return 0;
	faults = pending_faults(s);
	if (!faults) /* an event came since, or the kernel does not report it */
		atomic_store_explicit(&s->reads->events_first, true, memory_order_seq_cst);
	if (faults < 0)
		return max; /* no /proc: the race window is longer */
	return (unsigned int)faults < max ? (unsigned int)faults : max;
}

/*
 * A page that was copied in after it was dropped must be dropped again, which only the process
 * itself can do. So in the memory of another process read nothing, not even faults, while another
 * thread copies. New ones do not begin, because this thread is reading.
 */
static unsigned int read_alone(struct hgm_server *s, unsigned int max)
{
	if (!hgm_fault_has_messages(s))
		return 0;
	/* No holder waits for this thread. seq_cst: see hgm_fault_read_batch() */
	while (atomic_load_explicit(&s->reads->holders, memory_order_seq_cst))
		sched_yield();
	return max;
}

int hgm_fault_read_batch(struct hgm_server *s, struct hgm_uffd_event *ev, unsigned int max)
{
	struct hgm_reads *self = s->reads;
	uint32_t count = atomic_load_explicit(&self->reads, memory_order_relaxed);
	uint64_t read_ns = hgm_stamp_ns();
	int n = -EAGAIN, faults = 0;

	/* seq_cst: this thread sees the one that copies, or is seen by it (hgm_reads_hold()). */
	atomic_store_explicit(&self->reads, count + 1, memory_order_seq_cst);
	if (s->self->space->foreign)
		max = read_alone(s, max);
	else if (atomic_load_explicit(&self->holders, memory_order_seq_cst))
		max = may_read(s, max);
	else if (atomic_load_explicit(&self->events_first, memory_order_relaxed))
		atomic_store_explicit(&self->events_first, false, memory_order_relaxed);
	if (max)
		n = hgm_uffd_read(s->uffd, ev, max);
	for (int i = 0; i < n; i++)
		if (ev[i].type != HGM_UFFD_EVENT_PAGEFAULT)
			hgm_event_mark(s->h, s->self->space, &ev[i], read_ns);
	atomic_store_explicit(&self->marks, count + 2, memory_order_release);
	for (int i = 0; i < n; i++) {
		if (ev[i].type == HGM_UFFD_EVENT_PAGEFAULT)
			ev[faults++] = ev[i];
		else
			hgm_event(s->h, s->self->space, &ev[i]);
	}
	atomic_store_explicit(&self->reads, count + 2, memory_order_release);
	return n < 0 ? n : faults;
}
