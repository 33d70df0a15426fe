/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whole lives of everything that the library creates, each a few milliseconds long, for tests in
 * which one thing goes wrong at a time. A call that fails is repeated, and then succeeds. The
 * contents are right in the end.
 */
#ifndef HGM_TEST_LIVES_H
#define HGM_TEST_LIVES_H

#include "harness.h"

struct life {
	const char *name;
	void (*run)(const struct life *life);
	enum backing backing;
	uint32_t flags;					 /* of the region */
	void (*then)(struct hgm *, struct hgm_region *); /* when all pages have arrived */
	bool other; /* the region is destroyed before the engine; the source is memory */
	/* Try one in @every failures. 0: try all, also at places that an earlier life reached. */
	uint32_t every;
};

/* The last entry has no name. */
extern const struct life lives[];

/*
 * Call lives_prepare() once, before the first life. life_lacking() returns the reason why a life
 * cannot run here, or NULL.
 */
void lives_prepare(void);
const char *life_lacking(const struct life *life);

/* What a test adds to the lives. */
extern struct lives_hooks {
	void (*failed)(int rc, const char *call); /* checks that a call failed in the right way */
	void (*begins)(void); /* other lives cover what was done before this call */
	bool plain;	      /* nothing goes wrong */
	bool huge;	      /* the memory became huge when nothing went wrong */
	bool may_poison;      /* pages may be given up, as documented */
	char what[160];	      /* what goes wrong at the moment, for messages */
} lives_hooks;

/* Checks that in the end the process holds what @before says, and nothing more. */
struct remains {
	struct holdings before;
	long pieces;
	int64_t mapped;
};

struct remains remains_take(void);
void assert_nothing_remains(struct remains *r);

#endif
