/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Has this process been stopped and continued? A signal ends a thread's wait for a userfaultfd, and
 * the thread accesses its memory again: what a test takes for a wake may be that.
 */
#ifndef HGM_TEST_CONTINUED_H
#define HGM_TEST_CONTINUED_H

#include <signal.h>
#include <unistd.h>

/* One for each program, whatever includes this header. */
__attribute__((weak)) volatile sig_atomic_t times_continued;

static void on_continue(int sig)
{
	(void)sig;
	times_continued++;
}

/*
 * How often since the first call. To be called by the main thread only, which SIGCONT prefers: if
 * another thread has gone on meanwhile, the signal is delivered to this one in the sleep here.
 */
static inline int continued(void)
{
	signal(SIGCONT, on_continue);
	usleep(1000);
	return times_continued;
}

#endif
