/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The real implementation of the kernel seam: Linux.
 */
#include <errno.h>
#include <signal.h>
#include <pthread.h>
#include <fcntl.h>
#include <linux/fs.h>
#if __has_include(<asm/kvm.h>)
#include <linux/kvm.h>
#endif
#include <linux/userfaultfd.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "sys.h"

/* Check our constants against the system's headers, where these are new enough to have them. */
_Static_assert(HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP == UFFD_FEATURE_PAGEFAULT_FLAG_WP, "uapi");
_Static_assert(HGM_UFFD_FEATURE_EVENT_FORK == UFFD_FEATURE_EVENT_FORK, "uapi");
_Static_assert(HGM_UFFD_FEATURE_EVENT_REMAP == UFFD_FEATURE_EVENT_REMAP, "uapi");
_Static_assert(HGM_UFFD_FEATURE_EVENT_REMOVE == UFFD_FEATURE_EVENT_REMOVE, "uapi");
_Static_assert(HGM_UFFD_FEATURE_MISSING_HUGETLBFS == UFFD_FEATURE_MISSING_HUGETLBFS, "uapi");
_Static_assert(HGM_UFFD_FEATURE_MISSING_SHMEM == UFFD_FEATURE_MISSING_SHMEM, "uapi");
_Static_assert(HGM_UFFD_FEATURE_EVENT_UNMAP == UFFD_FEATURE_EVENT_UNMAP, "uapi");
_Static_assert(HGM_UFFD_FEATURE_SIGBUS == UFFD_FEATURE_SIGBUS, "uapi");
_Static_assert(HGM_UFFD_FEATURE_THREAD_ID == UFFD_FEATURE_THREAD_ID, "uapi");
_Static_assert(HGM_UFFD_FEATURE_MINOR_HUGETLBFS == UFFD_FEATURE_MINOR_HUGETLBFS, "uapi");
_Static_assert(HGM_UFFD_FEATURE_MINOR_SHMEM == UFFD_FEATURE_MINOR_SHMEM, "uapi");
_Static_assert(HGM_UFFD_FEATURE_EXACT_ADDRESS == UFFD_FEATURE_EXACT_ADDRESS, "uapi");
_Static_assert(HGM_UFFD_FEATURE_WP_HUGETLBFS_SHMEM == UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "uapi");
#ifdef UFFD_FEATURE_WP_UNPOPULATED
_Static_assert(HGM_UFFD_FEATURE_WP_UNPOPULATED == UFFD_FEATURE_WP_UNPOPULATED, "uapi");
#endif
#ifdef UFFD_FEATURE_POISON
_Static_assert(HGM_UFFD_FEATURE_POISON == UFFD_FEATURE_POISON, "uapi");
_Static_assert(HGM_UFFD_POISON_DONTWAKE == UFFDIO_POISON_MODE_DONTWAKE, "uapi");
#endif
#ifdef UFFD_FEATURE_WP_ASYNC
_Static_assert(HGM_UFFD_FEATURE_WP_ASYNC == UFFD_FEATURE_WP_ASYNC, "uapi");
#endif
#ifdef UFFD_FEATURE_MOVE
_Static_assert(HGM_UFFD_FEATURE_MOVE == UFFD_FEATURE_MOVE, "uapi");
_Static_assert(HGM_UFFD_MOVE_DONTWAKE == UFFDIO_MOVE_MODE_DONTWAKE, "uapi");
#endif
#ifdef UFFD_FEATURE_RWP
_Static_assert(HGM_UFFD_FEATURE_RWP == UFFD_FEATURE_RWP, "uapi");
_Static_assert(HGM_UFFD_FEATURE_RWP_ASYNC == UFFD_FEATURE_RWP_ASYNC, "uapi");
_Static_assert(HGM_UFFD_RWP == UFFDIO_REGISTER_MODE_RWP, "uapi");
_Static_assert(HGM_UFFD_IOCTL_RWPROTECT == UINT64_C(1) << _UFFDIO_RWPROTECT, "uapi");
_Static_assert(HGM_UFFD_FAULT_RWP == UFFD_PAGEFAULT_FLAG_RWP, "uapi");
_Static_assert(HGM_UFFD_RWP_PROTECT == UFFDIO_RWPROTECT_MODE_RWP, "uapi");
_Static_assert(HGM_UFFD_RWP_DONTWAKE == UFFDIO_RWPROTECT_MODE_DONTWAKE, "uapi");
#endif
#ifdef UFFDIO_CONTINUE_MODE_WP
_Static_assert(HGM_UFFD_CONTINUE_WP == UFFDIO_CONTINUE_MODE_WP, "uapi");
#endif
_Static_assert(HGM_UFFD_MISSING == UFFDIO_REGISTER_MODE_MISSING, "uapi");
_Static_assert(HGM_UFFD_WP == UFFDIO_REGISTER_MODE_WP, "uapi");
_Static_assert(HGM_UFFD_MINOR == UFFDIO_REGISTER_MODE_MINOR, "uapi");
_Static_assert(HGM_UFFD_IOCTL_CONTINUE == UINT64_C(1) << _UFFDIO_CONTINUE, "uapi");
_Static_assert(HGM_UFFD_FAULT_WRITE == UFFD_PAGEFAULT_FLAG_WRITE, "uapi");
_Static_assert(HGM_UFFD_FAULT_WP == UFFD_PAGEFAULT_FLAG_WP, "uapi");
_Static_assert(HGM_UFFD_FAULT_MINOR == UFFD_PAGEFAULT_FLAG_MINOR, "uapi");
_Static_assert(HGM_UFFD_COPY_DONTWAKE == UFFDIO_COPY_MODE_DONTWAKE, "uapi");
_Static_assert(HGM_UFFD_COPY_WP == UFFDIO_COPY_MODE_WP, "uapi");
_Static_assert(HGM_UFFD_ZEROPAGE_DONTWAKE == UFFDIO_ZEROPAGE_MODE_DONTWAKE, "uapi");
_Static_assert(HGM_UFFD_WP_PROTECT == UFFDIO_WRITEPROTECT_MODE_WP, "uapi");
_Static_assert(HGM_UFFD_WP_DONTWAKE == UFFDIO_WRITEPROTECT_MODE_DONTWAKE, "uapi");
_Static_assert(HGM_UFFD_CONTINUE_DONTWAKE == UFFDIO_CONTINUE_MODE_DONTWAKE, "uapi");
#ifdef MADV_POPULATE_READ
_Static_assert(HGM_MADV_POPULATE_READ == MADV_POPULATE_READ, "uapi");
_Static_assert(HGM_MADV_POPULATE_WRITE == MADV_POPULATE_WRITE, "uapi");
#endif
#ifdef MADV_DONTNEED_LOCKED
_Static_assert(HGM_MADV_DONTNEED_LOCKED == MADV_DONTNEED_LOCKED, "uapi");
#endif
#ifdef MADV_COLLAPSE
_Static_assert(HGM_MADV_COLLAPSE == MADV_COLLAPSE, "uapi");
#endif
#ifdef PAGEMAP_SCAN
_Static_assert(HGM_PAGE_IS_WPALLOWED == PAGE_IS_WPALLOWED, "uapi");
_Static_assert(HGM_PAGE_IS_WRITTEN == PAGE_IS_WRITTEN, "uapi");
_Static_assert(HGM_PAGE_IS_FILE == PAGE_IS_FILE, "uapi");
_Static_assert(HGM_PAGE_IS_PRESENT == PAGE_IS_PRESENT, "uapi");
_Static_assert(HGM_PAGE_IS_SWAPPED == PAGE_IS_SWAPPED, "uapi");
_Static_assert(HGM_PAGE_IS_PFNZERO == PAGE_IS_PFNZERO, "uapi");
_Static_assert(HGM_PAGE_IS_HUGE == PAGE_IS_HUGE, "uapi");
#endif
#ifdef PAGE_IS_GUARD
_Static_assert(HGM_PAGE_IS_GUARD == PAGE_IS_GUARD, "uapi");
#endif
#ifdef PAGE_IS_ACCESSED
_Static_assert(HGM_PAGE_IS_ACCESSED == PAGE_IS_ACCESSED, "uapi");
#endif
#ifdef MADV_GUARD_INSTALL
_Static_assert(HGM_MADV_GUARD_INSTALL == MADV_GUARD_INSTALL, "uapi");
#endif

