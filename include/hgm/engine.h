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
 * After fork() the engine is the parent's alone, and goes on. The child may execute a program or
 * _exit(); of this library it may call nothing, as it has none of the threads, and a lock may have
 * been held. It does not have the regions' memory: touching it raises SIGSEGV. Of a mapping of the
 * caller's (HGM_BACKING_MAPPING) it has a copy, or shares it, in which nobody serves faults: what
 * has not arrived reads as zeroes there, so let it be excluded (MADV_DONTFORK) or complete. All
 * descriptors close when a program is executed.
 */
#ifndef HGM_ENGINE_H
#define HGM_ENGINE_H

#include <stdbool.h>

#include <hgm/base.h>
#include <hgm/log.h>

HGM_BEGIN_DECLS

struct hgm;

/*
 * As a last resort take a userfaultfd that serves faults of user mode only. It needs no privilege,
 * but KVM guests and system calls that touch absent memory fail with EFAULT instead of waiting.
 * Which it became, @user_mode_only of hgm_region_get_info() tells.
 */
#define HGM_ALLOW_USER_MODE_ONLY 0x1u

/**
 * struct hgm_opts - options of an engine; 0 asks for the default everywhere
 * @size:            sizeof(struct hgm_opts)
 * @flags:           HGM_ALLOW_*
 * @fault_threads:   threads that serve faults, each with its own userfaultfd; at most 64. Default:
 *                   half the CPUs that the process may use, at least 1 and at most 8
 * @workers:         threads for fill and blocking sources; at most 64. With
 *                   more than one, one of them is kept for demand. Default: 3
 * @spin_us:         how long a fault thread polls after the last fault before it sleeps, in
 *                   microseconds, at most 1000000; HGM_SPIN_NEVER to sleep at once. Default: 100
 * @retries:         how often a failed request is tried again before it is given up: its pages are
 *                   tried once more one by one, and those that fail are poisoned, or, where that
 *                   cannot be, stay missing and are asked for about once a second;
 *                   HGM_RETRY_NEVER for not at all. Default: 5
 * @retry_first_us:  how long the first retry waits, in microseconds; doubled for each further one,
 *                   at most a second. Default: 1000
 * @fill_window_bytes: fill bytes under way at any time. Default: about one bandwidth-delay product
 *                   of the source, measured while it runs
 * @log:             NULL for silence, or who hears of what happens behind the calls (hgm/log.h)
 * @log_user:        handed to @log
 * @log_level:       enum hgm_log_level: only what is as grave as this, or graver. Default: all
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
	uint32_t reserved;
};

#define HGM_SPIN_NEVER	UINT32_MAX
#define HGM_RETRY_NEVER UINT32_MAX

/**
 * struct hgm_progress - how far all regions of an engine are
 * @size:           sizeof(struct hgm_progress), set by the caller
 * @total_bytes:    sum of the regions' lengths
 * @present_bytes:  contents that have arrived
 * @huge_bytes:     mapped by huge leaves
 * @poisoned_bytes: given up because the source failed
 * @failing_requests: requests that failed and wait for another try
 * @last_error:     the negative errno of the last failed request, 0 if none has failed
 * @complete:       true once hgm_wait() would not wait
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
};

/**
 * hgm_create - make an engine
 * @out:  the new engine
 * @opts: NULL for the defaults
 *
 * Opens the userfaultfds (see hgm_uffd_open() for how). No thread serves yet. With the process's
 * first engine comes one thread that frees memory in the background and stays.
 *
 * Errors: -EINVAL @out is NULL or an option is out of its range, or the kernel's userfaultfd speaks
 * another version; -E2BIG bad options; -EPERM, -EACCES no permission for userfaultfd (the text
 * lists what was tried and what would help); -ENOSYS this kernel has no userfaultfd; -EMFILE,
 * -ENFILE; -EAGAIN the thread that frees memory could not be started; -EOPNOTSUPP this machine's
 * pages are not of 4096 bytes; -ENOMEM.
 * Calling thread: any. Does not block. Since: 0.1; kernel 4.11.
 */
HGM_PUBLIC int hgm_create(struct hgm **out, const struct hgm_opts *opts);

/**
 * hgm_start - begin to serve
 * @h: the engine
 *
 * Starts the fault threads, the workers and the collapser. Regions may be created before and after.
 * All threads block all signals and have names that begin with "hgm-".
 *
 * Errors: -EINVAL @h is NULL; -EALREADY it was started before; -EAGAIN a thread could not be
 * started (none is left running, and the call may be tried again).
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_start(struct hgm *h);

/**
 * hgm_wait - wait until all regions are complete
 * @h:          the engine
 * @timeout_ms: milliseconds; 0 only looks, negative waits without end
 *
 * A region is complete when each of its pages is present or poisoned, and each block is mapped
 * huge, or has been given up on (struct hgm_region_info, left_split), or cannot be. Regions with
 * HGM_REGION_NO_FILL count what has been asked for so far.
 *
 * Where nothing can be poisoned (kernels before 6.6, hugetlb with high-granularity mapping) pages
 * whose source has failed for good stay missing, are asked for again every now and then, and are
 * waited for: use a timeout there, and look at failing_requests of hgm_get_progress().
 *
 * Errors: -ETIMEDOUT; -EIO all is done, but pages were poisoned; -EINVAL @h is NULL, or the engine
 * was not started.
 * Calling thread: any but the library's own; not together with hgm_destroy(). Blocks. Since: 0.1.
 */
HGM_PUBLIC int hgm_wait(struct hgm *h, int timeout_ms);

/**
 * hgm_event_fd - a descriptor to poll for progress
 * @h: the engine
 *
 * An eventfd: readable after a region became complete, after a source failed for good (poison), and
 * after all regions became complete. The caller reads it (8 bytes) to clear it, then asks
 * hgm_get_progress(). It belongs to the engine: do not close it.
 *
 * Return: the descriptor; -EINVAL @h is NULL.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_event_fd(const struct hgm *h);

/**
 * hgm_get_progress - how far all regions are
 * @h: the engine
 * @p: filled in; its @size must be set before the call
 *
 * Errors: -EINVAL a NULL argument or an impossible @size.
 * Calling thread: any. Does not block but for regions being created or destroyed. Since: 0.1.
 */
HGM_PUBLIC int hgm_get_progress(struct hgm *h, struct hgm_progress *p);

/**
 * hgm_destroy - stop serving, destroy all regions, free everything
 * @h: the engine, or NULL
 *
 * As hgm_region_destroy() for each region: waits for the sources, and threads that still wait for a
 * page are released as told there.
 *
 * Calling thread: any but the library's own and hgm_read_fn. Blocks. Since: 0.1.
 */
HGM_PUBLIC void hgm_destroy(struct hgm *h);

HGM_END_DECLS

#endif /* HGM_ENGINE_H */
