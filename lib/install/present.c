/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages whose contents are there, or have been there. They are mapped again, but never fetched
 * again.
 */
#include <errno.h>
#include <sys/mman.h>

#include "installs.h"
#include "kinds.h"
#include "kernel/sys.h"
#include "hgm_leaf.h"
#include "region/hgm.h"
#include "region/holes.h"
#include "resolve.h"
#include "util/bits.h"

/*
 * Find the run of present pages that holds @page, within the fault-around window. Returns how many
 * pages the run has from *first on.
 */
static uint64_t present_around(struct hgm_region *r, uint64_t page, uint64_t *first)
{
	uint64_t window = hgm_fault_around_fault(&r->install->around, page);
	uint64_t start = page & ~(window - 1), at = page - start;
	uint64_t bits = hgm_map_present_word(r->map, page / HGM_PAGES_PER_WORD);
	uint64_t present = bits >> start % HGM_PAGES_PER_WORD & hgm_bits_low(window);
	uint64_t absent_below = ~present & hgm_bits_low(at);
	uint64_t below = absent_below ? at - 64 + (uint64_t)__builtin_clzll(absent_below) : at;
	uint64_t all = r->mapped >> HGM_PAGE_SHIFT;
	uint64_t end = page + hgm_bits_ones(present >> at);

	*first = page - below;
	return (end < all ? end : all) - *first;
}

/* Map pages up to the first that is already mapped, where the kernel stops. */
static int map_run(struct hgm_region *r, uint64_t first, uint64_t pages, bool wake_later,
		   struct hgm_range *range)
{
	int rc = hgm_resolve_continue_run(r, first, pages, r->map_bytes, range);

	if (rc)
		return rc;
	if (wake_later)
		range->mode |= HGM_UFFD_CONTINUE_DONTWAKE;
	rc = hgm_range_until_exist(hgm_view_uffd(&r->view, first), range, HGM_VERB_CONTINUE, NULL);
	hgm_resolve_count(r, range);
	return rc;
}

int hgm_map_around(struct hgm_region *r, uint64_t page, bool wake_later, bool *installed)
{
	uint64_t block_pages = r->block_bytes >> HGM_PAGE_SHIFT;
	bool whole = hgm_region_whole_blocks(r);
	struct hgm_range range = { .done = 0 };
	uint64_t first, pages, mapped;
	int rc;

	if (whole) {
		first = page / block_pages * block_pages;
		pages = block_pages;
	} else {
		pages = present_around(r, page, &first);
		/* Before 6.4 mapping a page unprotects it. Begin with the page asked for. */
		if (!r->h->abilities.can_continue_wp && hgm_wp_of(r)) {
			pages -= page - first;
			first = page;
		}
	}
	rc = map_run(r, first, pages, wake_later, &range);
	mapped = range.installed >> HGM_PAGE_SHIFT;
	if (!whole && range.done >> HGM_PAGE_SHIFT <= page - first && first < page) {
		/* The kernel stopped below the page. */
		range.done = range.installed = 0;
		rc = map_run(r, page, pages - (page - first), wake_later, &range);
		mapped += range.installed >> HGM_PAGE_SHIFT;
	}
	*installed = mapped;
	if (mapped > 1 && !whole)
		hgm_stat_add(&r->h->stats, HGM_STAT_NEIGHBOUR_PAGES, mapped - 1);
	if (rc && range.done) /* the page that was asked for is mapped */
		return 0;
	if (rc == -EEXIST) {
		hgm_stat_add(&r->h->stats, HGM_STAT_EXIST, 1);
		if (!wake_later)
			hgm_region_wake(r, page, 1);
		return 0;
	}
	return rc == -EFAULT ? rc : hgm_resolve_outcome(r, rc);
}

