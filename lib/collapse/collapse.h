/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The collapser makes full blocks huge. This is what other modules see of it.
 */
#ifndef HGM_LIB_COLLAPSE_H
#define HGM_LIB_COLLAPSE_H

#include <stdbool.h>
#include <stdint.h>

#define HGM_COLLAPSERS_MAX 16

struct hgm;
struct hgm_region;

/* The collapser of an engine. init(): -ENOMEM without text. */
int hgm_collapser_init(struct hgm *h);
void hgm_collapser_destroy(struct hgm *h);

/* Its threads. -errno with text: only some of them run. join() waits for these. */
int hgm_collapser_start(struct hgm *h);
void hgm_collapser_stop(struct hgm *h);
void hgm_collapser_join(struct hgm *h);

/* Let it look at all regions again. */
void hgm_collapser_kick(struct hgm *h);

/* What the collapser needs to know of a region. -ENOMEM; free() follows all the same. */
int hgm_collapse_make(struct hgm_region *r);
void hgm_collapse_free(struct hgm_region *r);

/* How can a collapse be verified in this region, which is registered? */
void hgm_collapse_choose_verify(struct hgm_region *r);

/*
 * Members of struct hgm_region_ops.
 *
 * All pages of a region are counted off. All pages of a block are present, and installed if whole
 * blocks are installed.
 */
void hgm_collapse_arrived(struct hgm_region *r);
void hgm_collapse_filled(struct hgm_region *r, uint64_t block);

/*
 * A page of a block has been mapped; the block was in state @before. If it was huge, it no longer
 * is.
 */
uint8_t hgm_collapse_state(const struct hgm_region *r, uint64_t block);
void hgm_collapse_touched(struct hgm_region *r, uint64_t block, uint8_t before);

/*
 * Memory of these pages is about to be dropped: leave their blocks alone until one of their pages
 * is touched. The kernel cannot split a huge page while it is being collapsed, and would keep its
 * memory. @may_wait: wait for a collapse that is under way. It must be false on a thread that
 * reads events.
 */
void hgm_collapse_discarded(struct hgm_region *r, uint64_t page, uint64_t pages, bool may_wait);

/*
 * Pages of a block have arrived by fill. True: the collapse of the block will map them. The second
 * function: the collapse failed, or will not happen: map the pages that were left to it, if any.
 */
bool hgm_collapse_leave(struct hgm_region *r, uint64_t block);
void hgm_collapse_map_left(struct hgm_region *r, uint64_t block);

/* The end of struct hgm_region_ops. Map what was left in all blocks. */
void hgm_collapse_map_all_left(struct hgm_region *r);

/*
 * Pages of a block are present because the caller says so. It may be that none of them is mapped.
 */
void hgm_collapse_imported(struct hgm_region *r, uint64_t block);

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

/* Writes may have split huge mappings. Let such blocks become huge again. */
void hgm_collapse_find_split(struct hgm_region *r);

/* Bytes that are mapped by huge leaves, as far as known. */
uint64_t hgm_region_huge_bytes(const struct hgm_region *r);

/* Blocks that stay in small pages. */
uint64_t hgm_collapse_left_split(const struct hgm_region *r);

#endif
