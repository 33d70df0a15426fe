/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bitmap of lost pages: memory of a region that its owner has unmapped or mapped over, and that
 * does not belong to the region any more. Such memory is neither fetched nor served. A mapping that
 * is there now remains when the region ends. The same holds for the margins (margins.c), which
 * never belonged to it.
 */
#include <sys/mman.h>

#include "hgm.h"
#include "kernel/sys.h"
#include "util/bits.h"

int hgm_lost_init(struct hgm_region *r)
{
	void *mem;
	int rc = hgm_sys->mmap(
		&mem, NULL, hgm_bits_words(r->mapped >> HGM_PAGE_SHIFT) * sizeof(r->view.lost[0]),
		PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (!rc)
		r->view.lost = mem;
	return rc;
}

void hgm_lost_free(struct hgm_region *r)
{
	if (r->view.lost)
		hgm_sys->munmap(r->view.lost, hgm_bits_words(r->mapped >> HGM_PAGE_SHIFT) *
						      sizeof(r->view.lost[0]));
	r->view.lost = NULL;
}

void hgm_lost_mark(struct hgm_region *r, uint64_t page, uint64_t end)
{
	for (uint64_t w = page / 64; w * 64 < end; w++)
		atomic_fetch_or_explicit(&r->view.lost[w], hgm_bits_of_range(page, end - page, w),
					 memory_order_relaxed);
	atomic_store_explicit(&r->view.has_lost, true, memory_order_release);
}

bool hgm_lost_page(const struct hgm_region *r, uint64_t page)
{
	return atomic_load_explicit(&r->view.has_lost, memory_order_acquire) &&
	       atomic_load_explicit(&r->view.lost[page / 64], memory_order_relaxed) >> page % 64 &
		       1;
}

uint64_t hgm_lost_next(const struct hgm_region *r, uint64_t at, uint64_t end, uint64_t *len)
{
	uint64_t page, last, first;

	at = at > r->head ? at : r->head;
	end = end < r->mapped ? end : r->mapped;
	*len = at < end ? end - at : 0;
	page = at >> HGM_PAGE_SHIFT;
	last = end >> HGM_PAGE_SHIFT;
	if (!atomic_load_explicit(&r->view.has_lost, memory_order_acquire))
		return at;
	while (page < last && hgm_lost_page(r, page))
		page++;
	first = page;
	while (page < last && !hgm_lost_page(r, page))
		page++;
	*len = (page - first) << HGM_PAGE_SHIFT;
	return first << HGM_PAGE_SHIFT;
}
