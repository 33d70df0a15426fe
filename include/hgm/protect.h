/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/protect.h - be asked before the guest writes to some of its memory
 *
 *	hgm_region_watch(r, &(struct hgm_watch_opts){
 *		.size = sizeof(struct hgm_watch_opts), .write = on_write });
 *	hgm_region_protect(r, offset, length, HGM_PROTECT_ROUND, &what);
 *	...
 *	hgm_region_unwatch(r);
 *
 * Protection holds whatever becomes of the memory: pages that have not arrived yet arrive
 * protected, what the kernel unmaps is mapped again protected, and blocks with protected pages are
 * collapsed after their protection has ended. hgm/snapshot.h and hgm/dirty.h are made of the same;
 * a region is under one of the three at a time.
 *
 * Only writes by way of the region's own mapping are seen.
 */
#ifndef HGM_PROTECT_H
#define HGM_PROTECT_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

struct hgm_region;

/**
 * struct hgm_span - a part of a region
 * @offset: bytes from the region's start
 * @length: bytes
 */
struct hgm_span {
	uint64_t offset;
	uint64_t length;
};

/**
 * enum hgm_write_verdict - what becomes of a write to protected memory
 * @HGM_WRITE_ALLOW: the unit that is written to is protected no more, the writer goes on
 * @HGM_WRITE_WAIT:  the writer waits until hgm_region_unprotect() or hgm_region_unwatch()
 */
enum hgm_write_verdict {
	HGM_WRITE_ALLOW = 0,
	HGM_WRITE_WAIT = 1,
};

/**
 * hgm_write_fn - somebody wants to write to protected memory
 * @user: as in the options
 * @r:    the region
 * @what: the unit of protection that is written to
 *
 * Called on a fault thread; other fault threads may call it at the same time. It must not block,
 * nor touch a region's memory, nor call libhgm. Of one write it may be asked more than once, also
 * after it said HGM_WRITE_WAIT. Before 6.4 it is asked of arrivals, too (struct hgm_region_info,
 * @protect_bytes).
 *
 * Return: enum hgm_write_verdict; anything else is taken for HGM_WRITE_WAIT.
 */
typedef enum hgm_write_verdict (*hgm_write_fn)(void *user, struct hgm_region *r,
					       const struct hgm_span *what);

/**
 * struct hgm_watch_opts - who is asked
 * @size:    sizeof(struct hgm_watch_opts)
 * @write:   who is asked; NULL: @verdict is the answer always
 * @user:    handed to @write
 * @verdict: enum hgm_write_verdict, where @write is NULL
 */
struct hgm_watch_opts {
	size_t size;
	hgm_write_fn write;
	void *user;
	uint32_t verdict;
	uint32_t reserved;
};

/* Protect whole units around a range that is finer; without it such a range is refused. */
#define HGM_PROTECT_ROUND 0x1u

/**
 * hgm_region_watch - make ready to protect parts of a region
 * @r:    the region
 * @opts: NULL for HGM_WRITE_ALLOW always
 *
 * Nothing is protected yet, and nothing is kept from becoming huge.
 *
 * Errors: -EINVAL @r is NULL, an unknown verdict; -E2BIG bad options; -EBUSY the region is under a
 * watch, a snapshot or dirty tracking already; -EDEADLK called from inside hgm_write_fn (nothing
 * was done); -EOPNOTSUPP the kernel cannot protect that memory (anonymous memory before 5.7, others
 * before 5.19); -ENOMEM; -ECANCELED the region is being destroyed; others as opening /proc/self/mem
 * says.
 * Calling thread: any but hgm_write_fn. Blocks for what all regions of the process have under way,
 * 10 ms and more. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_watch(struct hgm_region *r, const struct hgm_watch_opts *opts);

/**
 * hgm_region_protect - be asked before a range is written to
 * @r:      the region, under a watch
 * @offset: bytes from the region's start; a multiple of the unit of protection
 * @length: bytes; a multiple of the unit, or up to the region's end
 * @flags:  HGM_PROTECT_ROUND
 * @what:   NULL, or filled in: what is protected now
 *
 * Writers that have begun before it returns may go on unseen until then. What is protected already
 * stays so. Memory that is mapped huge is split: its pages are mapped again as they are touched.
 * The unit is @protect_bytes of hgm_region_get_info().
 *
 * Errors: -EINVAL the range is empty, not inside the region, or no multiple of the unit, an unknown
 * flag, the region is not under a watch; -EDEADLK called from inside hgm_write_fn (nothing was
 * done); -ECANCELED the region is being destroyed; others as UFFDIO_REGISTER and
 * UFFDIO_WRITEPROTECT say (nothing of the range is protected then, of what was before neither).
 * Calling thread: any but hgm_write_fn. Blocks: 6 to 16 us per 2 MiB, and for the installations,
 * collapses and calls of hgm_write_fn of this region that are under way. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_protect(struct hgm_region *r, uint64_t offset, uint64_t length,
				  uint32_t flags, struct hgm_span *what);

/**
 * hgm_region_unprotect - let a range be written to
 * @r:      the region, under a watch
 * @offset: bytes from the region's start; a multiple of the unit of protection
 * @length: bytes; a multiple of the unit, or up to the region's end
 * @flags:  HGM_PROTECT_ROUND
 * @what:   NULL, or filled in: what is not protected now
 *
 * Who waits to write goes on. Blocks in which nothing is protected any more become huge again.
 *
 * Errors: -EINVAL, -EDEADLK as hgm_region_protect(); -ECANCELED the region is being destroyed.
 * Calling thread: any but hgm_write_fn. Blocks for other calls of these functions. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_unprotect(struct hgm_region *r, uint64_t offset, uint64_t length,
				    uint32_t flags, struct hgm_span *what);

/**
 * hgm_region_unwatch - end a watch
 * @r: the region
 *
 * Nothing is protected afterwards, who waits to write goes on, and hgm_write_fn is not called any
 * more when it returns. hgm_region_destroy() does it, too: who waits to write then goes on, or gets
 * SIGSEGV as told there.
 *
 * Errors: -EINVAL @r is NULL or not under a watch; -EDEADLK called from inside hgm_write_fn (the
 * watch goes on).
 * Calling thread: any but hgm_write_fn. Blocks until hgm_write_fn has returned. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_unwatch(struct hgm_region *r);

HGM_END_DECLS

#endif /* HGM_PROTECT_H */
