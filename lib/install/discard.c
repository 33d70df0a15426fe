/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Discards: pages that the owner of the guest gives back (balloon, free page reporting,
 * hot-unplug).
 *
 * A discarded page reads as zeroes until it is written to, and is never filled from the source
 * again. If the page had arrived, only its memory is dropped: the map keeps it present, and the
 * next fault finds nothing in memory and installs zeroes (present.c). If it had not arrived, the
 * map notes it as discarded (discarded-wins in map.c). The library learns of a discard
 *
 *	from hgm_region_discard();
 *	from an event of userfaultfd, before the kernel drops the memory (events.c);
 *	when it finds a new hole in memory that was prepared: in a missing fault, when fill looks
 *	before it asks the source, or in a missing fault on the alias (alias.c), raised by the
 *	owner of a claim that writes the source's answer.
 *
 * The last case closes the race between an answer and a discard that was not announced
 * (fallocate(2) on the file, another process). An owner cannot put a page back into the page cache
 * without raising this fault, so it finds its page discarded before it publishes the page.
 */
#include <errno.h>
#include <sched.h>
#include <sys/mman.h>

#include <hgm/region.h>

#include "discard.h"
#include "installs.h"
#include "kinds.h"
#include "kernel/sys.h"
#include "region/hgm.h"
#include "region/holes.h"
#include "resolve.h"
#include "util/bits.h"

/* This thread reads an engine's events, or writes out a snapshot, and would wait for itself. */
static _Thread_local bool reads_events;

void hgm_events_reader_begins(void)
{
	reads_events = true;
}

bool hgm_reads_events(void)
{
	return reads_events;
}

int hgm_drop_not(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	(void)r;
	(void)page;
	(void)pages;
	return -EOPNOTSUPP;
}

int hgm_drop_anon(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	/* A thread that reads the event must not raise it: a fault thread that got an answer. */
	if (reads_events)
		return 0;
	return hgm_sys->madvise(hgm_region_at(r, page), pages << HGM_PAGE_SHIFT, MADV_DONTNEED);
}

int hgm_drop_file(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t before_ns = hgm_suspects_ctime(r);
	int rc = hgm_sys->punch_hole(r->fd, hgm_region_file_at(r, page), pages << HGM_PAGE_SHIFT);

	hgm_suspects_dropped(r, before_ns);
	return rc;
}

/* Leave out memory that the region has lost: it belongs to others, or is mapped elsewhere. */
int hgm_discard_memory(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t from = page << HGM_PAGE_SHIFT, to = from + (pages << HGM_PAGE_SHIFT);
	int rc;

	for_each_kept (r, from, to, at, len) {
		rc = r->install->kind->drop(r, at >> HGM_PAGE_SHIFT, len >> HGM_PAGE_SHIFT);
		if (rc)
			return rc;
	}
	return 0;
}

/* May the file hold old data where contents are missing? */
static bool has_remains(const struct hgm_region *r)
{
	return r->backing != HGM_BACKING_ANON &&
	       (r->holds_contents || atomic_load_explicit(&r->scribbled, memory_order_acquire));
}

/*
 * All of a block is present, and the pages that came last hold no memory. Threads that wait for a
 * block of hugetlb wait for its first page until all of it is present. The block becomes huge when
 * one of them uses it.
 */
static void block_discarded(struct hgm_region *r, uint64_t block)
{
	uint64_t block_pages = r->block_bytes >> HGM_PAGE_SHIFT;

	if (hgm_region_whole_blocks(r))
		hgm_region_wake(r, block * block_pages, block_pages);
	else
		r->h->ops->filled(r, block);
}

/* Publish pages of one word that the caller owns, and whose contents are zeroes. */
static void publish(struct hgm_region *r, uint64_t word, uint64_t bits)
{
	uint64_t low, run;
	bool filled = false;

	hgm_stat_add(&r->h->stats, HGM_STAT_DISCARDED_PAGES, (uint64_t)__builtin_popcountll(bits));
	while (hgm_bits_take_run(&bits, &low, &run)) {
		filled |= hgm_resolve_publish(r, word * 64 + low, run);
		/* no-lost-waiter: a thread may have found them claimed */
		if (!hgm_region_whole_blocks(r))
			hgm_region_wake(r, word * 64 + low, run);
	}
	if (filled)
		block_discarded(r, hgm_region_block(r, word * 64));
}

