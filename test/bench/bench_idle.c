/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An idle engine: what CPU time it uses, and how long the first touch after a pause waits
 */
#include <stdlib.h>

#include "bench.h"
#include "clock.h"
#include "contents.h"
#include "server.h"

#define IDLE_BYTES  (4 * MIB)
#define SETTLE_US   1000000 /* after this an engine counts as idle */
#define PAUSE_US    20000
#define TOUCHES_MAX 100
#define ALLOWED	    0.5 /* percent of a CPU */

static void measure(const struct server *server, bool idle_too)
{
	unsigned int touches = setting.quick ? 20 : TOUCHES_MAX;
	uint64_t watch_us = setting.quick ? 300000 : 2000000, wall, cpu;
	const char *expected = contents(IDLE_BYTES);
	float wait[TOUCHES_MAX];
	char *memory;
	void *state;

	state = server->begin(IDLE_BYTES, false, &memory);
	for (unsigned int i = 0; i < touches; i++) {
		size_t at = (size_t)i * 7 * PAGE;
		uint64_t before;

		sleep_us(PAUSE_US);
		before = now_ns();
		if (*(volatile char *)(memory + at) != expected[at])
			die(server->name, "WRONG CONTENTS of a page that was touched");
		wait[i] = (float)(now_ns() - before) / 1000;
	}
	if (idle_too) {
		sleep_us(SETTLE_US);
		wall = now_ns();
		cpu = cpu_ns();
		sleep_us(watch_us);
		note(server->name, "cpu",
		     100.0 * (double)(cpu_ns() - cpu) / (double)(now_ns() - wall));
	}
	server->end(state);
	note_waits(server->name, wait, touches);
}

static void round_idle(const struct bench *b)
{
	(void)b;
	measure(&engine, true);
	measure(&raw_poll, false);
	note("allowed", "cpu", ALLOWED);
}

static void rows_idle(const struct bench *b)
{
	(void)b;
	compare("idle.wake", LESS, "us", "libhgm", "p50", "raw-poll");
	compare("idle.cpu", LESS, "% of CPU", "libhgm", "cpu", "allowed");
}

const struct bench idle_benches[] = {
	{ "idle", "first touches after a pause; CPU time of an idle engine", true, round_idle,
	  rows_idle, NULL },
	{ NULL },
};
