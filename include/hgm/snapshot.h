/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/snapshot.h - save all memory as it was at one instant, while the guest runs
 *
 *	hgm_snapshot_create(&s, h, &opts);	the guest runs
 *	... pause the vCPUs ...
 *	hgm_snapshot_begin(s);			the instant: some milliseconds per GiB
 *	... resume them ...
 *	hgm_snapshot_wait(s, -1);
 *	hgm_snapshot_destroy(s);
 *
 * At the instant, the pages are write-protected. A thread of the snapshot, the sweep, goes over
 * them and gives their contents to the sink. A thread that writes to a page that the sweep has not
 * reached waits until the old contents of the page are copied into a pool in memory. It never waits
 * for the sink, unless the pool is full. The engine's workers read pages that have not arrived yet
 * (a restore is in progress) from their source. If fill would fetch these pages anyway, they are
 * kept in memory, and fill gives way to the snapshot as long as the sink takes what is read. With
 * HGM_REGION_NO_FILL, they are not forced into memory.
 *
 * A snapshot sees only writes through the page tables of a region's own mapping. A program that
 * writes in another way (a vhost-user process, an alias, a device that has pinned the pages) calls
 * hgm_region_before_write(). Memory that is discarded by hgm_region_discard() during the snapshot
 * is in the snapshot as it was at the instant. Memory that is dropped by other means
 * (MADV_DONTNEED, a punched hole) is zeroes in the snapshot. If an event reports the drop, these
 * zeroes are counted as unreadable; no event reports a hole that is punched through the file.
 * Memory that was discarded before the instant is zeroes, too, and a snapshot does not allocate it
 * again.
 *
 * A snapshot of a running guest cannot be the base for diffs by dirty tracking: see hgm/dirty.h.
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
 * @length: bytes; a multiple of 4096, except for the rest after a call that took only a part
 * @offset: where the contents belong in the snapshot
 *
 * The snapshot's own thread calls it, one call at a time. It may block. It is not called for pages
 * of zeroes.
 * Return: the number of bytes taken from the start of @buf, at least 1 (the rest is offered again),
 * or a negative errno, which ends the snapshot.
 */
typedef int64_t (*hgm_sink_fn)(void *user, const void *buf, uint64_t length, uint64_t offset);

/*
 * Give the sink ascending offsets only. Pages that are written to during the snapshot stay in the
 * pool until their turn comes, so the pool should be large.
 */
#define HGM_SNAPSHOT_ORDERED 0x1u

/*
 * With an @fd that is a regular file or a block device: fsync() it before the snapshot ends, so
 * that hgm_snapshot_wait() returns 0 only when everything is on the disk. Without this flag nothing
 * is synced: data that was written may still be lost, or fail to reach the disk, after the snapshot
 * has ended. The caller must sync the file's directory.
 */
#define HGM_SNAPSHOT_SYNC 0x2u

/**
 * struct hgm_snapshot_opts - what is written, and where
 * @size:       sizeof(struct hgm_snapshot_opts)
 * @regions:    the regions; NULL for all regions that the engine has at the instant
 * @count:      the number of regions; 0 with NULL
 * @write:      the sink, or NULL for @fd
 * @user:       passed to @write
 * @fd:         the descriptor to which the snapshot is written. A file is written by offset; zeroes
 *              beyond its previous end become holes; at the end, its length is set to the
 *              snapshot's length. A descriptor that cannot seek receives all contents in order,
 *              including zeroes. The caller remains the owner of @fd, and must keep it open. There
 *              is no default: 0 is standard input. O_NONBLOCK makes no difference. @fd must not be
 *              the memory or the source of a region: see hgm_snapshot_create()
 * @flags:      HGM_SNAPSHOT_*
 * @pool_bytes: size of the pool, the memory for old contents, which is committed at once and is
 *              never larger than the regions. 0 selects the size of the regions, but at most
 *              64 MiB. The pool must have at least one unit of protection (4096, or the block of
 *              hugetlb)
 * @rate_bytes: the maximum number of bytes per second that the sweep gives to the sink; in any one
 *              second it may exceed this by 1/100. 0 means no limit. Contents that writers have put
 *              into the pool count towards the limit, but are not delayed by it
 *
 * A region's offset in the snapshot is its source_offset. So the snapshot has the layout of the
 * file that the regions were restored from.
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
 * struct hgm_snapshot_progress - the progress of a snapshot
 * @size:             sizeof(struct hgm_snapshot_progress), set by the caller
 * @total_bytes:      length of all regions
 * @done_bytes:       bytes that the sweep has given to the sink or found to be zero
 * @zero_bytes:       of @done_bytes: bytes that are zero
 * @copied_bytes:     of @done_bytes: bytes that were copied before they were written to
 * @source_bytes:     of @done_bytes: bytes that were read from the source
 * @unreadable_bytes: of @done_bytes: bytes that are zero in the snapshot because their contents are
 *                    not known: they are poisoned, their source failed permanently, or the memory
 *                    could not be read (a memory error, a swap-in error, a file that was truncated)
 * @pool_used_bytes:  bytes of the pool that are in use now
 * @pool_full:        the number of attempts to write that had to wait because the pool was full
 * @begin_ns:         the duration of hgm_snapshot_begin() in nanoseconds
 * @done:             whether the snapshot has ended
 * @error:            0, or the reason for the failure: -ECANCELED, or the error that the sink
 *                    returned
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
 * @opts: the options; at least a sink is required
 *
 * The guest may run. The regions are registered for write-protection. From this call until the
 * snapshot ends, no block of the regions is collapsed, and hgm_wait() does not wait for these
 * collapses. Regions must not be destroyed before hgm_snapshot_begin(). Destroying one afterwards
 * ends the snapshot with -ECANCELED.
 *
 * The file of @fd must not be the memory or the source of a region of this engine, even of a region
 * that is not in the snapshot: writing to it would change the guest's memory, or the contents that
 * are still to be read. Files are compared by device and inode. If a source is a function of the
 * caller or mapped memory, the library does not know what it reads, and the caller must make sure
 * that it does not read this file.
 *
 * Errors: -EINVAL there is no sink, the file was opened with O_APPEND or is the memory or the
 * source of a region of the engine, a flag is unknown, HGM_SNAPSHOT_SYNC is set and the sink cannot
 * be synced, there is no region, @count does not match @regions, a region belongs to another engine
 * or is named twice, regions overlap in the snapshot, the pool is larger than 2^42 bytes, or the
 * engine was not started; -E2BIG bad options; -EBADF @fd is not open for writing; -EBUSY a region
 * is under another snapshot, dirty tracking or a watch; -ENOMEM, also if the pool is smaller than a
 * unit of protection; -EOPNOTSUPP the kernel cannot write-protect this type of memory (shmem and
 * hugetlb before 5.19), or another process, whose memory it is, has WP_ASYNC or WP_UNPOPULATED in
 * its userfaultfd; -EPERM the engine's userfaultfd serves faults of user mode only
 * (HGM_ALLOW_USER_MODE_ONLY), so system calls and KVM could not write to protected memory; -EAGAIN
 * a thread could not be started; others as UFFDIO_REGISTER says, as fstat(2) and lseek(2) of @fd
 * say, and, for a region of anonymous memory, as open() of /proc/self/mem says. This file is opened
 * when the first such region is created, and only if that failed, this call tries again. For memory
 * of another process it is /proc/PID/mem, opened by hgm_peer_create(): -EACCES without the right to
 * trace the process (PTRACE_MODE_ATTACH). A call that fails leaves nothing behind.
 * Calling thread: any. Blocks for some milliseconds. Since: 0.1.
 */