/* Pages of a leaf that the caller owns, one word each. */
struct owned {
	uint64_t first_word;
	unsigned int words;
	uint64_t mine[HGM_LEAF_WORDS];
	uint64_t poisoned[HGM_LEAF_WORDS];
};

/*
 * What the file held before, or what a failed source has written, must not become visible: the
 * thread that drops these pages may not have done so yet. The pages must not be holes before this
 * either: see suspects.c.
 */
static void drop_remains(struct hgm_region *r, const struct owned *o)
{
	uint64_t from = 0, pages = 0, low, run;

	for (unsigned int i = 0; has_remains(r) && i < o->words; i++) {
		uint64_t bits = o->mine[i];

		while (hgm_bits_take_run(&bits, &low, &run)) {
			uint64_t page = (o->first_word + i) * HGM_PAGES_PER_WORD + low;

			if (pages && page != from + pages) {
				hgm_discard_memory(r, from, pages);
				pages = 0;
			}
			from = pages ? from : page;
			pages += run;
		}
	}
	if (pages)
		hgm_discard_memory(r, from, pages);
}

/* Discard pages of one leaf. */
static bool discard_some(struct hgm_region *r, uint64_t page, uint64_t end)
{
	struct owned o = { .first_word = page / HGM_PAGES_PER_WORD };
	bool in_flight = false;

	for (; page < end; o.words++) {
		uint64_t word = o.first_word + o.words, others;
		uint64_t want = hgm_bits_of_range(page, end - page, word);

		/* Leaves of the map come back after a grace period. */
		while (hgm_map_discard(r->map, word, want, &o.mine[o.words], &o.poisoned[o.words],
				       &others))
			sched_yield();
		in_flight |= others;
		page = (word + 1) * HGM_PAGES_PER_WORD;
	}
	drop_remains(r, &o);
	for (unsigned int i = 0; i < o.words; i++) {
		if (!o.mine[i])
			continue;
		publish(r, o.first_word + i, o.mine[i]);
		/* Poisoned pages are counted off by the thread that gave them up. */
		hgm_region_count_off(r, (uint64_t)__builtin_popcountll(o.mine[i] & ~o.poisoned[i]));
	}
	return in_flight;
}

/* Discard an untouched leaf; false: it is not untouched. */
static bool discard_leaf(struct hgm_region *r, uint64_t leaf)
{
	uint64_t pages = hgm_map_discard_leaf(r->map, leaf);

	if (!pages)
		return false;
	hgm_stat_add(&r->h->stats, HGM_STAT_DISCARDED_PAGES, pages);
	if (hgm_resolve_leaf_full(r, leaf))
		block_discarded(r, hgm_region_block(r, leaf * HGM_LEAF_PAGES));
	hgm_region_count_off(r, pages);
	return true;
}

/*
 * Where a block is mapped as a whole, owners of parts of it write into memory that was dropped with
 * the whole block. Their writes allocate the whole block again, so each owner drops all of it once
 * more. No other data is lost: the block is not mapped before the last owner has published its
 * part.
 */
static void note_gone(struct hgm_region *r, uint64_t page, uint64_t end)
{
	uint64_t block_pages = r->block_bytes >> HGM_PAGE_SHIFT;
	uint64_t block = (page + block_pages - 1) / block_pages;

	for (; (block + 1) * block_pages <= end; block++)
		atomic_fetch_or_explicit(&r->install->block_gone[block / 64],
					 UINT64_C(1) << block % 64, memory_order_release);
}

/*
 * Announce a call of hgm_discard_pages(): threads that are fetching some of the pages find them
 * discarded already. Wait-free.
 */
static void mark(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t all = hgm_region_end(r), end = page + pages < all ? page + pages : all;

	for (uint64_t w = page / HGM_PAGES_PER_WORD; w * HGM_PAGES_PER_WORD < end; w++)
		hgm_map_mark_discarded(r->map, w, hgm_bits_of_range(page, end - page, w));
}

bool hgm_discard_pages(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t all = hgm_region_end(r), end = page + pages;
	bool in_flight = false;

	end = end < all ? end : all;
	if (hgm_region_whole_blocks(r)) /* before the map: owners look there first */
		note_gone(r, page, end);
	while (page < end) {
		uint64_t leaf = page / HGM_LEAF_PAGES, leaf_end = (leaf + 1) * HGM_LEAF_PAGES;

		leaf_end = leaf_end < all ? leaf_end : all;
		if (!hgm_map_leaf_full(r->map, leaf) &&
		    (page % HGM_LEAF_PAGES || end < leaf_end || r->holds_contents ||
		     !discard_leaf(r, leaf)))
			in_flight |= discard_some(r, page, end < leaf_end ? end : leaf_end);
		page = leaf_end;
	}
	return in_flight;
}

