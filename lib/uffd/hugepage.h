/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How large the mappings of a range are, by pagemap.
 */
#ifndef HGM_LIB_HUGEPAGE_H
#define HGM_LIB_HUGEPAGE_H

#include <stdint.h>

/* Open /proc/self/pagemap for hgm_pagemap_huge(). Returns the descriptor or a negative errno. */
int hgm_pagemap_open(void);

/*
 * Like hgm_mapped_huge(), but on an open pagemap, and returns the kernel's own errno (-ENOTTY: no
 * PAGEMAP_SCAN).
 */
int hgm_pagemap_huge(int pagemap, const void *addr, uint64_t len, uint64_t *huge_bytes);

#endif
