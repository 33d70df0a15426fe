/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The system calls of the probe of high-granularity mapping, over a kernel as the patches had it
 * until told otherwise. It fails the test when it is used in a way that harmed the real one.
 */
#ifndef HGM_TEST_FAKE_HGM_SYS_H
#define HGM_TEST_FAKE_HGM_SYS_H

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <hgm/caps.h>

#include "caps/caps.h"
#include "fake_hgm.h"
#include "leaks.h"
#include "test.h"

#define MIB2 (UINT64_C(2) << 20)
#define GIB1 (UINT64_C(1) << 30)

static struct fake {
	const char *sysfs; /* NULL: no such file */
	const char *sysfs_path;
	int sysfs_error;
	int advice_zero; /* madvise(NULL, 0, 26) */
	int advice;	 /* of memory */
	uint64_t features;
	int no_uffd;
	int no_smaps;
	int no_pagemap;
	int continue_4k;
	bool rfc;	     /* 4 KiB need feature bit 13, not MADV_SPLIT */
	bool bit13_is_inert; /* 4 KiB do not need it either */
	int busy;	     /* CONTINUEs of more than a page that say EAGAIN first */
	bool continue_rounds;
	int collapse;
	bool collapse_spoils;
	bool all_is_huge; /* PAGEMAP_SCAN says so of all hugetlb memory */
	int scan;	  /* PAGEMAP_SCAN */
	int wp_4k;
	bool wp_not_seen;
	bool pool_is_empty;
	bool small_pool_is_empty;
	int populate;

	/* what happened */
	char *alias;
	uint64_t block;
	uint64_t enabled; /* features of the last userfaultfd */
	unsigned int calls;
	unsigned int reserved; /* hugetlb mappings that promise themselves pages */
	unsigned int populated;
	unsigned int collapses;
	unsigned int wakes_after_collapse;
	bool protected;
} fake;

static inline int fake_open(const char *path, int flags)
{
	int fd;

	(void)flags;
	fake.calls++;
	if (!strcmp(path, "/sys/kernel/mm/hugepages/hgm") ||
	    !strcmp(path, "/sys/kernel/vm/hugepages/hgm")) {
		if (fake.sysfs_error)
			return fake.sysfs_error;
		if (!fake.sysfs || strcmp(path, fake.sysfs_path) != 0)
			return -ENOENT;
	} else if (!strcmp(path, "/proc/self/smaps") && fake.no_smaps) {
		return fake.no_smaps;
	} else if (!strcmp(path, "/proc/self/pagemap") && fake.no_pagemap) {
		return fake.no_pagemap;
	}
	fd = hgm_sys_linux.eventfd();
	hgm.smaps_fd = -1;
	if (!strcmp(path, "/proc/self/smaps"))
		fake_hgm_open_smaps(fd);
	return fd;
}

static inline int fake_close(int fd)
{
	fake.calls++;
	return hgm_sys_linux.close(fd);
}

static inline ssize_t fake_read(int fd, void *buf, size_t len)
{
	fake.calls++;
	if (fd == hgm.smaps_fd)
		return fake_hgm_read_smaps(buf, len);
	assert_true(len > strlen(fake.sysfs));
	memcpy(buf, fake.sysfs, strlen(fake.sysfs));
	return (ssize_t)strlen(fake.sysfs);
}

static inline ssize_t fake_pread(int fd, void *buf, size_t len, uint64_t offset)
{
	uint64_t addr = offset / 8 * FAKE_PAGE;
	uint64_t word = fake_hgm_present(addr) ? UINT64_C(1) << 63 : 0;

	(void)fd;
	if (fake.protected && !fake.wp_not_seen)
		word |= UINT64_C(1) << 57;
	memcpy(buf, &word, len);
	return (ssize_t)len;
}

static inline int fake_memfd_create(const char *name, unsigned int flags)
{
	assert_true(flags & 4); /* MFD_HUGETLB: nothing else is asked for here */
	return hgm_sys_linux.memfd_create(name, 0);
}

static inline int fake_poll(struct pollfd *fds, unsigned int n, int64_t timeout_ns)
{
	(void)fds;
	(void)timeout_ns;
	assert_int_equal(n, 0);
	return 0;
}

static inline int fake_mmap(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
			    uint64_t offset)
{
	if (fd >= 0 && !(flags & MAP_NORESERVE)) {
		if (fake.pool_is_empty || (fake.small_pool_is_empty && len == MIB2))
			return -ENOMEM;
		fake.reserved++;
	}
	if (fd >= 0) {
		fake.alias = addr; /* the second is */
		fake.block = len;
	}
	return hgm_sys_linux.mmap(out, addr, len, prot, flags | MAP_NORESERVE, fd, offset);
}

static inline int fake_munmap(void *addr, uint64_t len)
{
	fake_hgm_munmap(addr, len);
	return hgm_sys_linux.munmap(addr, len);
}

static inline int fake_madvise(void *addr, uint64_t len, int advice)
{
	fake.calls++;
	if (!len) {
		assert_null(addr);
		assert_int_equal(advice, HGM_MADV_SPLIT);
		return fake.advice_zero;
	}
	switch (advice) {
	case HGM_MADV_SPLIT:
		if (!fake.advice)
			fake_hgm_split(addr, len);
		return fake.advice;
	case HGM_MADV_POPULATE_WRITE:
		assert_ptr_equal(addr, fake.alias);
		fake.populated++;
		return fake.populate;
	case HGM_MADV_COLLAPSE:
		/* Less than the whole crashes a kernel, and holes are mapped with what is there. */
		assert_int_equal((uintptr_t)addr, hgm.base);
		assert_int_equal(len, hgm.len);
		assert_true(fake_hgm_full());
		fake.collapses++;
		fake_hgm_collapse();
		if (fake.collapse_spoils)
			((char *)addr)[len / 2] ^= 1;
		return fake.collapse;
	}
	fail_msg("advice %d", advice);
	return 0;
}

