/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/protect.h - ask the caller before the guest writes to some of its memory
 *
 *	hgm_region_watch(r, &(struct hgm_watch_opts){
 *		.size = sizeof(struct hgm_watch_opts), .write = on_write });
 *	hgm_region_protect(r, offset, length, HGM_PROTECT_ROUND, &what);
 *	...
 *	hgm_region_unwatch(r);
 *
 * Protection persists whatever happens to the memory. Pages that have not arrived yet arrive
 * protected. Pages that the kernel unmaps are protected when they are mapped again. Blocks with
 * protected pages are collapsed after their protection has ended. hgm/snapshot.h and hgm/dirty.h
 * use the same mechanism; a region is under only one of the three at a time.
 *
 * Only writes through the region's own mapping are seen.
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
 * enum hgm_write_verdict - what happens to a write to protected memory
 * @HGM_WRITE_ALLOW: the unit that is written to is no longer protected, and the writer continues
 * @HGM_WRITE_WAIT:  the writer waits for hgm_region_unprotect() or hgm_region_unwatch()
 */
enum hgm_write_verdict {
	HGM_WRITE_ALLOW = 0,
	HGM_WRITE_WAIT = 1,
};

/**
 * hgm_write_fn - decide about a write to protected memory
 * @user: as in the options
 * @r:    the region
 * @what: the unit of protection that is written to
 *
 * Several fault threads may call the function at the same time. It must not block, must not touch
 * memory of a region, and must not call libhgm. It may be called more than once for one write, even
 * after it returned HGM_WRITE_WAIT. Before 6.4, it is also called for pages that arrive (struct
 * hgm_region_info, @protect_bytes), on the thread that installs them: a fault thread, a worker, or
 * the caller's inside hgm_io_done() or hgm_region_put().
 *
 * Return: enum hgm_write_verdict; any other value counts as HGM_WRITE_WAIT.
 */
typedef enum hgm_write_verdict (*hgm_write_fn)(void *user, struct hgm_region *r,
					       const struct hgm_span *what);

/**
 * struct hgm_watch_opts - options of a watch
 * @size:    sizeof(struct hgm_watch_opts)
 * @write:   the function that is asked; if it is NULL, the answer is always @verdict
 * @user:    passed to @write
 * @verdict: enum hgm_write_verdict, the answer if @write is NULL
 */
struct hgm_watch_opts {
	size_t size;
	hgm_write_fn write;
	void *user;
	uint32_t verdict;
	uint32_t reserved;
};

/* Extend a range to whole units. Without this flag, a range that is finer is rejected. */
#define HGM_PROTECT_ROUND 0x1u

/**
 * hgm_region_watch - make a region ready for the protection of parts of it
 * @r:    the region
 * @opts: NULL for HGM_WRITE_ALLOW always
 *
 * This call itself protects nothing, and does not keep any memory from becoming huge.
 *
 * Errors: -EINVAL @r is NULL, or the verdict is unknown; -E2BIG bad options; -EBUSY the region is
 * already under a watch, a snapshot or dirty tracking; -EDEADLK called from hgm_write_fn (nothing
 * was done); -EOPNOTSUPP the kernel cannot protect this memory (anonymous memory before 5.7, other
 * memory before 5.19), or another process, whose memory it is, has WP_ASYNC or WP_UNPOPULATED in
 * its userfaultfd; -EPERM the engine's userfaultfd serves faults of user mode only
 * (HGM_ALLOW_USER_MODE_ONLY), so system calls and KVM could not write to protected memory; -ENOMEM;
 * -ECANCELED the region is being destroyed.
 * Calling thread: any but hgm_write_fn. Blocks for what all regions of the process have under way,
 * 10 ms and more. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_watch(struct hgm_region *r, const struct hgm_watch_opts *opts);

/**
 * hgm_region_protect - protect a range: the caller is asked before it is written to
 * @r:      the region, under a watch
 * @offset: bytes from the region's start; a multiple of the unit of protection
 * @length: bytes; a multiple of the unit, or up to the region's end
 * @flags:  HGM_PROTECT_ROUND
 * @what:   NULL, or filled in: the range that is now protected
 *
 * A thread that begins to write before this call returns may write unnoticed until it returns.
 * Memory that is already protected stays protected. Memory that is mapped huge is split, and its
 * pages are mapped again when they are touched. The unit is @protect_bytes of
 * hgm_region_get_info().
 *
 * Errors: -EINVAL the range is empty, not inside the region, or not a multiple of the unit, a flag
 * is unknown, or the region is not under a watch; -EDEADLK called from hgm_write_fn (nothing was
 * done); -ECANCELED the region is being destroyed; others as UFFDIO_REGISTER and
 * UFFDIO_WRITEPROTECT say (nothing in the range is protected then, not even memory that was
 * protected before the call).
 * Calling thread: any but hgm_write_fn. Blocks: 6 to 16 us per 2 MiB, and for the installations,
 * collapses and calls of hgm_write_fn of this region that are under way. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_protect(struct hgm_region *r, uint64_t offset, uint64_t length,
				  uint32_t flags, struct hgm_span *what);

/**
 * hgm_region_unprotect - end the protection of a range
 * @r:      the region, under a watch
 * @offset: bytes from the region's start; a multiple of the unit of protection
 * @length: bytes; a multiple of the unit, or up to the region's end
 * @flags:  HGM_PROTECT_ROUND
 * @what:   NULL, or filled in: the range that is no longer protected
 *
 * Threads that wait to write to the range continue. Blocks in which nothing is protected any more
 * become huge again.
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
 * When the call returns, nothing in the region is protected, threads that waited to write continue,
 * and hgm_write_fn is not called any more. hgm_region_destroy() ends a watch, too: threads that
 * wait to write then continue, or get SIGSEGV, as described there.
 *
 * Errors: -EINVAL @r is NULL or not under a watch; -EDEADLK called from hgm_write_fn (the watch
 * continues).
 * Calling thread: any but hgm_write_fn. Blocks until hgm_write_fn has returned. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_unwatch(struct hgm_region *r);

/**
 * hgm_region_before_write - prepare a range for a write that bypasses write-protection
 * @r:      the region
 * @offset: first byte, from the region's start; a multiple of 4096
 * @length: bytes; a multiple of 4096
 *
 * Devices and system calls that pin pages (read(2) with O_DIRECT, process_vm_writev(2), fixed
 * buffers of io_uring, vfio, RDMA) write to them without being subject to write-protection again.
 * Call this function before such a write. It has the effect of a write by the guest: a snapshot
 * saves the contents of the range that it still needs, and a watch is asked. If nothing in the
 * range is protected, the call does nothing. For dirty tracking, call hgm_dirty_mark() after the
 * write instead.
 *
 * Errors: -EINVAL @r is NULL, or the range is not aligned or not inside the region; -EBUSY a watch
 * makes writes to some of the pages wait; -EDEADLK called from a callback of the engine.
 * Calling thread: any but the library's own and hgm_read_fn. Blocks while a snapshot has no room
 * for old contents. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_before_write(struct hgm_region *r, uint64_t offset, uint64_t length);

HGM_END_DECLS

#endif /* HGM_PROTECT_H */
