/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random numbers of tests: a new seed each run, printed, so that a failure can be had again with
 * HGM_TEST_SEED=number.
 */
#ifndef HGM_TEST_RANDOM_H
#define HGM_TEST_RANDOM_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct random {
	uint64_t state;
};

static inline uint64_t random_seed(void)
{
	const char *wish = getenv("HGM_TEST_SEED");
	struct timespec ts;
	uint64_t seed;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	seed = wish ? strtoull(wish, NULL, 0) : (uint64_t)ts.tv_nsec ^ (uint64_t)ts.tv_sec << 30;
	printf("# HGM_TEST_SEED=%" PRIu64 "\n", seed);
	return seed;
}

/* splitmix64 */
static inline uint64_t random_next(struct random *r)
{
	uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* 0 to n - 1 */
static inline uint64_t random_below(struct random *r, uint64_t n)
{
	return random_next(r) % n;
}

static inline bool random_one_in(struct random *r, uint64_t n)
{
	return !random_below(r, n);
}

#endif
