/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Verify by smaps that collapsed blocks are really huge. This is used where the kernel has no
 * PAGEMAP_SCAN (before 6.7), or where PAGEMAP_SCAN cannot see the size of a hugetlb leaf.
 *
 * smaps counts for a whole memory area. Reading it walks the page tables of the process. For memory
 * in small pieces this takes as long as collapsing it. So smaps is read rarely: when a region is
 * full and has nothing left to collapse, else at most once in a while, and for all regions at a
 * time. Blocks that are not verified are not settled: hgm_wait() waits for them.
 */
#include <errno.h>
#include <stdlib.h>

#include "blocks.h"
#include "install/wp.h"
#include "region/hgm.h"
#include "uffd/smaps.h"
#include "util/clock.h"

#define COST_FACTOR	 20 /* reading takes at most 1/n of the time */
#define COST_FACTOR_FULL 2  /* the same for regions that are full */

/* Regions that are to be verified by smaps, by address. */
struct hgm_smaps_turns {
	struct turn {
		struct hgm_region *r;
		uint64_t known; /* blocks that are huge, or are said to be */
		uint64_t holds; /* hgm_wp_holds_count() before smaps was read */
	} of[HGM_REGIONS_MAX];
	struct hgm_smaps_range range[HGM_REGIONS_MAX];
};

static int need_smaps(struct hgm *h)
{
	struct hgm_smaps_turns *none = NULL, *turns;
	struct hgm_smaps smaps;
	int rc;

	if (atomic_load_explicit(&h->collapser->turns, memory_order_acquire))
		return 0;
	/* Check that smaps can be read. It is walked no further than this range. */
	rc = hgm_smaps_sum((void *)HGM_PAGE_BYTES, HGM_PAGE_BYTES, &smaps);
	if (rc)
		return rc;
	turns = calloc(1, sizeof(*turns));
	if (!turns)
		return -ENOMEM;
	if (!atomic_compare_exchange_strong_explicit(&h->collapser->turns, &none, turns,
						     memory_order_acq_rel, memory_order_acquire))
		free(turns);
	return 0;
}

/* How can a collapse be verified here? */
static enum hgm_verify verify_by(const struct hgm_region *r)
{
	struct hgm_smaps smaps;
	bool tells = !r->native || (!hgm_smaps_sum(r->view.start, hgm_region_mapped(r), &smaps) &&
				    smaps.has_leaf_counters);

	if (hgm_region_foreign(r))
		return r->view.space->scan_fd >= 0 ? HGM_VERIFY_PAGEMAP : HGM_VERIFY_NOT;
	/* For hugetlb memory, PAGE_IS_HUGE is set even for the smallest pieces. */
	if (r->view.space->scan_fd >= 0 && !r->native)
		return HGM_VERIFY_PAGEMAP;
	if (tells && !need_smaps(r->h))
		return HGM_VERIFY_SMAPS;
	return r->view.space->scan_fd >= 0 ? HGM_VERIFY_PAGEMAP : HGM_VERIFY_NOT;
}

void hgm_collapse_choose_verify(struct hgm_region *r)
{
	r->collapse->verify = verify_by(r);
}

/*
 * Bytes mapped by leaves of the block's size. smaps does not report a part of an area: neighbouring
 * areas of shmem and of anonymous memory that are alike become one.
 */
static uint64_t huge_bytes(const struct hgm_region *r, const struct hgm_smaps *s)
{
	return r->backing == HGM_BACKING_ANON	     ? s->anon_huge
	       : r->backing != HGM_BACKING_HUGETLB   ? s->shmem_pmd
	       : r->block_bytes == UINT64_C(1) << 30 ? s->pud
						     : s->pmd;
}

/*
 * Full blocks that are not counted, although smaps may count them: fill maps 2 MiB at once, and a
 * block may be huge before its collapse.
 */
static uint64_t uncounted(const struct hgm_region *r)
{
	uint64_t n = 0;

	for (uint64_t block = 0; block < r->mapped / r->block_bytes; block++) {
		switch (atomic_load_explicit(&r->collapse->state[block], memory_order_acquire)) {
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
		case HGM_BLOCK_WAITING_SETTLED: /* if held back, write-protection has unmapped it */
			n += !hgm_wp_holds(r, block);
		}
	}
	return n;
}

/*
 * smaps does not tell which of the unverified blocks are not huge. So all are tried again, which
 * costs next to nothing for those that are huge. At the last try, as many blocks as are missing are
 * given up.
 */
static void judge(struct hgm_region *r, uint64_t missing)
{
	r->collapse->unverified_blocks = 0;
	for (uint64_t block = 0; block < r->blocks; block++) {
		uint8_t state =
			atomic_load_explicit(&r->collapse->state[block], memory_order_acquire);
		unsigned int tries =
			1u + atomic_load_explicit(&r->collapse->tries[block], memory_order_relaxed);
		int rc = missing ? -EAGAIN : 0;

		if (state != HGM_BLOCK_UNVERIFIED && state != HGM_BLOCK_UNVERIFIED_SETTLED)
			continue;
		if (missing)
			hgm_stat_add(&r->h->stats, HGM_STAT_COLLAPSE_UNPROVED, 1);
		if (missing && tries >= HGM_COLLAPSE_TRIES) {
			missing--;
			/*
			 * The missing block may be another one that was split and was not touched
			 * since.
			 */
			if (state == HGM_BLOCK_UNVERIFIED_SETTLED)
				rc = 0;
		}
		hgm_collapse_outcome(r, block, rc, state == HGM_BLOCK_UNVERIFIED_SETTLED);
	}
}