/*
 * Structs and request numbers that headers before 7.3 lack, as the kernel's ABI defines them. The
 * names are our own, because newer headers define the kernel's: struct pm_scan_arg, for example,
 * since 6.7.
 */
struct hgm_uffd_poison_arg {
	uint64_t start;
	uint64_t len;
	uint64_t mode;
	int64_t updated;
};

struct hgm_uffd_move_arg {
	uint64_t dst;
	uint64_t src;
	uint64_t len;
	uint64_t mode;
	int64_t move;
};

struct hgm_uffd_rwprotect_arg {
	uint64_t start;
	uint64_t len;
	uint64_t mode;
};

struct hgm_uffd_set_mode_arg {
	uint64_t enable;
	uint64_t disable;
};

struct hgm_pm_scan_arg {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

struct hgm_guest_memfd_arg {
	uint64_t size;
	uint64_t flags;
	uint64_t reserved[6];
};

#define HGM_IOCTL_UFFD_NEW     _IO(0xAA, 0x00)
#define HGM_IOCTL_UFFD_POISON  _IOWR(0xAA, 0x08, struct hgm_uffd_poison_arg)
#define HGM_IOCTL_UFFD_MOVE    _IOWR(0xAA, 0x05, struct hgm_uffd_move_arg)
#define HGM_IOCTL_UFFD_RWP     _IOWR(0xAA, 0x09, struct hgm_uffd_rwprotect_arg)
#define HGM_IOCTL_UFFD_MODE    _IOW(0xAA, 0x0A, struct hgm_uffd_set_mode_arg)
#define HGM_IOCTL_PAGEMAP_SCAN _IOWR('f', 16, struct hgm_pm_scan_arg)

#define HGM_IOCTL_KVM_CREATE_VM	  _IO(0xAE, 0x01)
#define HGM_IOCTL_KVM_GUEST_MEMFD _IOWR(0xAE, 0xd4, struct hgm_guest_memfd_arg)

#define HGM_PM_SCAN_WP		(UINT64_C(1) << 0) /* PM_SCAN_WP_MATCHING */
#define HGM_PM_SCAN_CHECK_ASYNC (UINT64_C(1) << 1) /* PM_SCAN_CHECK_WPASYNC */

#ifdef KVM_CREATE_VM
_Static_assert(HGM_IOCTL_KVM_CREATE_VM == KVM_CREATE_VM, "uapi");
#endif
#ifdef KVM_CREATE_GUEST_MEMFD
_Static_assert(HGM_IOCTL_KVM_GUEST_MEMFD == KVM_CREATE_GUEST_MEMFD, "uapi");
#endif
#ifdef USERFAULTFD_IOC_NEW
_Static_assert(HGM_IOCTL_UFFD_NEW == USERFAULTFD_IOC_NEW, "uapi");
#endif
#ifdef UFFDIO_POISON
_Static_assert(HGM_IOCTL_UFFD_POISON == UFFDIO_POISON, "uapi");
#endif
#ifdef UFFDIO_MOVE
_Static_assert(HGM_IOCTL_UFFD_MOVE == UFFDIO_MOVE, "uapi");
#endif
#ifdef UFFDIO_RWPROTECT
_Static_assert(HGM_IOCTL_UFFD_RWP == UFFDIO_RWPROTECT, "uapi");
#endif
#ifdef UFFDIO_SET_MODE
_Static_assert(HGM_IOCTL_UFFD_MODE == UFFDIO_SET_MODE, "uapi");
#endif
#ifdef PAGEMAP_SCAN
_Static_assert(HGM_IOCTL_PAGEMAP_SCAN == PAGEMAP_SCAN, "uapi");
_Static_assert(HGM_PM_SCAN_WP == PM_SCAN_WP_MATCHING, "uapi");
_Static_assert(HGM_PM_SCAN_CHECK_ASYNC == PM_SCAN_CHECK_WPASYNC, "uapi");
_Static_assert(sizeof(struct hgm_pm_region) == sizeof(struct page_region), "uapi");
_Static_assert(offsetof(struct hgm_pm_region, categories) ==
		       offsetof(struct page_region, categories),
	       "uapi");
_Static_assert(offsetof(struct hgm_pm_scan_arg, vec) == offsetof(struct pm_scan_arg, vec), "uapi");
_Static_assert(offsetof(struct hgm_pm_scan_arg, category_mask) ==
		       offsetof(struct pm_scan_arg, category_mask),
	       "uapi");
_Static_assert(offsetof(struct hgm_pm_scan_arg, return_mask) ==
		       offsetof(struct pm_scan_arg, return_mask),
	       "uapi");
#endif

/* Preserve the caller's errno: hgm_io_done() runs on threads that are not the library's own. */
#define NEGATIVE_ERRNO(call)                  \
	({                                    \
		int saved_ = errno;           \
		__typeof__(call) r_ = (call); \
		if (r_ < 0) {                 \
			r_ = -errno;          \
			errno = saved_;       \
		}                             \
		r_;                           \
	})

/*
 * None of our descriptors may be a standard one: if the process has closed those, what it prints by
 * mistake would be written to our descriptor.
 */
static int above_stdio(int fd)
{
	int higher;

	if (fd < 0 || fd > STDERR_FILENO)
		return fd;
	higher = NEGATIVE_ERRNO(fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
	close(fd);
	return higher;
}

static int linux_open(const char *path, int flags)
{
	return above_stdio(NEGATIVE_ERRNO(open(path, flags | O_CLOEXEC)));
}

static int linux_close(int fd)
{
	return NEGATIVE_ERRNO(close(fd));
}

static int linux_dup(int fd)
{
	return NEGATIVE_ERRNO(fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
}

static int linux_set_nonblock(int fd)
{
	int flags = NEGATIVE_ERRNO(fcntl(fd, F_GETFL));

	return flags < 0 ? flags : NEGATIVE_ERRNO(fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

static int linux_pidfd_open(int pid)
{
	return above_stdio(NEGATIVE_ERRNO(syscall(SYS_pidfd_open, pid, 0)));
}

static ssize_t linux_read(int fd, void *buf, size_t len)
{
	return NEGATIVE_ERRNO(read(fd, buf, len));
}

static ssize_t linux_write(int fd, const void *buf, size_t len)
{
	return NEGATIVE_ERRNO(write(fd, buf, len));
}

static ssize_t linux_pread(int fd, void *buf, size_t len, uint64_t offset)
{
	return NEGATIVE_ERRNO(pread(fd, buf, len, (off_t)offset));
}

static ssize_t linux_pwrite(int fd, const void *buf, size_t len, uint64_t offset)
{
	return NEGATIVE_ERRNO(pwrite(fd, buf, len, (off_t)offset));
}

static ssize_t linux_pread_nowait(int fd, void *buf, size_t len, uint64_t offset)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };

	return NEGATIVE_ERRNO(preadv2(fd, &iov, 1, (off_t)offset, RWF_NOWAIT));
}

static int64_t linux_lseek(int fd, int64_t offset, int whence)
{
	return NEGATIVE_ERRNO(lseek(fd, offset, whence));
}

static int linux_file_kind(int fd, struct hgm_file_kind *kind)
{
	struct statfs fs;
	struct stat st;
	int access;
	int rc;

	rc = NEGATIVE_ERRNO(fstat(fd, &st));
	if (!rc)
		rc = NEGATIVE_ERRNO(fstatfs(fd, &fs));
	if (rc)
		return rc;
	access = NEGATIVE_ERRNO(fcntl(fd, F_GETFL));
	if (access < 0)
		return access;
	if (access & O_PATH)
		return -EBADF;
	kind->mode = st.st_mode;
	kind->inode = st.st_ino;
	kind->device = st.st_dev;
	kind->special = st.st_rdev;
	kind->size = (uint64_t)st.st_size;
	kind->fs_magic = (uint64_t)fs.f_type;
	kind->fs_block_bytes = (uint64_t)fs.f_bsize;
	kind->access = access & O_ACCMODE;
	kind->appends = access & O_APPEND;
	kind->changed_ns = (uint64_t)st.st_ctim.tv_sec * 1000000000 + (uint64_t)st.st_ctim.tv_nsec;
	kind->direct = access & O_DIRECT;
	kind->full = fs.f_blocks && !fs.f_bavail;
	access = NEGATIVE_ERRNO(fcntl(fd, F_GET_SEALS));
	kind->sealed = access >= 0 && access & F_SEAL_SHRINK;
	return 0;
}

static int linux_memfd_create(const char *name, unsigned int flags)
{
	return above_stdio(NEGATIVE_ERRNO(memfd_create(name, flags | MFD_CLOEXEC)));
}

/*
 * Beyond RLIMIT_FSIZE, the kernel sends SIGXFSZ, which terminates the process, before it returns
 * EFBIG. The signal goes to the calling thread. Block it, and discard it if it was not pending
 * before.
 */
static int linux_ftruncate(int fd, uint64_t len)
{
	sigset_t xfsz, before, pending;
	int rc;

	sigemptyset(&xfsz);
	sigaddset(&xfsz, SIGXFSZ);
	sigpending(&pending);
	pthread_sigmask(SIG_BLOCK, &xfsz, &before);
	rc = NEGATIVE_ERRNO(ftruncate(fd, (off_t)len));
	if (rc == -EFBIG && !sigismember(&pending, SIGXFSZ)) {
		int saved = errno;

		sigtimedwait(&xfsz, NULL, &(struct timespec){ .tv_sec = 0 });
		errno = saved;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

static int linux_punch_hole(int fd, uint64_t offset, uint64_t len)
{
	return NEGATIVE_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					(off_t)offset, (off_t)len));
}

static int linux_seal(int fd)
{
	return NEGATIVE_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
}

static int linux_fsync(int fd)
{
	return NEGATIVE_ERRNO(fsync(fd));
}

static int linux_eventfd(void)
{
	return above_stdio(NEGATIVE_ERRNO(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
}

static int linux_poll(struct pollfd *fds, unsigned int n, int64_t timeout_ns)
{
	struct timespec ts = { .tv_sec = timeout_ns / 1000000000,
			       .tv_nsec = timeout_ns % 1000000000 };

	return NEGATIVE_ERRNO(ppoll(fds, n, timeout_ns < 0 ? NULL : &ts, NULL));
}

static int plain_mmap(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
		      uint64_t offset)
{
	int saved = errno;
	void *p = mmap(addr, len, prot, flags, fd, (off_t)offset);

	if (p == MAP_FAILED) {
		int rc = -errno;

		errno = saved;
		return rc;
	}
	*out = p;
	return 0;
}

/* Does the kernel fill new mappings at once? */
static bool locks_all(void)
{
	unsigned char resident = 0;
	void *probe = NULL;

	if (plain_mmap(&probe, NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0))
		return false;
	if (NEGATIVE_ERRNO(mincore(probe, 4096, &resident)))
		resident = 0;
	munmap(probe, 4096);
	return resident & 1;
}

static int linux_mmap(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
		      uint64_t offset)
{
	bool unlocked = flags & (HGM_MAP_UNLOCKED | HGM_MAP_LOCK_PRESENT);
	bool lock_present = flags & HGM_MAP_LOCK_PRESENT;
	int rc;

	flags &= ~(HGM_MAP_UNLOCKED | HGM_MAP_LOCK_PRESENT);
	if (!unlocked || !locks_all())
		return plain_mmap(out, addr, len, prot, flags, fd, offset);
	/* The kernel does not fill a mapping that cannot be accessed. */
	rc = plain_mmap(out, addr, len, PROT_NONE, flags, fd, offset);
	if (rc)
		return rc;
	NEGATIVE_ERRNO(munlock(*out, len));
	rc = NEGATIVE_ERRNO(mprotect(*out, len, prot));
	if (rc) {
		munmap(*out, len);
		return rc;
	}
	if (lock_present)
		NEGATIVE_ERRNO(mlock2(*out, len, MLOCK_ONFAULT));
	return 0;
}

static int linux_munmap(void *addr, uint64_t len)
{
	return NEGATIVE_ERRNO(munmap(addr, len));
}

static int linux_mprotect(void *addr, uint64_t len, int prot)
{
	return NEGATIVE_ERRNO(mprotect(addr, len, prot));
}

static int linux_madvise(void *addr, uint64_t len, int advice)
{
	return NEGATIVE_ERRNO(madvise(addr, len, advice));
}

static int linux_process_madvise(int pidfd, void *addr, uint64_t len, int advice)
{
	struct iovec range = { .iov_base = addr, .iov_len = len };
	int64_t done =
		NEGATIVE_ERRNO(syscall(SYS_process_madvise, pidfd, &range, len ? 1 : 0, advice, 0));

	if (done < 0)
		return (int)done;
	return (uint64_t)done == len ? 0 : -EAGAIN;
}

static int linux_mincore(const void *addr, uint64_t len, unsigned char *resident)
{
	return NEGATIVE_ERRNO(mincore((void *)(uintptr_t)addr, len, resident));
}

static int64_t linux_copy(void *to, const void *from, uint64_t len)
{
	struct iovec local = { .iov_base = (void *)(uintptr_t)from, .iov_len = len };
	struct iovec remote = { .iov_base = to, .iov_len = len };

	return NEGATIVE_ERRNO(process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
}

static int linux_pagemap_scan(int fd, const void *start, const void *end, uint64_t category,
			      struct hgm_pm_region *out, uint64_t out_len, uint64_t *walk_end)
{
	struct hgm_pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)start,
		.end = (uintptr_t)end,
		.vec = (uintptr_t)out,
		.vec_len = out_len,
		.category_mask = category,
		.return_mask = category,
	};
	int rc = NEGATIVE_ERRNO(ioctl(fd, HGM_IOCTL_PAGEMAP_SCAN, &arg));

	*walk_end = arg.walk_end;
	return rc;
}

static int linux_pagemap_take_written(int fd, const void *start, const void *end,
				      struct hgm_pm_region *out, uint64_t out_len,
				      uint64_t *walk_end)
{
	struct hgm_pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = HGM_PM_SCAN_WP | HGM_PM_SCAN_CHECK_ASYNC,
		.start = (uintptr_t)start,
		.end = (uintptr_t)end,
		.vec = (uintptr_t)out,
		.vec_len = out_len,
		.category_mask = HGM_PAGE_IS_WRITTEN,
		.return_mask = HGM_PAGE_IS_WRITTEN,
	};
	int rc = NEGATIVE_ERRNO(ioctl(fd, HGM_IOCTL_PAGEMAP_SCAN, &arg));

	*walk_end = arg.walk_end;
	return rc;
}

static int linux_userfaultfd(int flags)
{
	return above_stdio((int)NEGATIVE_ERRNO(syscall(SYS_userfaultfd, flags)));
}

static int linux_uffd_new(int dev, int flags)
{
	return above_stdio(NEGATIVE_ERRNO(ioctl(dev, HGM_IOCTL_UFFD_NEW, (long)flags)));
}

static int linux_uffd_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	struct uffdio_api arg = { .api = UFFD_API, .features = *features };
	int rc = NEGATIVE_ERRNO(ioctl(fd, UFFDIO_API, &arg));

	*features = arg.features;
	*ioctls = arg.ioctls;
	return rc;
}

static int linux_uffd_register(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls)
{
	struct uffdio_register arg = {
		.range = { .start = (uintptr_t)addr, .len = len },
		.mode = modes,
	};
	int rc = NEGATIVE_ERRNO(ioctl(fd, UFFDIO_REGISTER, &arg));

	*ioctls = arg.ioctls;
	return rc;
}

static int linux_uffd_unregister(int fd, void *addr, uint64_t len)
{
	struct uffdio_range arg = { .start = (uintptr_t)addr, .len = len };

	return NEGATIVE_ERRNO(ioctl(fd, UFFDIO_UNREGISTER, &arg));
}

static int linux_uffd_wake(int fd, void *addr, uint64_t len)
{
	struct uffdio_range arg = { .start = (uintptr_t)addr, .len = len };

	return NEGATIVE_ERRNO(ioctl(fd, UFFDIO_WAKE, &arg));
}

/*
 * The result field is preset to 0. Kernels before late 2025 leave it unwritten for some EAGAIN. All
 * kernels leave it unwritten for a bad mode or a bad range.
 */
static int linux_uffd_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode,
			   int64_t *done)
{
	struct uffdio_copy arg = {
		.dst = (uintptr_t)dst,
		.src = (uintptr_t)src,
		.len = len,
		.mode = mode,
	};
	int rc = NEGATIVE_ERRNO(ioctl(fd, UFFDIO_COPY, &arg));

	*done = arg.copy;
	return rc;
}

static int linux_uffd_zeropage(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	struct uffdio_zeropage arg = {
		.range = { .start = (uintptr_t)addr, .len = len },
		.mode = mode,
	};
	int rc = NEGATIVE_ERRNO(ioctl(fd, UFFDIO_ZEROPAGE, &arg));

	*done = arg.zeropage;
	return rc;
}

static int linux_uffd_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	struct uffdio_continue arg = {
		.range = { .start = (uintptr_t)addr, .len = len },
		.mode = mode,
	};
	int rc = NEGATIVE_ERRNO(ioctl(fd, UFFDIO_CONTINUE, &arg));

