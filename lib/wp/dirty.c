/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The life of dirty tracking.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <hgm/error.h>

#include "collapse/collapse.h"
#include "dirty.h"
#include "pager/events.h"
#include "region/hgm.h"
#include "util/bits.h"
#include "util/cancel.h"
#include "util/error.h"
#include "util/opts.h"

#define FLAGS (HGM_DIRTY_EXACT | HGM_DIRTY_ARRIVALS | HGM_DIRTY_SYNC)

static struct hgm_dirty *make(struct hgm_region *r, uint32_t flags)
{
	struct hgm_dirty *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->wp = (struct hgm_wp){ .ops = &hgm_dirty_wp_ops, .name = "dirty tracking", .refs = 1 };
	pthread_mutex_init(&d->lock, NULL);
	d->r = r;
	d->flags = flags;
	d->first = hgm_region_first(r);
	d->pages = hgm_region_pages(r);
	d->words = hgm_bits_words(r->mapped >> HGM_PAGE_SHIFT);
	d->granule_pages = r->wp_bytes >> HGM_PAGE_SHIFT;
	d->pending = calloc(d->words, sizeof(d->pending[0]));
	d->again = calloc(d->words, sizeof(d->again[0]));
	d->piece = calloc(HGM_DIRTY_PIECE_WORDS, sizeof(d->piece[0]));
	if (!d->pending || !d->again || !d->piece) {
		hgm_wp_put(&d->wp);
		return NULL;
	}
	return d;
}

static void describe_async(struct hgm_dirty *d)
{
	const struct hgm_region *r = d->r;
	bool whole = r->backing == HGM_BACKING_HUGETLB ||
		     (r->backing != HGM_BACKING_ANON && !(d->flags & HGM_DIRTY_EXACT) &&
		      hgm_region_huge_bytes(r));

	d->unit_bytes = whole ? r->block_bytes : HGM_PAGE_BYTES;
	d->granule_pages = d->unit_bytes >> HGM_PAGE_SHIFT; /* protecting less would split it */
	snprintf(d->sentence, sizeof(d->sentence),
		 "asynchronous: the kernel tracks writes in units of %s%s",
		 whole ? "huge pages" : "4 KiB",
		 whole && r->backing != HGM_BACKING_HUGETLB
			 ? ", in which the memory is mapped; HGM_DIRTY_EXACT splits them"
			 : "");
}

static void describe_sync(struct hgm_dirty *d, const char *why)
{
	const struct hgm_region *r = d->r;
	bool blind = !r->copies && !r->h->abilities.can_continue_wp &&
		     atomic_load_explicit(&r->open_pages, memory_order_acquire);

	d->flags |= HGM_DIRTY_SYNC;
	if (blind)
		d->flags |= HGM_DIRTY_ARRIVALS;
	d->unit_bytes = r->wp_bytes;
	snprintf(d->sentence, sizeof(d->sentence),
		 "synchronous: the first write to a page waits for a fault thread%s; not "
		 "asynchronous: %s",
		 blind ? ", and pages that arrive count as written, as this kernel cannot map them "
			 "protected (Linux 6.4 or later can)"
		       : "",
		 why);
}

static int check_faults(const struct hgm_region *r, const char *why_synchronous)
{
	char name[256];

	snprintf(name, sizeof(name), "hgm_dirty_start: not asynchronous: %s, and not synchronous",
		 why_synchronous);
	return hgm_wp_check_faults(r, name);
}

/* Called with the lock held: a thread that destroys the region meanwhile waits for us. */
static int begin(struct hgm_dirty *d)
{
	const char *lacks = hgm_dirty_async_lacks(d);
	char why[160];
	int rc;

	hgm_wp_hold(d->r, 0, d->r->blocks);
	if (!lacks) {
		rc = hgm_dirty_async_begin(d);
		if (!rc) {
			describe_async(d);
			return 0;
		}
		snprintf(why, sizeof(why), "%s", hgm_errmsg());
		lacks = why;
	}
	rc = check_faults(d->r, lacks);
	if (!rc)
		rc = hgm_dirty_sync_begin(d);
	describe_sync(d, lacks);
	return rc;
}

/* Called with the lock held. */
static void end(struct hgm_dirty *d)
{
	if (d->uffd)
		hgm_dirty_async_end(d);
	hgm_wp_end(d->r);
	d->r = NULL;
}

