/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Find the holes of a region.
 *
 * mincore(2) of the alias tells which pages of a file are in the page cache. For hugetlb it tells
 * which pages the alias has mapped, and preparation maps all of them. mincore(2) is cheap, but does
 * not report pages that are swapped out; lseek(2) with SEEK_HOLE tells these from holes. Anonymous
 * memory has no file. There pagemap shows what the page tables hold, including swap entries.
 *
 * mincore() must not see a mapping of 1 GiB. A kernel with high-granularity mapping writes one byte
 * for each 4 KiB of it into a buffer of one page.
 */
#include <errno.h>
#include <unistd.h>

#include "hgm.h"
#include "holes.h"
#include "kernel/sys.h"

#define LOOK_PAGES	  HGM_LEAF_PAGES
#define MINCORE_BYTES_MAX (LOOK_PAGES << HGM_PAGE_SHIFT)

static bool hole_in_table(const struct hgm_region *r, const char *addr, uint64_t pages)
{
	uint64_t entry[LOOK_PAGES];

	if (hgm_space_entries(r->view.space, addr, pages, entry) != (int64_t)pages)
		return false;
	for (uint64_t i = 0; i < pages; i++)
		if (hgm_entry_empty(entry[i]))
			return true;
	return false;
}

/* For hugetlb, one page stands for its block. */
static bool hole_in_file(const struct hgm_region *r, uint64_t page, uint64_t pages)
{
	const char *addr = r->alias + (page << HGM_PAGE_SHIFT);
	unsigned char resident[LOOK_PAGES];

	if (r->backing == HGM_BACKING_HUGETLB)
		pages = 1;
	if (r->block_bytes > MINCORE_BYTES_MAX)
		return hole_in_table(r, addr, pages);
	if (hgm_sys->mincore(addr, pages << HGM_PAGE_SHIFT, resident))
		return false;
	for (uint64_t i = 0; i < pages; i++)
		if (!(resident[i] & 1))
			return true;
	return false;
}

bool hgm_holes_in_block(const struct hgm_region *r, uint64_t block)
{
	uint64_t from, to, page, end, kept;

	hgm_region_block_span(r, block, &from, &to);
	end = to >> HGM_PAGE_SHIFT;
	/* Another process may have mapped other memory where pages were lost. */
	if (hgm_region_foreign(r)) {
		hgm_lost_next(r, from, to, &kept);
		if (kept < to - from)
			return true;
	}
	for (page = from >> HGM_PAGE_SHIFT; page < end; page += LOOK_PAGES) {
		uint64_t pages = end - page < LOOK_PAGES ? end - page : LOOK_PAGES;

		if (r->alias ? hole_in_file(r, page, pages)
			     : hole_in_table(r, hgm_region_at(r, page), pages))
			return true;
		if (r->backing == HGM_BACKING_HUGETLB)
			break;
	}
	return false;
}

/* Swapped out, or a hole? */
static bool is_hole(const struct hgm_region *r, uint64_t page)
{
	int64_t at = (int64_t)hgm_region_file_at(r, page);

	return hgm_sys->lseek(r->seek_fd, at, SEEK_HOLE) == at;
}

uint64_t hgm_holes_prepared(const struct hgm_region *r, uint64_t page, uint64_t pages)
{
	unsigned char resident[HGM_PAGES_PER_WORD];
	uint64_t holes = 0;

	/* Whole blocks: only the alias shows which are mapped. */
	if (r->backing == HGM_BACKING_HUGETLB)
		return hole_in_file(r, page, 1) && !hgm_shrunk(r, page) ? ~UINT64_C(0) : 0;
	if (r->seek_fd < 0 || hgm_sys->mincore(r->alias + (page << HGM_PAGE_SHIFT),
					       pages << HGM_PAGE_SHIFT, resident))
		return 0;
	for (uint64_t i = 0; i < pages; i++)
		if (!(resident[i] & 1) && is_hole(r, page + i))
			holes |= UINT64_C(1) << (page + i) % HGM_PAGES_PER_WORD;
	return holes;
}

bool hgm_held_next(const struct hgm_region *r, uint64_t *at, uint64_t end, uint64_t *len)
{
	if (r->seek_fd < 0)
		return false;
	for_each_kept (r, *at, end, from, kept) {
		int64_t begin = (int64_t)hgm_region_file_at(r, from >> HGM_PAGE_SHIFT);
		int64_t stop = begin + (int64_t)kept;
		int64_t data = hgm_sys->lseek(r->seek_fd, begin, SEEK_DATA);
		int64_t hole;

		if (data < 0 || data >= stop)
			continue;
		hole = hgm_sys->lseek(r->seek_fd, data, SEEK_HOLE);
		hole = hole > data && hole < stop ? hole : stop; /* it may be a hole by now */
		*at = from + (uint64_t)(data - begin);
		*len = (uint64_t)(hole - data);
		return true;
	}
	return false;
}
