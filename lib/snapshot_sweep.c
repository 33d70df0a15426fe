/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread of a snapshot: first it maps again what the instant has unmapped, then it sweeps over
 * all pages and gives their contents at the instant to the sink.
 *
 * A guarded page has one who copies it: whoever sets its bit in part->saving. Its contents are
 * copied first, then the page is no longer guarded, then it is unprotected, which wakes those who
 * wait to write. So whoever finds the bit set by somebody else need only come again.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bits.h"
#include "clock.h"
#include "engine.h"
#include "resolve.h"
#include "snapshot.h"

#define CHUNK_PAGES HGM_LEAF_PAGES /* at most; less where a page is the unit of protection */
#define NAP_NS	    1000000
#define TINY_NAP_NS 20000

struct sweep {
	struct hgm_snapshot *s;
	char *buf; /* CHUNK_PAGES */
};

static void nap(uint64_t ns)
{
	nanosleep(&(struct timespec){ .tv_nsec = (long)ns }, NULL);
}

static bool failed(const struct hgm_snapshot *s)
{
	return atomic_load_explicit(&((struct hgm_snapshot *)s)->error, memory_order_acquire);
}

/* What was copied before writes: to the sink, or into the index to wait for its turn. */
static void drain(struct hgm_snapshot *s)
{
	struct hgm_pool *p = &s->pool;
	uint32_t at = hgm_pool_take_ready(p);

	while (at) {
		uint32_t slot = at - 1;

		at = atomic_load_explicit(&p->slot[slot].next, memory_order_relaxed);
		if (p->index) {
			hgm_pool_index(p, slot);
			continue;
		}
		if (!failed(s))
			hgm_snapshot_fail(s, hgm_sink_pages(s, &s->part[p->slot[slot].part],
							    p->slot[slot].page, 1,
							    hgm_pool_page(p, slot)));
		hgm_pool_put(p, slot);
	}
}

/* No faster than was asked. What writers wait for goes on. */
static void keep_rate(struct hgm_snapshot *s)
{
	while (s->opts.rate_bytes && !failed(s)) {
		uint64_t due_ns = s->rate_start_ns + (uint64_t)((double)s->rate_bytes * 1e9 /
								(double)s->opts.rate_bytes);
		uint64_t now = hgm_now_ns();

		if (now >= due_ns)
			return;
		nap(due_ns - now < NAP_NS ? due_ns - now : NAP_NS);
		drain(s);
	}
}

static uint64_t mask_of(const struct hgm_region *r, uint64_t word)
{
	return hgm_bits_low(hgm_region_pages(r) - word * 64);
}

/* Pages of a word that are ours to copy: the buffer has them afterwards. */
static uint64_t copy_owed(struct hgm_part *part, uint64_t word, char *to)
{
	struct hgm_region *r = part->r;
	uint64_t want = atomic_load_explicit(&r->guarded[word], memory_order_acquire) &
			part->armed[word] & mask_of(r, word);
	uint64_t mine = want ? want & ~atomic_fetch_or_explicit(&part->saving[word], want,
								memory_order_acq_rel)
			     : 0;

	for (uint64_t bits = mine; bits; bits &= bits - 1) {
		unsigned int bit = (unsigned int)__builtin_ctzll(bits);

		hgm_guard_read(r, word * 64 + bit, to + ((uint64_t)bit << HGM_PAGE_SHIFT));
	}
	return mine;
}

static void unguard(struct hgm_region *r, uint64_t word, uint64_t bits)
{
	if (bits)
		atomic_fetch_and_explicit(&r->guarded[word], ~bits, memory_order_acq_rel);
}

static void release(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	while (hgm_guard_release(r, page, pages) == -EAGAIN)
		nap(TINY_NAP_NS);
}

