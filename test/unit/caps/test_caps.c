/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The capability table on a fake kernel that supports everything by default. Any operation can be
 * made to fail with any errno, or to give false results.
 */
#include <errno.h>
#include <pthread.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <hgm/caps.h>
#include <hgm/error.h>

#include "fake_hgm.h"
#include "kernel/sys.h"
#include "leaks.h"
#include "test.h"

enum verb {
	V_OPEN,
	V_READ,
	V_WRITE,
	V_PREAD,
	V_MEMFD_CREATE,
	V_FTRUNCATE,
	V_EVENTFD,
	V_POLL,
	V_MMAP,
	V_MADVISE,
	V_PAGEMAP_SCAN,
	V_USERFAULTFD,
	V_UFFD_NEW,
	V_UFFD_API,
	V_UFFD_REGISTER,
	V_UFFD_COPY,
	V_UFFD_ZEROPAGE,
	V_UFFD_CONTINUE,
	V_UFFD_POISON,
	V_UFFD_MOVE,
	V_UFFD_WRITEPROTECT,
	V_UFFD_RWPROTECT,
	V_UFFD_SET_MODE,
	V_KVM_CREATE_VM,
	V_KVM_GUEST_MEMFD,
	VERBS,
};

enum fault_result {
	FAULT_MESSAGE,
	FAULT_NOTHING,
	FAULT_WENT_THROUGH
};

#define FEATURES UINT64_C(0x7ffff)

static struct fake {
	int error[VERBS]; /* negative errno; 0: works */
	enum fault_result fault;
	const char *text;    /* contents of every sysfs file */
	uint64_t off_by;     /* added to a fault's address */
	uint32_t tid_off_by; /* added to a fault's thread */
	int64_t short_by;    /* subtracted from each range's result */
	uint64_t pagemap;    /* the word for each page */
	bool no_path_exists; /* open: ENOENT */
	bool nothing_huge;
	bool nothing_accessed;
	bool rwp_looks_missing; /* the message about a protected page does not say so */
	bool poison_readable;
	bool collapse_spoils;
	bool move_loses;
	bool lacks_rwp;
	uint64_t more_features;
	int collapse_busy; /* number of collapses that are refused */

	/* what the kernel knows */
	char *registered;
	uint64_t modes;
	uint64_t features;
	uint32_t toucher;
	bool touched;
	pthread_t main_thread;
} fake;

#define FAIL(verb)                               \
	do {                                     \
		if (fake.error[verb])            \
			return fake.error[verb]; \
	} while (0)

static int fake_open(const char *path, int flags)
{
	int fd;

	(void)flags;
	FAIL(V_OPEN);
	if (fake.no_path_exists)
		return -ENOENT;
	fd = hgm_sys_linux.eventfd();
	if (!strcmp(path, "/proc/self/smaps"))
		fake_hgm_open_smaps(fd);
	else if (fd == hgm.smaps_fd)
		hgm.smaps_fd = -1;
	return fd;
}

static ssize_t fake_read(int fd, void *buf, size_t len)
{
	FAIL(V_READ);
	if (len == sizeof(struct uffd_msg)) {
		struct uffd_msg msg = { .event = UFFD_EVENT_PAGEFAULT };

		msg.arg.pagefault.address = (uintptr_t)fake.registered + 0x123 + fake.off_by;
		if (fake.modes & HGM_UFFD_RWP && !fake.rwp_looks_missing)
			msg.arg.pagefault.flags = HGM_UFFD_FAULT_RWP;
		msg.arg.pagefault.feat.ptid =
			__atomic_load_n(&fake.toucher, __ATOMIC_ACQUIRE) + fake.tid_off_by;
		memcpy(buf, &msg, sizeof(msg));
		return sizeof(msg);
	}
	if (fd == hgm.smaps_fd)
		return fake_hgm_read_smaps(buf, len);
	if (len > strlen(fake.text))
		len = strlen(fake.text);
	memcpy(buf, fake.text, len);
	return (ssize_t)len;
}

/* By the touching thread: its access is complete. By the main thread: the kernel reads poison. */
static ssize_t fake_write(int fd, const void *buf, size_t len)
{
	(void)fd;
	(void)buf;
	if (!pthread_equal(pthread_self(), fake.main_thread)) {
		__atomic_store_n(&fake.toucher, (uint32_t)gettid(), __ATOMIC_RELEASE);
		__atomic_store_n(&fake.touched, true, __ATOMIC_RELEASE);
		return (ssize_t)len;
	}
	FAIL(V_WRITE);
	return fake.poison_readable ? (ssize_t)len : -EFAULT;
}

