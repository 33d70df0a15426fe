/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which blocks of a region are registered for write-protection and held back from the collapser,
 * and which pages are write-protected. Also the bitmaps for this. wp.c explains the rule that all
 * this serves.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "wp.h"
#include "installs.h"
#include "kernel/sys.h"
#include "region/hgm.h"
#include "region/holes.h"
#include "util/bits.h"
#include "util/clock.h"
#include "util/error.h"

/* How long a change of another process's address space is waited for. */
#define FOREIGN_NS     1000000000
#define FOREIGN_NAP_NS 100000

int hgm_wp_make(struct hgm_region *r)
{
	if (!r->install->wp_pages)
		r->install->wp_pages = calloc(hgm_bits_words(r->mapped >> HGM_PAGE_SHIFT),
					      sizeof(r->install->wp_pages[0]));
	if (!r->install->wp_held)
		r->install->wp_held =
			calloc(hgm_bits_words(r->blocks), sizeof(r->install->wp_held[0]));
	if (!r->install->wp_registered) /* the collapser may be reading it */
		r->install->wp_registered =
			calloc(hgm_bits_words(r->blocks), sizeof(_Atomic uint64_t));
	if (!r->install->wp_pages || !r->install->wp_held || !r->install->wp_registered)
		return hgm_fail(-ENOMEM, "write-protection: out of memory for the bitmaps");
	return 0;
}

void hgm_wp_synchronize(struct hgm_region *r)
{
	hgm_srcu_synchronize(&r->install->wp_srcu);
}

void hgm_wp_hold(struct hgm_region *r, uint64_t block, uint64_t blocks)
{
	for (uint64_t b = block; b < block + blocks; b++)
		atomic_fetch_or_explicit(&r->install->wp_held[b / 64], UINT64_C(1) << b % 64,
					 memory_order_seq_cst);
	atomic_fetch_add_explicit(&r->install->wp_holds, 1, memory_order_seq_cst);
	hgm_wp_synchronize(r);
}

void hgm_wp_unhold(struct hgm_region *r, uint64_t block)
{
	atomic_fetch_and_explicit(&r->install->wp_held[block / 64], ~(UINT64_C(1) << block % 64),
				  memory_order_seq_cst);
}

uint64_t hgm_wp_holds_count(const struct hgm_region *r)
{
	return atomic_load_explicit(&r->install->wp_holds, memory_order_seq_cst);
}

void hgm_wp_forget_registered(struct hgm_region *r)
{
	for (uint64_t w = 0; w < hgm_bits_words(r->blocks); w++)
		atomic_store_explicit(&r->install->wp_registered[w], 0, memory_order_release);
}

/*
 * Before 6.4, the engine need not serve the minor faults of a block of shared memory that is
 * completely present: the kernel serves them, and keeps the block write-protected. Holes would be
 * filled while the block is not registered at all, and raise SIGBUS where there is no memory for
 * them.
 */
static bool needs_no_minor(const struct hgm_region *r, uint64_t block)
{
	return !r->h->abilities.can_continue_wp && r->view.modes & HGM_UFFD_MINOR &&
	       hgm_region_block_present(r, block) &&
	       (r->backing == HGM_BACKING_HUGETLB || !hgm_holes_in_block(r, block));
}

/* How many blocks from @block on are not registered yet, and can be registered alike. */
static uint64_t unregistered_run(const struct hgm_region *r, uint64_t block, uint64_t end,
				 bool *alone)
{
	uint64_t n = 0, per_stripe = r->view.stripe_bytes / r->block_bytes;

	*alone = needs_no_minor(r, block);
	while (block + n < end && !hgm_bits_test(r->install->wp_registered, block + n) &&
	       (!n || ((block + n) % per_stripe && needs_no_minor(r, block + n) == *alone)))
		n++;
	return n;
}

/*
 * These kernels fail to write-protect a huge mapping if a thread faults it in again while the
 * kernel splits it. No thread can do so as long as we serve the minor faults. So split the mapping
 * before that ends.
 */
