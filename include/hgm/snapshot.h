/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/snapshot.h - all memory as it was at one instant, written out while the guest goes on
 *
 *	hgm_snapshot_create(&s, h, &opts);	the guest runs
 *	... pause the vCPUs ...
 *	hgm_snapshot_begin(s);			the instant: some milliseconds per GiB
 *	... resume them ...
 *	hgm_snapshot_wait(s, -1);
 *	hgm_snapshot_destroy(s);
 *
 * From the instant on pages are write-protected. A thread of the snapshot sweeps over them and
 * gives their contents to the sink. Who writes to a page that the sweep has not reached waits until
 * its old contents are copied into a pool in memory, never for the sink, unless the pool is full.
 * What has not arrived yet (a restore under way) is read from its source and not forced in.
 *
 * Only writes by way of a region's own mapping are seen: who else maps the memory (a vhost-user
 * process, an alias) must not write to it until the snapshot has ended. Nor may anybody discard
 * memory meanwhile (a balloon, MADV_DONTNEED, a punched hole): it would be zeroes in the snapshot.
 */
#ifndef HGM_SNAPSHOT_H
#define HGM_SNAPSHOT_H

#include <stdbool.h>

#include <hgm/base.h>

HGM_BEGIN_DECLS

struct hgm;
struct hgm_region;
struct hgm_snapshot;

/**
 * hgm_sink_fn - take a part of a snapshot
 * @user:   as in the options
 * @buf:    contents
 * @length: bytes; a multiple of 4096, but for the rest of what was taken in part
 * @offset: where they belong in the snapshot
 *
 * Called by the snapshot's thread, one call at a time; may block. Pages of zeroes are left out.
 * Return: bytes taken, from the front, at least 1 (the rest is offered again), or a negative errno,
 * which ends the snapshot.
 */
typedef int64_t (*hgm_sink_fn)(void *user, const void *buf, uint64_t length, uint64_t offset);

/*
 * Give the sink ascending offsets only. Pages that were written to meanwhile stay in the pool until
 * their turn: let it be large.
 */
#define HGM_SNAPSHOT_ORDERED 0x1u

/**
 * struct hgm_snapshot_opts - what is to be written, and where
 * @size:       sizeof(struct hgm_snapshot_opts)
 * @regions:    the regions; NULL for all that the engine has
 * @count:      how many; 0 with NULL
 * @write:      the sink, or NULL for @fd
 * @user:       handed to @write
 * @fd:         a file, written by offset, holes for zeroes where it was empty before, and set to
 *              the snapshot's length at the end; or what cannot seek, and gets all in order, zeroes
 *              too. It stays the caller's and must stay open. 0 is standard input: there is no
 *              default
 * @flags:      HGM_SNAPSHOT_*
 * @pool_bytes: memory for old contents; 0 for as much as the regions have, at most 64 MiB; at
 *              least one unit of protection (4096, or the block of hugetlb)
 * @rate_bytes: bytes per second that the sweep gives to the sink at most; 0 for no limit
 *
 * A region's place in the snapshot is its source_offset: the snapshot has the layout of the file
 * that the regions were restored from.
 */
struct hgm_snapshot_opts {
	size_t size;
	struct hgm_region *const *regions;
	uint64_t count;
	hgm_sink_fn write;
	void *user;
	int fd;
	uint32_t flags;
	uint64_t pool_bytes;
	uint64_t rate_bytes;
};

/**
 * struct hgm_snapshot_progress - how far it is
 * @size:             sizeof(struct hgm_snapshot_progress), set by the caller
 * @total_bytes:      length of all regions
 * @done_bytes:       swept: given to the sink, or found to be zero
 * @zero_bytes:       of these, zero
 * @copied_bytes:     of these, copied before somebody wrote to them
 * @source_bytes:     of these, read from the source
 * @unreadable_bytes: of these, left out: poisoned, or the source failed for good
 * @pool_used_bytes:  of the pool, at the moment
 * @pool_full:        tries of writes that had to wait because the pool was full
 * @begin_ns:         what hgm_snapshot_begin() took
 * @done:             it has ended
 * @error:            0, or why it failed: -ECANCELED, what the sink said
 */
struct hgm_snapshot_progress {
	size_t size;
	uint64_t total_bytes;
	uint64_t done_bytes;
	uint64_t zero_bytes;
	uint64_t copied_bytes;
	uint64_t source_bytes;
	uint64_t unreadable_bytes;
	uint64_t pool_used_bytes;
	uint64_t pool_full;
	uint64_t begin_ns;
	bool done;
	int error;
};

