/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_CLOCK_H
#define HGM_LIB_CLOCK_H

#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC in nanoseconds; a vDSO call, no system call on any machine that matters. */
static inline uint64_t hgm_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

#endif
