/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ladder: which kinds of memory a region may be of, best first, and why it is not a better one.
 */
#ifndef HGM_LIB_LADDER_H
#define HGM_LIB_LADDER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <hgm/region.h>

struct hgm;

/* Best first. */
enum hgm_rung {
	HGM_RUNG_NATIVE, /* hugetlb with high-granularity mapping */
	HGM_RUNG_SHMEM,	 /* prepared */
	HGM_RUNG_SHMEM_LAZY,
	HGM_RUNG_HUGETLB, /* whole blocks */
	HGM_RUNG_ANON,
	HGM_RUNGS,
};

/* What a caller's file is. */
struct hgm_memory_kind {
	bool hugetlb;
	uint64_t block_bytes;
};

/* What was found out about the kernel, once for an engine. */
struct hgm_ability {
	bool known;
	bool have;
	char reason[512];
};

struct hgm_abilities {
	pthread_mutex_t lock; /* of the structs' contents; nothing is tried under it */
	struct hgm_ability native_2m;
	struct hgm_ability native_1g;
	struct hgm_ability protect_2m; /* pages of native memory, one by one */
	struct hgm_ability protect_1g;
	struct hgm_ability collapse_shmem;
	struct hgm_ability collapse_anon;
};

/* One climb, for one region. */
struct hgm_ladder {
	struct hgm *h;
	const struct hgm_region_opts *opts;
	struct hgm_memory_kind kind; /* of the caller's file */
	uint32_t left;		     /* rungs still to be looked at, as bits */
	bool single;		     /* there was one only: its own text says it all */
	bool tried;		     /* one was possible, and could not be had */
	int rc;			     /* what to return when nothing is left */
	char refused[768];	     /* why it was none of those before, for people */
};

/* -errno with text: the options contradict themselves. */
int hgm_ladder_begin(struct hgm_ladder *l, struct hgm *h, const struct hgm_region_opts *opts);

/*
 * The next rung that this kernel and the options allow. Nothing was allocated for it. -errno with
 * text: there is none, and why.
 */
int hgm_ladder_next(struct hgm_ladder *l, enum hgm_rung *rung);

/* Can the pages of native memory be write-protected one by one? */
bool hgm_ladder_protects_pages(struct hgm *h, uint64_t block_bytes);

/* It could not be had after all; hgm_errmsg() says why. */
void hgm_ladder_failed(struct hgm_ladder *l, enum hgm_rung rung, int rc);

#endif
