/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Time, and waiting with a deadline.
 */
#ifndef HGM_LIB_CLOCK_H
#define HGM_LIB_CLOCK_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC in nanoseconds. A vDSO call, not a system call, on any machine that matters. */
static inline uint64_t hgm_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/*
 * The clock of file timestamps. A file that is changed after this call has a ctime that is not
 * earlier than the result. CLOCK_REALTIME may be ahead of this clock by a timer tick.
 */
static inline uint64_t hgm_stamp_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME_COARSE, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* A condition variable whose deadlines are times of hgm_now_ns(). */
static inline void hgm_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

/* Wait for a signal until @deadline_ns; UINT64_MAX: no deadline. True: the deadline has passed. */
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
