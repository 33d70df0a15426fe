/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A kernel whose collapses of a region's blocks a test can refuse or delay, and which counts the
 * pages that UFFDIO_CONTINUE maps in each block.
 */
#ifndef HGM_TEST_COLLAPSING_H
#define HGM_TEST_COLLAPSING_H

#include "harness.h"

#define COLLAPSING_BLOCKS     64 /* at most */
#define COLLAPSING_ALL_BLOCKS UINT64_MAX

/* For each case, which has 100 s. From the first case on, the library uses this kernel. */
int collapsing_set_up(void **state);
int collapsing_tear_down(void **state);

/* From now on the functions below concern this memory. At first nothing refuses its collapses. */
void collapsing_watch(const struct ram *ram);

/* MADV_COLLAPSE of the blocks in the bitmap fails with @rc, one in @one_in times. */
void collapsing_refuse(uint64_t blocks, int rc, unsigned int one_in);

/* Each collapse takes @us longer. */
void collapsing_take_us(unsigned int us);

/* Collapses fail until a page is mapped. Kernels before 6.18 behave so in each 1 GiB. */
void collapsing_needs_a_page(void);

/* The number of pages of a block that UFFDIO_CONTINUE has mapped. */
uint64_t collapsing_continued(uint64_t block);

#endif
