/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread of a baseline. It serves faults until it is stopped
 */
#ifndef HGM_BENCH_RAW_H
#define HGM_BENCH_RAW_H

#include <pthread.h>
#include <stdatomic.h>

#include "memory.h"

#define RAW_POLL_MS	    100 /* how often a sleeping thread checks whether to stop */
#define RAW_READS_PER_YIELD 2	/* a woken thread may wait for this CPU */

struct raw {
	struct memory memory;
	_Atomic bool stop;
	pthread_t thread;
	void *more; /* private to the server */
};

struct raw *raw_begin(size_t bytes, enum memory_kind kind, void *(*serve)(void *raw), void *more,
		      char **memory);
void raw_end(void *raw);

/* Sleep until there is a message, but for at most @ms. */
void raw_wait(const struct raw *raw, int ms);
void *raw_serve_poll(void *raw);

static inline bool raw_stopped(const struct raw *raw)
{
	return atomic_load_explicit(&raw->stop, memory_order_relaxed);
}

#endif
