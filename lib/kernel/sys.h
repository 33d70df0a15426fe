/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel seam: one function for each system call that the library makes.
 *
 * All functions return a negative errno on failure, and never change the caller's errno. Tests
 * replace the table (by a recorder, by one that fails on demand, by the model of another kernel).
 * No code outside lib/kernel/sys_linux.c may call the kernel in any other way, except for what
 * needs no stand-in: threads and locks, sleeping, scheduling (thread.c), and membarrier (rcu.c).
 */
#ifndef HGM_LIB_SYS_H
#define HGM_LIB_SYS_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <hgm/uapi.h>

/*
 * Position of the binary logarithm of the huge page size in the flags of memfd_create(2) and
 * mmap(2).
 */
#define HGM_MFD_HUGE_SHIFT 26

/* struct page_region of <linux/fs.h> since 6.7 */
struct hgm_pm_region {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

/*
 * Flags of our own for mmap, for a process that locks all that it maps (mlockall, MCL_FUTURE),
 * where the kernel fills each new mapping at once. With HGM_MAP_UNLOCKED, the mapping is not
 * locked. With HGM_MAP_LOCK_PRESENT, its pages are locked one by one as they arrive.
 */
#define HGM_MAP_UNLOCKED     0x400000
#define HGM_MAP_LOCK_PRESENT 0x800000

/* What a descriptor refers to, as far as the library needs to know. */
struct hgm_file_kind {
	mode_t mode;
	uint64_t inode;
	dev_t device;
	dev_t special; /* for a device node: which device */
	uint64_t size;
	uint64_t fs_magic;	 /* statfs: TMPFS_MAGIC, HUGETLBFS_MAGIC, ... */
	uint64_t fs_block_bytes; /* on hugetlbfs: the size of the huge page */
	int access;		 /* O_RDONLY, O_WRONLY, O_RDWR */
	bool appends;		 /* O_APPEND */
	uint64_t changed_ns;	 /* ctime */
	bool direct;		 /* O_DIRECT */
	bool sealed;		 /* F_SEAL_SHRINK: it cannot be truncated */
	bool full;		 /* its file system is limited and has no space left */
};

struct hgm_sys {
	/* files */
	int (*open)(const char *path, int flags);
	int (*close)(int fd);
	int (*dup)(int fd); /* close-on-exec */
	int (*set_nonblock)(int fd);
	int (*pidfd_open)(int pid);
	ssize_t (*read)(int fd, void *buf, size_t len);
	ssize_t (*write)(int fd, const void *buf, size_t len);
	ssize_t (*pread)(int fd, void *buf, size_t len, uint64_t offset);
	ssize_t (*pwrite)(int fd, const void *buf, size_t len, uint64_t offset);
	ssize_t (*pread_nowait)(int fd, void *buf, size_t len, uint64_t offset);
	int64_t (*lseek)(int fd, int64_t offset, int whence);
	int (*file_kind)(int fd, struct hgm_file_kind *kind);
	int (*memfd_create)(const char *name, unsigned int flags);
	int (*ftruncate)(int fd, uint64_t len);
	int (*punch_hole)(int fd, uint64_t offset, uint64_t len); /* the size stays */
	int (*seal)(int fd);					  /* F_SEAL_SHRINK */
	int (*fsync)(int fd);
	int (*eventfd)(void);
	int (*poll)(struct pollfd *fds, unsigned int n, int64_t timeout_ns); /* < 0: forever */

	/* memory */
	int (*mmap)(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
		    uint64_t offset);
	int (*munmap)(void *addr, uint64_t len);
	int (*mprotect)(void *addr, uint64_t len, int prot);
	int (*madvise)(void *addr, uint64_t len, int advice);
	/* Of another process; -EAGAIN: only a part of the range. Length 0: are we allowed to? */
	int (*process_madvise)(int pidfd, void *addr, uint64_t len, int advice);
	int (*mincore)(const void *addr, uint64_t len, unsigned char *resident);
	/*
	 * Like memcpy(), but fails with EFAULT where memcpy() would be killed: beyond the end of a
	 * file. Returns the number of bytes copied.
	 */
	int64_t (*copy)(void *to, const void *from, uint64_t len);
	/* returns the number of regions found; *walk_end is where the scan ended */
	int (*pagemap_scan)(int fd, const void *start, const void *end, uint64_t category,
			    struct hgm_pm_region *out, uint64_t out_len, uint64_t *walk_end);
	/*
	 * The same for pages that were written to since the last such scan or since they were
	 * protected. Protects them again (WP_ASYNC).
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
	/* *done is the ioctl's result field: full length, positive partial, negative errno */
	int (*uffd_copy)(int fd, void *dst, const void *src, uint64_t len, uint64_t mode,
			 int64_t *done);
	int (*uffd_zeropage)(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done);
	int (*uffd_continue)(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done);
	int (*uffd_poison)(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done);
	int (*uffd_move)(int fd, void *dst, void *src, uint64_t len, uint64_t mode, int64_t *done);
	int (*uffd_writeprotect)(int fd, void *addr, uint64_t len, uint64_t mode);
	int (*uffd_rwprotect)(int fd, void *addr, uint64_t len, uint64_t mode);
	int (*uffd_set_mode)(int fd, uint64_t enable, uint64_t disable); /* features */

	/* KVM: new descriptors, of a virtual machine and of its guest_memfd */
	int (*kvm_create_vm)(int kvm);
	int (*kvm_guest_memfd)(int vm, uint64_t len, uint64_t flags);
};

extern const struct hgm_sys hgm_sys_linux;

/* The table in force. Tests replace it while no object of the library exists. */
extern const struct hgm_sys *hgm_sys;

#endif
