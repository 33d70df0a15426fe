/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "rcu.h"

#ifdef HGM_TSAN
char hgm_rcu_tsan_tag;
#endif

static void *nothing(void *arg)
{
	return arg;
}

int hgm_rcu_init(void)
{
	static _Atomic bool done;
	sigset_t all, before;
	pthread_t trial;
	int rc;

	if (atomic_load_explicit(&done, memory_order_acquire))
		return 0;

	/* The thread inherits the mask of whoever creates it: not on some caller's first fault. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	/* liburcu aborts the process if its thread cannot be had: see first whether one can. */
	rc = -pthread_create(&trial, NULL, nothing, NULL);
	if (!rc) {
		pthread_join(trial, NULL);
		urcu_bp_get_default_call_rcu_data();
		atomic_store_explicit(&done, true, memory_order_release);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}
