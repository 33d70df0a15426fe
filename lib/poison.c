/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages that are given up: the source failed for good, or the kernel will not map them. They become
 * poison, so that touching them raises SIGBUS; a page is never given out with wrong bytes, nor
 * silently as zeroes.
 */
#include <errno.h>

#include "engine.h"
#include "resolve.h"

int hgm_poison_range(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	struct hgm_range range = { .addr = hgm_region_at(r, page),
				   .len = pages << HGM_PAGE_SHIFT,
				   .step = r->map_bytes };

	return hgm_uffd_poison(hgm_region_uffd(r, page), &range);
}

/*
 * Present pages that cannot be mapped must neither leave their waiters asleep nor be taken for
 * good: they become poison. -EAGAIN: not now.
 */
int hgm_poison_present(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	if (!r->h->can_poison || hgm_put_off(hgm_poison_range(r, page, pages)))
		return -EAGAIN;
	hgm_resolve_wake(r, page, pages);
	atomic_fetch_add_explicit(&r->refused_pages, pages, memory_order_relaxed);
	hgm_stat_add(r->h, HGM_STAT_POISONED_PAGES, pages);
	hgm_notify(r->h);
	return 0;
}

/* COPY stopped for good at req->install_page: what is before it arrived, the rest is given up. */
int hgm_poison_uncopied(struct hgm_request *req)
{
	struct hgm_region *r = req->r;
	uint64_t rest = req->install_page;
	uint64_t end = req->first_page + req->settling_pages;

	if (!r->h->can_poison || hgm_put_off(hgm_poison_range(r, rest, end - rest)))
		return -EAGAIN;
	if (rest > req->first_page)
		hgm_resolve_publish(r, req->first_page, rest - req->first_page);
	hgm_map_set_poisoned(r->map, rest, end - rest);
	hgm_stat_add(r->h, HGM_STAT_POISONED_PAGES, end - rest);
	req->filled_block = false;
	hgm_notify(r->h);
	return 0;
}

int hgm_resolve_poison(struct hgm_request *req)
{
	struct hgm_region *r = req->r;
	uint64_t block_pages = r->block_bytes >> HGM_PAGE_SHIFT;
	uint64_t block = hgm_region_block(r, req->first_page);
	uint64_t pages = hgm_request_asks(req);
	int rc;

	if (!r->h->can_poison)
		return -EOPNOTSUPP;
	if (hgm_region_whole_blocks(r))
		rc = hgm_poison_range(r, block * block_pages, block_pages);
	else
		rc = hgm_poison_range(r, req->first_page, pages);
	if (rc == -EAGAIN)
		hgm_stat_add(r->h, HGM_STAT_AGAIN, 1);
	if (rc == -ENOENT || rc == -ESRCH)
		rc = 0;
	if (rc)
		return rc;
	if (hgm_region_whole_blocks(r))
		atomic_store_explicit(&r->block_state[block], HGM_BLOCK_POISONED,
				      memory_order_release);
	hgm_map_set_poisoned(r->map, req->first_page, pages);
	hgm_resolve_wake(r, req->first_page, pages);
	hgm_stat_add(r->h, HGM_STAT_POISONED_PAGES, pages);
	req->settling_pages = pages;
	req->filled_block = false;
	hgm_resolve_settle(req);
	hgm_notify(r->h);
	return 0;
}

int hgm_resolve_poisoned(struct hgm_region *r, uint64_t page)
{
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT;
	int rc = hgm_poison_range(r, page / step * step, step);

	if (hgm_put_off(rc))
		return rc;
	if (rc)
		hgm_resolve_wake(r, page, 1);
	return 0;
}
