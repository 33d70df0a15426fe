/* SPDX-License-Identifier: 0BSD */
/*
 * The guest's walk over all memory (guest.S): its tables, the same work done by a thread where KVM
 * is not available, and the check of the results.
 */
#ifndef WALK_H
#define WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guest.h"

/* A page to visit, as a guest physical address, and the time to read its first word. */
struct walk_visit {
	uint32_t page;
	uint32_t ticks;
};

/* One pass over a CPU's pages: its list, as guest physical addresses, and what was read. */
struct walk_pass {
	uint32_t first;
	uint32_t end;
	uint32_t words; /* sum of the words read */
	uint32_t order; /* sum of words as it was after each page (PASS_ALL: each word) */
};

/* What the host and a CPU tell each other. Several passes may share one list of visits. */
struct walk_box {
	uint32_t stop;
	uint32_t all;
	uint32_t rounds; /* how often each page was written to */
	uint32_t phase;	 /* PASS_*, PHASE_WRITE or PHASE_DONE */
	struct walk_pass pass[PASSES];
};

/**
 * struct walk - one walk
 * @low:	  the guest's ordinary memory at guest physical address 0: code, boxes, visits
 * @low_size:	  size of @low
 * @memory:	  the memory under test, at guest physical address GUEST_MEMORY
 * @length:	  size of @memory
 * @ticks_per_us: unit of walk_visit.ticks
 */
struct walk {
	uint8_t *low;
	size_t low_size;
	uint8_t *memory;
	uint64_t length;
	double ticks_per_us;
};

/**
 * walk_init - set up the tables: every page once, in an order shuffled by @seed, distributed over
 * the CPUs
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

/* Return the visits of a pass, and their number in @count. */
const struct walk_visit *walk_visits(const struct walk *w, int cpu, int pass, size_t *count);

/*
 * Ask all CPUs to finish. Each CPU ends its current round. Then, if it is fast enough, it reads
 * every word of its pages.
 */
void walk_stop(struct walk *w);

/* Return a text that says which phase a CPU is in. */
const char *walk_phase(const struct walk *w, int cpu);

/* Do the work of guest.S on the calling thread. Touches memory only as the guest would. */
void walk_by_thread(struct walk *w, int cpu);

/**
 * walk_check - check all that the guest read, and all memory, against the initial contents
 * @w:	      a finished walk
 * @contents: what the memory under test held at first
 * @why:      set to a text that says what is wrong, if anything
 * @size:     size of @why
 *
 * Computes the checksums of each pass again from @contents and the writes, and compares each byte
 * of the memory.
 */
bool walk_check(const struct walk *w, const void *contents, char *why, size_t size);

#endif /* WALK_H */