/*
 * A block that is held back now is not huge any more, or soon will not be. Its collapse was in
 * vain, and is repeated when the wp owner releases the block.
 */
static void forget_held(struct hgm_region *r)
{
	for (uint64_t block = 0; block < r->blocks; block++) {
		_Atomic uint8_t *state = &r->collapse->state[block];
		uint8_t was = atomic_load_explicit(state, memory_order_acquire);

		if ((was != HGM_BLOCK_UNVERIFIED && was != HGM_BLOCK_UNVERIFIED_SETTLED) ||
		    !hgm_wp_holds(r, block))
			continue;
		r->collapse->unverified_blocks--;
		atomic_store_explicit(state, HGM_BLOCK_WAITING_SETTLED, memory_order_seq_cst);
		hgm_collapse_map_left(r, block);
		if (was == HGM_BLOCK_UNVERIFIED)
			hgm_region_settled(r);
		if (!hgm_wp_holds(r, block)) /* released since */
			hgm_collapse_resume(r, block);
	}
}

/*
 * Judge by what smaps reported after @holds was read, unless blocks have been held back since: such
 * blocks are split. Judge in one SRCU section, so that a thread that begins to write-protect now
 * finds the result.
 */
static void judge_unless_held(struct hgm_region *r, uint64_t missing, uint64_t holds)
{
	int in = hgm_wp_read_lock(r);

	if (hgm_wp_holds_count(r) == holds)
		judge(r, missing);
	hgm_wp_read_unlock(r, in);
	for (uint64_t block = 0; missing && block < r->blocks; block++)
		if (atomic_load_explicit(&r->collapse->state[block], memory_order_acquire) ==
		    HGM_BLOCK_LEFT_SPLIT)
			hgm_collapse_map_left(r, block);
}

/* Is it time to verify a region? If not, *at is lowered to the time when it will be. */
static bool is_due(const struct hgm_region *r, uint64_t now, uint64_t *at)
{
	/* It is soon enough when the last block has come, which brings us here again. */
	bool full = !atomic_load_explicit(&r->open_pages, memory_order_acquire) && !uncounted(r);
	uint64_t due = full ? r->h->collapser->smaps_next_ns : r->collapse->verify_at_ns;

	if (now < due && due < *at)
		*at = due;
	return now >= due;
}

/* Collect the regions that wait for smaps, by address, and pin them. */
static unsigned int collect(struct hgm *h, struct turn *turn)
{
	struct hgm_table *t;
	unsigned int n = 0;

	hgm_rcu_read_lock();
	t = atomic_load_explicit(&h->table, memory_order_acquire);
	for (unsigned int i = 0; i < t->count; i++) {
		struct hgm_region *r = t->region[i];

		if (!r->collapse->unverified_blocks)
			continue;
		hgm_region_pin(r);
		turn[n++].r = r;
	}
	hgm_rcu_read_unlock();
	return n;
}

/* Keep the regions that are due, and unpin the others. */
static unsigned int choose(struct hgm_smaps_turns *t, unsigned int n, uint64_t now, uint64_t *at)
{
	unsigned int due = 0;

	for (unsigned int i = 0; i < n; i++) {
		struct hgm_region *r = t->of[i].r;
		uint64_t holds = hgm_wp_holds_count(r);

		if (hgm_wp_of(r))
			forget_held(r);
		if (!r->collapse->unverified_blocks ||
		    atomic_load_explicit(&r->dying, memory_order_acquire) || !is_due(r, now, at)) {
			hgm_region_unpin(r);
			continue;
		}
		t->of[due] = (struct turn){
			.r = r,
			.holds = holds,
			.known = r->collapse->unverified_blocks +
				 atomic_load_explicit(&r->collapse->huge_blocks,
						      memory_order_relaxed),
		};
		t->range[due++] = (struct hgm_smaps_range){
			.start = (uintptr_t)r->view.start,
			.end = (uintptr_t)r->view.base + r->mapped,
		};
	}
	return due;
}

static void judge_by(const struct turn *turn, const struct hgm_smaps *s)
{
	struct hgm_region *r = turn->r;
	uint64_t huge = huge_bytes(r, s) / r->block_bytes;
	uint64_t others = s->partial ? 0 : uncounted(r);

	if (s->partial || huge >= turn->known + others)
		judge_unless_held(r, 0, turn->holds);
	else if (!others)
		judge_unless_held(r, turn->known - huge, turn->holds);
	/*
	 * Else the uncounted blocks may be the huge ones. Judge when they have been collapsed, too.
	 */
}

void hgm_collapse_verify(struct hgm *h, uint64_t *at)
{
	struct hgm_smaps_turns *t =
		atomic_load_explicit(&h->collapser->turns, memory_order_acquire);
	uint64_t start = hgm_now_ns(), end;
	unsigned int n = t ? choose(t, collect(h, t->of), start, at) : 0;
	int rc;

	if (!n)
		return;
	rc = hgm_smaps_sums(t->range, n);
	end = hgm_now_ns();
	h->collapser->smaps_next_ns = end + COST_FACTOR_FULL * (end - start);
	for (unsigned int i = 0; i < n; i++) {
		struct hgm_region *r = t->of[i].r;

		r->collapse->verify_at_ns = end + COST_FACTOR * (end - start);
		if (rc)
			judge_unless_held(r, 0, t->of[i].holds);
		else
			judge_by(&t->of[i], &t->range[i].sum);
		if (r->collapse->unverified_blocks && r->collapse->verify_at_ns < *at)
			*at = r->collapse->verify_at_ns;
		hgm_region_unpin(r);
	}
}
