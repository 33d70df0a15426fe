/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Holes: pages of a region with no memory behind them. They read as zeroes.
 */
#ifndef HGM_LIB_HOLES_H
#define HGM_LIB_HOLES_H

#include <stdbool.h>
#include <stdint.h>

struct hgm_region;

/*
 * Does a block have holes, as far as the region has it? Memory that is swapped out may be taken for
 * a hole. Also false if the kernel does not tell. Touches nothing.
 */
bool hgm_holes_in_block(const struct hgm_region *r, uint64_t block);

/*
 * For a region that was prepared: which of @pages pages from @page on, all of one word of the map,
 * are certainly holes? One bit per page, as in the map. Touches nothing.
 */
uint64_t hgm_holes_prepared(const struct hgm_region *r, uint64_t page, uint64_t pages);

/*
 * Find the next run in [*@at, @end) of bytes that have memory and still belong to the
 * region. False: there is none, or the kernel does not tell. Touches nothing.
 */
bool hgm_held_next(const struct hgm_region *r, uint64_t *at, uint64_t end, uint64_t *len);

#endif
