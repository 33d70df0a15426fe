/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bulk fill: everything comes from memory, and no thread waits. It is compared with raw loops of
 * memcpy and CONTINUE, or of COPY, in steps of several sizes, with one thread and with two. The
 * best of them is the baseline.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <hgm/hgm.h>

#include "bench.h"
#include "clock.h"
#include "contents.h"
#include "memory.h"

#define THREADS_MAX 2

struct fill_case {
	bool fresh;
};

static size_t fill_bytes(void)
{
	return setting.quick ? 64 * MIB : 512 * MIB;
}

struct spent {
	uint64_t wall_ns;
	uint64_t cpu_ns;
};

static struct spent start_clock(void)
{
	return (struct spent){ now_ns(), cpu_ns() };
}

static void stop_clock(const char *who, struct spent since, size_t bytes)
{
	double gib = (double)bytes / (double)GIB;

	note(who, "rate", gib / ((double)(now_ns() - since.wall_ns) / 1e9));
	note(who, "cpu", (double)(cpu_ns() - since.cpu_ns) / 1e9 / gib);
}

static void run_engine(const char *who, bool fresh, uint32_t flags)
{
	size_t bytes = fill_bytes();
	struct hgm_region_opts opts = {
		.size = sizeof(opts),
		.length = bytes,
		.backing = fresh ? HGM_BACKING_SHMEM_LAZY : HGM_BACKING_SHMEM,
		.flags = flags,
	};
	struct hgm_region *r;
	struct spent since;
	struct hgm *h;

	if (hgm_create(&h, NULL) || hgm_source_memory(&opts.source, contents(bytes), bytes) ||
	    hgm_region_create(&r, h, &opts))
		die(who, hgm_errmsg());
	since = start_clock();
	if (hgm_start(h) || hgm_wait(h, -1))
		die(who, hgm_errmsg());
	stop_clock(who, since, bytes);
	contents_check(who, hgm_region_addr(r), bytes);
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
}

struct bulk {
	const struct memory *memory;
	size_t step;
	_Atomic size_t next;
};

static void *bulk_thread(void *arg)
{
	struct bulk *bulk = arg;
	size_t at;

	while ((at = atomic_fetch_add(&bulk->next, bulk->step)) < bulk->memory->bytes)
		memory_install(bulk->memory, at, bulk->step);
	return NULL;
}

static void run_raw(const char *who, bool fresh, size_t step, unsigned int threads)
{
	struct bulk bulk = { .step = step };
	pthread_t thread[THREADS_MAX];
	struct memory memory;
	struct spent since;

	memory_make(&memory, fill_bytes(), fresh ? MEMORY_FRESH : MEMORY_PREPARED);
	bulk.memory = &memory;
	since = start_clock();
	for (unsigned int i = 0; i < threads; i++) {
		int rc = pthread_create(&thread[i], NULL, bulk_thread, &bulk);

		if (rc)
			die(who, strerror(rc));
	}
	for (unsigned int i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	stop_clock(who, since, memory.bytes);
	contents_check(who, memory.primary, memory.bytes);
	memory_free(&memory);
}

static const struct {
	const char *name;
	size_t step;
	unsigned int threads;
} raw_ways[] = {
	{ "raw-64K-x1", 64 << 10, 1 }, { "raw-512K-x1", 512 << 10, 1 }, { "raw-2M-x1", BLOCK, 1 },
	{ "raw-64K-x2", 64 << 10, 2 }, { "raw-512K-x2", 512 << 10, 2 }, { "raw-2M-x2", BLOCK, 2 },
};

#define RAW_WAYS "raw-64K-x1 raw-512K-x1 raw-2M-x1 raw-64K-x2 raw-512K-x2 raw-2M-x2"

static void round_fill(const struct bench *b)
{
	const struct fill_case *c = b->arg;

	contents(fill_bytes());
	/* The first contestant would use memory that the host must provide again. */
	for (size_t i = 0; i <= COUNT(raw_ways); i++) {
		size_t who = in_turn(i, COUNT(raw_ways) + 1);

		memory_warm(fill_bytes());
		if (who == COUNT(raw_ways))
			run_engine("libhgm", c->fresh, HGM_REGION_DEFER_COLLAPSE);
		else
			run_raw(raw_ways[who].name, c->fresh, raw_ways[who].step,
				raw_ways[who].threads);
	}
}

static void rows_fill(const struct bench *b)
{
	char name[64];

	snprintf(name, sizeof(name), "%s.rate", b->name);
	compare(name, MORE, "GiB/s", "libhgm", "rate", RAW_WAYS);
	snprintf(name, sizeof(name), "%s.cpu", b->name);
	compare(name, LESS, "CPU s/GiB", "libhgm", "cpu", RAW_WAYS);
}

static void round_collapse(const struct bench *b)
{
	(void)b;
	contents(fill_bytes());
	memory_warm(fill_bytes());
	run_engine("collapse", false, 0);
	memory_warm(fill_bytes());
	run_engine("no-collapse", false, HGM_REGION_DEFER_COLLAPSE);
}

static void rows_collapse(const struct bench *b)
{
	(void)b;
	compare("fill-collapse.rate", MORE, "GiB/s", "collapse", "rate", "no-collapse");
	compare("fill-collapse.cpu", LESS, "CPU s/GiB", "collapse", "cpu", "no-collapse");
}

const struct bench fill_benches[] = {
	{ "fill", "bulk fill of prepared memory", true, round_fill, rows_fill,
	  &(const struct fill_case){ false } },
	{ "fill-fresh", "bulk fill of memory allocated as it arrives", true, round_fill, rows_fill,
	  &(const struct fill_case){ true } },
	{ "fill-collapse", "fill and collapse of prepared memory beside fill alone", true,
	  round_collapse, rows_collapse, NULL },
	{ NULL },
};
