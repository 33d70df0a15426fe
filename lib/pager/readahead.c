/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many pages a source is asked for when a thread waits for one of them.
 *
 * A thread that walks through memory waits for each page in turn, and most of that time is the
 * round trip to the source. So the request also covers the pages behind: as many as a walking
 * thread would soon wait for (fault_around.c detects walks), provided that the answer takes at most
 * twice as long as the answer for a single page. This is what the source delivers within its
 * latency: a fast and distant link gets large requests, a slow and near one does not.
 *
 * The faults themselves measure both times. Each is the shortest of recent answers, because other
 * load only ever adds to it. To keep both up to date, some faults ask for a single page and some
 * ignore the measured limit. Such a fault must be on the first page of a fault-around window.
 * Without this rule, a thread that walks page by page, one fault for each page, would always probe
 * at the same place of a window, which may be the last page.
 */
#include "readahead.h"

#define TIMES_MAX	   2
#define PROBE_EVERY	   64  /* faults between probes with a single page */
#define PROBE_WINDOW_EVERY 256 /* likewise, with a whole fault-around window */
#define RISE		   16

static unsigned int order_of(uint64_t pages)
{
	return 63 - (unsigned int)__builtin_clzll(pages);
}

void hgm_readahead_init(struct hgm_readahead *a)
{
	hgm_fault_around_init(&a->around, 1, HGM_READAHEAD_ORDERS - 1);
}

static uint64_t took(const struct hgm_readahead *a, unsigned int order)
{
	return atomic_load_explicit(&a->took_ns[order], memory_order_relaxed);
}

/* Must this fault ask for a whole fault-around window, to measure how long that takes? */
static bool probes(struct hgm_readahead *a, uint64_t page, uint64_t window, uint32_t faults)
{
	if (!(faults % PROBE_WINDOW_EVERY))
		atomic_store_explicit(&a->probe_due, true, memory_order_relaxed);
	if (window == 1 || page % window ||
	    !atomic_load_explicit(&a->probe_due, memory_order_relaxed))
		return false;
	atomic_store_explicit(&a->probe_due, false, memory_order_relaxed);
	return true;
}

uint64_t hgm_readahead_pages(struct hgm_readahead *a, uint64_t page)
{
	uint64_t window = hgm_fault_around_fault(&a->around, page);
	uint32_t faults = atomic_load_explicit(&a->around.faults, memory_order_relaxed);
	unsigned int order = order_of(window);

	if (probes(a, page, window, faults))
		return window;
	if (!(faults % PROBE_EVERY))
		return 1;
	while (order && took(a, order) > TIMES_MAX * took(a, 0))
		order--;
	window = UINT64_C(1) << order;
	return window - page % window;
}

void hgm_readahead_took(struct hgm_readahead *a, uint64_t pages, uint64_t ns)
{
	unsigned int order = order_of(pages);
	uint64_t before;

	if (order >= HGM_READAHEAD_ORDERS || pages != UINT64_C(1) << order)
		return;
	before = took(a, order);
	if (before && ns > before + before / RISE)
		ns = before + before / RISE;
	atomic_store_explicit(&a->took_ns[order], ns, memory_order_relaxed);
}
