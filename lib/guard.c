/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write-protection of a region.
 *
 * A page is guarded while its bit in r->guarded is set. The rule: a guarded page is never mapped
 * writable. It has two sides,
 *
 *	installing	whoever maps a page looks at its bit and maps it in one read-side section
 *			(hgm_guard_run), protected if it is set or if r->guard_all is;
 *	guarding	guard_all is set; a grace period; then the bits; then
 *			UFFDIO_WRITEPROTECT; then guard_all is cleared.
 *
 * After the grace period nobody is left who looked before guard_all was set, so no page can be
 * mapped writable between its bit and the WRITEPROTECT that covers what is mapped already. Nor is a
 * page left that is mapped and not present: COPY and the publication of what it copied are in one
 * section too, so that what the guest can have written to is guarded. Bits are cleared, by those
 * who have dealt with the page, before it is unprotected; who sees a clear bit may map it writable.
 *
 * While guard_all is set some faults must wait: it never lasts longer than guarding itself.
 *
 * Where the kernel cannot install protected pages (UFFDIO_CONTINUE before 6.4) a guarded page is
 * dealt with, as if it were written to, before it is mapped.
 *
 * The kernel forgets protection when it collapses, and refuses to collapse shmem that is registered
 * for it. So guarded blocks are held back from the collapser (hgm_guard_holds, same reasoning), and
 * a full block's registration is renewed without it before it is collapsed: for a moment the block
 * is registered not at all, which is harmless only because all its pages are present.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "bits.h"
#include "engine.h"
#include "error.h"
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

static int make_planes(struct hgm_region *r)
{
	if (!r->guarded)
		r->guarded =
			calloc(hgm_bits_words(r->mapped >> HGM_PAGE_SHIFT), sizeof(r->guarded[0]));
	if (!r->held)
		r->held = calloc(hgm_bits_words(r->blocks), sizeof(r->held[0]));
	if (!r->wp_registered) /* the collapser may be looking */
		r->wp_registered = calloc(hgm_bits_words(r->blocks), sizeof(_Atomic uint64_t));
	if (!r->guarded || !r->held || !r->wp_registered)
		return hgm_fail(-ENOMEM, "write-protection: out of memory for the bitmaps");
	if (!r->alias && r->mem_fd < 0)
		r->mem_fd = hgm_sys->open("/proc/self/mem", O_RDONLY);
	if (!r->alias && r->mem_fd < 0)
		return hgm_fail(r->mem_fd,
				"write-protection: anonymous memory is read through "
				"/proc/self/mem: %s",
				hgm_errno_name(r->mem_fd));
	return 0;
}

static void set_all(_Atomic uint64_t *bitmap, uint64_t words, uint64_t value)
{
	for (uint64_t w = 0; w < words; w++)
		atomic_store_explicit(&bitmap[w], value, memory_order_relaxed);
}

static int check_kernel(struct hgm_region *r)
{
	uint64_t have = hgm_uffd_features(r->h->uffd[0]);

	if (!(have & HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP))
		return hgm_fail(-EOPNOTSUPP,
				"write-protection: this kernel's userfaultfd has none (5.7 or "
				"later has)");
	if (r->backing != HGM_BACKING_ANON && !(have & HGM_UFFD_FEATURE_WP_HUGETLBFS_SHMEM))
		return hgm_fail(-EOPNOTSUPP,
				"write-protection: this kernel's userfaultfd has no "
				"WP_HUGETLBFS_SHMEM (5.19 or later has); only anon can be "
				"protected here");
	return 0;
}

static struct hgm_uffd *uffd_at(const struct hgm_region *r, uint64_t at)
{
	return hgm_region_uffd(r, at >> HGM_PAGE_SHIFT);
}

static int register_wp(struct hgm_region *r)
{
	for (uint64_t at = 0; at < r->mapped; at += r->stripe_bytes) {
		uint64_t ioctls;
		int rc = hgm_uffd_register(uffd_at(r, at), r->primary + at,
					   hgm_region_stripe_length(r, at), r->modes | HGM_UFFD_WP,
					   &ioctls);

		if (rc)
			return rc;
	}
	return 0;
}

/* EAGAIN: the address space is changing; that passes. */
static int writeprotect(struct hgm_region *r, uint64_t at, uint64_t len, uint64_t mode)
{
	int fd = hgm_uffd_fd(uffd_at(r, at));
	int rc;

	do
		rc = hgm_sys->uffd_writeprotect(fd, r->primary + at, len, mode);
	while (rc == -EAGAIN);
	return rc;
}

static int writeprotect_all(struct hgm_region *r, uint64_t mode)
{
	for (uint64_t at = 0; at < r->mapped; at += r->stripe_bytes) {
		int rc = writeprotect(r, at, hgm_region_stripe_length(r, at), mode);

		if (rc)
			return hgm_fail(rc, "UFFDIO_WRITEPROTECT of %llu bytes at %p: %s",
					(unsigned long long)hgm_region_stripe_length(r, at),
					(void *)(r->primary + at), hgm_errno_name(rc));
	}
	return 0;
}

void hgm_guard_hush(struct hgm_region *r)
{
	atomic_store_explicit(&r->guard_all, true, memory_order_seq_cst);
}

