/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages that are given up: the source failed for good, or the kernel will not map them. They become
 * poison, so that touching them raises SIGBUS; a page is never given out with wrong bytes, nor
 * silently as zeroes.
 */
#include <errno.h>

#include "engine.h"
#include "error.h"
#include "resolve.h"

static int poison_once(struct hgm_region *r, uint64_t page, uint64_t pages, struct hgm_range *range)
{
	*range = (struct hgm_range){ .addr = hgm_region_at(r, page),
				     .len = pages << HGM_PAGE_SHIFT,
				     .step = r->map_bytes };
	return r->can_poison ? hgm_uffd_poison(hgm_region_uffd(r, page), range) : -EOPNOTSUPP;
}

/*
 * UFFDIO_POISON of a range. *done: pages that became poison by this call. It takes no page's place,
 * nor that of a mark of protection, which goes first then: what is never mapped needs none.
 */
static int poison_range(struct hgm_region *r, uint64_t page, uint64_t pages, uint64_t *done)
{
	struct hgm_range range;
	int rc = poison_once(r, page, pages, &range);

	*done = range.installed >> HGM_PAGE_SHIFT;
	if (rc || !range.existed || !atomic_load_explicit(&r->wp_registered, memory_order_acquire))
		return rc;
	rc = hgm_guard_release(r, page, pages);
	if (!rc)
		rc = poison_once(r, page, pages, &range);
	*done += range.installed >> HGM_PAGE_SHIFT;
	return rc;
}

int hgm_poison_range(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t done;

	return poison_range(r, page, pages, &done);
}

/* 0: it is poison, or gone; -EAGAIN: not now, or not on this kernel, and the caller is told so. */
static int poison_or_wait(struct hgm_region *r, uint64_t page, uint64_t pages, int why,
			  uint64_t *done)
{
	int rc;

	*done = 0;
	if (why == -ENOENT) /* nobody can touch it */
		return 0;
	hgm_notify(r->h);
	rc = poison_range(r, page, pages, done);
	hgm_log_some(r->h, HGM_LOG_GIVEN_UP, HGM_LOG_ERROR,
		     "the kernel would not map %llu KiB at %p: %s; %s",
		     (unsigned long long)pages * HGM_PAGE_BYTES >> 10, hgm_region_at(r, page),
		     hgm_errno_name(why), rc ? "who touches them waits" : "they are poisoned");
	return rc ? -EAGAIN : 0;
}

/*
 * Present pages that cannot be mapped must neither leave their waiters asleep nor be taken for
 * good. The request and a waiter's own fault may both come here: who made it poison counts it, and
 * the other must not let the region look complete before it is counted.
 */
int hgm_poison_present(struct hgm_region *r, uint64_t page, uint64_t pages, int why)
{
	uint64_t done;
	int rc;

	hgm_region_unsettle(r);
	rc = poison_or_wait(r, page, pages, why, &done);
	if (!rc) {
		hgm_resolve_wake(r, page, pages);
		atomic_fetch_add_explicit(&r->refused_pages, done, memory_order_relaxed);
		hgm_stat_add(r->h, HGM_STAT_POISONED_PAGES, done);
	}
	hgm_region_settled(r);
	return rc;
}

int hgm_poison_uncopied(struct hgm_request *req, int why)
{
	struct hgm_region *r = req->r;
	uint64_t done;

	if (poison_or_wait(r, req->install_page, 1, why, &done))
		return -EAGAIN;
	hgm_map_set_poisoned(r->map, req->install_page, 1);
	hgm_resolve_wake(r, req->install_page, 1);
	hgm_stat_add(r->h, HGM_STAT_POISONED_PAGES, 1);
	return 0;
}

int hgm_resolve_poison(struct hgm_request *req)
{
	struct hgm_region *r = req->r;
	uint64_t block_pages = r->block_bytes >> HGM_PAGE_SHIFT;
	uint64_t block = hgm_region_block(r, req->first_page);
	uint64_t pages = hgm_request_asks(req);
	int rc;

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
	hgm_collapse_map_left(r, block); /* which will never be full */
	req->settling_pages = pages;
	req->filled_block = false;
	hgm_resolve_settle(req);
	hgm_notify(r->h);
	hgm_log_some(r->h, HGM_LOG_GIVEN_UP, HGM_LOG_ERROR,
		     "the source failed for good: %llu KiB at %p are poisoned",
		     (unsigned long long)pages * HGM_PAGE_BYTES >> 10,
		     hgm_region_at(r, req->first_page));
	return 0;
}

int hgm_resolve_poisoned(struct hgm_region *r, uint64_t page)
{
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT;
	int rc = hgm_poison_range(r, page / step * step, step);

	if (hgm_put_off(rc))
		return rc;
	/* Where there is no poison the waiter waits on: woken, it would but fault again. */
	if (rc && rc != -EOPNOTSUPP)
		hgm_resolve_wake(r, page, 1);
	return 0;
}
