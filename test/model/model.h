/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Other kernels: a table for the kernel seam that answers as they would.
 *
 * Memory is real (shmem in 4 KiB pages) and so are the faults (userfaultfd); what hugetlb adds to
 * that, and what the high-granularity mapping series (HGM, v2) adds to hugetlb, is played: pools,
 * page tables with leaves of three sizes, granularities, error codes, side effects. Memory that is
 * not hugetlb goes to the running kernel, less what the other kernel lacks.
 *
 * The running kernel has to be 6.6 or later, with userfaultfd for this process.
 */
#ifndef HGM_TEST_MODEL_H
#define HGM_TEST_MODEL_H

#include <stdbool.h>
#include <stdint.h>

struct model_opts {
	bool hgm;		/* MADV_SPLIT, CONTINUE of pieces, MADV_COLLAPSE of hugetlb */
	bool wp_4k;		/* WRITEPROTECT of 4 KiB in split memory: no kernel has it yet */
	bool pagemap_scan;	/* PAGEMAP_SCAN; without: ENOTTY */
	uint64_t features;	/* UFFDIO_API; POISON, MOVE and CONTINUE_MODE_WP follow from it */
	int sysfs;		/* /sys/kernel/mm/hugepages/hgm: -1 there is none, 0, 1 */
	bool advice_means_else; /* advice 26 is taken everywhere and does nothing that we know */
	bool no_hm;		/* smaps does not show the flag "hm" */
	bool continue_4k_fails; /* split memory shows "hm", but takes whole huge pages only */
	uint64_t pool_2m_pages;
	uint64_t pool_1g_pages;
};

/*
 * "stock":	Linux 6.18; hugetlb in whole huge pages
 * "stock-6.1":	Linux 6.1: no POISON, MOVE, WP_ASYNC, CONTINUE_MODE_WP, PAGEMAP_SCAN
 * "hgm":	HGM v2 as posted, on 6.3
 * "hgm-next":	HGM on a newer kernel: all of "stock", and write protection by 4 KiB
 */
bool model_named(const char *name, struct model_opts *out);

/* hgm_sys is the model from one to the other. The end says on stderr what was left behind. */
void model_begin(const struct model_opts *opts);
void model_end(void);

/* Descriptors, mappings and huge pages that a model's memory is still held by. */
unsigned int model_left(void);

struct model_pool {
	uint64_t total;
	uint64_t free;	   /* as free_hugepages: promised pages are among them */
	uint64_t promised; /* as resv_hugepages */
};

struct model_pool model_pool(uint64_t huge_page_bytes);

/* The page table under a range, by size of leaf, in bytes; tables are counted apart. */
struct model_leaves {
	uint64_t pud;
	uint64_t pmd;
	uint64_t pte;
	uint64_t tables_4k; /* also empty ones */
};

struct model_leaves model_leaves(const void *addr, uint64_t len);

/* fallocate(PUNCH_HOLE), which the library does not use: whole huge pages leave the cache. */
int model_punch_hole(int fd, uint64_t offset, uint64_t len);

/* What the kernel would have written to its log: WARN_ON_ONCE does not stop it. */
unsigned int model_warnings(void);

#endif
