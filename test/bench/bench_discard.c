/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long a balloon's calls take while a guest is restored, with 8 touchers, and fill on a link
 * that it saturates. The baseline is the same call on other memory, without userfaultfd, which the
 * same touchers use.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <hgm/hgm.h>

#include "bench.h"
#include "clock.h"
#include "contents.h"
#include "link.h"
#include "memory.h"
#include "random.h"

#define DISCARD_BYTES (128 * MIB)
#define PIECE_BYTES   (64 * 1024)
#define TOUCHERS      8
#define THINK_US      200 /* of touchers and balloon: keeps the machine busy, but not full */
#define CALLS_MAX     4096
#define GBPS	      1.0
#define RTT_US	      100
#define ALLOWED	      "2-plain+50us" /* limit for a call that raises an event, p99 */

struct guest {
	struct link *link;
	struct hgm_source *src;
	struct hgm *h;
	struct hgm_region *r;
	char *memory; /* of the region */
	char *plain;
	_Atomic bool stop;
	pthread_t toucher[TOUCHERS];
};

static void touch_one(const char *who, const char *memory, size_t page)
{
	char byte = *(volatile const char *)(memory + page * PAGE);

	if (byte && byte != contents(0)[page * PAGE])
		die(who, "WRONG CONTENTS of a page that was touched");
}

static void *touch_both(void *arg)
{
	struct guest *g = arg;
	uint64_t seed = (uintptr_t)&seed;

	while (!atomic_load_explicit(&g->stop, memory_order_relaxed)) {
		size_t page = random_below(&seed, DISCARD_BYTES / PAGE);

		touch_one("libhgm", g->memory, page);
		touch_one("plain", g->plain, page);
		sleep_us(THINK_US);
	}
	return NULL;
}

static void make_plain(struct guest *g)
{
	char *alias;
	int fd = memory_prepared_fd(DISCARD_BYTES, &alias);

	memcpy(alias, contents(0), DISCARD_BYTES);
	munmap(alias, DISCARD_BYTES);
	g->plain = memory_map(DISCARD_BYTES, fd);
	close(fd);
}

static void begin(struct guest *g)
{
	struct link_opts link = { .gbps = GBPS, .rtt_us = RTT_US };
	struct hgm_region_opts opts = {
		.size = sizeof(opts),
		.length = DISCARD_BYTES,
		.backing = HGM_BACKING_SHMEM,
	};

	*g = (struct guest){ .stop = false };
	make_plain(g);
	if (link_create(&g->link, contents(0), DISCARD_BYTES, &link))
		die("link", "cannot be made");
	if (hgm_create(&g->h, NULL) || link_source(&g->src, g->link))
		die("discard", hgm_errmsg());
	opts.source = g->src;
	if (hgm_region_create(&g->r, g->h, &opts) || hgm_start(g->h))
		die("discard", hgm_errmsg());
	g->memory = hgm_region_addr(g->r);
	for (size_t i = 0; i < TOUCHERS; i++)
		if (pthread_create(&g->toucher[i], NULL, touch_both, g))
			die("a toucher", strerror(errno));
}

static void end(struct guest *g)
{
	atomic_store_explicit(&g->stop, true, memory_order_relaxed);
	for (size_t i = 0; i < TOUCHERS; i++)
		pthread_join(g->toucher[i], NULL);
	hgm_destroy(g->h);
	hgm_source_destroy(g->src);
	link_destroy(g->link);
	munmap(g->plain, DISCARD_BYTES);
}

static void give_back(const char *who, char *at)
{
	if (madvise(at, PIECE_BYTES, MADV_REMOVE))
		die(who, strerror(errno));
}

static float timed_us(uint64_t since_ns)
{
	return (float)(now_ns() - since_ns) / 1000;
}

static void round_discard(const struct bench *b)
{
	static float plain_us[CALLS_MAX], event_us[CALLS_MAX], call_us[CALLS_MAX];
	uint64_t seed = setting.round + 1;
	size_t calls = 0;
	struct guest g;

	(void)b;
	contents(DISCARD_BYTES);
	memory_warm(2 * DISCARD_BYTES);
	begin(&g);
	while (calls < CALLS_MAX && hgm_wait(g.h, 0) == -ETIMEDOUT) {
		size_t pieces = DISCARD_BYTES / PIECE_BYTES;
		size_t at = random_below(&seed, (uint32_t)pieces) * PIECE_BYTES;
		size_t other = random_below(&seed, (uint32_t)pieces) * PIECE_BYTES;
		uint64_t began = now_ns();

		give_back("plain", g.plain + at);
		plain_us[calls] = timed_us(began);
		began = now_ns();
		give_back("libhgm", g.memory + at);
		event_us[calls] = timed_us(began);
		began = now_ns();
		if (hgm_region_discard(g.r, other, PIECE_BYTES))
			die("discard", hgm_errmsg());
		call_us[calls++] = timed_us(began);
		sleep_us(THINK_US);
	}
	end(&g);
	if (!calls)
		die("discard", "nothing was left to arrive");
	note_waits("plain", plain_us, calls);
	note_waits("madvise", event_us, calls);
	note_waits("libhgm", call_us, calls);
	note(ALLOWED, "p99", 2 * plain_us[calls * 99 / 100] + 50);
}

static void rows_discard(const struct bench *b)
{
	(void)b;
	compare("discard.madvise-p50", LESS, "us", "madvise", "p50", "plain");
	compare("discard.madvise-p99", LESS, "us", "madvise", "p99", ALLOWED);
	compare("discard.call-p50", LESS, "us", "libhgm", "p50", "plain");
	compare("discard.call-p99", LESS, "us", "libhgm", "p99", ALLOWED);
}

const struct bench discard_benches[] = {
	{ "discard", "64 KiB given back while memory arrives and 8 threads use it", true,
	  round_discard, rows_discard, NULL },
	{ NULL },
};
