/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that touch memory in some order, and what they waited
 */
#ifndef HGM_BENCH_TOUCH_H
#define HGM_BENCH_TOUCH_H

#include <stddef.h>
#include <stdint.h>

#include "server.h"

#define TOUCHERS_MAX 32

enum order {
	SEQUENTIAL, /* each toucher its own part, upwards */
	SHUFFLED,   /* each toucher its share of one shuffled order over everything */
	ZIPF,	    /* each draws from all, the n-th most popular page as often as 1 / n */
};

struct touch {
	unsigned int touchers;
	enum order order;
	size_t pages;
	uint64_t seed;
	float *wait_us; /* room for @pages: what first touches waited */
	size_t waits;	/* out: how many */
	double seconds; /* out */
};

/* Dies on wrong contents. */
void touch(struct touch *t, const struct server *server, char *memory);

#endif
