/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/region.h - a stretch of guest memory that libhgm serves
 *
 * A region has a primary mapping, which the guest uses and which is registered with userfaultfd,
 * and, where the backing allows it, an alias: a second mapping of the same memory through which
 * the library writes contents. Pages (4 KiB) are the unit of faults; blocks (the backing's huge
 * page, 2 MiB or 1 GiB) are what becomes one huge mapping again when all their pages are present.
 */
#ifndef HGM_REGION_H
#define HGM_REGION_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

struct hgm;
struct hgm_region;
struct hgm_source;

/**
 * enum hgm_backing - what a region's memory is
 * @HGM_BACKING_AUTO: the first of these that this kernel can give and that does what @require,
 *	@avoid and @map_bytes_max of the options say: hugetlb with high-granularity mapping (HGM),
 *	HGM_BACKING_SHMEM, HGM_BACKING_SHMEM_LAZY, HGM_BACKING_HUGETLB in whole blocks,
 *	HGM_BACKING_ANON
 * @HGM_BACKING_SHMEM: a memfd whose blocks are all made huge before the guest starts ("prepared").
 *	Commits all memory at once, as hugetlb does; faults cost 4 KiB; becomes huge again without
 *	copying. Needs kernel 5.14 (minor faults on shmem), 6.1 for huge mappings.
 * @HGM_BACKING_SHMEM_LAZY: a memfd whose pages are allocated as they arrive. Nothing is committed
 *	up front; becoming huge costs a copy. Kernel 5.14, 6.1 for huge mappings.
 * @HGM_BACKING_HUGETLB: a memfd of hugetlb pages from the system's pool, @block_bytes each,
 *	allocated before the guest starts. Where the kernel has high-granularity mapping, proven on
 *	a scratch page, faults cost 4 KiB and full blocks are collapsed; elsewhere a fault waits for
 *	its whole block. Kernel 5.13.
 * @HGM_BACKING_ANON: private anonymous memory. Kernel 4.11; 6.1 for huge mappings.
 * @HGM_BACKING_FD: the caller's memfd, tmpfs or hugetlbfs file, @fd from @fd_offset on, mapped by
 *	the library. shmem is prepared unless HGM_REGION_LAZY.
 * @HGM_BACKING_MAPPING: the caller's own mapping at @addr. Shared mappings of shmem or hugetlb need
 *	@fd and @fd_offset too; anonymous private memory says fd = -1. What the mapping held is
 *	dropped, and the mapping stays when the region is destroyed.
 */
enum hgm_backing {
	HGM_BACKING_AUTO = 0,
	HGM_BACKING_SHMEM = 1,
	HGM_BACKING_SHMEM_LAZY = 2,
	HGM_BACKING_HUGETLB = 3,
	HGM_BACKING_ANON = 4,
	HGM_BACKING_FD = 5,
	HGM_BACKING_MAPPING = 6,
};

/* HGM_BACKING_FD and HGM_BACKING_MAPPING: do not allocate shmem pages before they arrive. */
#define HGM_REGION_LAZY 0x1u
/* Do not fetch what nobody has touched or prefetched. hgm_wait() then waits only for the rest. */
#define HGM_REGION_NO_FILL 0x2u
/*
 * Do not collapse: pages that were mapped one by one stay so. (With high-granularity mapping fill
 * maps 2 MiB at a time where nobody has touched.)
 */
#define HGM_REGION_NO_COLLAPSE 0x4u
/*
 * Collapse nothing before hgm_region_collapse() is called: collapsing a block of 1 GiB stops
 * everybody who touches it for its whole length. hgm_wait() then does not wait for it.
 */
#define HGM_REGION_DEFER_COLLAPSE 0x8u

/* What the memory must be (struct hgm_region_opts, @require) */
#define HGM_REQUIRE_HUGETLB 0x1u /* pages of the hugetlb pool */
#define HGM_REQUIRE_SHARED  0x2u /* a file behind it, which other processes can map (vhost-user) */
#define HGM_REQUIRE_HUGE    0x4u /* full blocks can become huge mappings */

/* What it must not be (@avoid) */
#define HGM_AVOID_COMMIT  0x1u /* memory allocated before it arrives */
#define HGM_AVOID_HUGETLB 0x2u /* pages of the hugetlb pool */
#define HGM_AVOID_HGM	  0x4u /* high-granularity mapping, though the kernel has it */

