/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write-protection of a region: the object that is told of writes, and the pages that it guards.
 */
#ifndef HGM_LIB_WP_H
#define HGM_LIB_WP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct hgm_wp;
struct hgm_region;

/* For a write: the writer waits until the guard releases it later. */
#define HGM_WP_WAITS 1

struct hgm_wp_ops {
	/*
	 * A thread writes to these pages, or they are about to be mapped unprotected. The pages are
	 * one unit of protection. When it returns 0, none of them is guarded any more.
	 * HGM_WP_WAITS: they stay guarded. -EAGAIN: try again later. Runs on fault threads,
	 * inside a section of the region.
	 */
	int (*write)(struct hgm_wp *g, struct hgm_region *r, uint64_t page, uint64_t pages);
	/*
	 * Memory of these pages was dropped, or is about to be: their contents are zeroes. May run
	 * on the thread that has read the event, so it must not take a lock or wait. NULL: the
	 * guard does not need to know.
	 */
	void (*removed)(struct hgm_wp *g, struct hgm_region *r, uint64_t page, uint64_t pages);
	/*
	 * These pages of a word of the map were punched out of the region's file by others, at an
	 * unknown time before the pages arrived. The rules of removed() apply.
	 */
	void (*holes)(struct hgm_wp *g, struct hgm_region *r, uint64_t word, uint64_t bits);
	/*
	 * The region is being destroyed. A guard is of one of two kinds. Either it is counted by
	 * references: leave() ends it, and free() frees it. Or it holds the region until it has
	 * ended: hurry() makes it end soon, and runs under the table's lock.
	 */
	void (*leave)(struct hgm_wp *g, struct hgm_region *r);
	void (*free)(struct hgm_wp *g);
	void (*hurry)(struct hgm_wp *g);
};

/* Part of the object that guards: a snapshot, dirty tracking, a caller's watch. */
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
 * Begin to guard a region. Nothing is guarded, registered or held back yet. Blocks for a grace
 * period. -EBUSY: the region has a guard already. -ECANCELED: it is being destroyed.
 */
int hgm_wp_begin(struct hgm_region *r, struct hgm_wp *g, void *user);

/* End guarding: afterwards nothing is guarded, and no thread waits. Blocks for a grace period. */
void hgm_wp_end(struct hgm_region *r);

/* The region's guard with a reference, if it is of that kind, else NULL. */
struct hgm_wp *hgm_wp_get(struct hgm_region *r, const struct hgm_wp_ops *ops);
void hgm_wp_put(struct hgm_wp *g);

/* The region is being destroyed. */
void hgm_wp_region_ends(struct hgm_region *r);

/*
 * A thread must look at the guard, and map or collapse accordingly, within one section of the
 * region. A section is a read-side section of RCU, too. Pass the return value of hgm_wp_read_lock()
 * to hgm_wp_read_unlock().
 */
int hgm_wp_read_lock(struct hgm_region *r);
void hgm_wp_read_unlock(struct hgm_region *r, int in);

/*
 * Wait until all sections that were entered before have ended. Only the guard may call this, one
 * thread at a time.
 */
void hgm_wp_synchronize(struct hgm_region *r);

/* Keep the collapser away from blocks. Waits for sections. */
void hgm_wp_hold(struct hgm_region *r, uint64_t block, uint64_t blocks);
void hgm_wp_unhold(struct hgm_region *r, uint64_t block);

/* How often blocks were held so far. */
uint64_t hgm_wp_holds_count(const struct hgm_region *r);

/* No block of the region is registered for write-protection any more. */
void hgm_wp_forget_registered(struct hgm_region *r);

/* Register blocks for write-protection. They must be held. */
int hgm_wp_register(struct hgm_region *r, uint64_t block, uint64_t blocks);

/* Map a block again by pages. It is held, was mapped huge, and has been protected since. */
void hgm_wp_map_again(struct hgm_region *r, uint64_t block);

/*
 * Guard pages: whole units, in blocks that are registered. A thread that writes to them may
 * continue unseen until this returns. -errno: some of them may be guarded. Waits for sections.
 */
