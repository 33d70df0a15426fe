/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that fault while the fault thread must not read, so that one read brings a batch of all
 * their messages. The fault thread's clock stands still, except where the source is told to take
 * time. All requests to the source and all calls to the kernel are recorded.
 */
#ifndef HGM_TEST_BATCH_H
#define HGM_TEST_BATCH_H

#include "harness.h"

#define BATCH_LENGTH (4 * MIB)
#define BATCH_MAX    40
#define CALLS	     1024
#define NOWHERE	     UINT64_MAX

extern const struct contents batch_contents;

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

/* Copies the recorded calls in order. Returns how many there are. */
unsigned int calls_of(enum verb verb, struct call to[CALLS]);
void forget_calls(void);

void clock_goes_on(uint64_t ns); /* advances it by @ns */
void clock_ticks(uint64_t ns);	 /* advances it by @ns each time it is read */
void clock_runs(void);		 /* makes it the real clock again */

/*
 * How the source behaves. Set it while no thread faults. Each case begins with a source that
 * answers everything.
 */
struct source_conduct {
	_Atomic uint64_t later_page; /* a request from there on is kept, once, for source_give() */
	_Atomic uint64_t bad_page;
	_Atomic uint64_t takes_ns; /* of the fault thread's clock, for each request */
	_Atomic bool stalls;	   /* answer nothing while it is set */
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
	struct ram ram;
	struct waiter waiter[BATCH_MAX];
	uint64_t page[BATCH_MAX];
	unsigned int count;
};

int batch_set_up(void **state);
int batch_tear_down(void **state);

struct trial *trial_begin(enum backing backing, uint32_t source_flags, uint32_t retries);
void trial_end(struct trial *t);
void trial_forget(struct trial *t); /* the region is gone already */

/* Between these two calls the fault thread reads nothing. */
void hold_back(void);
void let_go(void);

/* While the fault thread is held back, @count more threads fault, on every @step-th page. */
void batch_grows(struct trial *t, uint64_t first_page, uint64_t step, unsigned int count);
/* The same, holding the fault thread back itself. One read brings all their messages. */
void batch_comes(struct trial *t, uint64_t first_page, uint64_t step, unsigned int count);

bool is_back(void *waiter);
void assert_back(struct trial *t, unsigned int who);
void batch_returns(struct trial *t); /* all threads return, with the right contents */

#endif
