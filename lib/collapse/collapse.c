/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Full blocks become huge mappings, while the guest runs.
 *
 * MADV_COLLAPSE ignores what was installed, maps the whole block with holes as zeroes, and drops
 * poison. So a block is collapsed only when all its pages are present (full-last). The return code
 * of MADV_COLLAPSE is only advice. The page tables are checked instead, block by block by
 * PAGEMAP_SCAN, or else for all blocks at a time by smaps (collapse_verify.c). MADV_COLLAPSE wakes
 * no thread. A WAKE of the block always follows, for threads that faulted while the kernel had the
 * block unmapped.
 *
 * A block with holes, where the guest's owner has given memory back, is left alone: the kernel
 * would fill the holes. When a hole is used again, the block is checked again, and collapsed if no
 * hole is left.
 *
 * hugetlb memory is only ever collapsed in whole blocks: collapsing less is a kernel BUG with HGM
 * v2.
 */
#include <errno.h>

#include "blocks.h"
#include "collapse.h"
#include "install/wp.h"
#include "install/resolve.h"
#include "kernel/sys.h"
#include "region/hgm.h"
#include "region/holes.h"
#include "util/error.h"
#include "util/clock.h"
#include "util/trace.h"

#define RUN_MAX		    16			 /* blocks that are collapsed by one call */
#define PATIENCE_NS	    UINT64_C(1000000000) /* to verify a region that is not full */
#define PATIENCE_NO_FILL_NS UINT64_C(50000000)	 /* one that need not become full */

/*
 * The kernel does not collapse a block of HGM memory of which nothing is mapped. So map such a
 * block by the largest leaf. The collapse follows, whatever the result.
 */
static void map_untouched(struct hgm_region *r, uint64_t block)
{
	uint64_t page = block * r->block_bytes >> HGM_PAGE_SHIFT;
	struct hgm_range range = { .addr = hgm_region_at(r, page),
				   .len = r->block_bytes,
				   .step = r->block_bytes };

	hgm_range_until_exist(hgm_view_uffd(&r->view, page), &range, HGM_VERB_CONTINUE, NULL);
}

/* One of the blocks that a visit tries to collapse. */
struct attempt {
	uint64_t block;
	bool held;    /* held back: not to be collapsed now */
	bool ours;    /* to be collapsed by us */
	bool settled; /* hgm_wait() does not wait for it */
	bool left;    /* it has holes and is left alone */
	bool asks;    /* the kernel is asked to collapse it */
	int rc;
};

/*
 * The number of adjacent blocks, from the first on, for which the kernel is asked in one call. A
 * settled block ends the run: it may have been huge before, and may have small pages now, which are
 * copied.
 */
static unsigned int asked_run(const struct attempt *a, unsigned int n)
{
	unsigned int run = 0;

	while (run < n && a[run].asks && a[run].block == a[0].block + run)
		if (a[run++].settled)
			break;
	return run;
}

static int ask_kernel(struct hgm_region *r, uint64_t block, unsigned int blocks)
{
	hgm_stat_add(&r->h->stats, HGM_STAT_COLLAPSE_TRIES, blocks);
	return hgm_view_advise(&r->view, block * r->block_bytes, blocks * r->block_bytes,
			       HGM_MADV_COLLAPSE);
}

/*
 * False: the block was discarded or touched since we looked at it, and the kernel would fill the
 * holes.
 */
static bool is_untouched(const struct hgm_region *r, uint64_t block)
{
	return atomic_load_explicit(&r->collapse->state[block], memory_order_acquire) ==
	       HGM_BLOCK_COLLAPSING;
}

static int ask_for_block(struct hgm_region *r, uint64_t block)
{
	int rc = is_untouched(r, block) ? ask_kernel(r, block, 1) : -EAGAIN;

	/* Before 6.18 the kernel refuses if nothing of the same 1 GiB was ever mapped. */
	if (rc == -EINVAL && hgm_collapse_is_left(r, block) &&
	    !hgm_resolve_remap(r, block * r->block_bytes >> HGM_PAGE_SHIFT, 1))
		rc = ask_kernel(r, block, 1);
	return rc;
}

/*
 * Each call makes all CPUs drain their lists of pages, and a busy CPU delays this. So make one call
 * for the whole run. A call that fails does not say for which block.
 */
static void ask_for_run(struct hgm_region *r, struct attempt *a, unsigned int run)
{
	bool together = run > 1;
	int rc = -EAGAIN;

	for (unsigned int i = 0; i < run; i++)
		together &= is_untouched(r, a[i].block);
	if (together)
		rc = ask_kernel(r, a[0].block, run);
	for (unsigned int i = 0; i < run; i++)
		a[i].rc = rc ? ask_for_block(r, a[i].block) : 0;
}

/*
 * @rc is what the kernel returned for the block. Returns 0 if the block is mapped huge,
 * -EINPROGRESS if smaps must tell, -EAGAIN if the kernel returned success but the block is not
 * huge, else the kernel's error.
 */
