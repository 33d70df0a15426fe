/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Installing by UFFDIO_COPY: see by_copy.c.
 */
#ifndef HGM_LIB_BY_COPY_H
#define HGM_LIB_BY_COPY_H

#include <stdint.h>

struct hgm_arrival;

/* Install what is left. -EAGAIN, -ENOMEM: later. */
int hgm_by_copy(struct hgm_arrival *a);

/* Install the pages that are left as zeroes that are copied, from @from in the buffer on. */
void hgm_by_copy_zeroes(struct hgm_arrival *a, uint64_t from);

#endif
