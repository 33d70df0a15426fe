/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_HUGEPAGE_H
#define HGM_LIB_HUGEPAGE_H

#include <stdint.h>

/* /proc/self/pagemap for hgm_pagemap_huge(), or a negative errno. */
int hgm_pagemap_open(void);

/* As hgm_mapped_huge(), on an open pagemap, the kernel's own errno (-ENOTTY: no PAGEMAP_SCAN). */
int hgm_pagemap_huge(int pagemap, const void *addr, uint64_t len, uint64_t *huge_bytes);

#endif
