/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The only place where pages become present; and where they are mapped then.
 *
 * Two ways, by the region's backing. With an alias the contents are in the page cache already: set
 * present, then CONTINUE, whose wake comes after, so that whoever found the page claimed and went
 * away is woken (no-lost-waiter). Without one, COPY brings contents and mapping at once: DONTWAKE,
 * set present, then an explicit wake, for the same reason.
 *
 * Where the map granularity is the block, nothing is installed before all its pages are present.
 */
#include <errno.h>
#include <string.h>

#include "engine.h"
#include "leaf.h"
#include "resolve.h"
#include "sys.h"
#include "trace.h"

void hgm_resolve_wake(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	HGM_TRACE2(wake, hgm_region_at(r, page), pages << HGM_PAGE_SHIFT);
	hgm_sys->uffd_wake(hgm_uffd_fd(hgm_region_uffd(r, page)), hgm_region_at(r, page),
			   pages << HGM_PAGE_SHIFT);
}

void hgm_resolve_count(struct hgm_region *r, const struct hgm_range *range)
{
	HGM_TRACE3(install, range->addr, range->installed, range->existed);
	hgm_stat_add(r->h, HGM_STAT_INSTALLED_PAGES, range->installed >> HGM_PAGE_SHIFT);
	hgm_stat_add(r->h, HGM_STAT_EXIST, range->existed >> HGM_PAGE_SHIFT);
	hgm_stat_add(r->h, HGM_STAT_PARTIAL, range->partials);
}

int hgm_resolve_outcome(struct hgm_region *r, int rc)
{
	struct hgm *h = r->h;

	switch (rc) {
	case 0:
		return 0;
	case -EAGAIN:
		hgm_stat_add(h, HGM_STAT_AGAIN, 1);
		return -EAGAIN;
	case -ENOENT:
	case -ESRCH:
		hgm_stat_add(h, HGM_STAT_VANISHED, 1);
		return -ENOENT;
	case -ENOMEM:
	case -ENOSPC:
		hgm_stat_add(h, HGM_STAT_NO_MEMORY, 1);
		rc = -ENOMEM;
	}
	atomic_store_explicit(&h->last_error, rc, memory_order_relaxed);
	return rc;
}

/* The request's part of its region is dealt with for good. */
void hgm_resolve_settle(struct hgm_request *req)
{
	struct hgm_region *r = req->r;

	/* Before the pages are counted off, so that the region cannot look complete in between. */
	if (req->filled_block)
		hgm_region_block_filled(r, hgm_region_block(r, req->first_page));
	hgm_region_count_off(r, req->settling_pages);
}

bool hgm_resolve_publish(struct hgm_region *r, uint64_t first_page, uint64_t pages)
{
	uint64_t leaves = r->block_bytes >> HGM_LEAF_SHIFT;
	_Atomic uint32_t *full = &r->block_full_leaves[hgm_region_block(r, first_page)];

	if (!hgm_map_set_present(r->map, first_page, pages))
		return false;
	return atomic_fetch_add_explicit(full, 1, memory_order_acq_rel) + 1 == leaves;
}

/*
 * A page that is in the page cache although nobody has installed it: another mapping of the
 * caller's file has touched it. Its contents are not ours: overwrite them through the alias, then
 * map.
 */
static int overwrite_cached(struct hgm_request *req, bool protect)
{
	struct hgm_region *r = req->r;
	uint64_t from = (req->install_page - req->first_page) << HGM_PAGE_SHIFT;
	struct hgm_range range = { .addr = hgm_region_at(r, req->install_page),
				   .len = HGM_PAGE_BYTES,
				   .step = HGM_PAGE_BYTES,
				   .mode = HGM_UFFD_CONTINUE_DONTWAKE };
	int rc;

	if (protect && !r->h->can_continue_wp) {
		if (hgm_guard_lift(r, req->install_page))
			return -EAGAIN;
		protect = false;
	}
	if (protect)
		range.mode |= HGM_UFFD_CONTINUE_WP;
	hgm_stat_add(r->h, HGM_STAT_EXIST, 1);
	if (!r->alias) /* anon: mapped by somebody else, and what it holds is not what it must */
		return hgm_resolve_outcome(r, -EEXIST);
	if (req->zero)
		memset(r->alias + (req->install_page << HGM_PAGE_SHIFT), 0, HGM_PAGE_BYTES);
	else
		memcpy(r->alias + (req->install_page << HGM_PAGE_SHIFT),
		       (char *)hgm_request_buffer(req) + from, HGM_PAGE_BYTES);
	rc = hgm_uffd_continue(hgm_region_uffd(r, req->install_page), &range);
	hgm_resolve_count(r, &range);
	return hgm_resolve_outcome(r, rc);
}

