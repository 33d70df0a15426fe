/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Full blocks become huge mappings, while the guest runs.
 *
 * MADV_COLLAPSE ignores what was installed and maps the whole block, holes as zeroes, and forgets
 * poison. So a block comes here only when all its pages are present (full-last). Its return code is
 * advice: the page tables are looked at, block by block by PAGEMAP_SCAN, or else all at a time by
 * smaps (collapse_verify.c). It wakes nobody: a WAKE of the block follows, always, for those who
 * faulted while the kernel had the block unmapped.
 *
 * Of hugetlb memory only whole blocks are ever collapsed: less is a kernel BUG with HGM v2.
 */
#include <errno.h>

#include "engine.h"
#include "error.h"
#include "resolve.h"
#include "sys.h"
#include "trace.h"

#define FELL_MAX 64 /* a block that falls apart again and again is left alone */

static void mark(struct hgm_region *r, uint64_t block)
{
	atomic_fetch_or_explicit(&r->collapse_wanted[block / 64], UINT64_C(1) << block % 64,
				 memory_order_release);
	hgm_collapser_kick(r->h);
}

bool hgm_collapse_can_be_huge(const struct hgm_region *r, uint64_t block)
{
	return (block + 1) * r->block_bytes <= (r->copies ? r->length : r->mapped);
}

void hgm_collapse_want(struct hgm_region *r, uint64_t block)
{
	uint8_t was = HGM_BLOCK_OPEN;

	if (!hgm_collapse_can_be_huge(r, block) ||
	    !atomic_compare_exchange_strong_explicit(&r->block_state[block], &was,
						     HGM_BLOCK_DEFERRED, memory_order_seq_cst,
						     memory_order_relaxed))
		return;
	if (!atomic_load_explicit(&r->deferred, memory_order_seq_cst))
		hgm_collapse_due(r, block);
}

/*
 * A full block's collapse need not wait any more. Both the block's filler and
 * hgm_region_collapse() may say so: seq_cst on deferred and block_state lets one of the two see
 * what the other has done, and one of them is first.
 */
void hgm_collapse_due(struct hgm_region *r, uint64_t block)
{
	uint8_t was = HGM_BLOCK_DEFERRED;

	/* Before the state changes, so that nobody counts it off before it is counted. */
	hgm_region_unsettle(r);
	if (atomic_compare_exchange_strong_explicit(&r->block_state[block], &was, HGM_BLOCK_WAITING,
						    memory_order_seq_cst, memory_order_relaxed))
		mark(r, block);
	else
		hgm_region_settled(r);
}

int hgm_region_collapse(struct hgm_region *r)
{
	if (!r)
		return hgm_fail(-EINVAL, "hgm_region_collapse: the region is NULL");
	if (r->flags & HGM_REGION_NO_COLLAPSE)
		return hgm_fail(-EOPNOTSUPP, "hgm_region_collapse: the region was made with "
					     "HGM_REGION_NO_COLLAPSE");
	if (!atomic_exchange_explicit(&r->deferred, false, memory_order_seq_cst))
		return 0;
	atomic_store_explicit(&r->complete, false, memory_order_relaxed);
	for (uint64_t block = 0; block < r->blocks; block++)
		if (atomic_load_explicit(&r->block_state[block], memory_order_seq_cst) ==
		    HGM_BLOCK_DEFERRED)
			hgm_collapse_due(r, block);
	hgm_region_check_complete(r);
	return 0;
}

/* Is it mapped huge, by PAGEMAP_SCAN? -errno: that does not say. */
static int is_huge(const struct hgm_region *r, uint64_t block)
{
	uint64_t huge;
	int rc = hgm_pagemap_huge(r->h->collapser.pagemap, r->primary + block * r->block_bytes,
				  r->block_bytes, &huge);

	return rc ? rc : huge == r->block_bytes;
}

/*
 * Is a block that counts as huge no more so after a touch? The page tables tell. Where they cannot
 * be asked block by block it is what it was before the touch that counts: it may have become huge
 * since.
 */
static bool fell_apart(const struct hgm_region *r, uint64_t block, uint8_t before)
{
	return r->verify == HGM_VERIFY_PAGEMAP ? is_huge(r, block) <= 0 : before == HGM_BLOCK_HUGE;
}

