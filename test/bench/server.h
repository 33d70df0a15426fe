/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Servers of faults: libhgm, raw loops, and models of VMMs
 */
#ifndef HGM_BENCH_SERVER_H
#define HGM_BENCH_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Serves memory of @bytes whose contents are ready in memory. It begins before the clock starts,
 * and ends after the clock stops. @fresh: no memory is allocated in advance. If there is @fetch, a
 * toucher calls it before each touch.
 */
struct server {
	const char *name;
	void *(*begin)(size_t bytes, bool fresh, char **memory);
	void (*end)(void *state);
	void (*fetch)(char *memory, size_t page);
};

extern const struct server engine;	/* libhgm without fill and collapse */
extern const struct server engine_fill; /* libhgm with its defaults */

/*
 * libhgm with prepared memory that has arrived completely. It is huge, or its collapse is deferred,
 * depending on @flags. The other function ends it.
 */
void *engine_filled(size_t bytes, uint32_t flags, char **memory);
void engine_end(void *state);

/* The shortest correct loops: read a message, memcpy and CONTINUE (fresh: COPY), repeat. */
extern const struct server raw_spin;  /* reads until there is a message */
extern const struct server raw_poll;  /* sleeps in poll(2) */
extern const struct server raw_batch; /* as raw_spin, but reads all messages at once */
extern const struct server raw_wake;  /* and wakes all served threads with one call */

/*
 * No userfaultfd: the toucher itself copies the page into anonymous memory, and waits for the
 * kernel's own fault only. This is the lower bound.
 */
extern const struct server no_uffd;

/*
 * Short models of what VMMs do today. They show a method, not a product: products have costs that
 * the models leave out.
 */
extern const struct server model_single;   /* one thread, one message, COPY */
extern const struct server model_prefault; /* the same, and installs another page while idle */
extern const struct server model_pool;	   /* a reader, workers, a table of pages under a mutex */

#endif
