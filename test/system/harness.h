/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the system tests of the engine share: contents that betray any wrong byte, sources that
 * deliver them in all ways, memory of all kinds, threads that touch, and an end for what hangs.
 */
#ifndef HGM_TEST_HARNESS_H
#define HGM_TEST_HARNESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include <hgm/hgm.h>

#include "leaks.h"
#include "test.h"
#include "userfaultfd.h"

#define PAGE UINT64_C(4096)
#define MIB  (UINT64_C(1) << 20)
#define GIB  (UINT64_C(1) << 30)

/* The library's own, to clear its text: a text that stands afterwards is the call's. */
int hgm_fail(int rc, const char *format, ...);

#define assert_ok(call)                                                                     \
	do {                                                                                \
		int rc_ = (call);                                                           \
		if (rc_)                                                                    \
			fail_msg("%s: %s: %s", #call, strerrorname_np(-rc_), hgm_errmsg()); \
	} while (0)

#define assert_error(call, want)                                                              \
	do {                                                                                  \
		int rc_;                                                                      \
		hgm_fail(0, "%s", "");                                                        \
		rc_ = (call);                                                                 \
		if (rc_ != (want))                                                            \
			fail_msg("%s: %d instead of %d: %s", #call, rc_, want, hgm_errmsg()); \
		if (strlen(hgm_errmsg()) < 15)                                                \
			fail_msg("%s: says only '%s'", #call, hgm_errmsg());                  \
	} while (0)

/*
 * Ends the program with a message unless calm() is called in time: for calls that may never
 * return.
 */
void watch(const char *what, unsigned int seconds);
void calm(void);

void nap_us(unsigned int us);
uint64_t now_us(void);
uint64_t random_of(_Atomic uint64_t *state);
uint64_t mix(uint64_t x);

/*
 * By what factor this machine may be slower than a plain one: sanitizers make everything slower,
 * and HGM_TEST_SLOW=N says so of an emulated machine.
 */
unsigned int slowness(void);
#define SMALLER(native, slow) (slowness() > 1 ? (slow) : (native))

/*
 * What kernels differ in, and tests must expect different things for. The library is asked, so that
 * what a test puts in the kernel's place is asked too.
 */
enum kernel_feature {
	KERNEL_POISON,	     /* UFFDIO_POISON, 6.6 */
	KERNEL_PAGEMAP_SCAN, /* 6.7 */
};

bool kernel_has(enum kernel_feature feature);

/* For what has no counterpart without the feature. */
#define skip_unless(feature)                                                               \
	do {                                                                               \
		if (!kernel_has(feature))                                                  \
			test_skip("this kernel has no %s", kernel_feature_names[feature]); \
	} while (0)

extern const char *const kernel_feature_names[];

/*
 * Contents: each word of each page is a function of seed, page and place. Pages that are holes
 * are zero.
 */
struct contents {
	uint64_t seed;
	bool holes;
};

bool contents_hole(const struct contents *c, uint64_t page);
void contents_write(const struct contents *c, uint64_t page, uint64_t pages, void *to);

/*
 * The first words of a page may have been overwritten by touchers, each in its own slot, with a
 * mark of its own. @mine: a slot that must hold its mark, or -1. False: *why says what is
 * wrong.
 */
#define SLOTS 16
bool page_right(const struct contents *c, uint64_t page, const void *at, int mine, char why[160]);
/* As page_right(), where nobody is prepared for a signal. */
bool words_right(const struct contents *c, uint64_t page, const uint64_t *in, int mine,
		 char why[160]);
void page_mark(uint64_t page, void *at, unsigned int slot);

/* All pages from @at on; fails the test. */
void assert_pages(const struct contents *c, uint64_t first_page, uint64_t pages, const void *at);

/* A source, and what stands behind it. */
enum feed_kind {
	FEED_MEMORY,
	FEED_FILE,     /* on a disk, with holes if the contents have them */
	FEED_NOW,      /* a function, answering at once */
	FEED_LATER,    /* answering from three threads in random order */
	FEED_BLOCKING, /* a function that sleeps */
	FEED_SHORT,    /* answering at most three pages at a time */
	FEED_KINDS,
	FEED_MIXED, /* a function that does one or the other, or fails, and not three times */
	/*
	 * A function that answers for the first pages only; the rest it keeps until it is
	 * cancelled.
	 */
	FEED_NEVER,
};

extern const char *const feed_names[];

struct feed;

struct feed *feed_make(enum feed_kind kind, const struct contents *c, uint64_t length);
struct hgm_source *feed_source(const struct feed *feed);
void feed_free(struct feed *feed); /* when no region uses it any more */

/*
 * FEED_NEVER: how many pages from the start it answers for; how many requests it has been given
 * and keeps.
 */
void feed_answer_below(struct feed *feed, uint64_t page);
unsigned int feed_kept(struct feed *feed);
void feed_give(struct feed *feed); /* answer what it keeps */
unsigned int feed_cancels(const struct feed *feed);

/* The kinds of memory that a region can be of. */
enum place {
	PLACE_SHMEM,
	PLACE_SHMEM_LAZY,
	PLACE_ANON,
	PLACE_FD,
	PLACE_FD_LAZY,
	PLACE_MAPPING,
	PLACE_MAPPING_LAZY,
	PLACE_MAPPING_ANON,
	PLACE_HUGETLB_2M,
	PLACE_FD_HUGETLB_2M,
	PLACE_HUGETLB_1G,
	PLACES,
	PLACES_SMALL = PLACE_HUGETLB_2M, /* those before it need no huge page pool */
};

extern const char *const place_names[];

/* A region together with what the caller brought for it. */
struct field {
	struct hgm_region *region;
	char *addr;
	uint64_t length;
	int fd;	       /* the caller's, -1: none */
	char *mapping; /* the caller's */
};

uint64_t place_block(enum place place);
bool place_can_be_huge(enum place place); /* by collapsing */

/* Why a region of that kind cannot be had at the moment; NULL if it can. */
const char *place_lacking(enum place place, uint64_t length);

/* What the caller brings is full of other bytes, and must not be seen again. */
int field_try(struct field *f, struct hgm *h, enum place place, uint64_t length,
	      struct hgm_source *src, uint64_t source_offset, uint32_t flags);
void field_make(struct field *f, struct hgm *h, enum place place, uint64_t length,
		struct hgm_source *src, uint32_t flags);
void field_end(struct field *f);     /* destroys the region */
void field_release(struct field *f); /* the caller's memory only: the region is gone already */

struct hgm *engine(uint32_t fault_threads);
struct hgm *engine_with(struct hgm_opts opts);
struct hgm_region_info info_of(const struct hgm_region *r);
struct hgm_stats stats_of(const struct hgm *h);
struct hgm_progress progress_of(struct hgm *h);
uint64_t huge_in_smaps(const void *addr, uint64_t length);

/*
 * Of the whole blocks at least 95 of 100 are huge, by the library, by PAGEMAP_SCAN and by
 * smaps.
 */
void assert_huge(const struct field *f, enum place place);

/* Threads that touch all pages, each in an order of its own, and look at every byte. */
struct plan {
	const struct contents *contents;
	const void *addr;
	uint64_t first_page; /* of the source */
	uint64_t pages;
	uint64_t step;	     /* touch each step-th page only; 0: all */
	unsigned int passes; /* 0: one */
	bool write;	     /* mark each page after reading it; later passes want the mark */
	_Atomic bool *stop;  /* go on until it is set */
};

struct touchers {
	unsigned int count;
	struct toucher *each;
};

void touchers_start(struct touchers *t, unsigned int count, const struct plan *plan);
void touchers_join(struct touchers *t);

/* Once in each case (engine() does it): SIGSEGV and SIGBUS are to be caught by what follows. */
void catch_faults(void);

/* Read a byte: 0, or the signal that it raised. */
int touch(const void *addr, uint8_t *value);

/* A thread that touches one byte and tells how it fared. */
struct waiter {
	pthread_t thread;
	const void *addr;
	_Atomic int signal; /* -1: not back yet */
	uint8_t value;
};

void waiter_start(struct waiter *w, const void *addr);
void waiter_join(struct waiter *w);

/* True once @done(@arg), false if it is not in time. */
bool eventually(bool (*done)(void *), void *arg, unsigned int ms);

#endif