static int look_at(struct hgm_region *r, uint64_t block, int rc)
{
	int look;

	hgm_region_wake(r, block * r->block_bytes >> HGM_PAGE_SHIFT,
			r->block_bytes >> HGM_PAGE_SHIFT);
	/* A touch before this is seen by the check that follows. */
	atomic_exchange_explicit(&r->collapse->state[block], HGM_BLOCK_COLLAPSING,
				 memory_order_acq_rel);
	/*
	 * For hugetlb memory the return code is wrong both ways: it is mixed with that of the next
	 * memory area.
	 */
	if (r->collapse->verify == HGM_VERIFY_SMAPS && (!rc || r->native))
		return -EINPROGRESS;
	if (r->collapse->verify != HGM_VERIFY_PAGEMAP)
		return rc;
	look = hgm_block_is_huge(r, block);
	if (look > 0)
		return 0;
	if (look < 0 || rc)
		return rc;
	hgm_stat_add(&r->h->stats, HGM_STAT_COLLAPSE_UNPROVED, 1);
	hgm_collapse_in_doubt(r, block);
	return -EAGAIN;
}

/*
 * False: a thread has touched the block since we looked at it. The block is counted before any
 * thread can count it off.
 */
static bool becomes_huge(struct hgm_region *r, uint64_t block)
{
	_Atomic uint8_t *state = &r->collapse->state[block];
	uint8_t was = atomic_load_explicit(state, memory_order_relaxed);

	atomic_fetch_add_explicit(&r->collapse->huge_blocks, 1, memory_order_relaxed);
	while (was != HGM_BLOCK_TOUCHED)
		if (atomic_compare_exchange_weak_explicit(state, &was, HGM_BLOCK_HUGE,
							  memory_order_acq_rel,
							  memory_order_relaxed))
			return true;
	atomic_fetch_sub_explicit(&r->collapse->huge_blocks, 1, memory_order_relaxed);
	return false;
}

void hgm_collapse_outcome(struct hgm_region *r, uint64_t block, int rc, bool settled)
{
	_Atomic uint8_t *state = &r->collapse->state[block];
	unsigned int tries;

	HGM_TRACE3(collapse, r->view.base + block * r->block_bytes, r->block_bytes, rc);
	tries = 1u + atomic_fetch_add_explicit(&r->collapse->tries[block], 1, memory_order_relaxed);
	/*
	 * Do this before the block counts as huge: from then on it may be split, and left to its
	 * collapse again.
	 */
	if (!rc)
		hgm_collapse_mapped(r, block);
	if (!rc && !becomes_huge(r, block)) {
		hgm_collapse_in_doubt(r, block);
		rc = -EAGAIN;
	}
	if (!rc) {
		hgm_stat_add(&r->h->stats, HGM_STAT_COLLAPSED_BLOCKS, 1);
		if (!settled)
			atomic_store_explicit(&r->collapse->tries[block], 0, memory_order_relaxed);
	} else if (tries < (settled ? HGM_BLOCK_SPLIT_MAX : HGM_COLLAPSE_TRIES) && rc != -ENOSYS &&
		   rc != -ESRCH) {
		hgm_stat_add(&r->h->stats, HGM_STAT_COLLAPSE_RETRIES, 1);
		atomic_store_explicit(&r->last_collapse_error, rc, memory_order_relaxed);
		atomic_store_explicit(state,
				      settled ? HGM_BLOCK_WAITING_SETTLED : HGM_BLOCK_WAITING,
				      memory_order_seq_cst);
		atomic_fetch_or_explicit(&r->collapse->failed[block / 64],
					 UINT64_C(1) << block % 64, memory_order_release);
		hgm_collapser_try_again(r->h);
		return;
	} else {
		atomic_store_explicit(&r->last_collapse_error, rc, memory_order_relaxed);
		atomic_fetch_add_explicit(&r->collapse->left_split, 1, memory_order_relaxed);
		atomic_store_explicit(state, HGM_BLOCK_LEFT_SPLIT, memory_order_release);
		if (rc != -ESRCH) /* else the process is gone, which is reported elsewhere */
			hgm_log_some(&r->h->log, HGM_LOG_LEFT_SPLIT, HGM_LOG_WARNING,
				     "the block of %llu MiB at %p stays in small pages after %u "
				     "tries: %s",
				     (unsigned long long)r->block_bytes >> 20,
				     (void *)(r->view.base + block * r->block_bytes), tries,
				     hgm_errno_name(rc));
	}
	if (!settled)
		hgm_region_settled(r);
}

static void unverified(struct hgm_region *r)
{
	uint64_t at =
		hgm_now_ns() + (r->flags & HGM_REGION_NO_FILL ? PATIENCE_NO_FILL_NS : PATIENCE_NS);

	if (!r->collapse->unverified_blocks++ && r->collapse->verify_at_ns < at)
		r->collapse->verify_at_ns = at;
}

