/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What /proc/self/smaps says of a range. On a kernel with high-granularity mapping it is the only
 * place that shows the sizes of the mappings inside a huge page. It costs a walk over the page
 * tables of all memory below the range's end: for proofs and for checks now and then.
 */
#ifndef HGM_LIB_SMAPS_H
#define HGM_LIB_SMAPS_H

#include <stdbool.h>
#include <stdint.h>

/* Sizes are in bytes. Counters are of the memory areas that lie inside the range as a whole. */
struct hgm_smaps {
	uint64_t mapped_bytes;	/* of the range, by memory areas, populated or not */
	uint64_t pud;		/* HugetlbPudMapped */
	uint64_t pmd;		/* HugetlbPmdMapped */
	uint64_t pte;		/* HugetlbPteMapped */
	uint64_t shmem_pmd;	/* ShmemPmdMapped */
	uint64_t anon_huge;	/* AnonHugePages */
	uint64_t hugetlb;	/* Private_Hugetlb + Shared_Hugetlb */
	unsigned int areas;	/* that touch the range */
	bool has_leaf_counters; /* an area has the first three, which only HGM kernels show */
	bool all_hm; /* each area that touches the range has VmFlags `hm`; false for none */
	bool any_hm;
	bool partial; /* an area only partly lies inside: its counters are left out */
};

/* 0, -EINVAL (no range), or what opening or reading the file gave. */
int hgm_smaps_sum(const void *addr, uint64_t len, struct hgm_smaps *out);

#endif