static ssize_t fake_pread(int fd, void *buf, size_t len, uint64_t offset)
{
	uint64_t addr = offset / sizeof(fake.pagemap) * (uint64_t)getpagesize();
	uint64_t word = fake.pagemap;

	(void)fd;
	FAIL(V_PREAD);
	if (fake_hgm_has((void *)(uintptr_t)addr) && !fake_hgm_present(addr))
		word = 0;
	memcpy(buf, &word, len);
	return (ssize_t)len;
}

static int fake_memfd_create(const char *name, unsigned int flags)
{
	(void)flags;
	FAIL(V_MEMFD_CREATE);
	return hgm_sys_linux.memfd_create(name, 0);
}

static int fake_ftruncate(int fd, uint64_t len)
{
	FAIL(V_FTRUNCATE);
	return hgm_sys_linux.ftruncate(fd, len);
}

static int fake_eventfd(void)
{
	FAIL(V_EVENTFD);
	return hgm_sys_linux.eventfd();
}

static int fake_poll(struct pollfd *fds, unsigned int n, int64_t timeout_ns)
{
	(void)timeout_ns;
	if (!n)
		return 0;
	while (!__atomic_load_n(&fake.touched, __ATOMIC_ACQUIRE))
		usleep(100);
	fake.touched = false;
	FAIL(V_POLL);
	if (fake.fault == FAULT_NOTHING)
		return 0;
	/* If the kernel records accesses by itself, there is no message. */
	fds[fake.fault == FAULT_WENT_THROUGH ||
	    fake.features & (HGM_UFFD_FEATURE_WP_ASYNC | HGM_UFFD_FEATURE_RWP_ASYNC)]
		.revents = POLLIN;
	return 1;
}

static int fake_mmap(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
		     uint64_t offset)
{
	FAIL(V_MMAP);
	return hgm_sys_linux.mmap(out, addr, len, prot, flags | MAP_NORESERVE, fd, offset);
}

static int fake_munmap(void *addr, uint64_t len)
{
	fake_hgm_munmap(addr, len);
	return hgm_sys_linux.munmap(addr, len);
}

static int fake_madvise(void *addr, uint64_t len, int advice)
{
	FAIL(V_MADVISE);
	if (advice == HGM_MADV_SPLIT && len)
		fake_hgm_split(addr, len);
	if (advice == HGM_MADV_COLLAPSE) {
		if (fake_hgm_has(addr))
			fake_hgm_collapse();
		if (fake.collapse_busy) {
			fake.collapse_busy--;
			return -EAGAIN;
		}
		if (fake.collapse_spoils)
			((char *)addr)[4096] = 77;
	}
	return 0;
}

static int fake_pagemap_scan(int fd, const void *start, const void *end, uint64_t category,
			     struct hgm_pm_region *out, uint64_t out_len, uint64_t *walk_end)
{
	(void)fd;
	(void)out_len;
	FAIL(V_PAGEMAP_SCAN);
	*walk_end = (uintptr_t)end;
	if (category == HGM_PAGE_IS_HUGE && fake.nothing_huge)
		return 0;
	if (category == HGM_PAGE_IS_ACCESSED) {
		out->start = (uintptr_t)start + (uintptr_t)getpagesize();
		out->end = out->start + (uintptr_t)getpagesize();
		return !fake.nothing_accessed;
	}
	out->start = (uintptr_t)start;
	out->end = category == HGM_PAGE_IS_HUGE ? (uintptr_t)end
						: (uintptr_t)start + (uintptr_t)getpagesize();
	return 1;
}

static int fake_userfaultfd(int flags)
{
	(void)flags;
	FAIL(V_USERFAULTFD);
	return hgm_sys_linux.eventfd();
}

static int fake_uffd_new(int dev, int flags)
{
	(void)dev;
	(void)flags;
	FAIL(V_UFFD_NEW);
	return hgm_sys_linux.eventfd();
}

