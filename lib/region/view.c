/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Views of regions: their stripes, registration with the userfaultfds that serve them, and waking
 * of the threads that wait for pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "hgm.h"
#include "kernel/sys.h"
#include "uffd/hugepage.h"
#include "util/error.h"
#include "util/trace.h"

/*
 * Each stripe costs a memory area, of which a process has 65530 (vm.max_map_count). The engine uses
 * at most half of them, and a region at most a sixteenth of what is left of that half.
 */
#define AREAS_BUDGET	   32768
#define AREAS_SHARE	   16
#define STRIPES_PER_REGION 64
#define STRIPES_MAX	   1024
#define ANYWHERE	   UINT64_C(0x10000)	 /* a valid address */
#define STRIPE_BYTES	   (UINT64_C(256) << 20) /* no larger, if enough areas are left */

/* Does this kernel have PAGEMAP_SCAN? */
static bool scans(int pagemap)
{
	static const char byte; /* any address */
	const char *page = &byte - (uintptr_t)&byte % HGM_PAGE_BYTES;
	struct hgm_pm_region found;
	uint64_t end;

	return hgm_sys->pagemap_scan(pagemap, page, page + HGM_PAGE_BYTES, HGM_PAGE_IS_PRESENT,
				     &found, 1, &end) >= 0;
}

static int open_in(const char *proc, const char *name)
{
	char path[40];

	snprintf(path, sizeof(path), "%s/%s", proc, name);
	return hgm_sys->open(path, O_RDONLY);
}

void hgm_space_open(struct hgm_space *s, const char *proc)
{
	s->pagemap_fd = open_in(proc, "pagemap");
	s->scan_fd = s->pagemap_fd >= 0 && scans(s->pagemap_fd) ? s->pagemap_fd : -1;
	s->mem_fd = open_in(proc, "mem");
}

bool hgm_space_is_gone(const struct hgm_space *s)
{
	/* Unprotecting what is not write-protected does nothing, wherever the page is. */
	return s->foreign && hgm_sys->uffd_writeprotect(hgm_uffd_fd(s->uffd[0]), (void *)ANYWHERE,
							HGM_PAGE_BYTES, 0) == -ESRCH;
}

/* Set a mark for the fault thread of a foreign one, and wake it. */
static void tell(struct hgm_space *s, _Atomic bool *mark)
{
	uint64_t one = 1;

	if (s->foreign && !atomic_exchange_explicit(mark, true, memory_order_acq_rel))
		hgm_sys->write(s->stop_fd, &one, sizeof(one));
}

void hgm_space_served(struct hgm_space *s)
{
	tell(s, &s->served);
}

void hgm_space_vanished(struct hgm_space *s)
{
	tell(s, &s->vanished);
}

void hgm_space_close(struct hgm_space *s)
{
	if (s->pagemap_fd >= 0)
		hgm_sys->close(s->pagemap_fd);
	if (s->mem_fd >= 0)
		hgm_sys->close(s->mem_fd);
}

int64_t hgm_space_entries(const struct hgm_space *s, const void *addr, uint64_t pages,
			  uint64_t *entry)
{
	uint64_t at = (uintptr_t)addr >> HGM_PAGE_SHIFT;
	ssize_t n;

	if (s->pagemap_fd < 0)
		return -EBADF;
	do
		n = hgm_sys->pread(s->pagemap_fd, entry, pages * sizeof(*entry),
				   at * sizeof(*entry));
	while (n == -EINTR);
	return n < 0 ? n : n / (ssize_t)sizeof(*entry);
}

unsigned int hgm_view_stripe(const struct hgm_view *v, uint64_t page)
{
	return (unsigned int)((page << HGM_PAGE_SHIFT) / v->stripe_bytes % v->space->stripes);
}

struct hgm_uffd *hgm_view_uffd(const struct hgm_view *v, uint64_t page)
{
	return v->space->uffd[hgm_view_stripe(v, page)];
}

int hgm_view_advise(const struct hgm_view *v, uint64_t at, uint64_t len, int advice)
{
	if (v->space->foreign)
		return hgm_sys->process_madvise(v->space->pidfd, v->base + at, len, advice);
	return hgm_sys->madvise(v->base + at, len, advice);
}

int hgm_view_drop(const struct hgm_view *v, uint64_t at, uint64_t len)
{
	int rc = hgm_view_advise(v, at, len, HGM_MADV_DONTNEED_LOCKED);

	return rc == -EINVAL ? hgm_view_advise(v, at, len, MADV_DONTNEED) : rc;
}

int hgm_view_huge(const struct hgm_view *v, uint64_t at, uint64_t len, uint64_t *huge_bytes)
{
	return hgm_pagemap_huge(v->space->scan_fd, v->base + at, len, huge_bytes);
}

void hgm_region_wake(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	/* The kernel reports faults and wakes by the first address of the unit of mapping. */
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT, first = page / step * step;
	uint64_t bytes = ((page + pages - first + step - 1) / step * step) << HGM_PAGE_SHIFT;

	HGM_TRACE2(wake, hgm_region_at(r, first), bytes);
	hgm_sys->uffd_wake(hgm_uffd_fd(hgm_view_uffd(&r->view, first)), hgm_region_at(r, first),
			   bytes);
}

