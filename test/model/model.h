/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Models of other kernels: a system call table (struct hgm_sys) that answers as they would.
 *
 * Memory is real (shmem in 4 KiB pages) and so are the faults (userfaultfd). The model simulates
 * what hugetlb adds to that, and what the high-granularity mapping series (HGM, v2) adds to
 * hugetlb: pools, page tables with leaves of three sizes, granularities, error codes and side
 * effects. Calls on memory that is not hugetlb go to the running kernel, without the features that
 * the modelled kernel lacks.
 *
 * Calls that crash a kernel with HGM end the program at once, with a text that says why. A child of
 * fork() has the mappings without their page tables.
 *
 * The running kernel must be 6.6 or later, and this process must be able to use userfaultfd.
 */
#ifndef HGM_TEST_MODEL_H
#define HGM_TEST_MODEL_H

#include <stdbool.h>
#include <stdint.h>

struct model_opts {
	bool hgm;	   /* MADV_SPLIT, CONTINUE of pieces, MADV_COLLAPSE of hugetlb */
	bool rfc;	   /* with hgm: by feature bit 13 instead of MADV_SPLIT */
	bool wp_4k;	   /* WRITEPROTECT of 4 KiB in split memory: no kernel has it yet */
	bool pagemap_scan; /* PAGEMAP_SCAN; if false, it fails with ENOTTY */
	uint64_t features; /* of UFFDIO_API; POISON, MOVE and CONTINUE_MODE_WP follow */
	int sysfs;	   /* the file "hgm": 0 or 1; -1: it does not exist */
	bool sysfs_in_vm;  /* it is in /sys/kernel/vm/hugepages, not /sys/kernel/mm/hugepages */
	bool advice_means_else; /* advice 26 succeeds on any memory and has no known effect */
	bool no_hm;		/* smaps does not show the flag "hm" */
	bool continue_4k_fails; /* split memory shows "hm", but takes whole huge pages only */
	uint64_t pool_2m_pages;
	uint64_t pool_1g_pages;
};

/*
 * "stock":	Linux 6.18; hugetlb maps whole huge pages only
 * "stock-6.1":	Linux 6.1: no POISON, MOVE, WP_ASYNC, CONTINUE_MODE_WP, PAGEMAP_SCAN
 * "hgm":	HGM v2 as posted, on 6.3
 * "rfc":	the RFC v2 of HGM, of October 2022: a program asks for it with feature bit 13
 * "hgm-next":	HGM on a newer kernel: all of "stock", and write protection of 4 KiB pieces
 */
bool model_named(const char *name, struct model_opts *out);

/* hgm_sys is the model between these two calls. model_end() prints what was left to stderr. */
void model_begin(const struct model_opts *opts);
void model_end(void);

/* Number of descriptors, mappings and huge pages (taken or promised) that are still in use. */
unsigned int model_left(void);

struct model_pool {
	uint64_t total;
	uint64_t free;	   /* as free_hugepages: includes the promised pages */
	uint64_t promised; /* as resv_hugepages */
};

struct model_pool model_pool(uint64_t huge_page_bytes);

/* What the page table of a range maps, in bytes, by size of leaf; and the number of tables. */
struct model_leaves {
	uint64_t pud;
	uint64_t pmd;
	uint64_t pte;
	uint64_t tables_4k; /* including empty ones */
};

struct model_leaves model_leaves(const void *addr, uint64_t len);

/* fallocate(PUNCH_HOLE) by a test: whole huge pages leave the page cache. */
int model_punch_hole(int fd, uint64_t offset, uint64_t len);

/*
 * Number of warnings that the kernel would have logged, at most 1: WARN_ON_ONCE. It warns at the
 * first write to a leaf below the size of the huge page that was write-protected before.
 */
unsigned int model_warnings(void);

#endif