static int fake_uffd_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	(void)fd;
	FAIL(V_UFFD_API);
	if (fake.lacks_rwp && *features & HGM_UFFD_FEATURE_RWP) {
		*features = 0;
		return -EINVAL;
	}
	fake.features = *features;
	*features = FEATURES | fake.more_features;
	*ioctls = 3;
	return 0;
}

static int fake_uffd_register(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls)
{
	(void)fd;
	(void)len;
	FAIL(V_UFFD_REGISTER);
	fake.registered = addr;
	fake.modes = modes;
	*ioctls = 0x1fc;
	return 0;
}

static int fake_uffd_unregister(int fd, void *addr, uint64_t len)
{
	(void)fd;
	(void)addr;
	(void)len;
	return 0;
}

static int fake_uffd_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode,
			  int64_t *done)
{
	(void)fd;
	(void)dst;
	(void)src;
	(void)mode;
	FAIL(V_UFFD_COPY);
	*done = (int64_t)len - fake.short_by;
	return 0;
}

static int fake_range(enum verb verb, uint64_t len, int64_t *done)
{
	FAIL(verb);
	*done = (int64_t)len - fake.short_by;
	return 0;
}

static int fake_uffd_zeropage(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	(void)fd;
	(void)addr;
	(void)mode;
	return fake_range(V_UFFD_ZEROPAGE, len, done);
}

static int fake_uffd_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	int rc = fake_range(V_UFFD_CONTINUE, len, done);

	(void)fd;
	(void)mode;
	if (!rc && fake_hgm_has(addr))
		fake_hgm_map(addr, len);
	return rc;
}

static int fake_uffd_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	(void)fd;
	(void)addr;
	(void)mode;
	return fake_range(V_UFFD_POISON, len, done);
}

static int fake_uffd_move(int fd, void *dst, void *src, uint64_t len, uint64_t mode, int64_t *done)
{
	(void)fd;
	(void)mode;
	FAIL(V_UFFD_MOVE);
	if (!fake.move_loses)
		memcpy(dst, src, len);
	*done = (int64_t)len - fake.short_by;
	return 0;
}

static int fake_uffd_writeprotect(int fd, void *addr, uint64_t len, uint64_t mode)
{
	(void)fd;
	(void)addr;
	(void)len;
	(void)mode;
	FAIL(V_UFFD_WRITEPROTECT);
	return 0;
}

static int fake_uffd_rwprotect(int fd, void *addr, uint64_t len, uint64_t mode)
{
	(void)fd;
	(void)addr;
	(void)len;
	assert_true(mode == HGM_UFFD_RWP_PROTECT || !mode);
	FAIL(V_UFFD_RWPROTECT);
	return 0;
}

static int fake_uffd_set_mode(int fd, uint64_t enable, uint64_t disable)
{
	(void)fd;
	FAIL(V_UFFD_SET_MODE);
	fake.features = (fake.features | enable) & ~disable;
	return 0;
}

static int fake_kvm_create_vm(int kvm)
{
	(void)kvm;
	FAIL(V_KVM_CREATE_VM);
	return hgm_sys_linux.eventfd();
}

static int fake_kvm_guest_memfd(int vm, uint64_t len, uint64_t flags)
{
	int fd;

	(void)vm;
	assert_int_equal(flags, 3); /* it can be mapped, and touched */
	FAIL(V_KVM_GUEST_MEMFD);
	fd = hgm_sys_linux.memfd_create("guest", 0);
	assert_int_equal(hgm_sys_linux.ftruncate(fd, len), 0);
	return fd;
}

static struct hgm_sys fake_sys = {
	.open = fake_open,
	.read = fake_read,
	.write = fake_write,
	.pread = fake_pread,
	.memfd_create = fake_memfd_create,
	.ftruncate = fake_ftruncate,
	.eventfd = fake_eventfd,
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
	.uffd_wake = fake_uffd_unregister,
	.uffd_copy = fake_uffd_copy,
	.uffd_zeropage = fake_uffd_zeropage,
	.uffd_continue = fake_uffd_continue,
	.uffd_poison = fake_uffd_poison,
	.uffd_move = fake_uffd_move,
	.uffd_writeprotect = fake_uffd_writeprotect,
	.uffd_rwprotect = fake_uffd_rwprotect,
	.uffd_set_mode = fake_uffd_set_mode,
	.kvm_create_vm = fake_kvm_create_vm,
	.kvm_guest_memfd = fake_kvm_guest_memfd,
};

