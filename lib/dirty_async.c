/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty tracking by the kernel: with WP_ASYNC a write to a protected page goes through at once and
 * leaves a note in the page table, which PAGEMAP_SCAN collects, protecting the page again.
 *
 * WP_ASYNC is the property of a userfaultfd, and would take the engine's its write faults. So the
 * region's registration moves to one of its own, for write-protection alone: only where all pages
 * are present, as nobody serves missing ones then. Between the two registrations the region has
 * none, which is harmless for the same reason.
 */
#include <errno.h>
#include <string.h>

#include "bits.h"
#include "dirty.h"
#include "engine.h"
#include "error.h"
#include "sys.h"

#define FOUND_MAX 256

const char *hgm_dirty_async_lacks(const struct hgm_dirty *d)
{
	const struct hgm_region *r = d->r;
	uint64_t have = hgm_uffd_supported(r->h->uffd[0]);

	if (d->flags & HGM_DIRTY_SYNC)
		return "the caller wants it so";
	if (!(have & HGM_UFFD_FEATURE_WP_ASYNC))
		return "this kernel has no WP_ASYNC (6.7 or later has)";
	if (r->h->collapser.pagemap < 0)
		return "this kernel has no PAGEMAP_SCAN (6.7 or later has), or /proc/self/pagemap "
		       "cannot be opened";
	if (r->native)
		return "high-granularity mapping knows no WP_ASYNC";
	if (atomic_load_explicit(&r->open_pages, memory_order_acquire))
		return "memory was still arriving when tracking began";
	if (hgm_region_poisoned_bytes(r))
		return "some of the memory is poisoned";
	return NULL;
}

static int move_registration(struct hgm_dirty *d)
{
	struct hgm_region *r = d->r;
	uint64_t ioctls;

	hgm_region_unregister(r, r->mapped);
	return hgm_uffd_register(d->uffd, r->primary, r->mapped, HGM_UFFD_WP, &ioctls);
}

/* The first scan finds everything: from there on it counts. */
static int forget_all(struct hgm_dirty *d)
{
	struct hgm_region *r = d->r;
	struct hgm_range all = {
		.addr = r->primary,
		.len = r->mapped,
		.step = r->wp_bytes,
		.mode = HGM_UFFD_WP_PROTECT,
	};
	int rc = 0;

	/* Protecting them by UFFDIO_WRITEPROTECT takes huge mappings apart, a scan does not. */
	if (d->flags & HGM_DIRTY_EXACT)
		rc = hgm_uffd_writeprotect(d->uffd, &all);
	if (!rc)
		rc = hgm_dirty_async_collect(d, 0, r->mapped >> HGM_PAGE_SHIFT);
	memset(d->pending, 0, d->words * sizeof(d->pending[0]));
	return rc;
}

int hgm_dirty_async_begin(struct hgm_dirty *d)
{
	struct hgm_uffd_opts o = {
		.size = sizeof(o),
		.required = HGM_UFFD_FEATURE_WP_ASYNC | HGM_UFFD_FEATURE_WP_UNPOPULATED |
			    HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			    HGM_UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
		.flags = HGM_UFFD_ALLOW_USER_MODE_ONLY, /* it has no faults to serve */
	};
	int rc = hgm_uffd_open(&d->uffd, &o);

	if (rc)
		return rc;
	rc = move_registration(d);
	if (!rc)
		rc = forget_all(d);
	if (rc)
		hgm_dirty_async_end(d);
	return rc;
}

static void note(struct hgm_dirty *d, const struct hgm_pm_region *found)
{
	uint64_t base = (uintptr_t)d->r->primary;
	uint64_t end = (found->end - base) >> HGM_PAGE_SHIFT;

	for (uint64_t page = (found->start - base) >> HGM_PAGE_SHIFT; page < end;) {
		uint64_t next = (page / 64 + 1) * 64;

		next = next < end ? next : end;
		d->pending[page / 64] |= hgm_bits_of_range(page, next - page, page / 64);
		page = next;
	}
}

int hgm_dirty_async_collect(struct hgm_dirty *d, uint64_t page, uint64_t pages)
{
	char *at = hgm_region_at(d->r, page), *end = at + (pages << HGM_PAGE_SHIFT);
	struct hgm_pm_region found[FOUND_MAX];

	while (at < end) {
		uint64_t walked = 0;
		int n;

		memset(found, 0, sizeof(found));
		n = hgm_sys->pagemap_take_written(d->r->h->collapser.pagemap, at, end, found,
						  FOUND_MAX, &walked);
		/* Before an error the kernel may have found some, and protected them again. */
		for (int i = 0; i < FOUND_MAX && found[i].end; i++)
			note(d, &found[i]);
		if (n < 0)
			return hgm_fail(n, "PAGEMAP_SCAN of %llu bytes at %p: %s",
					(unsigned long long)(end - at), (void *)at,
					hgm_errno_name(n));
		if (walked <= (uintptr_t)at) /* of hugetlb, below its page */
			return hgm_fail(-EIO, "PAGEMAP_SCAN of %llu bytes at %p gets nowhere",
					(unsigned long long)(end - at), (void *)at);
		at = (char *)(uintptr_t)walked;
	}
	return 0;
}

/* Writes have taken huge mappings apart: such blocks are to become huge again. */
static void find_split(struct hgm_region *r)
{
	for (uint64_t block = 0; block < r->blocks; block++) {
		char *addr = r->primary + block * r->block_bytes;
		uint64_t huge;

		if (atomic_load_explicit(&r->block_state[block], memory_order_acquire) !=
			    HGM_BLOCK_HUGE ||
		    hgm_pagemap_huge(r->h->collapser.pagemap, addr, r->block_bytes, &huge))
			continue;
		if (huge < r->block_bytes)
			hgm_collapse_suspend(r, block);
	}
}

void hgm_dirty_async_end(struct hgm_dirty *d)
{
	struct hgm_region *r = d->r;
	int rc;

	hgm_uffd_unregister(d->uffd, r->primary, r->mapped);
	hgm_uffd_close(d->uffd);
	d->uffd = NULL;
	if (atomic_load_explicit(&r->dying, memory_order_acquire))
		return;
	for (uint64_t w = 0; w < hgm_bits_words(r->blocks); w++)
		atomic_store_explicit(&r->wp_registered[w], 0, memory_order_release);
	rc = hgm_region_register(r);
	if (rc)
		atomic_store_explicit(&r->h->last_error, rc, memory_order_relaxed);
	find_split(r);
}
