/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of a region. Threads that still wait are released, and never see wrong bytes.
 */
#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#include "collapse/collapse.h"
#include "engine.h"
#include "install/wp.h"
#include "install/resolve.h"
#include "kernel/sys.h"
#include "pager/events.h"
#include "pager/pager.h"
#include "region/hgm.h"
#include "util/cancel.h"

#define POISON_PAUSE_NS 50000
#define PIECE_BYTES	(UINT64_C(256) << 20)

/* Has all of a piece of the map granularity arrived? */
static bool piece_present(const struct hgm_region *r, uint64_t page)
{
	uint64_t end = page + (r->map_bytes >> HGM_PAGE_SHIFT);

	while (page < end &&
	       (hgm_map_state(r->map, page) == HGM_PAGE_PRESENT || hgm_lost_page(r, page)))
		page++;
	return page == end;
}

/*
 * Each try poisons a range from its beginning, with one call for each page that is already
 * poisoned. If the kernel puts off one of these calls, the next try is shorter, so that the range
 * is not started again for ever.
 */
static bool poison_all(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT, end = page + pages, next = pages;

	while (page < end) {
		int rc;

		next = next < end - page ? next : end - page;
		rc = hgm_poison_range(r, page, next);
		if (!rc) {
			page += next;
			next *= 2;
		} else if (hgm_put_off(rc)) {
			nanosleep(&(struct timespec){ .tv_nsec = POISON_PAUSE_NS }, NULL);
			next = next / 2 > step ? next / 2 / step * step : step;
		} else {
			return false;
		}
	}
	return true;
}

/*
 * Put memory that nobody can access in the place of our own. Threads that wait sleep on until they
 * are woken. Pages are freed under mmap_lock, and each piece raises EVENT_UNMAP, so a piece is
 * large, but not the whole region.
 *
 * mprotect() would do, but not for hugetlb: a kernel with high-granularity mapping takes a 1 GiB
 * mapping with PROT_NONE for a page table, and munmap() of it never returns.
 */
static bool replace(struct hgm_region *r)
{
	uint64_t step = r->block_bytes > PIECE_BYTES ? r->block_bytes : PIECE_BYTES;

	for_each_kept (r, 0, r->mapped, from, len) {
		for (uint64_t at = from; at < from + len; at += step) {
			uint64_t left = from + len - at;
			void *out;

			if (hgm_sys->mmap(
				    &out, r->view.base + at, left < step ? left : step, PROT_NONE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0))
				return false;
		}
	}
	return true;
}

/*
 * Make a caller's mapping inaccessible. That of hugetlb is unmapped first, because of the kernel
 * above; its pages stay in the file. Nothing maps pages any more, so it stays unmapped. Kernels
 * before 5.18 cannot do this, and need not.
 */
static bool protect(struct hgm_region *r)
{
	bool ok = true;

	for_each_kept (r, 0, r->mapped, at, len) {
		int rc = r->backing == HGM_BACKING_HUGETLB ? hgm_view_drop(&r->view, at, len) : 0;

		ok &= (!rc || rc == -EINVAL) &&
		      !hgm_sys->mprotect(r->view.base + at, len, PROT_NONE);
	}
	return ok;
}

/*
 * Poison everything that has not arrived, so that it can never be read as zeroes. Where the kernel
 * cannot poison, an incomplete mapping becomes inaccessible as a whole.
 */
static bool seal_callers_mapping(struct hgm_region *r)
{
	uint64_t leaf_pages = HGM_LEAF_PAGES, step = r->map_bytes >> HGM_PAGE_SHIFT;
	uint64_t page = hgm_region_first(r), pages = hgm_region_end(r);
	bool sealed = true;

	if (hgm_region_foreign(r)) /* hgm_region_unregister() leaves what is incomplete as it is */
		return true;
	/* Poison may have disappeared with the page table entries (MADV_DONTNEED). */
	if (!atomic_load_explicit(&r->open_pages, memory_order_acquire) &&
	    !hgm_map_poisoned_pages(r->map))
		return true;
	while (page < pages && sealed) {
		uint64_t from = page;

		/* A run of absent pieces, inside one leaf, so that one userfaultfd serves it. */
		while (page < pages && (page == from || page % leaf_pages) &&
		       !piece_present(r, page))
			page += step;
		if (page == from)
			page += step;
		else
			sealed = poison_all(r, from, page - from);
	}
	return sealed || protect(r);
}

/* From here on no work for the region begins. Work in progress is cancelled. Does not wait. */
static void mark_dying(struct hgm_region *r)
{
	atomic_store_explicit(&r->dying, true, memory_order_seq_cst);
	hgm_requests_remove(r);
	hgm_requests_cancel(r);
}

static void release_waiters(struct hgm_region *r)
{
	hgm_events_ending(r);
	/* Events that were read are noted while the region can be found: a copy may follow. */
	hgm_events_settle(r->h, r->view.space);
	hgm_table_remove(r->h, r);
	/* The collapser walks by index and may have skipped a region that moved. */
	hgm_collapser_kick(r->h);
	hgm_wp_region_ends(r);
	/*
	 * Release waiters first where possible. A thread that is woken gets SIGSEGV and never reads
	 * a page that has not arrived. If memory cannot be replaced, the waiters stay asleep.
	 */
	if (!r->callers_mapping && replace(r))
		hgm_region_wake_all(r);
}

void hgm_regions_end(struct hgm_region **r, unsigned int count)
{
	/*
	 * A source that reads for one region may occupy the worker that another region waits for.
	 * So cancel all regions before waiting for any.
	 */
	for (unsigned int i = 0; i < count; i++)
		mark_dying(r[i]);
	for (unsigned int i = 0; i < count; i++)
		release_waiters(r[i]);
	hgm_regions_wait_refs(r, count, hgm_requests_cancel);
	for (unsigned int i = 0; i < count; i++) {
		if (r[i]->callers_mapping && seal_callers_mapping(r[i]))
			hgm_region_unregister(r[i], r[i]->mapped);
		hgm_events_ended(r[i]);
		hgm_region_free(r[i]);
	}
}

void hgm_region_destroy(struct hgm_region *r)
{
	HGM_UNCANCELLED;

	if (r)
		hgm_regions_end(&r, 1);
}
