/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The collapser: a thread that visits the regions in turn, collapses the blocks that are wanted
 * (collapse.c), has them verified (collapse_verify.c), and retries those that failed. Where the
 * kernel copies pages for a collapse, which takes a while, other threads help.
 */
#include <errno.h>
#include <stdlib.h>

#include "blocks.h"
#include "kernel/sys.h"
#include "region/hgm.h"
#include "util/bits.h"
#include "util/clock.h"

#define BACKOFF_MIN_US 1000
#define BACKOFF_MAX_US 200000
#define REST_NS	       1000000
#define LOOK_AGAIN_NS  UINT64_C(60000000000)

int hgm_collapser_init(struct hgm *h)
{
	struct hgm_collapser *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	h->collapser = c;
	pthread_mutex_init(&c->lock, NULL);
	hgm_cond_init(&c->cond);
	hgm_cond_init(&c->help_cond);
	c->look_again_at_ns = hgm_now_ns() + LOOK_AGAIN_NS;
	return 0;
}

void hgm_collapser_destroy(struct hgm *h)
{
	struct hgm_collapser *c = h->collapser;

	if (!c)
		return;
	free(atomic_load_explicit(&c->turns, memory_order_acquire));
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->cond);
	pthread_cond_destroy(&c->help_cond);
	free(c);
	h->collapser = NULL;
}

int hgm_collapse_make(struct hgm_region *r)
{
	uint64_t words = hgm_bits_words(r->blocks);
	struct hgm_collapse *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	r->collapse = c;
	c->state = calloc(r->blocks, sizeof(c->state[0]));
	c->tries = calloc(r->blocks, sizeof(c->tries[0]));
	c->wanted = calloc(words, sizeof(c->wanted[0]));
	c->failed = calloc(words, sizeof(c->failed[0]));
	c->unmapped = calloc(words, sizeof(c->unmapped[0]));
	return c->state && c->tries && c->wanted && c->failed && c->unmapped ? 0 : -ENOMEM;
}

void hgm_collapse_free(struct hgm_region *r)
{
	struct hgm_collapse *c = r->collapse;

	if (!c)
		return;
	free(c->state);
	free(c->tries);
	free(c->wanted);
	free(c->failed);
	free(c->unmapped);
	free(c);
	r->collapse = NULL;
}

/*
 * Take wanted blocks of a word, except those in *done: all of them, or only one if @one, where a
 * collapse takes a while. They are added to *done, and no other thread takes them.
 */
static uint64_t take(struct hgm_region *r, uint64_t word, bool one, uint64_t *done)
{
	_Atomic uint64_t *wanted = &r->collapse->wanted[word];
	uint64_t bits = atomic_load_explicit(wanted, memory_order_relaxed) & ~*done, mine = 0;

	while (bits && !mine) {
		mine = one ? bits & -bits : bits;
		bits = atomic_fetch_and_explicit(wanted, ~mine, memory_order_acq_rel) & ~*done;
		mine &= bits;
	}
	*done |= mine;
	return mine;
}

/*
 * Collapse all wanted blocks of a region once, and if @retry those that failed before. Blocks that
 * become wanted again meanwhile are left for another round.
 */
static void visit_region(struct hgm_region *r, bool retry)
{
	uint64_t words = hgm_bits_words(r->blocks);
	bool one = hgm_collapse_is_slow(r);

	for (uint64_t w = 0; w < words; w++) {
		uint64_t bits = 0, done = 0;

		if (retry)
			bits = atomic_exchange_explicit(&r->collapse->failed[w], 0,
							memory_order_acquire);
		if (bits)
			atomic_fetch_or_explicit(&r->collapse->wanted[w], bits,
						 memory_order_release);
		while ((bits = take(r, w, one, &done))) {
			while (bits) {
				if (atomic_load_explicit(&r->dying, memory_order_acquire))
					return;
				bits = hgm_collapse_visit(r, w, bits);
				hgm_log_flush(&r->h->log);
			}
		}
	}
}

enum visit {
	VISIT_WANTED,
	VISIT_FAILED, /* also those that failed before */
	VISIT_TO_HELP,
};

