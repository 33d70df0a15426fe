/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/dirty.h - find out which pages of a region were written to
 *
 *	hgm_dirty_start(&d, r, NULL);
 *	while (...) {
 *		hgm_dirty_collect(d, 0, pages, bitmap, &dirty);	(the guest runs on)
 *		... send the pages of the bitmap ...
 *	}
 *	hgm_dirty_stop(d);
 *
 * A page that was written to is in the bitmap of one of the collections that end after the write.
 * So read the page's contents after the collection: writes after the collection are in the next
 * one. There are two ways of dirty tracking; hgm_dirty_get_info() reports which is used:
 *
 *	asynchronous	the kernel records writes by itself (WP_ASYNC and PAGEMAP_SCAN, 6.7). The
 *			first write to a page costs its writer about a microsecond. This way is
 *			available only if everything has arrived when tracking starts
 *	synchronous	the first write to a page waits for a fault thread, like an access to a
 *			missing page
 *
 * Dirty tracking sees writes through the page tables of the region's own mapping: writes of the
 * guest, of KVM for the guest, and of system calls that copy into the mapping (read(2) without
 * O_DIRECT, recv(2)). A page that is discarded (hgm_region_discard(), or madvise(2) on the region's
 * mapping) is dirty. It is dirty in two collections if the first may have ended before the kernel
 * dropped the page.
 *
 * Writes that reach memory in other ways are not seen, and must be recorded with hgm_dirty_mark().
 * These are writes through another mapping of the file, or by write(2) to it, and writes of devices
 * and system calls that have pinned the pages before: read(2) with O_DIRECT, process_vm_writev(2),
 * fixed buffers of io_uring, vfio, RDMA. The latter fault a page in, which marks it as written, but
 * store to it later, when it may already have been collected.
 *
 * A region is under one dirty tracking or one snapshot (hgm/snapshot.h) at a time. Therefore a base
 * from a snapshot of a running guest cannot be combined with diffs from dirty tracking. Tracking
 * can start only after the end of the snapshot. What the guest writes between the instant of the
 * snapshot and the start of tracking is in neither of them, and nothing warns of this. These
 * combinations work today:
 *
 *	- Start tracking first, with hgm_dirty_start(), then take the base. The base is the image
 *	  that the guest was restored from, if the guest has not run yet, or a copy of all its
 *	  memory, during which the guest may continue to run. The base with all diffs is correct as
 *	  of the last collection, if the guest was stopped while that collection was made and while
 *	  the pages in it were copied.
 *	- Use a snapshot as the base, with a guest that is stopped from hgm_snapshot_begin() until
 *	  hgm_snapshot_wait() and hgm_dirty_start() have returned.
 */
#ifndef HGM_DIRTY_H
#define HGM_DIRTY_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

struct hgm_dirty;
struct hgm_region;

/*
 * Report pages of 4 KiB even where memory is mapped huge. Such memory is split, and becomes huge
 * again at the end. This flag does not work for hugetlb in whole blocks.
 */
#define HGM_DIRTY_EXACT 0x1u
/* Count pages that arrive from the source as written. */
#define HGM_DIRTY_ARRIVALS 0x2u
/* Use synchronous tracking even if the kernel can record writes by itself. */
#define HGM_DIRTY_SYNC 0x4u

/**
 * struct hgm_dirty_opts - what to report
 * @size:  sizeof(struct hgm_dirty_opts)
 * @flags: HGM_DIRTY_*
 */
struct hgm_dirty_opts {
	size_t size;
	uint32_t flags;
	uint32_t reserved;
};

/**
 * struct hgm_dirty_info - how a region is tracked
 * @size:          sizeof(struct hgm_dirty_info), set by the caller
 * @unit_bytes:    the largest piece that one write can make dirty: 4096, or the block of hugetlb,
 *                 or 2 MiB where shmem that is mapped huge stays huge
 * @flags:         the HGM_DIRTY_* flags in effect. HGM_DIRTY_SYNC is set if tracking is
 *                 synchronous, whether the caller or the library chose this. HGM_DIRTY_ARRIVALS is
 *                 also set where the kernel cannot tell arrivals from writes (before 6.4, except
 *                 where memory is copied in: anonymous and lazy)
 * @collections:   the number of collections
 * @dirty_pages:   the sum of the dirty pages that all collections found
 * @sentence:      a description in words of which way is used, and why not the other; stays valid
 *                 as long as the object
 */