/* The table for the current fake kernel. The probe must leave nothing behind. */
static struct hgm_caps *probe(unsigned int flags)
{
	struct holdings before = take_holdings();
	struct hgm_caps *caps = NULL;

	fake.touched = false;
	assert_int_equal(hgm_caps_probe(&caps, flags), 0);
	assert_non_null(caps);
	assert_same_holdings(&before);
	for (unsigned int i = 0; i < hgm_caps_count(caps); i++)
		assert_true(strlen(hgm_caps_at(caps, i)->reason) > 5);
	return caps;
}

/* Is never a yes, or not where MADV_SPLIT works. */
static bool is_no_yes(const char *name)
{
	return !strcmp(name, "hgm.sysfs") || !strcmp(name, "hgm.feature");
}

static void assert_all(const struct hgm_caps *caps, uint32_t answer)
{
	for (unsigned int i = 0; i < hgm_caps_count(caps); i++)
		if (hgm_caps_at(caps, i)->answer != answer &&
		    (answer != HGM_YES || !is_no_yes(hgm_caps_at(caps, i)->name)))
			fail_msg("%s: %u instead of %u: %s", hgm_caps_at(caps, i)->name,
				 hgm_caps_at(caps, i)->answer, answer,
				 hgm_caps_at(caps, i)->reason);
}

static void assert_cap(const struct hgm_caps *caps, const char *name, uint32_t answer,
		       const char *words)
{
	const struct hgm_cap *cap = hgm_caps_find(caps, name);

	assert_non_null(cap);
	if (cap->answer != answer || !strstr(cap->reason, words))
		fail_msg("%s: %u, '%s' instead of %u, '%s'", name, cap->answer, cap->reason, answer,
			 words);
}

/* Probe with the current @fake, and check one row. */
static void assert_probe(unsigned int flags, const char *name, uint32_t answer, const char *words)
{
	struct hgm_caps *caps = probe(flags);

	assert_cap(caps, name, answer, words);
	hgm_caps_free(caps);
}

static int set_up(void **state)
{
	struct hgm_caps *caps;

	(void)state;
	fake = (struct fake){
		.text = "7\n",
		.pagemap = UINT64_C(1) << 63 | UINT64_C(1) << 57,
		.main_thread = pthread_self(),
	};
	fake_sys.close = hgm_sys_linux.close;
	fake_hgm_reset();
	hgm_sys = &fake_sys;
	/* In the first run the C library maps memory that it keeps (a thread's stack). */
	if (hgm_caps_probe(&caps, 0))
		return -1;
	hgm_caps_free(caps);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	hgm_sys = &hgm_sys_linux;
	return 0;
}

static void everything_works(void **state)
{
	struct hgm_caps *caps = probe(HGM_CAPS_USE_HUGE_PAGES);

	(void)state;
	assert_all(caps, HGM_YES);
	assert_int_equal(hgm_caps_find(caps, "uffd.features")->value, FEATURES);
	assert_int_equal(hgm_caps_find(caps, "hugetlb.2m")->value, 7);
	assert_int_equal(hgm_caps_find(caps, "hugetlb.1g")->value, 7);
	assert_int_equal(hgm_caps_find(caps, "shmem.minor.4k")->value, 0);
	hgm_caps_free(caps);
}

static void fail_everything(int error)
{
	for (int i = 0; i < VERBS; i++)
		fake.error[i] = error;
}

static void everything_denied(void **state)
{
	static const int errors[] = { -EPERM, -EACCES };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct hgm_caps *caps;

		fail_everything(errors[i]);
		caps = probe(HGM_CAPS_USE_HUGE_PAGES);
		assert_all(caps, HGM_DENIED);
		assert_cap(caps, "uffd.syscall", HGM_DENIED, "vm.unprivileged_userfaultfd");
		assert_cap(caps, "uffd.device", HGM_DENIED, "setfacl");
		hgm_caps_free(caps);
	}
}

static void everything_unknown(void **state)
{
	struct hgm_caps *caps;

	(void)state;
	fail_everything(-ENOSYS);
	caps = probe(HGM_CAPS_USE_HUGE_PAGES);
	assert_all(caps, HGM_NO);
	assert_cap(caps, "uffd.syscall", HGM_NO, "seccomp");
	hgm_caps_free(caps);
}