static int register_alone(struct hgm_region *r, struct hgm_uffd *u, uint64_t at, uint64_t len)
{
	uint64_t ioctls, modes = HGM_UFFD_WP;
	int rc = 0;

	if (r->backing != HGM_BACKING_HUGETLB) {
		modes |= r->view.modes & HGM_UFFD_MISSING; /* holes may appear later */
		rc = hgm_wp_ioctl(r, at >> HGM_PAGE_SHIFT, len >> HGM_PAGE_SHIFT,
				  HGM_UFFD_WP_PROTECT);
	}
	if (rc)
		return rc;
	/* Registering again never removes a mode. */
	for_each_kept (r, at, at + len, from, piece) {
		rc = hgm_uffd_unregister(u, r->view.base + from, piece);
		if (rc)
			return rc;
	}
	return hgm_region_register_kept(r, u, at, at + len, modes, &ioctls);
}

static int register_run(struct hgm_region *r, uint64_t block, uint64_t blocks, bool alone)
{
	uint64_t at = block * r->block_bytes, len = blocks * r->block_bytes, ioctls;
	struct hgm_uffd *u = hgm_view_uffd(&r->view, at >> HGM_PAGE_SHIFT);
	_Atomic uint64_t *registered = r->install->wp_registered;
	int rc;

	len = len < r->mapped - at ? len : r->mapped - at;
	rc = hgm_region_register_kept(r, u, at, at + len, r->view.modes | HGM_UFFD_WP, &ioctls);
	if (!rc && alone)
		rc = register_alone(r, u, at, len);
	for (uint64_t b = block; !rc && b < block + blocks; b++)
		atomic_fetch_or_explicit(&registered[b / 64], UINT64_C(1) << b % 64,
					 memory_order_acq_rel);
	return rc;
}

int hgm_wp_register(struct hgm_region *r, uint64_t block, uint64_t blocks)
{
	uint64_t end = block + blocks;

	while (block < end) {
		bool alone;
		uint64_t run = unregistered_run(r, block, end, &alone);
		int rc = run ? register_run(r, block, run, alone) : 0;

		if (rc)
			return rc;
		block += run ? run : 1;
	}
	return 0;
}

int hgm_wp_unregister_block(struct hgm_region *r, uint64_t block)
{
	uint64_t at = block * r->block_bytes, bit = UINT64_C(1) << block % 64, ioctls;
	struct hgm_uffd *u = hgm_view_uffd(&r->view, at >> HGM_PAGE_SHIFT);
	_Atomic uint64_t *registered = r->install->wp_registered;
	int error = 0, rc;

	if (!registered || r->backing == HGM_BACKING_HUGETLB || !hgm_bits_test(registered, block))
		return 0;
	if (hgm_uffd_unregister(u, r->view.base + at, r->block_bytes))
		return -EAGAIN;
	/*
	 * Linux 6.1 leaves all pages read-only when their protection ends, and does not collapse an
	 * anonymous block without a writable page. So make one writable now, while faults of the
	 * block are not served: if the page was discarded, it is zero. If that fails, the block
	 * stays as it was, for another try.
	 */
	if (r->backing == HGM_BACKING_ANON && !r->h->abilities.can_continue_wp)
		error = hgm_view_advise(&r->view, at, HGM_PAGE_BYTES, HGM_MADV_POPULATE_WRITE);
	/* If the block cannot be registered again now, the next wp owner registers it. */
	atomic_fetch_and_explicit(&registered[block / 64], ~bit, memory_order_acq_rel);
	rc = hgm_uffd_register(u, r->view.base + at, r->block_bytes,
			       error ? r->view.modes | HGM_UFFD_WP : r->view.modes, &ioctls);
	if (error && !rc)
		atomic_fetch_or_explicit(&registered[block / 64], bit, memory_order_acq_rel);
	return rc || error ? -EAGAIN : 0;
}

void hgm_wp_quiesce(struct hgm_region *r)
{
	atomic_store_explicit(&r->install->wp_all, true, memory_order_seq_cst);
}

void hgm_wp_resume(struct hgm_region *r)
{
	atomic_store_explicit(&r->install->wp_all, false, memory_order_release);
}

/*
 * EAGAIN: the address space is changing. This passes, but another process may change its own all
 * the time.
 */
