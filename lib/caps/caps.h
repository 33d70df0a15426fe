/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internals of the capability table: scratch memory for the tests, and how an answer is given.
 *
 *	caps.c		the table and its public functions
 *	caps_scratch.c	scratch mappings, answers
 *	caps_open.c	ways to open a userfaultfd, features; guest_memfd
 *	caps_uffd.c	userfaultfd operations per kind of memory
 *	caps_fault.c	tests that need a thread that faults
 *	caps_rwp.c	protection against all access: what has been accessed
 *	caps_huge.c	huge pages: pools, collapse, PAGEMAP_SCAN
 *	caps_hgm.c	high-granularity mapping: tests that need no huge page
 *	caps_hgm_feature.c the same, by feature bit 13
 *	caps_hgm_proof.c high-granularity mapping: the test on a huge page
 *	caps_denied.c	the reason why a userfaultfd is refused
 */
#ifndef HGM_LIB_CAPS_H
#define HGM_LIB_CAPS_H

#include <stdbool.h>
#include <stddef.h>

#include <hgm/caps.h>

#include "kernel/sys.h"

struct uffd_msg;

enum hgm_memory {
	HGM_MEMORY_NONE,
	HGM_MEMORY_ANON,
	HGM_MEMORY_SHMEM,
	HGM_MEMORY_GUEST, /* guest_memfd */
	HGM_MEMORY_HUGETLB_2M,
	HGM_MEMORY_HUGETLB_1G,
};

/* What feature bit 13 of userfaultfd means on this kernel. */
enum hgm_bit13 {
	HGM_BIT13_UNKNOWN,  /* not tried yet */
	HGM_BIT13_IS_OTHER, /* not known, WP_UNPOPULATED, or of no effect */
	HGM_BIT13_IS_HGM,   /* MINOR_HUGETLBFS_HGM: CONTINUE takes 4 KiB of hugetlb */
};

/* One pass over the table, and the answer to the current row. */
struct hgm_probe {
	unsigned int flags;
	uint64_t page; /* bytes */
	int no_uffd;   /* 0, or the -errno with which no userfaultfd could be opened */
	enum hgm_bit13 bit13;
	bool by_feature; /* high-granularity mapping is asked for by bit 13, not MADV_SPLIT */

	uint32_t answer;
	uint64_t value;
	char reason[512];
};

/* A row of the table. Each probe gives exactly one answer. */
struct hgm_probe_row {
	const char *name;
	void (*probe)(struct hgm_probe *p, const struct hgm_probe_row *row);
	enum hgm_memory memory;
	bool block;	  /* in whole blocks instead of pages */
	uint64_t feature; /* HGM_UFFD_FEATURE_* that the probe enables */
};

/*
 * Scratch memory of one block. Primary and alias (shared memory only) lie block aligned in one
 * reservation of address space, so that one munmap removes both, and nothing else can be mapped in
 * between.
 */
struct hgm_scratch {
	int uffd;
	int memfd;
	char *base;
	uint64_t base_len;
	char *primary;
	char *alias;
	uint64_t block;
	bool reserved; /* its pages may be touched; false for hugetlb without a page to spare */
};

__attribute__((format(printf, 3, 4))) void hgm_probe_answer(struct hgm_probe *p,
							    enum hgm_answer answer,
							    const char *format, ...);

/* Give the answer for a failure with errno @rc, in the words "@what: ERRNO". */
void hgm_probe_answer_errno(struct hgm_probe *p, int rc, const char *what);

/* Open a userfaultfd in any way, with @features enabled. Returns the descriptor or -errno. */
int hgm_probe_open_uffd(uint64_t features);

/* The text for a test that is not run because the caller did not ask for it. */
#define HGM_SAY_USE_HUGE_PAGES \
	"the test takes a huge page for a moment; HGM_CAPS_USE_HUGE_PAGES allows it"

/* "4 KiB", "2 MiB", "1 GiB" */
struct hgm_size_text {
	char text[24];
};
struct hgm_size_text hgm_probe_size(uint64_t bytes);

/* Read the text of a short file, without the newline. Returns its length or -errno. */
int hgm_probe_read_text(const char *path, char *buf, size_t len);

/* If one of these returns false, it has given the answer; the caller only closes. */
bool hgm_scratch_open(struct hgm_probe *p, struct hgm_scratch *s, enum hgm_memory memory);
bool hgm_scratch_populate(struct hgm_probe *p, struct hgm_scratch *s, char *addr, uint64_t len);
bool hgm_scratch_register(struct hgm_probe *p, struct hgm_scratch *s, uint64_t features,
			  uint64_t modes);

/* A guest_memfd that can be mapped; if the result is negative, the answer has been given. */
int hgm_probe_guest_memfd(struct hgm_probe *p, uint64_t len);

