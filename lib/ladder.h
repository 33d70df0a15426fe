/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ladder: the kinds of memory that a region can use, best first, and why it does not use a
 * better one.
 */
#ifndef HGM_LIB_LADDER_H
#define HGM_LIB_LADDER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

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
	bool may_shrink; /* the file can be truncated */
	uint64_t block_bytes;
	dev_t device; /* which file it is */
	uint64_t inode;
};

/* Is the caller's file fit for a region, and of which kind is it? -errno with text. */
int hgm_memory_kind(const struct hgm_region_opts *opts, struct hgm_memory_kind *kind);

/* The result of a test of the kernel, made once per engine. */
struct hgm_ability {
	bool known;
	bool have;
	char reason[512];
};

struct hgm_abilities {
	pthread_mutex_t lock; /* protects the structs' contents; not held during a test */
	struct hgm_ability native_2m;
	struct hgm_ability native_1g;
	struct hgm_ability protect_2m; /* pages of native memory, one by one */
	struct hgm_ability protect_1g;
	struct hgm_ability collapse_shmem;
	struct hgm_ability collapse_anon;
};

/* One climb of the ladder, for one region. */
struct hgm_ladder {
	struct hgm *h;
	const struct hgm_region_opts *opts;
	struct hgm_memory_kind kind; /* of the caller's file */
	uint32_t left;		     /* rungs not looked at yet, as bits */
	bool single;		     /* there is only one rung: its own text is enough */
	bool tried;		     /* a rung was possible, but could not be had */
	int rc;			     /* what to return when nothing is left */
	char refused[768];	     /* why the rungs before were not used, as text */
};

/* Begin a climb. Returns -errno, with a text, if the options contradict each other. */
int hgm_ladder_begin(struct hgm_ladder *l, struct hgm *h, const struct hgm_region_opts *opts);

/*
 * Find the next rung that this kernel and the options allow. Nothing has been allocated for it.
 * Returns -errno, with a text that says why, if there is none.
 */
int hgm_ladder_next(struct hgm_ladder *l, enum hgm_rung *rung);

/* Can the pages of native memory be write-protected one by one? */
bool hgm_ladder_protects_pages(struct hgm *h, uint64_t block_bytes);

/* Record that a rung could not be had after all. hgm_errmsg() says why. */
void hgm_ladder_failed(struct hgm_ladder *l, enum hgm_rung rung, int rc);

#endif
