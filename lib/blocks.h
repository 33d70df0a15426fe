/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the collapser knows of a region's blocks. Only the collapser sees it.
 */
#ifndef HGM_LIB_BLOCKS_H
#define HGM_LIB_BLOCKS_H

#include <stdatomic.h>
#include <stdint.h>

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

#endif