void hgm_discard_event_mark(struct hgm_region *r, uint64_t page, uint64_t pages, uint64_t read_ns)
{
	enum hgm_removal removal = r->install->kind->removal;

	if (removal == HGM_REMOVAL_DROPS)
		mark(r, page, pages);
	else if (removal == HGM_REMOVAL_SUSPECT)
		hgm_suspects_add(r, page, pages, read_ns);
}

bool hgm_discard_event(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	enum hgm_removal removal = r->install->kind->removal;

	if (removal == HGM_REMOVAL_DROPS)
		hgm_discard_pages(r, page, pages);
	return removal == HGM_REMOVAL_SUSPECT;
}

/* Tell a snapshot of holes that have not arrived. What dropped the others is known. */
static void tell_of_holes(struct hgm_region *r, uint64_t word, uint64_t holes)
{
	holes &= ~hgm_map_present_word(r->map, word) & ~hgm_map_discarded_word(r->map, word);
	if (holes)
		hgm_wp_holes(r, word, holes);
}

void hgm_discard_holes(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t all = hgm_region_end(r), end = page + pages < all ? page + pages : all, low, run;

	page = page > hgm_region_first(r) ? page : hgm_region_first(r);
	while (!r->copies && page < end) {
		uint64_t word = page / HGM_PAGES_PER_WORD;
		uint64_t next = (word + 1) * HGM_PAGES_PER_WORD, holes;

		next = next < end ? next : end;
		holes = hgm_bits_of_range(page, next - page, word) &
			hgm_holes_prepared(r, page, next - page);
		tell_of_holes(r, word, holes);
		while (hgm_bits_take_run(&holes, &low, &run))
			hgm_discard_pages(r, word * HGM_PAGES_PER_WORD + low, run);
		page = next;
	}
}

void hgm_discard_found(struct hgm_region *r, uint64_t page)
{
	uint64_t unit = r->unit_bytes >> HGM_PAGE_SHIFT;
	enum hgm_page_state state = hgm_map_state(r->map, page);

	/* A hole that is known to be discarded says nothing about the pages around it. */
	if (unit == 1 && state != HGM_PAGE_PRESENT && state != HGM_PAGE_DISCARDED) {
		hgm_suspects_hole(r, page);
		tell_of_holes(r, page / HGM_PAGES_PER_WORD,
			      UINT64_C(1) << page % HGM_PAGES_PER_WORD);
	}
	hgm_discard_pages(r, page / unit * unit, unit);
}

uint64_t hgm_discard_run(const struct hgm_region *r, uint64_t page, uint64_t pages, bool *discarded)
{
	uint64_t n = 0;

	*discarded = false;
	while (n < pages) {
		uint64_t word = (page + n) / HGM_PAGES_PER_WORD;
		uint64_t left = HGM_PAGES_PER_WORD - (page + n) % HGM_PAGES_PER_WORD;
		uint64_t bits =
			hgm_map_discarded_word(r->map, word) >> (page + n) % HGM_PAGES_PER_WORD;
		uint64_t alike;

		if (!n)
			*discarded = bits & 1;
		alike = hgm_bits_ones(*discarded ? bits : ~bits);
		alike = alike < left ? alike : left;
		n += alike;
		if (alike < left)
			break;
	}
	return n < pages ? n : pages;
}

void hgm_discard_drop(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	while (pages) {
		bool discarded;
		uint64_t run = hgm_discard_run(r, page, pages, &discarded);
		uint64_t block = hgm_region_block(r, page);

		/* For hugetlb, a part of a huge page is zeroed and stays allocated. */
		if (discarded && hgm_region_whole_blocks(r) &&
		    hgm_bits_test(r->install->block_gone, block))
			hgm_discard_memory(r, block * (r->block_bytes >> HGM_PAGE_SHIFT),
					   r->block_bytes >> HGM_PAGE_SHIFT);
		else if (discarded)
			hgm_discard_memory(r, page, run);
		page += run;
		pages -= run;
	}
}