/* Visit the regions that exist now, one after another, and pin each of them meanwhile. */
static void visit_all(struct hgm *h, enum visit visit, bool look_again)
{
	bool end = false;

	for (unsigned int i = 0; !end; i++) {
		struct hgm_region *r = NULL;
		struct hgm_table *t;

		hgm_rcu_read_lock();
		t = atomic_load_explicit(&h->table, memory_order_acquire);
		end = i >= t->count;
		if (!end && (visit == VISIT_TO_HELP ? hgm_collapse_can_be_helped(t->region[i])
						    : t->region[i]->collapses)) {
			r = t->region[i];
			hgm_region_pin(r);
		}
		hgm_rcu_read_unlock();
		if (!r)
			continue;
		if (look_again)
			hgm_collapse_look_again(r);
		visit_region(r, visit == VISIT_FAILED);
		hgm_log_flush(&h->log);
		hgm_region_unpin(r);
	}
}

/*
 * Called with the lock held. Fill makes one block full after another: a thread that wakes up for
 * each of them takes the CPU from fill.
 */
static void rest(struct hgm_collapser *c)
{
	uint64_t end = hgm_now_ns() + REST_NS;

	c->resting = true;
	while (!c->stop && hgm_now_ns() < end)
		hgm_cond_wait(&c->cond, &c->lock, end);
	c->resting = false;
}

static void *collapser_thread(void *arg)
{
	struct hgm *h = arg;
	struct hgm_collapser *c = h->collapser;
	uint64_t retry_at = UINT64_MAX, verify_at = UINT64_MAX;
	uint64_t backoff_us = 0;

	if (!hgm_thread_may_begin(&h->gate))
		return NULL;
	pthread_mutex_lock(&c->lock);
	while (!c->stop) {
		uint64_t now = hgm_now_ns();
		bool retry = now >= retry_at, look_again = now >= c->look_again_at_ns;

		if (!c->wanted && !retry && !look_again && now < verify_at) {
			uint64_t until = retry_at < verify_at ? retry_at : verify_at;

			until = until < c->look_again_at_ns ? until : c->look_again_at_ns;
			hgm_cond_wait(&c->cond, &c->lock, until);
			continue;
		}
		/* The reason that kept a block small (no huge page, holes) may have passed. */
		if (look_again)
			c->look_again_at_ns = now + LOOK_AGAIN_NS;
		if (c->wanted)
			rest(c);
		c->wanted = false;
		if (retry)
			hgm_collapser_call_help(c);
		pthread_mutex_unlock(&c->lock);
		if (retry)
			atomic_exchange_explicit(&c->failed, false, memory_order_seq_cst);
		visit_all(h, retry ? VISIT_FAILED : VISIT_WANTED, look_again);
		verify_at = UINT64_MAX;
		hgm_collapse_verify(h, &verify_at);
		hgm_log_flush(&h->log);
		if (!atomic_load_explicit(&c->failed, memory_order_seq_cst)) {
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

static void *collapser_helper(void *arg)
{
	struct hgm *h = arg;
	struct hgm_collapser *c = h->collapser;
	uint64_t seen = 0;

	if (!hgm_thread_may_begin(&h->gate))
		return NULL;
	pthread_mutex_lock(&c->lock);
	while (!c->stop) {
		if (seen == c->help) {
			c->helpers_asleep++;
			pthread_cond_wait(&c->help_cond, &c->lock);
			continue;
		}
		hgm_cond_wait(&c->help_cond, &c->lock, hgm_now_ns() + REST_NS);
		seen = c->help;
		pthread_mutex_unlock(&c->lock);
		visit_all(h, VISIT_TO_HELP, false);
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

void hgm_collapser_stop(struct hgm *h)
{
	pthread_mutex_lock(&h->collapser->lock);
	h->collapser->stop = true;
	pthread_cond_signal(&h->collapser->cond);
	pthread_cond_broadcast(&h->collapser->help_cond);
	pthread_mutex_unlock(&h->collapser->lock);
}

int hgm_collapser_start(struct hgm *h)
{
	struct hgm_collapser *c = h->collapser;
	int rc = 0;

	while (!rc && c->started < h->opts.collapse_threads) {
		rc = hgm_thread_start(&c->thread[c->started], "hgm-collapse", c->started,
				      c->started ? collapser_helper : collapser_thread, h);
		c->started += !rc;
	}
	return rc;
}

void hgm_collapser_join(struct hgm *h)
{
	struct hgm_collapser *c = h->collapser;

	while (c->started)
		pthread_join(c->thread[--c->started], NULL);
	c->stop = false;
}
