/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write-protection of a region: the object that is told of writes, and the pages that it guards.
 */
#ifndef HGM_LIB_GUARD_H
#define HGM_LIB_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct hgm_guard;
struct hgm_region;

/* For a write: the writer waits until the guard releases it later. */
#define HGM_GUARD_WAITS 1

struct hgm_guard_ops {
	/*
	 * A thread writes to these pages, or they are about to be mapped unprotected. The pages are
	 * one unit of protection. When it returns 0, none of them is guarded any more.
	 * HGM_GUARD_WAITS: they stay guarded. -EAGAIN: try again later. Runs on fault threads,
	 * inside a section of the region.
	 */
	int (*write)(struct hgm_guard *g, struct hgm_region *r, uint64_t page, uint64_t pages);
	/*
	 * Memory of these pages was dropped, or is about to be: their contents are zeroes. May run
	 * on the thread that has read the event, so it must not take a lock or wait. NULL: the
	 * guard does not need to know.
	 */
	void (*removed)(struct hgm_guard *g, struct hgm_region *r, uint64_t page, uint64_t pages);
	/*
	 * These pages of a word of the map were punched out of the region's file by others, at an
	 * unknown time before the pages arrived. The rules of removed() apply.
	 */
	void (*holes)(struct hgm_guard *g, struct hgm_region *r, uint64_t word, uint64_t bits);
	/*
	 * The region is being destroyed. A guard is of one of two kinds. Either it is counted by
	 * references: leave() ends it, and free() frees it. Or it holds the region until it has
	 * ended: hurry() makes it end soon, and runs under the table's lock.
	 */
	void (*leave)(struct hgm_guard *g, struct hgm_region *r);
	void (*free)(struct hgm_guard *g);
	void (*hurry)(struct hgm_guard *g);
};

/* Part of the object that guards: a snapshot, dirty tracking, a caller's watch. */
struct hgm_guard {
	const struct hgm_guard_ops *ops;
	const char *name; /* for messages */
	_Atomic unsigned int refs;
};

/*
 * May pages of this region be protected so that threads that write to them wait for a fault thread?
 * -EPERM with text: this engine does not serve faults of the kernel. Asynchronous dirty tracking
 * needs no fault threads.
 */
int hgm_guard_check_faults(const struct hgm_region *r, const char *name);

/*
 * Begin to guard a region. Nothing is guarded, registered or held back yet. Blocks for a grace
 * period. -EBUSY: the region has a guard already. -ECANCELED: it is being destroyed.
 */
int hgm_guard_begin(struct hgm_region *r, struct hgm_guard *g, void *user);

/* End guarding: afterwards nothing is guarded, and no thread waits. Blocks for a grace period. */
void hgm_guard_end(struct hgm_region *r);

/* The region's guard with a reference, if it is of that kind, else NULL. */
struct hgm_guard *hgm_guard_get(struct hgm_region *r, const struct hgm_guard_ops *ops);
void hgm_guard_put(struct hgm_guard *g);

/* The region is being destroyed. */
void hgm_guard_leave(struct hgm_region *r);

/*
 * A thread must look at the guard, and map or collapse accordingly, within one section of the
 * region. A section is a read-side section of RCU, too. Pass the return value of hgm_guard_enter()
 * to hgm_guard_exit().
 */
int hgm_guard_enter(struct hgm_region *r);
void hgm_guard_exit(struct hgm_region *r, int in);

/*
 * Wait until all sections that were entered before have ended. Only the guard may call this, one
 * thread at a time.
 */
void hgm_guard_wait(struct hgm_region *r);

/* Keep the collapser away from blocks. Waits for sections. */
void hgm_guard_hold(struct hgm_region *r, uint64_t block, uint64_t blocks);
void hgm_guard_unhold(struct hgm_region *r, uint64_t block);

/* How often blocks were held so far. */
uint64_t hgm_guard_holds_count(const struct hgm_region *r);

/* No block of the region is registered for write-protection any more. */
void hgm_guard_forget_registered(struct hgm_region *r);

/* Register blocks for write-protection. They must be held. */
int hgm_guard_register(struct hgm_region *r, uint64_t block, uint64_t blocks);

/* Map a block again by pages. It is held, was mapped huge, and has been protected since. */
void hgm_guard_map_again(struct hgm_region *r, uint64_t block);