/*
 * True: a block that is being collapsed has holes, and is left alone. If a thread uses a hole
 * meanwhile, the block is checked again.
 */
static bool leave_holes(struct hgm_region *r, uint64_t block, bool settled)
{
	_Atomic uint8_t *state = &r->collapse->state[block];
	uint8_t was = HGM_BLOCK_COLLAPSING;

	if (!hgm_holes_in_block(r, block))
		return false;
	if (!atomic_compare_exchange_strong_explicit(state, &was, HGM_BLOCK_HOLES,
						     memory_order_seq_cst, memory_order_relaxed)) {
		atomic_store_explicit(state, HGM_BLOCK_WAITING_SETTLED, memory_order_seq_cst);
		hgm_collapse_mark(r, block);
	}
	if (!settled)
		hgm_region_settled(r);
	return true;
}

/* A thread in hgm_wait() must not wait for a wp owner, which may last long. */
static void settle_held(struct hgm_region *r, uint64_t block)
{
	uint8_t was = HGM_BLOCK_WAITING;

	if (!atomic_compare_exchange_strong_explicit(&r->collapse->state[block], &was,
						     HGM_BLOCK_WAITING_SETTLED,
						     memory_order_seq_cst, memory_order_relaxed))
		return;
	hgm_collapse_map_left(r, block);
	hgm_region_settled(r);
	/* The wp owner may have released the block since. */
	if (!hgm_wp_holds(r, block))
		hgm_collapse_mark(r, block);
}

/* Decide whether a block is to be collapsed. It may have been marked twice. */
static void begin(struct hgm_region *r, struct attempt *a)
{
	_Atomic uint8_t *state = &r->collapse->state[a->block];
	uint8_t was = atomic_load_explicit(state, memory_order_acquire);

	a->held = hgm_wp_holds(r, a->block);
	a->settled = was == HGM_BLOCK_WAITING_SETTLED;
	a->ours = !a->held && (was == HGM_BLOCK_WAITING || a->settled) &&
		  hgm_block_change(state, was, HGM_BLOCK_COLLAPSING);
	if (!a->ours)
		return;
	a->left = leave_holes(r, a->block, a->settled);
	if (a->left)
		return;
	a->rc = hgm_wp_unregister_block(r, a->block);
	a->asks = !a->rc;
	if (a->asks && r->native)
		map_untouched(r, a->block);
}

/*
 * Runs in the SRCU section, too: a thread that begins to write-protect must find the block huge,
 * and suspend it.
 */
static void conclude(struct hgm_region *r, struct attempt *a)
{
	if (!a->ours || a->left)
		return;
	if (a->asks)
		a->rc = look_at(r, a->block, a->rc);
	if (a->rc == -EINPROGRESS) {
		atomic_store_explicit(&r->collapse->state[a->block],
				      a->settled ? HGM_BLOCK_UNVERIFIED_SETTLED
						 : HGM_BLOCK_UNVERIFIED,
				      memory_order_release);
		unverified(r);
		return;
	}
	/* Memory has been given back meanwhile: the kernel returns EBUSY. */
	a->left = a->asks && a->rc && leave_holes(r, a->block, a->settled);
	if (!a->left)
		hgm_collapse_outcome(r, a->block, a->rc, a->settled);
}

/* Runs after the SRCU section. */
static void end(struct hgm_region *r, const struct attempt *a)
{
	if (a->held)
		settle_held(r, a->block);
	else if (a->left || (a->rc && a->rc != -EINPROGRESS))
		hgm_collapse_map_left(r, a->block);
}

uint64_t hgm_collapse_visit(struct hgm_region *r, uint64_t word, uint64_t bits)
{
	/*
	 * Where pages are copied, each block takes the kernel a while, and other threads may wait
	 * for it.
	 */
	unsigned int most = hgm_collapse_is_slow(r) ? 1 : RUN_MAX, n = 0;
	struct attempt a[RUN_MAX] = { 0 };
	int in;

	for (; bits && n < most; bits &= bits - 1)
		a[n++].block = word * 64 + (uint64_t)__builtin_ctzll(bits);
	/*
	 * Either a thread that begins to write-protect waits for us, or we see that it holds the
	 * block back. When the wp owner releases the block, the block comes back here.
	 */
	in = hgm_wp_read_lock(r);
	for (unsigned int i = 0; i < n; i++)
		begin(r, &a[i]);
	for (unsigned int i = 0, run; i < n; i += run ? run : 1) {
		run = asked_run(a + i, n - i);
		if (run)
			ask_for_run(r, a + i, run);
	}
	for (unsigned int i = 0; i < n; i++)
		conclude(r, &a[i]);
	hgm_wp_read_unlock(r, in);
	for (unsigned int i = 0; i < n; i++)
		end(r, &a[i]);
	return bits;
}