static void everything_short_of_something(void **state)
{
	static const int errors[] = { -ENOMEM, -EMFILE, -EAGAIN };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct hgm_caps *caps;

		fail_everything(errors[i]);
		caps = probe(HGM_CAPS_USE_HUGE_PAGES);
		assert_all(caps, HGM_UNPROVEN);
		hgm_caps_free(caps);
	}
}

/* Whatever fails, there is a table, and nothing is left behind, which probe() checks. */
static void each_verb_fails_in_each_way(void **state)
{
	static const int errors[] = {
		EINVAL, EPERM, EAGAIN, ENOENT, ENOMEM, EFAULT, EMFILE, ENOTTY
	};
	/* Memory and threads distinguish only denial, delay and other errors. */
	const size_t count = SANITIZED ? 3 : sizeof(errors) / sizeof(errors[0]);

	(void)state;
	for (int verb = 0; verb < VERBS; verb++) {
		for (size_t i = 0; i < count; i++) {
			fake.error[verb] = -errors[i];
			hgm_caps_free(probe(0));
			if (verb < V_KVM_CREATE_VM) /* KVM's memory has no huge pages */
				hgm_caps_free(probe(HGM_CAPS_USE_HUGE_PAGES));
		}
		fake.error[verb] = 0;
	}
}

static void the_next_way_to_a_userfaultfd_is_tried(void **state)
{
	struct hgm_caps *caps;

	(void)state;
	fake.error[V_UFFD_NEW] = -EPERM;
	caps = probe(0);
	assert_cap(caps, "uffd.device", HGM_DENIED, "EPERM");
	assert_cap(caps, "uffd.syscall", HGM_YES, "");
	assert_cap(caps, "anon.missing.4k", HGM_YES, "");
	hgm_caps_free(caps);

	fake.error[V_USERFAULTFD] = -EPERM;
	caps = probe(0);
	assert_cap(caps, "uffd.syscall", HGM_DENIED, "EPERM");
	assert_cap(caps, "uffd.features", HGM_DENIED, "see uffd.device");
	assert_cap(caps, "anon.missing.4k", HGM_DENIED, "see uffd.device");
	assert_cap(caps, "anon.collapse", HGM_YES, "");
	hgm_caps_free(caps);
}

static void missing_files_say_what_is_missing(void **state)
{
	struct hgm_caps *caps;

	(void)state;
	fake.no_path_exists = true;
	caps = probe(0);
	assert_cap(caps, "uffd.device", HGM_NO, "6.1");
	assert_cap(caps, "hugetlb.2m", HGM_NO, "no pool of 2048 kB");
	assert_cap(caps, "hugetlb.1g", HGM_NO, "no pool of 1048576 kB");
	assert_cap(caps, "shmem.huge", HGM_NO, "transparent huge pages");
	/* Without /proc, success is believed, and the text says so. */
	assert_cap(caps, "anon.missing.4k", HGM_YES, "not verified");
	assert_cap(caps, "shmem.collapse", HGM_YES, "not verified");
	hgm_caps_free(caps);
}

/* A kernel before 6.6 returns EINVAL for unknown ioctls. */
static void unknown_verbs_are_not_blamed_on_the_size(void **state)
{
	struct hgm_caps *caps;

	(void)state;
	fake.error[V_UFFD_POISON] = fake.error[V_UFFD_MOVE] = -EINVAL;
	caps = probe(0);
	assert_cap(caps, "anon.poison.4k", HGM_NO, "does not know it");
	assert_cap(caps, "shmem.poison.4k", HGM_NO, "does not know it");
	assert_cap(caps, "hugetlb.2m.poison.block", HGM_NO, "does not know it");
	assert_cap(caps, "anon.move.4k", HGM_NO, "does not know it");
	hgm_caps_free(caps);
}

static void shmem_enabled_is_told(void **state)
{
	(void)state;
	fake.text = "always within_size advise [never] deny force\n";
	assert_probe(0, "shmem.huge", HGM_NO, "[never]");
	fake.text = "always within_size advise never [deny] force\n";
	assert_probe(0, "shmem.huge", HGM_NO, "MADV_COLLAPSE too");
	fake.text = "always within_size [advise] never deny force\n";
	assert_probe(0, "shmem.huge", HGM_YES, "[advise]");
}

