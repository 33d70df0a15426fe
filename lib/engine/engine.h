/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Functions that only the files of lib/engine use.
 */
#ifndef HGM_LIB_ENGINE_H
#define HGM_LIB_ENGINE_H

#include <stdint.h>

struct hgm_region;

/* region_end.c: hgm_region_destroy() for several regions of one engine. */
void hgm_regions_end(struct hgm_region **r, unsigned int count);

void hgm_region_free(struct hgm_region *r);

/* region_info.c: write the sentence; @refused says why the type is no better, or is empty. */
void hgm_region_describe(struct hgm_region *r, uint32_t asked, const char *refused);

#endif
