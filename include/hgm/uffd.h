/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/uffd.h - userfaultfd and huge mappings, one typed function per kernel operation
 *
 * This is the low-level API, for a VMM that has its own threads. The engine (hgm/engine.h) uses
 * nothing else. Any number of threads may use a struct hgm_uffd at once. The caller must make sure
 * that no thread uses it when it is closed.
 */
#ifndef HGM_UFFD_H
#define HGM_UFFD_H

#include <hgm/base.h>
#include <hgm/uapi.h>

HGM_BEGIN_DECLS

struct hgm_uffd;

/* Use a userfaultfd for faults of user mode only, if no other way works. */
#define HGM_UFFD_ALLOW_USER_MODE_ONLY 0x1u

/**
 * struct hgm_uffd_opts - how to open a userfaultfd
 * @size:     sizeof(struct hgm_uffd_opts)
 * @required: HGM_UFFD_FEATURE_* bits that the kernel must support; without them, opening fails
 * @optional: bits to enable if the kernel supports them. Name each bit that is wanted: SIGBUS makes
 *            faults raise a signal instead of sending a message, and with each EVENT_*, a thread
 *            that causes such an event waits until the event is read
 * @flags:    HGM_UFFD_ALLOW_USER_MODE_ONLY or 0
 */
struct hgm_uffd_opts {
	size_t size;
	uint64_t required;
	uint64_t optional;
	uint32_t flags;
	uint32_t reserved;
};

/* How a userfaultfd was opened. */
enum hgm_uffd_via {
	HGM_UFFD_VIA_DEVICE = 1,	 /* /dev/userfaultfd */
	HGM_UFFD_VIA_SYSCALL = 2,	 /* userfaultfd(2) */
	HGM_UFFD_VIA_USER_MODE_ONLY = 3, /* userfaultfd(2), faults of user mode only */
};

/**
 * hgm_uffd_open - open a userfaultfd and negotiate its features
 * @out:  the new object
 * @opts: NULL requests no feature
 *
 * Tries /dev/userfaultfd, then userfaultfd(2), then, if that is allowed, userfaultfd(2) with
 * UFFD_USER_MODE_ONLY. The next way is tried after any failure of the one before. A temporary
 * descriptor is used to find out which features the kernel supports. The descriptor of the new
 * object is non-blocking and close-on-exec.
 *
 * Errors: -EINVAL @out is NULL, a flag is unknown, or the kernel's userfaultfd has another API
 * version; -E2BIG bad options; -EPERM, -EACCES, -ENOSYS no way worked (the error code is that of
 * the most informative failure, the text lists each way with its own error and what would help),
 * -EPERM also if a feature needs a capability; -EOPNOTSUPP a required feature is missing (the text
 * names it); -EMFILE, -ENFILE; -ENOMEM.
 * Calling thread: any. Does not block. Since: 0.1; kernel 4.11, /dev/userfaultfd 6.1, user mode
 * only 5.11.
 */
HGM_PUBLIC int hgm_uffd_open(struct hgm_uffd **out, const struct hgm_uffd_opts *opts);

/**
 * hgm_uffd_close - close the userfaultfd and free the object
 * @u: the object, or NULL
 *
 * The kernel unregisters all memory of this userfaultfd. Waiting threads then continue as if the
 * memory had never been registered, and read zeroes from absent memory: make the memory
 * inaccessible before this call.
 *
 * Calling thread: any, when no other uses @u any more. Does not block. Since: 0.1.
 */
HGM_PUBLIC void hgm_uffd_close(struct hgm_uffd *u);