/**
 * hgm_snapshot_create - prepare a snapshot
 * @out:  the new snapshot
 * @h:    a running engine
 * @opts: a sink at least
 *
 * The guest may run. Regions are registered for write-protection; from here until the snapshot
 * ends none of their blocks is collapsed, and hgm_wait() does not wait for that. Regions must not
 * be destroyed before hgm_snapshot_begin(); after it that ends the snapshot with -ECANCELED.
 *
 * Errors: -EINVAL no sink, or a file that was opened with O_APPEND, an unknown flag, no region, a
 * @count that does not go with @regions, a region of another engine or named twice, regions that
 * overlap in the snapshot, a pool above 2^42 bytes, an engine that was not started; -E2BIG bad
 * options; -EBADF @fd is not open for writing; -EBUSY a region is under another snapshot, dirty
 * tracking or a watch; -ENOMEM, also a pool that is smaller than a unit of protection; -EOPNOTSUPP
 * the kernel cannot protect that memory (shmem and hugetlb before 5.19); -EAGAIN no thread can be
 * had; others as UFFDIO_REGISTER says. Nothing is left behind.
 * Calling thread: any. Blocks for some milliseconds. Since: 0.1.
 */
HGM_PUBLIC int hgm_snapshot_create(struct hgm_snapshot **out, struct hgm *h,
				   const struct hgm_snapshot_opts *opts);

/**
 * hgm_snapshot_begin - the instant
 * @s: the snapshot
 *
 * Nobody may write to the regions meanwhile: the caller has paused the vCPUs and devices. Takes
 * what UFFDIO_WRITEPROTECT takes, 3 to 8 ms per GiB.
 *
 * Errors: -EALREADY it was begun before; -EINVAL @s is NULL; -ECANCELED it was cancelled before;
 * others as UFFDIO_WRITEPROTECT says: the snapshot has failed then.
 * Calling thread: any. Since: 0.1.
 */
HGM_PUBLIC int hgm_snapshot_begin(struct hgm_snapshot *s);

/**
 * hgm_snapshot_wait - wait until all has been given to the sink
 * @s:          the snapshot
 * @timeout_ms: milliseconds, 0 to look only, negative for ever
 *
 * Of one that was cancelled before it was begun the end is waited for whatever @timeout_ms is: some
 * milliseconds.
 *
 * Errors: -ETIMEDOUT; -ECANCELED cancelled, or a region was destroyed; -EINVAL it was not begun;
 * -EDEADLK called from its own hgm_sink_fn; -ENOMEM; what the sink said. -ENODATA: all was written
 * but for pages that are poisoned or whose source failed for good. -ETIMEDOUT and the others can
 * also be what the sink said: @done of hgm_snapshot_get_progress() tells.
 * Calling thread: any but hgm_sink_fn. Since: 0.1.
 */
HGM_PUBLIC int hgm_snapshot_wait(struct hgm_snapshot *s, int timeout_ms);

/**
 * hgm_snapshot_cancel - end it early
 * @s: the snapshot
 *
 * What the sink has got is incomplete. The guest does not notice, but who waits because the pool is
 * full waits until the sink's running call has returned.
 * Errors: -EINVAL @s is NULL.
 * Calling thread: any. Does not block: hgm_snapshot_wait() tells when it has ended. Since: 0.1.
 */
HGM_PUBLIC int hgm_snapshot_cancel(struct hgm_snapshot *s);

/**
 * hgm_snapshot_get_progress - how far it is
 * @s:        the snapshot
 * @progress: filled in; its @size must be set before the call
 *
 * Errors: -EINVAL a NULL argument or an impossible @size.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_snapshot_get_progress(struct hgm_snapshot *s,
					 struct hgm_snapshot_progress *progress);

/**
 * hgm_snapshot_destroy - free a snapshot; cancels it if it has not ended
 * @s: the snapshot, or NULL
 *
 * Before hgm_destroy() of its engine.
 * Calling thread: any but hgm_sink_fn. Blocks until the sink has returned, and a source that
 * was being read. Since: 0.1.
 */
HGM_PUBLIC void hgm_snapshot_destroy(struct hgm_snapshot *s);

HGM_END_DECLS

#endif /* HGM_SNAPSHOT_H */
