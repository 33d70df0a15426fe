/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Are the collapsed blocks really huge? By smaps, where the kernel has no PAGEMAP_SCAN (before 6.7)
 * or where that cannot see the size of a hugetlb leaf.
 *
 * smaps counts for a whole memory area, and reading it walks the page tables of the process, which
 * for memory in small pieces takes as long as collapsing it. So it is read rarely: when the region
 * is full and nothing is left to collapse, else at most once in a while. Blocks that are not
 * proven are not settled: hgm_wait() waits for it.
 */
#include <errno.h>

#include "clock.h"
#include "engine.h"
#include "smaps.h"

#define PATIENCE_NS	    UINT64_C(1000000000) /* of a region that is not full */
#define PATIENCE_NO_FILL_NS UINT64_C(50000000)	 /* of one that need not become so */
#define COST_FACTOR	    20			 /* reading takes at most this part of the time */

void hgm_collapse_unverified(struct hgm_region *r)
{
	uint64_t at =
		hgm_now_ns() + (r->flags & HGM_REGION_NO_FILL ? PATIENCE_NO_FILL_NS : PATIENCE_NS);

	if (!r->unverified_blocks++ && r->verify_at_ns < at)
		r->verify_at_ns = at;
}

/*
 * Bytes mapped by leaves of the block's size; false: smaps does not tell. Nor does it of a part of
 * an area: of shmem and anonymous memory, neighbours that are alike become one.
 */
static bool huge_bytes(const struct hgm_region *r, uint64_t *bytes)
{
	struct hgm_smaps s;

	if (hgm_smaps_sum(r->primary, r->mapped, &s) || s.partial)
		return false;
	*bytes = r->backing == HGM_BACKING_ANON	       ? s.anon_huge
		 : r->backing != HGM_BACKING_HUGETLB   ? s.shmem_pmd
		 : r->block_bytes == UINT64_C(1) << 30 ? s.pud
						       : s.pmd;
	return true;
}

/*
 * Full blocks that are not counted, although smaps may count them: fill maps 2 MiB at once, and a
 * block whose collapse is still to come may be huge already.
 */
static uint64_t uncounted(const struct hgm_region *r)
{
	uint64_t n = 0;

	for (uint64_t block = 0; block < r->mapped / r->block_bytes; block++) {
		switch (atomic_load_explicit(&r->block_state[block], memory_order_acquire)) {
		case HGM_BLOCK_OPEN:
			n += r->native && r->block_bytes == HGM_LEAF_BYTES &&
			     hgm_map_leaf_full(r->map, block);
			break;
		case HGM_BLOCK_DEFERRED:
		case HGM_BLOCK_WAITING:
		case HGM_BLOCK_COLLAPSING:
		case HGM_BLOCK_TOUCHED:
			n++;
			break;
		case HGM_BLOCK_FELL_APART: /* who guards it has it unmapped */
			n += !hgm_guard_holds(r, block);
		}
	}
	return n;
}

/*
 * Which of the unverified blocks are not huge smaps does not say. All are tried again: for those
 * that are huge that costs next to nothing. At their last try as many as are missing are given up.
 */
static bool judge(struct hgm_region *r, uint64_t missing)
{
	bool failed = false;

	r->unverified_blocks = 0;
	for (uint64_t block = 0; block < r->blocks; block++) {
		uint8_t state = atomic_load_explicit(&r->block_state[block], memory_order_acquire);
		unsigned int tries =
			1u + atomic_load_explicit(&r->block_tries[block], memory_order_relaxed);
		int rc = missing ? -EAGAIN : 0;

		if (state != HGM_BLOCK_UNVERIFIED && state != HGM_BLOCK_UNVERIFIED_AGAIN)
			continue;
		if (missing)
			hgm_stat_add(r->h, HGM_STAT_COLLAPSE_UNPROVED, 1);
		if (missing && tries >= HGM_COLLAPSE_TRIES) {
			missing--;
			/* It may be another that fell apart and was not touched since. */
			if (state == HGM_BLOCK_UNVERIFIED_AGAIN)
				rc = 0;
		}
		failed |= hgm_collapse_outcome(r, block, rc, state == HGM_BLOCK_UNVERIFIED_AGAIN);
	}
	return failed;
}

/*
 * What somebody guards now is not huge any more, or soon will not be: its collapse was for nothing,
 * and comes again when it is let go.
 */
static void forget_held(struct hgm_region *r)
{
	for (uint64_t block = 0; block < r->blocks; block++) {
		_Atomic uint8_t *state = &r->block_state[block];
		uint8_t was = atomic_load_explicit(state, memory_order_acquire);

		if ((was != HGM_BLOCK_UNVERIFIED && was != HGM_BLOCK_UNVERIFIED_AGAIN) ||
		    !hgm_guard_holds(r, block))
			continue;
		r->unverified_blocks--;
		atomic_store_explicit(state, HGM_BLOCK_FELL_APART, memory_order_seq_cst);
		hgm_collapse_map_left(r, block);
		if (was == HGM_BLOCK_UNVERIFIED)
			hgm_region_settled(r);
		if (!hgm_guard_holds(r, block)) /* let go since */
			hgm_collapse_resume(r, block);
	}
}

/*
 * Judge by what smaps said after @holds, unless somebody began to guard since: what is guarded is
 * split. In one section, so that who begins now finds what was judged.
 */
static bool judge_unless_held(struct hgm_region *r, uint64_t missing, uint64_t holds)
{
	bool failed = false;
	int in;

	in = hgm_guard_enter(r);
	if (atomic_load_explicit(&r->holds, memory_order_seq_cst) == holds)
		failed = judge(r, missing);
	hgm_guard_exit(r, in);
	for (uint64_t block = 0; missing && block < r->blocks; block++)
		if (atomic_load_explicit(&r->block_state[block], memory_order_acquire) ==
		    HGM_BLOCK_SPLIT)
			hgm_collapse_map_left(r, block);
	return failed;
}

bool hgm_collapse_verify(struct hgm_region *r)
{
	uint64_t start = hgm_now_ns(), end, holds;
	uint64_t known, bytes, others;

	if (!r->unverified_blocks || atomic_load_explicit(&r->dying, memory_order_acquire))
		return false;
	holds = atomic_load_explicit(&r->holds, memory_order_seq_cst);
	if (atomic_load_explicit(&r->guard, memory_order_acquire))
		forget_held(r);
	if (!r->unverified_blocks)
		return false;
	/* Soon enough when the last of them has come, which brings us here again. */
	if (start < r->verify_at_ns &&
	    (atomic_load_explicit(&r->open_pages, memory_order_acquire) || uncounted(r)))
		return false;
	known = atomic_load_explicit(&r->huge_blocks, memory_order_relaxed) + r->unverified_blocks;
	if (!huge_bytes(r, &bytes))
		return judge_unless_held(r, 0, holds);
	end = hgm_now_ns();
	r->verify_at_ns = end + COST_FACTOR * (end - start);
	others = uncounted(r);
	if (bytes / r->block_bytes >= known + others)
		return judge_unless_held(r, 0, holds);
	if (others) /* it may be they that are huge: when they have been collapsed, too */
		return false;
	return judge_unless_held(r, known - bytes / r->block_bytes, holds);
}