/* The alias of a dying region is unmapped soon. A late write may go to other memory. */
static int fill_dying(char *addr, uint64_t len)
{
	void *mapped;

	return hgm_sys->mmap(&mapped, addr, len, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

int hgm_resolve_fill_hole(struct hgm_region *r, uint64_t page)
{
	int fd = hgm_uffd_fd(r->h->alias_uffd);
	uint64_t unit = r->unit_bytes;
	char *addr = r->alias + (page << HGM_PAGE_SHIFT) / unit * unit;
	int64_t done;
	int rc;

	if (unit > HGM_PAGE_BYTES) /* hugetlb has no ZEROPAGE */
		rc = hgm_sys->uffd_copy(fd, addr, r->zeroes, unit, 0, &done);
	else
		rc = hgm_sys->uffd_zeropage(fd, addr, unit, 0, &done);
	rc = hgm_shrunk_outcome(r, page, rc);
	if ((rc == -ENOMEM || rc == -ENOSPC) &&
	    atomic_load_explicit(&r->dying, memory_order_acquire))
		rc = fill_dying(addr, unit);
	if (rc == -EAGAIN || rc == -ENOMEM || rc == -ENOSPC)
		return -EAGAIN;
	if (rc) /* the page is there, or gone: the writer looks again */
		hgm_sys->uffd_wake(fd, addr, unit);
	return 0;
}

/*
 * hugetlb has no ZEROPAGE, and COPY does not work where high-granularity mapping has left page
 * tables. The alias has no such tables.
 */
int hgm_map_zero_block(struct hgm_region *r, uint64_t page, struct hgm_range *range)
{
	uint64_t pages = r->map_bytes >> HGM_PAGE_SHIFT;
	int rc = hgm_resolve_fill_hole(r, page);

	if (!rc)
		rc = hgm_resolve_continue_run(r, page / pages * pages, pages, r->map_bytes, range);
	if (!rc)
		rc = hgm_uffd_continue(hgm_view_uffd(&r->view, page), range);
	return rc == -EFAULT ? -EAGAIN : rc; /* discarded once more */
}

/* ZEROPAGE cannot write-protect. */
int hgm_map_zero_page(struct hgm_region *r, uint64_t page, struct hgm_range *range)
{
	struct hgm_uffd *u = hgm_view_uffd(&r->view, page);
	bool protect;
	int rc;

	*range = (struct hgm_range){ .addr = hgm_region_at(r, page),
				     .len = HGM_PAGE_BYTES,
				     .step = HGM_PAGE_BYTES };
	if (!hgm_wp_run(r, page, 1, true, &protect))
		return -EAGAIN;
	if (protect) {
		range->mode |= HGM_UFFD_COPY_WP;
		return hgm_uffd_copy(u, range, r->zeroes);
	}
	rc = hgm_uffd_zeropage(u, range);
	/* A protection mark is in the way. Remove it, so that the next fault can succeed. */
	if (!rc && range->existed &&
	    atomic_load_explicit(&r->install->wp_registered, memory_order_acquire))
		rc = hgm_wp_release(r, page, 1);
	return rc;
}

/*
 * A present page is no longer in memory because it was discarded (MADV_DONTNEED of anonymous
 * memory, a hole punched in the file). Discarded memory reads as zero. Write-protected pages are
 * installed write-protected. Otherwise as hgm_resolve_present().
 */
static int map_discarded(struct hgm_region *r, uint64_t page, bool *installed)
{
	struct hgm_range range = { .installed = 0 };
	int rc = r->install->kind->map_zero(r, page, &range);

	hgm_resolve_count(r, &range);
	*installed = range.installed;
	return hgm_resolve_outcome(r, hgm_shrunk_outcome(r, page, rc));
}

int hgm_map_anon(struct hgm_region *r, uint64_t page, bool wake_later, bool *installed)
{
	(void)r;
	(void)page;
	(void)wake_later;
	(void)installed;
	return -EFAULT; /* what is not mapped was dropped */
}

int hgm_map_file(struct hgm_region *r, uint64_t page, bool wake_later, bool *installed)
{
	int rc = hgm_map_around(r, page, wake_later, installed);

	/*
	 * Before 6.4 there is no write-protected CONTINUE, and the wp owner may not release the
	 * page. A hole need not wait for that, because zeroes can be copied and write-protected.
	 */
	if (rc == -EAGAIN && !r->h->abilities.can_continue_wp && r->alias &&
	    hgm_holes_prepared(r, page, 1) >> page % HGM_PAGES_PER_WORD & 1)
		return -EFAULT;
	return rc;
}

int hgm_map_leaf(struct hgm_region *r, uint64_t page, bool wake_later, bool *installed)
{
	if (!hgm_map_leaf_full(r->map, page / HGM_LEAF_PAGES) || hgm_leaf_map(r, page))
		return hgm_map_around(r, page, wake_later, installed);
	*installed = true;
	return 0;
}

int hgm_resolve_present(struct hgm_region *r, uint64_t page, bool wake_later)
{
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT;
	uint64_t block = hgm_region_block(r, page);
	uint8_t before = r->h->ops->state(r, block);
	bool installed = false;
	int rc = r->install->kind->map_present(r, page, wake_later, &installed);

	if (rc == -EFAULT)
		rc = map_discarded(r, page, &installed);
	if (rc && !hgm_put_off(rc) && rc != -ENOENT)
		rc = hgm_poison_present(r, page / step * step, step, rc);
	/* During and after the collapse, a fault that finds nothing mapped is new information. */
	if (!rc && installed)
		r->h->ops->touched(r, block, before);
	return rc;
}

int hgm_resolve_remap(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	int in, rc = 0;

	while (pages && !rc) {
		struct hgm_range range = { .done = 0 };

		in = hgm_wp_read_lock(r);
		rc = hgm_resolve_continue_run(r, page, pages, r->map_bytes, &range);
		if (!rc) {
			rc = hgm_uffd_continue(hgm_view_uffd(&r->view, page), &range);
			hgm_resolve_count(r, &range);
		}
		hgm_wp_read_unlock(r, in);
		if (rc == -EFAULT) { /* a hole: it stays one */
			range.done += r->map_bytes;
			rc = 0;
		}
		page += range.done >> HGM_PAGE_SHIFT;
		pages -= range.done >> HGM_PAGE_SHIFT;
	}
	return rc;
}