/**
 * hgm_uffd_fd - the descriptor, for poll(2); @u keeps the ownership of it
 * Return: the descriptor; -EINVAL @u is NULL.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_uffd_fd(const struct hgm_uffd *u);

/**
 * hgm_uffd_features - which of the requested features are enabled
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC uint64_t hgm_uffd_features(const struct hgm_uffd *u);

/**
 * hgm_uffd_supported - all features that the kernel reported
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC uint64_t hgm_uffd_supported(const struct hgm_uffd *u);

/**
 * hgm_uffd_get_via - how the descriptor was opened
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC enum hgm_uffd_via hgm_uffd_get_via(const struct hgm_uffd *u);

/**
 * hgm_uffd_register - start the delivery of a range's faults
 * @u:      the userfaultfd
 * @addr:   first byte; page aligned, on hugetlb aligned to the huge page
 * @len:    bytes; aligned like @addr
 * @modes:  one or several of HGM_UFFD_MISSING, HGM_UFFD_MINOR, HGM_UFFD_WP. A later call for the
 *          same memory must name again what is to stay. To remove a mode, unregister the memory.
 * @ioctls: if not NULL, set to the HGM_UFFD_IOCTL_* bits of what the kernel offers on this memory
 *
 * Errors: -EINVAL the kernel does not offer the mode on this memory, or the range is not aligned;
 * -EBUSY the memory is registered with another userfaultfd, or for HGM_UFFD_WP and @modes lacks it;
 * -EPERM the mapping can never be written to (a read-only descriptor); -ENOMEM.
 * Calling thread: any. Takes the address space's lock for writing. Since: 0.1.
 */
HGM_PUBLIC int hgm_uffd_register(struct hgm_uffd *u, void *addr, uint64_t len, uint64_t modes,
				 uint64_t *ioctls);

/**
 * hgm_uffd_unregister - end the delivery of a range's faults, and wake all threads that wait in it
 * @u:    the userfaultfd
 * @addr: as registered, or a part of it
 * @len:  bytes
 *
 * When it unregisters memory, the kernel itself does not wake threads that wait for a minor or
 * write-protect fault (tested on 6.18). This call does.
 *
 * Errors: -EINVAL the range is not aligned, or userfaultfd cannot serve this memory; -ENOMEM.
 * Calling thread: any. Takes the address space's lock for writing. Since: 0.1.
 */
HGM_PUBLIC int hgm_uffd_unregister(struct hgm_uffd *u, void *addr, uint64_t len);

/**
 * hgm_uffd_wake - wake every thread that waits in a range, so that it tries its access again
 * Errors: -EINVAL @u is NULL, or the range is not aligned.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_uffd_wake(struct hgm_uffd *u, void *addr, uint64_t len);

/**
 * struct hgm_range - an operation on a range, and its outcome
 * @addr:       first byte of the destination; a multiple of @step
 * @len:        bytes; a multiple of @step
 * @step:       the smallest piece that the kernel accepts on this memory: 4096, or the size of the
 *              hugetlb page
 * @mode:       the operation's mode bits (HGM_UFFD_COPY_*, ...)
 * @done:       output: bytes, from @addr on, that were processed: installed or found to exist
 * @installed:  output: bytes that this call installed
 * @existed:    output: bytes that already existed (EEXIST); the threads that wait for them were
 *              woken
 * @partials:   output: how often the kernel stopped early and was called again
 *
 * EEXIST does not always mean that a page exists: on kernels where MADV_DONTNEED frees empty page
 * tables (6.14 or later), the operation also returns it when it encounters an empty page table. A
 * caller that relies on the contents must check them, or repeat the call.
 *
 * One call processes the whole range. It continues after partial results, skips pages that exist
 * (and wakes the threads that wait for them, unless the mode says DONTWAKE), and finds the
 * boundaries of memory areas by bisection. It stops at these errors; @done then tells how far it
 * came:
 *  -EAGAIN  the address space is changing: try the rest later, and not in a loop
 *  -EFAULT  CONTINUE: no page in the page cache; COPY: the source is not readable
 *  -ENOENT  the memory is not registered
 *  -ESRCH   the address space no longer exists
 *  -ENOMEM, -ENOSPC  not enough memory, or no huge page is available
 *  -EINVAL  not aligned, NULL, or the kernel cannot perform the operation on this memory
 *  -EIO     a hardware-poisoned page
 *  -EHWPOISON, others as the kernel says
 * hgm_errmsg() has a text for -EINVAL only, because the others are normal outcomes.
 */
