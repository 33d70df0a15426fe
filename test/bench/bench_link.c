/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A fault over a link: of 4 KiB, compared with one of a whole huge page. The link is simulated
 * (examples/link.c). Its accuracy is measured first.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include <hgm/hgm.h>

#include "bench.h"
#include "clock.h"
#include "contents.h"
#include "link.h"
#include "memory.h"
#include "random.h"

#define RTT_US	    100
#define TOUCHES_MAX 256
/*
 * Touches of 4 KiB are confined to this range, as the touches of a guest lie close together. The
 * first one in each 2 MiB also pays for a page table.
 */
#define TOUCHED_BYTES (32 * MIB)
#define ANSWERS	      200
#define ALLOWED_US    10

/*
 * Accuracy: single answers, each from an idle link. The measured time is compared with the time
 * that follows from the link's definition.
 */
struct answer {
	_Alignas(4096) char buf[PAGE];
	sem_t done;
	uint64_t at;
};

static int answered(const struct hgm_io *io, int64_t result)
{
	struct answer *a = io->buf; /* buf is its first member */

	(void)result;
	a->at = now_ns();
	sem_post(&a->done);
	return 0;
}

static void round_accuracy(const struct bench *b)
{
	double gbps = *(const double *)b->arg;
	struct link_opts opts = { .gbps = gbps, .rtt_us = RTT_US, .deliver = answered };
	float wait[ANSWERS], late[ANSWERS];
	static struct answer a;
	struct link *link;

	if (link_create(&link, contents(BLOCK), BLOCK, &opts))
		die("link", "cannot be made");
	sem_init(&a.done, 0, 0);
	for (unsigned int i = 0; i < ANSWERS; i++) {
		struct hgm_io io = { .id = i, .length = PAGE, .buf = &a };
		double should = RTT_US + PAGE * 8 / gbps / 1000;
		uint64_t asked = now_ns();

		if (link_read(link, &io) != HGM_IO_LATER)
			die("link", "would not take a request");
		while (sem_wait(&a.done) && errno == EINTR)
			;
		wait[i] = (float)(a.at - asked) / 1000;
		late[i] = wait[i] > should ? (float)(wait[i] - should) : (float)(should - wait[i]);
	}
	link_destroy(link);
	sem_destroy(&a.done);
	note_waits("link", wait, ANSWERS);
	note("definition", "p50", RTT_US + PAGE * 8 / gbps / 1000);
	note_waits("error", late, ANSWERS);
	note("allowed", "p50", ALLOWED_US);
}

static void rows_accuracy(const struct bench *b)
{
	char name[64];

	snprintf(name, sizeof(name), "%s.p50", b->name);
	compare(name, LESS, "us", "link", "p50", "definition");
	snprintf(name, sizeof(name), "%s.error", b->name);
	compare(name, LESS, "us", "error", "p50", "allowed");
}

/*
 * Faults
 */
struct link_case {
	double gbps;
	uint64_t block; /* size of the huge page that the baseline waits for */
	unsigned int blocks;
	unsigned int touches; /* of 4 KiB */
};

static unsigned int touch_some(const char *who, char *memory, size_t unit, size_t units,
			       unsigned int count, float *wait)
{
	uint64_t seed = setting.round + 1;
	const char *expected = contents(0);
	unsigned int i;

	/* Each unit at most once: the stride has no common factor with the number of units. */
	for (i = 0; i < count && i < units; i++) {
		size_t at = (i * 7919 + setting.round) % units * unit;
		uint64_t before;

		at += unit > PAGE ? random_below(&seed, (uint32_t)(unit / PAGE)) * PAGE : 0;
		before = now_ns();
		if (*(volatile char *)(memory + at) != expected[at])
			die(who, "WRONG CONTENTS of a page that was touched");
		wait[i] = (float)(now_ns() - before) / 1000;
	}
	return i;
}

static bool run(const struct bench *b, const char *who, bool whole)
{
	const struct link_case *c = b->arg;
	struct link_opts link_opts = { .gbps = c->gbps, .rtt_us = RTT_US };
	struct hgm_region_opts opts = {
		.size = sizeof(opts),
		.length = c->blocks * c->block,
		.backing = whole ? HGM_BACKING_HUGETLB : HGM_BACKING_SHMEM,
		.block_bytes = whole ? c->block : 0,
		.avoid = whole ? HGM_AVOID_HGM : 0,
		.flags = HGM_REGION_NO_FILL,
	};
	size_t unit = whole ? c->block : PAGE;
	float wait[TOUCHES_MAX];
	unsigned int count;
	struct hgm_region *r;
	struct link *link;
	struct hgm *h;
	int rc;

	if (link_create(&link, contents(opts.length), opts.length, &link_opts))
		die("link", "cannot be made");
	if (hgm_create(&h, NULL) || link_source(&opts.source, link) || hgm_start(h))
		die(who, hgm_errmsg());
	rc = hgm_region_create(&r, h, &opts);
	if (!rc) {
		memory_warm(64 * MIB);
		count = touch_some(who, hgm_region_addr(r), unit,
				   whole ? c->blocks : TOUCHED_BYTES / PAGE,
				   whole ? c->blocks : c->touches, wait);
		if (whole && hgm_wait(h, -1))
			die(who, hgm_errmsg());
		if (whole)
			contents_check(who, hgm_region_addr(r), opts.length);
		note_waits(who, wait, count);
	} else if (whole) {
		skip(hgm_errmsg());
	} else {
		die(who, hgm_errmsg());
	}
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	link_destroy(link);
	return !rc;
}

static void round_link(const struct bench *b)
{
	const struct link_case *c = b->arg;

	contents(c->blocks * c->block);
	if (run(b, "whole", true))
		run(b, "4K", false);
}

static void rows_link(const struct bench *b)
{
	char name[64];

	snprintf(name, sizeof(name), "%s.p50", b->name);
	compare(name, LESS, "us", "4K", "p50", "whole");
	snprintf(name, sizeof(name), "%s.p99", b->name);
	compare(name, LESS, "us", "4K", "p99", "whole");
}

#define LINK(name, what, quick, ...)                                                \
	{                                                                           \
		name, what, quick, round_link, rows_link, &(const struct link_case) \
		{                                                                   \
			__VA_ARGS__                                                 \
		}                                                                   \
	}

const struct bench link_benches[] = {
	{ "link-accuracy", "the imitation of a link of 10 Gb/s, 100 us", true, round_accuracy,
	  rows_accuracy, &(const double){ 10 } },
	LINK("link-1g-2m", "4 KiB beside 2 MiB, 1 Gb/s, 100 us", true, 1, BLOCK, 16, 200),
	LINK("link-10g-2m", "4 KiB beside 2 MiB, 10 Gb/s, 100 us", true, 10, BLOCK, 32, 200),
	LINK("link-25g-2m", "4 KiB beside 2 MiB, 25 Gb/s, 100 us", false, 25, BLOCK, 32, 200),
	LINK("link-1g-1g", "4 KiB beside 1 GiB, 1 Gb/s, 100 us", false, 1, GIB, 1, 200),
	LINK("link-10g-1g", "4 KiB beside 1 GiB, 10 Gb/s, 100 us", false, 10, GIB, 1, 200),
	LINK("link-25g-1g", "4 KiB beside 1 GiB, 25 Gb/s, 100 us", false, 25, GIB, 1, 200),
	{ NULL },
};