static void no_huge_page_is_taken_unasked(void **state)
{
	struct hgm_caps *caps;

	(void)state;
	fake.error[V_UFFD_CONTINUE] = -EFAULT;
	caps = probe(0);
	assert_cap(caps, "hugetlb.2m.missing.block", HGM_UNPROVEN, "HGM_CAPS_USE_HUGE_PAGES");
	assert_cap(caps, "hugetlb.2m.minor.block", HGM_UNPROVEN, "HGM_CAPS_USE_HUGE_PAGES");
	assert_cap(caps, "hugetlb.2m.minor.4k", HGM_UNPROVEN, "4 KiB was understood");
	assert_cap(caps, "hugetlb.1g.missing.block", HGM_UNPROVEN, "HGM_CAPS_USE_HUGE_PAGES");
	assert_cap(caps, "shmem.minor.4k", HGM_NO, "EFAULT");
	hgm_caps_free(caps);
	assert_probe(HGM_CAPS_USE_HUGE_PAGES, "hugetlb.2m.minor.block", HGM_NO, "EFAULT");
}

static void unaligned_pieces_of_huge_pages(void **state)
{
	(void)state;
	fake.error[V_UFFD_CONTINUE] = -EINVAL;
	assert_probe(0, "hugetlb.2m.minor.4k", HGM_NO, "one by one");
	assert_probe(0, "uffd.continue_wp", HGM_NO, "MODE_WP");
}

static void success_that_the_page_table_denies_is_no_success(void **state)
{
	struct hgm_caps *caps;

	(void)state;
	fake.pagemap = 0;
	caps = probe(HGM_CAPS_USE_HUGE_PAGES);
	assert_cap(caps, "anon.missing.4k", HGM_NO, "does not show");
	assert_cap(caps, "shmem.zeropage.4k", HGM_NO, "does not show");
	assert_cap(caps, "shmem.minor.4k", HGM_NO, "does not show");
	assert_cap(caps, "shmem.wp.4k", HGM_NO, "does not show");
	assert_cap(caps, "hugetlb.2m.wp.block", HGM_NO, "does not show");
	hgm_caps_free(caps);

	/* Present, but not write-protected. */
	fake.pagemap = UINT64_C(1) << 63;
	caps = probe(0);
	assert_cap(caps, "anon.missing.4k", HGM_YES, "");
	assert_cap(caps, "anon.wp.4k", HGM_NO, "does not show");
	assert_cap(caps, "uffd.continue_wp", HGM_NO, "does not show");
	hgm_caps_free(caps);
}

static void a_partial_result_is_no_success(void **state)
{
	struct hgm_caps *caps;

	(void)state;
	fake.short_by = 4096;
	caps = probe(HGM_CAPS_USE_HUGE_PAGES);
	assert_cap(caps, "hugetlb.2m.missing.block", HGM_NO, "2093056 bytes only");
	assert_cap(caps, "shmem.minor.4k", HGM_NO, "0 bytes only");
	hgm_caps_free(caps);
}

static void collapse_is_verified(void **state)
{
	struct hgm_caps *caps;

	(void)state;
	fake.nothing_huge = true;
	caps = probe(0);
	assert_cap(caps, "shmem.collapse", HGM_NO, "only 0 huge bytes");
	assert_cap(caps, "anon.collapse", HGM_NO, "only 0 huge bytes");
	assert_cap(caps, "shmem.collapse.prepared", HGM_NO, "only 0 huge bytes");
	hgm_caps_free(caps);

	fake.nothing_huge = false;
	fake.collapse_spoils = true;
	assert_probe(0, "anon.collapse", HGM_NO, "changed page 1");
	assert_probe(0, "shmem.collapse.prepared", HGM_NO, "changed page 1");
}

static void a_busy_collapse_is_tried_again(void **state)
{
	(void)state;
	fake.collapse_busy = 2;
	assert_probe(0, "anon.collapse", HGM_YES, "");
	assert_int_equal(fake.collapse_busy, 0);
	fake.collapse_busy = 1000;
	assert_probe(0, "anon.collapse", HGM_UNPROVEN, "EAGAIN");
}

static void faults_tell_address_and_thread(void **state)
{
	(void)state;
	fake.off_by = (uint64_t)-0x123;
	assert_probe(0, "uffd.exact_address", HGM_NO, "reported at 0");
	fake.off_by = 0;
	fake.tid_off_by = 1;
	assert_probe(0, "uffd.thread_id", HGM_NO, "names");
}

