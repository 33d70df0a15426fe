/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared code of the tests of the model: a scene of huge pages with primary, alias and
 * userfaultfd, threads that touch memory, and test cases that run on several kernels. All system
 * calls go through hgm_sys, so that the same cases can run on the running kernel ("linux").
 */
#ifndef HGM_TEST_PLAY_H
#define HGM_TEST_PLAY_H

#include <errno.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include <hgm/uapi.h>

#include "kernel/sys.h"
#include "model.h"
#include "test.h"
#include "userfaultfd.h"

#define K4    UINT64_C(0x1000)
#define M2    UINT64_C(0x200000)
#define G1    UINT64_C(0x40000000)
#define EXACT HGM_UFFD_FEATURE_EXACT_ADDRESS

#define MISSING HGM_UFFD_MISSING
#define MINOR	HGM_UFFD_MINOR
#define WP	HGM_UFFD_WP

struct scene {
	uint64_t block;
	uint64_t len;
	int fd;
	int uffd;
	char *primary;
	char *alias;
	uint64_t ioctls; /* of the last registration */
};

/* The scene of the current test case. */
extern struct scene s;

/* Map @pages huge pages twice, without registering them. */
void scene(uint64_t block, unsigned int pages);
void scene_register(uint64_t features, uint64_t modes);
void scene_split(void);
void scene_end(void);

/* For cmocka_unit_test_prestate_setup_teardown(f, on, off, "hgm"). "linux" uses no model. */
int on(void **state);
int off(void **state);
bool on_linux(void);

#define ON(kernel, f)                                                                \
	{                                                                            \
#f "@" kernel, f, on, off, (void *)(uintptr_t)(const void *)(kernel) \
	}

/* Skip the test case if the kernel, modelled or running, does not have that many huge pages. */
void needs_pages(uint64_t block, uint64_t pages);

/* Operations on offsets in the primary. They return the result; "done" is what the ioctl wrote. */
extern int64_t done;
int cont(uint64_t offset, uint64_t len);
int cont_mode(uint64_t offset, uint64_t len, uint64_t mode);
int copy(uint64_t offset, uint64_t len, char byte);
int protect(uint64_t offset, uint64_t len, bool wp);
int wake(uint64_t offset, uint64_t len);
int advise(uint64_t offset, uint64_t len, int advice);
int collapse(uint64_t offset, uint64_t len);
void fill(uint64_t offset, uint64_t len); /* writes each page's number through the alias */

#define DONE_UNTOUCHED INT64_C(0)

#define assert_did(call, bytes)                           \
	do {                                              \
		assert_int_equal(call, 0);                \
		assert_int_equal(done, (int64_t)(bytes)); \
	} while (0)

/* Nothing was done, and both the call and the result field give the error. */
#define assert_none(call, error)                  \
	do {                                      \
		assert_int_equal(call, -(error)); \
		assert_int_equal(done, -(error)); \
	} while (0)

/* The numbers of PUD, PMD and PTE leaves in the primary's page table. */
#define assert_leaves(puds, pmds, ptes)                                  \
	do {                                                             \
		struct model_leaves l_ = model_leaves(s.primary, s.len); \
		assert_int_equal(l_.pud / G1, puds);                     \
		assert_int_equal(l_.pmd / M2, pmds);                     \
		assert_int_equal(l_.pte / K4, ptes);                     \
	} while (0)

/* Messages: wait for a limited time until a fault is reported. */
struct told {
	uint64_t offset; /* in the primary */
	uint64_t flags;
};

bool told(struct told *t, int ms);
#define assert_told(at, want)                     \
	do {                                      \
		struct told t_;                   \
		assert_true(told(&t_, 5000));     \
		assert_int_equal(t_.offset, at);  \
		assert_int_equal(t_.flags, want); \
	} while (0)
#define assert_silence()                     \
	do {                                 \
		struct told t_;              \
		assert_false(told(&t_, 30)); \
	} while (0)

/* A thread that touches a byte of the primary. */
struct toucher {
	pthread_t thread;
	uint64_t offset;
	bool write;
	_Atomic int back; /* the access is complete */
	int continued;	  /* continued() at the start */
	char value;
};

void touch_start(struct toucher *t, uint64_t offset, bool write);
void touch_end(struct toucher *t); /* the access must complete soon */
/* True if the access is not complete after a while, or if this process was stopped meanwhile. */
bool touch_waits(struct toucher *t);
/* Touch a byte, which must not cause a message. Returns the byte. */
char touch_silently(uint64_t offset, bool write);

/* The value of a smaps line, in kB, of the mapping at the primary's @offset; -1: no such line. */
int64_t smaps_kb(uint64_t offset, const char *name);
bool smaps_flag(uint64_t offset, const char *flag);

/*
 * Run @fn in a child of fork(), which has the mappings, but no page tables of theirs. Returns 0 if
 * the child was killed by the model, with @words in what it wrote; else its exit status.
 */
int in_child(int (*fn)(void), const char *words);

/* Bits of an entry of pagemap, and the number of pages of the primary whose entries have one. */
#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PAGEMAP_UFFD_WP (UINT64_C(1) << 57)
uint64_t pages_with(uint64_t bit);

struct model_pool pool_now(uint64_t block); /* read from sysfs */

#endif
