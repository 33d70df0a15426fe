/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long touchers wait for a page, and how many pages are served
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "contents.h"
#include "memory.h"
#include "server.h"
#include "touch.h"

#define TOUCH_BYTES_ONE	 (16 * MIB)
#define TOUCH_BYTES_MANY (32 * MIB)

struct touch_case {
	unsigned int touchers;
	enum order order;
	bool fresh;
	bool pinned; /* all threads to one CPU: no halted CPU must be woken */
};

static void pin(bool to_one)
{
	static cpu_set_t all;
	cpu_set_t one;

	if (!CPU_COUNT(&all))
		sched_getaffinity(0, sizeof(all), &all);
	CPU_ZERO(&one);
	for (int cpu = 0; to_one && !CPU_COUNT(&one); cpu++)
		if (CPU_ISSET(cpu, &all))
			CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof(one), to_one ? &one : &all);
}

static void run(const struct server *server, const struct touch_case *c, size_t bytes)
{
	struct touch t = {
		.touchers = c->touchers,
		.order = c->order,
		.pages = bytes / PAGE,
		.seed = setting.round + 1,
		.wait_us = malloc(bytes / PAGE * sizeof(float)),
	};
	char *memory;
	void *state;

	if (!t.wait_us)
		die("touch", "no memory");
	memory_warm(bytes);
	state = server->begin(bytes, c->fresh, &memory);
	touch(&t, server, memory);
	if (c->order != ZIPF || !server->fetch) /* with @fetch, the rest stays empty */
		contents_check(server->name, memory, bytes);
	server->end(state);
	note(server->name, "rate", (double)t.waits / t.seconds);
	note_waits(server->name, t.wait_us, t.waits);
	free(t.wait_us);
}

static void round_one(const struct bench *b)
{
	static const struct server *const servers[] = { &engine, &raw_spin, &raw_poll, &no_uffd };
	const struct touch_case *c = b->arg;

	contents(TOUCH_BYTES_ONE);
	pin(c->pinned);
	for (size_t i = 0; i < COUNT(servers); i++) {
		const struct server *server = servers[in_turn(i, COUNT(servers))];

		/* A loop that spins on the same CPU as its toucher is no sensible baseline. */
		if (!c->pinned || server != &raw_spin)
			run(server, c, TOUCH_BYTES_ONE);
	}
	pin(false);
}

static void row(const struct bench *b, const char *figure, enum better better, const char *unit,
		const char *who, const char *base, const char *suffix)
{
	char name[64];

	snprintf(name, sizeof(name), "%s.%s%s", b->name, figure, suffix);
	compare(name, better, unit, who, figure, base);
}

static void rows_one(const struct bench *b)
{
	const struct touch_case *c = b->arg;

	if (!c->pinned) {
		row(b, "p50", LESS, "us", "libhgm", "raw-spin", "");
		row(b, "p99", LESS, "us", "libhgm", "raw-spin", "");
	}
	row(b, "p50", LESS, "us", "libhgm", "raw-poll", c->pinned ? "" : "-poll");
	if (c->pinned) {
		row(b, "p99", LESS, "us", "libhgm", "raw-poll", "");
		row(b, "rate", MORE, "faults/s", "libhgm", "raw-poll", "");
	}
	row(b, "p50", LESS, "us", "libhgm", "no-uffd", "-floor");
}

static void round_many(const struct bench *b)
{
	static const struct server *const servers[] = {
		&engine,       &raw_spin,	&raw_poll,   &raw_batch,   &raw_wake,
		&model_single, &model_prefault, &model_pool, &engine_fill,
	};
	size_t bytes = setting.quick ? TOUCH_BYTES_ONE : TOUCH_BYTES_MANY;

	contents(bytes);
	for (size_t i = 0; i < COUNT(servers); i++)
		run(servers[in_turn(i, COUNT(servers))], b->arg, bytes);
}

#define RAW_LOOPS "raw-spin raw-poll raw-batch raw-wake"

static void rows_many(const struct bench *b)
{
	row(b, "rate", MORE, "faults/s", "libhgm", RAW_LOOPS, "");
	row(b, "p50", LESS, "us", "libhgm", RAW_LOOPS, "");
	row(b, "p99", LESS, "us", "libhgm", RAW_LOOPS, "");
	row(b, "rate", MORE, "faults/s", "libhgm", "model-single", "-single");
	row(b, "p50", LESS, "us", "libhgm", "model-single", "-single");
	row(b, "rate", MORE, "faults/s", "libhgm", "model-pool", "-pool");
	row(b, "p50", LESS, "us", "libhgm", "model-pool", "-pool");
	row(b, "rate", MORE, "faults/s", "libhgm-fill", "model-prefault", "-prefault");
	row(b, "p50", LESS, "us", "libhgm-fill", "model-prefault", "-prefault");
}

#define ONE(name, what, quick, ...)                                                \
	{                                                                          \
		name, what, quick, round_one, rows_one, &(const struct touch_case) \
		{                                                                  \
			__VA_ARGS__                                                \
		}                                                                  \
	}
#define MANY(n, order, word, quick)                                                        \
	{                                                                                  \
		"touch-" #n "-" word, #n " touchers, " word, quick, round_many, rows_many, \
			&(const struct touch_case){ n, order, false, false },              \
	}

const struct bench touch_benches[] = {
	ONE("touch-1", "one toucher, prepared memory", true, 1, SHUFFLED, false, false),
	ONE("touch-1-fresh", "one toucher, memory allocated as it arrives", true, 1, SHUFFLED, true,
	    false),
	ONE("touch-1-pinned", "as touch-1, all on one CPU", true, 1, SHUFFLED, false, true),
	ONE("touch-1-fresh-pinned", "as touch-1-fresh, all on one CPU", true, 1, SHUFFLED, true,
	    true),
	ONE("touch-8-pinned", "8 touchers, all on one CPU", true, 8, SHUFFLED, false, true),
	MANY(2, SEQUENTIAL, "sequential", false),
	MANY(2, SHUFFLED, "shuffled", false),
	MANY(2, ZIPF, "zipf", false),
	MANY(8, SEQUENTIAL, "sequential", false),
	MANY(8, SHUFFLED, "shuffled", true),
	MANY(8, ZIPF, "zipf", false),
	MANY(16, SEQUENTIAL, "sequential", false),
	MANY(16, SHUFFLED, "shuffled", true),
	MANY(16, ZIPF, "zipf", false),
	MANY(32, SEQUENTIAL, "sequential", false),
	MANY(32, SHUFFLED, "shuffled", false),
	MANY(32, ZIPF, "zipf", false),
	{ NULL },
};
