/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A crowd that faults while the fault thread may not read, so that one read brings all its
 * messages. The thread's clock stands still but where the source is said to take its time, and what
 * the source is asked for and the kernel is called for is noted.
 */
#ifndef HGM_TEST_CROWD_H
#define HGM_TEST_CROWD_H

#include "harness.h"

#define CROWD_LENGTH (4 * MIB)
#define CROWD_MAX    40
#define CALLS	     1024
#define NOWHERE	     UINT64_MAX

extern const struct contents crowd_contents;

enum verb {
	ASK, /* the source */
	CONTINUE,
	COPY,
	WAKE,
};

struct call {
	enum verb verb;
	uint64_t page;
	uint64_t pages;
	bool wakes;
	uint64_t at_ns; /* by the fault thread's clock */
};

/* In order; how many. */
unsigned int calls_of(enum verb verb, struct call to[CALLS]);
void forget_calls(void);

void clock_goes_on(uint64_t ns); /* by so much */
void clock_ticks(uint64_t ns);	 /* by so much each time it is looked at */
void clock_runs(void);		 /* as everywhere */

/* How the source behaves; set while nobody faults. Each case begins with one that answers all. */
struct source_conduct {
	_Atomic uint64_t later_page; /* from there on: kept once, to be given */
	_Atomic uint64_t bad_page;
	_Atomic uint64_t takes_ns; /* of the fault thread's clock, each time */
	_Atomic bool stalls;	   /* answers nothing while it is set */
};

extern struct source_conduct conduct;

bool source_keeps(void *unused);
void source_give(void);

/* Mapping the page fails once. */
void kernel_refuses(uint64_t page, int error);
bool kernel_refused(void);

struct trial {
	struct hgm_source *src;
	struct hgm *h;
	struct field f;
	struct waiter crowd[CROWD_MAX];
	uint64_t page[CROWD_MAX];
	unsigned int count;
};

int crowd_set_up(void **state);
int crowd_tear_down(void **state);

struct trial *trial_begin(enum place place, uint32_t source_flags, uint32_t retries);
void trial_end(struct trial *t);
void trial_forget(struct trial *t); /* the region is gone already */

/* The fault thread reads nothing in between. */
void hold_back(void);
void let_go(void);

/* While it is held back @count more fault, on every @step-th page. */
void crowd_gathers(struct trial *t, uint64_t first_page, uint64_t step, unsigned int count);
/* One read will bring them all. */
void crowd_comes(struct trial *t, uint64_t first_page, uint64_t step, unsigned int count);

bool is_back(void *waiter);
void assert_back(struct trial *t, unsigned int who);
void crowd_goes(struct trial *t); /* all, with what they came for */

#endif
