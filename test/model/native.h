/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared code of the tests of native regions: regions of hugetlb memory on the model of an HGM
 * kernel, with a record of the library's calls and hooks to interfere with them.
 */
#ifndef HGM_TEST_NATIVE_H
#define HGM_TEST_NATIVE_H

#include "harness.h"
#include "kernel/sys.h"
#include "model.h"
#include "region/hgm.h"

#define WAIT_MS SMALLER(30000, 200000)
#define LEAF	(2 * MIB)

enum call {
	CALL_API, /* addr: the features */
	CALL_SPLIT,
	CALL_REGISTER,
	CALL_CONTINUE,
	CALL_COLLAPSE,
	CALL_WAKE,
};

struct record {
	enum call call;
	uint64_t addr;
	uint64_t len;
	int rc;
};

/* The calls recorded since native_begin(), in the order in which they returned. */
unsigned int records(void);
struct record record_at(unsigned int i);

/* Scratch memory may have been where a region is now: drop the records of calls on it. */
void records_forget(void);

/* Number of recorded calls whose address lies in [addr, addr + len). */
unsigned int calls_in(enum call call, const void *addr, uint64_t len);

/* Functions that are called instead of the model's; NULL: the model's is called. */
struct meddling {
	int (*madvise)(void *addr, uint64_t len, int advice);
	int (*uffd_continue)(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done);
	int (*open)(const char *path, int flags);
};

extern struct meddling meddling;
extern const struct hgm_sys *model_kernel; /* the model's own functions */

/* hgm_sys is the model with the recorder on top. native_end() asserts that nothing is left. */
void native_begin(const struct model_opts *opts);
void native_begin_named(const char *name);
void native_end(void);

/* A region, its engine and its source. */
struct native {
	struct hgm *h;
	struct provider *provider;
	struct hgm_region *r;
	char *addr;
	uint64_t length;
};

/* Does not start to fill. */
void native_make(struct native *n, uint64_t block, uint64_t length, enum provider_kind kind,
		 uint32_t flags);
void native_free(struct native *n);

/* Options of a region of a backing, for hgm_region_create(). */
struct hgm_region_opts native_opts(uint32_t backing, uint64_t length,
				   const struct provider *provider);

extern const struct contents native_contents;

/* Every byte is right. Every block is huge, according to the library and to the page table. */
void assert_all_huge(const struct native *n);

/* Prefetch all pages of the range and wait until they have arrived, without fill. */
void fetch(const struct native *n, uint64_t page, uint64_t pages);

/* The leaves in the page table of the whole region, by size. */
struct model_leaves leaves_of(const struct native *n);

bool page_mapped(const void *addr);

/* Test cases for the HGM kernels. */
int on_hgm(void **state);
int on_hgm_next(void **state);
int on_rfc(void **state);
int off(void **state);

#define ON_BOTH(fn)                                         \
	{ #fn "@hgm", fn, on_hgm, off, NULL },              \
	{                                                   \
#fn "@hgm-next", fn, on_hgm_next, off, NULL \
	}

#endif
