/* SPDX-License-Identifier: 0BSD */
/*
 * Pre-copy: see precopy.h
 *
 * rounds() shows how a VMM migrates with libhgm. "Sending" means copying to other memory, no faster
 * than the link.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "precopy.h"

/* A round that is not smaller than this part of the previous round does not help. */
#define SHRINK_PERCENT 80
/* Stop after this many such rounds in a row. */
#define SHRINK_TRIES 3

#define LINK_CHUNK 64 /* number of pages that the link takes at once */

/* A migration in progress: the source's memory, and its dirty pages. */
struct migration {
	struct precopy *p;
	struct machine *m;
	const struct precopy_opts *opts;
	struct hgm_dirty *dirty;
	uint64_t *bitmap; /* pages to send */
	uint64_t *late;	  /* pages written to after bitmap was collected */
	uint64_t pages;
	uint64_t words;
};

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int said(struct machine *m, int rc)
{
	if (rc)
		snprintf(m->why, sizeof(m->why), "%s", hgm_errmsg());
	return rc;
}

static bool is_set(const uint64_t *bitmap, uint64_t page)
{
	return bitmap[page / 64] >> page % 64 & 1;
}

/* Wait until the link has taken @pages pages since @start_us. */
static void keep_pace(const struct migration *g, double start_us, uint64_t pages)
{
	double due_us = start_us + pages * GUEST_PAGE * 8 / g->opts->gbps / 1e3;
	struct timespec t = { .tv_sec = (time_t)(due_us / 1e6) };

	t.tv_nsec = (long)((due_us - t.tv_sec * 1e6) * 1e3);
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* Send the pages of the bitmap. */
static void send_pages(const struct migration *g, struct precopy_round *r)
{
	const uint8_t *memory = hgm_region_addr(g->m->region);
	double start_us = now_us();
	uint64_t page;

	r->pages = 0;
	for (page = 0; page < g->pages; page++) {
		if (!is_set(g->bitmap, page))
			continue;
		memcpy(g->p->there + page * GUEST_PAGE, memory + page * GUEST_PAGE, GUEST_PAGE);
		if (++r->pages % LINK_CHUNK == 0)
			keep_pace(g, start_us, r->pages);
	}
	keep_pace(g, start_us, r->pages);
	r->send_us = now_us() - start_us;
}

static int collect(const struct migration *g, uint64_t *bitmap, uint64_t *dirty,
		   struct precopy_round *r)
{
	double start_us = now_us();
	int rc = hgm_dirty_collect(g->dirty, 0, g->pages, bitmap, dirty);

	r->collect_us = now_us() - start_us;
	return said(g->m, rc);
}

/* Return true if sending @pages at the speed of the last round fits into the downtime. */
static bool is_little(const struct migration *g, uint64_t pages, const struct precopy_round *last)
{
	return pages * last->send_us / last->pages <= g->opts->downtime_us;
}

/* Send rounds while the guest runs. The pages left in the bitmap at the end are not sent yet. */
static int rounds(struct migration *g)
{
	struct precopy *p = g->p;
	struct precopy_round *r = &p->round[p->rounds++], *last;
	unsigned int vain = 0;
	uint64_t dirty;
	int rc;

	memset(g->bitmap, 0xff, g->words * 8);
	send_pages(g, r);
	while (p->rounds < PRECOPY_ROUNDS) {
		last = r;
		r = &p->round[p->rounds];
		rc = collect(g, g->bitmap, &dirty, r);
		if (rc)
			return rc;
		vain = dirty < last->pages / 100.0 * SHRINK_PERCENT ? 0 : vain + 1;
		p->little = is_little(g, dirty, last);
		if (p->little || vain == SHRINK_TRIES)
			return 0;
		send_pages(g, r);
		p->rounds++;
	}
	return 0;
}

/* Find the pages that differ at the destination. All of them must be reported as dirty. */
static void compare(const struct migration *g)
{
	const uint8_t *memory = hgm_region_addr(g->m->region);
	uint64_t page;

	for (page = 0; page < g->pages; page++) {
		if (!memcmp(g->p->there + page * GUEST_PAGE, memory + page * GUEST_PAGE,
			    GUEST_PAGE))
			continue;
		g->p->stale++;
		g->p->missed += !is_set(g->bitmap, page);
	}
}

/* Pause the guest and send the rest. */
static int last_round(struct migration *g)
{
	struct precopy *p = g->p;
	struct precopy_round *r = &p->round[p->rounds++];
	double start_us = now_us(), compare_us;
	uint64_t dirty, i;
	int rc;

	rc = machine_pause(g->m);
	if (!rc)
		rc = machine_get_instant(g->m, &p->at);
	moment_now(&p->to, g->m);
	if (!rc)
		rc = collect(g, g->late, &dirty, r);
	if (rc)
		return rc;
	for (i = 0; i < g->words; i++)
		g->bitmap[i] |= g->late[i];
	compare_us = now_us();
	compare(g);
	compare_us = now_us() - compare_us;
	send_pages(g, r);
	p->pause_us = now_us() - start_us - compare_us;
	return 0;
}

static int look_at(struct migration *g)
{
	struct hgm_dirty_info info = { .size = sizeof(info) };
	int rc = said(g->m, hgm_dirty_get_info(g->dirty, &info));

	if (rc)
		return rc;
	g->p->unit = info.unit_bytes;
	g->p->flags = info.flags;
	snprintf(g->p->sentence, sizeof(g->p->sentence), "%s", info.sentence);
	return 0;
}

static int migrate(struct migration *g)
{
	struct hgm_dirty_opts opts = { .size = sizeof(opts), .flags = g->opts->flags };
	struct precopy *p = g->p;
	int rc;

	moment_now(&p->from, g->m);
	rc = said(g->m, hgm_dirty_start(&g->dirty, g->m->region, &opts));
	if (rc)
		return rc;
	p->start_us = now_us() - p->from.us;
	rc = look_at(g);
	if (!rc)
		rc = rounds(g);
	if (!rc)
		rc = last_round(g);
	hgm_dirty_stop(g->dirty);
	if (!rc)
		rc = moment_stalls(&p->stalls, g->m, &p->from, &p->to,
				   p->to.faults - p->from.faults);
	return rc;
}

int precopy_run(struct precopy *p, struct machine *m, const struct precopy_opts *opts)
{
	uint64_t length = hgm_region_length(m->region);
	struct migration g = {
		.p = p,
		.m = m,
		.opts = opts,
		.pages = length / GUEST_PAGE,
		.words = (length / GUEST_PAGE + 63) / 64,
	};
	int rc = -ENOMEM;

	*p = (struct precopy){ 0 };
	g.bitmap = calloc(g.words, 8);
	g.late = calloc(g.words, 8);
	p->there = mmap(NULL, length, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (p->there == MAP_FAILED)
		p->there = NULL;
	if (g.bitmap && g.late && p->there)
		rc = migrate(&g);
	else
		snprintf(m->why, sizeof(m->why), "no memory for the destination");
	free(g.bitmap);
	free(g.late);
	return rc;
}

void precopy_free(struct precopy *p, uint64_t length)
{
	if (p->there)
		munmap(p->there, length);
	p->there = NULL;
	stalls_free(&p->stalls);
}