struct hgm_dirty_info {
	size_t size;
	uint64_t unit_bytes;
	uint32_t flags;
	uint32_t reserved;
	uint64_t collections;
	uint64_t dirty_pages;
	const char *sentence;
};

/**
 * hgm_dirty_start - start recording writes to a region
 * @out:  the new object
 * @r:    the region
 * @opts: NULL for the defaults
 *
 * Writes that occur before it returns may or may not be recorded. No block is collapsed during
 * tracking. Without HGM_DIRTY_EXACT, shmem and hugetlb that are mapped huge stay huge in the
 * asynchronous way.
 *
 * Errors: -EINVAL an argument is NULL, or a flag is unknown; -E2BIG bad options; -EBUSY the region
 * is already under a snapshot, a watch or dirty tracking; -EOPNOTSUPP the kernel cannot protect
 * this memory (anonymous memory before 5.7, other memory before 5.19), another process, whose
 * memory it is, has WP_ASYNC or WP_UNPOPULATED in its userfaultfd, or HGM_DIRTY_EXACT is set for
 * hugetlb in whole blocks; -EPERM tracking would be synchronous, but the engine's userfaultfd
 * serves faults of user mode only (HGM_ALLOW_USER_MODE_ONLY), so system calls and KVM could not
 * write to protected memory; -ENOMEM; -ECANCELED the region is being destroyed, or its process is
 * gone; others as UFFDIO_REGISTER and UFFDIO_WRITEPROTECT say. Memory of another process is tracked
 * synchronously.
 * Calling thread: any. Blocks: 3 to 80 ms per GiB. Since: 0.1.
 */
HGM_PUBLIC int hgm_dirty_start(struct hgm_dirty **out, struct hgm_region *r,
			       const struct hgm_dirty_opts *opts);

/**
 * hgm_dirty_collect - report which pages were written to since they were last collected
 * @d:          dirty tracking
 * @first_page: first page; a multiple of 64
 * @pages:      the number of pages
 * @bitmap:     filled in: 64-bit words, page first_page + i is bit i % 64 of word i / 64 (the
 *              layout of KVM_GET_DIRTY_LOG); bits beyond @pages in the last word are 0
 * @dirty:      NULL, or set to the number of bits that are set
 *
 * From then on these pages count as clean. The guest may run: a page that is written to during the
 * call is in this collection or in the next one.
 *
 * Errors: -EINVAL the range is not inside the region, @first_page is not a multiple of 64, or an
 * argument is NULL; -ECANCELED the region was destroyed; others as UFFDIO_WRITEPROTECT and
 * PAGEMAP_SCAN say: nothing is lost then, the next collection reports the pages.
 * Calling thread: any; one collection at a time, others wait. Blocks; in the synchronous way also
 * for the installations that are under way. Since: 0.1.
 */
HGM_PUBLIC int hgm_dirty_collect(struct hgm_dirty *d, uint64_t first_page, uint64_t pages,
				 uint64_t *bitmap, uint64_t *dirty);

/**
 * hgm_dirty_mark - record a write that the kernel does not show
 * @d:      dirty tracking
 * @offset: first byte that was written to, from the region's start
 * @length: bytes
 *
 * The next collection of these pages reports them. Call this function after the write has ended. If
 * the pages are read while the write is in progress, call it before the write as well.
 *
 * Errors: -EINVAL @d is NULL, or the range is not inside the region.
 * Calling thread: any, hgm_write_fn too. Does not block; wait-free. Since: 0.1.
 */
HGM_PUBLIC int hgm_dirty_mark(struct hgm_dirty *d, uint64_t offset, uint64_t length);

/**
 * hgm_dirty_get_info - report which way is used, and its granularity
 * @d:    dirty tracking
 * @info: filled in; its @size must be set before the call
 *
 * Errors: -EINVAL an argument is NULL, or @size is impossible.
 * Calling thread: any. Does not block but for a collection. Since: 0.1.
 */
HGM_PUBLIC int hgm_dirty_get_info(struct hgm_dirty *d, struct hgm_dirty_info *info);

/**
 * hgm_dirty_stop - end dirty tracking and free the object
 * @d: dirty tracking, or NULL
 *
 * Afterwards nothing is write-protected, and blocks that were split become huge again. Call this
 * function before hgm_destroy() of the engine. hgm_region_destroy() of the region may be called
 * first.
 * Calling thread: any. Blocks for a collection, and some milliseconds per GiB. Since: 0.1.
 */
HGM_PUBLIC void hgm_dirty_stop(struct hgm_dirty *d);

HGM_END_DECLS

#endif /* HGM_DIRTY_H */
