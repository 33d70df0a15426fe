/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/engine.h - the object that serves faults
 *
 * The shortest useful program:
 *
 *	hgm_create(&h, NULL);
 *	hgm_source_file(&src, "guest.img");
 *	hgm_region_create(&r, h, &(struct hgm_region_opts){
 *		.size = sizeof(struct hgm_region_opts), .length = len, .source = src });
 *	guest = hgm_region_addr(r);	(give it to KVM_SET_USER_MEMORY_REGION)
 *	hgm_start(h);			(from here on faults are served)
 *	...
 *	hgm_wait(h, -1);		(everything present and mapped huge)
 *	hgm_destroy(h);
 *
 * After fork() the engine belongs to the parent only, and continues there. The child may execute a
 * program or _exit(). It must not call this library, because it has none of the threads, and a lock
 * may have been held. The child does not have the memory of the regions: touching it raises
 * SIGSEGV. Of a mapping of the caller (HGM_BACKING_MAPPING) the child has a copy, or shares it. No
 * thread serves faults there, and what has not arrived reads as zeroes, so exclude the mapping
 * (MADV_DONTFORK), or fork when it is complete. All descriptors are closed when a program is
 * executed.
 */
#ifndef HGM_ENGINE_H
#define HGM_ENGINE_H

#include <stdbool.h>

#include <hgm/base.h>
#include <hgm/log.h>

HGM_BEGIN_DECLS

struct hgm;

/*
 * If nothing else is available, use a userfaultfd that serves faults of user mode only. It needs no
 * privilege, but KVM guests and system calls that touch absent memory fail with EFAULT instead of
 * waiting. @user_mode_only of hgm_region_get_info() reports which kind the engine has.
 */
#define HGM_ALLOW_USER_MODE_ONLY 0x1u

/**
 * struct hgm_opts - options of an engine; a field that is 0 selects its default
 * @size:            sizeof(struct hgm_opts)
 * @flags:           HGM_ALLOW_*
 * @fault_threads:   threads that serve faults, each with its own userfaultfd; at most 64. Default:
 *                   half the CPUs that the process may use, at least 1 and at most 8
 * @workers:         threads for fill and for sources that block; at most 64. If there is more than
 *                   one, one is reserved for demand. A source that blocks gets as many of the
 *                   others for fill as make it faster. Default: 3
 * @spin_us:         how long a fault thread polls after its last fault before it sleeps, in
 *                   microseconds, at most 1000000; HGM_SPIN_NEVER to sleep at once. Default: 100,
 *                   or 0 if the process may use only one CPU
 * @retries:         how often a failed request that a thread waits for is retried before it is
 *                   given up. Its pages are then tried once more, one by one. Those that fail again
 *                   are poisoned; where that is not possible, they stay missing and are asked for
 *                   about once a second. HGM_RETRY_NEVER disables retries. Pages that are only
 *                   filled are never given up, see below. Default: 64, which takes about three
 *                   seconds
 * @retry_first_us:  how long the first retry waits, in microseconds, at most a second. Each further
 *                   retry waits twice as long, up to 50 ms, or up to the value of this field if
 *                   that is more. When one request of a source succeeds, all others of the same
 *                   source are retried at once. Default: 1000
 * @fill_window_bytes: bytes of fill in flight at any time, for each source. Default: the fewest
 *                   bytes and the smallest requests that let the source run as fast as it can,
 *                   about one bandwidth-delay product, measured while it runs
 * @log:             a function that is told about background events (hgm/log.h), or NULL for
 *                   silence
 * @log_user:        passed to @log
 * @log_level:       enum hgm_log_level: the least severe level that is reported. Default: all are
 * @collapse_threads: threads that make full blocks huge; at most 16. More than one thread helps
 *                   where the kernel copies the pages of shmem (HGM_REGION_LAZY), which takes some
 *                   0.5 ms for 2 MiB, and has PAGEMAP_SCAN. Default: a quarter of the CPUs that the
 *                   process may use, at least 1 and at most 4
 * @outage_ms:       how long a source may be unavailable, in milliseconds, at most 2^32. A request
 *                   that fails with a transient error (hgm_read_fn lists them) is retried for at
 *                   least this long, whatever the value of @retries is. HGM_OUTAGE_NEVER treats
 *                   transient errors like all others. Default: 30000
 *
 * Requests of fill and prefetch are never given up, because the source may work again before a
 * thread needs the pages. Fill and prefetch give back the pages that failed, pause, each time twice
 * as long, up to a second, and ask again. If a thread touches such a page, the page becomes demand
 * at once.
 */
struct hgm_opts {
	size_t size;
	uint32_t flags;
	uint32_t fault_threads;
	uint32_t workers;
	uint32_t spin_us;
	uint32_t retries;
	uint32_t retry_first_us;
	uint64_t fill_window_bytes;
	hgm_log_fn log;
	void *log_user;
	uint32_t log_level;
	uint32_t collapse_threads;
	uint64_t outage_ms;
};

#define HGM_SPIN_NEVER	 UINT32_MAX
#define HGM_RETRY_NEVER	 UINT32_MAX
#define HGM_OUTAGE_NEVER UINT64_MAX

