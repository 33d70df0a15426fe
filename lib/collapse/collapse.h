/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The collapser of an engine: the threads that make full blocks huge.
 */
#ifndef HGM_LIB_COLLAPSE_H
#define HGM_LIB_COLLAPSE_H

#include <stdbool.h>
#include <stdint.h>

#define HGM_COLLAPSERS_MAX 16

struct hgm;
struct hgm_region;

/* collapser.c */
int hgm_collapser_init(struct hgm *h); /* -ENOMEM without text */
void hgm_collapser_destroy(struct hgm *h);
int hgm_collapser_start(struct hgm *h); /* -errno with text: only some threads run */
void hgm_collapser_stop(struct hgm *h);
void hgm_collapser_join(struct hgm *h);
void hgm_collapser_kick(struct hgm *h); /* look at all regions again */
void hgm_collapser_wanted(const struct hgm_region *r);
void hgm_collapser_try_again(struct hgm *h);

/* What the collapser needs to know of a region. -ENOMEM; free() follows all the same. */
int hgm_collapse_make(struct hgm_region *r);
void hgm_collapse_free(struct hgm_region *r);

/* Members of struct hgm_above. */
void hgm_collapse_arrived(struct hgm_region *r);
void hgm_collapse_filled(struct hgm_region *r, uint64_t block);
uint8_t hgm_collapse_state(const struct hgm_region *r, uint64_t block);

/* A block is full. */
void hgm_collapse_want(struct hgm_region *r, uint64_t block);

/* A last block that is incomplete cannot be huge. */
bool hgm_collapse_can_be_huge(const struct hgm_region *r, uint64_t block);

/*
 * collapse_map.c: pages of a block have arrived by fill. True: the collapse of the block will map
 * them. hgm_collapse_mapped() or hgm_collapse_map_left() is called in the end.
 */
bool hgm_collapse_leave(struct hgm_region *r, uint64_t block);

/*
 * Pages of a block are present because the caller says so. It may be that none of them is mapped.
 */
void hgm_collapse_imported(struct hgm_region *r, uint64_t block);

/*
 * The kernel has collapsed a block that does not count as huge. If the block is protected now,
 * which removes a huge mapping, it must be mapped again.
 */
void hgm_collapse_in_doubt(struct hgm_region *r, uint64_t block);

/* The collapse has mapped the block. */
void hgm_collapse_mapped(struct hgm_region *r, uint64_t block);

/* The collapse failed, or will not happen: map the pages that were left to it, if any. */
void hgm_collapse_map_left(struct hgm_region *r, uint64_t block);
void hgm_collapse_map_all_left(struct hgm_region *r);

bool hgm_collapse_is_left(const struct hgm_region *r, uint64_t block);

/*
 * A page of a block has been mapped; the block was in state @before. If it was huge, it no longer
 * is.
 */
void hgm_collapse_touched(struct hgm_region *r, uint64_t block, uint8_t before);

/* Does a collapse copy the region's pages? */
bool hgm_collapse_copies(const struct hgm_region *r);

/* For the collapser only: try the first blocks of a word that are wanted. Returns the others. */
uint64_t hgm_collapse_visit(struct hgm_region *r, uint64_t word, uint64_t bits);

/* For the collapser only: the collapse of a block returned @rc. */
void hgm_collapse_outcome(struct hgm_region *r, uint64_t block, int rc, bool settled);
void hgm_collapse_due(struct hgm_region *r, uint64_t block);

/*
 * Write-protection removes a block's huge mapping. False: the block had none. Later the block may
 * become huge again.
 */
bool hgm_collapse_suspend(struct hgm_region *r, uint64_t block);
void hgm_collapse_resume(struct hgm_region *r, uint64_t block);

/*
 * Can a block's mapping be huge although the block does not count as huge? This is so if the kernel
 * has collapsed it, and a page was touched meanwhile or smaps has not been read yet.
 */
bool hgm_collapse_may_be_huge(const struct hgm_region *r, uint64_t block);

/*
 * Memory of these pages is about to be dropped: leave their blocks alone until one of their pages
 * is touched. The kernel cannot take a huge page apart while it is being collapsed, and would keep
 * its memory. @may_wait: wait for a collapse that is under way. It must be false on a thread that
 * reads events.
 */
void hgm_collapse_discarded(struct hgm_region *r, uint64_t page, uint64_t pages, bool may_wait);

/*
 * For memory that is mapped by whole blocks: all of a block is present, or the block has been
 * mapped again.
 */
void hgm_collapse_whole(struct hgm_region *r, uint64_t block);

/* Bytes that are mapped by huge leaves, as far as known. */
uint64_t hgm_region_huge_bytes(const struct hgm_region *r);

/* Blocks that stay in small pages. */
uint64_t hgm_collapse_left_split(const struct hgm_region *r);

/* Look again at all blocks that were left split, and at all that count as huge. */
void hgm_collapse_look_again(struct hgm_region *r);

/* Writes may have taken huge mappings apart. Let such blocks become huge again. */
void hgm_collapse_find_split(struct hgm_region *r);

/* collapse_verify.c: one more block has to be verified by smaps. */
void hgm_collapse_unverified(struct hgm_region *r);

/* Call this before a region is verified by smaps. -errno: smaps cannot be used. */
int hgm_collapse_need_smaps(struct hgm *h);

/* How can a collapse be verified in this region, which is registered? */
void hgm_collapse_choose_verify(struct hgm_region *r);

/* Verify all regions that are due by smaps. *at is lowered to the time when the others are due. */
void hgm_collapse_verify(struct hgm *h, uint64_t *at);

#define HGM_COLLAPSE_TRIES 12 /* then the block is left split */

#endif
