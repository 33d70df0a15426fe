/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Huge mappings: split, collapse, and reading what the page tables contain.
 */
#include <errno.h>
#include <fcntl.h>

#include <hgm/uffd.h>

#include "hugepage.h"
#include "kernel/sys.h"
#include "smaps.h"
#include "util/cancel.h"
#include "util/error.h"

int hgm_split(void *addr, uint64_t len)
{
	int rc = hgm_sys->madvise(addr, len, HGM_MADV_SPLIT);

	if (rc)
		return hgm_fail(rc, "MADV_SPLIT of %llu bytes at %p: %s%s", (unsigned long long)len,
				addr, hgm_errno_name(rc),
				rc == -EINVAL ? " (this kernel has no high-granularity mapping, or "
						"the memory is not shared hugetlb or not aligned)"
					      : "");
	return 0;
}

int hgm_collapse(void *addr, uint64_t len)
{
	int rc = hgm_sys->madvise(addr, len, HGM_MADV_COLLAPSE);

	if (rc)
		return hgm_fail(rc, "MADV_COLLAPSE of %llu bytes at %p: %s%s",
				(unsigned long long)len, addr, hgm_errno_name(rc),
				rc == -EINVAL ? " (the range is not aligned to the huge page, is "
						"empty or write-protected, is hugetlb on a kernel "
						"without HGM, or huge pages are off)"
				: rc == -ENOMEM
					? " (no huge page is available, or nothing is mapped there)"
					: "");
	return 0;
}

int hgm_pagemap_open(void)
{
	return hgm_sys->open("/proc/self/pagemap", O_RDONLY);
}

int hgm_pagemap_huge(int pagemap, const void *addr, uint64_t len, uint64_t *huge_bytes)
{
	struct hgm_pm_region found[32];
	uint64_t at = (uintptr_t)addr;
	uint64_t end = at + len;

	*huge_bytes = 0;
	while (at < end) {
		uint64_t walked = 0;
		int n = hgm_sys->pagemap_scan(pagemap, (void *)(uintptr_t)at,
					      (void *)(uintptr_t)end, HGM_PAGE_IS_HUGE, found, 32,
					      &walked);

		if (n < 0)
			return n;
		for (int i = 0; i < n; i++)
			*huge_bytes += found[i].end - found[i].start;
		if (walked <= at) /* no progress: on hugetlb, a range smaller than the huge page */
			return -EINVAL;
		at = walked;
	}
	return 0;
}

/* For kernels without PAGEMAP_SCAN: smaps has counters, but only for whole memory areas. */
static int smaps_huge(const void *addr, uint64_t len, uint64_t *huge_bytes)
{
	struct hgm_smaps s;
	int rc = hgm_smaps_sum(addr, len, &s);

	if (rc)
		return hgm_fail(rc, "/proc/self/smaps: %s", hgm_errno_name(rc));
	if (s.partial)
		return hgm_fail(-EOPNOTSUPP,
				"this kernel has no PAGEMAP_SCAN (Linux 6.7 or later has it), and "
				"smaps describes only whole memory areas");
	*huge_bytes = s.shmem_pmd + s.anon_huge + (s.has_leaf_counters ? s.pud + s.pmd : s.hugetlb);
	return 0;
}

int hgm_mapped_huge(const void *addr, uint64_t len, uint64_t *huge_bytes)
{
	HGM_UNCANCELLED;
	int fd, rc;

	if (!huge_bytes || (uintptr_t)addr % 4096 || len % 4096 || (uintptr_t)addr + len < len)
		return hgm_fail(-EINVAL, "hgm_mapped_huge: unaligned range or NULL result");
	fd = hgm_pagemap_open();
	if (fd < 0)
		return hgm_fail(fd, "open /proc/self/pagemap: %s", hgm_errno_name(fd));
	rc = hgm_pagemap_huge(fd, addr, len, huge_bytes);
	hgm_sys->close(fd);
	if (rc == -ENOTTY)
		return smaps_huge(addr, len, huge_bytes);
	if (rc)
		return hgm_fail(rc, "PAGEMAP_SCAN of %llu bytes at %p: %s", (unsigned long long)len,
				addr, hgm_errno_name(rc));
	return 0;
}
