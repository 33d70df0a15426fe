/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_BENCH_CLOCK_H
#define HGM_BENCH_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t bench_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static inline uint64_t now_ns(void)
{
	return bench_ns(CLOCK_MONOTONIC);
}

/* CPU time of all threads of the process, including the kernel's work for them. */
static inline uint64_t cpu_ns(void)
{
	return bench_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static inline void sleep_us(uint64_t us)
{
	struct timespec t = { .tv_sec = (time_t)(us / 1000000),
			      .tv_nsec = (long)(us % 1000000 * 1000) };

	nanosleep(&t, NULL);
}

#endif
