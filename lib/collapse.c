/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The collapser: full blocks become huge mappings, while the guest runs.
 *
 * MADV_COLLAPSE ignores what was installed and maps the whole block, holes as zeroes, and forgets
 * poison. So a block comes here only when all its 512 pages are present (full-last). Its return
 * code is advice: where PAGEMAP_SCAN exists the page tables are looked at. It wakes nobody: a WAKE
 * of the block follows, always, for those who faulted while the kernel had the block unmapped.
 */
#include <errno.h>

#include "clock.h"
#include "engine.h"
#include "resolve.h"
#include "sys.h"

#define TRIES_MAX      12 /* then the block is left split */
#define FELL_MAX       64 /* a block that falls apart again and again is left alone */
#define BACKOFF_MIN_US 1000
#define BACKOFF_MAX_US 200000

void hgm_collapser_init(struct hgm *h)
{
	struct hgm_collapser *c = &h->collapser;

	pthread_mutex_init(&c->lock, NULL);
	hgm_cond_init(&c->cond);
	c->pagemap = hgm_pagemap_open();
}

void hgm_collapser_destroy(struct hgm *h)
{
	struct hgm_collapser *c = &h->collapser;

	if (c->pagemap >= 0)
		hgm_sys->close(c->pagemap);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->cond);
}

static void mark(struct hgm_region *r, uint64_t block)
{
	atomic_fetch_or_explicit(&r->collapse_wanted[block / 64], UINT64_C(1) << block % 64,
				 memory_order_release);
	hgm_collapser_kick(r->h);
}

/* A last block that is not all there cannot be huge. */
static bool can_be_huge(const struct hgm_region *r, uint64_t block)
{
	return (block + 1) * r->block_bytes <= (r->copies ? r->length : r->mapped);
}

void hgm_collapse_want(struct hgm_region *r, uint64_t block)
{
	uint8_t open = HGM_BLOCK_OPEN;

	if (!can_be_huge(r, block) || !atomic_compare_exchange_strong_explicit(
					      &r->block_state[block], &open, HGM_BLOCK_WAITING,
					      memory_order_acq_rel, memory_order_relaxed))
		return;
	atomic_fetch_add_explicit(&r->unsettled_blocks, 1, memory_order_acq_rel);
	mark(r, block);
}

void hgm_collapse_again(struct hgm_region *r, uint64_t block)
{
	bool enough =
		atomic_load_explicit(&r->block_tries[block], memory_order_relaxed) >= FELL_MAX;
	uint8_t huge = HGM_BLOCK_HUGE;

	if (!atomic_compare_exchange_strong_explicit(
		    &r->block_state[block], &huge, enough ? HGM_BLOCK_SPLIT : HGM_BLOCK_FELL_APART,
		    memory_order_acq_rel, memory_order_relaxed))
		return;
	atomic_fetch_sub_explicit(&r->huge_blocks, 1, memory_order_relaxed);
	if (enough)
		atomic_fetch_add_explicit(&r->left_split, 1, memory_order_relaxed);
	else
		mark(r, block);
}

/* 0: mapped huge; -EAGAIN: it returned success and is not; else the kernel's word. */
static int collapse_block(struct hgm_region *r, uint64_t block)
{
	char *addr = r->primary + block * r->block_bytes;
	uint64_t huge;
	int rc, look;

	hgm_stat_add(r->h, HGM_STAT_COLLAPSE_TRIES, 1);
	rc = hgm_sys->madvise(addr, r->block_bytes, HGM_MADV_COLLAPSE);
	hgm_resolve_wake(r, block * r->block_bytes >> HGM_PAGE_SHIFT,
			 r->block_bytes >> HGM_PAGE_SHIFT);
	if (r->h->collapser.pagemap < 0)
		return rc;
	look = hgm_pagemap_huge(r->h->collapser.pagemap, addr, r->block_bytes, &huge);
	if (look) /* no PAGEMAP_SCAN: the return code is all there is */
		return rc;
	if (huge == r->block_bytes)
		return 0;
	if (rc)
		return rc;
	hgm_stat_add(r->h, HGM_STAT_COLLAPSE_UNPROVED, 1);
	return -EAGAIN;
}

