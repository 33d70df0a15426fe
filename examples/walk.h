/* SPDX-License-Identifier: 0BSD */
/*
 * The walk over all memory that the guest does (guest.S): its tables, the same work done by a
 * thread where there is no KVM, and the check of what came of it.
 */
#ifndef WALK_H
#define WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guest.h"

/* A page to visit, in guest physical address space, and how long its first word took. */
struct walk_visit {
	uint32_t page;
	uint32_t ticks;
};

/* One pass over a CPU's pages: which, as guest physical addresses, and what was read. */
struct walk_pass {
	uint32_t first;
	uint32_t end;
	uint32_t words; /* sum of the words read */
	uint32_t order; /* sum of that sum after each page (PASS_ALL: after each word) */
};

/* What a CPU is told and what it tells. Several passes may share one list of visits. */
struct walk_box {
	uint32_t stop;
	uint32_t all;
	uint32_t rounds; /* how often each page was written to */
	uint32_t phase;	 /* PASS_*, PHASE_WRITE or PHASE_DONE */
	struct walk_pass pass[PASSES];
};

/**
 * struct walk - one walk
 * @low:	  the guest's ordinary memory: code, boxes, visits; guest physical address 0
 * @low_size:	  its size
 * @memory:	  the memory under test; guest physical address GUEST_MEMORY
 * @length:	  its size
 * @ticks_per_us: what walk_visit.ticks count
 */
struct walk {
	uint8_t *low;
	size_t low_size;
	uint8_t *memory;
	uint64_t length;
	double ticks_per_us;
};

/**
 * walk_init - lay out the tables: every page once, in an order shuffled by @seed, dealt out to the
 * CPUs
 * @w:	    filled in
 * @memory: the memory under test; not touched
 * @length: bytes, a multiple of two pages, at most GUEST_MAX_LENGTH
 * @seed:   equal seeds give equal orders
 *
 * Return: 0 or a negative errno.
 */
int walk_init(struct walk *w, void *memory, uint64_t length, uint64_t seed);
void walk_free(struct walk *w);

struct walk_box *walk_box(const struct walk *w, int cpu);

/* The visits of a pass, and how many there are. */
const struct walk_visit *walk_visits(const struct walk *w, int cpu, int pass, size_t *count);

/*
 * Ask all CPUs to finish: each ends the round that it is in, and then, if it is fast enough for
 * that, reads every word of its pages.
 */
void walk_stop(struct walk *w);

/* In words where a CPU is. */
const char *walk_phase(const struct walk *w, int cpu);

/* What guest.S does, by the calling thread. Touches memory only as the guest would. */
void walk_by_thread(struct walk *w, int cpu);

/**
 * walk_check - does all that the guest read, and all memory now, follow from what it began with?
 * @w:	      a finished walk
 * @contents: what the memory under test held at first
 * @why:      set to what is wrong, if anything
 * @size:     its size
 *
 * The checksums of each pass are computed anew from @contents and the writes, and each byte of the
 * memory is compared.
 */
bool walk_check(const struct walk *w, const void *contents, char *why, size_t size);

#endif /* WALK_H */
