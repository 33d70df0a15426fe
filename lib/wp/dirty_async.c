/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty tracking by the kernel: with WP_ASYNC, a write to a protected page succeeds at once and
 * leaves a record in the page table. PAGEMAP_SCAN collects the records and protects the pages
 * again.
 *
 * WP_ASYNC is a property of a userfaultfd, and would take the write faults away from the engine's
 * own. So the region's registration moves to a separate userfaultfd, for write-protection only.
 * This is possible only where all pages are present, as missing pages are not served then. Between
 * the two registrations the region has none, which is harmless for the same reason.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "collapse/collapse.h"
#include "dirty.h"
#include "install/resolve.h"
#include "kernel/sys.h"
#include "pager/events.h"
#include "region/hgm.h"
#include "util/bits.h"
#include "util/clock.h"
#include "util/error.h"

#define FOUND_MAX 256
#define SETTLE_NS 100000000

/*
 * A page that is present once is present for good. That no page is open says less: a page that was
 * given up is not open, but hgm_region_retry() may make it open again a moment later.
 *
 * Contents are present a moment before their pages are counted off, and callers see the former
 * (present_bytes). Only pages that the kernel puts off take longer.
 */
static bool all_arrived(const struct hgm_region *r)
{
	uint64_t end_ns = hgm_now_ns() + SETTLE_NS;

	if (hgm_map_present_pages(r->map) < hgm_region_pages(r))
		return false;
	while (atomic_load_explicit(&r->open_pages, memory_order_acquire)) {
		if (hgm_now_ns() >= end_ns)
			return false;
		sched_yield();
	}
	return true;
}

const char *hgm_dirty_async_lacks(const struct hgm_dirty *d)
{
	const struct hgm_region *r = d->r;
	uint64_t have = hgm_uffd_supported(r->view.space->uffd[0]);

	if (d->flags & HGM_DIRTY_SYNC)
		return "the caller passed HGM_DIRTY_SYNC";
	if (hgm_region_foreign(r))
		return "the memory belongs to another process";
	if (!(have & HGM_UFFD_FEATURE_WP_ASYNC))
		return "this kernel has no WP_ASYNC (Linux 6.7 or later has it)";
	if (r->view.space->scan_fd < 0)
		return "this kernel has no PAGEMAP_SCAN (Linux 6.7 or later has it), or "
		       "/proc/self/pagemap cannot be opened";
	if (r->native)
		return "high-granularity mapping does not support WP_ASYNC";
	if (hgm_region_poisoned_bytes(r))
		return "some of the memory is poisoned";
	if (!all_arrived(r))
		return "memory was still arriving when tracking began";
	return NULL;
}

static int move_registration(struct hgm_dirty *d)
{
	struct hgm_region *r = d->r;
	uint64_t ioctls;

	hgm_region_unregister(r, r->mapped);
	return hgm_region_register_kept(r, d->uffd, 0, r->mapped, HGM_UFFD_WP, &ioctls);
}

static int protect_all(struct hgm_dirty *d)
{
	struct hgm_region *r = d->r;
	int rc = 0;

	for_each_kept (r, 0, r->mapped, at, len) {
		struct hgm_range kept = {
			.addr = r->view.base + at,
			.len = len,
			.step = r->wp_bytes,
			.mode = HGM_UFFD_WP_PROTECT,
		};

		do
			rc = hgm_uffd_writeprotect(d->uffd, &kept);
		while (rc == -EAGAIN); /* the address space is changing; this passes */
		if (rc)
			break;
	}
	return rc;
}

/* The first scan finds everything. Writes count from there on. */
static int forget_all(struct hgm_dirty *d)
{
	struct hgm_region *r = d->r;
	int rc = 0;

	/* Write-protecting pages by UFFDIO_WRITEPROTECT splits huge mappings; a scan does not. */
	if (d->flags & HGM_DIRTY_EXACT)
		rc = protect_all(d);
	if (!rc)
		rc = hgm_dirty_async_collect(d, 0, r->mapped >> HGM_PAGE_SHIFT);
	for (uint64_t w = 0; w < d->words; w++)
		atomic_store_explicit(&d->pending[w], 0, memory_order_relaxed);
	return rc;
}

