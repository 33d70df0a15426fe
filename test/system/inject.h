/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A kernel that fails on demand. Each member of struct hgm_sys can return each error that its
 * system call can return, at one call from one place in the library.
 */
#ifndef HGM_TEST_INJECT_H
#define HGM_TEST_INJECT_H

#include <stdbool.h>
#include <stdint.h>

/* Other results of a call that are not plain errors. */
#define INJECT_SHORT 1 /* read and write: only a part is transferred */
#define INJECT_NAKED 2 /* a range: EAGAIN, and the result field is not written */
#define INJECT_PART  3 /* a range: EAGAIN after half of it has been done */
#define INJECT_DONE  4 /* a range: EEXIST, and the pages do exist */

/* One row of the table: a system call, or one use of it. */
struct inject_verb {
	const char *name;
	int results[14]; /* negative errno or INJECT_*, up to the first 0 */
};

/* A place that calls the kernel. */
struct inject_site {
	const struct inject_verb *verb;
	const void *from; /* the call's return address */
	unsigned int calls;
};

/* Inserts it between the library and the kernel. No object of the library may exist. */
void inject_begin(void);

/* inject_count() forgets all sites and begins to count calls. */
void inject_count(void);
void inject_count_no_more(void);
/* Returns the sites that have been counted, at most @max. */
unsigned int inject_sites(struct inject_site *sites, unsigned int max);

/* Only the @nth call from that place, counted from 0, has that result. */
void inject_arm(const struct inject_site *site, unsigned int nth, int result);
/* True if that call has been made. Unmaps what a failed munmap() has left mapped. */
bool inject_disarm(void);

const char *inject_result_name(int result);
/* The place as an address for addr2line(1). */
uint64_t inject_backing(const struct inject_site *site);

/* The whole table. */
const struct inject_verb *inject_verbs(unsigned int *count);

#endif