static void advance(struct hgm_request *req, uint64_t pages)
{
	req->install_page += pages;
	req->install_pages -= pages;
}

/* What is left of the request, from @from of its buffer on, is copied as zeroes. */
static void zero_by_copy(struct hgm_request *req, uint64_t from)
{
	memset((char *)hgm_request_buffer(req) + from, 0, req->install_pages << HGM_PAGE_SHIFT);
	req->zero = false;
}

/* Pages that were copied so far become present; those who found them claimed are woken. */
static void publish_copied(struct hgm_request *req)
{
	uint64_t pages = req->install_page - req->publish_page;

	if (!pages)
		return;
	req->filled_block |= hgm_resolve_publish(req->r, req->publish_page, pages);
	if (!req->wake_later)
		hgm_resolve_wake(req->r, req->publish_page, pages);
	req->publish_page = req->install_page;
}

/*
 * One walk of COPY or ZEROPAGE over what is left and alike; what it came to at req->install_page.
 * Inside a section of the region.
 */
static int copy_alike(struct hgm_request *req)
{
	struct hgm_region *r = req->r;
	uint64_t from = (req->install_page - req->first_page) << HGM_PAGE_SHIFT;
	bool protect;
	uint64_t pages = hgm_guard_run(r, req->install_page, req->install_pages, true, &protect);
	struct hgm_range range = { .addr = hgm_region_at(r, req->install_page),
				   .len = pages << HGM_PAGE_SHIFT,
				   .step = HGM_PAGE_BYTES,
				   .mode = HGM_UFFD_COPY_DONTWAKE };
	int rc;

	if (!pages)
		return -EAGAIN;
	if (protect && req->zero) /* the kernel has no protected ZEROPAGE */
		zero_by_copy(req, from);
	if (protect)
		range.mode |= HGM_UFFD_COPY_WP;
	rc = hgm_range_until_exist(hgm_region_uffd(r, req->install_page), &range,
				   req->zero ? HGM_VERB_ZEROPAGE : HGM_VERB_COPY,
				   (char *)hgm_request_buffer(req) + from);
	hgm_resolve_count(r, &range);
	advance(req, range.done >> HGM_PAGE_SHIFT);
	if (rc != -EEXIST)
		return hgm_resolve_outcome(r, rc);
	/* ZEROPAGE takes a mark of protection for a page, COPY does not: it tells. */
	if (req->zero && !r->alias) {
		zero_by_copy(req, from + range.done);
		return 0;
	}
	rc = overwrite_cached(req, protect);
	if (!rc)
		advance(req, 1);
	return rc;
}

/* What was copied is present before the section ends: whoever guards finds it (guard.c). */
static int copy_on(struct hgm_request *req)
{
	int in = hgm_guard_enter(req->r);
	int rc = copy_alike(req);

	publish_copied(req);
	hgm_guard_exit(req->r, in);
	return rc;
}

static int resolve_copy(struct hgm_request *req)
{
	while (req->install_pages) {
		int rc = copy_on(req);

		if (rc && !hgm_put_off(rc)) { /* never: this page is given up, the rest goes on */
			rc = hgm_poison_uncopied(req, rc);
			if (!rc)
				advance(req, 1);
			req->publish_page = req->install_page;
		}
		if (rc)
			return rc;
	}
	return 0;
}

int hgm_resolve_continue_run(struct hgm_region *r, uint64_t page, uint64_t pages,
			     uint64_t step_bytes, struct hgm_range *range)
{
	bool protect;
	uint64_t run = hgm_guard_run(r, page, pages, r->h->can_continue_wp, &protect);

	/* A piece above a page is mapped as a whole: by the strictest of its pages. */
	if (run < step_bytes >> HGM_PAGE_SHIFT)
		return -EAGAIN;
	*range = (struct hgm_range){ .addr = hgm_region_at(r, page),
				     .len = (run << HGM_PAGE_SHIFT) / step_bytes * step_bytes,
				     .step = step_bytes,
				     .mode = protect ? HGM_UFFD_CONTINUE_WP : 0 };
	return 0;
}

