/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The states of blocks: what becomes of a block when it is full, when a page of it is mapped or
 * dropped, when it is write-protected, when it was split, and when its collapse need not wait any
 * more (hgm_region_collapse()).
 */
#include <errno.h>
#include <time.h>

#include "blocks.h"
#include "collapse.h"
#include "install/resolve.h"
#include "region/hgm.h"
#include "region/holes.h"
#include "uffd/hugepage.h"
#include "util/cancel.h"
#include "util/error.h"

#define NAP_NS 20000

/*
 * The collapse of a full block need not wait any more. Both the block's filler and
 * hgm_region_collapse() may call this. seq_cst on deferred and block_state lets one of the two see
 * what the other has done, and one of them is first.
 */
static void due(struct hgm_region *r, uint64_t block)
{
	uint8_t was = HGM_BLOCK_DEFERRED;

	/* Count it before the state changes, so that no thread counts it off before. */
	hgm_region_unsettle(r);
	if (atomic_compare_exchange_strong_explicit(&r->collapse->state[block], &was,
						    HGM_BLOCK_WAITING, memory_order_seq_cst,
						    memory_order_relaxed))
		hgm_collapse_mark(r, block);
	else
		hgm_region_settled(r);
}

static void want(struct hgm_region *r, uint64_t block)
{
	uint8_t was = HGM_BLOCK_OPEN;

	if (!hgm_region_block_whole(r, block) ||
	    !atomic_compare_exchange_strong_explicit(&r->collapse->state[block], &was,
						     HGM_BLOCK_DEFERRED, memory_order_seq_cst,
						     memory_order_relaxed))
		return;
	if (!atomic_load_explicit(&r->deferred, memory_order_seq_cst))
		due(r, block);
}

/*
 * For memory that is mapped by whole blocks: all of a block is present, or the block has been
 * mapped again.
 */
static void whole_block_present(struct hgm_region *r, uint64_t block)
{
	uint8_t open = HGM_BLOCK_OPEN;

	if (hgm_region_whole_blocks(r) && hgm_region_block_present(r, block) &&
	    !hgm_poison_of_block(r, block) &&
	    atomic_compare_exchange_strong_explicit(&r->collapse->state[block], &open,
						    HGM_BLOCK_HUGE, memory_order_acq_rel,
						    memory_order_relaxed))
		atomic_fetch_add_explicit(&r->collapse->huge_blocks, 1, memory_order_relaxed);
}

void hgm_collapse_filled(struct hgm_region *r, uint64_t block)
{
	if (r->collapses)
		want(r, block);
	else
		whole_block_present(r, block);
}

int hgm_region_collapse(struct hgm_region *r)
{
	HGM_UNCANCELLED;

	if (!r)
		return hgm_fail(-EINVAL, "hgm_region_collapse: the region is NULL");
	if (r->flags & HGM_REGION_NO_COLLAPSE)
		return hgm_fail(
			-EOPNOTSUPP,
			"hgm_region_collapse: the region was created with HGM_REGION_NO_COLLAPSE");
	if (!atomic_exchange_explicit(&r->deferred, false, memory_order_seq_cst)) {
		hgm_collapse_look_again(r);
		return 0;
	}
	atomic_store_explicit(&r->event_due, true, memory_order_seq_cst);
	hgm_region_unsettle(r); /* complete when all blocks are, even if there are none */
	for (uint64_t block = 0; block < r->blocks; block++)
		if (atomic_load_explicit(&r->collapse->state[block], memory_order_seq_cst) ==
		    HGM_BLOCK_DEFERRED)
			due(r, block);
	hgm_region_settled(r);
	return 0;
}

uint64_t hgm_region_huge_bytes(const struct hgm_region *r)
{
	uint64_t bytes = atomic_load_explicit(&r->collapse->huge_blocks, memory_order_relaxed) *
			 r->block_bytes;

	return bytes < r->length ? bytes : r->length; /* the last block may exceed the end */
}

uint64_t hgm_collapse_left_split(const struct hgm_region *r)
{
	return atomic_load_explicit(&r->collapse->left_split, memory_order_relaxed);
}

/* Is the block mapped huge according to PAGEMAP_SCAN? -errno: PAGEMAP_SCAN cannot tell. */
int hgm_block_is_huge(const struct hgm_region *r, uint64_t block)
{
	uint64_t huge;
	int rc = hgm_view_huge(&r->view, block * r->block_bytes, r->block_bytes, &huge);

	return rc ? rc : huge == r->block_bytes;
}

/*
 * Has a block that counts as huge been split by a touch? The page tables tell. Where they cannot be
 * checked block by block, the state before the touch decides: the block may have become huge since.
 */