void hgm_collapse_touched(struct hgm_region *r, uint64_t block, uint8_t before)
{
	uint8_t state = atomic_load_explicit(&r->block_state[block], memory_order_acquire);
	bool enough =
		atomic_load_explicit(&r->block_tries[block], memory_order_relaxed) >= FELL_MAX;
	uint8_t huge = HGM_BLOCK_HUGE, collapsing = HGM_BLOCK_COLLAPSING;

	if (state != HGM_BLOCK_COLLAPSING && state != HGM_BLOCK_HUGE)
		return;
	/* The kernel may be done, and what we are going to say of it out of date. */
	if (atomic_compare_exchange_strong_explicit(&r->block_state[block], &collapsing,
						    HGM_BLOCK_TOUCHED, memory_order_acq_rel,
						    memory_order_relaxed))
		return;
	if (!fell_apart(r, block, before))
		return;
	if (!atomic_compare_exchange_strong_explicit(
		    &r->block_state[block], &huge, enough ? HGM_BLOCK_SPLIT : HGM_BLOCK_FELL_APART,
		    memory_order_seq_cst, memory_order_relaxed))
		return;
	atomic_fetch_sub_explicit(&r->huge_blocks, 1, memory_order_relaxed);
	if (enough)
		atomic_fetch_add_explicit(&r->left_split, 1, memory_order_relaxed);
	else
		mark(r, block);
}

bool hgm_collapse_suspend(struct hgm_region *r, uint64_t block)
{
	uint8_t huge = HGM_BLOCK_HUGE;

	if (!atomic_compare_exchange_strong_explicit(&r->block_state[block], &huge,
						     HGM_BLOCK_FELL_APART, memory_order_acq_rel,
						     memory_order_relaxed))
		return false;
	atomic_fetch_sub_explicit(&r->huge_blocks, 1, memory_order_relaxed);
	return true;
}

void hgm_collapse_resume(struct hgm_region *r, uint64_t block)
{
	uint8_t state = atomic_load_explicit(&r->block_state[block], memory_order_seq_cst);

	if (state != HGM_BLOCK_FELL_APART && state != HGM_BLOCK_WAITING)
		return;
	atomic_store_explicit(&r->block_tries[block], 0, memory_order_relaxed);
	mark(r, block);
}

/*
 * Of HGM memory with nothing mapped the kernel collapses nothing: such a block is mapped, by the
 * largest leaf. Whatever comes of it, the collapse follows.
 */
static void map_untouched(struct hgm_region *r, uint64_t block)
{
	uint64_t page = block * r->block_bytes >> HGM_PAGE_SHIFT;
	struct hgm_range range = { .addr = hgm_region_at(r, page),
				   .len = r->block_bytes,
				   .step = r->block_bytes };

	hgm_range_until_exist(hgm_region_uffd(r, page), &range, HGM_VERB_CONTINUE, NULL);
}

static int ask_kernel(struct hgm_region *r, char *addr)
{
	hgm_stat_add(r->h, HGM_STAT_COLLAPSE_TRIES, 1);
	return hgm_sys->madvise(addr, r->block_bytes, HGM_MADV_COLLAPSE);
}

/*
 * 0: mapped huge; -EINPROGRESS: smaps must tell; -EAGAIN: it returned success and is not; else the
 * kernel's word.
 */
static int collapse_block(struct hgm_region *r, uint64_t block)
{
	char *addr = r->primary + block * r->block_bytes;
	int rc, look;

	rc = hgm_guard_unregister_block(r, block);
	if (rc)
		return rc;
	if (r->native)
		map_untouched(r, block);
	rc = ask_kernel(r, addr);
	/* Before 6.18 it refuses where nothing of the same 1 GiB was ever mapped. */
	if (rc == -EINVAL && hgm_collapse_is_left(r, block) &&
	    !hgm_resolve_remap(r, block * r->block_bytes >> HGM_PAGE_SHIFT, 1))
		rc = ask_kernel(r, addr);
	hgm_resolve_wake(r, block * r->block_bytes >> HGM_PAGE_SHIFT,
			 r->block_bytes >> HGM_PAGE_SHIFT);
	/* Whoever touched it before this is seen by the look that follows. */
	atomic_exchange_explicit(&r->block_state[block], HGM_BLOCK_COLLAPSING,
				 memory_order_acq_rel);
	/* Of hugetlb memory its code lies both ways: the next memory area's is mixed in. */
	if (r->verify == HGM_VERIFY_SMAPS && (!rc || r->native))
		return -EINPROGRESS;
	if (r->verify != HGM_VERIFY_PAGEMAP)
		return rc;
	look = is_huge(r, block);
	if (look > 0)
		return 0;
	if (look < 0 || rc)
		return rc;
	hgm_stat_add(r->h, HGM_STAT_COLLAPSE_UNPROVED, 1);
	return -EAGAIN;
}

