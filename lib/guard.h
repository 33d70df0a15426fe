/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write-protection of a region: who wants to know of writes, and to which pages.
 */
#ifndef HGM_LIB_GUARD_H
#define HGM_LIB_GUARD_H

#include <stdbool.h>
#include <stdint.h>

struct hgm_guard;
struct hgm_region;

struct hgm_guard_ops {
	/*
	 * Somebody writes to these pages, all of one unit of protection, or they are to be mapped
	 * unprotected: when it returns 0 none of them is guarded any more. -EAGAIN: not now. Runs
	 * on fault threads, inside a read-side section.
	 */
	int (*write)(struct hgm_guard *g, struct hgm_region *r, uint64_t page, uint64_t pages);
};

/* Part of the object that guards: a snapshot, dirty tracking, a caller's watch. */
struct hgm_guard {
	const struct hgm_guard_ops *ops;
	const char *name; /* for people */
};

/*
 * Take a region: registered for write-protection, nothing guarded yet. -EBUSY: somebody else guards
 * it. Blocks for a grace period.
 */
int hgm_guard_begin(struct hgm_region *r, struct hgm_guard *g, void *user);

/*
 * From here until hgm_guard_arm() all that is installed is protected, and faults that cannot be
 * served so wait: not for long. A grace period must follow before it.
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

/* Give a region back: nothing is guarded, nobody waits. Blocks for a grace period. */
void hgm_guard_end(struct hgm_region *r);

/* A write fault; 0, or -EAGAIN and the like: later. */
int hgm_guard_fault(struct hgm_region *r, uint64_t page);

/* A page is about to be mapped for somebody who will write to it: let it be unguarded. */
int hgm_guard_write(struct hgm_region *r, uint64_t page);

/* 0: a page may be mapped writable now; -EAGAIN: not now. Inside the same section as that. */
int hgm_guard_lift(struct hgm_region *r, uint64_t page);

/*
 * How to install pages, at most @pages from @page on: how many of them alike, and whether
 * protected. 0: not now. Inside the same read-side section as the installation.
 */
uint64_t hgm_guard_run(struct hgm_region *r, uint64_t page, uint64_t pages, bool *protect);

/* Collapse must leave a block alone. Inside the same read-side section as the collapse. */
bool hgm_guard_holds(const struct hgm_region *r, uint64_t block);

/* Before a full block is collapsed: end what of its registration is in the way. */
int hgm_guard_unregister_block(struct hgm_region *r, uint64_t block);

/* Contents of a present page as they are, without ever causing a fault that we must serve. */
int hgm_guard_read(const struct hgm_region *r, uint64_t page, void *buf);

void hgm_guard_free(struct hgm_region *r);

#endif
