/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write-protection of a region.
 *
 * The bitmap wp_pages has a wp bit for each page. The rule: a page whose wp bit is set is never
 * mapped writable. Two sides keep this rule:
 *
 *	installing	a thread that maps a page looks at the page's wp bit and maps the page in
 *			one SRCU section of the region (hgm_wp_read_lock). It maps the page
 *			write-protected if the wp bit or wp_all is set;
 *	protecting	a thread that write-protects pages sets their wp bits, waits for all SRCU
 *			sections, then calls UFFDIO_WRITEPROTECT.
 *
 * After the wait, no thread is left that looked at the wp bits before they were set. So none of the
 * pages is mapped writable, or unprotected, after the WRITEPROTECT. SRCU sections are counted only
 * while the region has a wp owner. A thread that begins to write-protect a region (hgm_wp_begin)
 * waits by RCU for SRCU sections that are not counted.
 *
 * The thread that has dealt with a page clears the page's wp bit before the page is unprotected.
 * Fault threads do both in one SRCU section. Elsewhere the only thread that could set the wp bit
 * again does both. A thread that sees a clear wp bit may map the page writable.
 *
 * A snapshot write-protects the pages that are present at an instant. It sets wp_all, waits, sets
 * the wp bits, calls UFFDIO_WRITEPROTECT, and then clears wp_all. So no page can be mapped writable
 * between the setting of the wp bits and the WRITEPROTECT. Nor can a page be mapped but not
 * present: COPY and the publication of what it copied are in one SRCU section. So the wp bit of
 * every page that the guest can have written to is set. While wp_all is set, some faults must wait,
 * for a short time.
 *
 * Where the kernel cannot install write-protected pages (UFFDIO_CONTINUE before 6.4), blocks that
 * are completely present are registered without minor faults, if needs_no_minor() allows it: the
 * kernel itself maps their pages, write-protected. In other blocks a page whose wp bit is set is
 * first dealt with as if it were written to, and then mapped.
 *
 * The kernel drops write-protection when it collapses, and refuses to collapse shmem that is
 * registered for write-protection. So the collapser must not collapse blocks that are held back. It
 * calls hgm_wp_holds() and collapses the block in one SRCU section, by the same reasoning. The
 * registration of a full block is renewed without write-protection before the block is collapsed.
 * For a moment the block is not registered at all. This is harmless only because all its pages are
 * present.
 */
#include <errno.h>

#include "wp.h"
#include "installs.h"
#include "kernel/sys.h"
#include "region/hgm.h"
#include "util/bits.h"

struct hgm_wp *hgm_wp_of(const struct hgm_region *r)
{
	return atomic_load_explicit(&r->install->wp, memory_order_seq_cst);
}

void *hgm_wp_user(const struct hgm_region *r)
{
	return atomic_load_explicit(&r->install->wp_user, memory_order_seq_cst);
}

void hgm_wp_become(struct hgm_region *r, struct hgm_wp *g, void *user)
{
	if (g)
		atomic_store_explicit(&r->install->wp_user, user, memory_order_relaxed);
	atomic_store_explicit(&r->install->wp, g, memory_order_seq_cst);
}

uint64_t hgm_wp_word(const struct hgm_region *r, uint64_t word)
{
	return atomic_load_explicit(&r->install->wp_pages[word], memory_order_acquire);
}

void hgm_wp_set(struct hgm_region *r, uint64_t word, uint64_t bits)
{
	atomic_fetch_or_explicit(&r->install->wp_pages[word], bits, memory_order_acq_rel);
}

void hgm_wp_clear(struct hgm_region *r, uint64_t word, uint64_t bits)
{
	atomic_fetch_and_explicit(&r->install->wp_pages[word], ~bits, memory_order_acq_rel);
}

bool hgm_wp_any(const struct hgm_region *r, uint64_t page, uint64_t pages)
{
	for (uint64_t w = page / 64; w * 64 < page + pages; w++)
		if (atomic_load_explicit(&r->install->wp_pages[w], memory_order_acquire) &
		    hgm_bits_of_range(page, pages, w))
			return true;
	return false;
}

static uint64_t unit_pages(const struct hgm_region *r)
{
	return r->wp_bytes >> HGM_PAGE_SHIFT;
}