static inline int fake_pagemap_scan(int fd, const void *start, const void *end, uint64_t category,
				    struct hgm_pm_region *out, uint64_t out_len, uint64_t *walk_end)
{
	(void)fd;
	(void)out_len;
	assert_int_equal(category, HGM_PAGE_IS_HUGE);
	if (fake.scan)
		return fake.scan;
	*walk_end = (uintptr_t)end;
	*out = (struct hgm_pm_region){ .start = (uintptr_t)start, .end = (uintptr_t)end };
	return hgm.whole || fake.all_is_huge;
}

static inline int fake_userfaultfd(int flags)
{
	(void)flags;
	return fake.no_uffd ? fake.no_uffd : hgm_sys_linux.eventfd();
}

static inline int fake_uffd_new(int dev, int flags)
{
	(void)dev;
	return fake_userfaultfd(flags);
}

static inline int fake_uffd_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	(void)fd;
	(void)ioctls;
	if (*features & ~fake.features)
		return -EINVAL;
	fake.enabled = *features;
	*features = fake.features;
	return 0;
}

static inline int fake_uffd_register(int fd, void *addr, uint64_t len, uint64_t modes,
				     uint64_t *ioctls)
{
	(void)fd;
	(void)ioctls;
	if (fake.advice_zero)
		fake_hgm_split(addr, len);
	assert_int_equal((uintptr_t)addr, hgm.base);
	assert_int_equal(len, hgm.len);
	assert_true(modes & HGM_UFFD_MINOR);
	assert_true(fake.enabled & HGM_UFFD_FEATURE_EXACT_ADDRESS);
	return 0;
}

static inline int fake_uffd_unregister(int fd, void *addr, uint64_t len)
{
	(void)fd;
	(void)addr;
	(void)len;
	return 0;
}

static inline int fake_uffd_wake(int fd, void *addr, uint64_t len)
{
	(void)fd;
	(void)addr;
	if (fake.collapses && len == hgm.len)
		fake.wakes_after_collapse++;
	return 0;
}

static inline int fake_uffd_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	(void)fd;
	(void)mode;
	if (fake.advice_zero && len == FAKE_PAGE && !fake.bit13_is_inert &&
	    !(fake.rfc && fake.enabled & HGM_UFFD_FEATURE_MINOR_HUGETLBFS_HGM))
		return -EINVAL;
	if (fake.advice_zero && !fake.populated) /* of memory without pages */
		return -EFAULT;
	/* Never before the whole block has been written through its alias. */
	assert_true(fake.populated);
	assert_int_not_equal(*(uint64_t *)fake.alias, 0);
	assert_int_not_equal(*(uint64_t *)(fake.alias + fake.block / 512 * 511), 0);
	if (len == FAKE_PAGE && fake.continue_4k)
		return fake.continue_4k;
	if (fake.continue_rounds) {
		fake_hgm_map((void *)hgm.base, hgm.len);
		*done = (int64_t)hgm.len;
		return 0;
	}
	if (len > FAKE_PAGE && fake.busy) {
		*done = fake.busy-- % 2 ? -EAGAIN : (int64_t)FAKE_PAGE;
		if (*done > 0)
			fake_hgm_map(addr, FAKE_PAGE);
		return -EAGAIN;
	}
	fake_hgm_map(addr, len);
	*done = (int64_t)len;
	return 0;
}

static inline int fake_uffd_writeprotect(int fd, void *addr, uint64_t len, uint64_t mode)
{
	(void)fd;
	assert_true(fake_hgm_has(addr));
	assert_int_equal(len, FAKE_PAGE);
	assert_int_equal(mode, HGM_UFFD_WP_PROTECT);
	fake.protected = !fake.wp_4k;
	return fake.wp_4k;
}

static struct hgm_sys fake_sys = {
	.open = fake_open,
	.close = fake_close,
	.read = fake_read,
	.pread = fake_pread,
	.memfd_create = fake_memfd_create,
	.poll = fake_poll,
	.mmap = fake_mmap,
	.munmap = fake_munmap,
	.madvise = fake_madvise,
	.pagemap_scan = fake_pagemap_scan,
	.userfaultfd = fake_userfaultfd,
	.uffd_new = fake_uffd_new,
	.uffd_api = fake_uffd_api,
	.uffd_register = fake_uffd_register,
	.uffd_unregister = fake_uffd_unregister,
	.uffd_wake = fake_uffd_wake,
	.uffd_continue = fake_uffd_continue,
	.uffd_writeprotect = fake_uffd_writeprotect,
};

/* A kernel as the series had it. */
static inline int set_up(void **state)
{
	(void)state;
	fake = (struct fake){ .features = 0x1fff, .scan = -ENOTTY, .wp_4k = -EINVAL };
	fake.sysfs_path = "/sys/kernel/mm/hugepages/hgm";
	fake_hgm_reset();
	fake_sys.ftruncate = hgm_sys_linux.ftruncate;
	hgm_sys = &fake_sys;
	return 0;
}

static inline int tear_down(void **state)
{
	(void)state;
	hgm_sys = &hgm_sys_linux;
	return 0;
}

#endif
