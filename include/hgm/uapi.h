/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/uapi.h - kernel constants that may be missing from a distribution's headers
 *
 * The constants have names of their own, so that no inclusion order can clash with
 * <linux/userfaultfd.h> or <sys/mman.h>. The values are the kernel's ABI. They are checked against
 * the system's headers where those define them (lib/kernel/sys_linux.c). The right column is the
 * kernel version that introduced each constant.
 */
#ifndef HGM_UAPI_H
#define HGM_UAPI_H

#include <stdint.h>

/* UFFDIO_API feature bits */
#define HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP  (UINT64_C(1) << 0)	/* 5.7 */
#define HGM_UFFD_FEATURE_EVENT_FORK	    (UINT64_C(1) << 1)	/* 4.11 */
#define HGM_UFFD_FEATURE_EVENT_REMAP	    (UINT64_C(1) << 2)	/* 4.11 */
#define HGM_UFFD_FEATURE_EVENT_REMOVE	    (UINT64_C(1) << 3)	/* 4.11 */
#define HGM_UFFD_FEATURE_MISSING_HUGETLBFS  (UINT64_C(1) << 4)	/* 4.11 */
#define HGM_UFFD_FEATURE_MISSING_SHMEM	    (UINT64_C(1) << 5)	/* 4.11 */
#define HGM_UFFD_FEATURE_EVENT_UNMAP	    (UINT64_C(1) << 6)	/* 4.11 */
#define HGM_UFFD_FEATURE_SIGBUS		    (UINT64_C(1) << 7)	/* 4.14 */
#define HGM_UFFD_FEATURE_THREAD_ID	    (UINT64_C(1) << 8)	/* 4.14 */
#define HGM_UFFD_FEATURE_MINOR_HUGETLBFS    (UINT64_C(1) << 9)	/* 5.13 */
#define HGM_UFFD_FEATURE_MINOR_SHMEM	    (UINT64_C(1) << 10) /* 5.14 */
#define HGM_UFFD_FEATURE_EXACT_ADDRESS	    (UINT64_C(1) << 11) /* 5.18 */
#define HGM_UFFD_FEATURE_WP_HUGETLBFS_SHMEM (UINT64_C(1) << 12) /* 5.19 */
#define HGM_UFFD_FEATURE_WP_UNPOPULATED	    (UINT64_C(1) << 13) /* 6.4 */
#define HGM_UFFD_FEATURE_POISON		    (UINT64_C(1) << 14) /* 6.6 */
#define HGM_UFFD_FEATURE_WP_ASYNC	    (UINT64_C(1) << 15) /* 6.7 */
#define HGM_UFFD_FEATURE_MOVE		    (UINT64_C(1) << 16) /* 6.8 */
#define HGM_UFFD_FEATURE_RWP		    (UINT64_C(1) << 17) /* 7.3 */
#define HGM_UFFD_FEATURE_RWP_ASYNC \
	(UINT64_C(1) << 18) /* 7.3; the kernel accepts it together with RWP only */

/*
 * Bit 13, too, in the RFC series of high-granularity mapping (2022). That a kernel offers it
 * proves nothing.
 */
#define HGM_UFFD_FEATURE_MINOR_HUGETLBFS_HGM (UINT64_C(1) << 13)

/* UFFDIO_REGISTER modes */
#define HGM_UFFD_MISSING (UINT64_C(1) << 0)
#define HGM_UFFD_WP	 (UINT64_C(1) << 1)
#define HGM_UFFD_MINOR	 (UINT64_C(1) << 2)
#define HGM_UFFD_RWP	 (UINT64_C(1) << 3) /* 7.3; never together with WP */

/* Bits of the ioctl mask that UFFDIO_REGISTER returns */
#define HGM_UFFD_IOCTL_WAKE	    (UINT64_C(1) << 0x02)
#define HGM_UFFD_IOCTL_COPY	    (UINT64_C(1) << 0x03)
#define HGM_UFFD_IOCTL_ZEROPAGE	    (UINT64_C(1) << 0x04)
#define HGM_UFFD_IOCTL_MOVE	    (UINT64_C(1) << 0x05)
#define HGM_UFFD_IOCTL_WRITEPROTECT (UINT64_C(1) << 0x06)
#define HGM_UFFD_IOCTL_CONTINUE	    (UINT64_C(1) << 0x07)
#define HGM_UFFD_IOCTL_POISON	    (UINT64_C(1) << 0x08)
#define HGM_UFFD_IOCTL_RWPROTECT    (UINT64_C(1) << 0x09) /* 7.3 */

/* Flags of a page fault message */
#define HGM_UFFD_FAULT_WRITE (UINT64_C(1) << 0)
#define HGM_UFFD_FAULT_WP    (UINT64_C(1) << 1)
#define HGM_UFFD_FAULT_MINOR (UINT64_C(1) << 2)
#define HGM_UFFD_FAULT_RWP   (UINT64_C(1) << 3) /* 7.3 */

/* Modes of the range operations */
#define HGM_UFFD_COPY_DONTWAKE	   (UINT64_C(1) << 0)
#define HGM_UFFD_COPY_WP	   (UINT64_C(1) << 1)
#define HGM_UFFD_ZEROPAGE_DONTWAKE (UINT64_C(1) << 0)
#define HGM_UFFD_WP_PROTECT	   (UINT64_C(1) << 0)
#define HGM_UFFD_WP_DONTWAKE	   (UINT64_C(1) << 1)
#define HGM_UFFD_CONTINUE_DONTWAKE (UINT64_C(1) << 0)
#define HGM_UFFD_CONTINUE_WP	   (UINT64_C(1) << 1) /* 6.4 */
#define HGM_UFFD_POISON_DONTWAKE   (UINT64_C(1) << 0)
#define HGM_UFFD_MOVE_DONTWAKE	   (UINT64_C(1) << 0)
#define HGM_UFFD_RWP_PROTECT	   (UINT64_C(1) << 0) /* 7.3 */
#define HGM_UFFD_RWP_DONTWAKE	   (UINT64_C(1) << 1) /* 7.3 */

/* madvise(2) advice */
#define HGM_MADV_POPULATE_READ	 22 /* 5.14 */
#define HGM_MADV_POPULATE_WRITE	 23 /* 5.14 */
#define HGM_MADV_DONTNEED_LOCKED 24 /* 5.18 */
#define HGM_MADV_COLLAPSE	 25 /* 6.1 */
#ifdef __hppa__
#define HGM_MADV_SPLIT 74
#else
#define HGM_MADV_SPLIT 26 /* HGM series v1 and v2 only; a stock kernel returns EINVAL */
#endif

#define HGM_MADV_GUARD_INSTALL 102 /* 6.13 */

/* ioctl PAGEMAP_SCAN of /proc/PID/pagemap (6.7) */
#define HGM_PAGE_IS_WPALLOWED (UINT64_C(1) << 0)
#define HGM_PAGE_IS_WRITTEN   (UINT64_C(1) << 1)
#define HGM_PAGE_IS_FILE      (UINT64_C(1) << 2)
#define HGM_PAGE_IS_PRESENT   (UINT64_C(1) << 3)
#define HGM_PAGE_IS_SWAPPED   (UINT64_C(1) << 4)
#define HGM_PAGE_IS_PFNZERO   (UINT64_C(1) << 5)
#define HGM_PAGE_IS_HUGE      (UINT64_C(1) << 6)
#define HGM_PAGE_IS_GUARD     (UINT64_C(1) << 8) /* 6.15 */
#define HGM_PAGE_IS_ACCESSED  (UINT64_C(1) << 9) /* 7.3 */

#endif /* HGM_UAPI_H */
