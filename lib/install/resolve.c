/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The only place where pages become present, and where they are then mapped.
 *
 * There are two ways, depending on the region's backing. With an alias the contents are already in
 * the page cache: set the page present, then call CONTINUE. Its wake comes after the page is
 * present, so that a thread that found the page claimed and went away is woken (no-lost-waiter).
 * Without an alias, COPY brings contents and mapping at once: call it with DONTWAKE, set the page
 * present, then wake explicitly, for the same reason.
 *
 * Where the map granularity is the block, nothing is installed before all pages of the block are
 * present.
 */
#include <errno.h>
#include <string.h>

#include "discard.h"
#include "installs.h"
#include "kernel/sys.h"
#include "leaf.h"
#include "region/hgm.h"
#include "resolve.h"
#include "source/source.h"
#include "util/trace.h"

/* Events wait for a COPY: hgm_reads_hold(). */
#define PIECE_PAGES 16

/* It is soon known whether pages are being dropped from the file, unless there is no free CPU. */
#define SUSPECT_US 1000
#define EXIST_TOLD 3

void hgm_resolve_count(struct hgm_region *r, const struct hgm_range *range)
{
	HGM_TRACE3(install, range->addr, range->installed, range->existed);
	hgm_stat_add(&r->h->stats, HGM_STAT_INSTALLED_PAGES, range->installed >> HGM_PAGE_SHIFT);
	hgm_stat_add(&r->h->stats, HGM_STAT_EXIST, range->existed >> HGM_PAGE_SHIFT);
	hgm_stat_add(&r->h->stats, HGM_STAT_PARTIAL, range->partials);
}

/*
 * There is no memory. Log this once, until there is some again. The kernel returns ENOMEM for a
 * full tmpfs, too.
 */
static void starve(struct hgm_region *r, int rc)
{
	struct hgm_file_kind kind;

	if (rc == -ENOMEM && r->fd >= 0 && !hgm_sys->file_kind(r->fd, &kind) && kind.full)
		rc = -ENOSPC;
	/* Set this before counting: a thread that sees the count may ask for the reason. */
	atomic_store_explicit(&r->h->last_error, rc, memory_order_release);
	hgm_stat_add(&r->h->stats, HGM_STAT_NO_MEMORY, 1);
	if (atomic_exchange_explicit(&r->install->starved, true, memory_order_relaxed))
		return;
	hgm_log_some(&r->h->log, HGM_LOG_NO_MEMORY, HGM_LOG_WARNING,
		     "%s: what has arrived for the region at %p is put into memory when there is "
		     "some again; until then whoever touches it waits",
		     rc == -ENOSPC ? "ENOSPC: the file system of the region's file is full"
				   : "ENOMEM: there is no memory",
		     (void *)r->primary);
}

int hgm_resolve_outcome(struct hgm_region *r, int rc)
{
	struct hgm *h = r->h;

	switch (rc) {
	case 0:
		return 0;
	case -EAGAIN:
		hgm_stat_add(&h->stats, HGM_STAT_AGAIN, 1);
		return -EAGAIN;
	case -ENOENT:
	case -ESRCH:
		hgm_stat_add(&h->stats, HGM_STAT_VANISHED, 1);
		return -ENOENT;
	case -ENOMEM:
	case -ENOSPC:
		starve(r, rc);
		return -ENOMEM;
	}
	atomic_store_explicit(&h->last_error, rc, memory_order_relaxed);
	return rc;
}

/* The request's part of its region is finished for good. */
void hgm_resolve_settle(struct hgm_arrival *a)
{
	struct hgm_region *r = a->r;

	/* Before the pages are counted off, or the region could look complete in between. */
	if (a->filled_block)
		r->h->above->filled(r, hgm_region_block(r, a->first_page));
	hgm_region_count_off(r, a->settling_pages);
}

bool hgm_resolve_leaf_full(struct hgm_region *r, uint64_t leaf)
{
	uint64_t leaves = r->block_bytes >> HGM_LEAF_SHIFT;
	_Atomic uint32_t *full = &r->block_full_leaves[hgm_region_block(r, leaf * HGM_LEAF_PAGES)];

	return atomic_fetch_add_explicit(full, 1, memory_order_acq_rel) + 1 == leaves;
}

