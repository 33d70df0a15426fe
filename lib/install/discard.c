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
 *	before it asks the source, or in a missing fault on the alias, raised by the owner of a
 *	claim that writes the source's answer.
 *
 * The last case closes the race between an answer and a discard that was not announced
 * (fallocate(2) on the file, another process). An owner cannot put a page back into the page cache
 * without raising this fault, so it finds its page discarded before it publishes the page.
 */
#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include <hgm/protect.h>
#include <hgm/region.h>

#include "discard.h"
#include "installs.h"
#include "kernel/sys.h"
#include "region/hgm.h"
#include "region/holes.h"
#include "resolve.h"
#include "util/bits.h"
#include "util/error.h"

#define NAP_NS 50000

/* This thread reads an engine's events, or writes out a snapshot, and would wait for itself. */
static _Thread_local bool reads_events;

void hgm_discard_forbid(void)
{
	reads_events = true;
}

bool hgm_discard_forbidden(void)
{
	return reads_events;
}

static int drop_run(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t before_ns;
	int rc;

	/* A thread that reads the event must not raise it: a fault thread that got an answer. */
	if (r->backing == HGM_BACKING_ANON && reads_events)
		return 0;
	if (r->backing == HGM_BACKING_ANON)
		return hgm_sys->madvise(hgm_region_at(r, page), pages << HGM_PAGE_SHIFT,
					MADV_DONTNEED);
	before_ns = hgm_suspects_ctime(r);
	rc = hgm_sys->punch_hole(r->fd, r->fd_offset + (page << HGM_PAGE_SHIFT),
				 pages << HGM_PAGE_SHIFT);
	hgm_suspects_dropped(r, before_ns);
	return rc;
}

/* Leave out memory that the region has lost: it belongs to others, or is mapped elsewhere. */
static int drop_memory(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t from = page << HGM_PAGE_SHIFT, to = from + (pages << HGM_PAGE_SHIFT);
	int rc;

	for_each_kept (r, from, to, at, len) {
		rc = drop_run(r, at >> HGM_PAGE_SHIFT, len >> HGM_PAGE_SHIFT);
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
		r->h->above->filled(r, block);
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
				drop_memory(r, from, pages);
				pages = 0;
			}
			from = pages ? from : page;
			pages += run;
		}
	}
	if (pages)
		drop_memory(r, from, pages);
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

static bool is_gone(const struct hgm_region *r, uint64_t block)
{
	return atomic_load_explicit(&r->install->block_gone[block / 64], memory_order_acquire) >>
		       block % 64 &
	       1;
}

void hgm_discard_mark(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t all = hgm_region_pages(r), end = page + pages < all ? page + pages : all;

	for (uint64_t w = page / HGM_PAGES_PER_WORD; w * HGM_PAGES_PER_WORD < end; w++)
		hgm_map_mark_discarded(r->map, w, hgm_bits_of_range(page, end - page, w));
}

bool hgm_discard_pages(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t all = hgm_region_pages(r), end = page + pages;
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

/* Tell a snapshot of holes that have not arrived. What dropped the others is known. */
static void tell_of_holes(struct hgm_region *r, uint64_t word, uint64_t holes)
{
	holes &= ~hgm_map_present_word(r->map, word) & ~hgm_map_discarded_word(r->map, word);
	if (holes)
		hgm_guard_holes(r, word, holes);
}

void hgm_discard_holes(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t end = page + pages, low, run;

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
	uint64_t unit = r->backing == HGM_BACKING_HUGETLB ? r->block_bytes >> HGM_PAGE_SHIFT : 1;
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
		if (discarded && hgm_region_whole_blocks(r) && is_gone(r, block))
			drop_memory(r, block * (r->block_bytes >> HGM_PAGE_SHIFT),
				    r->block_bytes >> HGM_PAGE_SHIFT);
		else if (discarded)
			drop_memory(r, page, run);
		page += run;
		pages -= run;
	}
}

/*
 * For those who watch for writes, a discard is a write of zeroes: a snapshot saves what it still
 * needs, and dirty tracking notes the pages. -EBUSY: a watch does not allow the write.
 */
static int before_write(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t unit = r->wp_bytes >> HGM_PAGE_SHIFT, end = page + pages;

	if (!hgm_guard_of(r))
		return 0;
	for (page = page / unit * unit; page < end;) {
		int in = hgm_guard_enter(r), rc = hgm_guard_write(r, page);

		hgm_guard_exit(r, in);
		if (rc == HGM_GUARD_WAITS)
			return -EBUSY;
		if (rc == -EAGAIN)
			nanosleep(&(struct timespec){ .tv_nsec = NAP_NS }, NULL);
		else if (rc)
			return rc;
		else
			page += unit;
	}
	return 0;
}

