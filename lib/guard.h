/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write-protection of a region: who wants to know of writes, and to which pages.
 */
#ifndef HGM_LIB_GUARD_H
#define HGM_LIB_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct hgm_guard;
struct hgm_region;

/* Of a write: somebody else will let the writer go. */
#define HGM_GUARD_WAITS 1

struct hgm_guard_ops {
	/*
	 * Somebody writes to these pages, all of one unit of protection, or they are to be mapped
	 * unprotected: when it returns 0 none of them is guarded any more. HGM_GUARD_WAITS: they
	 * stay so; -EAGAIN: not now. Runs on fault threads, inside a section of the region.
	 */
	int (*write)(struct hgm_guard *g, struct hgm_region *r, uint64_t page, uint64_t pages);
	/*
	 * The region is being destroyed. Either the guard is counted by references: leave() ends
	 * it, free() frees it. Or it holds the region until it has ended: hurry() has it end soon,
	 * and runs under the table's lock.
	 */
	void (*leave)(struct hgm_guard *g, struct hgm_region *r);
	void (*free)(struct hgm_guard *g);
	void (*hurry)(struct hgm_guard *g);
};

/* Part of the object that guards: a snapshot, dirty tracking, a caller's watch. */
struct hgm_guard {
	const struct hgm_guard_ops *ops;
	const char *name; /* for people */
	_Atomic unsigned int refs;
};

/*
 * Take a region: nothing is guarded, registered or held back yet. Blocks for a grace period.
 * -EBUSY: somebody else guards it; -ECANCELED: it is being destroyed.
 */
int hgm_guard_begin(struct hgm_region *r, struct hgm_guard *g, void *user);

/* Give it back: nothing is guarded, nobody waits. Blocks for a grace period. */
void hgm_guard_end(struct hgm_region *r);

/* Who guards the region, if it is of that kind, held; NULL: nobody. */
struct hgm_guard *hgm_guard_get(struct hgm_region *r, const struct hgm_guard_ops *ops);
void hgm_guard_put(struct hgm_guard *g);

/* The region is being destroyed. */
void hgm_guard_leave(struct hgm_region *r);

/*
 * Looking at the guard and mapping or collapsing by it is one section of the region; a read-side
 * section, too. What hgm_guard_enter() returns is for hgm_guard_exit().
 */
int hgm_guard_enter(struct hgm_region *r);
void hgm_guard_exit(struct hgm_region *r, int in);

/* Wait until all sections that were entered before have ended. Who guards, one at a time. */
void hgm_guard_wait(struct hgm_region *r);

/* Keep blocks from the collapser. Waits for sections. */
void hgm_guard_hold(struct hgm_region *r, uint64_t block, uint64_t blocks);

/* Register blocks that are held for write-protection. */
int hgm_guard_register(struct hgm_region *r, uint64_t block, uint64_t blocks);

/* Of a block that is held, mapped huge and protected since: map it again, by pages. */
void hgm_guard_map_again(struct hgm_region *r, uint64_t block);

/*
 * Guard pages, whole units, of blocks that are registered. Who writes to them may go on unseen
 * until it returns. -errno: some may be guarded. Waits for sections.
 */
int hgm_guard_pages(struct hgm_region *r, uint64_t page, uint64_t pages);

/* Pages are guarded no more. */
void hgm_guard_allow(struct hgm_region *r, uint64_t page, uint64_t pages);

/* Unprotect what is not guarded any more, and wake who waits to write. */
void hgm_guard_unprotect(struct hgm_region *r, uint64_t page, uint64_t pages);

/* UFFDIO_WRITEPROTECT of whole units. -errno with text. */
int hgm_guard_writeprotect(struct hgm_region *r, uint64_t page, uint64_t pages, uint64_t mode);

/*
 * From here until hgm_guard_arm() all that is installed is protected, and faults that cannot be
 * served so wait: not for long. hgm_guard_wait() must follow before it.
 */
void hgm_guard_hush(struct hgm_region *r);

/*
 * Guard the pages that are present: *armed becomes a bitmap of them. Nothing but
 * UFFDIO_WRITEPROTECT takes time here. -errno: hgm_guard_end() must follow.
 */
int hgm_guard_arm(struct hgm_region *r, uint64_t *armed);

/* Is any of these pages guarded? */
bool hgm_guard_any(const struct hgm_region *r, uint64_t page, uint64_t pages);

/* Unprotect pages that are not guarded, and wake who waits to write. */
int hgm_guard_release(struct hgm_region *r, uint64_t page, uint64_t pages);

/* Nothing of a block is wanted any more: it may become huge again. */
void hgm_guard_block_out(struct hgm_region *r, uint64_t block);

/* A write fault; 0, or -EAGAIN and the like: later. */
int hgm_guard_fault(struct hgm_region *r, uint64_t page);

/* Somebody will write to a page: let it be unguarded. 0, HGM_GUARD_WAITS, or -EAGAIN. */
int hgm_guard_write(struct hgm_region *r, uint64_t page);

/* 0: a page may be mapped writable now; -EAGAIN: not now. Inside the same section as that. */
int hgm_guard_lift(struct hgm_region *r, uint64_t page);

/*
 * How to install pages, at most @pages from @page on: how many of them alike, and whether
 * protected, if the kernel is @able to install them so. 0: not now. Inside the same section as
 * the installation.
 */
uint64_t hgm_guard_run(struct hgm_region *r, uint64_t page, uint64_t pages, bool able,
		       bool *protect);

/* Collapse must leave a block alone. Inside the same section as the collapse. */
bool hgm_guard_holds(const struct hgm_region *r, uint64_t block);

/* Before a full block is collapsed: end what of its registration is in the way. */
int hgm_guard_unregister_block(struct hgm_region *r, uint64_t block);

/* Contents of a present page as they are, without ever causing a fault that we must serve. */
int hgm_guard_read(const struct hgm_region *r, uint64_t page, void *buf);

void hgm_guard_free(struct hgm_region *r);

#endif