static bool is_split(const struct hgm_region *r, uint64_t block, uint8_t before)
{
	return r->collapse->verify == HGM_VERIFY_PAGEMAP ? hgm_block_is_huge(r, block) <= 0
							 : before == HGM_BLOCK_HUGE;
}

/*
 * Was a block that counts as huge split without a touch? Where the page tables cannot be checked
 * block by block, holes still tell: the caller's file has been punched.
 */
static bool was_split_unseen(const struct hgm_region *r, uint64_t block)
{
	return r->collapse->verify == HGM_VERIFY_PAGEMAP ? !hgm_block_is_huge(r, block)
							 : hgm_holes_in_block(r, block);
}

/* A page of a block with holes was mapped. It may have filled the last hole. */
static void use_hole(struct hgm_region *r, uint64_t block)
{
	uint8_t holes = HGM_BLOCK_HOLES;

	if (!atomic_compare_exchange_strong_explicit(&r->collapse->state[block], &holes,
						     HGM_BLOCK_WAITING_SETTLED,
						     memory_order_seq_cst, memory_order_relaxed))
		return;
	atomic_store_explicit(&r->collapse->tries[block], 0, memory_order_relaxed);
	hgm_collapse_mark(r, block);
}

static void touched(struct hgm_region *r, uint64_t block, uint8_t before)
{
	uint8_t state = atomic_load_explicit(&r->collapse->state[block], memory_order_acquire);
	bool enough = atomic_load_explicit(&r->collapse->tries[block], memory_order_relaxed) >=
		      HGM_BLOCK_SPLIT_MAX;
	uint8_t huge = HGM_BLOCK_HUGE, collapsing = HGM_BLOCK_COLLAPSING;

	if (state == HGM_BLOCK_HOLES) {
		use_hole(r, block);
		return;
	}
	if (state != HGM_BLOCK_COLLAPSING && state != HGM_BLOCK_HUGE)
		return;
	/* The kernel may have finished already, and our verdict would be out of date. */
	if (atomic_compare_exchange_strong_explicit(&r->collapse->state[block], &collapsing,
						    HGM_BLOCK_TOUCHED, memory_order_acq_rel,
						    memory_order_relaxed))
		return;
	if (collapsing == HGM_BLOCK_HOLES) {
		use_hole(r, block);
		return;
	}
	if (!is_split(r, block, before))
		return;
	if (!atomic_compare_exchange_strong_explicit(&r->collapse->state[block], &huge,
						     enough ? HGM_BLOCK_LEFT_SPLIT
							    : HGM_BLOCK_WAITING_SETTLED,
						     memory_order_seq_cst, memory_order_relaxed))
		return;
	atomic_fetch_sub_explicit(&r->collapse->huge_blocks, 1, memory_order_relaxed);
	if (enough)
		atomic_fetch_add_explicit(&r->collapse->left_split, 1, memory_order_relaxed);
	else
		hgm_collapse_mark(r, block);
}

void hgm_collapse_touched(struct hgm_region *r, uint64_t block, uint8_t before)
{
	if (r->collapses)
		touched(r, block, before);
	else
		whole_block_present(r, block);
}

uint8_t hgm_collapse_state(const struct hgm_region *r, uint64_t block)
{
	return atomic_load_explicit(&r->collapse->state[block], memory_order_acquire);
}

void hgm_collapse_arrived(struct hgm_region *r)
{
	/* The time to verify is now: see collapse_verify.c. */
	if (r->collapse->verify == HGM_VERIFY_SMAPS)
		hgm_collapser_kick(r->h);
}

bool hgm_collapse_suspend(struct hgm_region *r, uint64_t block)
{
	uint8_t huge = HGM_BLOCK_HUGE;

	/* Write-protection splits no mapping in memory that is mapped by whole blocks. */
	if (hgm_region_whole_blocks(r))
		return false;
	if (!atomic_compare_exchange_strong_explicit(&r->collapse->state[block], &huge,
						     HGM_BLOCK_WAITING_SETTLED,
						     memory_order_acq_rel, memory_order_relaxed))
		return false;
	atomic_fetch_sub_explicit(&r->collapse->huge_blocks, 1, memory_order_relaxed);
	return true;
}

bool hgm_collapse_may_be_huge(const struct hgm_region *r, uint64_t block)
{
	switch (atomic_load_explicit(&r->collapse->state[block], memory_order_acquire)) {
	case HGM_BLOCK_UNVERIFIED:
	case HGM_BLOCK_UNVERIFIED_SETTLED:
		return true;
	case HGM_BLOCK_WAITING:
	case HGM_BLOCK_WAITING_SETTLED:
	case HGM_BLOCK_LEFT_SPLIT:
		return atomic_load_explicit(&r->collapse->tries[block], memory_order_relaxed);
	}
	return false;
}

