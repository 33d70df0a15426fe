/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sizes: the page, the leaf of the page-state map (one huge page of 2 MiB), and its words.
 */
#ifndef HGM_LIB_PAGE_H
#define HGM_LIB_PAGE_H

#include <stdint.h>

#define HGM_PAGE_SHIFT	   12
#define HGM_PAGE_BYTES	   (UINT64_C(1) << HGM_PAGE_SHIFT)
#define HGM_LEAF_SHIFT	   21
#define HGM_LEAF_BYTES	   (UINT64_C(1) << HGM_LEAF_SHIFT)
#define HGM_LEAF_PAGES	   512
#define HGM_LEAF_WORDS	   8
#define HGM_PAGES_PER_WORD 64

#endif