/**
 * struct hgm_progress - progress of all regions of an engine
 * @size:           sizeof(struct hgm_progress), set by the caller
 * @total_bytes:    sum of the lengths of the regions
 * @present_bytes:  bytes whose contents have arrived
 * @huge_bytes:     bytes that are mapped by huge leaves
 * @poisoned_bytes: bytes that were given up because the source failed
 * @failing_requests: requests that wait for another try because they failed, or because there is no
 *                  memory for their contents
 * @last_error:     the negative errno of the last request that failed, 0 if none has failed. It is
 *                  the error that the source returned, or -ENOMEM if there is no memory, -ENOSPC if
 *                  the file system of the region's file is full, -ENODATA if the file was truncated
 * @complete:       whether hgm_wait() would return without waiting
 * @remaining_us:   an estimate of the time until fill is complete, in microseconds, from the rate
 *                  of the last seconds; UINT64_MAX if nothing has arrived lately; 0 if nothing is
 *                  left
 */
struct hgm_progress {
	size_t size;
	uint64_t total_bytes;
	uint64_t present_bytes;
	uint64_t huge_bytes;
	uint64_t poisoned_bytes;
	uint64_t failing_requests;
	int32_t last_error;
	bool complete;
	uint64_t remaining_us;
};

/**
 * hgm_create - create an engine
 * @out:  the new engine
 * @opts: NULL for the defaults
 *
 * Opens the userfaultfds, in the way that hgm_uffd_open() describes: one for each fault thread, and
 * one for the aliases of all regions. No thread serves faults yet. One thread, "hgm-events/0",
 * reads events, so the caller may unmap or discard memory before hgm_start(). With the first engine
 * of a process comes one more thread, which frees memory in the background and stays.
 *
 * Errors: -EINVAL @out is NULL, an option is out of range, or the kernel has another version of the
 * userfaultfd API; -E2BIG bad options; -EPERM, -EACCES no permission for a userfaultfd (the text
 * lists what was tried and what would help); -ENOSYS this kernel has no userfaultfd; -EMFILE,
 * -ENFILE; -EAGAIN the thread that frees memory could not be started; -EOPNOTSUPP the page size of
 * this machine is not 4096 bytes; -ENOMEM; others as eventfd(2) says.
 * Calling thread: any. Does not block. Since: 0.1; kernel 4.11.
 */
HGM_PUBLIC int hgm_create(struct hgm **out, const struct hgm_opts *opts);

/**
 * hgm_start - start serving faults
 * @h: the engine
 *
 * Starts the fault threads, the workers and the collapse threads. Regions may be created before and
 * after this call. All threads block all signals except those that report an error of the thread
 * itself (such as SIGSEGV), and have names that begin with "hgm-". They run on the CPUs of the
 * process's first thread and have no real-time priority, even if the thread that starts them has a
 * real-time priority or is bound to some CPUs.
 *
 * Errors: -EINVAL @h is NULL; -EALREADY the engine was started before; -EAGAIN a thread could not
 * be started (no thread is left running, and the call may be tried again).
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_start(struct hgm *h);

/**
 * hgm_wait - wait until all regions are complete
 * @h:          the engine
 * @timeout_ms: milliseconds; 0 only checks, a negative value waits without a limit
 *
 * A region is complete when each of its pages is present or poisoned, and each block is mapped
 * huge, has been given up (@left_split of struct hgm_region_info), or cannot become huge. In a
 * region with HGM_REGION_NO_FILL, only the pages that were requested so far count. A snapshot,
 * dirty tracking or a watch keeps blocks in small pages. While it is in progress, hgm_wait() does
 * not wait for these blocks; afterwards it does.
 *
 * A page whose source fails and that no thread touches stays missing. The library asks for it again
 * from time to time, and hgm_wait() waits for it. hgm_wait() also waits for such a page if a thread
 * touches it where pages cannot be poisoned (kernels before 6.6, hugetlb with high-granularity
 * mapping). If a source may fail, use a timeout and check @failing_requests of hgm_get_progress().
 *
 * Errors: -ETIMEDOUT; -EIO all is complete, but pages were poisoned; -EINVAL @h is NULL, or the
 * engine was not started.
 * Calling thread: any but the library's own; not together with hgm_destroy(). Blocks; a
 * cancellation point (pthread_cancel) that leaves no lock held. Since: 0.1.
 */
HGM_PUBLIC int hgm_wait(struct hgm *h, int timeout_ms);

/**
 * hgm_event_fd - a descriptor to poll for progress
 * @h: the engine
 *
 * The descriptor is an eventfd. It becomes readable after a region has become complete, after a
 * source has failed for good (poison), after all regions have become complete, and after a process
 * whose memory is served has gone (hgm_peer_get_info()). Read it (8 bytes) to clear it, then call
 * hgm_get_progress(). It belongs to the engine: do not close it.
 *
 * Return: the descriptor; -EINVAL @h is NULL.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_event_fd(const struct hgm *h);

/**
 * hgm_get_progress - progress of all regions
 * @h: the engine
 * @p: filled in; its @size must be set before the call
 *
 * Errors: -EINVAL an argument is NULL or @size is invalid.
 * Calling thread: any. Does not block except for regions being created or destroyed. Since: 0.1.
 */
HGM_PUBLIC int hgm_get_progress(struct hgm *h, struct hgm_progress *p);

/**
 * hgm_destroy - stop serving, destroy all regions, free everything
 * @h: the engine, or NULL
 *
 * Destroys each region in the way that hgm_region_destroy() does: waits for the sources, and
 * releases threads that still wait for a page as described there.
 *
 * Calling thread: any but the library's own and hgm_read_fn. Blocks. Since: 0.1.
 */
HGM_PUBLIC void hgm_destroy(struct hgm *h);

HGM_END_DECLS

#endif /* HGM_ENGINE_H */