/*
 * The poison of a block is removed with the last of its pages that were given up. A thread that
 * found such a page a moment ago, and makes the block poison, reads the event of this as well.
 */
static int unmap_healed(struct hgm_region *r, uint64_t page, uint64_t end)
{
	uint64_t block_pages = r->block_bytes >> HGM_PAGE_SHIFT;
	int rc = 0;

	for (page = page / block_pages * block_pages; page < end && !rc; page += block_pages)
		if (!hgm_poison_left(r, page / block_pages))
			rc = hgm_poison_unmap(r, page, block_pages);
	return rc;
}

/*
 * Poison is a page table entry, which outlives its page of the file. Owners may have given up some
 * of the pages since these were noted as discarded.
 */
static int drop_poison(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	if (!atomic_load_explicit(&r->install->has_poison, memory_order_seq_cst))
		return 0;
	hgm_discard_pages(r, page, pages);
	if (r->backing == HGM_BACKING_ANON)
		return 0;
	return hgm_region_whole_blocks(r) ? unmap_healed(r, page, page + pages)
					  : hgm_poison_unmap(r, page, pages);
}

int hgm_discard_check(const struct hgm_region *r, uint64_t offset, uint64_t length,
		      const char *function)
{
	if (!r)
		return hgm_fail(-EINVAL, "%s: the region is NULL", function);
	if (offset % HGM_PAGE_BYTES || length % HGM_PAGE_BYTES || offset > r->length ||
	    length > r->length - offset)
		return hgm_fail(-EINVAL,
				"%s: [%llu, +%llu) is not aligned to 4096 bytes or not inside the "
				"region",
				function, (unsigned long long)offset, (unsigned long long)length);
	if (reads_events || hgm_thread_is_calling_back())
		return hgm_fail(-EDEADLK,
				"%s: called on a thread of the engine, which would wait for "
				"itself; do it on another thread",
				function);
	return 0;
}

static int busy(int rc, const char *function)
{
	return hgm_fail(rc, "%s: %s", function,
			rc == -EBUSY ? "a watch makes writes to these pages wait; unprotect them "
				       "first"
				     : hgm_errno_name(rc));
}

int hgm_region_before_write(struct hgm_region *r, uint64_t offset, uint64_t length)
{
	int rc = hgm_discard_check(r, offset, length, "hgm_region_before_write");

	if (!rc)
		rc = before_write(r, offset >> HGM_PAGE_SHIFT, length >> HGM_PAGE_SHIFT);
	return rc == -EBUSY ? busy(rc, "hgm_region_before_write") : rc;
}

/*
 * Memory that the caller has unmapped or mapped over does not belong to us and must not be dropped,
 * but may not be noted yet.
 */
static void wait_for_events(struct hgm *h)
{
	if (!atomic_load_explicit(&h->running, memory_order_acquire))
		h->above->settle_events(h);
	else
		for (unsigned int i = 0; i < h->stripes; i++)
			hgm_reads_wait(&h->reads[i]);
}

int hgm_region_discard(struct hgm_region *r, uint64_t offset, uint64_t length)
{
	uint64_t page = offset >> HGM_PAGE_SHIFT, pages = length >> HGM_PAGE_SHIFT;
	int rc;

	rc = hgm_discard_check(r, offset, length, "hgm_region_discard");
	if (rc || !length)
		return rc;
	if (r->backing == HGM_BACKING_ANON)
		wait_for_events(r->h);
	rc = before_write(r, page, pages);
	if (rc)
		return busy(rc, "hgm_region_discard");
	r->h->above->discarded(r, page, pages, true);
	/*
	 * A thread that installs a page by UFFDIO_COPY looks at its bit first, in the same
	 * read-side section as the COPY.
	 */
	if (hgm_discard_pages(r, page, pages) && r->copies)
		hgm_rcu_synchronize();
	/*
	 * Once before the memory is dropped, for a collection of dirty pages that finds the
	 * kernel's note of a write gone with the page table entry. Once after that, for later
	 * collections.
	 */
	hgm_guard_removed(r, page, pages);
	rc = drop_memory(r, page, pages);
	if (!rc)
		rc = drop_poison(r, page, pages);
	hgm_guard_removed(r, page, pages);
	if (rc)
		return hgm_fail(rc, "hgm_region_discard: %s of %llu bytes: %s",
				r->backing == HGM_BACKING_ANON ? "MADV_DONTNEED"
							       : "FALLOC_FL_PUNCH_HOLE",
				(unsigned long long)length, hgm_errno_name(rc));
	return 0;
}
