/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that touch memory in some order, and how long they waited
 */
#ifndef HGM_BENCH_TOUCH_H
#define HGM_BENCH_TOUCH_H

#include <stddef.h>
#include <stdint.h>

#include "server.h"

#define TOUCHERS_MAX 32

enum order {
	SEQUENTIAL, /* each toucher touches its own part, upwards */
	SHUFFLED,   /* each toucher touches its share of one shuffled order of all pages */
	ZIPF,	    /* each draws from all pages; frequency of the n-th most popular: 1 / n */
};

struct touch {
	unsigned int touchers;
	enum order order;
	size_t pages;
	uint64_t seed;
	float *wait_us; /* room for @pages: wait times of first touches */
	size_t waits;	/* out: how many */
	double seconds; /* out */
};

/* Dies on wrong contents. */
void touch(struct touch *t, const struct server *server, char *memory);

#endif