static void faults_without_a_message(void **state)
{
	struct hgm_caps *caps;

	(void)state;
	fake.fault = FAULT_NOTHING;
	caps = probe(0);
	assert_cap(caps, "uffd.exact_address", HGM_UNPROVEN, "within 2 s");
	assert_cap(caps, "uffd.thread_id", HGM_UNPROVEN, "within 2 s");
	assert_cap(caps, "uffd.wp_async", HGM_UNPROVEN, "within 2 s");
	hgm_caps_free(caps);

	fake.fault = FAULT_WENT_THROUGH;
	assert_probe(0, "uffd.exact_address", HGM_NO, "produced no message");
}

static void features_are_told_by_name(void **state)
{
	(void)state;
	assert_probe(0, "uffd.features", HGM_YES, " MOVE RWP RWP_ASYNC");
	fake.more_features = UINT64_C(1) << 40;
	assert_probe(0, "uffd.features", HGM_YES, "RWP_ASYNC and 0x10000000000 without a name");
}

static void rwp_that_lies(void **state)
{
	struct hgm_caps *caps;

	(void)state;
	fake.rwp_looks_missing = true;
	fake.nothing_accessed = true;
	caps = probe(HGM_CAPS_USE_HUGE_PAGES);
	assert_cap(caps, "anon.rwp.4k", HGM_NO, "flags 0");
	assert_cap(caps, "hugetlb.1g.rwp.block", HGM_NO, "flags 0");
	assert_cap(caps, "uffd.set_mode", HGM_NO, "flags 0");
	assert_cap(caps, "uffd.rwp_async", HGM_YES, "without a message");
	assert_cap(caps, "pagemap.accessed", HGM_NO, "0 regions");
	assert_cap(caps, "pagemap.guard", HGM_YES, "is a guard");
	hgm_caps_free(caps);

	fake.fault = FAULT_WENT_THROUGH;
	caps = probe(0);
	assert_cap(caps, "shmem.rwp.4k", HGM_NO, "no message");
	assert_cap(caps, "uffd.set_mode", HGM_NO, "no message");
	assert_cap(caps, "hugetlb.2m.rwp.block", HGM_UNPROVEN, "HGM_CAPS_USE_HUGE_PAGES");
	hgm_caps_free(caps);
}

/* Linux 7.2 does not know the features, and says so at the handshake. */
static void kernels_without_rwp(void **state)
{
	struct hgm_caps *caps;

	(void)state;
	fake.error[V_UFFD_RWPROTECT] = fake.error[V_UFFD_SET_MODE] = -EINVAL;
	caps = probe(0);
	assert_cap(caps, "anon.rwp.4k", HGM_NO, "UFFDIO_RWPROTECT: EINVAL");
	assert_cap(caps, "uffd.set_mode", HGM_NO, "EINVAL");
	assert_cap(caps, "pagemap.accessed", HGM_NO, "EINVAL");
	hgm_caps_free(caps);
	fake.lacks_rwp = true;
	caps = probe(0);
	assert_cap(caps, "uffd.rwp_async", HGM_NO, "UFFDIO_API with the feature: EINVAL");
	assert_cap(caps, "shmem.rwp.4k", HGM_NO, "UFFDIO_API with the feature: EINVAL");
	assert_cap(caps, "anon.wp.4k", HGM_YES, "");
	hgm_caps_free(caps);
}

/* Each row says what is missing: the device, the right to it, or the kernel's part. */
static void assert_guest_memfd(uint32_t want, const char *words)
{
	struct hgm_caps *caps = probe(0);

	assert_cap(caps, "guest_memfd.mmap", want, words);
	assert_cap(caps, "guest_memfd.missing.4k", want, words);
	assert_cap(caps, "guest_memfd.minor.4k", want, words);
	hgm_caps_free(caps);
}

