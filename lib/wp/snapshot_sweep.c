/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sweep of a snapshot over all pages, which gives their contents at the instant to the sink.
 *
 * Exactly one thread copies a page whose wp bit is set: the one that sets the page's bit in
 * part->saving. It copies the contents first, then clears the wp bit, then unprotects the page,
 * which wakes the threads that wait to write. So a thread that finds the bit in part->saving set by
 * another one only has to try again.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "install/discard.h"
#include "region/hgm.h"
#include "snapshot.h"
#include "util/bits.h"
#include "util/clock.h"

#define NAP_NS	    1000000
#define TINY_NAP_NS 20000

static void nap(uint64_t ns)
{
	nanosleep(&(struct timespec){ .tv_nsec = (long)ns }, NULL);
}

static bool failed(const struct hgm_snapshot *s)
{
	return hgm_snapshot_failed(s);
}

void hgm_snapshot_check_alive(const struct hgm_part *part)
{
	if (atomic_load_explicit(&part->r->dying, memory_order_acquire))
		hgm_snapshot_fail(part->s, -ECANCELED);
}

void hgm_snapshot_drain(struct hgm_snapshot *s)
{
	struct hgm_pool *p = &s->pool;
	uint32_t at = hgm_pool_take_ready(p);

	while (at) {
		uint32_t slot = at - 1;
		struct hgm_part *part = &s->part[p->slot[slot].part];

		at = atomic_load_explicit(&p->slot[slot].next, memory_order_relaxed);
		if (p->index) {
			hgm_pool_index(p, slot);
			continue;
		}
		hgm_snapshot_check_alive(part);
		if (!failed(s))
			hgm_snapshot_fail(s, hgm_sink_pages(s, part, p->slot[slot].page, 1,
							    hgm_pool_page(p, slot)));
		hgm_pool_put(p, slot);
	}
}

/* Be no faster than was requested. The pool is drained meanwhile, because writers wait for it. */
static void keep_rate(struct hgm_snapshot *s)
{
	while (s->opts.rate_bytes && !failed(s)) {
		uint64_t now = hgm_now_ns();

		if (now >= s->rate_due_ns)
			return;
		nap(s->rate_due_ns - now < NAP_NS ? s->rate_due_ns - now : NAP_NS);
		hgm_snapshot_drain(s);
	}
}

/*
 * Copy pages of a word into the buffer: those whose wp bits are set and that no other thread
 * copies.
 */
static uint64_t copy_rest(struct hgm_part *part, uint64_t word, char *to)
{
	struct hgm_region *r = part->r;
	uint64_t want = hgm_wp_word(r, word) & part->armed[word] & hgm_region_word(r, word);
	uint64_t mine = want ? want & ~atomic_fetch_or_explicit(&part->saving[word], want,
								memory_order_acq_rel)
			     : 0;

	for (uint64_t bits = mine, low, run; hgm_bits_take_run(&bits, &low, &run);)
		hgm_snapshot_read(part->s, part, word * 64 + low, run,
				  to + (low << HGM_PAGE_SHIFT));
	return mine;
}

static void clear_wp_bits(struct hgm_region *r, uint64_t word, uint64_t bits)
{
	if (bits)
		hgm_wp_clear(r, word, bits);
}

static void release(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	while (hgm_wp_release(r, page, pages) == -EAGAIN)
		nap(TINY_NAP_NS);
}

/* Release pages of a word. None of them may still be being copied by another thread. */
static void release_bits(struct hgm_region *r, uint64_t word, uint64_t bits)
{
	uint64_t low, run;

	while (hgm_bits_take_run(&bits, &low, &run))
		release(r, word * 64 + low, run);
}

/*
 * Copy the pages of a word that are still to be copied, and clear their wp bits. Release them where
 * a page is the unit of protection.
 */
static uint64_t copy_word(struct hgm_part *part, uint64_t word, char *to)
{
	uint64_t mine = copy_rest(part, word, to);

	clear_wp_bits(part->r, word, mine);
	if (part->r->wp_bytes == HGM_PAGE_BYTES)
		release_bits(part->r, word, mine);
	return mine;
}

/*
 * Copy a whole unit of protection. A thread that copies parts of it for a writer either completes
 * that, or gives the parts back because the pool is full.
 */
static void copy_unit(struct hgm_sweep *sw, struct hgm_part *part, uint64_t page, uint64_t pages,
		      uint64_t *mine)
{
	do {
		for (uint64_t w = 0; w < (pages + 63) / 64; w++) {
			mine[w] |= copy_word(part, page / 64 + w,
					     sw->buf + (w * 64 << HGM_PAGE_SHIFT));
		}
	} while (hgm_wp_any(part->r, page, pages) && !failed(sw->s));
	release(part->r, page, pages);
}

