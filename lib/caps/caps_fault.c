/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Probes that need a thread that faults. The thread touches one byte. Whatever happens, the
 * registration then ends, which lets the thread continue, and the thread is joined.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "caps.h"
#include "util/error.h"

/* Longer than any scheduler keeps a runnable thread from running. */
#define TOUCH_TIMEOUT_NS INT64_C(2000000000)

/* Not the first byte of a page, so that an address rounded by the kernel is noticed. */
#define TOUCH_OFFSET 0x123

struct toucher {
	volatile char *addr;
	bool write;
	int done_fd;
	uint32_t tid;
};

static void *toucher_main(void *arg)
{
	struct toucher *t = arg;
	uint64_t one = 1;

	__atomic_store_n(&t->tid, (uint32_t)gettid(), __ATOMIC_RELEASE);
	if (t->write)
		*t->addr = 1;
	else
		(void)*t->addr;
	hgm_sys->write(t->done_fd, &one, sizeof(one));
	return NULL;
}

static int start_toucher(pthread_t *thread, struct toucher *t)
{
	sigset_t all;
	sigset_t old;
	int rc;

	/* This thread must not handle the program's signals. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(thread, NULL, toucher_main, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -rc;
}

enum hgm_came hgm_probe_touch(struct hgm_probe *p, struct hgm_scratch *s, bool write,
			      struct uffd_msg *msg, uint32_t *tid)
{
	struct toucher t = { .addr = s->primary + TOUCH_OFFSET, .write = write };
	enum hgm_came came = HGM_CAME_NONE;
	struct pollfd fds[2];
	pthread_t thread;
	ssize_t n;
	int rc;

	t.done_fd = hgm_sys->eventfd();
	if (t.done_fd < 0) {
		hgm_probe_answer_errno(p, t.done_fd, "eventfd");
		return HGM_CAME_NONE;
	}
	rc = start_toucher(&thread, &t);
	if (rc) {
		hgm_probe_answer(p, HGM_UNPROVEN, "starting a thread to cause a fault: %s",
				 hgm_errno_name(rc));
		hgm_sys->close(t.done_fd);
		return HGM_CAME_NONE;
	}

	fds[0] = (struct pollfd){ .fd = s->uffd, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = t.done_fd, .events = POLLIN };
	do
		rc = hgm_sys->poll(fds, 2, TOUCH_TIMEOUT_NS);
	while (rc == -EINTR);

	if (rc < 0) {
		hgm_probe_answer_errno(p, rc, "poll for the fault");
	} else if (rc == 0) {
		hgm_probe_answer(p, HGM_UNPROVEN,
				 "no message about the fault arrived within %" PRId64 " s",
				 TOUCH_TIMEOUT_NS / 1000000000);
	} else if (fds[0].revents & POLLIN) {
		n = hgm_sys->read(s->uffd, msg, sizeof(*msg));
		if (n == sizeof(*msg) && msg->event == UFFD_EVENT_PAGEFAULT)
			came = HGM_CAME_FAULT;
		else
			hgm_probe_answer(p, HGM_UNPROVEN, "reading the message about the fault: %s",
					 n < 0 ? hgm_errno_name((int)n) : "not a fault message");
	} else {
		came = HGM_CAME_DONE;
	}

	hgm_scratch_unregister(s);
	pthread_join(thread, NULL);
	hgm_sys->close(t.done_fd);
	*tid = t.tid;
	return came;
}

/* A read fault on absent memory, with the row's feature enabled. */
static bool fault(struct hgm_probe *p, const struct hgm_probe_row *row, struct hgm_scratch *s,
		  struct uffd_msg *msg, uint32_t *tid)
{
	enum hgm_came came;

	if (!hgm_scratch_open(p, s, row->memory) ||
	    !hgm_scratch_register(p, s, row->feature, HGM_UFFD_MISSING))
		return false;
	came = hgm_probe_touch(p, s, false, msg, tid);
	if (came == HGM_CAME_DONE)
		hgm_probe_answer(p, HGM_NO, "touching absent memory produced no message");
	return came == HGM_CAME_FAULT;
}

void hgm_probe_exact_address(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct uffd_msg msg = { 0 };
	struct hgm_scratch s;
	uint64_t offset;
	uint32_t tid;

	if (fault(p, row, &s, &msg, &tid)) {
		offset = msg.arg.pagefault.address - (uintptr_t)s.primary;
		if (offset == TOUCH_OFFSET)
			hgm_probe_answer(p, HGM_YES,
					 "a fault at byte %#x of a page was reported at that byte",
					 TOUCH_OFFSET);
		else
			hgm_probe_answer(p, HGM_NO,
					 "a fault at byte %#x of a page was reported at %#" PRIx64,
					 TOUCH_OFFSET, offset);
	}
	hgm_scratch_close(&s);
}

void hgm_probe_thread_id(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct uffd_msg msg = { 0 };
	struct hgm_scratch s;
	uint32_t tid;

	if (fault(p, row, &s, &msg, &tid)) {
		if (msg.arg.pagefault.feat.ptid == tid)
			hgm_probe_answer(p, HGM_YES, "the message about a fault named the thread");
		else
			hgm_probe_answer(p, HGM_NO, "thread %u faulted, but the message names %u",
					 tid, msg.arg.pagefault.feat.ptid);
	}
	hgm_scratch_close(&s);
}

/* With WP_ASYNC, a write to a write-protected page succeeds without a message. */
void hgm_probe_wp_async(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct uffd_msg msg = { 0 };
	struct hgm_scratch s;
	uint32_t tid;
	int rc;

	if (!hgm_scratch_open(p, &s, row->memory) ||
	    !hgm_scratch_populate(p, &s, s.primary, p->page) ||
	    !hgm_scratch_register(p, &s, row->feature, HGM_UFFD_WP))
		goto close;
	rc = hgm_sys->uffd_writeprotect(s.uffd, s.primary, p->page, HGM_UFFD_WP_PROTECT);
	if (rc) {
		hgm_probe_answer_errno(p, rc, "UFFDIO_WRITEPROTECT with WP_ASYNC");
		goto close;
	}
	switch (hgm_probe_touch(p, &s, true, &msg, &tid)) {
	case HGM_CAME_DONE:
		hgm_probe_answer(p, HGM_YES,
				 "a write to a protected page succeeded without a message");
		break;
	case HGM_CAME_FAULT:
		hgm_probe_answer(
			p, HGM_NO,
			"the kernel accepted WP_ASYNC, but a write still caused a message");
		break;
	case HGM_CAME_NONE:
		break;
	}
close:
	hgm_scratch_close(&s);
}