static void guest_memfd_says_what_it_lacks(void **state)
{
	(void)state;
	fake.no_path_exists = true;
	assert_guest_memfd(HGM_UNPROVEN, "open /dev/kvm: ENOENT");
	fake.no_path_exists = false;
	fake.error[V_OPEN] = -EACCES;
	assert_guest_memfd(HGM_DENIED, "setfacl");
	fake.error[V_OPEN] = -EPERM;
	assert_guest_memfd(HGM_DENIED, "device control group");
	fake.error[V_OPEN] = 0;
	fake.error[V_KVM_CREATE_VM] = -EBUSY;
	assert_guest_memfd(HGM_UNPROVEN, "KVM_CREATE_VM");
	fake.error[V_KVM_CREATE_VM] = 0;
	fake.error[V_KVM_GUEST_MEMFD] = -EINVAL;
	assert_guest_memfd(HGM_NO, "no guest_memfd that can be mapped");
	fake.error[V_KVM_GUEST_MEMFD] = -ENOTTY;
	assert_guest_memfd(HGM_NO, "no guest_memfd that can be mapped");
}

/* Linux 6.18 to 7.3: it can be mapped, but userfaultfd does not serve it. */
static void guest_memfd_without_userfaultfd(void **state)
{
	struct hgm_caps *caps;

	(void)state;
	fake.error[V_UFFD_REGISTER] = -EINVAL;
	caps = probe(0);
	assert_cap(caps, "guest_memfd.mmap", HGM_YES, "mapped twice");
	assert_cap(caps, "guest_memfd.missing.4k", HGM_NO, "UFFDIO_REGISTER for MISSING: EINVAL");
	assert_cap(caps, "guest_memfd.minor.4k", HGM_NO, "UFFDIO_REGISTER for MINOR: EINVAL");
	hgm_caps_free(caps);
}

static void poison_and_move_that_lie(void **state)
{
	struct hgm_caps *caps;

	(void)state;
	fake.poison_readable = true;
	fake.move_loses = true;
	caps = probe(0);
	assert_cap(caps, "anon.poison.4k", HGM_NO, "could be read");
	assert_cap(caps, "hugetlb.1g.poison.block", HGM_NO, "could be read");
	assert_cap(caps, "anon.move.4k", HGM_NO, "contents are not there");
	hgm_caps_free(caps);
}

static void bad_arguments(void **state)
{
	struct hgm_caps *caps = (struct hgm_caps *)1;

	(void)state;
	assert_int_equal(hgm_caps_probe(NULL, 0), -EINVAL);
	assert_non_null(strstr(hgm_errmsg(), "hgm_caps_probe"));
	assert_int_equal(hgm_caps_probe(&caps, 0x2), -EINVAL);
	assert_non_null(strstr(hgm_errmsg(), "0x2"));
	assert_null(caps);
	hgm_caps_free(NULL);
}

static void the_table_can_be_walked_and_searched(void **state)
{
	struct hgm_caps *caps = probe(0);
	unsigned int n = hgm_caps_count(caps);

	(void)state;
	assert_true(n > 40);
	assert_null(hgm_caps_at(caps, n));
	assert_null(hgm_caps_at(caps, UINT32_MAX));
	assert_null(hgm_caps_find(caps, "shmem.minor"));
	assert_null(hgm_caps_find(caps, ""));
	/* Names are unique: each one finds its own row. */
	for (unsigned int i = 0; i < n; i++)
		assert_ptr_equal(hgm_caps_find(caps, hgm_caps_at(caps, i)->name),
				 hgm_caps_at(caps, i));
	hgm_caps_free(caps);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(everything_works),
	CASE(everything_denied),
	CASE(everything_unknown),
	CASE(everything_short_of_something),
	CASE(each_verb_fails_in_each_way),
	CASE(the_next_way_to_a_userfaultfd_is_tried),
	CASE(missing_files_say_what_is_missing),
	CASE(unknown_verbs_are_not_blamed_on_the_size),
	CASE(shmem_enabled_is_told),
	CASE(no_huge_page_is_taken_unasked),
	CASE(unaligned_pieces_of_huge_pages),
	CASE(success_that_the_page_table_denies_is_no_success),
	CASE(a_partial_result_is_no_success),
	CASE(collapse_is_verified),
	CASE(a_busy_collapse_is_tried_again),
	CASE(faults_tell_address_and_thread),
	CASE(faults_without_a_message),
	CASE(features_are_told_by_name),
	CASE(rwp_that_lies),
	CASE(kernels_without_rwp),
	CASE(guest_memfd_says_what_it_lacks),
	CASE(guest_memfd_without_userfaultfd),
	CASE(poison_and_move_that_lie),
	CASE(bad_arguments),
	CASE(the_table_can_be_walked_and_searched),
};

TEST_MAIN(tests)