/* True: to be tried again later. */
static bool visit(struct hgm_region *r, uint64_t block)
{
	_Atomic uint8_t *state = &r->block_state[block];
	bool settled = atomic_load_explicit(state, memory_order_acquire) == HGM_BLOCK_FELL_APART;
	unsigned int tries;
	int rc;

	atomic_store_explicit(state, HGM_BLOCK_COLLAPSING, memory_order_release);
	rc = collapse_block(r, block);
	tries = 1u + atomic_fetch_add_explicit(&r->block_tries[block], 1, memory_order_relaxed);
	if (!rc) {
		atomic_fetch_add_explicit(&r->huge_blocks, 1, memory_order_relaxed);
		hgm_stat_add(r->h, HGM_STAT_COLLAPSED_BLOCKS, 1);
		if (!settled)
			atomic_store_explicit(&r->block_tries[block], 0, memory_order_relaxed);
		atomic_store_explicit(state, HGM_BLOCK_HUGE, memory_order_release);
	} else if (tries < TRIES_MAX && rc != -ENOSYS) {
		hgm_stat_add(r->h, HGM_STAT_COLLAPSE_RETRIES, 1);
		atomic_store_explicit(&r->last_collapse_error, rc, memory_order_relaxed);
		atomic_store_explicit(state, settled ? HGM_BLOCK_FELL_APART : HGM_BLOCK_WAITING,
				      memory_order_release);
		return true;
	} else {
		atomic_store_explicit(&r->last_collapse_error, rc, memory_order_relaxed);
		atomic_fetch_add_explicit(&r->left_split, 1, memory_order_relaxed);
		atomic_store_explicit(state, HGM_BLOCK_SPLIT, memory_order_release);
	}
	if (!settled) {
		atomic_fetch_sub_explicit(&r->unsettled_blocks, 1, memory_order_acq_rel);
		hgm_region_check_complete(r);
	}
	return false;
}

/*
 * All wanted blocks of a region once, and if @retry those that failed before; true if some have
 * failed.
 */
static bool visit_region(struct hgm_region *r, bool retry)
{
	uint64_t words = (r->blocks + 63) / 64;
	bool failed = false;

	for (uint64_t w = 0; w < words; w++) {
		uint64_t bits = 0;

		if (atomic_load_explicit(&r->collapse_wanted[w], memory_order_relaxed))
			bits = atomic_exchange_explicit(&r->collapse_wanted[w], 0,
							memory_order_acq_rel);
		if (retry) {
			bits |= r->collapse_failed[w];
			r->collapse_failed[w] = 0;
		}
		for (; bits; bits &= bits - 1) {
			uint64_t bit = (uint64_t)__builtin_ctzll(bits);

			if (atomic_load_explicit(&r->dying, memory_order_acquire))
				return false;
			if (visit(r, w * 64 + bit))
				r->collapse_failed[w] |= UINT64_C(1) << bit;
		}
		failed |= r->collapse_failed[w] != 0;
	}
	return failed;
}

/* The regions of the moment, held one after another. */
static bool visit_all(struct hgm *h, bool retry)
{
	bool failed = false;

	for (unsigned int i = 0;; i++) {
		struct hgm_region *r = NULL;
		struct hgm_table *t;

		hgm_rcu_read_lock();
		t = atomic_load_explicit(&h->table, memory_order_acquire);
		if (i < t->count) {
			r = t->region[i];
			hgm_region_visit(r);
		}
		hgm_rcu_read_unlock();
		if (!r)
			return failed;
		if (r->collapses)
			failed |= visit_region(r, retry);
		hgm_region_leave(r);
	}
}

void *hgm_collapser_thread(void *arg)
{
	struct hgm *h = arg;
	struct hgm_collapser *c = &h->collapser;
	uint64_t retry_at = UINT64_MAX;
	uint64_t backoff_us = 0;

	if (!hgm_thread_may_begin(h))
		return NULL;
	pthread_mutex_lock(&c->lock);
	while (!c->stop) {
		bool retry = hgm_now_ns() >= retry_at;

		if (!c->wanted && !retry) {
			hgm_cond_wait(&c->cond, &c->lock, retry_at);
			continue;
		}
		c->wanted = false;
		pthread_mutex_unlock(&c->lock);
		if (!visit_all(h, retry)) {
			retry_at = UINT64_MAX;
			backoff_us = 0;
		} else if (retry || retry_at == UINT64_MAX) {
			backoff_us = backoff_us ? backoff_us * 2 : BACKOFF_MIN_US;
			backoff_us = backoff_us < BACKOFF_MAX_US ? backoff_us : BACKOFF_MAX_US;
			retry_at = hgm_now_ns() + backoff_us * 1000;
		}
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

void hgm_collapser_kick(struct hgm *h)
{
	pthread_mutex_lock(&h->collapser.lock);
	h->collapser.wanted = true;
	pthread_cond_signal(&h->collapser.cond);
	pthread_mutex_unlock(&h->collapser.lock);
}

void hgm_collapser_stop(struct hgm *h)
{
	pthread_mutex_lock(&h->collapser.lock);
	h->collapser.stop = true;
	pthread_cond_signal(&h->collapser.cond);
	pthread_mutex_unlock(&h->collapser.lock);
}
