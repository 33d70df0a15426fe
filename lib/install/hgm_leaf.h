/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Installing on hugetlb memory with high-granularity mapping, where the shape of a range decides
 * the size of the mapping.
 */
#ifndef HGM_LIB_LEAF_H
#define HGM_LIB_LEAF_H

#include <stdint.h>

struct hgm_arrival;
struct hgm_region;

/* Choose what to install of a request whose @pages are present now. */
void hgm_leaf_choose(struct hgm_arrival *a, uint64_t pages);

/*
 * Install a whole leaf. -EEXIST: the caller must install what is left in the request in 4 KiB
 * pieces. Other errors are those of UFFDIO_CONTINUE.
 */
int hgm_leaf_install(struct hgm_arrival *a);

/* Map the full leaf that holds @page, if no part of it is mapped. 0, else -EEXIST and others. */
int hgm_leaf_map(struct hgm_region *r, uint64_t page);

#endif
