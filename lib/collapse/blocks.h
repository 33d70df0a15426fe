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
 * compare-and-swap. hgm_wait() need not wait for settled blocks any more.
 */
enum hgm_block_state {
	HGM_BLOCK_OPEN = 0,   /* not full yet */
	HGM_BLOCK_WAITING,    /* full, to be collapsed */
	HGM_BLOCK_COLLAPSING, /* the collapser works on it */
	HGM_BLOCK_TOUCHED,    /* the same, and a page was mapped, perhaps after the collapse */
	HGM_BLOCK_HUGE,	      /* settled: mapped huge when last looked at */
	HGM_BLOCK_SPLIT,      /* settled: left split */
	HGM_BLOCK_FELL_APART, /* settled before: was huge, will be collapsed again */
	HGM_BLOCK_DEFERRED,   /* full, must not be collapsed yet */
	HGM_BLOCK_UNVERIFIED, /* collapsed, as the kernel reported; smaps was not read yet */
	HGM_BLOCK_UNVERIFIED_AGAIN, /* settled before: like HGM_BLOCK_UNVERIFIED */
	HGM_BLOCK_HOLES,	    /* settled: left alone until its holes are used again */
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

#endif
