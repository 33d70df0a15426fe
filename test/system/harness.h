/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts that the system tests of the engine share: contents that reveal any wrong byte, sources
 * that deliver them in all ways, memory of all kinds, threads that touch pages, and a watchdog for
 * calls that hang.
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

/* An internal function of the library. It clears the text, so that a later text is the call's. */
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
 * Ends the program with a message unless calm() is called in time. This is for calls that may never
 * return.
 */
void watch(const char *what, unsigned int seconds);
void calm(void);

void nap_us(unsigned int us);
uint64_t now_us(void);
uint64_t random_of(_Atomic uint64_t *state);
uint64_t mix(uint64_t x);

/*
 * The factor by which this machine may be slower than a plain one. Sanitizers make everything
 * slower. HGM_TEST_SLOW=N gives the factor of an emulated machine.
 */
unsigned int slowness(void);
#define SMALLER(native, slow) (slowness() > 1 ? (slow) : (native))

/* Of a long list of trials, an emulated machine runs one in @n. All other machines run each one. */
bool turn_of(unsigned int *turn, unsigned int n);

/*
 * Features that some kernels lack, and that change what tests must expect. kernel_has() asks
 * through the library, so that it also asks what a test has put in the kernel's place.
 */
enum kernel_feature {
	KERNEL_POISON,	     /* UFFDIO_POISON, 6.6 */
	KERNEL_PAGEMAP_SCAN, /* 6.7 */
};

bool kernel_has(enum kernel_feature feature);

/* For a test that has no counterpart without the feature. */
#define skip_unless(feature)                                                               \
	do {                                                                               \
		if (!kernel_has(feature))                                                  \
			test_skip("this kernel has no %s", kernel_feature_names[feature]); \
	} while (0)

extern const char *const kernel_feature_names[];

/*
 * Contents: each word of each page is a function of the seed, the page and the word's place in it.
 * Pages that are holes are zero.
 */
struct contents {
	uint64_t seed;
	bool holes;
};

bool contents_hole(const struct contents *c, uint64_t page);
void contents_write(const struct contents *c, uint64_t page, uint64_t pages, void *to);

/*
 * Touchers may have overwritten the first words of a page, each in its own slot, with its own mark.
 * @mine is a slot that must hold its mark, or -1. If the result is false, @why says what is wrong.
 */
#define SLOTS 16
bool page_right(const struct contents *c, uint64_t page, const void *at, int mine, char why[160]);
/* Like page_right(), but does not catch signals. */
bool words_right(const struct contents *c, uint64_t page, const uint64_t *in, int mine,
		 char why[160]);
void page_mark(uint64_t page, void *at, unsigned int slot);

/* Checks all pages from @at on. Fails the test if one is wrong. */
void assert_pages(const struct contents *c, uint64_t first_page, uint64_t pages, const void *at);

/* A source, and the way in which it delivers. */
enum provider_kind {
	PROVIDER_MEMORY,
	PROVIDER_FILE,	   /* on a disk, with holes if the contents have them */
	PROVIDER_NOW,	   /* a function that answers at once */
	PROVIDER_LATER,	   /* three threads answer, in random order */
	PROVIDER_BLOCKING, /* a function that sleeps */
	PROVIDER_SHORT,	   /* a function that answers at most three pages at a time */
	PROVIDER_KINDS,
	PROVIDER_MIXED, /* a function that mixes these, or fails, but never three times */
	/*
	 * A function that answers for the first pages only. It keeps the other requests until they
	 * are cancelled.
	 */
	PROVIDER_NEVER,
};

extern const char *const provider_names[];

struct provider;

struct provider *provider_make(enum provider_kind kind, const struct contents *c, uint64_t length);
struct hgm_source *provider_source(const struct provider *provider);
void provider_free(struct provider *provider); /* no region may use it any more */

/*
 * PROVIDER_NEVER: provider_answer_below() sets how many pages from the start it answers for.
 * provider_kept() returns how many requests it keeps.
 */
