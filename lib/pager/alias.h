/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Holes in aliases: see alias.c. Only the events thread calls these functions.
 */
#ifndef HGM_LIB_ALIAS_H
#define HGM_LIB_ALIAS_H

#include <stdint.h>

struct hgm;

#define HGM_ALIAS_RETRIES_MAX 64

/* Holes of aliases that could not be filled in their turn. */
struct hgm_alias_retries {
	unsigned int count;
	uint64_t addr[HGM_ALIAS_RETRIES_MAX];
	uint64_t backoff_ns; /* the time until the next try; 0: before the first one */
};

/* Serve the faults that are pending, and those of before. */
void hgm_alias_read(struct hgm *h, struct hgm_alias_retries *again);
void hgm_alias_retry(struct hgm *h, struct hgm_alias_retries *again);

#endif