static int writeprotect_once(struct hgm_region *r, uint64_t at, uint64_t len, uint64_t mode)
{
	int fd = hgm_uffd_fd(hgm_view_uffd(&r->view, at >> HGM_PAGE_SHIFT)), rc;
	uint64_t until_ns = hgm_region_foreign(r) ? hgm_now_ns() + FOREIGN_NS : UINT64_MAX;

	for (;;) {
		rc = hgm_sys->uffd_writeprotect(fd, r->view.base + at, len, mode);
		if (rc != -EAGAIN)
			break;
		if (!hgm_region_foreign(r))
			continue;
		if (hgm_now_ns() >= until_ns ||
		    atomic_load_explicit(&r->dying, memory_order_acquire))
			break;
		nanosleep(&(struct timespec){ .tv_nsec = FOREIGN_NAP_NS }, NULL);
	}
	if (rc == -ESRCH)
		hgm_space_vanished(r->view.space);
	return rc;
}

/*
 * Blocks that are registered in different ways are different memory areas. Before 6.4 the kernel
 * accepts only one area at a time, and returns ENOENT otherwise.
 */
static int writeprotect(struct hgm_region *r, uint64_t at, uint64_t len, uint64_t mode)
{
	uint64_t end = at + len;
	int rc = writeprotect_once(r, at, len, mode);

	if (rc != -ENOENT || at / r->block_bytes == (end - 1) / r->block_bytes)
		return rc;
	rc = 0;
	while (at < end && !rc) {
		uint64_t next = (at / r->block_bytes + 1) * r->block_bytes;

		next = next < end ? next : end;
		rc = writeprotect_once(r, at, next - at, mode);
		at = next;
	}
	return rc;
}

int hgm_wp_ioctl(struct hgm_region *r, uint64_t page, uint64_t pages, uint64_t mode)
{
	uint64_t at = page << HGM_PAGE_SHIFT, end = at + (pages << HGM_PAGE_SHIFT);

	while (at < end) {
		uint64_t stripe_end = (at / r->view.stripe_bytes + 1) * r->view.stripe_bytes;
		uint64_t upto = end < stripe_end ? end : stripe_end;

		for_each_kept (r, at, upto, from, len) {
			int rc = writeprotect(r, from, len, mode);

			if (rc)
				return hgm_fail(rc, "UFFDIO_WRITEPROTECT of %llu bytes at %p: %s",
						(unsigned long long)len,
						(void *)(r->view.base + from), hgm_errno_name(rc));
		}
		at = upto;
	}
	return 0;
}

int hgm_wp_arm(struct hgm_region *r, uint64_t *armed, uint64_t *discarded)
{
	uint64_t pages = hgm_region_end(r);
	int rc;

	for (uint64_t w = 0; w < hgm_bits_words(pages); w++) {
		/* Read this first: it means nothing for pages that are present. */
		discarded[w] = hgm_map_discarded_word(r->map, w);
		/* A full leaf has all bits set, also those beyond the region's end. */
		armed[w] = hgm_map_present_word(r->map, w) & hgm_bits_low(pages - w * 64);
		discarded[w] &= ~armed[w];
		atomic_store_explicit(&r->install->wp_pages[w], armed[w], memory_order_relaxed);
	}
	rc = hgm_wp_ioctl(r, 0, r->mapped >> HGM_PAGE_SHIFT, HGM_UFFD_WP_PROTECT);
	hgm_wp_resume(r);
	return rc;
}

int hgm_wp_protect(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	for (uint64_t w = page / 64; w * 64 < page + pages; w++)
		atomic_fetch_or_explicit(&r->install->wp_pages[w],
					 hgm_bits_of_range(page, pages, w), memory_order_acq_rel);
	/*
	 * Threads that saw clear wp bits have mapped or released their pages by now. Pages that are
	 * write-protected from here on stay write-protected.
	 */
	hgm_wp_synchronize(r);
	return hgm_wp_ioctl(r, page, pages, HGM_UFFD_WP_PROTECT);
}

/* Blocks that the collapser may be working on hold no write-protected pages. */
bool hgm_wp_may_protect(const struct hgm_region *r, uint64_t block)
{
	return hgm_bits_test(r->install->wp_held, block) &&
	       hgm_bits_test(r->install->wp_registered, block);
}

void hgm_wp_free(struct hgm_region *r)
{
	free(r->install->wp_pages);
	free(r->install->wp_held);
	free(r->install->wp_registered);
}