	*done = arg.mapped;
	return rc;
}

static int linux_uffd_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	struct hgm_uffd_poison_arg arg = { .start = (uintptr_t)addr, .len = len, .mode = mode };
	int rc = NEGATIVE_ERRNO(ioctl(fd, HGM_IOCTL_UFFD_POISON, &arg));

	*done = arg.updated;
	return rc;
}

static int linux_uffd_move(int fd, void *dst, void *src, uint64_t len, uint64_t mode, int64_t *done)
{
	struct hgm_uffd_move_arg arg = {
		.dst = (uintptr_t)dst,
		.src = (uintptr_t)src,
		.len = len,
		.mode = mode,
	};
	int rc = NEGATIVE_ERRNO(ioctl(fd, HGM_IOCTL_UFFD_MOVE, &arg));

	*done = arg.move;
	return rc;
}

static int linux_uffd_writeprotect(int fd, void *addr, uint64_t len, uint64_t mode)
{
	struct uffdio_writeprotect arg = {
		.range = { .start = (uintptr_t)addr, .len = len },
		.mode = mode,
	};

	return NEGATIVE_ERRNO(ioctl(fd, UFFDIO_WRITEPROTECT, &arg));
}

static int linux_uffd_rwprotect(int fd, void *addr, uint64_t len, uint64_t mode)
{
	struct hgm_uffd_rwprotect_arg arg = { .start = (uintptr_t)addr, .len = len, .mode = mode };

	return NEGATIVE_ERRNO(ioctl(fd, HGM_IOCTL_UFFD_RWP, &arg));
}