/* How many stripes are worth their memory areas. */
static uint64_t stripes_wanted(const struct hgm_region *r)
{
	uint64_t wanted = r->mapped / STRIPE_BYTES;

	if (r->view.space->stripes == 1)
		return 1;
	if (wanted < STRIPES_PER_REGION)
		return STRIPES_PER_REGION;
	return wanted < STRIPES_MAX ? wanted : STRIPES_MAX;
}

void hgm_region_stripe_up(struct hgm_region *r)
{
	uint64_t wanted = stripes_wanted(r), used, share, blocks;
	_Atomic uint64_t *areas = &r->view.space->areas;

	used = atomic_load_explicit(areas, memory_order_relaxed);
	share = used < AREAS_BUDGET ? (AREAS_BUDGET - used) / AREAS_SHARE : 0;
	wanted = wanted < share ? wanted : share ? share : 1;
	blocks = (r->blocks + wanted - 1) / wanted;
	r->view.stripe_bytes = blocks * r->block_bytes;
	r->view.areas = (r->blocks + blocks - 1) / blocks;
	atomic_fetch_add_explicit(areas, r->view.areas, memory_order_relaxed);
}

void hgm_region_wake_all(struct hgm_region *r)
{
	for (uint64_t at = 0; at < r->mapped; at += r->view.stripe_bytes) {
		uint64_t end = at + hgm_region_stripe_length(r, at), from = at ? at : r->head;

		hgm_region_wake(r, from >> HGM_PAGE_SHIFT, (end - from) >> HGM_PAGE_SHIFT);
	}
}

/* If something else is mapped in the range now, the kernel refuses all of it: halve the range. */
static void unregister_piece(struct hgm_region *r, struct hgm_uffd *u, uint64_t at, uint64_t len)
{
	uint64_t unit = r->unit_bytes;
	uint64_t half = len / 2 / unit * unit;

	if (hgm_uffd_unregister(u, r->view.base + at, len) != -EINVAL || !half)
		return;
	unregister_piece(r, u, at, half);
	unregister_piece(r, u, at + half, len - half);
}

void hgm_region_unregister(struct hgm_region *r, uint64_t upto)
{
	/*
	 * Where nothing is registered, another process reads zeroes. So it stays registered as it
	 * has registered it itself, unless nothing is missing.
	 */
	if (hgm_region_foreign(r) && atomic_load_explicit(&r->open_pages, memory_order_acquire))
		return;
	for (uint64_t at = 0; at < upto; at += r->view.stripe_bytes) {
		uint64_t end = upto - at < r->view.stripe_bytes ? upto : at + r->view.stripe_bytes;
		struct hgm_uffd *u = hgm_view_uffd(&r->view, at >> HGM_PAGE_SHIFT);

		for_each_kept (r, at, end, from, len)
			unregister_piece(r, u, from, len);
	}
}

void hgm_region_unregister_from(struct hgm_region *r, struct hgm_uffd *u)
{
	for_each_kept (r, 0, r->mapped, at, len)
		unregister_piece(r, u, at, len);
}

int hgm_region_register_kept(struct hgm_region *r, struct hgm_uffd *u, uint64_t from, uint64_t to,
			     uint64_t modes, uint64_t *ioctls)
{
	uint64_t offered;
	int rc = 0;

	*ioctls = UINT64_MAX;
	for_each_kept (r, from, to, at, len) {
		rc = hgm_uffd_register(u, r->view.base + at, len, modes, &offered);
		if (rc)
			break;
		*ioctls &= offered;
	}
	return rc;
}

/* What the last handler of another process has protected stays registered for that (7.3). */
static int register_stripe(struct hgm_region *r, uint64_t at, uint64_t end, uint64_t *ioctls)
{
	struct hgm_uffd *u = hgm_view_uffd(&r->view, at >> HGM_PAGE_SHIFT);
	int rc = hgm_region_register_kept(r, u, at, end, r->view.modes, ioctls);

	if (rc == -EBUSY && hgm_region_foreign(r))
		rc = hgm_region_register_kept(r, u, at, end, r->view.modes | HGM_UFFD_WP, ioctls);
	return rc;
}

int hgm_region_register(struct hgm_region *r)
{
	uint64_t needed = r->copies ? HGM_UFFD_IOCTL_COPY : HGM_UFFD_IOCTL_CONTINUE;

	for (uint64_t at = 0; at < r->mapped; at += r->view.stripe_bytes) {
		uint64_t len = hgm_region_stripe_length(r, at);
		uint64_t ioctls;
		int rc = register_stripe(r, at, at + len, &ioctls);

		r->can_poison &= !rc && (!hgm_region_foreign(r) || ioctls & HGM_UFFD_IOCTL_POISON);
		if (!rc && !(ioctls & needed)) {
			rc = hgm_fail(
				-EOPNOTSUPP,
				"userfaultfd does not offer %s on this memory (ioctls 0x%llx)",
				r->copies ? "UFFDIO_COPY" : "UFFDIO_CONTINUE",
				(unsigned long long)ioctls);
			at += len;
		}
		if (rc) {
			hgm_region_unregister(r, at);
			return rc;
		}
	}
	return 0;
}