/**
 * struct hgm_region_opts - what a region shall be
 * @size:          sizeof(struct hgm_region_opts)
 * @length:        bytes; a multiple of 4096, of the block for hugetlb (HGM_BACKING_AUTO takes no
 *                 hugetlb otherwise). A last block that is not whole cannot be huge, but with
 *                 prepared shmem, which is rounded up
 * @source:        where contents come from; required
 * @source_offset: the region's first byte, counted from the start of the source; a multiple of 4096
 * @backing:       enum hgm_backing
 * @flags:         HGM_REGION_*
 * @block_bytes:   0 for 2 MiB; hugetlb also 1 GiB. With HGM_BACKING_FD and HGM_BACKING_MAPPING it
 *                 is what the file has, and anything but 0 or that is refused
 * @fd:            HGM_BACKING_FD, HGM_BACKING_MAPPING: the file, open for reading and writing; it
 *                 is duplicated, so the caller may close it
 * @fd_offset:     a multiple of the block
 * @addr:          HGM_BACKING_MAPPING: the mapping, block aligned; length bytes of it, not
 *                 registered with another userfaultfd
 * @map_bytes_max: the largest piece that a fault may wait for: 0 for any, or a power of two, 4096
 *                 at least
 * @require:       HGM_REQUIRE_*
 * @avoid:         HGM_AVOID_*
 *
 * HGM_REQUIRE_HUGETLB with a @map_bytes_max of 4096 is high-granularity mapping or nothing.
 *
 * @map_bytes_max, @require and @avoid are looked at before anything is allocated. They decide what
 * HGM_BACKING_AUTO becomes; a backing that was named and does not satisfy them is refused.
 */
struct hgm_region_opts {
	size_t size;
	uint64_t length;
	struct hgm_source *source;
	uint64_t source_offset;
	uint32_t backing;
	uint32_t flags;
	uint64_t block_bytes;
	int fd;
	uint32_t reserved;
	uint64_t fd_offset;
	void *addr;
	uint64_t map_bytes_max;
	uint32_t require;
	uint32_t avoid;
};

/**
 * struct hgm_region_info - what a region got, and how far it is
 * @size:           sizeof(struct hgm_region_info), set by the caller
 * @addr:           the primary
 * @length:         bytes
 * @block_bytes:    the backing's huge page
 * @map_bytes:      map granularity: the smallest piece that a fault waits for, 4096 or @block_bytes
 * @backing:        enum hgm_backing: what the memory really is (never AUTO, FD or MAPPING)
 * @flags:          HGM_REGION_* as asked for
 * @present_bytes:  contents that have arrived
 * @huge_bytes:     of @length, mapped by huge leaves, as verified after each collapse
 * @poisoned_bytes: given up: the source failed, and touching it raises SIGBUS; of hugetlb in whole
 *                  blocks the rest of the block, too. Never more than 0 on hugetlb with
 *                  high-granularity mapping, and before kernel 6.6: there pages stay missing
 * @blocks:         how many blocks the region has
 * @left_split:     of these, full but given up on: not mapped huge
 * @collapse_error: what the kernel said last when it would not collapse a block: a negative errno,
 *                  -EAGAIN also if it said yes and had not; 0 for never
 * @user_mode_only: 1: its engine serves faults of user mode only (HGM_ALLOW_USER_MODE_ONLY): KVM
 *                  guests and system calls that touch absent memory fail with EFAULT; else 0
 * @protect_bytes:  the unit of write-protection (hgm/protect.h): 4096, or @block_bytes. Before
 *                  6.4 shared memory cannot be mapped protected while it arrives: whoever guards it
 *                  is asked before a page of a block is mapped that was not all there
 * @sentence:       what it is, why, and why it is nothing better, for people; lives as long as the
 *                  region
 */
struct hgm_region_info {
	size_t size;
	void *addr;
	uint64_t length;
	uint64_t block_bytes;
	uint64_t map_bytes;
	uint32_t backing;
	uint32_t flags;
	uint64_t present_bytes;
	uint64_t huge_bytes;
	uint64_t poisoned_bytes;
	uint64_t blocks;
	uint64_t left_split;
	const char *sentence;
	int collapse_error;
	uint32_t user_mode_only;
	uint64_t protect_bytes;
};

/**
 * hgm_region_create - make guest memory whose contents come from a source
 * @out:  the new region
 * @h:    the engine that serves it
 * @opts: required: length and source at least
 *
 * The memory is allocated as the backing says, aligned to its block in address and file offset,
 * registered, and excluded from fork (MADV_DONTFORK) unless it is the caller's mapping. It may be
 * given to KVM at once; touches are served from hgm_start() on, at once if the engine runs.
 *
 * Errors:
 *  -EINVAL   no source, a length or offset that is zero, unaligned or overflowing, an unknown
 *            backing or flag, a source shorter than the region, a source that lies in a region of
 *            this engine, a descriptor or mapping that is not what the backing says
 *  -E2BIG    @opts is from a newer libhgm and asks for something that this one does not know
 *  -EBADF    @fd is not open for reading and writing
 *  -EBUSY    the mapping is registered with another userfaultfd
 *  -ENOMEM   no huge pages free in the pool, or no memory; the text says which
 *  -ENOSPC   the engine has 1024 regions already
 *  -EOPNOTSUPP this kernel cannot serve that backing, or nothing satisfies @require, @avoid and
 *            @map_bytes_max; the text names what was tried, and for each the reason
 *  others    as mmap(2), memfd_create(2) and UFFDIO_REGISTER say
 * After an error nothing is left behind; a caller's mapping may have lost its pages.
 *
 * Calling thread: any. Blocks while memory is allocated (prepared shmem and hugetlb: about 0.1 to
 * 2 ms per 2 MiB). Since: 0.1.
 */
