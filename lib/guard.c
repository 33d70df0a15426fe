/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write-protection of a region.
 *
 * A page is guarded while its bit in r->guarded is set. The rule: a guarded page is never mapped
 * writable. It has two sides,
 *
 *	installing	whoever maps a page looks at its bit and maps it in one section of the
 *			region (hgm_guard_enter), protected if it is set or if r->guard_all is;
 *	guarding	the bits are set; all sections are waited for; then UFFDIO_WRITEPROTECT.
 *
 * After the wait nobody is left who looked before, so none of the pages is mapped writable, or
 * unprotected, after the WRITEPROTECT. Sections are counted only while somebody guards: who begins
 * to guard waits for those that are not counted, by RCU.
 *
 * Bits are cleared, by those who have dealt with the page, before it is unprotected: on fault
 * threads both in one section, elsewhere by those who alone could set them again. Who sees a clear
 * bit may map the page writable.
 *
 * A snapshot guards what is present at an instant. It sets guard_all; waits; sets the bits;
 * then UFFDIO_WRITEPROTECT; then guard_all is cleared. So nothing can be mapped writable
 * between the bits and the WRITEPROTECT. Nor is a page left that is mapped and not present: COPY
 * and the publication of what it copied are in one section, so that what the guest can have written
 * to is guarded. While guard_all is set some faults must wait: not for long.
 *
 * Where the kernel cannot install protected pages (UFFDIO_CONTINUE before 6.4) blocks that are all
 * there are registered for write-protection alone: the kernel itself maps their pages, protected.
 * In other blocks a guarded page is dealt with, as if it were written to, before it is mapped.
 *
 * The kernel forgets protection when it collapses, and refuses to collapse shmem that is registered
 * for it. So guarded blocks are held back from the collapser (hgm_guard_holds, same reasoning), and
 * a full block's registration is renewed without it before it is collapsed: for a moment the block
 * is registered not at all, which is harmless only because all its pages are present.
 */
#include <errno.h>
#include <string.h>

#include "bits.h"
#include "engine.h"
#include "guard.h"
#include "resolve.h"
#include "sys.h"

static struct hgm_guard *guard_of(const struct hgm_region *r)
{
	return atomic_load_explicit(&((struct hgm_region *)r)->guard, memory_order_acquire);
}

bool hgm_guard_any(const struct hgm_region *r, uint64_t page, uint64_t pages)
{
	for (uint64_t w = page / 64; w * 64 < page + pages; w++)
		if (atomic_load_explicit(&r->guarded[w], memory_order_acquire) &
		    hgm_bits_of_range(page, pages, w))
			return true;
	return false;
}

static uint64_t unit_pages(const struct hgm_region *r)
{
	return r->wp_bytes >> HGM_PAGE_SHIFT;
}

int hgm_guard_release(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t unit = unit_pages(r);
	uint64_t first = page / unit * unit;
	uint64_t end = (page + pages + unit - 1) / unit * unit;
	int rc = hgm_sys->uffd_writeprotect(hgm_uffd_fd(hgm_region_uffd(r, page)),
					    hgm_region_at(r, first),
					    (end - first) << HGM_PAGE_SHIFT, 0);

	/* Gone, or not registered for it any more: who waits must look again. */
	if (rc && rc != -EAGAIN) {
		hgm_resolve_wake(r, first, end - first);
		rc = 0;
	}
	return rc;
}

void hgm_guard_allow(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	for (uint64_t w = page / 64; w * 64 < page + pages; w++)
		atomic_fetch_and_explicit(&r->guarded[w], ~hgm_bits_of_range(page, pages, w),
					  memory_order_acq_rel);
}

int hgm_guard_fault(struct hgm_region *r, uint64_t page)
{
	int rc = hgm_guard_write(r, page);

	if (rc == HGM_GUARD_WAITS) /* who guards lets it go */
		return 0;
	return rc ? rc : hgm_guard_release(r, page, 1);
}

int hgm_guard_write(struct hgm_region *r, uint64_t page)
{
	uint64_t unit = unit_pages(r), first = page / unit * unit;
	struct hgm_guard *g = guard_of(r);

	/* A page of a unit that is being dealt with cannot be let go before the others. */
	return g && hgm_guard_any(r, first, unit) ? g->ops->write(g, r, first, unit) : 0;
}

int hgm_guard_lift(struct hgm_region *r, uint64_t page)
{
	if (!guard_of(r))
		return 0;
	if (atomic_load_explicit(&r->guard_all, memory_order_seq_cst))
		return -EAGAIN;
	return hgm_guard_write(r, page) ? -EAGAIN : 0;
}

int hgm_guard_enter(struct hgm_region *r)
{
	hgm_rcu_read_lock();
	return guard_of(r) ? (int)hgm_section_enter(&r->section) : -1;
}

void hgm_guard_exit(struct hgm_region *r, int in)
{
	if (in >= 0)
		hgm_section_leave(&r->section, (unsigned int)in);
	hgm_rcu_read_unlock();
}

uint64_t hgm_guard_run(struct hgm_region *r, uint64_t page, uint64_t pages, bool able,
		       bool *protect)
{
	/* What is mapped as a whole is mapped by the strictest of its pages. */
	uint64_t grain = r->map_bytes >> HGM_PAGE_SHIFT, n = grain - page % grain;

	*protect = false;
	if (!guard_of(r))
		return pages;
	*protect = true;
	if (atomic_load_explicit(&r->guard_all, memory_order_seq_cst))
		return able ? pages : 0;
	*protect = hgm_guard_any(r, page, n);
	while (n < pages && hgm_guard_any(r, page + n, grain) == *protect)
		n += grain;
	n = n < pages ? n : pages;
	if (!*protect || able)
		return n;
	/* Protected pages cannot be installed here: the first are dealt with, and are none. */
	*protect = false;
	if (hgm_guard_write(r, page))
		return 0;
	n = grain - page % grain;
	return n < pages ? n : pages;
}

bool hgm_guard_holds(const struct hgm_region *r, uint64_t block)
{
	return guard_of(r) &&
	       atomic_load_explicit(&r->held[block / 64], memory_order_seq_cst) >> block % 64 & 1;
}

/*
 * Anonymous memory has no second mapping to read it by. /proc/self/mem reads it as a stranger: a
 * page that is not there is an error (EIO) and not a fault for us to serve.
 */
int hgm_guard_read(const struct hgm_region *r, uint64_t page, void *buf)
{
	ssize_t n;

	if (r->alias) {
		memcpy(buf, r->alias + (page << HGM_PAGE_SHIFT), HGM_PAGE_BYTES);
		return 0;
	}
	n = hgm_sys->pread(r->mem_fd, buf, HGM_PAGE_BYTES, (uintptr_t)hgm_region_at(r, page));
	if (n == (ssize_t)HGM_PAGE_BYTES)
		return 0;
	memset(buf, 0, HGM_PAGE_BYTES); /* discarded by the guest: reads as zero */
	return n < 0 ? (int)n : -EIO;
}
