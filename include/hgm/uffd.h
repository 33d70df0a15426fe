/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/uffd.h - userfaultfd and huge mappings, one typed function per kernel verb
 *
 * The thin level, for a VMM with threads of its own. The engine (hgm/engine.h) uses nothing else.
 * A struct hgm_uffd may be used by any number of threads at once; closing it is the caller's to
 * order.
 */
#ifndef HGM_UFFD_H
#define HGM_UFFD_H

#include <hgm/base.h>
#include <hgm/uapi.h>

HGM_BEGIN_DECLS

struct hgm_uffd;

/* Take a userfaultfd for user-mode faults only when nothing else can be had. */
#define HGM_UFFD_ALLOW_USER_MODE_ONLY 0x1u

/**
 * struct hgm_uffd_opts - how to open a userfaultfd
 * @size:     sizeof(struct hgm_uffd_opts)
 * @required: HGM_UFFD_FEATURE_* bits without which opening fails
 * @optional: bits to enable where the kernel has them. Name them one by one: SIGBUS has faults
 *            raise a signal instead of a message, and each EVENT_* makes somebody wait until it is
 *            read
 * @flags:    HGM_UFFD_ALLOW_USER_MODE_ONLY or 0
 */
struct hgm_uffd_opts {
	size_t size;
	uint64_t required;
	uint64_t optional;
	uint32_t flags;
	uint32_t reserved;
};

/* How a userfaultfd was got. */
enum hgm_uffd_via {
	HGM_UFFD_VIA_DEVICE = 1,	 /* /dev/userfaultfd */
	HGM_UFFD_VIA_SYSCALL = 2,	 /* userfaultfd(2) */
	HGM_UFFD_VIA_USER_MODE_ONLY = 3, /* userfaultfd(2), faults of user mode only */
};

/**
 * hgm_uffd_open - open a userfaultfd and agree on features
 * @out:  the new object
 * @opts: NULL asks for no feature
 *
 * Tries /dev/userfaultfd, then userfaultfd(2), then, if allowed, userfaultfd(2) with
 * UFFD_USER_MODE_ONLY; each next one after any failure of the one before. What the kernel supports
 * is asked on a throw-away descriptor. The descriptor is non-blocking and close-on-exec.
 *
 * Errors: -EINVAL @out is NULL or a flag is unknown, or the kernel's userfaultfd speaks another
 * version; -E2BIG bad options; -EPERM, -EACCES, -ENOSYS no way worked (the errno is the most
 * telling one, the text lists every way with its own and what would help), -EPERM also where a
 * feature needs a capability; -EOPNOTSUPP a required feature is missing (the text names it);
 * -EMFILE, -ENFILE; -ENOMEM.
 * Calling thread: any. Does not block. Since: 0.1; kernel 4.11, /dev/userfaultfd 6.1, user mode
 * only 5.11.
 */
HGM_PUBLIC int hgm_uffd_open(struct hgm_uffd **out, const struct hgm_uffd_opts *opts);

/**
 * hgm_uffd_close - close it and free the object
 * @u: the object, or NULL
 *
 * The kernel unregisters all its memory; waiting threads go on as if it had never been registered,
 * which on absent memory means that they read zeroes: make the memory inaccessible before.
 *
 * Calling thread: any, when no other uses @u any more. Does not block. Since: 0.1.
 */
HGM_PUBLIC void hgm_uffd_close(struct hgm_uffd *u);

/**
 * hgm_uffd_fd - the descriptor, for poll(2); stays owned by @u
 * Return: the descriptor; -EINVAL @u is NULL.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_uffd_fd(const struct hgm_uffd *u);

/**
 * hgm_uffd_features - which of the asked features are enabled
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC uint64_t hgm_uffd_features(const struct hgm_uffd *u);

/**
 * hgm_uffd_supported - all features that the kernel said it has
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC uint64_t hgm_uffd_supported(const struct hgm_uffd *u);

/**
 * hgm_uffd_get_via - how the descriptor was got
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC enum hgm_uffd_via hgm_uffd_get_via(const struct hgm_uffd *u);

/**
 * hgm_uffd_register - have faults of a range delivered
 * @u:      the userfaultfd
 * @addr:   first byte; page aligned, huge page aligned on hugetlb
 * @len:    bytes; likewise
 * @modes:  HGM_UFFD_MISSING, HGM_UFFD_MINOR, HGM_UFFD_WP, or several. A later call never takes a
 *          mode away.
 * @ioctls: if not NULL, set to the HGM_UFFD_IOCTL_* that the kernel offers on this memory
 *
 * Errors: -EINVAL the mode is unknown on that memory, or alignment; -EBUSY registered with another
 * userfaultfd; -EPERM the mapping can never be written (a read-only descriptor); -ENOMEM.
 * Calling thread: any. Takes the address space's lock for writing. Since: 0.1.
 */
HGM_PUBLIC int hgm_uffd_register(struct hgm_uffd *u, void *addr, uint64_t len, uint64_t modes,
				 uint64_t *ioctls);

/**
 * hgm_uffd_unregister - end delivery of faults, and wake everybody who waits in the range
 * @u:    the userfaultfd
 * @addr: as registered, or a part of it
 * @len:  bytes
 *
 * The kernel itself wakes no waiter of a minor or write-protect fault here (tested on 6.18); this
 * call does.
 *
 * Errors: -EINVAL alignment, or memory that userfaultfd cannot serve; -ENOMEM.
 * Calling thread: any. Takes the address space's lock for writing. Since: 0.1.
 */
HGM_PUBLIC int hgm_uffd_unregister(struct hgm_uffd *u, void *addr, uint64_t len);

