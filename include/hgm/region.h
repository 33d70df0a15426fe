/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/region.h - a contiguous range of guest memory that libhgm serves
 *
 * A region has a primary mapping, which the guest uses and which is registered with userfaultfd.
 * Where the backing allows it, a region also has an alias: a second mapping of the same memory,
 * through which the library writes contents. A page (4 KiB) is the unit of faults. A block (the
 * backing's huge page, 2 MiB or 1 GiB) is the unit that becomes one huge mapping again when all its
 * pages are present.
 *
 * Memory of the caller may begin and end at any page, also in the middle of a block. All of it is
 * served. A block becomes huge only if the region has all of it. Nothing outside of the region is
 * touched, and another region may have the rest of the block.
 */
#ifndef HGM_REGION_H
#define HGM_REGION_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

struct hgm;
struct hgm_peer;
struct hgm_region;
struct hgm_source;

/**
 * enum hgm_backing - the type of a region's memory
 * @HGM_BACKING_AUTO: the first of these types that this kernel can give and that satisfies
 *	@require, @avoid and @map_bytes_max of the options: hugetlb with high-granularity mapping
 *	(HGM), HGM_BACKING_SHMEM, HGM_BACKING_SHMEM_LAZY, HGM_BACKING_HUGETLB in whole blocks,
 *	HGM_BACKING_ANON
 * @HGM_BACKING_SHMEM: a memfd whose blocks are all made huge before the guest starts ("prepared").
 *	All memory is committed at once, as with hugetlb. A fault waits for 4 KiB only, and a full
 *	block becomes huge again without a copy. Kernel 5.14 (minor faults on shmem), 6.1 for huge
 *	mappings.
 * @HGM_BACKING_SHMEM_LAZY: a memfd whose pages are allocated when they arrive. Nothing is committed
 *	up front, but making a block huge costs a copy. Kernel 5.14, 6.1 for huge mappings.
 * @HGM_BACKING_HUGETLB: a memfd with pages of the system's hugetlb pool, @block_bytes each, which
 *	are allocated before the guest starts. Where the kernel has high-granularity mapping, proven
 *	on a scratch page, a fault waits for 4 KiB only, and full blocks are collapsed. On other
 *	kernels a fault waits for its whole block. Kernel 5.13.
 * @HGM_BACKING_ANON: private anonymous memory. Kernel 4.11; 6.1 for huge mappings.
 * @HGM_BACKING_FD: a memfd, tmpfs or hugetlbfs file of the caller. The library maps @fd from
 *	@fd_offset on. shmem is prepared unless HGM_REGION_LAZY is given.
 * @HGM_BACKING_MAPPING: a mapping of the caller at @addr. For a shared mapping of shmem or hugetlb,
 *	@fd and @fd_offset are required, too. For private anonymous memory @fd is -1. The library
 *	drops what the mapping held. The mapping stays when the region is destroyed.
 * @HGM_BACKING_PEER: memory of another process (hgm/peer.h) at @addr: private anonymous memory,
 *	which the library registers (again) with the userfaultfd of @peer. What it holds already
 *	stays as it is. Without the right to trace the process, the library cannot check what memory
 *	it is. Kernel 5.15; 6.1 for huge mappings.
 */
enum hgm_backing {
	HGM_BACKING_AUTO = 0,
	HGM_BACKING_SHMEM = 1,
	HGM_BACKING_SHMEM_LAZY = 2,
	HGM_BACKING_HUGETLB = 3,
	HGM_BACKING_ANON = 4,
	HGM_BACKING_FD = 5,
	HGM_BACKING_MAPPING = 6,
	HGM_BACKING_PEER = 7,
};

/* HGM_BACKING_FD and HGM_BACKING_MAPPING: do not allocate shmem pages before they arrive. */
#define HGM_REGION_LAZY 0x1u
/* Fetch only pages that are touched or prefetched. hgm_wait() then waits only for these. */
#define HGM_REGION_NO_FILL 0x2u
/*
 * Do not collapse blocks. Pages that were mapped one by one stay so. (With high-granularity
 * mapping, fill maps 2 MiB at a time where no page has been touched.)
 */
#define HGM_REGION_NO_COLLAPSE 0x4u
/*
 * Collapse nothing before hgm_region_collapse() is called. The collapse of a block of 1 GiB stops
 * every thread that touches the block, until the collapse ends. Before that call, hgm_wait() does
 * not wait for collapses.
 */
#define HGM_REGION_DEFER_COLLAPSE 0x8u

/* Properties that the memory must have (struct hgm_region_opts, @require) */
#define HGM_REQUIRE_HUGETLB 0x1u /* pages of the hugetlb pool */
#define HGM_REQUIRE_SHARED  0x2u /* a file behind it, which other processes can map (vhost-user) */
#define HGM_REQUIRE_HUGE    0x4u /* full blocks can become huge mappings */

/* Properties that the memory must not have (@avoid) */
#define HGM_AVOID_COMMIT  0x1u /* memory that is allocated before contents arrive */
#define HGM_AVOID_HUGETLB 0x2u /* pages of the hugetlb pool */
#define HGM_AVOID_HGM	  0x4u /* high-granularity mapping, even if the kernel has it */

/**
 * struct hgm_region_opts - options of a region
 * @size:          sizeof(struct hgm_region_opts)
 * @length:        bytes; a multiple of 4096, for hugetlb a multiple of the block. HGM_BACKING_AUTO
 *                 does not use hugetlb if the length is not a multiple of the block. A block that
 *                 the region does not have all of cannot become huge. Prepared shmem of the library
 *                 has all of its last block, because it is rounded up
 * @source:        where contents come from; required
 * @source_offset: offset of the region's first byte in the source; a multiple of 4096
 * @backing:       enum hgm_backing
 * @flags:         HGM_REGION_*
 * @block_bytes:   0 for 2 MiB; for hugetlb, 1 GiB is also possible. With HGM_BACKING_FD and
 *                 HGM_BACKING_MAPPING the file determines the size, and any value other than 0 or
 *                 that size is rejected
 * @fd:            HGM_BACKING_FD, HGM_BACKING_MAPPING: the file, open for reading and writing. The
 *                 library duplicates the descriptor, so the caller may close it. Seal the file with
 *                 F_SEAL_SHRINK: if it is truncated, a thread that touches memory beyond its new
 *                 end gets SIGBUS, and so does the guest. Pages beyond the end that have not
 *                 arrived by then are given up. Unless the file is sealed, contents from a function
 *                 or from memory are copied one more time on their way in
 * @fd_offset:     offset in the file at which the region begins; a multiple of 4096, for hugetlb a
 *                 multiple of the block. HGM_BACKING_FD: the library chooses an address with the
 *                 same remainder modulo the block
 * @addr:          HGM_BACKING_MAPPING: the mapping, a multiple of 4096, for hugetlb a multiple of
 *                 the block; @length bytes of it, not registered with another userfaultfd. The
 *                 kernel maps a block of a file huge only if @addr and @fd_offset have the same
 *                 remainder modulo the block. Otherwise all of the region stays in small pages,
 *                 and HGM_REQUIRE_HUGE is rejected. HGM_BACKING_PEER: the address in the other
 *                 process, a multiple of 4096
 * @map_bytes_max: the largest piece that a fault may wait for: 0 for any size, or a power of two,
 *                 at least 4096
 * @require:       HGM_REQUIRE_*
 * @avoid:         HGM_AVOID_*
 * @peer:          HGM_BACKING_PEER: the process that has the memory, of the same engine
 *
 * HGM_REQUIRE_HUGETLB with a @map_bytes_max of 4096 means high-granularity mapping or nothing.
 *
 * The library checks @map_bytes_max, @require and @avoid before it allocates anything. They
 * determine which backing HGM_BACKING_AUTO selects. If the caller names a backing that does not
 * satisfy them, it is rejected.
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
	struct hgm_peer *peer;
};

/**
 * struct hgm_region_info - type and state of a region
 * @size:           sizeof(struct hgm_region_info), set by the caller
 * @addr:           the primary mapping; for HGM_BACKING_PEER, an address of the other process
 * @length:         bytes
 * @block_bytes:    the size of the backing's huge page
 * @map_bytes:      map granularity: the smallest piece that a fault waits for, 4096 or @block_bytes
 * @backing:        enum hgm_backing: the actual type of the memory (never AUTO, FD, MAPPING or
 *                  PEER)
 * @flags:          HGM_REGION_*, as the caller gave them
 * @present_bytes:  bytes whose contents have arrived
 * @huge_bytes:     bytes of @length that are mapped by huge leaves, as verified after each collapse
 * @poisoned_bytes: bytes that were given up because the source failed, or because the kernel
 *                  refuses to map them. Touching them raises SIGBUS. On hugetlb in whole blocks,
 *                  touching the rest of their block does so, too. On hugetlb with high-granularity
 *                  mapping, and before kernel 6.6, such pages stay missing and are not counted,
 *                  except those beyond the end of a truncated file
 * @blocks:         number of blocks in the region, including a first and a last one of which it has
 *                  only a part
 * @left_split:     blocks that are full but not mapped huge, because collapsing them was given up
 * @collapse_error: the last error of the kernel when it did not collapse a block: a negative errno,
 *                  or 0 if there was none. It is also -EAGAIN if the kernel reported success but
 *                  had not collapsed the block
 * @user_mode_only: 1 if the engine serves only faults of user mode (HGM_ALLOW_USER_MODE_ONLY), so
 *                  that KVM guests and system calls that touch absent memory fail with EFAULT;
 *                  otherwise 0
 * @protect_bytes:  the unit of write-protection (hgm/protect.h): 4096 or @block_bytes. Before 6.4,
 *                  shared memory that is not copied in cannot be mapped write-protected when it
 *                  arrives. So if a block was not complete when it was protected, the mapping of
 *                  its pages is treated as a write. For example, a watch is asked for its verdict
 *                  before a page is mapped
 * @huge_bytes_max: bytes of @length that can become huge: what @huge_bytes is at most. These are
 *                  the blocks that the region has all of, if they are aligned in the file, too; 0
 *                  with HGM_REGION_NO_COLLAPSE, except for hugetlb in whole blocks, and where the
 *                  library may not make memory of another process huge
 * @sentence:       a text for people: which type of memory the region got and why, which blocks
 *                  cannot become huge and why, and why no better type was available; valid as long
 *                  as the region exists
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
	uint64_t huge_bytes_max;
};

/**
 * hgm_region_create - create guest memory whose contents come from a source
 * @out:  the new region
 * @h:    the engine that serves it
 * @opts: required: length and source at least
 *
 * The memory is allocated according to the backing, registered, and excluded from fork
 * (MADV_DONTFORK) unless it is a mapping of the caller or memory of another process. The library's
 * own memory is aligned to its block in address and file offset. The memory may be given to KVM at
 * once. Faults are served from hgm_start() on, or at once if the engine is already running.
 *
 * Errors:
 *  -EINVAL   there is no source; the length is zero; a length, an offset or @addr is not aligned or
 *            overflows; a backing or a flag is unknown; flags contradict each other; the source is
 *            shorter than the region; the source lies in a region of this engine; a descriptor or a
 *            mapping is not what the backing requires; @block_bytes or @map_bytes_max has a value
 *            that is not possible; an option is for another backing; @reserved is not 0
 *  -E2BIG    @opts is from a newer libhgm and uses an option that this one does not know
 *  -EBADF    @fd is not open for reading and writing
 *  -EBUSY    the mapping is registered with another userfaultfd, or a region of this engine already
 *            has this memory or this part of the file
 *  -EFBIG    the region needs a memfd that is larger than RLIMIT_FSIZE
 *  -ENOMEM   the pool has no free huge pages, or there is not enough memory; the text says which
 *  -ENOSPC   the engine already has 1024 regions
 *  -ESRCH    the process of @peer is gone
 *  -EOPNOTSUPP this kernel cannot serve the backing, or no backing satisfies @require, @avoid and
 *            @map_bytes_max; the text names each type that was tried, with the reason
 *  others    as mmap(2), memfd_create(2) and UFFDIO_REGISTER say
 * After an error nothing is left behind, but a mapping of the caller may have lost its pages.
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
 * Waits until the source has answered all requests (see struct hgm_source_fn_opts, @cancel). When
 * it returns, no call of the source for this region is running. A snapshot of the region ends then,
 * too, and the function waits for the sink's running call.
 *
 * Threads that still wait for a page of the region, or touch one later, get SIGSEGV (a vCPU gets
 * EFAULT from KVM_RUN), and never wrong contents. With HGM_BACKING_MAPPING the mapping stays,
 * unregistered. Pages that have arrived keep their contents. All other pages raise SIGBUS if the
 * kernel can poison (6.6). If it cannot, the whole mapping becomes PROT_NONE, unless everything has
 * arrived. With HGM_BACKING_PEER the memory is unregistered if everything has arrived. Otherwise it
 * stays registered, and a thread of that process that touches a missing page waits until another
 * handler serves it.
 *
 * Calling thread: any but the library's own and hgm_read_fn. Blocks as described. Since: 0.1.
 */
HGM_PUBLIC void hgm_region_destroy(struct hgm_region *r);

/**
 * hgm_region_addr - the address that the guest uses
 *
 * Return: the primary mapping; block aligned, unless @fd_offset or @addr was not. NULL if @r is
 * NULL.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC void *hgm_region_addr(const struct hgm_region *r);

/**
 * hgm_region_length - length of the region in bytes, as given to hgm_region_create()
 *
 * Return: the length; 0 if @r is NULL.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC uint64_t hgm_region_length(const struct hgm_region *r);

/**
 * hgm_region_get_info - type and state of a region
 * @r:    the region
 * @info: filled in; its @size must be set before the call. If the caller's struct is shorter than
 *        the library's, fields that do not fit are left out. If it is longer, the rest is set to
 *        zero.
 *
 * Each count is read separately, without stopping anything.
 *
 * Errors: -EINVAL an argument is NULL or @size is invalid.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_get_info(const struct hgm_region *r, struct hgm_region_info *info);

/**
 * hgm_region_prefetch - fetch a range before other fill
 * @r:      the region
 * @offset: bytes from the region's start; rounded down to 4096, or to the block where hugetlb is
 *          mapped by whole blocks
 * @length: bytes; rounded up likewise
 *
 * Ranges are filled in the order of the calls. They come before the region's sequential fill, but
 * after demand. At most 4096 ranges wait at a time.
 *
 * Errors: -EINVAL the range is empty or not inside the region; -ENOBUFS 4096 ranges are waiting
 * already (nothing was changed).
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_prefetch(struct hgm_region *r, uint64_t offset, uint64_t length);

/**
 * hgm_region_put - supply contents that the library did not ask for
 * @r:      the region
 * @offset: where they belong, from the region's start; a multiple of 4096
 * @buf:    the contents; NULL for zeroes
 * @length: bytes; a multiple of 4096
 *
 * The function is meant for the background stream of a migration, or for contents that the caller
 * has anyway. The first to supply a page wins. The call does not change pages that have arrived,
 * that the source has already been asked for, that were discarded or given up, or that lie beyond
 * the end of a truncated file. It wakes threads that wait for a page that is taken. The library
 * does not use @buf after the call.
 *
 * Return: the number of bytes that were taken, or
 *  -EINVAL    @r is NULL, the range is not aligned or not inside the region, or the engine was not
 *             started
 *  -EDEADLK   the function was called from a callback of the engine (hgm_read_fn, hgm_write_fn)
 *  -ECANCELED the region is being destroyed and nothing was taken
 * Calling thread: any but the library's own; several at a time may put into one region. Blocks
 * while contents are copied, and while there is no memory for contents that were put before.
 * Since: 0.1.
 */
HGM_PUBLIC int64_t hgm_region_put(struct hgm_region *r, uint64_t offset, const void *buf,
				  uint64_t length);

/* Fetch nothing until fill is set again without this flag (struct hgm_fill_opts, @flags). */
#define HGM_FILL_PAUSED 0x1u

/**
 * enum hgm_fill_order - what fill fetches first
 * @HGM_FILL_ASCENDING:   from the start of the region to its end
 * @HGM_FILL_NEAR_FAULTS: first the 2 MiB around the last page that a thread had to wait for,
 *                        otherwise as HGM_FILL_ASCENDING
 */
enum hgm_fill_order {
	HGM_FILL_ASCENDING = 0,
	HGM_FILL_NEAR_FAULTS = 1,
};

/**
 * struct hgm_fill_opts - how to fill
 * @size:       sizeof(struct hgm_fill_opts)
 * @flags:      HGM_FILL_PAUSED or 0
 * @order:      enum hgm_fill_order; for an engine it must be HGM_FILL_ASCENDING
 * @rate_bytes: the maximum number of bytes that fill requests in a second, on average over some
 *              10 ms; 0 for no limit
 *
 * Here fill is everything that no thread waits for: sequential fill and prefetched ranges. Pages
 * that a thread waits for are fetched at once and do not count. What a snapshot reads does not
 * count either.
 */
struct hgm_fill_opts {
	size_t size;
	uint32_t flags;
	uint32_t order;
	uint64_t rate_bytes;
};

/**
 * hgm_region_set_fill - set the rate and the order of a region's fill, or pause it
 * @r:    the region
 * @opts: replaces the previous settings; NULL for the defaults: not paused, no limit, ascending
 *
 * May be called at any time, also before hgm_start(). Requests that were sent to the source before
 * the call are not withdrawn. hgm_set_fill() limits all regions of an engine together; if both
 * limit a region, the stricter limit counts. hgm_wait() waits for a region whose fill is paused,
 * too.
 *
 * Errors: -EINVAL @r is NULL, a flag or the order is unknown, or @size is invalid; -E2BIG @opts is
 * from a newer libhgm and uses an option that this one does not know.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_set_fill(struct hgm_region *r, const struct hgm_fill_opts *opts);

/**
 * hgm_set_fill - set the rate of the fill of all regions together, or pause it
 * @h:    the engine
 * @opts: as for hgm_region_set_fill(), but the order must be HGM_FILL_ASCENDING, because only a
 *        region has an order
 *
 * Errors: -EINVAL @h is NULL, otherwise as hgm_region_set_fill(); -E2BIG likewise.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_set_fill(struct hgm *h, const struct hgm_fill_opts *opts);

/**
 * hgm_region_discard - drop memory, as a balloon, free page reporting or hot-unplug does
 * @r:      the region
 * @offset: first byte, from the region's start; a multiple of 4096
 * @length: bytes; a multiple of 4096; 0 does nothing
 *
 * The range reads as zeroes until it is written to. What is written to it before the function
 * returns may be lost. The library no longer fetches pages of the range that have not arrived, and
 * drops what the source supplies for them later. Memory goes back to the system in pages of 4 KiB.
 * hugetlb memory goes back in whole huge pages; parts of a huge page are only set to zero. A block
 * with holes is not collapsed until the guest has used the holes again.
 *
 * A snapshot in progress gets what the range held at the instant of the snapshot, which may take as
 * long as the sink takes to make room. Dirty tracking reports the pages. Poisoned pages are no
 * longer poisoned. For hugetlb in whole blocks, a block stays poisoned until the last of its pages
 * that were given up is discarded. A watch is asked for its verdict, as if the guest wrote to the
 * range.
 *
 * libhgm_discard(7) describes what happens to memory that is dropped by other means.
 *
 * Errors: -EINVAL @r is NULL, or the range is not aligned or not inside the region; -EBUSY a watch
 * makes writes to some of the pages wait, and nothing was dropped; -EOPNOTSUPP it is memory of
 * another process, which drops it itself; -EDEADLK the function was called from a callback of the
 * engine (hgm_read_fn on a fault thread, hgm_write_fn, hgm_sink_fn); others as madvise(2) for
 * anonymous memory and fallocate(2) say, in which case parts of the range may not have been
 * dropped.
 * Calling thread: any but the library's own and hgm_read_fn; not while holding what a callback of
 * the engine waits for. Blocks until the events of the discard are read, and for a snapshot as
 * described. If pages of anonymous memory or HGM_BACKING_SHMEM_LAZY are being fetched, also blocks
 * until the threads that are installing pages at that moment have done so. For shmem, sleeps for up
 * to 13 ms, and drops again, if the file still has memory there: the kernel could not give it back
 * at once, or a thread has touched it since. Since: 0.1; kernel 3.5.
 */
HGM_PUBLIC int hgm_region_discard(struct hgm_region *r, uint64_t offset, uint64_t length);

/**
 * hgm_region_retry - ask again for pages that were given up
 * @r: the region
 *
 * The function is meant for a source that works again after it was away for longer than the limit
 * (@outage_ms of struct hgm_opts). Pages that were poisoned because the source failed become
 * absent. A thread that touches such a page waits, as for any absent page, and fill fetches the
 * page again. Pages that the kernel refused to map stay poisoned. Requests that wait to be tried
 * again are tried at once.
 *
 * A SIGBUS that a thread has already got for such a page is not undone. A thread that touches the
 * page while the call runs may still get SIGBUS.
 *
 * Errors: -EINVAL @r is NULL; -EOPNOTSUPP it is memory of another process; -ENOMEM (nothing was
 * changed); what madvise(2) says, in which case the first page that could not be unmapped, and all
 * poisoned pages after it, stay poisoned.
 * Calling thread: any. Blocks for a grace period, some milliseconds. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_retry(struct hgm_region *r);

/**
 * hgm_region_collapse - collapse full blocks from now on
 * @r: the region
 *
 * From now on, the engine's collapse threads collapse the blocks that are full, and collapse other
 * blocks when they become full. hgm_wait() then waits for these collapses. The call also looks once
 * more at blocks that were left split, because no huge page was available or because they have
 * holes. hgm_wait() does not wait for these blocks. The engine itself looks at them every minute.
 *
 * For hugetlb in whole blocks, there is nothing to do.
 *
 * Errors: -EINVAL @r is NULL; -EOPNOTSUPP the region was created with HGM_REGION_NO_COLLAPSE.
 * Calling thread: any. Does not block; looks at each block once. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_collapse(struct hgm_region *r);

/**
 * hgm_region_export - which pages have arrived
 * @r:          the region
 * @first_page: first page; a multiple of 64
 * @pages:      number of pages
 * @bitmap:     filled in with 64-bit words: page first_page + i is bit i % 64 of word i / 64 (the
 *              layout of KVM's dirty log); bits beyond @pages in the last word are 0
 *
 * If pages arrive during the call, each word shows the true state at some moment of the call.
 *
 * Errors: -EINVAL the range is not inside the region, or @first_page is not a multiple of 64.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_export(const struct hgm_region *r, uint64_t first_page, uint64_t pages,
				 uint64_t *bitmap);

/**
 * hgm_region_import - declare that pages have arrived
 * @r:          the region, of HGM_BACKING_FD, or of HGM_BACKING_MAPPING with a file, whose file
 *              holds the contents already
 * @first_page: first page; a multiple of 64
 * @pages:      number of pages
 * @bitmap:     as hgm_region_export() fills it in
 *
 * Use the function to resume an interrupted transfer. Call it before the guest touches the region
 * and before hgm_start(). It does not change pages that are already claimed.
 *
 * Errors: -EINVAL as hgm_region_export(); -EOPNOTSUPP the backing cannot hold contents from before;
 * -EBUSY the engine has been started; -ENOMEM.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_region_import(struct hgm_region *r, uint64_t first_page, uint64_t pages,
				 const uint64_t *bitmap);

HGM_END_DECLS

#endif /* HGM_REGION_H */
