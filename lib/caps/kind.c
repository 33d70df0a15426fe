/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a caller's file is.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>

#include "choice.h"
#include "kernel/sys.h"
#include "util/error.h"
#include "util/page.h"

#define MIB2 (UINT64_C(2) << 20)

/* Of which kind is the caller's file, and is it large enough for the region? */
int hgm_memory_kind(const struct hgm_region_opts *o, struct hgm_memory_kind *out)
{
	struct hgm_file_kind kind;
	uint64_t block;
	bool hugetlb;
	int rc = hgm_sys->file_kind(o->fd, &kind);

	if (rc)
		return hgm_fail(-EBADF, "descriptor %d: %s", o->fd, hgm_errno_name(rc));
	if (kind.access != O_RDWR)
		return hgm_fail(-EBADF, "fd %d is not open for reading and writing%s", o->fd,
				o->backing == HGM_BACKING_MAPPING
					? " (for anonymous memory, set fd to -1)"
					: "");
	if (!S_ISREG(kind.mode) ||
	    (kind.fs_magic != TMPFS_MAGIC && kind.fs_magic != HUGETLBFS_MAGIC))
		return hgm_fail(
			-EINVAL,
			"descriptor %d is not a memfd, tmpfs or hugetlbfs file; userfaultfd "
			"supports no other files (use a disk file as the source instead)",
			o->fd);
	block = kind.fs_magic == HUGETLBFS_MAGIC ? kind.fs_block_bytes : MIB2;
	if (block < MIB2)
		return hgm_fail(-EOPNOTSUPP,
				"descriptor %d has blocks of %llu bytes; the minimum is 2 MiB",
				o->fd, (unsigned long long)block);
	if (o->block_bytes && o->block_bytes != block)
		return hgm_fail(-EINVAL, "descriptor %d has blocks of %llu bytes, not %llu", o->fd,
				(unsigned long long)block, (unsigned long long)o->block_bytes);
	hugetlb = kind.fs_magic == HUGETLBFS_MAGIC;
	if (o->fd_offset % (hugetlb ? block : HGM_PAGE_BYTES))
		return hgm_fail(-EINVAL, "fd_offset %llu is not a multiple of %llu%s",
				(unsigned long long)o->fd_offset,
				(unsigned long long)(hugetlb ? block : HGM_PAGE_BYTES),
				hugetlb ? HGM_SAY_NO_PARTS : "");
	if (o->fd_offset > kind.size || o->length > kind.size - o->fd_offset)
		return hgm_fail(
			-EINVAL,
			"the file of descriptor %d has %llu bytes, too few for [%llu, +%llu)",
			o->fd, (unsigned long long)kind.size, (unsigned long long)o->fd_offset,
			(unsigned long long)o->length);
	*out = (struct hgm_memory_kind){
		.hugetlb = hugetlb,
		.may_shrink = !kind.sealed,
		.block_bytes = block,
		.device = kind.device,
		.inode = kind.inode,
	};
	return 0;
}

bool hgm_memory_fits(const struct hgm_region_opts *o, uint64_t block)
{
	return o->backing != HGM_BACKING_MAPPING || o->fd < 0 ||
	       ((uintptr_t)o->addr - o->fd_offset) % block == 0;
}