static int linux_uffd_set_mode(int fd, uint64_t enable, uint64_t disable)
{
	struct hgm_uffd_set_mode_arg arg = { .enable = enable, .disable = disable };

	return NEGATIVE_ERRNO(ioctl(fd, HGM_IOCTL_UFFD_MODE, &arg));
}

static int linux_kvm_create_vm(int kvm)
{
	return above_stdio(NEGATIVE_ERRNO(ioctl(kvm, HGM_IOCTL_KVM_CREATE_VM, 0L)));
}

static int linux_kvm_guest_memfd(int vm, uint64_t len, uint64_t flags)
{
	struct hgm_guest_memfd_arg arg = { .size = len, .flags = flags };

	return above_stdio(NEGATIVE_ERRNO(ioctl(vm, HGM_IOCTL_KVM_GUEST_MEMFD, &arg)));
}

const struct hgm_sys hgm_sys_linux = {
	.open = linux_open,
	.close = linux_close,
	.dup = linux_dup,
	.set_nonblock = linux_set_nonblock,
	.pidfd_open = linux_pidfd_open,
	.read = linux_read,
	.write = linux_write,
	.pread = linux_pread,
	.pwrite = linux_pwrite,
	.pread_nowait = linux_pread_nowait,
	.lseek = linux_lseek,
	.file_kind = linux_file_kind,
	.memfd_create = linux_memfd_create,
	.ftruncate = linux_ftruncate,
	.punch_hole = linux_punch_hole,
	.seal = linux_seal,
	.fsync = linux_fsync,
	.eventfd = linux_eventfd,
	.poll = linux_poll,
	.mmap = linux_mmap,
	.munmap = linux_munmap,
	.mprotect = linux_mprotect,
	.madvise = linux_madvise,
	.process_madvise = linux_process_madvise,
	.mincore = linux_mincore,
	.copy = linux_copy,
	.pagemap_scan = linux_pagemap_scan,
	.pagemap_take_written = linux_pagemap_take_written,
	.userfaultfd = linux_userfaultfd,
	.uffd_new = linux_uffd_new,
	.uffd_api = linux_uffd_api,
	.uffd_register = linux_uffd_register,
	.uffd_unregister = linux_uffd_unregister,
	.uffd_wake = linux_uffd_wake,
	.uffd_copy = linux_uffd_copy,
	.uffd_zeropage = linux_uffd_zeropage,
	.uffd_continue = linux_uffd_continue,
	.uffd_poison = linux_uffd_poison,
	.uffd_move = linux_uffd_move,
	.uffd_writeprotect = linux_uffd_writeprotect,
	.uffd_rwprotect = linux_uffd_rwprotect,
	.uffd_set_mode = linux_uffd_set_mode,
	.kvm_create_vm = linux_kvm_create_vm,
	.kvm_guest_memfd = linux_kvm_guest_memfd,
};

const struct hgm_sys *hgm_sys = &hgm_sys_linux;
