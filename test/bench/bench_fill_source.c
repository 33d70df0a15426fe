/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fill from sources that answer later, one request after another. The fill window that the engine
 * finds is compared with fill windows that the caller fixed. The best of these is the baseline.
 */
#include <stdio.h>

#include <hgm/hgm.h>

#include "bench.h"
#include "clock.h"
#include "contents.h"
#include "link.h"
#include "memory.h"
#include "tcp.h"

#define EACH_US 200
#define GBPS	(8 * 1000.0 * 1048576 / 1e9) /* 1000 MiB per second */

struct source_case {
	bool tcp;
	size_t bytes;
};

static const struct {
	const char *name;
	uint64_t bytes;
} windows[] = {
	{ "libhgm", 0 },
	{ "window-64K", UINT64_C(64) << 10 },
	{ "window-256K", 256 << 10 },
	{ "window-1M", 1 << 20 },
	{ "window-4M", UINT64_C(4) << 20 },
	{ "window-16M", UINT64_C(16) << 20 },
};

#define FIXED "window-64K window-256K window-1M window-4M window-16M"

static void run(const struct source_case *c, const char *who, uint64_t window)
{
	struct hgm_opts engine = { .size = sizeof(engine), .fill_window_bytes = window };
	struct link_opts serial = { .gbps = GBPS, .each_us = EACH_US };
	struct hgm_region_opts opts = {
		.size = sizeof(opts),
		.length = c->bytes,
		.backing = HGM_BACKING_SHMEM,
		.flags = HGM_REGION_DEFER_COLLAPSE,
	};
	struct link *link = NULL;
	struct tcp *tcp = NULL;
	struct hgm_region *r;
	uint64_t since;
	struct hgm *h;

	memory_warm(c->bytes);
	if (c->tcp)
		tcp = tcp_create(contents(c->bytes), c->bytes);
	else if (link_create(&link, contents(c->bytes), c->bytes, &serial) ||
		 link_source(&opts.source, link))
		die(who, "the source cannot be made");
	if (tcp)
		opts.source = tcp_source(tcp);
	if (hgm_create(&h, &engine) || hgm_region_create(&r, h, &opts))
		die(who, hgm_errmsg());
	since = now_ns();
	if (hgm_start(h) || hgm_wait(h, -1))
		die(who, hgm_errmsg());
	note(who, "rate", (double)c->bytes / (double)GIB / ((double)(now_ns() - since) / 1e9));
	contents_check(who, hgm_region_addr(r), c->bytes);
	hgm_destroy(h);
	if (tcp) {
		tcp_destroy(tcp);
	} else {
		hgm_source_destroy(opts.source);
		link_destroy(link);
	}
}

static void round_source(const struct bench *b)
{
	const struct source_case *c = b->arg;

	contents(c->bytes);
	for (size_t i = 0; i < COUNT(windows); i++) {
		size_t who = in_turn(i, COUNT(windows));

		run(c, windows[who].name, windows[who].bytes);
	}
}

static void rows_source(const struct bench *b)
{
	char name[64];

	snprintf(name, sizeof(name), "%s.rate", b->name);
	compare(name, MORE, "GiB/s", "libhgm", "rate", FIXED);
}

const struct bench fill_source_benches[] = {
	{ "fill-serial", "fill from a source of 1000 MiB/s and 200 us for each request", true,
	  round_source, rows_source, &(const struct source_case){ false, 256 * MIB } },
	{ "fill-tcp", "fill over one TCP connection, loopback", true, round_source, rows_source,
	  &(const struct source_case){ true, 1 * GIB } },
	{ NULL },
};
