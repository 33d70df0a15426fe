/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The choice of a region's memory: the candidates, best first, and why none of the better ones is
 * used.
 */
#ifndef HGM_LIB_CHOICE_H
#define HGM_LIB_CHOICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <hgm/region.h>
#include <hgm/uapi.h>

/* Best first. */
enum hgm_candidate {
	HGM_CANDIDATE_NATIVE, /* hugetlb with high-granularity mapping, of either form */
	HGM_CANDIDATE_SHMEM,  /* prepared */
	HGM_CANDIDATE_SHMEM_LAZY,
	HGM_CANDIDATE_HUGETLB, /* whole blocks */
	HGM_CANDIDATE_ANON,
	HGM_CANDIDATES,
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

/* Texts that a region's sentence and refusals share. */
#define HGM_SAY_DOES_NOT_FIT                                                                     \
	"no block can become huge, because addr and fd_offset have different remainders modulo " \
	"2 MiB"
#define HGM_SAY_NO_PARTS ", the huge page, of which hugetlb memory has no parts"

/*
 * Does each block of @block bytes begin at a multiple of that in its file, too? The kernel makes no
 * others huge. False only for a caller's mapping.
 */
bool hgm_memory_fits(const struct hgm_region_opts *opts, uint64_t block);

/* The result of a test of the kernel, made once per engine. */
struct hgm_ability {
	bool known;
	bool have;
	char reason[512];
};

/* What the kernel can do for an engine. */
struct hgm_abilities {
	uint64_t features;    /* of its userfaultfds */
	bool can_continue_wp; /* UFFDIO_CONTINUE can install write-protected pages */
	pthread_mutex_t lock; /* protects the structs' contents; not held during a test */
	struct hgm_ability native_2m;
	struct hgm_ability native_1g;
	struct hgm_ability protect_2m; /* pages of native memory, one by one */
	struct hgm_ability protect_1g;
	struct hgm_ability collapse_shmem;
	struct hgm_ability collapse_anon;
};

/* One search for a kind of memory, for one region. */
struct hgm_choice {
	struct hgm_abilities *able;
	const struct hgm_region_opts *opts;
	struct hgm_memory_kind kind; /* of the caller's file */
	uint32_t left;		     /* candidates not looked at yet, as bits */
	bool single;		     /* there is only one candidate: its own text is enough */
	bool tried;		     /* a candidate was possible, but not available */
	int rc;			     /* what to return when nothing is left */
	char refused[768];	     /* why the candidates before were not used, as text */
};

/* Begin a search. Returns -errno, with a text, if the options contradict each other. */
int hgm_choice_begin(struct hgm_choice *c, struct hgm_abilities *able,
		     const struct hgm_region_opts *opts);

/*
 * Find the next candidate that this kernel and the options allow. Nothing has been allocated for
 * it. Returns -errno, with a text that says why, if there is none.
 */
int hgm_choice_next(struct hgm_choice *c, enum hgm_candidate *candidate);

/*
 * Features that native memory needs in the engine's userfaultfds: MINOR_HUGETLBFS_HGM, where the
 * kernel has the RFC v2 of high-granularity mapping and no MADV_SPLIT; else none. @offered: the
 * features that the kernel offers. Takes no huge page. A kernel that offers POISON (6.6) is not
 * tried: bit 13 is WP_UNPOPULATED there.
 */
uint64_t hgm_choice_features(uint64_t offered);

/* Is native memory asked for by that feature, and not by MADV_SPLIT? */
static inline bool hgm_choice_by_feature(const struct hgm_abilities *able)
{
	return able->features & HGM_UFFD_FEATURE_MINOR_HUGETLBFS_HGM;
}

/* Can the pages of native memory be write-protected one by one? */
bool hgm_choice_protects_pages(struct hgm_abilities *able, uint64_t block_bytes);

/* Record that a candidate could not be had after all. hgm_errmsg() says why. */
void hgm_choice_failed(struct hgm_choice *c, enum hgm_candidate candidate, int rc);

#endif
