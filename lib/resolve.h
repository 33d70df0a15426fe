/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The only place where pages become present, and, with present.c, where they are mapped.
 */
#ifndef HGM_LIB_RESOLVE_H
#define HGM_LIB_RESOLVE_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

struct hgm_range;
struct hgm_region;
struct hgm_request;

/*
 * Contents of @pages from req->first_page on are in the request's buffer (or are zero): make them
 * present and map them. On -EAGAIN and -ENOMEM the rest is in req->install_page and install_pages,
 * to be gone on with by hgm_resolve_install().
 */
int hgm_resolve_contents(struct hgm_request *req, uint64_t pages);
int hgm_resolve_install(struct hgm_request *req);

/* Claimed pages of one leaf have their contents: true for the caller who made their block full. */
bool hgm_resolve_publish(struct hgm_region *r, uint64_t first_page, uint64_t pages);

/* The request's settling pages are dealt with for good. */
void hgm_resolve_settle(struct hgm_request *req);

/*
 * present.c: a fault on a page whose contents are there: map it, and present neighbours with it.
 * -EAGAIN and -ENOMEM: not now; -ENOENT: there is no registered memory, at least now. Inside a
 * section of the region. @wake_later: the caller wakes who waits for the page.
 */
int hgm_resolve_present(struct hgm_region *r, uint64_t page, bool wake_later);

/*
 * A present page that is not in memory any more: somebody discarded it (MADV_DONTNEED of anonymous
 * memory, a hole punched in the file), and discarded memory reads as zero. As
 * hgm_resolve_present().
 */
int hgm_resolve_discarded(struct hgm_region *r, uint64_t page, bool *installed);

/*
 * What came of an installation: 0; -EAGAIN or -ENOMEM, try the rest later; -ENOENT, there is no
 * memory any more; anything else, the kernel will not map the page where it stopped, ever.
 */
int hgm_resolve_outcome(struct hgm_region *r, int rc);

/* Statistics of a range operation. */
void hgm_resolve_count(struct hgm_region *r, const struct hgm_range *range);

/*
 * The range of a CONTINUE in steps of @step_bytes: pages from @page on that are to be installed
 * alike, at most @pages, protected if they are guarded. -EAGAIN: not now. Inside the same section
 * as the installation.
 */
int hgm_resolve_continue_run(struct hgm_region *r, uint64_t page, uint64_t pages,
			     uint64_t step_bytes, struct hgm_range *range);

/* Map present pages that nobody has asked for, as they are guarded. -errno: not all. */
int hgm_resolve_remap(struct hgm_region *r, uint64_t page, uint64_t pages);

/* Wake whoever waits for a page. */
void hgm_resolve_wake(struct hgm_region *r, uint64_t page, uint64_t pages);

/* Outcomes that mean "later, on another turn". */
static inline bool hgm_put_off(int rc)
{
	return rc == -EAGAIN || rc == -ENOMEM;
}

/*
 * poison.c: pages that are given up. All return -EAGAIN or -ENOMEM for "not now".
 *
 * The source failed for good: the pages that the request asks for. -EOPNOTSUPP and others: this
 * kernel cannot poison here.
 */
int hgm_resolve_poison(struct hgm_request *req);

/* A fault on a page that was given up. */
int hgm_resolve_poisoned(struct hgm_region *r, uint64_t page);

/* Present pages that the kernel will not map; @why is what it said. */
int hgm_poison_present(struct hgm_region *r, uint64_t page, uint64_t pages, int why);

/* The page at which COPY stopped for good. */
int hgm_poison_uncopied(struct hgm_request *req, int why);

/* UFFDIO_POISON, and nothing else; -EOPNOTSUPP: not on this kernel. */
int hgm_poison_range(struct hgm_region *r, uint64_t page, uint64_t pages);

#endif