/* Pages of a word, and none that somebody else may still be copying. */
static void release_bits(struct hgm_region *r, uint64_t word, uint64_t bits)
{
	uint64_t low, run;

	while (hgm_bits_take_run(&bits, &low, &run))
		release(r, word * 64 + low, run);
}

/* Copy what is owed of a word, and let it go where a page is the unit. */
static uint64_t copy_word(struct hgm_part *part, uint64_t word, char *to)
{
	uint64_t mine = copy_owed(part, word, to);

	unguard(part->r, word, mine);
	if (part->r->wp_bytes == HGM_PAGE_BYTES)
		release_bits(part->r, word, mine);
	return mine;
}

/*
 * Copy a whole unit of protection. Whoever copies parts of it for a writer either goes on to do so,
 * or gives them back for want of room in the pool.
 */
static void copy_unit(struct sweep *sw, struct hgm_part *part, uint64_t page, uint64_t pages,
		      uint64_t *mine)
{
	do {
		for (uint64_t w = 0; w < (pages + 63) / 64; w++) {
			mine[w] |= copy_word(part, page / 64 + w,
					     sw->buf + (w * 64 << HGM_PAGE_SHIFT));
		}
	} while (hgm_guard_any(part->r, page, pages) && !failed(sw->s));
	release(part->r, page, pages);
}

