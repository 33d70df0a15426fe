/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_CLOCK_H
#define HGM_LIB_CLOCK_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC in nanoseconds; a vDSO call, no system call on any machine that matters. */
static inline uint64_t hgm_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* A condition whose deadlines are hgm_now_ns()'s. */
static inline void hgm_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

/* Wait until signalled or @deadline_ns, UINT64_MAX for no end; true: it is too late. */
static inline bool hgm_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline_ns)
{
	struct timespec ts = { .tv_sec = (time_t)(deadline_ns / 1000000000),
			       .tv_nsec = (long)(deadline_ns % 1000000000) };

	if (deadline_ns == UINT64_MAX) {
		pthread_cond_wait(cond, lock);
		return false;
	}
	return pthread_cond_timedwait(cond, lock, &ts) == ETIMEDOUT;
}

#endif