int hgm_dirty_async_begin(struct hgm_dirty *d)
{
	struct hgm_uffd_opts o = {
		.size = sizeof(o),
		.required = HGM_UFFD_FEATURE_WP_ASYNC | HGM_UFFD_FEATURE_WP_UNPOPULATED |
			    HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			    HGM_UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
		.optional = HGM_UFFD_FEATURE_EVENT_REMOVE | HGM_UFFD_FEATURE_EVENT_UNMAP |
			    HGM_UFFD_FEATURE_EVENT_REMAP,
		.flags = HGM_UFFD_ALLOW_USER_MODE_ONLY, /* it serves no faults */
	};
	int rc = hgm_uffd_open(&d->uffd, &o);

	if (rc)
		return rc;
	/* A discard leaves no record in the page table. The event reports it. */
	rc = hgm_events_add(d->r->h, d->uffd);
	if (rc) {
		hgm_uffd_close(d->uffd);
		d->uffd = NULL;
		return rc;
	}
	rc = move_registration(d);
	if (!rc)
		rc = forget_all(d);
	if (rc)
		hgm_dirty_async_end(d);
	return rc;
}

static void note(struct hgm_dirty *d, const struct hgm_pm_region *found)
{
	uint64_t base = (uintptr_t)d->r->view.base;
	uint64_t end = (found->end - base) >> HGM_PAGE_SHIFT;

	for (uint64_t page = (found->start - base) >> HGM_PAGE_SHIFT; page < end;) {
		uint64_t next = (page / 64 + 1) * 64;

		next = next < end ? next : end;
		atomic_fetch_or_explicit(&d->pending[page / 64],
					 hgm_bits_of_range(page, next - page, page / 64),
					 memory_order_relaxed);
		page = next;
	}
}

static int scan(struct hgm_dirty *d, char *at, char *end)
{
	struct hgm_pm_region found[FOUND_MAX];

	while (at < end) {
		uint64_t walked = 0;
		int n;

		memset(found, 0, sizeof(found));
		n = hgm_sys->pagemap_take_written(d->r->view.space->scan_fd, at, end, found,
						  FOUND_MAX, &walked);
		/*
		 * Before it failed, the kernel may have found some pages and protected them again.
		 */
		for (int i = 0; i < FOUND_MAX && found[i].end; i++)
			note(d, &found[i]);
		if (n < 0)
			return hgm_fail(n, "PAGEMAP_SCAN of %llu bytes at %p: %s",
					(unsigned long long)(end - at), (void *)at,
					hgm_errno_name(n));
		if (walked <= (uintptr_t)at) /* for hugetlb, below its page size */
			return hgm_fail(-EIO, "PAGEMAP_SCAN of %llu bytes at %p makes no progress",
					(unsigned long long)(end - at), (void *)at);
		at = (char *)(uintptr_t)walked;
	}
	return 0;
}

int hgm_dirty_async_collect(struct hgm_dirty *d, uint64_t page, uint64_t pages)
{
	uint64_t from = page << HGM_PAGE_SHIFT;

	for_each_kept (d->r, from, from + (pages << HGM_PAGE_SHIFT), at, len) {
		int rc = scan(d, d->r->view.base + at, d->r->view.base + at + len);

		if (rc)
			return rc;
	}
	return 0;
}

void hgm_dirty_async_end(struct hgm_dirty *d)
{
	struct hgm_region *r = d->r;
	int rc;

	hgm_region_unregister_from(r, d->uffd);
	hgm_events_remove(r->h, d->uffd);
	hgm_uffd_close(d->uffd);
	d->uffd = NULL;
	if (atomic_load_explicit(&r->dying, memory_order_acquire))
		return;
	hgm_wp_forget_registered(r);
	rc = hgm_region_register(r);
	if (rc)
		atomic_store_explicit(&r->h->last_error, rc, memory_order_relaxed);
	hgm_collapse_find_split(r);
}
