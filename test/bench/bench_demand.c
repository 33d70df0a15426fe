/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long a thread waits for a page while fill otherwise has the source to itself: a link, memory,
 * or a file in the page cache. The baseline is the same without fill. The toucher pauses between
 * its touches, so that it does not use up the link.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <hgm/hgm.h>

#include "bench.h"
#include "clock.h"
#include "contents.h"
#include "link.h"
#include "memory.h"
#include "random.h"

#define RTT_US	    100
#define THINK_US    500 /* 100 for the fast sources, where fill ends soon */
#define TOUCHES_MAX 4096
#define WARM_UP_NS  UINT64_C(60000000) /* for the engine to learn the link's capacity */

#define FAST_MS 150 /* how long a run without fill takes, for memory and files */

enum from {
	FROM_LINK,
	FROM_MEMORY,
	FROM_FILE,
};

struct demand_case {
	enum from from;
	double gbps;
	size_t bytes; /* half of it with --quick */
};

struct demand {
	enum from from;
	double gbps;
	size_t bytes;
	struct link *link;
	struct hgm *h;
	struct hgm_source *src;
	struct hgm_region *r;
	float wait_us[TOUCHES_MAX];
	size_t touches;
};

static size_t demand_bytes(const struct demand_case *c)
{
	return setting.quick ? c->bytes / 2 : c->bytes;
}

static int make_source(struct demand *d)
{
	struct link_opts link = { .gbps = d->gbps, .rtt_us = RTT_US };
	int fd, rc;

	switch (d->from) {
	case FROM_LINK:
		if (link_create(&d->link, contents(d->bytes), d->bytes, &link))
			die("link", "cannot be made");
		return link_source(&d->src, d->link);
	case FROM_MEMORY:
		return hgm_source_memory(&d->src, contents(d->bytes), d->bytes);
	case FROM_FILE:
		break;
	}
	fd = contents_file(d->bytes);
	rc = hgm_source_fd(&d->src, fd);
	close(fd);
	return rc;
}

static void begin(struct demand *d, bool fill)
{
	struct hgm_region_opts opts = {
		.size = sizeof(opts),
		.length = d->bytes,
		.backing = HGM_BACKING_SHMEM,
		.flags = HGM_REGION_DEFER_COLLAPSE | (fill ? 0 : HGM_REGION_NO_FILL),
	};

	if (hgm_create(&d->h, NULL) || make_source(d))
		die("demand", hgm_errmsg());
	opts.source = d->src;
	if (hgm_region_create(&d->r, d->h, &opts))
		die("demand", hgm_errmsg());
	if (d->from == FROM_LINK)
		memory_warm(64 * MIB);
	if (hgm_start(d->h))
		die("demand", hgm_errmsg());
}

static void end(struct demand *d)
{
	hgm_destroy(d->h);
	hgm_source_destroy(d->src);
	if (d->link)
		link_destroy(d->link);
}

static uint64_t delivered(const struct demand *d)
{
	struct hgm_region_info info = { .size = sizeof(info) };
	struct link_stats stats;

	if (d->from == FROM_LINK) {
		link_get_stats(d->link, &stats);
		return stats.bytes;
	}
	if (hgm_region_get_info(d->r, &info))
		die("demand", hgm_errmsg());
	return info.present_bytes;
}

/*
 * Touch random pages of the upper half while fill, which goes upwards, is in the lower half.
 * Returns the bytes per second that fill got meanwhile.
 */
static double touch_upper_half(struct demand *d, uint64_t until_ns, bool fill)
{
	size_t pages = d->bytes / PAGE;
	uint64_t seed = setting.round + 1, began, bytes, stop = now_ns() + until_ns;
	char *memory = hgm_region_addr(d->r);
	const char *expected = contents(0);

	if (d->from == FROM_LINK)
		sleep_us(WARM_UP_NS / 1000);
	began = now_ns();
	bytes = delivered(d);
	for (d->touches = 0; d->touches < TOUCHES_MAX; d->touches++) {
		size_t page = pages / 2 + random_below(&seed, (uint32_t)(pages / 2));
		uint64_t before = now_ns();

		if (before > stop || (fill && delivered(d) > d->bytes / 2))
			break;
		if (*(volatile char *)(memory + page * PAGE) != expected[page * PAGE])
			die("demand", "WRONG CONTENTS of a page that was touched");
		d->wait_us[d->touches] = (float)(now_ns() - before) / 1000;
		sleep_us(d->from == FROM_LINK ? THINK_US : THINK_US / 5);
	}
	bytes = delivered(d) - bytes - d->touches * PAGE;
	return (double)bytes / ((double)(now_ns() - began) / 1e9);
}

static void run(const struct bench *b, const char *who, bool fill)
{
	const struct demand_case *c = b->arg;
	static struct demand d;
	double wire, got;

	d = (struct demand){ .from = c->from, .gbps = c->gbps, .bytes = demand_bytes(c) };
	wire = d.gbps * 1e9 / 8;
	begin(&d, fill);
	/* Without fill, run for about as long as fill would have taken. */
	got = touch_upper_half(&d,
			       d.from == FROM_LINK ? (uint64_t)((double)d.bytes / 2 / wire * 1e9)
						   : FAST_MS * UINT64_C(1000000),
			       fill);
	note_waits(who, d.wait_us, d.touches);
	if (fill) {
		note(who, "GB/s", got / 1e9);
		if (hgm_wait(d.h, -1))
			die("demand", hgm_errmsg());
		contents_check(who, hgm_region_addr(d.r), d.bytes);
	} else if (d.from == FROM_LINK) {
		note("link", "GB/s", wire / 1e9);
	}
	end(&d);
}

static void round_demand(const struct bench *b)
{
	const struct demand_case *c = b->arg;

	contents(demand_bytes(c));
	run(b, "fill-off", false);
	run(b, "fill-on", true);
}

static void rows_demand(const struct bench *b)
{
	char name[64];

	snprintf(name, sizeof(name), "%s.p50", b->name);
	compare(name, LESS, "us", "fill-on", "p50", "fill-off");
	snprintf(name, sizeof(name), "%s.p99", b->name);
	compare(name, LESS, "us", "fill-on", "p99", "fill-off");
	if (((const struct demand_case *)b->arg)->from != FROM_LINK)
		return;
	snprintf(name, sizeof(name), "%s.fill", b->name);
	compare(name, MORE, "GB/s", "fill-on", "GB/s", "link");
}

const struct bench demand_benches[] = {
	{ "demand-1g", "waits while fill saturates a link of 1 Gb/s, 100 us", true, round_demand,
	  rows_demand, &(const struct demand_case){ FROM_LINK, 1, 128 * MIB } },
	{ "demand-10g", "waits while fill saturates a link of 10 Gb/s, 100 us", true, round_demand,
	  rows_demand, &(const struct demand_case){ FROM_LINK, 10, 768 * MIB } },
	{ "stall-memory", "waits while fill copies from memory", true, round_demand, rows_demand,
	  &(const struct demand_case){ FROM_MEMORY, 0, 1024 * MIB } },
	{ "stall-file", "waits while fill reads a file in the page cache", true, round_demand,
	  rows_demand, &(const struct demand_case){ FROM_FILE, 0, 1024 * MIB } },
	{ NULL },
};
