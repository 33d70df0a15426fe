/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/dirty.h - which pages of a region were written to
 *
 *	hgm_dirty_start(&d, r, NULL);
 *	while (...) {
 *		hgm_dirty_collect(d, 0, pages, bitmap, &dirty);	(the guest runs on)
 *		... send the pages of the bitmap ...
 *	}
 *	hgm_dirty_stop(d);
 *
 * A page that was written to is in the bitmap of one of the collections that end after the write,
 * and its contents are read after that collection: what is written later is in the next one. There
 * are two ways, told by hgm_dirty_get_info():
 *
 *	asynchronous	the kernel notes writes by itself (WP_ASYNC and PAGEMAP_SCAN, 6.7): the
 *			first write to a page costs its writer about a microsecond. Only where
 *			everything has arrived when tracking starts
 *	synchronous	the first write to a page waits for a fault thread, as a missing page does
 *
 * Only writes by way of the region's own mapping are seen: by the guest, by KVM for it, by system
 * calls. Who writes by another mapping must note it by itself.
 */
#ifndef HGM_DIRTY_H
#define HGM_DIRTY_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

struct hgm_dirty;
struct hgm_region;

/*
 * Report pages of 4 KiB also where memory is mapped huge: it is split, and becomes huge again at
 * the end. Not of hugetlb in whole blocks.
 */
#define HGM_DIRTY_EXACT 0x1u
/* Pages that arrive from the source count as written. */
#define HGM_DIRTY_ARRIVALS 0x2u
/* Do not leave it to the kernel, though it could: the synchronous way. */
#define HGM_DIRTY_SYNC 0x4u

/**
 * struct hgm_dirty_opts - what shall be reported
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
 * @unit_bytes:    the largest piece that one write can make dirty: 4096; the block of hugetlb;
 *                 2 MiB where shmem that is mapped huge is left so
 * @flags:         HGM_DIRTY_* in force: HGM_DIRTY_SYNC if it is the synchronous way, whoever chose
 *                 it; HGM_DIRTY_ARRIVALS also where the kernel cannot tell arrivals from writes
 *                 (before 6.4, but for anonymous memory)
 * @collections:   how many there were
 * @dirty_pages:   sum of what they found
 * @sentence:      which way, and why not the other, for people; lives as long as the object
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
 * hgm_dirty_start - note writes to a region from now on
 * @out:  the new object
 * @r:    the region
 * @opts: NULL for the defaults
 *
 * What is written before it returns may be noted or not. While it lasts no block is collapsed.
 * Without HGM_DIRTY_EXACT shmem and hugetlb that are mapped huge stay so in the asynchronous way.
 *
 * Errors: -EINVAL an argument is NULL, unknown flags; -E2BIG bad options; -EBUSY the region is
 * under a snapshot, a watch or dirty tracking already; -EOPNOTSUPP the kernel cannot protect that
 * memory (anonymous memory before 5.7, others before 5.19), or HGM_DIRTY_EXACT of hugetlb in whole
 * blocks; -ENOMEM; -ECANCELED the region is being destroyed; others as UFFDIO_REGISTER,
 * UFFDIO_WRITEPROTECT and opening /proc/self/mem say.
 * Calling thread: any. Blocks: 3 to 80 ms per GiB. Since: 0.1.
 */
HGM_PUBLIC int hgm_dirty_start(struct hgm_dirty **out, struct hgm_region *r,
			       const struct hgm_dirty_opts *opts);

/**
 * hgm_dirty_collect - which pages were written to since they were collected last
 * @d:          dirty tracking
 * @first_page: first page; a multiple of 64
 * @pages:      how many
 * @bitmap:     filled in: 64-bit words, page first_page + i is bit i % 64 of word i / 64 (the
 *              layout of KVM_GET_DIRTY_LOG); bits beyond @pages in the last word are 0
 * @dirty:      NULL, or filled in: how many bits are set
 *
 * From here on they count as clean. The guest may run; a page that is written to meanwhile is in
 * this collection or in the next.
 *
 * Errors: -EINVAL the range is not inside the region, @first_page is no multiple of 64, a NULL
 * argument; -ECANCELED the region was destroyed; others as UFFDIO_WRITEPROTECT and PAGEMAP_SCAN
 * say: then nothing is lost, it is in the next collection.
 * Calling thread: any; one collection at a time, others wait. Blocks; in the synchronous way also
 * for the installations that are under way. Since: 0.1.
 */
HGM_PUBLIC int hgm_dirty_collect(struct hgm_dirty *d, uint64_t first_page, uint64_t pages,
				 uint64_t *bitmap, uint64_t *dirty);

/**
 * hgm_dirty_get_info - which way, and how fine
 * @d:    dirty tracking
 * @info: filled in; its @size must be set before the call
 *
 * Errors: -EINVAL a NULL argument or an impossible @size.
 * Calling thread: any. Does not block but for a collection. Since: 0.1.
 */
HGM_PUBLIC int hgm_dirty_get_info(struct hgm_dirty *d, struct hgm_dirty_info *info);

/**
 * hgm_dirty_stop - end dirty tracking and free it
 * @d: dirty tracking, or NULL
 *
 * Nothing is protected afterwards, and blocks that were split become huge again. Before
 * hgm_destroy() of the engine; hgm_region_destroy() of its region may come first.
 * Calling thread: any. Blocks for a collection, and some milliseconds per GiB. Since: 0.1.
 */
HGM_PUBLIC void hgm_dirty_stop(struct hgm_dirty *d);

HGM_END_DECLS

#endif /* HGM_DIRTY_H */