/*
 * Inside a section of the region: map what is left and alike. What it came to at req->install_page.
 */
static int continue_alike(struct hgm_request *req)
{
	struct hgm_region *r = req->r;
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT;
	/* A whole leaf would be refused again, and its first page taken for mapped. */
	bool piece = r->native && req->install_pages == HGM_LEAF_PAGES;
	struct hgm_range range;
	bool installed;
	int rc = hgm_resolve_continue_run(r, req->install_page, piece ? 1 : req->install_pages,
					  r->map_bytes, &range);

	if (rc)
		return rc;
	if (req->wake_later)
		range.mode |= HGM_UFFD_CONTINUE_DONTWAKE;
	rc = hgm_uffd_continue(hgm_region_uffd(r, req->install_page), &range);
	hgm_resolve_count(r, &range);
	advance(req, range.done >> HGM_PAGE_SHIFT);
	if (rc != -EFAULT)
		return hgm_resolve_outcome(r, rc);
	/* It was discarded between its arrival and now. */
	rc = hgm_resolve_discarded(r, req->install_page, &installed);
	if (!rc)
		advance(req, step);
	return rc;
}

static int resolve_continue(struct hgm_request *req)
{
	struct hgm_region *r = req->r;
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT;

	if (r->native && req->install_pages == HGM_LEAF_PAGES) {
		int rc = hgm_leaf_install(req);

		/* Anything but "not now" the pieces will tell better. */
		if (hgm_put_off(hgm_resolve_outcome(r, rc == -EEXIST ? 0 : rc)))
			return rc;
	}
	while (req->install_pages) {
		int in = hgm_guard_enter(r), rc = continue_alike(req);

		hgm_guard_exit(r, in);
		if (rc && !hgm_put_off(rc)) {
			rc = hgm_poison_present(r, req->install_page, step, rc);
			if (!rc)
				advance(req, step);
		}
		if (rc)
			return rc;
	}
	return 0;
}

int hgm_resolve_install(struct hgm_request *req)
{
	int rc = req->r->copies ? resolve_copy(req) : resolve_continue(req);

	if (!rc)
		hgm_resolve_settle(req);
	return rc;
}

static int contents_by_alias(struct hgm_request *req, uint64_t pages)
{
	struct hgm_region *r = req->r;
	uint64_t block_pages = r->block_bytes >> HGM_PAGE_SHIFT;

	/* Memory of our own is zero until somebody writes it; a failed try may have. */
	if (req->zero && (!r->zeroed || req->scribbled))
		memset(hgm_request_buffer(req), 0, pages << HGM_PAGE_SHIFT);
	req->filled_block = hgm_resolve_publish(r, req->first_page, pages);
	req->install_page = req->first_page;
	req->install_pages = pages;
	if (hgm_region_whole_blocks(r)) {
		req->install_page = req->first_page / block_pages * block_pages;
		req->install_pages = req->filled_block ? block_pages : 0;
	} else if (r->native) {
		hgm_leaf_choose(req, pages);
	} else if (req->sequential && hgm_collapse_leave(r, hgm_region_block(r, req->first_page))) {
		/* no-lost-waiter: those who found the pages claimed look again */
		hgm_resolve_wake(r, req->first_page, pages);
		req->install_pages = 0;
	}
	return hgm_resolve_install(req);
}

int hgm_resolve_contents(struct hgm_request *req, uint64_t pages)
{
	struct hgm_region *r = req->r;

	req->settling_pages = pages;
	if (req->zero)
		hgm_stat_add(r->h, HGM_STAT_ZERO_PAGES, pages);
	if (!r->copies)
		return contents_by_alias(req, pages);
	/*
	 * The kernel counts zero pages of anonymous memory as holes, and collapses no holes of
	 * registered memory: where the block is to become huge, zeroes are copied.
	 */
	if (req->zero && !r->alias && r->collapses) {
		memset(hgm_request_buffer(req), 0, pages << HGM_PAGE_SHIFT);
		req->zero = false;
	}
	req->install_page = req->publish_page = req->first_page;
	req->install_pages = pages;
	req->filled_block = false;
	return hgm_resolve_install(req);
}