/**
 * hgm_uffd_wake - let every thread that waits in a range try again
 * Errors: -EINVAL @u is NULL, or alignment.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_uffd_wake(struct hgm_uffd *u, void *addr, uint64_t len);

/**
 * struct hgm_range - a range operation: what to do, and what came of it
 * @addr:       first byte of the destination; a multiple of @step
 * @len:        bytes; a multiple of @step
 * @step:       the smallest piece that the kernel takes on this memory: 4096, or the hugetlb page
 * @mode:       the operation's mode bits (HGM_UFFD_COPY_*, ...)
 * @done:       out: bytes from @addr on that are dealt with: installed, or found to exist
 * @installed:  out: bytes that this call installed
 * @existed:    out: bytes that were there already (EEXIST); their waiters were woken
 * @partials:   out: how often the kernel stopped early and was called again
 *
 * One walk deals with the whole range: it goes on after partial results, passes over what exists
 * (and wakes it unless the mode says DONTWAKE), and finds the borders of memory areas by bisection.
 * It stops, with @done telling how far it came, at
 *  -EAGAIN  the address space is changing: try the rest later, on another turn
 *  -EFAULT  CONTINUE: no page in the page cache; COPY: the source is not readable
 *  -ENOENT  no registered memory there
 *  -ESRCH   the address space is gone
 *  -ENOMEM, -ENOSPC  no memory or no huge page
 *  -EINVAL  unaligned, NULL, or the kernel cannot do this on this memory
 *  -EIO     a hardware-poisoned page
 *  -EHWPOISON, others as the kernel says
 * The text (hgm_errmsg()) is written for -EINVAL only: the others are everyday outcomes.
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
 * On hugetlb the kernel takes a second huge page for a moment when @src is not mapped yet. On shmem
 * -EEXIST pages may be in the page cache without being mapped: they count as @r->existed.
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
 * hgm_uffd_writeprotect - write-protect, or with mode 0 un-protect, a range (UFFDIO_WRITEPROTECT)
 *
 * The kernel does all or nothing here: on success @r->done is @r->len.
 *
 * Errors: see struct hgm_range; -ENOENT also where the memory is not registered for WP.
 * Calling thread: any. May wait for the address space's lock. Since: 0.1; kernel 5.7 anon, 5.19
 * shmem and hugetlb.
 */
HGM_PUBLIC int hgm_uffd_writeprotect(struct hgm_uffd *u, struct hgm_range *r);

/**
 * hgm_uffd_poison - make touching absent pages raise SIGBUS (UFFDIO_POISON)
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
 * @addr:  PAGEFAULT: the address, exact to the byte with EXACT_ADDRESS; REMOVE, UNMAP: start;
 *         REMAP: from
 * @end:   REMOVE, UNMAP: end; REMAP: to
 * @len:   REMAP: bytes
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
 * hgm_uffd_read - read waiting messages
 * @u:   the userfaultfd
 * @ev:  filled in
 * @max: how many fit, at most HGM_UFFD_READ_MAX count
 *
 * Return: how many were read, at least 1; -EAGAIN none waits; -EINVAL @u or @ev is NULL, @max is 0;
 * -EIO the kernel sent something that is no message.
 * Calling thread: any; several readers of one userfaultfd slow each other down. Does not block.
 * Since: 0.1.
 */
HGM_PUBLIC int hgm_uffd_read(struct hgm_uffd *u, struct hgm_uffd_event *ev, unsigned int max);

/**
 * hgm_split - allow a hugetlb mapping to be mapped in 4 KiB pieces (MADV_SPLIT)
 * @addr: huge page aligned
 * @len:  a multiple of the huge page
 *
 * Only on kernels with high-granularity mapping; permanent for the mapping, and best done once over
 * all of it: piecewise use splits the memory area for ever.
 *
 * Errors: -EINVAL this kernel has no HGM, or private, unaligned or other memory.
 * Calling thread: any. Takes the address space's lock for writing. Since: 0.1; kernel: HGM series
 * v1, v2.
 */
HGM_PUBLIC int hgm_split(void *addr, uint64_t len);

/**
 * hgm_collapse - map a range huge (MADV_COLLAPSE)
 * @addr:  huge page aligned
 * @len:   a multiple of the huge page
 *
 * The kernel maps the whole range, absent pages as zeroes, and forgets poison markers and
 * write-protection: use it only on memory whose every page is present. It wakes nobody:
 * hgm_uffd_wake() the range afterwards.
 *
 * Errors: -EINVAL not possible, or not now; -ENOMEM no huge page, or nothing is mapped; -EBUSY
 * charge limit, or holes in memory registered MISSING; -EAGAIN a page was in use. None of them
 * tells for sure what was done.
 * Calling thread: any. Blocks; touchers of the range wait too. Since: 0.1; kernel 6.1.
 */
HGM_PUBLIC int hgm_collapse(void *addr, uint64_t len);

/**
 * hgm_mapped_huge - how much of a range is mapped by huge leaves
 * @addr:       page aligned
 * @len:        bytes; a multiple of 4096
 * @huge_bytes: set to the number of bytes
 *
 * Asks PAGEMAP_SCAN of /proc/self/pagemap; on kernels before 6.7, which have none, reads
 * /proc/self/smaps, which counts for whole memory areas only and takes far longer.
 *
 * Errors: -EOPNOTSUPP the kernel has no PAGEMAP_SCAN, and the range ends inside a memory area;
 * -EINVAL alignment; -EACCES /proc is not there; -EMFILE; others as the ioctl says.
 * Calling thread: any. Takes the address space's lock for reading. Since: 0.1.
 */
HGM_PUBLIC int hgm_mapped_huge(const void *addr, uint64_t len, uint64_t *huge_bytes);

HGM_END_DECLS

#endif /* HGM_UFFD_H */
