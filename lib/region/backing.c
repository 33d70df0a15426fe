/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A region's memory: file, primary and alias, aligned to the block in address and file offset.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "hgm.h"
#include "kernel/sys.h"
#include "source/source.h"
#include "uffd/smaps.h"
#include "util/error.h"

#define MIB2 (UINT64_C(2) << 20)

static unsigned int log2_of(uint64_t power)
{
	return (unsigned int)__builtin_ctzll(power);
}

/* Reserve address space for @len bytes at a multiple of @align, with nothing in it yet. */
static int reserve_aligned(char **out, uint64_t len, uint64_t align)
{
	uint64_t head;
	void *raw;
	int rc;

	if (len + align < len)
		return -ENOMEM;
	rc = hgm_sys->mmap(&raw, NULL, len + align, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (rc)
		return rc;
	head = -(uintptr_t)raw & (align - 1);
	if (head)
		hgm_sys->munmap(raw, head);
	*out = (char *)raw + head;
	hgm_sys->munmap(*out + len, align - head);
	return 0;
}

/*
 * Make one mapping of the region's memory: the primary or the alias. *out: the address of page 0.
 * The first page that is mapped may be a later one: margins.c.
 */
static int map_one(struct hgm_region *r, char **out, const char *what)
{
	int flags = r->fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	void *mapped;
	int rc;

	if (r->backing != HGM_BACKING_HUGETLB) /* hugetlb: the reservation guarantees the pages */
		flags |= MAP_NORESERVE;
	/* Nothing may be populated before it arrives. The alias maps the same memory. */
	flags |= r->view.start ? HGM_MAP_UNLOCKED : HGM_MAP_LOCK_PRESENT;
	rc = reserve_aligned(out, r->mapped, r->block_bytes);
	if (rc) {
		*out = NULL;
		return hgm_fail(
			rc, "no address space for the %s, %llu bytes: %s%s%s", what,
			(unsigned long long)r->mapped, hgm_errno_name(rc),
			rc == -ENOMEM ? " (" HGM_AREAS_HINT ")" : "",
			r->view.start
				? " (all memory but anon is mapped twice; use shorter regions)"
				: "");
	}
	rc = hgm_sys->mmap(&mapped, *out + r->head, hgm_region_mapped(r), PROT_READ | PROT_WRITE,
			   flags | MAP_FIXED, r->fd, r->fd_offset);
	if (rc) {
		hgm_sys->munmap(*out, r->mapped);
		*out = NULL;
		if (rc == -ENOMEM && r->backing == HGM_BACKING_HUGETLB)
			return hgm_fail(rc,
					"mapping the %s: not enough free huge pages: %llu pages of "
					"%llu kB are "
					"needed; reserve them in /sys/kernel/mm/hugepages/"
					"hugepages-%llukB/nr_hugepages, or use another backing",
					what, (unsigned long long)r->blocks,
					(unsigned long long)r->block_bytes >> 10,
					(unsigned long long)r->block_bytes >> 10);
		return hgm_fail(rc, "mapping the %s, %llu bytes: %s%s", what,
				(unsigned long long)r->mapped, hgm_errno_name(rc),
				rc == -ENOMEM ? " (" HGM_AREAS_HINT ")" : "");
	}
	if (r->head)
		hgm_sys->munmap(*out, r->head);
	return 0;
}

/* The library's own file. */
static int make_file(struct hgm_region *r)
{
	unsigned int flags = MFD_ALLOW_SEALING;
	int rc;

	if (r->backing == HGM_BACKING_HUGETLB)
		flags |= MFD_HUGETLB | log2_of(r->block_bytes) << HGM_MFD_HUGE_SHIFT;
	r->fd = hgm_sys->memfd_create("hgm", flags);
	if (r->fd < 0)
		return hgm_fail(r->fd, "memfd_create%s: %s%s",
				r->backing == HGM_BACKING_HUGETLB ? " of huge pages" : "",
				hgm_errno_name(r->fd),
				r->fd == -ENODEV ? " (this kernel has no huge pages of that size)"
						 : "");
	rc = hgm_sys->ftruncate(r->fd, r->mapped);
	if (rc)
		return hgm_fail(rc, "ftruncate of the memfd to %llu bytes: %s%s",
				(unsigned long long)r->mapped, hgm_errno_name(rc),
				rc == -EFBIG ? " (raise RLIMIT_FSIZE, or use HGM_BACKING_ANON)"
					     : "");
	hgm_sys->seal(r->fd); /* it can be opened through /proc; all kernels can seal */
	return 0;
}

static int take_file(struct hgm_region *r, const struct hgm_region_opts *o,
		     const struct hgm_memory_kind *kind)
{
	r->block_bytes = kind->block_bytes;
	r->fd = hgm_sys->dup(o->fd);
	if (r->fd < 0)
		return hgm_fail(r->fd, "descriptor %d: %s", o->fd, hgm_errno_name(r->fd));
	r->fd_offset = o->fd_offset;
	r->holds_contents = true;
	r->may_shrink = kind->may_shrink;
	return 0;
}

static int choose(struct hgm_region *r, const struct hgm_region_opts *o,
		  enum hgm_candidate candidate, const struct hgm_memory_kind *kind)
{
	static const uint32_t backing[] = {
		[HGM_CANDIDATE_NATIVE] = HGM_BACKING_HUGETLB,
		[HGM_CANDIDATE_SHMEM] = HGM_BACKING_SHMEM,
		[HGM_CANDIDATE_SHMEM_LAZY] = HGM_BACKING_SHMEM_LAZY,
		[HGM_CANDIDATE_HUGETLB] = HGM_BACKING_HUGETLB,
		[HGM_CANDIDATE_ANON] = HGM_BACKING_ANON,
	};

	r->backing = backing[candidate];
	r->native = candidate == HGM_CANDIDATE_NATIVE;
	r->block_bytes = o->block_bytes ? o->block_bytes : MIB2;
	r->fd = -1;
	if (o->backing == HGM_BACKING_FD || (o->backing == HGM_BACKING_MAPPING && o->fd >= 0))
		return take_file(r, o, kind);
	return 0;
}

static int derive(struct hgm_region *r, const struct hgm_region_opts *o)
{
	bool whole_blocks = r->backing == HGM_BACKING_HUGETLB && !r->native;
	int rc;

	r->callers_mapping = o->backing == HGM_BACKING_MAPPING || hgm_region_foreign(r);
	r->unit_bytes = r->backing == HGM_BACKING_HUGETLB ? r->block_bytes : HGM_PAGE_BYTES;
	r->map_bytes = whole_blocks ? r->block_bytes : HGM_PAGE_BYTES;
	r->wp_bytes = HGM_PAGE_BYTES;
	if (whole_blocks ||
	    (r->native && !hgm_choice_protects_pages(&r->h->abilities, r->block_bytes)))
		r->wp_bytes = r->block_bytes;
	r->copies = r->backing == HGM_BACKING_ANON || r->backing == HGM_BACKING_SHMEM_LAZY;
	r->bounces = r->may_shrink && !r->copies && !r->source->copied_by_kernel;
	r->zeroed = !r->copies && o->backing != HGM_BACKING_FD && !r->callers_mapping;
	/* The kernel poisons whole huge pages only, which would destroy what has arrived. */
	r->can_poison = !r->native && (r->h->can_poison || hgm_region_foreign(r));
	/* Prepared memory has no holes, so a missing fault there means that it was discarded. */
	r->view.modes = HGM_UFFD_MISSING;
	if (r->backing != HGM_BACKING_ANON)
		r->view.modes |= HGM_UFFD_MINOR;
	rc = hgm_margins_find(r, o);
	r->collapses = !whole_blocks && !(r->flags & HGM_REGION_NO_COLLAPSE) &&
		       !r->view.space->collapse_error && r->whole_first < r->whole_end;
	return rc;
}

/*
 * Only absent pages fault, so nothing may be mapped when the first page is served: neither what a
 * caller's mapping held, nor what mlockall(MCL_FUTURE) populated in ours. A caller's mapping is
 * dropped after registration, so that no page can be mapped between the two, and before anything
 * is served, so that nothing served is lost.
 */
int hgm_backing_drop_mapped(struct hgm_region *r)
{
	uint64_t len = hgm_region_mapped(r);
	int rc = hgm_view_drop(&r->view, r->head, len);

	if (rc)
		return hgm_fail(rc, "MADV_DONTNEED of the primary, %llu bytes at %p: %s%s",
				(unsigned long long)len, (void *)r->view.start, hgm_errno_name(rc),
				rc == -EINVAL
					? " (locked memory cannot be served before kernel 5.18)"
					: "");
	return 0;
}

static int take_mapping(struct hgm_region *r, const struct hgm_region_opts *o)
{
	bool foreign = hgm_region_foreign(r);
	int rc = hgm_mapping_check(r->view.space->pid, o->addr, r->length, foreign ? -1 : o->fd,
				   o->fd_offset);

	/* Without the right to trace another process, believe the caller. */
	if (!rc || (foreign && (rc == -EACCES || rc == -EPERM))) {
		r->view.start = o->addr;
		r->view.base = r->view.start - r->head;
		rc = 0;
	}
	return rc;
}

static int map_primary(struct hgm_region *r)
{
	int rc = map_one(r, &r->view.base, "primary");

	if (!rc)
		r->view.start = r->view.base + r->head;
	return rc;
}

/*
 * Split the whole primary once, before it is registered: each call leaves a permanent border
 * between memory areas. A caller's mapping may have been split before.
 */
static int split(struct hgm_region *r)
{
	struct hgm_smaps smaps;

	if (hgm_choice_by_feature(&r->h->abilities)) /* registration does it */
		return 0;
	if (r->callers_mapping && !hgm_smaps_sum(r->view.base, r->mapped, &smaps) && smaps.all_hm)
		return 0;
	return hgm_split(r->view.base, r->mapped);
}

/* Make zeroes to copy from. Memory that is not mapped is copied through a second huge page. */
static int make_zeroes(struct hgm_region *r)
{
	static const _Alignas(HGM_PAGE_BYTES) char page[HGM_PAGE_BYTES];
	void *mem;
	int rc;

	if (r->backing != HGM_BACKING_HUGETLB) {
		r->zeroes = page;
		return 0;
	}
	rc = hgm_sys->mmap(&mem, NULL, r->block_bytes, PROT_READ,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (rc)
		return hgm_fail(rc, "no address space for %llu bytes of zeroes: %s",
				(unsigned long long)r->block_bytes, hgm_errno_name(rc));
	r->zeroes = mem;
	hgm_sys->madvise(mem, r->block_bytes, HGM_MADV_POPULATE_READ);
	return 0;
}

/* lseek(2) moves the file offset, which a caller's descriptor shares with ours. */
static void open_to_seek(struct hgm_region *r, const struct hgm_region_opts *o)
{
	char path[32];

	if (o->backing != HGM_BACKING_FD && o->backing != HGM_BACKING_MAPPING) {
		r->seek_fd = r->fd;
		return;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", r->fd);
	r->seek_fd = hgm_sys->open(path, O_RDONLY);
}

/* Identify the file, so that no snapshot is written to it. */
static int know_file(struct hgm_region *r)
{
	struct hgm_file_kind kind;
	int rc = hgm_sys->file_kind(r->fd, &kind);

	if (rc)
		return hgm_fail(rc, "fstat of the memory's file: %s", hgm_errno_name(rc));
	r->file = hgm_file_id(&kind);
	return 0;
}

/* A child with this memory would keep it allocated, and its writes would change the guest's. */
static int keep_from_children(const struct hgm_region *r, void *addr)
{
	uint64_t len = hgm_region_mapped(r);
	int rc = hgm_sys->madvise(addr, len, MADV_DONTFORK);

	return rc ? hgm_fail(rc, "MADV_DONTFORK of %llu bytes at %p: %s", (unsigned long long)len,
			     addr, hgm_errno_name(rc))
		  : 0;
}

int hgm_backing_make(struct hgm_region *r, const struct hgm_region_opts *o,
		     enum hgm_candidate candidate, const struct hgm_memory_kind *kind)
{
	int rc = choose(r, o, candidate, kind);

	if (!rc)
		rc = derive(r, o);
	if (!rc && r->fd < 0 && r->backing != HGM_BACKING_ANON)
		rc = make_file(r);
	if (!rc)
		rc = r->callers_mapping ? take_mapping(r, o) : map_primary(r);
	if (!rc && r->backing != HGM_BACKING_ANON)
		rc = map_one(r, &r->alias, "alias");
	if (!rc && r->native)
		rc = split(r);
	if (!rc)
		rc = make_zeroes(r);
	if (!rc && r->backing != HGM_BACKING_ANON)
		open_to_seek(r, o);
	if (!rc && r->fd >= 0)
		rc = know_file(r);
	if (!rc && !r->callers_mapping)
		rc = keep_from_children(r, r->view.start);
	if (!rc && r->alias)
		rc = keep_from_children(r, hgm_region_alias_start(r));
	if (rc) {
		hgm_backing_free(r);
		return rc;
	}
	if (r->alias) /* a core dump has the same memory in the primary */
		hgm_sys->madvise(hgm_region_alias_start(r), hgm_region_mapped(r), MADV_DONTDUMP);
	return 0;
}

/* What was mapped over the primary stays. */
static void unmap_primary(struct hgm_region *r)
{
	for_each_kept (r, 0, r->mapped, at, len)
		hgm_sys->munmap(r->view.base + at, len);
}

void hgm_backing_free(struct hgm_region *r)
{
	if (r->alias)
		hgm_sys->munmap(hgm_region_alias_start(r), hgm_region_mapped(r));
	if (r->view.start && !r->callers_mapping)
		unmap_primary(r);
	if (r->zeroes && r->backing == HGM_BACKING_HUGETLB)
		hgm_sys->munmap((void *)(uintptr_t)r->zeroes, r->block_bytes);
	r->zeroes = NULL;
	if (r->seek_fd >= 0 && r->seek_fd != r->fd)
		hgm_sys->close(r->seek_fd);
	if (r->fd >= 0)
		hgm_sys->close(r->fd);
	r->alias = r->view.base = r->view.start = NULL;
	r->fd = r->seek_fd = -1;
}
