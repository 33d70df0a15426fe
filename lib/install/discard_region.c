/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm_region_discard() and hgm_region_before_write(), and the check of their arguments.
 */
#include <errno.h>
#include <time.h>

#include <hgm/protect.h>
#include <hgm/region.h>

#include "discard.h"
#include "wp.h"
#include "installs.h"
#include "kinds.h"
#include "region/hgm.h"
#include "region/holes.h"
#include "util/cancel.h"
#include "util/clock.h"
#include "util/error.h"

#define NAP_NS 50000

/* How often memory is dropped again that the kernel has kept. Each nap is twice the one before. */
#define TRIES 8

/* So long after tries that were all in vain, there is one try only. */
#define PINNED_NS UINT64_C(1000000000)

/*
 * For the wp owner, a discard is a write of zeroes: a snapshot saves what it still needs, and dirty
 * tracking notes the pages. -EBUSY: a watch does not allow the write.
 */
static int before_write(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t unit = r->wp_bytes >> HGM_PAGE_SHIFT, end = page + pages;

	if (!hgm_wp_of(r))
		return 0;
	for (page = page / unit * unit; page < end;) {
		int in = hgm_wp_read_lock(r), rc = hgm_wp_write(r, page);

		hgm_wp_read_unlock(r, in);
		if (rc == HGM_WP_WAITS)
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
 * Poison is a page table entry, which outlives its page of the file. Owners may have given up some
 * of the pages since these were noted as discarded.
 */
static int drop_poison(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	if (!atomic_load_explicit(&r->install->has_poison, memory_order_seq_cst))
		return 0;
	hgm_discard_pages(r, page, pages);
	return r->install->kind->drop_poison(r, page, pages);
}

/*
 * Drop memory. The wp owner is told once before that, for a collection of dirty pages that finds
 * the kernel's note of a write gone with the page table entry, and once after it, for later
 * collections.
 */
static int drop(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	int rc;

	hgm_wp_removed(r, page, pages);
	rc = hgm_discard_memory(r, page, pages);
	if (!rc)
		rc = drop_poison(r, page, pages);
	hgm_wp_removed(r, page, pages);
	return rc;
}

/*
 * To free a part of a large folio of shmem, the kernel splits it. It cannot do so while another
 * thread holds a reference, and that is common: the split itself unmaps the whole folio, and
 * threads that use other parts of it fault, take a reference, and wait for the folio's lock, which
 * the split holds. The kernel then sets the pages to zero, keeps them allocated, and reports
 * success. So drop them again, after the others had a moment to map what they want. Where a device
 * holds the folio, all tries are in vain: then expect the same of the next discards.
 *
 * Pages that the guest has used again meanwhile look the same. What it writes to them before this
 * call has returned may be lost.
 */
static void drop_held(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	_Atomic uint64_t *until = &r->install->pinned_until_ns;
	uint64_t from = page << HGM_PAGE_SHIFT, to = from + (pages << HGM_PAGE_SHIFT);
	bool pinned = hgm_now_ns() < atomic_load_explicit(until, memory_order_relaxed);
	unsigned int tries = pinned ? 1 : TRIES;
	uint64_t at = from, len;

	if (r->fd < 0 || r->backing == HGM_BACKING_HUGETLB)
		return;
	for (unsigned int i = 0; i < tries && hgm_held_next(r, &at, to, &len); i++, at = from) {
		nanosleep(&(struct timespec){ .tv_nsec = NAP_NS << i }, NULL);
		for (; hgm_held_next(r, &at, to, &len); at += len) {
			page = at >> HGM_PAGE_SHIFT;
			pages = len >> HGM_PAGE_SHIFT;
			/* As the first time. What does not work is left as the kernel left it. */
			if (before_write(r, page, pages))
				return;
			r->h->ops->discarded(r, page, pages, true);
			if (drop(r, page, pages))
				return;
		}
	}
	if (tries == TRIES && hgm_held_next(r, &at, to, &len))
		atomic_store_explicit(until, hgm_now_ns() + PINNED_NS, memory_order_relaxed);
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
	if (hgm_reads_events() || hgm_thread_is_calling_back())
		return hgm_fail(-EDEADLK,
				"%s: called on a thread of the engine, which would wait for "
				"itself; call it on another thread",
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
	HGM_UNCANCELLED;
	int rc = hgm_discard_check(r, offset, length, "hgm_region_before_write");

	if (!rc)
		rc = before_write(r, hgm_region_page_at(r, offset), length >> HGM_PAGE_SHIFT);
	return rc == -EBUSY ? busy(rc, "hgm_region_before_write") : rc;
}

/*
 * Memory that the caller has unmapped or mapped over does not belong to us and must not be dropped,
 * but may not be noted yet.
 */
static void wait_for_events(struct hgm *h, struct hgm_space *space)
{
	if (!atomic_load_explicit(&h->running, memory_order_acquire))
		h->ops->settle_events(h, space);
	else
		for (unsigned int i = 0; i < space->stripes; i++)
			hgm_reads_wait(&space->reads[i]);
}

int hgm_region_discard(struct hgm_region *r, uint64_t offset, uint64_t length)
{
	HGM_UNCANCELLED;
	uint64_t page, pages = length >> HGM_PAGE_SHIFT;
	int rc = hgm_discard_check(r, offset, length, "hgm_region_discard");

	if (!rc && hgm_region_foreign(r))
		rc = hgm_fail(-EOPNOTSUPP, "hgm_region_discard: the memory belongs to another "
					   "process, which drops it itself");
	if (rc || !length)
		return rc;
	page = hgm_region_page_at(r, offset);
	if (r->install->kind->removal == HGM_REMOVAL_DROPS ||
	    atomic_load_explicit(&r->install->has_poison, memory_order_seq_cst))
		wait_for_events(r->h, r->view.space);
	rc = before_write(r, page, pages);
	if (rc)
		return busy(rc, "hgm_region_discard");
	r->h->ops->discarded(r, page, pages, true);
	/*
	 * A thread that installs a page by UFFDIO_COPY looks at its bit first, in the same
	 * read-side section as the COPY.
	 */
	if (hgm_discard_pages(r, page, pages) && r->copies)
		hgm_rcu_synchronize();
	rc = drop(r, page, pages);
	if (!rc)
		drop_held(r, page, pages);
	if (rc)
		return hgm_fail(rc, "hgm_region_discard: %s of %llu bytes: %s",
				r->install->kind->drop_call, (unsigned long long)length,
				hgm_errno_name(rc));
	return 0;
}