static struct hgm_dirty *dirty_of(struct hgm_wp *g)
{
	return (struct hgm_dirty *)((char *)g - offsetof(struct hgm_dirty, wp));
}

void hgm_dirty_leave(struct hgm_wp *g, struct hgm_region *r)
{
	struct hgm_dirty *d = dirty_of(g);

	pthread_mutex_lock(&d->lock);
	if (d->r == r)
		end(d);
	pthread_mutex_unlock(&d->lock);
}

void hgm_dirty_free(struct hgm_wp *g)
{
	struct hgm_dirty *d = dirty_of(g);

	pthread_mutex_destroy(&d->lock);
	free(d->pending);
	free(d->again);
	free(d->piece);
	free(d);
}

static void mark(struct hgm_dirty *d, _Atomic uint64_t *bitmap, uint64_t page, uint64_t pages)
{
	uint64_t end = page + pages, all = d->first + d->pages;

	end = end < all ? end : all;
	for (uint64_t w = page / 64; w * 64 < end; w++)
		atomic_fetch_or_explicit(&bitmap[w], hgm_bits_of_range(page, end - page, w),
					 memory_order_release);
}

/*
 * A page that is dropped has changed. The kernel drops it after the event. A collection between the
 * two may be followed by a read of the old contents. So the next collection has to report the page,
 * too.
 */
void hgm_dirty_removed(struct hgm_wp *g, struct hgm_region *r, uint64_t page, uint64_t pages)
{
	struct hgm_dirty *d = dirty_of(g);

	hgm_wp_clear_pages(r, page, pages);
	mark(d, d->again, page, pages);
	mark(d, d->pending, page, pages);
}

int hgm_dirty_mark(struct hgm_dirty *d, uint64_t offset, uint64_t length)
{
	uint64_t bytes;

	if (!d)
		return hgm_fail(-EINVAL, "hgm_dirty_mark: dirty tracking is NULL");
	bytes = d->pages << HGM_PAGE_SHIFT;
	if (offset > bytes || length > bytes - offset)
		return hgm_fail(-EINVAL, "hgm_dirty_mark: [%llu, +%llu) is not inside the region",
				(unsigned long long)offset, (unsigned long long)length);
	if (length)
		mark(d, d->pending, d->first + (offset >> HGM_PAGE_SHIFT),
		     ((offset + length - 1) >> HGM_PAGE_SHIFT) - (offset >> HGM_PAGE_SHIFT) + 1);
	return 0;
}

int hgm_dirty_start(struct hgm_dirty **out, struct hgm_region *r, const struct hgm_dirty_opts *opts)
{
	HGM_UNCANCELLED;
	struct hgm_dirty_opts o;
	struct hgm_dirty *d;
	int rc;

	if (!out || !r)
		return hgm_fail(-EINVAL, "hgm_dirty_start: %s is NULL", out ? "the region" : "out");
	rc = hgm_opts_in(&o, sizeof(o), HGM_FIRST_SIZE(struct hgm_dirty_opts, reserved), opts,
			 "hgm_dirty_start");
	if (!rc && (o.flags & ~FLAGS || o.reserved))
		rc = hgm_fail(-EINVAL, "hgm_dirty_start: unknown flags 0x%x, or reserved is not 0",
			      o.flags);
	if (!rc && o.flags & HGM_DIRTY_EXACT && r->wp_bytes > HGM_PAGE_BYTES)
		rc = hgm_fail(-EOPNOTSUPP,
			      "hgm_dirty_start: HGM_DIRTY_EXACT: this memory is protected in units "
			      "of %llu bytes",
			      (unsigned long long)r->wp_bytes);
	if (rc)
		return rc;
	d = make(r, o.flags);
	if (!d)
		return hgm_fail(-ENOMEM, "hgm_dirty_start: out of memory for the bitmaps");
	pthread_mutex_lock(&d->lock);
	rc = hgm_wp_begin(r, &d->wp, NULL);
	if (!rc) {
		rc = begin(d);
		if (rc)
			end(d);
	}
	pthread_mutex_unlock(&d->lock);
	if (rc)
		hgm_wp_put(&d->wp);
	else
		*out = d;
	return rc;
}

