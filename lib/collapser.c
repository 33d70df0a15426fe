/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The collapser: the thread that goes round the regions, collapses the blocks that are wanted
 * (collapse.c), has them verified (collapse_verify.c), and comes back to those that failed.
 */
#include "bits.h"
#include "clock.h"
#include "engine.h"
#include "sys.h"

#define BACKOFF_MIN_US 1000
#define BACKOFF_MAX_US 200000
#define REST_NS	       1000000

/* Does this kernel have PAGEMAP_SCAN? */
static bool scans(int pagemap)
{
	static const char byte; /* something that is mapped */
	const char *page = &byte - (uintptr_t)&byte % HGM_PAGE_BYTES;
	struct hgm_pm_region found;
	uint64_t end;

	return hgm_sys->pagemap_scan(pagemap, page, page + HGM_PAGE_BYTES, HGM_PAGE_IS_PRESENT,
				     &found, 1, &end) >= 0;
}

void hgm_collapser_init(struct hgm *h)
{
	struct hgm_collapser *c = &h->collapser;

	pthread_mutex_init(&c->lock, NULL);
	hgm_cond_init(&c->cond);
	c->pagemap = hgm_pagemap_open();
	if (c->pagemap >= 0 && !scans(c->pagemap)) {
		hgm_sys->close(c->pagemap);
		c->pagemap = -1;
	}
}

void hgm_collapser_destroy(struct hgm *h)
{
	struct hgm_collapser *c = &h->collapser;

	if (c->pagemap >= 0)
		hgm_sys->close(c->pagemap);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->cond);
}

/*
 * All wanted blocks of a region once, and if @retry those that failed before; true if some have
 * failed.
 */
static bool visit_region(struct hgm_region *r, bool retry)
{
	uint64_t words = hgm_bits_words(r->blocks);
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
			if (atomic_load_explicit(&r->dying, memory_order_acquire))
				return false;
			hgm_collapse_visit(r, w * 64 + (uint64_t)__builtin_ctzll(bits));
		}
		failed |= r->collapse_failed[w] != 0;
	}
	return failed;
}

/*
 * The regions of the moment, held one after another. *verify_at: when the next of them wants to be
 * verified.
 */
static bool visit_all(struct hgm *h, bool retry, uint64_t *verify_at)
{
	bool failed = false;

	*verify_at = UINT64_MAX;
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
		if (r->collapses) {
			failed |= visit_region(r, retry);
			failed |= hgm_collapse_verify(r);
			if (r->unverified_blocks && r->verify_at_ns < *verify_at)
				*verify_at = r->verify_at_ns;
		}
		hgm_region_leave(r);
	}
}

/* Locked. Fill makes block after block full: who wakes up for each takes the CPU from it. */
static void rest(struct hgm_collapser *c)
{
	uint64_t end = hgm_now_ns() + REST_NS;

	c->resting = true;
	while (!c->stop && hgm_now_ns() < end)
		hgm_cond_wait(&c->cond, &c->lock, end);
	c->resting = false;
}

void *hgm_collapser_thread(void *arg)
{
	struct hgm *h = arg;
	struct hgm_collapser *c = &h->collapser;
	uint64_t retry_at = UINT64_MAX, verify_at = UINT64_MAX;
	uint64_t backoff_us = 0;

	if (!hgm_thread_may_begin(h))
		return NULL;
	pthread_mutex_lock(&c->lock);
	while (!c->stop) {
		uint64_t now = hgm_now_ns();
		bool retry = now >= retry_at;

		if (!c->wanted && !retry && now < verify_at) {
			hgm_cond_wait(&c->cond, &c->lock,
				      retry_at < verify_at ? retry_at : verify_at);
			continue;
		}
		if (c->wanted)
			rest(c);
		c->wanted = false;
		pthread_mutex_unlock(&c->lock);
		if (!visit_all(h, retry, &verify_at)) {
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
	struct hgm_collapser *c = &h->collapser;

	pthread_mutex_lock(&c->lock);
	if (!c->wanted && !c->resting)
		pthread_cond_signal(&c->cond);
	c->wanted = true;
	pthread_mutex_unlock(&c->lock);
}

void hgm_collapser_stop(struct hgm *h)
{
	pthread_mutex_lock(&h->collapser.lock);
	h->collapser.stop = true;
	pthread_cond_signal(&h->collapser.cond);
	pthread_mutex_unlock(&h->collapser.lock);
}