struct hgm_range {
	void *addr;
	uint64_t len;
	uint64_t step;
	uint64_t mode;
	uint64_t done;
	uint64_t installed;
	uint64_t existed;
	uint64_t partials;
};

/**
 * hgm_uffd_continue - map pages that are in the page cache (UFFDIO_CONTINUE)
 * @u: the userfaultfd
 * @r: the range
 *
 * Errors: see struct hgm_range.
 * Calling thread: any. May wait for the address space's lock. Since: 0.1; kernel 5.13 hugetlb, 5.14
 * shmem.
 */
HGM_PUBLIC int hgm_uffd_continue(struct hgm_uffd *u, struct hgm_range *r);

/**
 * hgm_uffd_copy - allocate pages, fill them and map them at once (UFFDIO_COPY)
 * @u:   the userfaultfd
 * @r:   the range
 * @src: @r->len bytes of contents; must not be registered memory that is absent
 *
 * On hugetlb, the kernel briefly takes a second huge page if @src is not mapped yet. On shmem, a
 * page for which the kernel returns EEXIST can be in the page cache without being mapped. Such a
 * page counts as @r->existed.
 *
 * Errors: see struct hgm_range.
 * Calling thread: any. May wait for the address space's lock. Since: 0.1; kernel 4.3.
 */
HGM_PUBLIC int hgm_uffd_copy(struct hgm_uffd *u, struct hgm_range *r, const void *src);

/**
 * hgm_uffd_zeropage - map zeroes (UFFDIO_ZEROPAGE); not on hugetlb
 * Errors: see struct hgm_range.
 * Calling thread: any. May wait for the address space's lock. Since: 0.1; kernel 4.3.
 */
HGM_PUBLIC int hgm_uffd_zeropage(struct hgm_uffd *u, struct hgm_range *r);

/**
 * hgm_uffd_writeprotect - write-protect a range, or with mode 0 unprotect it (UFFDIO_WRITEPROTECT)
 *
 * The kernel processes either the whole range or none of it: on success, @r->done is @r->len.
 *
 * Errors: see struct hgm_range; -ENOENT also if the memory is not registered with HGM_UFFD_WP.
 * Calling thread: any. May wait for the address space's lock. Since: 0.1; kernel 5.7 anon, 5.19
 * shmem and hugetlb.
 */
HGM_PUBLIC int hgm_uffd_writeprotect(struct hgm_uffd *u, struct hgm_range *r);

/**
 * hgm_uffd_poison - poison absent pages: an access to one raises SIGBUS (UFFDIO_POISON)
 * Errors: see struct hgm_range.
 * Calling thread: any. May wait for the address space's lock. Since: 0.1; kernel 6.6.
 */
HGM_PUBLIC int hgm_uffd_poison(struct hgm_uffd *u, struct hgm_range *r);

/* What a message from a userfaultfd is about. */
enum hgm_uffd_event_type {
	HGM_UFFD_EVENT_PAGEFAULT = 0x12,
	HGM_UFFD_EVENT_FORK = 0x13,
	HGM_UFFD_EVENT_REMAP = 0x14,
	HGM_UFFD_EVENT_REMOVE = 0x15,
	HGM_UFFD_EVENT_UNMAP = 0x16,
};

/**
 * struct hgm_uffd_event - one message
 * @type:  enum hgm_uffd_event_type
 * @tid:   PAGEFAULT: the thread that faulted, if THREAD_ID is enabled; FORK: the child's
 *         userfaultfd
 * @flags: PAGEFAULT: HGM_UFFD_FAULT_*
 * @addr:  PAGEFAULT: the address, exact to the byte with EXACT_ADDRESS; REMOVE, UNMAP: the start
 *         of the range; REMAP: its old address
 * @end:   REMOVE, UNMAP: the end of the range; REMAP: its new address
 * @len:   REMAP: the length of the range in bytes
 */