bool hgm_resolve_publish(struct hgm_region *r, uint64_t first_page, uint64_t pages)
{
	return hgm_map_set_present(r->map, first_page, pages) &&
	       hgm_resolve_leaf_full(r, first_page / HGM_LEAF_PAGES);
}

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

	if (protect && !r->h->can_continue_wp) {
		if (hgm_guard_lift(r, a->install_page))
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
	rc = hgm_uffd_continue(hgm_region_uffd(r, a->install_page), &range);
	hgm_resolve_count(r, &range);
	return rc == -EFAULT ? 0 : hgm_resolve_outcome(r, rc); /* a hole, which reads as zero */
}

static void advance(struct hgm_arrival *a, uint64_t pages)
{
	a->install_page += pages;
	a->install_pages -= pages;
}

/* Copy the rest of the request, from @from in its buffer on, as zeroes. */
static void zero_by_copy(struct hgm_arrival *a, uint64_t from)
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
 * a->install_page. Called inside a section of the region.
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
	uint64_t pages = hgm_guard_run(r, a->install_page, alike, true, &protect);
	struct hgm_range range = { .addr = hgm_region_at(r, a->install_page),
				   .len = pages << HGM_PAGE_SHIFT,
				   .step = HGM_PAGE_BYTES,
				   .mode = HGM_UFFD_COPY_DONTWAKE };
	int rc;

	if (discarded) { /* present, and not in memory: a touch gets zeroes */
		if (r->holds_contents)
			hgm_discard_drop(r, a->install_page, alike);
		advance(a, alike);
		return 0;
	}
	if (!pages || (suspect && a->backoff_us < SUSPECT_US))
		return -EAGAIN;
	if (protect && a->zero) /* the kernel has no protected ZEROPAGE */
		zero_by_copy(a, from);
	if (protect)
		range.mode |= HGM_UFFD_COPY_WP;
	rc = copy_run(hgm_region_uffd(r, a->install_page), &range,
		      a->zero ? HGM_VERB_ZEROPAGE : HGM_VERB_COPY, (char *)a->buffer + from);
	hgm_resolve_count(r, &range);
	/* A read may have returned an event in place of a fault that was woken. */
	if (!a->on_fault_thread)
		hgm_reads_wait_marks(r, a->install_page);
	hgm_suspects_check(r, a->install_page, pages);
	*copied = range.done >> HGM_PAGE_SHIFT;
	advance(a, range.done >> HGM_PAGE_SHIFT);
	if (rc != -EEXIST)
		return hgm_resolve_outcome(r, rc);
	/* ZEROPAGE mistakes a protection mark for a page. COPY does not, so ask it. */
	if (a->zero && !r->alias) {
		zero_by_copy(a, from + range.done);
		return 0;
	}
	rc = overwrite_cached(a, protect);
	if (!rc)
		advance(a, 1);
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
	return hgm_guard_enter(a->r);
}

