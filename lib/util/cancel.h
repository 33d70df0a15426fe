/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pthread_cancel() of a caller's thread inside the library.
 *
 * A thread may be cancelled only inside the functions that wait for something far away, and these
 * clean up after themselves. All others hold resources that would be left behind, liburcu's locks
 * among them, and disable cancellation until they return.
 */
#ifndef HGM_LIB_CANCEL_H
#define HGM_LIB_CANCEL_H

#include <pthread.h>

static inline int hgm_cancel_off(void)
{
	int before;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	return before;
}

static inline void hgm_cancel_restore(const int *before)
{
	pthread_setcancelstate(*before, NULL);
}

/* A declaration. The thread is not cancelled before the function returns. */
#define HGM_UNCANCELLED                                                               \
	const int uncancelled_ __attribute__((unused, cleanup(hgm_cancel_restore))) = \
		hgm_cancel_off()

#endif