struct hgm_uffd_event {
	uint32_t type;
	uint32_t tid;
	uint64_t flags;
	uint64_t addr;
	uint64_t end;
	uint64_t len;
};

#define HGM_UFFD_READ_MAX 64

/**
 * hgm_uffd_read - read pending messages
 * @u:   the userfaultfd
 * @ev:  filled in
 * @max: the number of messages that fit into @ev; at most HGM_UFFD_READ_MAX are read
 *
 * Return: the number of messages that were read, at least 1; -EAGAIN no message is pending; -EINVAL
 * @u or @ev is NULL, or @max is 0; -EIO the kernel returned data that is not a message; others as
 * read(2) says: for a fork, -EMFILE.
 * Calling thread: any; several readers of one userfaultfd slow each other down. Does not block.
 * Since: 0.1.
 */
HGM_PUBLIC int hgm_uffd_read(struct hgm_uffd *u, struct hgm_uffd_event *ev, unsigned int max);

/**
 * hgm_split - allow a hugetlb mapping to be mapped in pieces of 4 KiB (MADV_SPLIT)
 * @addr: aligned to the huge page
 * @len:  bytes; a multiple of the huge page size
 *
 * Only kernels with high-granularity mapping support this call. Its effect on the mapping is
 * permanent. Call it once for the whole mapping: calls for parts of a mapping split the memory area
 * permanently.
 *
 * Errors: -EINVAL this kernel has no HGM, or the memory is private, not aligned, or not hugetlb.
 * Calling thread: any. Takes the address space's lock for writing. Since: 0.1; kernel: HGM series
 * v1, v2.
 */
HGM_PUBLIC int hgm_split(void *addr, uint64_t len);

/**
 * hgm_collapse - turn a range into huge mappings (MADV_COLLAPSE)
 * @addr:  aligned to the huge page
 * @len:   bytes; a multiple of the huge page size
 *
 * The kernel maps the whole range: it maps absent pages as zeroes, and drops poison markers and
 * write-protection. Use this function only on memory in which every page is present. It does not
 * wake threads that wait for pages: call hgm_uffd_wake() for the range afterwards.
 *
 * Errors: -EINVAL the range cannot be collapsed, or not now; -ENOMEM no huge page is available, or
 * nothing is mapped; -EBUSY a charge limit, or holes in memory that is registered with
 * HGM_UFFD_MISSING; -EAGAIN a page was in use. None of them reliably tells what was done.
 * Calling thread: any. Blocks; touchers of the range wait too. Since: 0.1; kernel 6.1.
 */
HGM_PUBLIC int hgm_collapse(void *addr, uint64_t len);

/**
 * hgm_mapped_huge - how much of a range is mapped by huge page table entries
 * @addr:       page aligned
 * @len:        bytes; a multiple of 4096
 * @huge_bytes: set to the number of bytes
 *
 * Uses PAGEMAP_SCAN on /proc/self/pagemap. Kernels before 6.7 have no PAGEMAP_SCAN; there the
 * function reads /proc/self/smaps, which counts whole memory areas only, and takes far longer.
 *
 * Errors: -EOPNOTSUPP the kernel has no PAGEMAP_SCAN, and the range ends inside a memory area;
 * -EINVAL the range is not aligned; -ENOENT /proc is not available; -EACCES it may not be read;
 * -EMFILE; others as the ioctl says.
 * Calling thread: any. Takes the address space's lock for reading. Since: 0.1.
 */
HGM_PUBLIC int hgm_mapped_huge(const void *addr, uint64_t len, uint64_t *huge_bytes);

HGM_END_DECLS

#endif /* HGM_UFFD_H */