static void leave_copy(struct hgm_arrival *a, uint64_t page, int in)
{
	hgm_guard_exit(a->r, in);
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
 * Copied pages become present before the section ends, so that a thread that begins to guard finds
 * them (guard.c). A thread that begins a snapshot waits for sections while the guest is stopped. So
 * a COPY inside a section must not wait for a source that is a mapped file.
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
	rc = copy_alike(a, &copied);
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

static int resolve_copy(struct hgm_arrival *a)
{
	bool populated = false;

	while (a->install_pages) {
		int rc = copy_on(a, &populated);

		if (rc && !hgm_put_off(rc)) { /* never: give up this page, go on with the rest */
			rc = hgm_poison_uncopied(a, rc);
			if (!rc)
				advance(a, 1);
			a->publish_page = a->install_page;
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

	/* A piece larger than a page is mapped as a whole, as its strictest page requires. */
	if (run < step_bytes >> HGM_PAGE_SHIFT)
		return -EAGAIN;
	*range = (struct hgm_range){ .addr = hgm_region_at(r, page),
				     .len = (run << HGM_PAGE_SHIFT) / step_bytes * step_bytes,
				     .step = step_bytes,
				     .mode = protect ? HGM_UFFD_CONTINUE_WP : 0 };
	return 0;
}

/*
 * Map the remaining pages that are alike. Returns the outcome at a->install_page. Called inside a
 * section of the region.
 */
static int continue_alike(struct hgm_arrival *a)
{
	struct hgm_region *r = a->r;
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT;
	/* A whole leaf would be refused again, and its first page would be mistaken for mapped. */
	bool piece = r->native && a->install_pages == HGM_LEAF_PAGES;
	struct hgm_range range;
	int rc = hgm_resolve_continue_run(r, a->install_page, piece ? 1 : a->install_pages,
					  r->map_bytes, &range);

	if (rc)
		return rc;
	if (a->wake_later)
		range.mode |= HGM_UFFD_CONTINUE_DONTWAKE;
	rc = hgm_uffd_continue(hgm_region_uffd(r, a->install_page), &range);
	hgm_resolve_count(r, &range);
	advance(a, range.done >> HGM_PAGE_SHIFT);
	if (rc != -EFAULT)
		return hgm_resolve_outcome(r, rc);
	/* It was discarded. A thread that touches it gets zeroes, and only then memory. */
	hgm_region_wake(r, a->install_page, step);
	advance(a, step);
	return 0;
}

static int resolve_continue(struct hgm_arrival *a)
{
	struct hgm_region *r = a->r;
	uint64_t step = r->map_bytes >> HGM_PAGE_SHIFT;

	if (r->native && a->install_pages == HGM_LEAF_PAGES) {
		int rc = hgm_leaf_install(a);

		/* For any error but "not now", the smaller pieces give a better answer. */
		if (hgm_put_off(hgm_resolve_outcome(r, rc == -EEXIST ? 0 : rc)))
			return rc;
	}
	while (a->install_pages) {
		int in = hgm_guard_enter(r), rc = continue_alike(a);

		hgm_guard_exit(r, in);
		if (rc && !hgm_put_off(rc)) {
			rc = hgm_poison_present(r, a->install_page, step, rc);
			if (!rc)
				advance(a, step);
		}
		if (rc)
			return rc;
	}
	return 0;
}

int hgm_resolve_install(struct hgm_arrival *a)
{
	int rc = a->r->copies ? resolve_copy(a) : resolve_continue(a);

	if (!rc && atomic_load_explicit(&a->r->install->starved, memory_order_relaxed))
		atomic_store_explicit(&a->r->install->starved, false, memory_order_relaxed);
	if (!rc)
		hgm_resolve_settle(a);
	return rc;
}

static int contents_by_alias(struct hgm_arrival *a, uint64_t pages)
{
	struct hgm_region *r = a->r;
	uint64_t block_pages = r->block_bytes >> HGM_PAGE_SHIFT;

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
	if (hgm_region_whole_blocks(r)) {
		a->install_page = a->first_page / block_pages * block_pages;
		a->install_pages = a->filled_block ? block_pages : 0;
	} else if (r->native) {
		hgm_leaf_choose(a, pages);
	} else if (a->sequential && r->h->above->leave(r, hgm_region_block(r, a->first_page))) {
		/* no-lost-waiter: threads that found the pages claimed look again */
		hgm_region_wake(r, a->first_page, pages);
		a->install_pages = 0;
	}
	return hgm_resolve_install(a);
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
	struct hgm_region *r = a->r;

	a->settling_pages = pages;
	if (a->zero)
		hgm_stat_add(&r->h->stats, HGM_STAT_ZERO_PAGES, pages);
	if (!r->copies)
		return contents_by_alias(a, pages);
	/*
	 * The kernel counts zero pages of anonymous memory as holes, and does not collapse holes in
	 * registered memory. So zeroes are copied if the block is to become huge.
	 */
	a->install_page = a->publish_page = a->first_page;
	a->install_pages = pages;
	if (a->zero && !r->alias && r->collapses)
		zero_by_copy(a, 0);
	a->filled_block = false;
	return hgm_resolve_install(a);
}
