/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A kernel that collapses the blocks of a region only if it may, and counts what CONTINUE maps of
 * them.
 */
#ifndef HGM_TEST_COLLAPSING_H
#define HGM_TEST_COLLAPSING_H

#include "harness.h"

#define COLLAPSING_BLOCKS     64 /* at most */
#define COLLAPSING_ALL_BLOCKS UINT64_MAX

/* Of each case: from the first on this kernel is the library's, and it has 100 s. */
int collapsing_set_up(void **state);
int collapsing_tear_down(void **state);

/* From now on this memory is meant, and it collapses. */
void collapsing_watch(const struct field *f);

/* MADV_COLLAPSE of the blocks in the bitmap fails with @rc, each time or one in so many times. */
void collapsing_refuse(uint64_t blocks, int rc, unsigned int one_in);

/* Each collapse takes so long. */
void collapsing_take_us(unsigned int us);

/* Collapse nothing before a page of the memory is mapped, as kernels before 6.18 of each 1 GiB. */
void collapsing_needs_a_page(void);

/* Pages of a block that UFFDIO_CONTINUE has mapped. */
uint64_t collapsing_continued(uint64_t block);

#endif
