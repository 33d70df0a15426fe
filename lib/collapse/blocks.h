/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the collapser knows of a region's blocks. Only the collapser sees it.
 */
#ifndef HGM_LIB_BLOCKS_H
#define HGM_LIB_BLOCKS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "collapse.h"

/*
 * The state of a block, in addition to the states of its pages. One byte, changed by
 * compare-and-swap. A block that was settled before carries HGM_BLOCK_SETTLED: hgm_wait() need not
 * wait for it any more.
 */
#define HGM_BLOCK_SETTLED 0x80

enum hgm_block_state {
	HGM_BLOCK_OPEN = 0,   /* not full yet */
	HGM_BLOCK_DEFERRED,   /* full, must not be collapsed yet */
	HGM_BLOCK_WAITING,    /* full, to be collapsed */
	HGM_BLOCK_COLLAPSING, /* the collapser works on it */
	HGM_BLOCK_TOUCHED,    /* the same, and a page was mapped, perhaps after the collapse */
	HGM_BLOCK_UNVERIFIED, /* collapsed, as the kernel reported; smaps was not read yet */
	/* to be collapsed, or collapsed and not verified yet; it was settled before */
	HGM_BLOCK_WAITING_SETTLED = HGM_BLOCK_WAITING | HGM_BLOCK_SETTLED,
	HGM_BLOCK_UNVERIFIED_SETTLED = HGM_BLOCK_UNVERIFIED | HGM_BLOCK_SETTLED,
	HGM_BLOCK_HUGE = 0x40 | HGM_BLOCK_SETTLED,	 /* mapped huge when last looked at */
	HGM_BLOCK_LEFT_SPLIT = 0x41 | HGM_BLOCK_SETTLED, /* too many tries */
	HGM_BLOCK_HOLES = 0x42 | HGM_BLOCK_SETTLED, /* left alone until its holes are used again */
};

/* How a collapse is verified. */
enum hgm_verify {
	HGM_VERIFY_NOT,	    /* the kernel shows nothing, so its return code is believed */
	HGM_VERIFY_PAGEMAP, /* block by block, by PAGE_IS_HUGE */
	HGM_VERIFY_SMAPS,   /* all blocks of the region at once, by the counters of smaps */
};

struct hgm_collapse {
	enum hgm_verify verify;
	_Atomic uint8_t *state; /* of each block */
	_Atomic uint8_t *tries;
	_Atomic uint64_t *wanted;   /* bitmap */
	_Atomic uint64_t *failed;   /* bitmap: will be tried again */
	_Atomic uint64_t *unmapped; /* bitmap: the collapse maps its pages */
	_Atomic uint64_t huge_blocks;
	_Atomic uint64_t left_split;
	uint64_t unverified_blocks; /* the first collapser's own */
	uint64_t verify_at_ns;	    /* likewise: no later than this */
};

struct hgm_smaps_turns;

/* The collapser's threads. */
struct hgm_collapser {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool stop;
	bool wanted;
	bool resting; /* until a few more blocks are full */
	pthread_cond_t help_cond;
	uint64_t help; /* how often help was requested */
	unsigned int helpers_asleep;
	_Atomic bool failed; /* some blocks must be tried again */
	pthread_t thread[HGM_COLLAPSERS_MAX];
	unsigned int started;
	_Atomic(struct hgm_smaps_turns *) turns; /* collapse_verify.c; NULL: not needed yet */
	uint64_t smaps_next_ns;			 /* full regions are not verified before */
	uint64_t look_again_at_ns;		 /* when to look at blocks that were left split */
};

#define HGM_COLLAPSE_TRIES  12 /* then the block is left split */
#define HGM_BLOCK_SPLIT_MAX 64 /* a settled block is left split after so many tries */

/* wanted.c: the collapser is to look at a block. */
void hgm_collapse_mark(struct hgm_region *r, uint64_t block);

/* A block has failed, and is in the bitmap of failed blocks. */
void hgm_collapser_try_again(struct hgm *h);

/* Can helpers collapse blocks of this region, too? Call them. With the lock held. */
bool hgm_collapse_can_be_helped(const struct hgm_region *r);
void hgm_collapser_call_help(struct hgm_collapser *c);

/* Does a collapse take long, so that blocks are collapsed one at a time? */
bool hgm_collapse_is_slow(const struct hgm_region *r);

/* blocks.c: change a block's state, if it is @from. */
bool hgm_block_change(_Atomic uint8_t *state, uint8_t from, uint8_t to);

/* Is the block mapped huge according to PAGEMAP_SCAN? -errno: PAGEMAP_SCAN cannot tell. */
int hgm_block_is_huge(const struct hgm_region *r, uint64_t block);

/* Look again at all blocks that were left split, and at all that count as huge. */
void hgm_collapse_look_again(struct hgm_region *r);

/*
 * collapse_map.c: the kernel has collapsed a block that does not count as huge. If the block is
 * write-protected now, which removes a huge mapping, it must be mapped again.
 */
void hgm_collapse_in_doubt(struct hgm_region *r, uint64_t block);

/* The collapse has mapped the block. */
void hgm_collapse_mapped(struct hgm_region *r, uint64_t block);

/* Were pages of the block left to its collapse? */
bool hgm_collapse_is_left(const struct hgm_region *r, uint64_t block);

/* collapse.c: try the first blocks of a word that are wanted. Returns the others. */
uint64_t hgm_collapse_visit(struct hgm_region *r, uint64_t word, uint64_t bits);

/* The collapse of a block returned @rc. */
void hgm_collapse_outcome(struct hgm_region *r, uint64_t block, int rc, bool settled);

/*
 * collapse_verify.c: verify all regions that are due by smaps. *at is lowered to the time when the
 * others are due.
 */
void hgm_collapse_verify(struct hgm *h, uint64_t *at);

#endif
