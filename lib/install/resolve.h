/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages become present and are mapped. publish.c makes them present, and so does discard.c for a
 * leaf that is discarded as a whole. resolve.c, by_copy.c, hgm_leaf.c and present.c map them.
 * poison.c gives them up. Other modules make pages present only by calling these functions.
 */
#ifndef HGM_LIB_RESOLVE_H
#define HGM_LIB_RESOLVE_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

struct hgm_range;
struct hgm_region;

/* Claimed pages on their way into memory. */
struct hgm_arrival {
	struct hgm_region *r;
	uint64_t first_page;
	char *buffer; /* contents, from first_page on */
	/* The pages that are left to install; a whole block where that is the granularity. */
	uint64_t install_page;
	uint64_t install_pages;
	uint64_t publish_page;	 /* COPY: the first page that is not present yet */
	uint64_t settling_pages; /* subtracted from the region's open pages at the end */
	uint32_t backoff_us;	 /* after the kernel refused for now */
	bool demand;
	bool sequential; /* fill in order: the block will soon be full */
	bool zero;	 /* zeroes, and nothing is in the buffer */
	bool shared;	 /* the buffer holds zeroes all the same, and others read it */
	bool scribbled;	 /* a failed try may have left anything in the buffer */
	bool filled_block;
	bool on_fault_thread;
	bool wake_later; /* the fault thread wakes the waiters, once for each batch */
};

/* The first @pages that were left to install are installed. */
static inline void hgm_arrival_advance(struct hgm_arrival *a, uint64_t pages)
{
	a->install_page += pages;
	a->install_pages -= pages;
}

/*
 * The contents of @pages from a->first_page on are in the request's buffer (or are zero). Make
 * them present and map them. On -EAGAIN and -ENOMEM the rest is in a->install_page and
 * install_pages, and hgm_resolve_install() continues with it.
 */
int hgm_resolve_contents(struct hgm_arrival *a, uint64_t pages);
int hgm_resolve_install(struct hgm_arrival *a);

/*
 * @pages of a request from a->first_page on were discarded. Make them present, with nothing in
 * memory. Sets *pages to the number of pages handled. -EAGAIN, -ENOMEM: not now, and no page was
 * handled.
 */
int hgm_resolve_dropped(struct hgm_arrival *a, uint64_t *pages);

/*
 * Claimed pages of one leaf have their contents: make them present. True for the caller that made
 * their block full.
 */
bool hgm_resolve_publish(struct hgm_region *r, uint64_t first_page, uint64_t pages);

/* The same for a leaf that the map made full by itself. */
bool hgm_resolve_leaf_full(struct hgm_region *r, uint64_t leaf);

/* The request's settling pages are finished for good. */
void hgm_resolve_settle(struct hgm_arrival *a);

/* installs.c: what installing needs to know of a region. -ENOMEM; free() follows all the same. */
int hgm_install_make(struct hgm_region *r);
void hgm_install_free(struct hgm_region *r);

/*
 * A fault on a page whose contents are there. Map it, and present neighbours with it. -EAGAIN and
 * -ENOMEM: not now. -ENOENT: there is no registered memory, at least not now. Call it inside an
 * SRCU section of the region. @wake_later: the caller wakes the threads that wait for the page.
 */
int hgm_resolve_present(struct hgm_region *r, uint64_t page, bool wake_later);

/*
 * Fill a hole of the alias with zeroes without touching it. The size is the unit of discarding
 * around @page. -EAGAIN: no memory, or not now.
 */
int hgm_resolve_fill_hole(struct hgm_region *r, uint64_t page);

/*
 * The outcome of an installation. 0: success. -EAGAIN or -ENOMEM: try the rest later. -ENOENT: the
 * memory no longer exists. Any other error: the kernel will never map the page where it stopped.
 */
int hgm_resolve_outcome(struct hgm_region *r, int rc);

/* Update the statistics after a range operation. */
void hgm_resolve_count(struct hgm_region *r, const struct hgm_range *range);

/*
 * Set up the range of a CONTINUE in steps of @step_bytes: pages from @page on that are installed
 * alike, at most @pages, write-protected if their wp bits are set. -EAGAIN: not now. Call it inside
 * the same SRCU section as the installation.
 */
int hgm_resolve_continue_run(struct hgm_region *r, uint64_t page, uint64_t pages,
			     uint64_t step_bytes, struct hgm_range *range);

/*
 * Map present pages that were not requested, write-protected if their wp bits are set. -errno: not
 * all are mapped.
 */
int hgm_resolve_remap(struct hgm_region *r, uint64_t page, uint64_t pages);

/* Outcomes that mean "try again later". */
static inline bool hgm_put_off(int rc)
{
	return rc == -EAGAIN || rc == -ENOMEM;
}

/* Report that pages which had not arrived are given up because their file was truncated. */
void hgm_poison_shrunk(struct hgm_region *r, uint64_t page, uint64_t pages);

/*
 * poison.c, unpoison.c: pages that are given up. All return -EAGAIN or -ENOMEM for "not now".
 *
 * The source failed for good for the pages that the request asks for. -EOPNOTSUPP and other errors:
 * this kernel cannot poison here.
 */
int hgm_resolve_poison(struct hgm_arrival *a, uint64_t pages);

/* A fault on a page that was given up. */
int hgm_resolve_poisoned(struct hgm_region *r, uint64_t page);

/* Present pages that the kernel will not map; @why is its error. */
int hgm_poison_present(struct hgm_region *r, uint64_t page, uint64_t pages, int why);

/* The page at which COPY stopped for good. */
int hgm_poison_uncopied(struct hgm_arrival *a, int why);

/* Wait until pages that are being poisoned are poisoned in the map, too. */
void hgm_poison_wait(struct hgm_region *r);

/* Bytes that raise SIGBUS. */
uint64_t hgm_region_poisoned_bytes(const struct hgm_region *r);

/* UFFDIO_POISON, and nothing else. -EOPNOTSUPP: not on this kernel. */
int hgm_poison_range(struct hgm_region *r, uint64_t page, uint64_t pages);

/*
 * Claimed pages may be poison already. Undo the poison of those at the front that were discarded.
 * -EAGAIN, -ENOMEM: later.
 */
int hgm_poison_undo(struct hgm_region *r, uint64_t page, uint64_t pages);

/*
 * Remove poison from the page table, in whole pieces of the map granularity around the pages.
 * Raises an event. Returns -errno of madvise(2).
 */
int hgm_poison_unmap(struct hgm_region *r, uint64_t page, uint64_t pages);

/*
 * Pages were discarded while they were being given up, so the next touch must get zeroes. Other
 * threads may have made them present since. In anonymous memory the poison goes away in any case:
 * discarded memory is dropped after it was marked, and it was marked after it became poison.
 */
void hgm_poison_heal(struct hgm_region *r, uint64_t page, uint64_t pages);

/*
 * For whole blocks: has the block poison, as far as known? A page of it was given up, after the map
 * says so; it may have none any more.
 */
bool hgm_poison_of_block(const struct hgm_region *r, uint64_t block);
void hgm_poison_note_block(struct hgm_region *r, uint64_t block);
void hgm_poison_forget_block(struct hgm_region *r, uint64_t block);

/*
 * For whole blocks: is any page of the block still given up? If not, the block is fetched as any
 * other from now on. The caller removes the kernel's mark, or has found it gone.
 */
bool hgm_poison_left(struct hgm_region *r, uint64_t block);

#endif