int hgm_wp_release(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t unit = unit_pages(r);
	uint64_t first = page / unit * unit;
	uint64_t end = (page + pages + unit - 1) / unit * unit;
	int fd = hgm_uffd_fd(hgm_view_uffd(&r->view, page)), rc = 0;

	for_each_kept (r, first << HGM_PAGE_SHIFT, end << HGM_PAGE_SHIFT, at, len) {
		rc = hgm_sys->uffd_writeprotect(fd, r->view.base + at, len, 0);
		if (rc == -EAGAIN)
			break;
		/*
		 * The memory is gone, or no longer registered for it: waiting threads must look
		 * again.
		 */
		if (rc)
			hgm_region_wake(r, at >> HGM_PAGE_SHIFT, len >> HGM_PAGE_SHIFT);
		rc = 0;
	}
	return rc;
}

void hgm_wp_clear_pages(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	for (uint64_t w = page / 64; w * 64 < page + pages; w++)
		atomic_fetch_and_explicit(&r->install->wp_pages[w],
					  ~hgm_bits_of_range(page, pages, w), memory_order_acq_rel);
}

int hgm_wp_fault(struct hgm_region *r, uint64_t page)
{
	int rc = hgm_wp_write(r, page);

	if (rc == HGM_WP_WAITS) /* the wp owner releases it later */
		return 0;
	return rc ? rc : hgm_wp_release(r, page, 1);
}

int hgm_wp_write(struct hgm_region *r, uint64_t page)
{
	uint64_t unit = unit_pages(r), first = page / unit * unit;
	struct hgm_wp *g = hgm_wp_of(r);

	/* A page of a unit that is being dealt with cannot be released before the others. */
	return g && hgm_wp_any(r, first, unit) ? g->ops->write(g, r, first, unit) : 0;
}

int hgm_wp_lift(struct hgm_region *r, uint64_t page)
{
	if (!hgm_wp_of(r))
		return 0;
	if (atomic_load_explicit(&r->install->wp_all, memory_order_seq_cst))
		return -EAGAIN;
	return hgm_wp_write(r, page) ? -EAGAIN : 0;
}

void hgm_wp_removed(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	struct hgm_wp *g;

	hgm_rcu_read_lock(); /* the wp owner cannot be freed meanwhile */
	g = hgm_wp_of(r);
	if (g && g->ops->removed)
		g->ops->removed(g, r, page, pages);
	hgm_rcu_read_unlock();
}

void hgm_wp_holes(struct hgm_region *r, uint64_t word, uint64_t bits)
{
	struct hgm_wp *g;

	hgm_rcu_read_lock(); /* the wp owner cannot be freed meanwhile */
	g = hgm_wp_of(r);
	if (g && g->ops->holes)
		g->ops->holes(g, r, word, bits);
	hgm_rcu_read_unlock();
}

int hgm_wp_read_lock(struct hgm_region *r)
{
	hgm_rcu_read_lock();
	return hgm_wp_of(r) ? (int)hgm_srcu_read_lock(&r->install->wp_srcu) : -1;
}

void hgm_wp_read_unlock(struct hgm_region *r, int in)
{
	if (in >= 0)
		hgm_srcu_read_unlock(&r->install->wp_srcu, (unsigned int)in);
	hgm_rcu_read_unlock();
}

uint64_t hgm_wp_run(struct hgm_region *r, uint64_t page, uint64_t pages, bool able, bool *protect)
{
	/* Pages that are mapped as a whole are all mapped as the strictest of them requires. */
	uint64_t grain = r->map_bytes >> HGM_PAGE_SHIFT, n = grain - page % grain;

	*protect = false;
	if (!hgm_wp_of(r))
		return pages;
	*protect = true;
	if (atomic_load_explicit(&r->install->wp_all, memory_order_seq_cst))
		return able ? pages : 0;
	*protect = hgm_wp_any(r, page, n);
	while (n < pages && hgm_wp_any(r, page + n, grain) == *protect)
		n += grain;
	n = n < pages ? n : pages;
	if (!*protect || able)
		return n;
	/*
	 * Write-protected pages cannot be installed here. Get the wp bits of the first ones
	 * cleared.
	 */
	*protect = false;
	if (hgm_wp_write(r, page))
		return 0;
	n = grain - page % grain;
	return n < pages ? n : pages;
}

bool hgm_wp_holds(const struct hgm_region *r, uint64_t block)
{
	return hgm_wp_of(r) &&
	       atomic_load_explicit(&r->install->wp_held[block / 64], memory_order_seq_cst) >>
			       block % 64 &
		       1;
}