void provider_answer_below(struct provider *provider, uint64_t page);
unsigned int provider_kept(struct provider *provider);
void provider_give(struct provider *provider); /* answers the requests that it keeps */
unsigned int provider_cancels(const struct provider *provider);

/* The kinds of memory that a region can consist of. */
enum backing {
	BACKING_SHMEM,
	BACKING_SHMEM_LAZY,
	BACKING_ANON,
	BACKING_FD,
	BACKING_FD_LAZY,
	BACKING_MAPPING,
	BACKING_MAPPING_LAZY,
	BACKING_MAPPING_ANON,
	BACKING_HUGETLB_2M,
	BACKING_FD_HUGETLB_2M,
	BACKING_HUGETLB_1G,
	BACKINGS,
	BACKINGS_SMALL = BACKING_HUGETLB_2M, /* the kinds before it need no huge page pool */
};

extern const char *const backing_names[];

/* A region together with the file and the mapping that the caller supplies for it. */
struct ram {
	struct hgm_region *region;
	char *addr;
	uint64_t length;
	int fd;		    /* the caller's, -1: none */
	uint64_t fd_offset; /* of the region's first byte */
	char *mapping;	    /* the caller's */
	char *around;	    /* what the caller has mapped around it, and its length: margins.h */
	uint64_t around_length;
};

uint64_t backing_block(enum backing backing);
bool backing_can_be_huge(enum backing backing); /* by collapse */

/* The reason why a region of that kind cannot be created at the moment. NULL: it can. */
const char *backing_lacking(enum backing backing, uint64_t length);

/* The caller's memory holds other bytes at first. They must never be seen in the region. */
int ram_try(struct ram *ram, struct hgm *h, enum backing backing, uint64_t length,
	    struct hgm_source *src, uint64_t source_offset, uint32_t flags);
void ram_make(struct ram *ram, struct hgm *h, enum backing backing, uint64_t length,
	      struct hgm_source *src, uint32_t flags);
void ram_end(struct ram *ram);	   /* destroys the region */
void ram_release(struct ram *ram); /* frees the caller's memory; the region is gone already */

struct hgm *engine(uint32_t fault_threads);
struct hgm *engine_with(struct hgm_opts opts);
struct hgm_region_info info_of(const struct hgm_region *r);
struct hgm_stats stats_of(const struct hgm *h);
struct hgm_progress progress_of(struct hgm *h);
uint64_t huge_in_smaps(const void *addr, uint64_t length);

/*
 * At least 95 of 100 blocks must be huge, as reported by the library, by PAGEMAP_SCAN and by smaps.
 */
void assert_huge(const struct ram *ram, enum backing backing);

/* Threads that touch all pages, each in its own order, and check every byte. */
struct plan {
	const struct contents *contents;
	const void *addr;
	uint64_t first_page; /* of the source */
	uint64_t pages;
	uint64_t step;	     /* touch every step-th page only; 0: all */
	unsigned int passes; /* 0: one */
	bool write;	     /* mark each page after reading it; later passes expect the mark */
	_Atomic bool *stop;  /* go on until it is set */
};

struct touchers {
	unsigned int count;
	struct toucher *each;
};

void touchers_start(struct touchers *t, unsigned int count, const struct plan *plan);
void touchers_join(struct touchers *t);

/* Once in each case (engine() does it). The functions below then catch SIGSEGV and SIGBUS. */
void catch_faults(void);

/* Reads a byte. Returns 0, or the signal that the access raised. */
int touch(const void *addr, uint8_t *value);

/* Writes a byte with the value that it has already. Returns the same as touch(). */
int touch_write(void *addr);

/* A thread that touches one byte and reports the result. */
struct waiter {
	pthread_t thread;
	const void *addr;
	_Atomic int signal; /* -1: it has not returned yet */
	uint8_t value;
};

void waiter_start(struct waiter *w, const void *addr);
void waiter_join(struct waiter *w);

/* True as soon as @done(@arg) is true. False if that does not happen in time. */
bool eventually(bool (*done)(void *), void *arg, unsigned int ms);

#endif