bool hgm_block_change(_Atomic uint8_t *state, uint8_t from, uint8_t to)
{
	return atomic_compare_exchange_strong_explicit(state, &from, to, memory_order_seq_cst,
						       memory_order_relaxed);
}

/*
 * Nothing keeps the block small any more, so hgm_wait() waits for it as for a block that has just
 * arrived.
 */
void hgm_collapse_resume(struct hgm_region *r, uint64_t block)
{
	_Atomic uint8_t *state = &r->collapse->state[block];

	if (!r->collapses)
		return;
	hgm_region_unsettle(r);
	if (!hgm_block_change(state, HGM_BLOCK_WAITING_SETTLED, HGM_BLOCK_WAITING)) {
		hgm_region_settled(r);
		if (atomic_load_explicit(state, memory_order_seq_cst) != HGM_BLOCK_WAITING)
			return;
	}
	atomic_store_explicit(&r->collapse->tries[block], 0, memory_order_relaxed);
	hgm_collapse_mark(r, block);
}

/* False: the collapser is working on the block. */
static bool leave_alone(struct hgm_region *r, uint64_t block)
{
	_Atomic uint8_t *state = &r->collapse->state[block];

	if (hgm_block_change(state, HGM_BLOCK_HUGE, HGM_BLOCK_HOLES)) {
		atomic_fetch_sub_explicit(&r->collapse->huge_blocks, 1, memory_order_relaxed);
	} else if (hgm_block_change(state, HGM_BLOCK_LEFT_SPLIT, HGM_BLOCK_HOLES)) {
		atomic_fetch_sub_explicit(&r->collapse->left_split, 1, memory_order_relaxed);
	} else if (hgm_block_change(state, HGM_BLOCK_WAITING, HGM_BLOCK_HOLES)) {
		hgm_region_settled(r);
	} else {
		hgm_block_change(state, HGM_BLOCK_WAITING_SETTLED, HGM_BLOCK_HOLES);
		hgm_block_change(state, HGM_BLOCK_COLLAPSING, HGM_BLOCK_TOUCHED);
	}
	return atomic_load_explicit(state, memory_order_acquire) != HGM_BLOCK_TOUCHED;
}

static void discard_whole(struct hgm_region *r, uint64_t block)
{
	_Atomic uint8_t *state = &r->collapse->state[block];

	if (hgm_block_change(state, HGM_BLOCK_HUGE, HGM_BLOCK_OPEN))
		atomic_fetch_sub_explicit(&r->collapse->huge_blocks, 1, memory_order_relaxed);
}

void hgm_collapse_discarded(struct hgm_region *r, uint64_t page, uint64_t pages, bool may_wait)
{
	uint64_t last = hgm_region_block(r, page + pages - 1);

	for (uint64_t block = hgm_region_block(r, page); block <= last && block < r->blocks;) {
		if (!r->collapses)
			discard_whole(r, block++);
		else if (leave_alone(r, block) || !may_wait)
			block++;
		else
			nanosleep(&(struct timespec){ .tv_nsec = NAP_NS }, NULL);
	}
}

void hgm_collapse_look_again(struct hgm_region *r)
{
	for (uint64_t block = 0; block < r->blocks; block++) {
		_Atomic uint8_t *state = &r->collapse->state[block];
		uint8_t was = atomic_load_explicit(state, memory_order_acquire);

		atomic_store_explicit(&r->collapse->tries[block], 0, memory_order_relaxed);
		if (was == HGM_BLOCK_HOLES) {
			use_hole(r, block);
		} else if (was == HGM_BLOCK_LEFT_SPLIT &&
			   atomic_compare_exchange_strong_explicit(
				   state, &was, HGM_BLOCK_WAITING_SETTLED, memory_order_seq_cst,
				   memory_order_relaxed)) {
			atomic_fetch_sub_explicit(&r->collapse->left_split, 1,
						  memory_order_relaxed);
			hgm_collapse_mark(r, block);
		} else if (was == HGM_BLOCK_HUGE && was_split_unseen(r, block) &&
			   hgm_collapse_suspend(r, block)) {
			hgm_collapse_mark(r, block);
		}
	}
}

/* Writes have split huge mappings. Let such blocks become huge again. */
void hgm_collapse_find_split(struct hgm_region *r)
{
	for (uint64_t block = 0; block < r->blocks; block++) {
		if (atomic_load_explicit(&r->collapse->state[block], memory_order_acquire) !=
			    HGM_BLOCK_HUGE ||
		    hgm_block_is_huge(r, block))
			continue;
		hgm_collapse_suspend(r, block);
	}
}