/* Read pages that were not present at the instant. */
static void read_absent(struct hgm_snapshot *s, struct hgm_part *part, uint64_t word, char *to)
{
	uint64_t bits = part->discarded[word], holes, low, run;
	struct hgm_ahead_word *w;

	while (hgm_bits_take_run(&bits, &low, &run))
		memset(to + (low << HGM_PAGE_SHIFT), 0, run << HGM_PAGE_SHIFT);
	bits = hgm_snapshot_absent(part, word);
	hgm_ahead_ask(s);
	if (!bits || failed(s))
		return;
	w = hgm_ahead_first(s);
	while (!hgm_ahead_done(s, w) && !failed(s)) {
		hgm_snapshot_check_alive(part);
		hgm_ahead_wait(s);
		hgm_ahead_ask(s);
		hgm_snapshot_drain(s);
	}
	/* Requests end without an answer only if their region is being destroyed. */
	if (atomic_load_explicit(&w->through.open, memory_order_acquire))
		hgm_snapshot_fail(s, -ECANCELED);
	if (failed(s))
		return;
	/* Pages that were found to be holes, before they were requested or since. */
	holes = bits & atomic_load_explicit(&part->holes[word], memory_order_acquire);
	bits &= ~holes;
	while (hgm_bits_take_run(&holes, &low, &run))
		memset(to + (low << HGM_PAGE_SHIFT), 0, run << HGM_PAGE_SHIFT);
	while (hgm_bits_take_run(&bits, &low, &run)) {
		memcpy(to + (low << HGM_PAGE_SHIFT), w->through.buf + (low << HGM_PAGE_SHIFT),
		       run << HGM_PAGE_SHIFT);
		atomic_fetch_add_explicit(&s->source_pages, run, memory_order_relaxed);
	}
	bits = atomic_load_explicit(&w->through.unreadable, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->unreadable_pages, (uint64_t)__builtin_popcountll(bits),
				  memory_order_relaxed);
	hgm_ahead_next(s);
}

/* In order: take what other threads have copied, or are copying, from the pool. */
static void take_from_pool(struct hgm_snapshot *s, struct hgm_part *part, uint64_t word,
			   uint64_t others, char *to)
{
	while (others && !failed(s)) {
		uint64_t bit = (uint64_t)__builtin_ctzll(others);
		int64_t slot = hgm_pool_find(&s->pool, part->number, word * 64 + bit);

		if (slot < 0) {
			/* Given back because the pool is full, or still being copied. */
			others &= ~copy_word(part, word, to);
			hgm_snapshot_drain(s);
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

/* Give a word to the sink. The pages @mine are in the buffer already. */
static void put_word(struct hgm_snapshot *s, struct hgm_part *part, uint64_t word, uint64_t mine,
		     char *buf)
{
	uint64_t mask = hgm_region_word(part->r, word);
	uint64_t others = part->armed[word] & ~mine & mask;

	read_absent(s, part, word, buf);
	if (s->pool.index)
		take_from_pool(s, part, word, others, buf);
	write_out(s, part, word, s->pool.index ? mask : mask & ~others, buf);
	hgm_snapshot_drain(s);
}

/* Copy pages that were given back, because the pool was full, after the sweep had passed them. */
static void sweep_rest(struct hgm_sweep *sw, struct hgm_part *part, uint64_t page, uint64_t end)
{
	struct hgm_snapshot *s = sw->s;

	while (!failed(s) && hgm_wp_any(part->r, page, end - page)) {
		for (uint64_t w = page / 64; w * 64 < end && !failed(s); w++)
			write_out(s, part, w, copy_word(part, w, sw->buf), sw->buf);
		hgm_snapshot_drain(s);
	}
}

/* The unit of protection is a page. */
static void sweep_pages(struct hgm_sweep *sw, struct hgm_part *part, uint64_t page, uint64_t end)
{
	struct hgm_snapshot *s = sw->s;

	for (uint64_t word = page / 64; word * 64 < end && !failed(s); word++) {
		put_word(s, part, word, copy_word(part, word, sw->buf), sw->buf);
		keep_rate(s);
	}
	sweep_rest(sw, part, page, end);
}

/*
 * The unit of protection is a block. 2 MiB are copied as a whole before anything is given to the
 * sink. Larger blocks are copied piece by piece as they are given to it.
 */
static void sweep_unit(struct hgm_sweep *sw, struct hgm_part *part, uint64_t page, uint64_t end)
{
	struct hgm_snapshot *s = sw->s;
	bool whole = end - page <= HGM_SWEEP_PAGES;

	for (uint64_t at = page; at < end && !failed(s); at += HGM_SWEEP_PAGES) {
		uint64_t pages = end - at < HGM_SWEEP_PAGES ? end - at : HGM_SWEEP_PAGES;
		uint64_t mine[HGM_SWEEP_PAGES / 64] = { 0 };

		if (whole)
			copy_unit(sw, part, at, pages, mine);
		for (uint64_t w = 0; w < (pages + 63) / 64 && !failed(s); w++) {
			char *buf = sw->buf + (w * 64 << HGM_PAGE_SHIFT);

			if (!whole)
				mine[w] = copy_word(part, at / 64 + w, buf);
			put_word(s, part, at / 64 + w, mine[w], buf);
			keep_rate(s);
		}
	}
	if (whole)
		return;
	/* Writes to the block meanwhile cause fault threads to copy what is left. */
	sweep_rest(sw, part, page, end);
	if (!failed(s))
		release(part->r, page, end - page);
}

void hgm_sweep_block(struct hgm_sweep *sw, struct hgm_part *part, uint64_t block)
{
	struct hgm_region *r = part->r;
	uint64_t first = block * (r->block_bytes >> HGM_PAGE_SHIFT);
	uint64_t end = first + (r->block_bytes >> HGM_PAGE_SHIFT);

	hgm_snapshot_check_alive(part);
	end = end < hgm_region_end(r) ? end : hgm_region_end(r);
	if (r->wp_bytes > HGM_PAGE_BYTES)
		sweep_unit(sw, part, first, end);
	else
		sweep_pages(sw, part, first, end);
	if (!failed(sw->s))
		hgm_wp_release_block(r, block);
}
