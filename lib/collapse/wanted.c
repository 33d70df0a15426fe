/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which blocks the collapser is to look at, and waking it. Also whether a collapse copies pages,
 * and whether helpers can do it.
 */
#include "blocks.h"
#include "collapse.h"
#include "region/hgm.h"

bool hgm_collapse_is_slow(const struct hgm_region *r)
{
	return r->copies || r->native || r->prepared_blocks < r->whole_end - r->whole_first;
}

/*
 * The kernel copies anonymous memory under the lock of the address space, one block at a time.
 * Regions that are verified by smaps belong to the first collapser.
 */
bool hgm_collapse_can_be_helped(const struct hgm_region *r)
{
	return r->collapses && r->collapse->verify == HGM_VERIFY_PAGEMAP && !r->native &&
	       r->backing != HGM_BACKING_ANON && hgm_collapse_is_slow(r);
}

/* Called with the lock held. */
void hgm_collapser_call_help(struct hgm_collapser *c)
{
	c->help++;
	if (c->helpers_asleep)
		pthread_cond_broadcast(&c->help_cond);
	c->helpers_asleep = 0;
}

/* Called with the lock held. */
static void kick(struct hgm_collapser *c)
{
	if (!c->wanted && !c->resting)
		pthread_cond_signal(&c->cond);
	c->wanted = true;
}

void hgm_collapser_kick(struct hgm *h)
{
	pthread_mutex_lock(&h->collapser->lock);
	kick(h->collapser);
	pthread_mutex_unlock(&h->collapser->lock);
}

/* A block has been marked. */
static void wanted(const struct hgm_region *r)
{
	struct hgm_collapser *c = r->h->collapser;

	pthread_mutex_lock(&c->lock);
	kick(c);
	if (hgm_collapse_can_be_helped(r))
		hgm_collapser_call_help(c);
	pthread_mutex_unlock(&c->lock);
}

void hgm_collapse_mark(struct hgm_region *r, uint64_t block)
{
	atomic_fetch_or_explicit(&r->collapse->wanted[block / 64], UINT64_C(1) << block % 64,
				 memory_order_release);
	wanted(r);
}

/*
 * A block has failed, and is in its region's bitmap. If only a helper knows, wake the first
 * collapser.
 */
void hgm_collapser_try_again(struct hgm *h)
{
	if (!atomic_exchange_explicit(&h->collapser->failed, true, memory_order_seq_cst) &&
	    !pthread_equal(pthread_self(), h->collapser->thread[0]))
		hgm_collapser_kick(h);
}
