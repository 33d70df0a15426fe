/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The start of liburcu's callback thread, and grace periods where a sandbox denies membarrier(2).
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "rcu.h"
#include "thread.h"

#ifdef HGM_TSAN
char hgm_rcu_tsan_tag;
#endif

static void *nothing(void *arg)
{
	return arg;
}

/*
 * liburcu's thread inherits the properties of the thread that starts it, so one of our threads
 * starts it, and not a caller's. liburcu aborts the process if it cannot create the thread, so
 * first check that one more thread can be created.
 */
static void *start_callbacks(void *arg)
{
	pthread_t trial;
	int *rc = arg;

	*rc = hgm_thread_create(&trial, nothing, NULL);
	if (*rc)
		return NULL;
	pthread_join(trial, NULL);
	urcu_bp_get_default_call_rcu_data();
	return NULL;
}

#ifndef urcu_bp_has_sys_membarrier
extern int urcu_bp_has_sys_membarrier;

void hgm_rcu_may_wait(void)
{
	int saved = errno;

	if (__atomic_load_n(&urcu_bp_has_sys_membarrier, __ATOMIC_RELAXED) &&
	    syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0) < 0) {
		__atomic_store_n(&urcu_bp_has_sys_membarrier, 0, __ATOMIC_SEQ_CST);
		/*
		 * A reader that began without a barrier becomes visible long before this sleep
		 * ends.
		 */
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	errno = saved;
}
#else /* liburcu was built to require it */
void hgm_rcu_may_wait(void)
{
}
#endif

int hgm_rcu_init(void)
{
	static _Atomic bool done;
	sigset_t all, before;
	pthread_t thread;
	int rc, started;

	if (atomic_load_explicit(&done, memory_order_acquire))
		return 0;

	/* The thread inherits its creator's mask: do not create it on a caller's first fault. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = hgm_thread_create(&thread, start_callbacks, &started);
	if (!rc) {
		pthread_join(thread, NULL);
		rc = started;
	}
	if (!rc)
		atomic_store_explicit(&done, true, memory_order_release);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}
