/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_SERVE_H
#define HGM_LIB_SERVE_H

#include <stdint.h>

struct hgm;

/* A message of the kernel's. 0, or -EAGAIN and the like: to be tried again. On fault threads. */
int hgm_serve(struct hgm *h, uint64_t addr, uint64_t flags);

#endif