/* End the registration and wake the threads that wait. */
void hgm_scratch_unregister(struct hgm_scratch *s);
void hgm_scratch_close(struct hgm_scratch *s);

/*
 * A thread touches one byte of the primary. Then the registration ends, so that the thread goes on,
 * and the thread is joined.
 */
enum hgm_came {
	HGM_CAME_FAULT, /* a message arrived */
	HGM_CAME_DONE,	/* the thread continued without one */
	HGM_CAME_NONE,	/* it could not be tried; the answer has been given */
};

enum hgm_came hgm_probe_touch(struct hgm_probe *p, struct hgm_scratch *s, bool write,
			      struct uffd_msg *msg, uint32_t *tid);

/* The word of a page in /proc/self/pagemap, or -errno. */
#define HGM_PAGEMAP_PRESENT (INT64_C(1) << 62) /* bit 63, moved to keep the sign for errors */
#define HGM_PAGEMAP_UFFD_WP (INT64_C(1) << 57)
int64_t hgm_probe_pagemap(const struct hgm_probe *p, const void *addr);

/* The bytes of the range that PAGEMAP_SCAN reports as huge, or -errno. */
int64_t hgm_probe_huge_bytes(const void *addr, uint64_t len);

/*
 * Give the answer: does PAGEMAP_SCAN find, among the four pages from @start on, only that at @only?
 * @what completes "the one page that ...".
 */
void hgm_probe_scan(struct hgm_probe *p, const char *start, uint64_t category, const char *only,
		    const char *what);

/* MADV_COLLAPSE, repeated if it fails for a reason that may be temporary. */
int hgm_probe_try_collapse(void *addr, uint64_t len);

/*
 * High-granularity mapping of blocks of @block_bytes (2 MiB or 1 GiB): is it proven on this kernel?
 * The verdict is in p->answer; p->reason has the stage that decided it, the reason, and, if it is
 * yes, how it is asked for. Stops at the first stage that says no. Takes a huge page for a moment
 * if p->flags has HGM_CAPS_USE_HUGE_PAGES and no earlier stage said no. p->page must be set.
 */
void hgm_probe_hgm_verdict(struct hgm_probe *p, uint64_t block_bytes);

/* How it is asked for, as text. */
static inline const char *hgm_form(const struct hgm_probe *p)
{
	return p->by_feature ? "feature bit 13" : "MADV_SPLIT";
}

/*
 * MADV_SPLIT is unknown, and bit 13 has the meaning of the RFC v2. Takes no huge page. This is not
 * the proof, but enough to know that enabling the bit has no other effect.
 */
bool hgm_probe_bit13_is_hgm(void);

/* Does the kernel know MADV_SPLIT, and does feature bit 13 make a difference? Each answers @p. */
void hgm_probe_advice_stage(struct hgm_probe *p);
void hgm_probe_feature_stage(struct hgm_probe *p);

/*
 * Where MADV_SPLIT is unknown: is it the RFC v2? If that says no, the answer remains that of the
 * advice.
 */
bool hgm_probe_asked_by_feature(struct hgm_probe *p);

/* Run the stages of this that take no huge page. If false, the answer has been given. */
bool hgm_probe_hgm_stages(struct hgm_probe *p, enum hgm_memory memory);

/*
 * The stages that take a huge page. Each gives an answer. The later stages repeat the first one,
 * and hgm_prove_collapse() returns whether that worked.
 */
void hgm_prove_minor(struct hgm_probe *p, enum hgm_memory memory);
bool hgm_prove_collapse(struct hgm_probe *p, enum hgm_memory memory);
void hgm_prove_writeprotect(struct hgm_probe *p, enum hgm_memory memory);

/* Describe the cause of a refusal of userfaultfd(2). @user_mode: for user mode only. */
void hgm_probe_denied_by(char *text, size_t len, int rc, bool user_mode);

/* The probes of the rows */
void hgm_probe_hgm(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_hgm_sysfs(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_hgm_advice(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_hgm_feature(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_hgm_split(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_hgm_minor(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_hgm_collapse(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_hgm_writeprotect(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_uffd_device(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_uffd_syscall(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_uffd_user_mode_only(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_features(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_copy(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_zeropage(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_continue(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_continue_wp(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_writeprotect(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_poison(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_move(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_exact_address(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_thread_id(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_wp_async(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_huge_page_pool(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_shmem_enabled(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_collapse(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_collapse_prepared(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_pagemap_scan(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_pagemap_guard(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_pagemap_accessed(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_rwp(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_rwp_async(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_set_mode(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_guest_mmap(struct hgm_probe *p, const struct hgm_probe_row *row);

#endif
