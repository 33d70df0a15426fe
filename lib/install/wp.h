/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write-protection of a region: the owner of the write-protection (the wp owner), which is told of
 * writes, and the pages whose wp bits it sets.
 */
#ifndef HGM_LIB_WP_H
#define HGM_LIB_WP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct hgm_wp;
struct hgm_region;

/* Returned by hgm_wp_ops.write: the writer waits until the wp owner releases it later. */
#define HGM_WP_WAITS 1

struct hgm_wp_ops {
	/*
	 * A thread writes to these pages, or they are about to be mapped unprotected. The pages are
	 * one unit of protection. When it returns 0, none of their wp bits is set any more.
	 * HGM_WP_WAITS: their wp bits stay set. -EAGAIN: try again later. Runs on fault threads
	 * and, before 6.4, on threads that install pages, inside an SRCU section of the region.
	 */
	int (*write)(struct hgm_wp *g, struct hgm_region *r, uint64_t page, uint64_t pages);
	/*
	 * Memory of these pages was dropped, or is about to be: their contents are zeroes. May run
	 * on the thread that has read the event, so it must not take a lock or wait. NULL: the
	 * wp owner does not need to know.
	 */
	void (*removed)(struct hgm_wp *g, struct hgm_region *r, uint64_t page, uint64_t pages);
	/*
	 * These pages of a word of the map were punched out of the region's file by others, at an
	 * unknown time before the pages arrived. The rules of removed() apply.
	 */
	void (*holes)(struct hgm_wp *g, struct hgm_region *r, uint64_t word, uint64_t bits);
	/*
	 * The region is being destroyed. A wp owner is of one of two kinds. Either it is counted
	 * by references: leave() ends it, and free() frees it. Or it pins the region until it has
	 * ended: hurry() makes it end soon, and runs under the table's lock.
	 */
	void (*leave)(struct hgm_wp *g, struct hgm_region *r);
	void (*free)(struct hgm_wp *g);
	void (*hurry)(struct hgm_wp *g);
};

/* The wp owner. It is part of a snapshot, of dirty tracking, or of a caller's watch. */
struct hgm_wp {
	const struct hgm_wp_ops *ops;
	const char *name; /* for messages */
	_Atomic unsigned int refs;
};

/*
 * May pages of this region be protected so that threads that write to them wait for a fault thread?
 * -EPERM with text: this engine does not serve faults of the kernel. Asynchronous dirty tracking
 * needs no fault threads.
 */
int hgm_wp_check_faults(const struct hgm_region *r, const char *name);

/*
 * Make @g the wp owner of a region. No wp bit is set, nothing is registered and no block is held
 * back yet. Blocks for a grace period. -EBUSY: the region has a wp owner already. -ECANCELED: the
 * region is being destroyed.
 */
int hgm_wp_begin(struct hgm_region *r, struct hgm_wp *g, void *user);

/*
 * End the write-protection. Afterwards the region has no wp owner, no wp bit is set, and no thread
 * waits. Blocks for a grace period.
 */
void hgm_wp_end(struct hgm_region *r);

/* The region's wp owner with a reference, if @ops is its table of functions, else NULL. */
struct hgm_wp *hgm_wp_get(struct hgm_region *r, const struct hgm_wp_ops *ops);
void hgm_wp_put(struct hgm_wp *g);

/* The region is being destroyed. */
void hgm_wp_region_ends(struct hgm_region *r);

/*
 * A thread must look at the wp owner and the wp bits, and map or collapse accordingly, within one
 * SRCU section of the region. An SRCU section is also a read-side section of RCU. Pass the return
 * value of hgm_wp_read_lock() to hgm_wp_read_unlock().
 */
int hgm_wp_read_lock(struct hgm_region *r);
void hgm_wp_read_unlock(struct hgm_region *r, int in);

/*
 * Wait until all SRCU sections that were entered before have ended. Only the wp owner may call
 * this, one thread at a time.
 */
void hgm_wp_synchronize(struct hgm_region *r);

/* Hold blocks back from the collapser. hgm_wp_hold() waits for SRCU sections. */
void hgm_wp_hold(struct hgm_region *r, uint64_t block, uint64_t blocks);
void hgm_wp_unhold(struct hgm_region *r, uint64_t block);

/* How often hgm_wp_hold() was called so far. */
uint64_t hgm_wp_holds_count(const struct hgm_region *r);

/* No block of the region is registered for write-protection any more. */
void hgm_wp_forget_registered(struct hgm_region *r);

/* Register blocks for write-protection. They must be held back. */
int hgm_wp_register(struct hgm_region *r, uint64_t block, uint64_t blocks);

/*
 * Map a block again by pages. The block is held back. It was mapped huge, and has been
 * write-protected since.
 */
void hgm_wp_map_again(struct hgm_region *r, uint64_t block);

