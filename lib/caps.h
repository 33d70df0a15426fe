/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internals of the capability table: scratch memory to try things on, and how an answer is given.
 *
 *	caps.c		the table and its public face
 *	caps_scratch.c	scratch mappings, answers
 *	caps_open.c	ways to a userfaultfd, features
 *	caps_uffd.c	userfaultfd's verbs per kind of memory
 *	caps_fault.c	what only a faulting thread can show
 *	caps_huge.c	huge pages: pools, collapse, PAGEMAP_SCAN
 *	caps_hgm.c	high-granularity mapping: what can be asked without a huge page
 *	caps_hgm_proof.c high-granularity mapping: tried on a huge page
 *	caps_denied.c	by what a userfaultfd is refused
 */
#ifndef HGM_LIB_CAPS_H
#define HGM_LIB_CAPS_H

#include <stdbool.h>
#include <stddef.h>

#include <hgm/caps.h>

#include "sys.h"

enum hgm_memory {
	HGM_MEMORY_NONE,
	HGM_MEMORY_ANON,
	HGM_MEMORY_SHMEM,
	HGM_MEMORY_HUGETLB_2M,
	HGM_MEMORY_HUGETLB_1G,
};

/* One run over the table, and the answer that is being made. */
struct hgm_probe {
	unsigned int flags;
	uint64_t page; /* bytes */
	int no_uffd;   /* 0, or why no userfaultfd can be had */

	uint32_t answer;
	uint64_t value;
	char reason[512];
};

/* A row of the table. A probe gives exactly one answer. */
struct hgm_probe_row {
	const char *name;
	void (*probe)(struct hgm_probe *p, const struct hgm_probe_row *row);
	enum hgm_memory memory;
	bool block;	  /* by whole blocks, not by pages */
	uint64_t feature; /* HGM_UFFD_FEATURE_* that the probe enables */
};

/*
 * Scratch memory of one block. Primary and alias (shared memory only) lie block aligned in one
 * reservation of address space, so that one munmap ends both and nothing else can get in between.
 */
struct hgm_scratch {
	int uffd;
	int memfd;
	char *base;
	uint64_t base_len;
	char *primary;
	char *alias;
	uint64_t block;
	bool reserved; /* its pages may be touched: not hugetlb without a page to spare */
};

__attribute__((format(printf, 3, 4))) void hgm_probe_answer(struct hgm_probe *p,
							    enum hgm_answer answer,
							    const char *format, ...);

/* The answer that a failure with errno @rc gives, in the words "@what: ERRNO". */
void hgm_probe_answer_errno(struct hgm_probe *p, int rc, const char *what);

/* Open a userfaultfd by any way, with @features enabled: the descriptor or -errno. */
int hgm_probe_open_uffd(uint64_t features);

/* The text for what was not tried because it was not asked for. */
#define HGM_SAY_USE_HUGE_PAGES "it takes a huge page for a moment: ask with HGM_CAPS_USE_HUGE_PAGES"

/* "4 KiB", "2 MiB", "1 GiB" */
struct hgm_size_text {
	char text[24];
};
struct hgm_size_text hgm_probe_size(uint64_t bytes);

/* A short file's text without the newline; its length or -errno. */
int hgm_probe_read_text(const char *path, char *buf, size_t len);

/* All return false after having given the answer themselves: the caller only closes. */
bool hgm_scratch_open(struct hgm_probe *p, struct hgm_scratch *s, enum hgm_memory memory);
bool hgm_scratch_populate(struct hgm_probe *p, struct hgm_scratch *s, char *addr, uint64_t len);
bool hgm_scratch_register(struct hgm_probe *p, struct hgm_scratch *s, uint64_t features,
			  uint64_t modes);

/* Ends the registration and wakes whoever waits. */
void hgm_scratch_unregister(struct hgm_scratch *s);
void hgm_scratch_close(struct hgm_scratch *s);

/* A page's word in /proc/self/pagemap, or -errno. */
#define HGM_PAGEMAP_PRESENT (INT64_C(1) << 62) /* bit 63, moved to keep the sign for errors */
#define HGM_PAGEMAP_UFFD_WP (INT64_C(1) << 57)
int64_t hgm_probe_pagemap(const struct hgm_probe *p, const void *addr);

/* Of the range, what PAGEMAP_SCAN calls huge; or -errno. */
int64_t hgm_probe_huge_bytes(const void *addr, uint64_t len);

/* MADV_COLLAPSE, again where it was refused for what passes. */
int hgm_probe_try_collapse(void *addr, uint64_t len);

/*
 * High-granularity mapping of blocks of @block_bytes (2 MiB or 1 GiB): is it proven here? The
 * verdict is in p->answer, the stage that gave it and its reason in p->reason. Stops at the first
 * stage that says no: on a kernel without it two system calls. Takes a huge page for a moment if
 * p->flags has HGM_CAPS_USE_HUGE_PAGES and no earlier stage said no. p->page must be set.
 */
void hgm_probe_hgm_verdict(struct hgm_probe *p, uint64_t block_bytes);

/* The stages of that which take no huge page. False: the answer is given. */
bool hgm_probe_hgm_stages(struct hgm_probe *p, enum hgm_memory memory);

/*
 * The stages that take one. Each gives an answer; the later do the first of them as well, and
 * collapse returns whether that worked.
 */
void hgm_prove_minor(struct hgm_probe *p, enum hgm_memory memory);
bool hgm_prove_collapse(struct hgm_probe *p, enum hgm_memory memory);
void hgm_prove_writeprotect(struct hgm_probe *p, enum hgm_memory memory);

/* How a refusal of userfaultfd(2) came about, in words; @user_mode: for user mode only. */
void hgm_probe_denied_by(char *text, size_t len, int rc, bool user_mode);

/* Rows' probes */
void hgm_probe_hgm(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_hgm_sysfs(struct hgm_probe *p, const struct hgm_probe_row *row);
void hgm_probe_hgm_advice(struct hgm_probe *p, const struct hgm_probe_row *row);
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

#endif
