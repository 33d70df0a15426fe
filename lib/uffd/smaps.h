/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What /proc/self/smaps says about a range. On a kernel with high-granularity mapping, smaps is the
 * only place that shows the sizes of the mappings inside a huge page. Reading it costs a walk over
 * the page tables of all memory below the range's end. So it is for proofs and occasional checks.
 */
#ifndef HGM_LIB_SMAPS_H
#define HGM_LIB_SMAPS_H

#include <stdbool.h>
#include <stdint.h>

/* Sizes are in bytes. Counters cover the memory areas that lie completely inside the range. */
struct hgm_smaps {
	uint64_t mapped_bytes;	/* the part of the range in memory areas, populated or not */
	uint64_t pud;		/* HugetlbPudMapped */
	uint64_t pmd;		/* HugetlbPmdMapped */
	uint64_t pte;		/* HugetlbPteMapped */
	uint64_t shmem_pmd;	/* ShmemPmdMapped */
	uint64_t anon_huge;	/* AnonHugePages */
	uint64_t hugetlb;	/* Private_Hugetlb + Shared_Hugetlb */
	unsigned int areas;	/* the number of areas that touch the range */
	bool has_leaf_counters; /* an area has the first three, which only HGM kernels show */
	bool all_hm; /* each area that touches the range has VmFlags `hm`; false if there is none */
	bool any_hm;
	bool partial; /* an area lies only partly inside: its counters are left out */
};

/* Returns 0, -EINVAL (empty range), or the error of opening or reading the file. */
int hgm_smaps_sum(const void *addr, uint64_t len, struct hgm_smaps *out);

struct hgm_smaps_range {
	uint64_t start;
	uint64_t end;
	struct hgm_smaps sum;
};

/*
 * The same for several ranges in one walk. Ranges must not be empty or overlap, and must be in
 * ascending order.
 */
int hgm_smaps_sums(struct hgm_smaps_range *range, unsigned int count);

#endif
