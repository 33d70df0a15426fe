/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One block of hugetlb memory of a kernel with high-granularity mapping: which of its 4 KiB pages
 * are mapped, and how /proc/self/smaps and /proc/self/pagemap show that.
 */
#ifndef HGM_TEST_FAKE_HGM_H
#define HGM_TEST_FAKE_HGM_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#define FAKE_PAGE UINT64_C(4096)

static struct fake_hgm {
	/* what is different about it */
	bool no_hm;
	bool no_counters;
	bool maps_neighbours; /* a CONTINUE of one page */
	bool collapse_inert;

	uintptr_t base; /* of the split block, 0: none */
	uint64_t len;
	bool mapped[1 << 18];
	bool whole; /* one mapping */

	int smaps_fd;
	size_t smaps_at;
	char smaps[1024];
} hgm;

static inline void fake_hgm_reset(void)
{
	memset(&hgm, 0, sizeof(hgm));
	hgm.smaps_fd = -1;
}

static inline bool fake_hgm_has(const void *addr)
{
	return hgm.base && (uintptr_t)addr - hgm.base < hgm.len;
}

static inline void fake_hgm_split(const void *addr, uint64_t len)
{
	hgm.base = (uintptr_t)addr;
	hgm.len = len;
	hgm.whole = false;
	memset(hgm.mapped, 0, sizeof(hgm.mapped));
}

static inline void fake_hgm_munmap(const void *addr, uint64_t len)
{
	if (hgm.base - (uintptr_t)addr < len)
		hgm.base = 0;
}

/* Of the bytes [from, from + len) of the block. */
static inline void fake_hgm_map(const void *addr, uint64_t len)
{
	uint64_t first = ((uintptr_t)addr - hgm.base) / FAKE_PAGE;
	uint64_t last = first + len / FAKE_PAGE - 1;

	if (hgm.maps_neighbours && len == FAKE_PAGE && first) {
		first--;
		last++;
	}
	for (uint64_t i = first; i <= last; i++)
		hgm.mapped[i] = true;
}

static inline bool fake_hgm_full(void)
{
	for (uint64_t i = 0; i < hgm.len / FAKE_PAGE; i++)
		if (!hgm.mapped[i])
			return false;
	return true;
}

static inline void fake_hgm_collapse(void)
{
	hgm.whole = !hgm.collapse_inert;
}

static inline bool fake_hgm_present(uint64_t addr)
{
	return hgm.mapped[(addr - hgm.base) / FAKE_PAGE];
}

/* Open smaps: a mapping before, the block, its alias. */
static inline void fake_hgm_open_smaps(int fd)
{
	uint64_t small = 0, leaf[3] = { 0 };
	int n;

	for (uint64_t i = 0; i < hgm.len / FAKE_PAGE; i++)
		small += hgm.mapped[i] ? FAKE_PAGE >> 10 : 0;
	leaf[hgm.whole ? (hgm.len >> 30 ? 0 : 1) : 2] = hgm.whole ? hgm.len >> 10 : small;
	n = snprintf(hgm.smaps, sizeof(hgm.smaps),
		     "1000-2000 r--p 00000000 00:00 0 \nRss:  4 kB\nVmFlags: rd mr hm \n"
		     "%lx-%lx rw-s 00000000 00:0f 7     /memfd:hgm-probe (deleted)\n"
		     "Size:  %lu kB\n",
		     (unsigned long)hgm.base, (unsigned long)(hgm.base + hgm.len),
		     (unsigned long)(hgm.len >> 10));
	if (!hgm.no_counters)
		n += snprintf(hgm.smaps + n, sizeof(hgm.smaps) - (size_t)n,
			      "HugetlbPudMapped: %lu kB\nHugetlbPmdMapped: %lu kB\n"
			      "HugetlbPteMapped: %lu kB\n",
			      (unsigned long)leaf[0], (unsigned long)leaf[1],
			      (unsigned long)leaf[2]);
	snprintf(hgm.smaps + n, sizeof(hgm.smaps) - (size_t)n,
		 "VmFlags: rd wr sh de ht %s\n"
		 "%lx-%lx rw-s 00000000 00:0f 7     /memfd:hgm-probe (deleted)\n"
		 "HugetlbPmdMapped: 2048 kB\nVmFlags: rd wr sh de ht \n",
		 hgm.no_hm ? "hmx" : "ui hm", (unsigned long)(hgm.base + hgm.len),
		 (unsigned long)(hgm.base + 2 * hgm.len));
	hgm.smaps_fd = fd;
	hgm.smaps_at = 0;
}

static inline ssize_t fake_hgm_read_smaps(void *buf, size_t len)
{
	size_t left = strlen(hgm.smaps) - hgm.smaps_at;

	len = len < left ? len : left;
	memcpy(buf, hgm.smaps + hgm.smaps_at, len);
	hgm.smaps_at += len;
	return (ssize_t)len;
}

#endif
