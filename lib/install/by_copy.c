/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Installing by UFFDIO_COPY, or by UFFDIO_ZEROPAGE for zeroes, which bring contents and mapping at
 * once: call them with DONTWAKE, set the page present, then wake explicitly (no-lost-waiter).
 */
#include <errno.h>
#include <string.h>

#include "by_copy.h"
#include "discard.h"
#include "wp.h"
#include "kernel/sys.h"
#include "region/hgm.h"
#include "resolve.h"
#include "source/source.h"
#include "suspects.h"

/* Events wait for a COPY: hgm_reads_hold(). */
#define PIECE_PAGES 16

/* It is soon known whether pages are being dropped from the file, unless there is no free CPU. */
#define SUSPECT_US 1000
#define EXIST_TOLD 3

/*
 * A page is in the page cache although it was not installed, because another mapping of the
 * caller's file has touched it. Its contents are not ours. Overwrite them through the alias, then
 * map the page.
 */
static int overwrite_cached(struct hgm_arrival *a, bool protect)
{
	struct hgm_region *r = a->r;
	uint64_t from = (a->install_page - a->first_page) << HGM_PAGE_SHIFT;
	struct hgm_range range = { .addr = hgm_region_at(r, a->install_page),
				   .len = HGM_PAGE_BYTES,
				   .step = HGM_PAGE_BYTES,
				   .mode = HGM_UFFD_CONTINUE_DONTWAKE };
	int rc;

	if (protect && !r->h->abilities.can_continue_wp) {
		if (hgm_wp_lift(r, a->install_page))
			return -EAGAIN;
		protect = false;
	}
	if (protect)
		range.mode |= HGM_UFFD_CONTINUE_WP;
	hgm_stat_add(&r->h->stats, HGM_STAT_EXIST, 1);
	if (!r->alias) /* anon: something else mapped it, and its contents are wrong */
		return hgm_resolve_outcome(r, -EEXIST);
	if (hgm_shrunk_copy(r, r->alias + (a->install_page << HGM_PAGE_SHIFT),
			    a->zero ? r->zeroes : (char *)a->buffer + from,
			    HGM_PAGE_BYTES) != HGM_PAGE_BYTES)
		return -EAGAIN; /* it is no longer there */
	hgm_discard_drop(r, a->install_page, 1);
	rc = hgm_uffd_continue(hgm_view_uffd(&r->view, a->install_page), &range);
	hgm_resolve_count(r, &range);
	return rc == -EFAULT ? 0 : hgm_resolve_outcome(r, rc); /* a hole, which reads as zero */
}

/* Copy the rest of the request, from @from in its buffer on, as zeroes. */
void hgm_by_copy_zeroes(struct hgm_arrival *a, uint64_t from)
{
	if (!a->shared) /* else the buffer is zero already, and another thread reads it */
		memset((char *)a->buffer + from, 0, a->install_pages << HGM_PAGE_SHIFT);
	a->zero = false;
}

/* Make the copied pages present, and wake the threads that found them claimed. */
static void publish_copied(struct hgm_arrival *a, uint64_t pages)
{
	a->filled_block |= hgm_resolve_publish(a->r, a->publish_page, pages);
	if (!a->wake_later)
		hgm_region_wake(a->r, a->publish_page, pages);
	a->publish_page += pages;
}

/*
 * Since 6.14 MADV_DONTNEED frees empty page tables, and a COPY that meets this returns EEXIST
 * although nothing is there. Believe EEXIST only if immediate retries return it again.
 */
static int copy_run(struct hgm_uffd *u, struct hgm_range *range, enum hgm_verb verb,
		    const char *src)
{
	unsigned int told = 0; /* times in a row, for one page */
	int rc;

	do {
		struct hgm_range rest = { .addr = (char *)range->addr + range->done,
					  .len = range->len - range->done,
					  .step = range->step,
					  .mode = range->mode };

		rc = hgm_range_until_exist(u, &rest, verb, src + range->done);
		range->done += rest.done;
		range->installed += rest.installed;
		range->partials += rest.partials;
		told = rest.done ? 1 : told + 1;
	} while (rc == -EEXIST && told < EXIST_TOLD);
	return rc;
}

/*
 * One walk of COPY or ZEROPAGE over the remaining pages that are alike. Returns the outcome at
 * a->install_page. Called inside an SRCU section of the region.
 */
