/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A caller's memory that does not begin or end at the border of a block.
 *
 * Pages, blocks, stripes and bitmaps are counted from page 0 of block 0, which is the block that
 * the region's first byte lies in (view.base). The pages of block 0 before the region's first byte
 * are a margin, and so are those of the last block behind its last byte. They may belong to another
 * region, or be anything else of the caller's. No system call may get them:
 *
 *	a fault, an event  is in the region from view.start on (table.c, events.c)
 *	for_each_kept()	   leaves the margins out of each range (lost.c)
 *	the map		   has no absent page before the region's first one, and none that is
 *			   present (hgm_map_leave_out()), so none is fetched, read or mapped
 *	collapse	   is for blocks without a margin only (hgm_region_block_whole())
 *	the alias	   is mapped from the region's first byte to its last one
 *
 * Offsets of the public interface begin at the region's first byte. hgm_region_page_at() and
 * hgm_region_offset_of() translate them, and hgm_region_source_at() and hgm_region_file_at() those
 * in the source and in the file.
 *
 * A block can become huge only if it begins at a multiple of the block both in its file and in the
 * address space. Anonymous memory has no file. If the library chooses the address, it chooses one
 * that fits the file.
 */
#include <errno.h>

#include "region.h"
#include "util/error.h"

static int check_aligned(const struct hgm_region *r, const struct hgm_region_opts *o)
{
	bool hugetlb = r->backing == HGM_BACKING_HUGETLB;
	uint64_t unit = hugetlb ? r->block_bytes : HGM_PAGE_BYTES;

	if (!r->callers_mapping)
		return 0;
	if (!o->addr)
		return hgm_fail(-EINVAL, "%s, but addr is NULL",
				hgm_region_foreign(r) ? "HGM_BACKING_PEER" : "HGM_BACKING_MAPPING");
	if ((uintptr_t)o->addr % unit)
		return hgm_fail(-EINVAL, "addr %p is not a multiple of %llu%s", o->addr,
				(unsigned long long)unit, hugetlb ? HGM_SAY_NO_PARTS : "");
	return 0;
}

int hgm_margins_find(struct hgm_region *r, const struct hgm_region_opts *o)
{
	uint64_t block = r->block_bytes, end;
	int rc = check_aligned(r, o);

	if (rc)
		return rc;
	if (r->callers_mapping)
		r->head = (uintptr_t)o->addr % block;
	else if (o->backing == HGM_BACKING_FD)
		r->head = o->fd_offset % block;
	end = r->head + r->length;
	r->blocks = (end + block - 1) / block;
	/* Do not enlarge what belongs to the caller. */
	r->mapped = r->blocks * block;
	if (o->backing == HGM_BACKING_FD || r->callers_mapping)
		r->mapped = end;
	r->whole_first = (r->head + block - 1) / block;
	r->whole_end = (r->copies ? end : r->mapped) / block;
	r->fits_file = hgm_memory_fits(o, block);
	if (!r->fits_file || r->whole_end < r->whole_first)
		r->whole_end = r->whole_first;
	return 0;
}