static uint64_t take_word(struct hgm_dirty *d, uint64_t word, uint64_t mask)
{
	_Atomic uint64_t *pending = &d->pending[word], *again = &d->again[word];
	uint64_t bits = mask & atomic_fetch_and_explicit(pending, ~mask, memory_order_acq_rel);

	if (atomic_load_explicit(again, memory_order_relaxed))
		atomic_fetch_or_explicit(pending,
					 mask & atomic_fetch_and_explicit(again, ~mask,
									  memory_order_acq_rel),
					 memory_order_relaxed);
	return bits;
}

/* Take the pending pages of a range. Returns the number of bits. */
static uint64_t take(struct hgm_dirty *d, uint64_t first, uint64_t pages, uint64_t *bitmap)
{
	uint64_t found = 0;

	for (uint64_t w = 0; w * 64 < pages; w++) {
		uint64_t page = first + w * 64, shift = page % 64;
		uint64_t mask = hgm_bits_low(pages - w * 64), carry = hgm_bits_carry(mask, shift);

		bitmap[w] = take_word(d, page / 64, mask << shift) >> shift;
		if (carry)
			bitmap[w] |= take_word(d, page / 64 + 1, carry) << (64 - shift);
		found += (uint64_t)__builtin_popcountll(bitmap[w]);
	}
	return found;
}

/* Called with the lock held. Pages that were found outside the range stay pending. */
static int collect(struct hgm_dirty *d, uint64_t first, uint64_t pages)
{
	uint64_t granule = d->granule_pages, all = d->r->mapped >> HGM_PAGE_SHIFT;
	uint64_t end = (first + pages + granule - 1) / granule * granule;

	first = first / granule * granule;
	end = end < all ? end : all;
	return d->uffd ? hgm_dirty_async_collect(d, first, end - first)
		       : hgm_dirty_sync_collect(d, first, end - first);
}

static int destroyed(void)
{
	return hgm_fail(-ECANCELED, "hgm_dirty_collect: the region was destroyed");
}

int hgm_dirty_collect(struct hgm_dirty *d, uint64_t first_page, uint64_t pages, uint64_t *bitmap,
		      uint64_t *dirty)
{
	HGM_UNCANCELLED;
	uint64_t found = 0;
	int rc;

	if (!d || !bitmap)
		return hgm_fail(-EINVAL, "hgm_dirty_collect: %s is NULL",
				d ? "the bitmap" : "dirty tracking");
	rc = hgm_opts_pages(d->pages, first_page, pages, "hgm_dirty_collect");
	if (rc)
		return rc;
	pthread_mutex_lock(&d->lock);
	if (!d->r) {
		rc = destroyed();
	} else if (pages) {
		rc = collect(d, d->first + first_page, pages);
		/*
		 * A thread that discards continues when the event is read, before its pages are
		 * marked. So wait here: afterwards, all pages that were gone when the kernel's
		 * records were collected are marked.
		 */
		hgm_events_settle(d->r->h, d->r->view.space);
		/* A region that is being destroyed is no longer told of discards. */
		if (!rc && atomic_load_explicit(&d->r->dying, memory_order_acquire))
			rc = destroyed();
	}
	if (!rc) {
		found = take(d, d->first + first_page, pages, bitmap);
		d->collections++;
		d->dirty_pages += found;
	}
	pthread_mutex_unlock(&d->lock);
	if (!rc && dirty)
		*dirty = found;
	return rc;
}

int hgm_dirty_get_info(struct hgm_dirty *d, struct hgm_dirty_info *out)
{
	struct hgm_dirty_info info = { .size = sizeof(info) };

	if (!d)
		return hgm_fail(-EINVAL, "hgm_dirty_get_info: dirty tracking is NULL");
	pthread_mutex_lock(&d->lock);
	info.unit_bytes = d->unit_bytes;
	info.flags = d->flags;
	info.collections = d->collections;
	info.dirty_pages = d->dirty_pages;
	info.sentence = d->sentence;
	pthread_mutex_unlock(&d->lock);
	return hgm_opts_out(out, &info, sizeof(info),
			    HGM_FIRST_SIZE(struct hgm_dirty_info, sentence), "hgm_dirty_get_info");
}

void hgm_dirty_stop(struct hgm_dirty *d)
{
	HGM_UNCANCELLED;

	if (!d)
		return;
	pthread_mutex_lock(&d->lock);
	if (d->r)
		end(d);
	pthread_mutex_unlock(&d->lock);
	hgm_wp_put(&d->wp);
}
