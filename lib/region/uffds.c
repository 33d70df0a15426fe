/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stripes of a region, registration with the userfaultfds that serve them, and waking of the
 * threads that wait for its pages.
 */
#include <errno.h>

#include "hgm.h"
#include "kernel/sys.h"
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
#define STRIPE_BYTES	   (UINT64_C(256) << 20) /* no larger, if enough areas are left */

unsigned int hgm_region_stripe(const struct hgm_region *r, uint64_t page)
{
	return (unsigned int)((page << HGM_PAGE_SHIFT) / r->stripe_bytes % r->h->stripes);
}

struct hgm_uffd *hgm_region_uffd(const struct hgm_region *r, uint64_t page)
{
	return r->h->uffd[hgm_region_stripe(r, page)];
}

void hgm_region_wake(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	/* The kernel reports faults and wakes by the first address of the unit of mapping. */
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT, first = page / step * step;
	uint64_t bytes = ((page + pages - first + step - 1) / step * step) << HGM_PAGE_SHIFT;

	HGM_TRACE2(wake, hgm_region_at(r, first), bytes);
	hgm_sys->uffd_wake(hgm_uffd_fd(hgm_region_uffd(r, first)), hgm_region_at(r, first), bytes);
}

/* How many stripes are worth their memory areas. */
static uint64_t stripes_wanted(const struct hgm_region *r)
{
	uint64_t wanted = r->mapped / STRIPE_BYTES;

	if (r->h->stripes == 1)
		return 1;
	if (wanted < STRIPES_PER_REGION)
		return STRIPES_PER_REGION;
	return wanted < STRIPES_MAX ? wanted : STRIPES_MAX;
}

void hgm_region_stripe_up(struct hgm_region *r)
{
	uint64_t wanted = stripes_wanted(r), used, share, blocks;
	_Atomic uint64_t *areas = &r->h->areas;

	used = atomic_load_explicit(areas, memory_order_relaxed);
	share = used < AREAS_BUDGET ? (AREAS_BUDGET - used) / AREAS_SHARE : 0;
	wanted = wanted < share ? wanted : share ? share : 1;
	blocks = (r->blocks + wanted - 1) / wanted;
	r->stripe_bytes = blocks * r->block_bytes;
	r->areas = (r->blocks + blocks - 1) / blocks;
	atomic_fetch_add_explicit(areas, r->areas, memory_order_relaxed);
}

void hgm_region_wake_all(struct hgm_region *r)
{
	for (uint64_t at = 0; at < r->mapped; at += r->stripe_bytes)
		hgm_region_wake(r, at >> HGM_PAGE_SHIFT,
				hgm_region_stripe_length(r, at) >> HGM_PAGE_SHIFT);
}

/* If something else is mapped in the range now, the kernel refuses all of it: halve the range. */
static void unregister_piece(struct hgm_region *r, struct hgm_uffd *u, uint64_t at, uint64_t len)
{
	uint64_t unit = r->unit_bytes;
	uint64_t half = len / 2 / unit * unit;

	if (hgm_uffd_unregister(u, r->primary + at, len) != -EINVAL || !half)
		return;
	unregister_piece(r, u, at, half);
	unregister_piece(r, u, at + half, len - half);
}

void hgm_region_unregister(struct hgm_region *r, uint64_t upto)
{
	for (uint64_t at = 0; at < upto; at += r->stripe_bytes) {
		uint64_t end = upto - at < r->stripe_bytes ? upto : at + r->stripe_bytes;
		struct hgm_uffd *u = hgm_region_uffd(r, at >> HGM_PAGE_SHIFT);

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
		rc = hgm_uffd_register(u, r->primary + at, len, modes, &offered);
		if (rc)
			break;
		*ioctls &= offered;
	}
	return rc;
}

int hgm_region_register(struct hgm_region *r)
{
	uint64_t needed = r->copies ? HGM_UFFD_IOCTL_COPY : HGM_UFFD_IOCTL_CONTINUE;

	for (uint64_t at = 0; at < r->mapped; at += r->stripe_bytes) {
		uint64_t len = hgm_region_stripe_length(r, at);
		uint64_t ioctls;
		int rc = hgm_region_register_kept(r, hgm_region_uffd(r, at >> HGM_PAGE_SHIFT), at,
						  at + len, r->modes, &ioctls);

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