static int copy_alike(struct hgm_arrival *a, uint64_t *copied)
{
	struct hgm_region *r = a->r;
	uint64_t from = (a->install_page - a->first_page) << HGM_PAGE_SHIFT;
	bool suspect = hgm_suspects_check(r, a->install_page, a->install_pages);
	bool protect, discarded;
	uint64_t most = a->on_fault_thread || a->install_pages < PIECE_PAGES ? a->install_pages
									     : PIECE_PAGES;
	uint64_t alike = hgm_discard_run(r, a->install_page, most, &discarded);
	uint64_t pages = hgm_wp_run(r, a->install_page, alike, true, &protect);
	struct hgm_range range = { .addr = hgm_region_at(r, a->install_page),
				   .len = pages << HGM_PAGE_SHIFT,
				   .step = HGM_PAGE_BYTES,
				   .mode = HGM_UFFD_COPY_DONTWAKE };
	int rc;

	if (discarded) { /* present, and not in memory: a touch gets zeroes */
		if (r->holds_contents)
			hgm_discard_drop(r, a->install_page, alike);
		hgm_arrival_advance(a, alike);
		return 0;
	}
	if (!pages || (suspect && a->backoff_us < SUSPECT_US))
		return -EAGAIN;
	if (protect && a->zero) /* the kernel has no write-protected ZEROPAGE */
		hgm_by_copy_zeroes(a, from);
	if (protect)
		range.mode |= HGM_UFFD_COPY_WP;
	rc = copy_run(hgm_view_uffd(&r->view, a->install_page), &range,
		      a->zero ? HGM_VERB_ZEROPAGE : HGM_VERB_COPY, (char *)a->buffer + from);
	hgm_resolve_count(r, &range);
	/* A read may have returned an event in place of a fault that was woken. */
	if (!a->on_fault_thread)
		hgm_reads_wait_marks(r, a->install_page);
	hgm_suspects_check(r, a->install_page, pages);
	*copied = range.done >> HGM_PAGE_SHIFT;
	hgm_arrival_advance(a, range.done >> HGM_PAGE_SHIFT);
	if (rc != -EEXIST)
		return hgm_resolve_outcome(r, hgm_shrunk_outcome(r, a->install_page, rc));
	if (hgm_region_foreign(r)) { /* the process has had the page before it was served */
		hgm_stat_add(&r->h->stats, HGM_STAT_EXIST, 1);
		hgm_arrival_advance(a, 1);
		return 0;
	}
	/* ZEROPAGE mistakes a protection mark for a page. COPY does not, so ask it. */
	if (a->zero && !r->alias) {
		hgm_by_copy_zeroes(a, from + range.done);
		return 0;
	}
	rc = overwrite_cached(a, protect);
	if (!rc)
		hgm_arrival_advance(a, 1);
	return rc;
}

/* Fault in the rest of a memory source's contents. If that fails, COPY will report why. */
static void populate_source(const struct hgm_arrival *a)
{
	uint64_t from = (a->install_page - a->first_page) << HGM_PAGE_SHIFT;
	uint64_t at = (uintptr_t)a->buffer + from, start = at & ~(HGM_PAGE_BYTES - 1);
	uint64_t end = at + (a->install_pages << HGM_PAGE_SHIFT);

	hgm_sys->madvise((void *)(uintptr_t)start,
			 (end - start + HGM_PAGE_BYTES - 1) & ~(HGM_PAGE_BYTES - 1),
			 HGM_MADV_POPULATE_READ);
}

/* A fault thread reads the events of its pages itself, between its faults. */
static int enter_to_copy(struct hgm_arrival *a, uint64_t page)
{
	if (!a->on_fault_thread)
		hgm_reads_hold(a->r, page);
	return hgm_wp_read_lock(a->r);
}

static void leave_copy(struct hgm_arrival *a, uint64_t page, int in)
{
	hgm_wp_read_unlock(a->r, in);
	if (!a->on_fault_thread)
		hgm_reads_release(a->r, page);
}

/*
 * Make the pages that were handled present, up to the first that was copied and discarded
 * meanwhile. Returns the number of such pages from there on. The kernel usually drops them after
 * the copy. But if it returned an event although a fault was pending a moment ago, it may have
 * dropped them before the copy.
 */
static uint64_t publish_kept(struct hgm_arrival *a, uint64_t copied_to)
{
	while (a->publish_page < a->install_page) {
		uint64_t run = a->install_page - a->publish_page;
		bool discarded = false;

		if (a->publish_page < copied_to)
			run = hgm_discard_run(a->r, a->publish_page, copied_to - a->publish_page,
					      &discarded);
		if (discarded)
			return run;
		publish_copied(a, run);
	}
	return 0;
}

/*
 * Copied pages become present before the SRCU section ends, so that a thread that begins to
 * write-protect finds them (wp.c). A thread that begins a snapshot waits for SRCU sections while
 * the guest is stopped. So a COPY inside an SRCU section must not wait for a source that is a
 * mapped file.
 */
static int copy_on(struct hgm_arrival *a, bool *populated)
{
	uint64_t page = a->install_page, copied = 0, dropped;
	int in, rc;

	in = enter_to_copy(a, page);
	if (in >= 0 && !*populated && a->r->source->memory) {
		leave_copy(a, page, in);
		populate_source(a);
		*populated = true;
		in = enter_to_copy(a, page);
	}
	/*
	 * Events of another process's region that ends are read, and not marked. The process drops
	 * the pages then, so copy nothing from here on.
	 */
	rc = hgm_region_foreign(a->r) && atomic_load_explicit(&a->r->dying, memory_order_acquire)
		     ? -EAGAIN
		     : copy_alike(a, &copied);
	if (a->on_fault_thread) /* no other thread reads the events of its pages */
		copied = 0;
	while ((dropped = publish_kept(a, page + copied))) {
		leave_copy(a, page, in);
		hgm_discard_drop(a->r, a->publish_page, dropped);
		in = enter_to_copy(a, page);
		publish_copied(a, dropped);
	}
	leave_copy(a, page, in);
	return rc;
}

int hgm_by_copy(struct hgm_arrival *a)
{
	bool populated = false;

	while (a->install_pages) {
		int rc = copy_on(a, &populated);

		/* Another process may unmap memory, and no event says so. */
		if (rc == -ENOENT && hgm_region_foreign(a->r)) {
			hgm_lost_mark(a->r, a->install_page, a->install_page + 1);
			hgm_arrival_advance(a, 1);
			publish_copied(a, 1);
			continue;
		}
		if (rc && !hgm_put_off(rc)) { /* never: give up this page, go on with the rest */
			rc = hgm_poison_uncopied(a, rc);
			if (!rc)
				hgm_arrival_advance(a, 1);
			a->publish_page = a->install_page;
		}
		if (rc)
			return rc;
	}
	return 0;
}
