/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <pthread.h>
#include <signal.h>

#include "rcu.h"

#ifdef HGM_TSAN
char hgm_rcu_tsan_tag;
#endif

void hgm_rcu_init(void)
{
	sigset_t all, before;

	/* The thread inherits the mask of whoever creates it: not on some caller's first fault. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	urcu_bp_get_default_call_rcu_data();
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}