HGM_PUBLIC int hgm_region_create(struct hgm_region **out, struct hgm *h,
				 const struct hgm_region_opts *opts);

/**
 * hgm_region_destroy - stop serving a region and free its memory
 * @r: the region, or NULL
 *
 * Waits until the source has answered what it was asked (see struct hgm_source_fn_opts, cancel);
 * when it returns no call of the source for this region is running. Of a snapshot, which ends then,
 * it waits for the sink's running call.
 * Threads that still wait for a page of it, or touch it later, get SIGSEGV (a vCPU: EFAULT from
 * KVM_RUN), never wrong bytes. With HGM_BACKING_MAPPING the mapping stays, unregistered: pages that
 * have arrived keep their contents, all others raise SIGBUS where the kernel can poison (6.6), else
 * the whole mapping is made PROT_NONE unless everything had arrived.
 *
 * Calling thread: any but hgm_read_fn and hgm_sink_fn. Blocks as said. Since: 0.1.
 */
HGM_PUBLIC void hgm_region_destroy(struct hgm_region *r);

/**
 * hgm_region_addr - the address that the guest uses
 *
 * Return: the primary mapping; block aligned. NULL if @r is NULL.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC void *hgm_region_addr(const struct hgm_region *r);

/**
 * hgm_region_length - bytes from hgm_region_addr() on, as asked for
 *
 * Return: the length; 0 if @r is NULL.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC uint64_t hgm_region_length(const struct hgm_region *r);

/**
 * hgm_region_get_info - what the region got, why, and how far it is
 * @r:    the region
 * @info: filled in; its @size must be set before the call. Fields that the caller's struct is too
 *        short for are left out, those it has beyond this library's are zeroed.
 *
 * The counts are read without stopping anything, each by itself.
 *
 * Errors: -EINVAL a NULL argument or an impossible @size.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_get_info(const struct hgm_region *r, struct hgm_region_info *info);

/**
 * hgm_region_prefetch - fetch a range before other fill
 * @r:      the region
 * @offset: bytes from the region's start; rounded down to 4096
 * @length: bytes; rounded up to 4096
 *
 * Ranges are filled in the order in which they were asked for, before the region's sequential fill,
 * behind demand. At most 4096 of them wait at a time.
 *
 * Errors: -EINVAL the range is empty or not inside the region; -ENOBUFS 4096 ranges wait already
 * (nothing was changed).
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_prefetch(struct hgm_region *r, uint64_t offset, uint64_t length);

/**
 * hgm_region_collapse - collapse full blocks from now on
 * @r: the region; of HGM_REGION_DEFER_COLLAPSE, else nothing is left to do
 *
 * Blocks that are full already are collapsed by the engine's collapser thread, those that become
 * full later as they do. hgm_wait() waits for them from now on.
 *
 * Of hugetlb in whole blocks nothing is left to do either.
 *
 * Errors: -EINVAL @r is NULL; -EOPNOTSUPP the region was made with HGM_REGION_NO_COLLAPSE.
 * Calling thread: any. Does not block; looks at each block once. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_collapse(struct hgm_region *r);

/**
 * hgm_region_export - which pages have arrived
 * @r:          the region
 * @first_page: first page; a multiple of 64
 * @pages:      how many
 * @bitmap:     filled in: 64-bit words, page first_page + i is bit i % 64 of word i / 64 (the
 *              layout of KVM's dirty log); bits beyond @pages in the last word are 0
 *
 * While pages arrive, each word is a true state of some moment during the call.
 *
 * Errors: -EINVAL the range is not inside the region, @first_page is no multiple of 64.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_export(const struct hgm_region *r, uint64_t first_page, uint64_t pages,
				 uint64_t *bitmap);

/**
 * hgm_region_import - declare pages as having arrived
 * @r:          the region, of HGM_BACKING_FD or of HGM_BACKING_MAPPING with fd, whose file holds
 *              the contents already
 * @first_page: first page; a multiple of 64
 * @pages:      how many
 * @bitmap:     as hgm_region_export() gives it
 *
 * For going on with an interrupted transfer: call it before the guest touches the region and
 * before hgm_start(). Pages that are claimed already are left as they are.
 *
 * Errors: -EINVAL as hgm_region_export(); -EOPNOTSUPP the backing cannot hold contents from before;
 * -EBUSY the engine has been started; -ENOMEM.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_import(struct hgm_region *r, uint64_t first_page, uint64_t pages,
				 const uint64_t *bitmap);

HGM_END_DECLS

#endif /* HGM_REGION_H */
