/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who serves faults: libhgm, raw loops, and models of what VMMs do
 */
#ifndef HGM_BENCH_SERVER_H
#define HGM_BENCH_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Memory of @bytes whose contents lie ready in memory: made before the clock starts, and ended
 * after it. @fresh: nothing is allocated before it is asked for. @fetch, if there is one, is what a
 * toucher does by itself before it touches.
 */
struct server {
	const char *name;
	void *(*begin)(size_t bytes, bool fresh, char **memory);
	void (*end)(void *state);
	void (*fetch)(char *memory, size_t page);
};

extern const struct server engine;	/* libhgm: nothing fills, nothing collapses */
extern const struct server engine_fill; /* libhgm as it is by default */

/*
 * libhgm and prepared memory of which all has arrived: it is huge, or deferred as @flags say. Ended
 * by the other.
 */
void *engine_filled(size_t bytes, uint32_t flags, char **memory);
void engine_end(void *state);

/* The shortest loops that are right: one message, memcpy and CONTINUE (fresh: COPY), again. */
extern const struct server raw_spin;  /* reading until there is something to read */
extern const struct server raw_poll;  /* sleeping in poll(2) */
extern const struct server raw_batch; /* as raw_spin, reading what there is at a time */
extern const struct server raw_wake;  /* and waking all that were served by one call */

/*
 * No userfaultfd: the toucher itself copies the page into anonymous memory, and the kernel's own
 * fault is all that it waits for. The floor.
 */
extern const struct server no_uffd;

/*
 * Models, in a page each, of what VMMs do today. They show a way of doing it, not a product: each
 * has costs that the models leave out.
 */
extern const struct server model_single;   /* one thread, one message, COPY */
extern const struct server model_prefault; /* the same, and a page more whenever nobody waits */
extern const struct server model_pool;	   /* a reader, workers, a table of pages under a mutex */

#endif