HGM_PUBLIC int hgm_snapshot_create(struct hgm_snapshot **out, struct hgm *h,
				   const struct hgm_snapshot_opts *opts);

/**
 * hgm_snapshot_begin - set the instant that the snapshot captures
 * @s: the snapshot
 *
 * Nothing may write to the regions during this call: the caller has paused the vCPUs and devices.
 * The call takes as long as UFFDIO_WRITEPROTECT does, 3 to 8 ms per GiB.
 *
 * Errors: -EALREADY the snapshot was begun before; -EINVAL @s is NULL, or @fd has become the memory
 * or the source of a region; -ESTALE the snapshot is of all regions, and regions were added since
 * it was created: create another snapshot; -ECANCELED the snapshot was cancelled before; others as
 * fstat(2) of @fd says, and as UFFDIO_WRITEPROTECT says: the snapshot has failed then.
 * Calling thread: any. Since: 0.1.
 */
HGM_PUBLIC int hgm_snapshot_begin(struct hgm_snapshot *s);

/**
 * hgm_snapshot_wait - wait until the sink has received all contents
 * @s:          the snapshot
 * @timeout_ms: milliseconds; 0 to check the state only, negative to wait without a time limit
 *
 * If the snapshot was cancelled before it was begun, the call waits until it has ended, which takes
 * some milliseconds, whatever @timeout_ms is.
 *
 * Errors: -ETIMEDOUT; -ECANCELED the snapshot was cancelled, or a region was destroyed; -EINVAL the
 * snapshot was not begun; -EDEADLK the sink of this snapshot called the function; -ENOMEM; also
 * those of the sink. -ENODATA everything was written, except for pages that could not be read,
 * which are zeroes: see @unreadable_bytes of hgm_snapshot_get_progress(). The sink can also have
 * returned -ETIMEDOUT or one of the others: @done of hgm_snapshot_get_progress() tells which is the
 * case.
 * Calling thread: any but hgm_sink_fn. A cancellation point, as hgm_wait() is. Since: 0.1.
 */
HGM_PUBLIC int hgm_snapshot_wait(struct hgm_snapshot *s, int timeout_ms);

/**
 * hgm_snapshot_cancel - end a snapshot early
 * @s: the snapshot
 *
 * The contents that the sink has received are incomplete. The guest is not affected. Threads that
 * wait because the pool is full continue at once, even while a call of the sink is still in
 * progress.
 * Errors: -EINVAL @s is NULL.
 * Calling thread: any. Does not block: hgm_snapshot_wait() tells when it has ended. Since: 0.1.
 */
HGM_PUBLIC int hgm_snapshot_cancel(struct hgm_snapshot *s);

/**
 * hgm_snapshot_get_progress - get the progress of a snapshot
 * @s:        the snapshot
 * @progress: filled in; its @size must be set before the call
 *
 * Errors: -EINVAL an argument is NULL, or @size is impossible.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_snapshot_get_progress(struct hgm_snapshot *s,
					 struct hgm_snapshot_progress *progress);

/**
 * hgm_snapshot_destroy - free a snapshot; cancels it if it has not ended
 * @s: the snapshot, or NULL
 *
 * Call this function before hgm_destroy() of the engine.
 * Calling thread: any. Blocks until the sink has returned, and a source that was being read. From
 * inside its own hgm_sink_fn it returns at once, and the snapshot ends when that has returned; then
 * nothing more is called. Since: 0.1.
 */
HGM_PUBLIC void hgm_snapshot_destroy(struct hgm_snapshot *s);

HGM_END_DECLS

#endif /* HGM_SNAPSHOT_H */