/* False: somebody has touched it since it was looked at. Counted before anybody can take it off. */
static bool becomes_huge(struct hgm_region *r, uint64_t block)
{
	_Atomic uint8_t *state = &r->block_state[block];
	uint8_t was = atomic_load_explicit(state, memory_order_relaxed);

	atomic_fetch_add_explicit(&r->huge_blocks, 1, memory_order_relaxed);
	while (was != HGM_BLOCK_TOUCHED)
		if (atomic_compare_exchange_weak_explicit(state, &was, HGM_BLOCK_HUGE,
							  memory_order_acq_rel,
							  memory_order_relaxed))
			return true;
	atomic_fetch_sub_explicit(&r->huge_blocks, 1, memory_order_relaxed);
	return false;
}

bool hgm_collapse_outcome(struct hgm_region *r, uint64_t block, int rc, bool settled)
{
	_Atomic uint8_t *state = &r->block_state[block];
	unsigned int tries;

	HGM_TRACE3(collapse, r->primary + block * r->block_bytes, r->block_bytes, rc);
	tries = 1u + atomic_fetch_add_explicit(&r->block_tries[block], 1, memory_order_relaxed);
	if (!rc && !becomes_huge(r, block))
		rc = -EAGAIN;
	if (!rc) {
		hgm_stat_add(r->h, HGM_STAT_COLLAPSED_BLOCKS, 1);
		hgm_collapse_mapped(r, block);
		if (!settled)
			atomic_store_explicit(&r->block_tries[block], 0, memory_order_relaxed);
	} else if (tries < (settled ? FELL_MAX : HGM_COLLAPSE_TRIES) && rc != -ENOSYS) {
		hgm_stat_add(r->h, HGM_STAT_COLLAPSE_RETRIES, 1);
		atomic_store_explicit(&r->last_collapse_error, rc, memory_order_relaxed);
		atomic_store_explicit(state, settled ? HGM_BLOCK_FELL_APART : HGM_BLOCK_WAITING,
				      memory_order_seq_cst);
		r->collapse_failed[block / 64] |= UINT64_C(1) << block % 64;
		return true;
	} else {
		atomic_store_explicit(&r->last_collapse_error, rc, memory_order_relaxed);
		atomic_fetch_add_explicit(&r->left_split, 1, memory_order_relaxed);
		atomic_store_explicit(state, HGM_BLOCK_SPLIT, memory_order_release);
		hgm_log_some(r->h, HGM_LOG_LEFT_SPLIT, HGM_LOG_WARNING,
			     "the block of %llu MiB at %p stays in small pages after %u tries: %s",
			     (unsigned long long)r->block_bytes >> 20,
			     (void *)(r->primary + block * r->block_bytes), tries,
			     hgm_errno_name(rc));
	}
	if (!settled)
		hgm_region_settled(r);
	return false;
}

/* Nobody shall wait in hgm_wait() for somebody who guards, perhaps for long. */
static void settle_held(struct hgm_region *r, uint64_t block)
{
	uint8_t was = HGM_BLOCK_WAITING;

	if (!atomic_compare_exchange_strong_explicit(&r->block_state[block], &was,
						     HGM_BLOCK_FELL_APART, memory_order_seq_cst,
						     memory_order_relaxed))
		return;
	hgm_collapse_map_left(r, block);
	hgm_region_settled(r);
	/* It may have been let go since. */
	if (!hgm_guard_holds(r, block))
		mark(r, block);
}

void hgm_collapse_visit(struct hgm_region *r, uint64_t block)
{
	_Atomic uint8_t *state = &r->block_state[block];
	uint8_t was = atomic_load_explicit(state, memory_order_acquire);
	bool settled = was == HGM_BLOCK_FELL_APART;
	int in, rc;

	/* Who begins to guard waits for us, or we see it: its end brings the block back here. */
	in = hgm_guard_enter(r);
	if (hgm_guard_holds(r, block)) {
		hgm_guard_exit(r, in);
		settle_held(r, block);
		return;
	}
	/* It may have been marked twice. */
	if ((was != HGM_BLOCK_WAITING && !settled) ||
	    !atomic_compare_exchange_strong_explicit(state, &was, HGM_BLOCK_COLLAPSING,
						     memory_order_acq_rel, memory_order_relaxed)) {
		hgm_guard_exit(r, in);
		return;
	}
	rc = collapse_block(r, block);
	/* In the section, too: who begins to guard must find it huge, and suspend it. */
	if (rc != -EINPROGRESS) {
		hgm_collapse_outcome(r, block, rc, settled);
	} else {
		atomic_store_explicit(state,
				      settled ? HGM_BLOCK_UNVERIFIED_AGAIN : HGM_BLOCK_UNVERIFIED,
				      memory_order_release);
		hgm_collapse_unverified(r);
	}
	hgm_guard_exit(r, in);
	if (rc && rc != -EINPROGRESS)
		hgm_collapse_map_left(r, block);
}