int hgm_wp_protect(struct hgm_region *r, uint64_t page, uint64_t pages);

/* Stop guarding pages. Does not unprotect them. */
void hgm_wp_clear_pages(struct hgm_region *r, uint64_t page, uint64_t pages);

/* Unprotect pages that are no longer guarded, and wake the threads that wait to write to them. */
void hgm_wp_unprotect(struct hgm_region *r, uint64_t page, uint64_t pages);

/* UFFDIO_WRITEPROTECT of whole units. -errno with text. */
int hgm_wp_ioctl(struct hgm_region *r, uint64_t page, uint64_t pages, uint64_t mode);

/*
 * From here until hgm_wp_arm(), everything that is installed is protected. Faults that cannot be
 * served in this way wait, so keep it short. hgm_wp_synchronize() must be called before
 * hgm_wp_arm().
 */
void hgm_wp_quiesce(struct hgm_region *r);
void hgm_wp_resume(struct hgm_region *r);

/*
 * Guard the pages that are present. *armed becomes a bitmap of them. *discarded becomes a bitmap of
 * the pages that are not present, but zero, and are still owned. Only UFFDIO_WRITEPROTECT takes
 * time here. -errno: hgm_wp_end() must follow.
 */
int hgm_wp_arm(struct hgm_region *r, uint64_t *armed, uint64_t *discarded);

/* The region's guard, which a section or a reference keeps, or NULL; and the guard's data. */
struct hgm_wp *hgm_wp_of(const struct hgm_region *r);
void *hgm_wp_user(const struct hgm_region *r);
void hgm_wp_become(struct hgm_region *r, struct hgm_wp *g, void *user);

/* The bitmap of guarded pages, by words. */
uint64_t hgm_wp_word(const struct hgm_region *r, uint64_t word);
void hgm_wp_set(struct hgm_region *r, uint64_t word, uint64_t bits);
void hgm_wp_clear(struct hgm_region *r, uint64_t word, uint64_t bits);

/* Is any of these pages guarded? */
bool hgm_wp_any(const struct hgm_region *r, uint64_t page, uint64_t pages);

/* Unprotect pages that are not guarded, and wake the threads that wait to write to them. */
int hgm_wp_release(struct hgm_region *r, uint64_t page, uint64_t pages);

/* The guard needs no page of a block any more: the block may become huge again. */
void hgm_wp_release_block(struct hgm_region *r, uint64_t block);

/* Handle a write fault. -EAGAIN and other errors: try again later. */
int hgm_wp_fault(struct hgm_region *r, uint64_t page);

/* A page is about to be written to: make it unguarded. 0, HGM_WP_WAITS, or -EAGAIN. */
int hgm_wp_write(struct hgm_region *r, uint64_t page);

/* Call the guard's member of struct hgm_wp_ops, if there is one. */
void hgm_wp_removed(struct hgm_region *r, uint64_t page, uint64_t pages);
void hgm_wp_holes(struct hgm_region *r, uint64_t word, uint64_t bits);

/*
 * 0: a page may be mapped writable now. -EAGAIN: not now. Call it in the section that maps the
 * page.
 */
int hgm_wp_lift(struct hgm_region *r, uint64_t page);

/*
 * How to install pages, at most @pages from @page on: returns how many of them can be installed
 * alike, and sets *protect to whether they must be protected. @able: the kernel can install
 * protected pages. 0: not now. Call it in the section that installs the pages.
 */
uint64_t hgm_wp_run(struct hgm_region *r, uint64_t page, uint64_t pages, bool able, bool *protect);

/* Must the collapser leave a block alone? Call it in the section that collapses the block. */
bool hgm_wp_holds(const struct hgm_region *r, uint64_t block);

/* Before a full block is collapsed: end the part of its registration that prevents the collapse. */
int hgm_wp_unregister_block(struct hgm_region *r, uint64_t block);

/* May a block hold protected pages? */
bool hgm_wp_may_protect(const struct hgm_region *r, uint64_t block);

/* Allocate the bitmaps, once. -ENOMEM with text. */
int hgm_wp_make(struct hgm_region *r);
void hgm_wp_free(struct hgm_region *r);

#endif
