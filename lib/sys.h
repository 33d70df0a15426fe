/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel seam: every system call that the library makes, one function each.
 *
 * All return a negative errno on failure and never touch the caller's errno. Tests replace the
 * table (by a recorder, by one that fails on demand, by the model of another kernel); nothing
 * outside lib/sys_linux.c may call the kernel by another way.
 */
#ifndef HGM_LIB_SYS_H
#define HGM_LIB_SYS_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <hgm/uapi.h>

struct hgm_pm_region {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

/* What a descriptor is, as far as the library asks. */
struct hgm_file_kind {
	mode_t mode;
	uint64_t inode;
	dev_t device;
	uint64_t size;
	uint64_t fs_magic;	 /* statfs: TMPFS_MAGIC, HUGETLBFS_MAGIC, ... */
	uint64_t fs_block_bytes; /* the huge page of a hugetlbfs */
	int access;		 /* O_RDONLY, O_WRONLY, O_RDWR */
	bool appends;		 /* O_APPEND */
};

struct hgm_sys {
	/* files */
	int (*open)(const char *path, int flags);
	int (*close)(int fd);
	int (*dup)(int fd); /* close-on-exec */
	ssize_t (*read)(int fd, void *buf, size_t len);
	ssize_t (*write)(int fd, const void *buf, size_t len);
	ssize_t (*pread)(int fd, void *buf, size_t len, uint64_t offset);
	ssize_t (*pwrite)(int fd, const void *buf, size_t len, uint64_t offset);
	ssize_t (*pread_nowait)(int fd, void *buf, size_t len, uint64_t offset);
	int64_t (*lseek)(int fd, int64_t offset, int whence);
	int (*file_kind)(int fd, struct hgm_file_kind *kind);
	int (*memfd_create)(const char *name, unsigned int flags);
	int (*ftruncate)(int fd, uint64_t len);
	int (*eventfd)(void);
	int (*poll)(struct pollfd *fds, unsigned int n, int64_t timeout_ns); /* < 0: no end */

	/* memory */
	int (*mmap)(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
		    uint64_t offset);
	int (*munmap)(void *addr, uint64_t len);
	int (*mprotect)(void *addr, uint64_t len, int prot);
	int (*madvise)(void *addr, uint64_t len, int advice);
	/* returns the number of regions found, *walk_end where the scan ended */
	int (*pagemap_scan)(int fd, const void *start, const void *end, uint64_t category,
			    struct hgm_pm_region *out, uint64_t out_len, uint64_t *walk_end);
	/*
	 * The same for pages written to since they were asked for last, or protected; they are
	 * protected again (WP_ASYNC).
	 */
	int (*pagemap_take_written)(int fd, const void *start, const void *end,
				    struct hgm_pm_region *out, uint64_t out_len,
				    uint64_t *walk_end);

	/* userfaultfd */
	int (*userfaultfd)(int flags);
	int (*uffd_new)(int dev, int flags); /* USERFAULTFD_IOC_NEW on /dev/userfaultfd */
	int (*uffd_api)(int fd, uint64_t *features, uint64_t *ioctls);
	int (*uffd_register)(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls);
	int (*uffd_unregister)(int fd, void *addr, uint64_t len);
	int (*uffd_wake)(int fd, void *addr, uint64_t len);
	/* *done: the ioctl's own result field: full length, positive partial, or negative errno */
	int (*uffd_copy)(int fd, void *dst, const void *src, uint64_t len, uint64_t mode,
			 int64_t *done);
	int (*uffd_zeropage)(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done);
	int (*uffd_continue)(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done);
	int (*uffd_poison)(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done);
	int (*uffd_move)(int fd, void *dst, void *src, uint64_t len, uint64_t mode, int64_t *done);
	int (*uffd_writeprotect)(int fd, void *addr, uint64_t len, uint64_t mode);
};

extern const struct hgm_sys hgm_sys_linux;

/* The table in force. Tests replace it while no object of the library exists. */
extern const struct hgm_sys *hgm_sys;

#endif
