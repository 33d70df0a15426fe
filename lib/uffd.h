/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_UFFD_H
#define HGM_LIB_UFFD_H

#include <hgm/uffd.h>

struct hgm_uffd {
	int fd;
	enum hgm_uffd_via via;
	uint64_t supported;
	uint64_t features;
};

enum hgm_verb {
	HGM_VERB_CONTINUE,
	HGM_VERB_COPY,
	HGM_VERB_ZEROPAGE,
	HGM_VERB_POISON,
};

/*
 * As the public range operations, but stop with -EEXIST at the first piece that exists, waking
 * nobody for it.
 */
int hgm_range_until_exist(struct hgm_uffd *u, struct hgm_range *r, enum hgm_verb verb,
			  const void *src);

/* The name of a feature bit, NULL if it has none here. */
const char *hgm_uffd_feature_name(unsigned int bit);

#endif
