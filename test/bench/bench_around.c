/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages that are present but not mapped any more: how long one toucher takes to touch them all. The
 * baseline is a loop that maps 64 KiB around each fault, as the kernel does for files.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <hgm/hgm.h>

#include "bench.h"
#include "contents.h"
#include "raw.h"
#include "server.h"
#include "touch.h"

#define RAW_WINDOW (16 * PAGE)

static size_t around_bytes(void)
{
	return setting.quick ? 32 * MIB : 256 * MIB;
}

static void measure(const char *who, char *memory, enum order order)
{
	static const struct server nobody = { .name = "touch" };
	size_t pages = around_bytes() / PAGE;
	struct touch t = {
		.touchers = 1,
		.order = order,
		.pages = pages,
		.seed = setting.round + 1,
		.wait_us = malloc(pages * sizeof(float)),
	};

	if (!t.wait_us)
		die(who, "no memory");
	touch(&t, &nobody, memory);
	note(who, "time", t.seconds * 1000);
	free(t.wait_us);
}

static void run_engine(enum order order)
{
	size_t bytes = around_bytes();
	char *memory;
	void *state = engine_filled(bytes, HGM_REGION_DEFER_COLLAPSE, &memory);

	if (madvise(memory, bytes, MADV_DONTNEED))
		die("MADV_DONTNEED", strerror(errno));
	measure("libhgm", memory, order);
	engine_end(state);
}

static void *serve(void *arg)
{
	struct raw *raw = arg;
	unsigned int reads = 0;

	while (!raw_stopped(raw)) {
		int64_t at = memory_next(&raw->memory);
		struct uffdio_continue c = { .range.len = RAW_WINDOW };

		if (at < 0) {
			if (++reads % RAW_READS_PER_YIELD == 0)
				sched_yield();
			continue;
		}
		c.range.start =
			(uintptr_t)raw->memory.primary + (uint64_t)at / RAW_WINDOW * RAW_WINDOW;
		if (ioctl(raw->memory.uffd, UFFDIO_CONTINUE, &c))
			die("UFFDIO_CONTINUE", strerror(errno));
	}
	return NULL;
}

static void run_raw(enum order order)
{
	size_t bytes = around_bytes();
	char *memory;
	struct raw *raw = raw_begin(bytes, MEMORY_PREPARED, serve, NULL, &memory);

	memcpy(raw->memory.alias, contents(bytes), bytes);
	measure("raw-64K", memory, order);
	raw_end(raw);
}

static void round_around(const struct bench *b)
{
	const enum order *order = b->arg;

	contents(around_bytes());
	for (size_t i = 0; i < 2; i++) {
		memory_warm(around_bytes());
		if (in_turn(i, 2))
			run_raw(*order);
		else
			run_engine(*order);
	}
}

static void rows_around(const struct bench *b)
{
	char name[64];

	snprintf(name, sizeof(name), "%s.time", b->name);
	compare(name, LESS, "ms", "libhgm", "time", "raw-64K");
}

const struct bench around_benches[] = {
	{ "around-sequential", "pages that are there and not mapped, touched in order", true,
	  round_around, rows_around, &(const enum order){ SEQUENTIAL } },
	{ "around-shuffled", "the same, touched in any order", true, round_around, rows_around,
	  &(const enum order){ SHUFFLED } },
	{ NULL },
};