static void peek_done(struct hgm_peek *peek)
{
	struct hgm_snapshot *s =
		(struct hgm_snapshot *)((char *)peek - offsetof(struct hgm_snapshot, peek));

	pthread_mutex_lock(&s->lock);
	s->peeking = false;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

/* The source may answer from inside its cancel function, which wants the lock. */
void hgm_snapshot_give_up_peek(struct hgm_snapshot *s)
{
	struct hgm_region *r = s->peeked;
	uint64_t id;

	if (!s->peeking || !hgm_request_give_up(&s->peek, &id))
		return;
	hgm_region_visit(r);
	pthread_mutex_unlock(&s->lock);
	hgm_request_cancel(r, id);
	hgm_region_leave(r);
	pthread_mutex_lock(&s->lock);
}

static void wait_for_peek(struct hgm_snapshot *s)
{
	pthread_mutex_lock(&s->lock);
	while (s->peeking) {
		hgm_cond_wait(&s->cond, &s->lock, hgm_now_ns() + NAP_NS);
		if (failed(s))
			hgm_snapshot_give_up_peek(s);
		pthread_mutex_unlock(&s->lock);
		drain(s);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
}

/* Pages that were not there at the instant. */
static void read_source(struct hgm_snapshot *s, struct hgm_part *part, uint64_t page,
			uint64_t pages, char *to)
{
	pthread_mutex_lock(&s->lock);
	s->peek = (struct hgm_peek){
		.buf = to, .first_page = page, .pages = pages, .done = peek_done
	};
	s->peeked = part->r;
	s->peeking = true;
	pthread_mutex_unlock(&s->lock);
	while (hgm_request_peek(part->r, &s->peek) == -EAGAIN) {
		if (atomic_load_explicit(&part->r->dying, memory_order_acquire))
			hgm_snapshot_fail(s, -ECANCELED);
		if (failed(s)) {
			peek_done(&s->peek);
			return;
		}
		drain(s);
		nap(TINY_NAP_NS);
	}
	wait_for_peek(s);
	if (s->peek.settled_pages < pages)
		hgm_snapshot_fail(s, -ECANCELED);
	atomic_fetch_add_explicit(&s->source_pages, pages, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->unreadable_pages, s->peek.unreadable_pages,
				  memory_order_relaxed);
}

static void read_absent(struct hgm_snapshot *s, struct hgm_part *part, uint64_t word, char *to)
{
	uint64_t bits = ~part->armed[word] & mask_of(part->r, word);
	uint64_t low, run;

	while (!failed(s) && hgm_bits_take_run(&bits, &low, &run))
		read_source(s, part, word * 64 + low, run, to + (low << HGM_PAGE_SHIFT));
}

/* In order: what others have copied, or are copying, comes from the pool. */
static void take_from_pool(struct hgm_snapshot *s, struct hgm_part *part, uint64_t word,
			   uint64_t others, char *to)
{
	while (others && !failed(s)) {
		uint64_t bit = (uint64_t)__builtin_ctzll(others);
		int64_t slot = hgm_pool_find(&s->pool, part->number, word * 64 + bit);

		if (slot < 0) {
			/* Given back for want of room, or still being copied. */
			others &= ~copy_word(part, word, to);
			drain(s);
			continue;
		}
		memcpy(to + (bit << HGM_PAGE_SHIFT), hgm_pool_page(&s->pool, (uint32_t)slot),
		       HGM_PAGE_BYTES);
		hgm_pool_put(&s->pool, (uint32_t)slot);
		others &= others - 1;
	}
}

static void write_out(struct hgm_snapshot *s, const struct hgm_part *part, uint64_t word,
		      uint64_t have, const char *buf)
{
	uint64_t low, run;

	while (!failed(s) && hgm_bits_take_run(&have, &low, &run))
		hgm_snapshot_fail(s, hgm_sink_pages(s, part, word * 64 + low, run,
						    buf + (low << HGM_PAGE_SHIFT)));
}

/* What a word is in the snapshot, when @mine of it is in the buffer already. */
static void put_word(struct hgm_snapshot *s, struct hgm_part *part, uint64_t word, uint64_t mine,
		     char *buf)
{
	uint64_t mask = mask_of(part->r, word);
	uint64_t others = part->armed[word] & ~mine & mask;

	read_absent(s, part, word, buf);
	if (s->pool.index)
		take_from_pool(s, part, word, others, buf);
	write_out(s, part, word, s->pool.index ? mask : mask & ~others, buf);
	drain(s);
}

/* What was given back for want of room in the pool after we had passed it. */
static void sweep_rest(struct sweep *sw, struct hgm_part *part, uint64_t page, uint64_t end)
{
	struct hgm_snapshot *s = sw->s;

	while (!failed(s) && hgm_guard_any(part->r, page, end - page)) {
		for (uint64_t w = page / 64; w * 64 < end && !failed(s); w++)
			write_out(s, part, w, copy_word(part, w, sw->buf), sw->buf);
		drain(s);
	}
}

/* A page is the unit of protection. */
static void sweep_pages(struct sweep *sw, struct hgm_part *part, uint64_t page, uint64_t end)
{
	struct hgm_snapshot *s = sw->s;

	for (uint64_t word = page / 64; word * 64 < end && !failed(s); word++) {
		put_word(s, part, word, copy_word(part, word, sw->buf), sw->buf);
		keep_rate(s);
	}
	sweep_rest(sw, part, page, end);
}

/* A block is: of 2 MiB, copied as a whole before anything is written; above, as it is written. */
static void sweep_unit(struct sweep *sw, struct hgm_part *part, uint64_t page, uint64_t end)
{
	struct hgm_snapshot *s = sw->s;
	bool whole = end - page <= CHUNK_PAGES;

	for (uint64_t at = page; at < end && !failed(s); at += CHUNK_PAGES) {
		uint64_t pages = end - at < CHUNK_PAGES ? end - at : CHUNK_PAGES;
		uint64_t mine[CHUNK_PAGES / 64] = { 0 };

		if (whole)
			copy_unit(sw, part, at, pages, mine);
		for (uint64_t w = 0; w < (pages + 63) / 64 && !failed(s); w++) {
			char *buf = sw->buf + (w * 64 << HGM_PAGE_SHIFT);

			if (!whole)
				mine[w] = copy_word(part, at / 64 + w, buf);
			put_word(s, part, at / 64 + w, mine[w], buf);
		}
		keep_rate(s);
	}
	if (whole)
		return;
	/* Who writes to it meanwhile copies what is left. */
	sweep_rest(sw, part, page, end);
	if (!failed(s))
		release(part->r, page, end - page);
}

static void sweep_block(struct sweep *sw, struct hgm_part *part, uint64_t block)
{
	struct hgm_region *r = part->r;
	uint64_t first = block * (r->block_bytes >> HGM_PAGE_SHIFT);
	uint64_t end = first + (r->block_bytes >> HGM_PAGE_SHIFT);

	if (atomic_load_explicit(&r->dying, memory_order_acquire))
		hgm_snapshot_fail(sw->s, -ECANCELED);
	end = end < hgm_region_pages(r) ? end : hgm_region_pages(r);
	if (r->wp_bytes > HGM_PAGE_BYTES)
		sweep_unit(sw, part, first, end);
	else
		sweep_pages(sw, part, first, end);
	if (!failed(sw->s))
		hgm_guard_block_out(r, block);
}

/*
 * Protecting huge mappings has unmapped them: each touch, reads too, would fault. Those who touch
 * meanwhile are served by the fault threads.
 */
static void map_again(struct hgm_snapshot *s, struct hgm_part *part)
{
	struct hgm_region *r = part->r;

	for (uint64_t block = 0; block < r->blocks && !failed(s); block++) {
		if (atomic_load_explicit(&r->dying, memory_order_acquire))
			hgm_snapshot_fail(s, -ECANCELED);
		hgm_guard_map_again(r, block);
		drain(s);
	}
}

static void run(struct hgm_snapshot *s)
{
	struct sweep sw = { .s = s,
			    .buf = aligned_alloc(HGM_PAGE_BYTES, CHUNK_PAGES << HGM_PAGE_SHIFT) };

	hgm_snapshot_fail(s, sw.buf ? hgm_sink_begin(s) : -ENOMEM);
	s->rate_start_ns = hgm_now_ns();
	for (uint32_t i = 0; i < s->parts && !failed(s); i++)
		map_again(s, &s->part[i]);
	for (uint32_t i = 0; i < s->parts && !failed(s); i++)
		for (uint64_t block = 0; block < s->part[i].r->blocks && !failed(s); block++)
			sweep_block(&sw, &s->part[i], block);
	/* Those who copy are in read-side sections. */
	hgm_rcu_synchronize();
	drain(s);
	free(sw.buf);
}

static void wait_for_begin(struct hgm_snapshot *s)
{
	bool gone = false;

	pthread_mutex_lock(&s->lock);
	while (s->state == HGM_SNAPSHOT_PREPARED && !failed(s) && !gone) {
		for (uint32_t i = 0; i < s->parts; i++)
			gone |= atomic_load_explicit(&s->part[i].r->dying, memory_order_acquire);
		if (!gone)
			hgm_cond_wait(&s->cond, &s->lock, hgm_now_ns() + 20 * NAP_NS);
	}
	/* Locked: who begins must know whether we have ended. */
	if (gone)
		hgm_snapshot_fail(s, -ECANCELED);
	pthread_mutex_unlock(&s->lock);
}

void *hgm_snapshot_thread(void *arg)
{
	struct hgm_snapshot *s = arg;
	int rc;

	/* Whoever began it shall get on, and not be preempted by the thread that it wakes. */
	pthread_setschedparam(pthread_self(), SCHED_BATCH, &(struct sched_param){ 0 });
	wait_for_begin(s);
	if (!failed(s))
		run(s);
	for (uint32_t i = 0; i < s->parts; i++)
		hgm_guard_end(s->part[i].r);
	drain(s);
	for (uint32_t i = 0; i < s->parts; i++)
		hgm_region_leave(s->part[i].r);
	if (!failed(s)) {
		rc = hgm_sink_finish(s);
		hgm_snapshot_fail(s, rc);
	}
	pthread_mutex_lock(&s->lock);
	s->state = HGM_SNAPSHOT_ENDED;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}
