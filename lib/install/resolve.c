/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The contents of claimed pages have arrived: the pages become present, and are mapped.
 *
 * There are two ways, depending on the kind of memory (kinds.c). In prepared shmem and hugetlb the
 * contents are already in the page cache, written through the alias: set the page present, then
 * call CONTINUE. Its wake comes after the page is present, so that a thread that found the page
 * claimed and went away is woken (no-lost-waiter). In anonymous memory and lazy shmem, COPY brings
 * contents and mapping at once (by_copy.c): call it with DONTWAKE, set the page present, then wake
 * explicitly, for the same reason.
 *
 * Where the map granularity is the block, nothing is installed before all pages of the block are
 * present.
 */
#include <errno.h>
#include <string.h>

#include "by_copy.h"
#include "discard.h"
#include "installs.h"
#include "kinds.h"
#include "hgm_leaf.h"
#include "region/hgm.h"
#include "resolve.h"

/*
 * Map the remaining pages that are alike, at most @pages. Returns the outcome at a->install_page.
 * Called inside an SRCU section of the region.
 */
static int continue_alike(struct hgm_arrival *a, uint64_t pages)
{
	struct hgm_region *r = a->r;
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT;
	struct hgm_range range;
	int rc = hgm_resolve_continue_run(r, a->install_page, pages, r->map_bytes, &range);

	if (rc)
		return rc;
	if (a->wake_later)
		range.mode |= HGM_UFFD_CONTINUE_DONTWAKE;
	rc = hgm_uffd_continue(hgm_view_uffd(&r->view, a->install_page), &range);
	hgm_resolve_count(r, &range);
	hgm_arrival_advance(a, range.done >> HGM_PAGE_SHIFT);
	if (rc != -EFAULT)
		return hgm_resolve_outcome(r, rc);
	/* It was discarded. A thread that touches it gets zeroes, and only then memory. */
	hgm_region_wake(r, a->install_page, step);
	hgm_arrival_advance(a, step);
	return 0;
}

/* @most: how many pages one CONTINUE may have at most. */
static int install(struct hgm_arrival *a, uint64_t most)
{
	struct hgm_region *r = a->r;
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT;

	while (a->install_pages) {
		uint64_t pages = a->install_pages < most ? a->install_pages : most;
		int in = hgm_wp_read_lock(r), rc = continue_alike(a, pages);

		hgm_wp_read_unlock(r, in);
		if (rc && !hgm_put_off(rc)) {
			rc = hgm_poison_present(r, a->install_page, step, rc);
			if (!rc)
				hgm_arrival_advance(a, step);
		}
		if (rc)
			return rc;
	}
	return 0;
}

int hgm_install_by_page(struct hgm_arrival *a)
{
	return install(a, UINT64_MAX);
}

int hgm_install_by_leaf(struct hgm_arrival *a)
{
	int rc;

	if (a->install_pages == HGM_LEAF_PAGES) {
		rc = hgm_leaf_install(a);
		rc = hgm_resolve_outcome(a->r, rc == -EEXIST ? 0 : rc);
		/* For any error but "not now", the smaller pieces give a better answer. */
		if (hgm_put_off(rc))
			return rc;
	}
	/* A whole leaf would be refused again, and its first page would be mistaken for mapped. */
	return install(a, HGM_LEAF_PAGES - 1);
}

int hgm_resolve_install(struct hgm_arrival *a)
{
	int rc = a->r->install->kind->install(a);

	if (!rc && atomic_load_explicit(&a->r->install->starved, memory_order_relaxed))
		atomic_store_explicit(&a->r->install->starved, false, memory_order_relaxed);
	if (!rc)
		hgm_resolve_settle(a);
	return rc;
}

/* Contents are in the alias. What was discarded meanwhile is dropped, the rest is present. */
static void publish_alias(struct hgm_arrival *a, uint64_t pages)
{
	struct hgm_region *r = a->r;

	/* The library's own memory is zero until it is written, maybe by a failed try. */
	if (a->zero && !r->may_shrink &&
	    (!r->zeroed || a->scribbled ||
	     atomic_load_explicit(&r->scribbled, memory_order_acquire)))
		memset(a->buffer, 0, pages << HGM_PAGE_SHIFT);
	hgm_suspects_check(r, a->first_page, pages);
	hgm_discard_drop(r, a->first_page, pages);
	a->filled_block = hgm_resolve_publish(r, a->first_page, pages);
	a->install_page = a->first_page;
	a->install_pages = pages;
}

int hgm_contents_by_alias(struct hgm_arrival *a, uint64_t pages)
{
	struct hgm_region *r = a->r;

	publish_alias(a, pages);
	if (a->sequential && r->h->ops->leave(r, hgm_region_block(r, a->first_page))) {
		/* no-lost-waiter: threads that found the pages claimed look again */
		hgm_region_wake(r, a->first_page, pages);
		a->install_pages = 0;
	}
	return hgm_resolve_install(a);
}

int hgm_contents_by_leaf(struct hgm_arrival *a, uint64_t pages)
{
	publish_alias(a, pages);
	hgm_leaf_choose(a, pages);
	return hgm_resolve_install(a);
}

int hgm_contents_by_block(struct hgm_arrival *a, uint64_t pages)
{
	uint64_t block_pages = a->r->block_bytes >> HGM_PAGE_SHIFT;

	publish_alias(a, pages);
	a->install_page = a->first_page / block_pages * block_pages;
	a->install_pages = a->filled_block ? block_pages : 0;
	return hgm_resolve_install(a);
}

int hgm_contents_copied(struct hgm_arrival *a, uint64_t pages)
{
	a->install_page = a->publish_page = a->first_page;
	a->install_pages = pages;
	a->filled_block = false;
	return hgm_resolve_install(a);
}

/*
 * The kernel counts zero pages of anonymous memory as holes, and does not collapse holes in
 * registered memory. So zeroes are copied if the block is to become huge.
 */
int hgm_contents_copied_anon(struct hgm_arrival *a, uint64_t pages)
{
	a->install_page = a->first_page;
	a->install_pages = pages;
	if (a->zero && a->r->collapses)
		hgm_by_copy_zeroes(a, 0);
	return hgm_contents_copied(a, pages);
}

/*
 * First drop what failed tries have written. Poison is replaced by a page that the guest can write
 * to. So nothing may be dropped after that, and each page is published before the next one is
 * replaced.
 */
int hgm_resolve_dropped(struct hgm_arrival *a, uint64_t *pages)
{
	struct hgm_region *r = a->r;
	uint64_t page = a->first_page, run;
	int rc;

	if (atomic_load_explicit(&r->install->has_poison, memory_order_seq_cst))
		*pages = 1;
	run = *pages;
	if (!r->copies || r->holds_contents)
		hgm_discard_drop(r, page, run);
	rc = hgm_poison_undo(r, page, run);
	if (hgm_put_off(rc))
		return rc;
	a->settling_pages = run;
	a->filled_block = hgm_resolve_publish(r, page, run);
	if (hgm_region_whole_blocks(r))
		a->filled_block = false; /* it becomes huge when it is used */
	/* no-lost-waiter: a thread that touches it finds a hole and gets zeroes */
	hgm_region_wake(r, page, run);
	hgm_resolve_settle(a);
	return 0;
}

int hgm_resolve_contents(struct hgm_arrival *a, uint64_t pages)
{
	a->settling_pages = pages;
	if (a->zero)
		hgm_stat_add(&a->r->h->stats, HGM_STAT_ZERO_PAGES, pages);
	return a->r->install->kind->contents(a, pages);
}
