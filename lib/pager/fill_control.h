/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The caller's control of fill at run time: rate, pause and order. The work queue's lock protects
 * all of it unless a comment says otherwise.
 */
#ifndef HGM_LIB_FILL_CONTROL_H
#define HGM_LIB_FILL_CONTROL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct hgm;
struct hgm_region;

/* The limits of a region, or of all regions of an engine together. All zero: no limit. */
struct hgm_fill_control {
	bool paused;
	uint64_t rate_bytes; /* per second; 0: no limit */
	uint64_t next_ns;    /* nothing is fetched before */
};

/* The measured rate of fill. */
struct hgm_fill_rate {
	uint64_t since_ns;
	uint64_t bytes; /* arrived since */
	uint64_t rate_bytes;
};

/* The order of a region's fill: the 2 MiB around the last fault come first. */
struct hgm_fill_near {
	_Atomic bool wanted;
	_Atomic uint64_t fault; /* page + 1 of the last fault; any thread */
	uint64_t next;		/* first the pages [next, end), from the fault on, */
	uint64_t end;
	uint64_t before; /* then [before, before_end) */
	uint64_t before_end;
};

/*
 * Must the fill of a region stop now? If it stops for a limited time, *soonest is lowered to the
 * time when it continues.
 */
bool hgm_fill_held(struct hgm_region *r, uint64_t *soonest);

/* How many of @bytes may be asked for at a time, a power of two. */
uint64_t hgm_fill_chunk(const struct hgm_region *r, uint64_t bytes);

/* The absent ones of these pages are asked for. All pages lie in one word of the map. */
void hgm_fill_charge(struct hgm_region *r, uint64_t page, uint64_t pages);

/* @bytes of fill have arrived. */
void hgm_fill_note(struct hgm *h, uint64_t bytes, uint64_t now_ns);

/* A thread waits for a page. Any thread, no lock. */
void hgm_fill_fault(struct hgm_region *r, uint64_t page);

/* How many pages from fill_near.next on come first. */
uint64_t hgm_fill_near(struct hgm_region *r);

#endif
