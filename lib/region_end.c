/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of a region: whoever still waits is released, and never onto wrong bytes.
 */
#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#include "engine.h"
#include "resolve.h"
#include "sys.h"

#define POISON_PAUSE_NS 50000

/* A piece of the map granularity: has all of it arrived? */
static bool piece_present(const struct hgm_region *r, uint64_t page)
{
	uint64_t end = page + (r->map_bytes >> HGM_PAGE_SHIFT);

	while (page < end && hgm_map_state(r->map, page) == HGM_PAGE_PRESENT)
		page++;
	return page == end;
}

static bool poison_all(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	int rc = hgm_poison_range(r, page, pages);

	while (hgm_put_off(rc)) {
		nanosleep(&(struct timespec){ .tv_nsec = POISON_PAUSE_NS }, NULL);
		rc = hgm_poison_range(r, page, pages);
	}
	return !rc;
}

/*
 * Everything that has not arrived becomes poison, so that it can never be read as zeroes. Where the
 * kernel cannot poison, nothing of an incomplete mapping stays accessible.
 */
static bool seal_callers_mapping(struct hgm_region *r)
{
	uint64_t leaf_pages = HGM_LEAF_PAGES, step = r->map_bytes >> HGM_PAGE_SHIFT;
	uint64_t pages = hgm_region_pages(r);
	uint64_t page = 0;
	bool sealed = true;

	if (!atomic_load_explicit(&r->open_pages, memory_order_acquire))
		return true;
	while (page < pages && sealed) {
		uint64_t from = page;

		/* A run of absent pieces, inside one leaf so that it has one userfaultfd. */
		while (page < pages && (page == from || page % leaf_pages) &&
		       !piece_present(r, page))
			page += step;
		if (page == from)
			page += step;
		else
			sealed = poison_all(r, from, page - from);
	}
	return sealed || !hgm_sys->mprotect(r->primary, r->mapped, PROT_NONE);
}

void hgm_region_destroy(struct hgm_region *r)
{
	bool sealed = false;

	if (!r)
		return;
	atomic_store_explicit(&r->dying, true, memory_order_release);
	hgm_table_remove(r->h, r);
	hgm_work_remove_region(r);
	hgm_guard_leave(r);
	/*
	 * Waiters go first where they can: memory of our own becomes inaccessible before it is
	 * unregistered, so that whoever is woken gets SIGSEGV and never reads a page that has not
	 * arrived. If that cannot be had they stay asleep.
	 */
	if (!r->callers_mapping)
		sealed = !hgm_sys->mprotect(r->primary, r->mapped, PROT_NONE);
	if (sealed)
		hgm_region_unregister(r, r->mapped);
	hgm_region_wait_refs(r);
	if (r->callers_mapping && seal_callers_mapping(r))
		hgm_region_unregister(r, r->mapped);
	hgm_region_free(r);
}