static void settle(struct hgm_region *r)
{
	atomic_store_explicit(&r->guard_all, false, memory_order_release);
}

/* Before anybody can see the guard, all that goes with it is there. */
static int publish(struct hgm_region *r, struct hgm_guard *g, void *user)
{
	const struct hgm_guard *other;
	int rc;

	pthread_mutex_lock(&r->h->table_lock);
	hgm_rcu_read_lock(); /* the other may be on its way out */
	other = guard_of(r);
	rc = other ? hgm_fail(-EBUSY, "%s: the region is under %s already", g->name, other->name)
		   : make_planes(r);
	if (!rc) {
		r->guard_user = user;
		set_all(r->held, hgm_bits_words(r->blocks), ~UINT64_C(0));
		atomic_store_explicit(&r->guard, g, memory_order_release);
	}
	hgm_rcu_read_unlock();
	pthread_mutex_unlock(&r->h->table_lock);
	return rc;
}

int hgm_guard_begin(struct hgm_region *r, struct hgm_guard *g, void *user)
{
	int rc = check_kernel(r);

	if (!rc)
		rc = publish(r, g, user);
	if (rc)
		return rc;
	/* The collapser is out of all blocks now: it would undo protection, or fail by it. */
	hgm_rcu_synchronize();
	/* Not before: a collapse that was under way may have renewed its block's registration. */
	set_all(r->wp_registered, hgm_bits_words(r->blocks), ~UINT64_C(0));
	rc = register_wp(r);
	if (rc)
		hgm_guard_end(r);
	return rc;
}

int hgm_guard_arm(struct hgm_region *r, uint64_t *armed)
{
	uint64_t pages = hgm_region_pages(r);
	int rc;

	for (uint64_t w = 0; w < hgm_bits_words(pages); w++) {
		/* Of a full leaf all bits are set, those behind the region's end too. */
		armed[w] = hgm_map_present_word(r->map, w) & hgm_bits_low(pages - w * 64);
		atomic_store_explicit(&r->guarded[w], armed[w], memory_order_relaxed);
	}
	rc = writeprotect_all(r, HGM_UFFD_WP_PROTECT);
	settle(r);
	return rc;
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

void hgm_guard_block_out(struct hgm_region *r, uint64_t block)
{
	/* seq_cst: whoever wants it collapsed sees that it is held no more, or we see that. */
	atomic_fetch_and_explicit(&r->held[block / 64], ~(UINT64_C(1) << block % 64),
				  memory_order_seq_cst);
	hgm_collapse_resume(r, block);
}

/* The guard goes last: who guards next must find nothing of it. */
void hgm_guard_end(struct hgm_region *r)
{
	set_all(r->guarded, hgm_bits_words(r->mapped >> HGM_PAGE_SHIFT), 0);
	settle(r);
	if (writeprotect_all(r, 0))
		hgm_region_wake_all(r);
	for (uint64_t block = 0; block < r->blocks; block++)
		hgm_guard_block_out(r, block);
	atomic_store_explicit(&r->guard, NULL, memory_order_release);
	hgm_rcu_synchronize();
}

int hgm_guard_fault(struct hgm_region *r, uint64_t page)
{
	int rc = hgm_guard_write(r, page);

	if (rc)
		return rc;
	return hgm_guard_release(r, page, 1);
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
	return hgm_guard_write(r, page);
}

uint64_t hgm_guard_run(struct hgm_region *r, uint64_t page, uint64_t pages, bool *protect)
{
	/* What is mapped as a whole is mapped by the strictest of its pages. */
	uint64_t grain = r->map_bytes >> HGM_PAGE_SHIFT, n = grain - page % grain;

	*protect = false;
	if (!guard_of(r))
		return pages;
	*protect = true;
	if (atomic_load_explicit(&r->guard_all, memory_order_seq_cst))
		return r->copies || r->h->can_continue_wp ? pages : 0;
	*protect = hgm_guard_any(r, page, n);
	while (n < pages && hgm_guard_any(r, page + n, grain) == *protect)
		n += grain;
	n = n < pages ? n : pages;
	if (!*protect || r->copies || r->h->can_continue_wp)
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

int hgm_guard_unregister_block(struct hgm_region *r, uint64_t block)
{
	uint64_t at = block * r->block_bytes, bit = UINT64_C(1) << block % 64, ioctls;
	_Atomic uint64_t *registered = r->wp_registered;
	struct hgm_uffd *u = uffd_at(r, at);
	int rc;

	if (!registered || r->backing == HGM_BACKING_HUGETLB ||
	    !(atomic_load_explicit(&registered[block / 64], memory_order_acquire) & bit))
		return 0;
	rc = hgm_uffd_unregister(u, r->primary + at, r->block_bytes);
	if (!rc)
		rc = hgm_uffd_register(u, r->primary + at, r->block_bytes, r->modes, &ioctls);
	if (rc)
		return -EAGAIN;
	atomic_fetch_and_explicit(&registered[block / 64], ~bit, memory_order_acq_rel);
	return 0;
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

void hgm_guard_free(struct hgm_region *r)
{
	free(r->guarded);
	free(r->held);
	free(r->wp_registered);
	if (r->mem_fd >= 0)
		hgm_sys->close(r->mem_fd);
}