/*
 * Guard pages: whole units, in blocks that are registered. A thread that writes to them may
 * continue unseen until this returns. -errno: some of them may be guarded. Waits for sections.
 */
int hgm_guard_pages(struct hgm_region *r, uint64_t page, uint64_t pages);

/* Stop guarding pages. Does not unprotect them. */
void hgm_guard_allow(struct hgm_region *r, uint64_t page, uint64_t pages);

/* Unprotect pages that are no longer guarded, and wake the threads that wait to write to them. */
void hgm_guard_unprotect(struct hgm_region *r, uint64_t page, uint64_t pages);

/* UFFDIO_WRITEPROTECT of whole units. -errno with text. */
int hgm_guard_writeprotect(struct hgm_region *r, uint64_t page, uint64_t pages, uint64_t mode);

/*
 * From here until hgm_guard_arm(), everything that is installed is protected. Faults that cannot be
 * served in this way wait, so keep it short. hgm_guard_wait() must be called before
 * hgm_guard_arm().
 */
void hgm_guard_hush(struct hgm_region *r);
void hgm_guard_unhush(struct hgm_region *r);

/*
 * Guard the pages that are present. *armed becomes a bitmap of them. *discarded becomes a bitmap of
 * the pages that are not present, but zero, and are still owned. Only UFFDIO_WRITEPROTECT takes
 * time here. -errno: hgm_guard_end() must follow.
 */
int hgm_guard_arm(struct hgm_region *r, uint64_t *armed, uint64_t *discarded);

/* The region's guard, which a section or a reference keeps, or NULL; and the guard's data. */
struct hgm_guard *hgm_guard_of(const struct hgm_region *r);
void *hgm_guard_user(const struct hgm_region *r);
void hgm_guard_become(struct hgm_region *r, struct hgm_guard *g, void *user);

/* The bitmap of guarded pages, by words. */
uint64_t hgm_guard_word(const struct hgm_region *r, uint64_t word);
void hgm_guard_set(struct hgm_region *r, uint64_t word, uint64_t bits);
void hgm_guard_clear(struct hgm_region *r, uint64_t word, uint64_t bits);

/* Is any of these pages guarded? */
bool hgm_guard_any(const struct hgm_region *r, uint64_t page, uint64_t pages);

/* Unprotect pages that are not guarded, and wake the threads that wait to write to them. */
int hgm_guard_release(struct hgm_region *r, uint64_t page, uint64_t pages);

/* The guard needs no page of a block any more: the block may become huge again. */
void hgm_guard_block_out(struct hgm_region *r, uint64_t block);

/* Handle a write fault. -EAGAIN and other errors: try again later. */
int hgm_guard_fault(struct hgm_region *r, uint64_t page);

/* A page is about to be written to: make it unguarded. 0, HGM_GUARD_WAITS, or -EAGAIN. */
int hgm_guard_write(struct hgm_region *r, uint64_t page);

/* Call the guard's member of struct hgm_guard_ops, if there is one. */
void hgm_guard_removed(struct hgm_region *r, uint64_t page, uint64_t pages);
void hgm_guard_holes(struct hgm_region *r, uint64_t word, uint64_t bits);

/*
 * 0: a page may be mapped writable now. -EAGAIN: not now. Call it in the section that maps the
 * page.
 */
int hgm_guard_lift(struct hgm_region *r, uint64_t page);

/*
 * How to install pages, at most @pages from @page on: returns how many of them can be installed
 * alike, and sets *protect to whether they must be protected. @able: the kernel can install
 * protected pages. 0: not now. Call it in the section that installs the pages.
 */
uint64_t hgm_guard_run(struct hgm_region *r, uint64_t page, uint64_t pages, bool able,
		       bool *protect);

/* Must the collapser leave a block alone? Call it in the section that collapses the block. */
bool hgm_guard_holds(const struct hgm_region *r, uint64_t block);

/* Before a full block is collapsed: end the part of its registration that prevents the collapse. */
int hgm_guard_unregister_block(struct hgm_region *r, uint64_t block);

/* May a block hold protected pages? */
bool hgm_guard_may_protect(const struct hgm_region *r, uint64_t block);

/* Allocate the bitmaps, once. -ENOMEM with text. */
int hgm_guard_make(struct hgm_region *r);
void hgm_guard_free(struct hgm_region *r);

#endif