/*
 * Set the wp bits of pages and write-protect the pages. They are whole units, in blocks that are
 * registered. A thread that writes to them may continue unseen until this returns. -errno: the wp
 * bits are set, and some of the pages may be write-protected. Waits for SRCU sections.
 */
int hgm_wp_protect(struct hgm_region *r, uint64_t page, uint64_t pages);

/* Clear the wp bits of pages. Does not unprotect the pages. */
void hgm_wp_clear_pages(struct hgm_region *r, uint64_t page, uint64_t pages);

/*
 * Unprotect pages whose wp bits are clear, and wake the threads that wait to write to them. Only
 * blocks that may hold write-protected pages (hgm_wp_may_protect()) are touched.
 */
void hgm_wp_unprotect(struct hgm_region *r, uint64_t page, uint64_t pages);

/* UFFDIO_WRITEPROTECT of whole units. -errno with text. */
int hgm_wp_ioctl(struct hgm_region *r, uint64_t page, uint64_t pages, uint64_t mode);

/*
 * From here until hgm_wp_arm(), everything that is installed is write-protected. Faults that cannot
 * be served in this way wait, so keep it short. hgm_wp_synchronize() must be called before
 * hgm_wp_arm(). hgm_wp_arm() calls hgm_wp_resume() at its end.
 */
void hgm_wp_quiesce(struct hgm_region *r);
void hgm_wp_resume(struct hgm_region *r);

/*
 * Set the wp bits of the pages that are present, and write-protect the region. *armed becomes a
 * bitmap of the present pages. *discarded becomes a bitmap of the pages that are not present, but
 * zero, and are still owned. Only UFFDIO_WRITEPROTECT takes time here. -errno: hgm_wp_end() must
 * follow.
 */
int hgm_wp_arm(struct hgm_region *r, uint64_t *armed, uint64_t *discarded);

/*
 * The region's wp owner, or NULL. An SRCU section or a reference keeps it from being freed.
 * hgm_wp_user() returns the wp owner's data for this region. hgm_wp_become() sets both.
 */
struct hgm_wp *hgm_wp_of(const struct hgm_region *r);
void *hgm_wp_user(const struct hgm_region *r);
void hgm_wp_become(struct hgm_region *r, struct hgm_wp *g, void *user);

/* The bitmap of wp bits, by words. */
uint64_t hgm_wp_word(const struct hgm_region *r, uint64_t word);
void hgm_wp_set(struct hgm_region *r, uint64_t word, uint64_t bits);
void hgm_wp_clear(struct hgm_region *r, uint64_t word, uint64_t bits);

/* Is the wp bit of any of these pages set? */
bool hgm_wp_any(const struct hgm_region *r, uint64_t page, uint64_t pages);

/*
 * Unprotect the units of these pages, and wake the threads that wait to write to them. The wp bits
 * of the pages are clear, unless the pages become poison (poison.c).
 */
int hgm_wp_release(struct hgm_region *r, uint64_t page, uint64_t pages);

/* The wp owner needs no page of a block any more: the block may become huge again. */
void hgm_wp_release_block(struct hgm_region *r, uint64_t block);

/* Handle a write fault. -EAGAIN and other errors: try again later. */
int hgm_wp_fault(struct hgm_region *r, uint64_t page);

/* A page is about to be written to: get its wp bit cleared. 0, HGM_WP_WAITS, or -EAGAIN. */
int hgm_wp_write(struct hgm_region *r, uint64_t page);

/* Call the wp owner's member of struct hgm_wp_ops, if there is one. */
void hgm_wp_removed(struct hgm_region *r, uint64_t page, uint64_t pages);
void hgm_wp_holes(struct hgm_region *r, uint64_t word, uint64_t bits);

/*
 * 0: a page may be mapped writable now. -EAGAIN: not now. Call it in the SRCU section that maps the
 * page.
 */
int hgm_wp_lift(struct hgm_region *r, uint64_t page);

/*
 * How to install pages, at most @pages from @page on: returns how many of them can be installed
 * alike, and sets *protect to whether they must be write-protected. @able: the kernel can install
 * write-protected pages. 0: not now. Call it in the SRCU section that installs the pages.
 */
uint64_t hgm_wp_run(struct hgm_region *r, uint64_t page, uint64_t pages, bool able, bool *protect);

/* Is a block held back from the collapser? Call it in the SRCU section that collapses the block. */
bool hgm_wp_holds(const struct hgm_region *r, uint64_t block);

/* Before a full block is collapsed: end the part of its registration that prevents the collapse. */
int hgm_wp_unregister_block(struct hgm_region *r, uint64_t block);

/* May a block hold write-protected pages? */
bool hgm_wp_may_protect(const struct hgm_region *r, uint64_t block);

/* Allocate the bitmaps, once. -ENOMEM with text. */
int hgm_wp_make(struct hgm_region *r);
void hgm_wp_free(struct hgm_region *r);

#endif
