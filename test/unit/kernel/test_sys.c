/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The Linux functions of hgm_sys: on failure, each one returns -errno, and does not change the
 * caller's errno.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kernel/sys.h"
#include "test.h"

static const struct hgm_sys *const sys = &hgm_sys_linux;

static char buf[64];
static uint64_t u64;
static int64_t done;

#define UNALIGNED ((void *)0x1001)

static int64_t fail_open(void)
{
	return sys->open("/nonexistent/file", O_RDONLY);
}

static int64_t fail_close(void)
{
	return sys->close(-1);
}

static int64_t fail_dup(void)
{
	return sys->dup(-1);
}

static int64_t fail_read(void)
{
	return sys->read(-1, buf, sizeof(buf));
}

static int64_t fail_write(void)
{
	return sys->write(-1, buf, sizeof(buf));
}

static int64_t fail_pread(void)
{
	return sys->pread(-1, buf, sizeof(buf), 0);
}

static int64_t fail_pwrite(void)
{
	return sys->pwrite(-1, buf, sizeof(buf), 0);
}

static int64_t fail_pread_nowait(void)
{
	return sys->pread_nowait(-1, buf, sizeof(buf), 0);
}

static int64_t fail_lseek(void)
{
	return sys->lseek(-1, 0, SEEK_DATA);
}

static int64_t fail_file_kind(void)
{
	struct hgm_file_kind kind;

	return sys->file_kind(-1, &kind);
}

static int64_t fail_memfd_create(void)
{
	return sys->memfd_create("x", 0x8000);
}

static int64_t fail_punch_hole(void)
{
	return sys->punch_hole(-1, 0, 4096);
}

static int64_t fail_ftruncate(void)
{
	return sys->ftruncate(-1, 4096);
}

static int64_t fail_seal(void)
{
	return sys->seal(-1);
}

static int64_t fail_copy(void)
{
	return sys->copy((void *)8, &sys, sizeof(sys));
}

static int64_t fail_fsync(void)
{
	return sys->fsync(-1);
}

/* An event descriptor fails only because of the limit. */
static int64_t fail_eventfd(void)
{
	struct rlimit none;
	struct rlimit old;
	int rc;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	rc = sys->eventfd();
	setrlimit(RLIMIT_NOFILE, &old);
	return rc;
}

static int64_t fail_poll(void)
{
	return sys->poll((struct pollfd *)8, 1, 0);
}

static int64_t fail_mmap(void)
{
	void *out;

	return sys->mmap(&out, NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static int64_t fail_munmap(void)
{
	return sys->munmap(UNALIGNED, 4096);
}

static int64_t fail_mprotect(void)
{
	return sys->mprotect(UNALIGNED, 4096, PROT_READ);
}

static int64_t fail_mincore(void)
{
	unsigned char resident;

	return sys->mincore(UNALIGNED, 4096, &resident);
}

static int64_t fail_madvise(void)
{
	return sys->madvise(UNALIGNED, 4096, MADV_NORMAL);
}

static int64_t fail_pagemap_scan(void)
{
	struct hgm_pm_region region;

	return sys->pagemap_scan(-1, NULL, NULL, HGM_PAGE_IS_HUGE, &region, 1, &u64);
}

static int64_t fail_pagemap_take_written(void)
{
	struct hgm_pm_region region;

	return sys->pagemap_take_written(-1, NULL, NULL, &region, 1, &u64);
}

static int64_t fail_userfaultfd(void)
{
	return sys->userfaultfd(0x40000000);
}

static int64_t fail_uffd_new(void)
{
	return sys->uffd_new(-1, 0);
}

static int64_t fail_uffd_api(void)
{
	uint64_t features = 0;

	return sys->uffd_api(-1, &features, &u64);
}

static int64_t fail_uffd_register(void)
{
	return sys->uffd_register(-1, NULL, 4096, HGM_UFFD_MISSING, &u64);
}

static int64_t fail_uffd_unregister(void)
{
	return sys->uffd_unregister(-1, NULL, 4096);
}

static int64_t fail_uffd_wake(void)
{
	return sys->uffd_wake(-1, NULL, 4096);
}

static int64_t fail_uffd_copy(void)
{
	return sys->uffd_copy(-1, NULL, NULL, 4096, 0, &done);
}

static int64_t fail_uffd_zeropage(void)
{
	return sys->uffd_zeropage(-1, NULL, 4096, 0, &done);
}

static int64_t fail_uffd_continue(void)
{
	return sys->uffd_continue(-1, NULL, 4096, 0, &done);
}

static int64_t fail_uffd_poison(void)
{
	return sys->uffd_poison(-1, NULL, 4096, 0, &done);
}

static int64_t fail_uffd_move(void)
{
	return sys->uffd_move(-1, NULL, NULL, 4096, 0, &done);
}

static int64_t fail_uffd_writeprotect(void)
{
	return sys->uffd_writeprotect(-1, NULL, 4096, 0);
}

static int64_t fail_uffd_rwprotect(void)
{
	return sys->uffd_rwprotect(-1, NULL, 4096, 0);
}

static int64_t fail_uffd_set_mode(void)
{
	return sys->uffd_set_mode(-1, 0, HGM_UFFD_FEATURE_RWP_ASYNC);
}

static int64_t fail_kvm_create_vm(void)
{
	return sys->kvm_create_vm(-1);
}

static int64_t fail_kvm_guest_memfd(void)
{
	return sys->kvm_guest_memfd(-1, 4096, 0);
}

static int64_t fail_set_nonblock(void)
{
	return sys->set_nonblock(-1);
}

static int64_t fail_pidfd_open(void)
{
	return sys->pidfd_open(-1);
}

static int64_t fail_process_madvise(void)
{
	return sys->process_madvise(-1, NULL, 0, HGM_MADV_COLLAPSE);
}

/* errno 0: any, as it depends on privilege and kernel. */
static const struct failure {
	const char *name;
	int64_t (*call)(void);
	int error;
} failures[] = {
	{ "open", fail_open, ENOENT },
	{ "close", fail_close, EBADF },
	{ "dup", fail_dup, EBADF },
	{ "set_nonblock", fail_set_nonblock, EBADF },
	{ "pidfd_open", fail_pidfd_open, EINVAL },
	{ "read", fail_read, EBADF },
	{ "write", fail_write, EBADF },
	{ "pwrite", fail_pwrite, EBADF },
	{ "pread", fail_pread, EBADF },
	{ "pread_nowait", fail_pread_nowait, EBADF },
	{ "lseek", fail_lseek, EBADF },
	{ "file_kind", fail_file_kind, EBADF },
	{ "memfd_create", fail_memfd_create, EINVAL },
	{ "ftruncate", fail_ftruncate, EBADF },
	{ "punch_hole", fail_punch_hole, EBADF },
	{ "seal", fail_seal, EBADF },
	{ "fsync", fail_fsync, EBADF },
	{ "eventfd", fail_eventfd, EMFILE },
	{ "poll", fail_poll, EFAULT },
	{ "mmap", fail_mmap, EINVAL },
	{ "munmap", fail_munmap, EINVAL },
	{ "mprotect", fail_mprotect, EINVAL },
	{ "madvise", fail_madvise, EINVAL },
	{ "process_madvise", fail_process_madvise, 0 },
	{ "mincore", fail_mincore, EINVAL },
	{ "copy", fail_copy, EFAULT },
	{ "pagemap_scan", fail_pagemap_scan, EBADF },
	{ "pagemap_take_written", fail_pagemap_take_written, EBADF },
	{ "userfaultfd", fail_userfaultfd, 0 },
	{ "uffd_new", fail_uffd_new, EBADF },
	{ "uffd_api", fail_uffd_api, EBADF },
	{ "uffd_register", fail_uffd_register, EBADF },
	{ "uffd_unregister", fail_uffd_unregister, EBADF },
	{ "uffd_wake", fail_uffd_wake, EBADF },
	{ "uffd_copy", fail_uffd_copy, EBADF },
	{ "uffd_zeropage", fail_uffd_zeropage, EBADF },
	{ "uffd_continue", fail_uffd_continue, EBADF },
	{ "uffd_poison", fail_uffd_poison, EBADF },
	{ "uffd_move", fail_uffd_move, EBADF },
	{ "uffd_writeprotect", fail_uffd_writeprotect, EBADF },
	{ "uffd_rwprotect", fail_uffd_rwprotect, EBADF },
	{ "uffd_set_mode", fail_uffd_set_mode, EBADF },
	{ "kvm_create_vm", fail_kvm_create_vm, EBADF },
	{ "kvm_guest_memfd", fail_kvm_guest_memfd, EBADF },
};

#define FAILURES (sizeof(failures) / sizeof(failures[0]))

static void every_function_of_the_seam_is_here(void **state)
{
	(void)state;
	assert_int_equal(FAILURES, sizeof(struct hgm_sys) / sizeof(void (*)(void)));
	for (size_t i = 0; i < FAILURES; i++)
		assert_non_null(((void *const *)sys)[i]);
}

static void failures_are_negative_errno(void **state)
{
	(void)state;
	for (size_t i = 0; i < FAILURES; i++) {
		int64_t rc = failures[i].call();

		if (failures[i].error ? rc != -failures[i].error : rc >= 0)
			fail_msg("%s returned %lld instead of %d", failures[i].name, (long long)rc,
				 -failures[i].error);
	}
}

static void failures_leave_errno_alone(void **state)
{
	(void)state;
	for (size_t i = 0; i < FAILURES; i++) {
		errno = ECHILD;
		failures[i].call();
		if (errno != ECHILD)
			fail_msg("%s set errno to %d", failures[i].name, errno);
	}
}

static void descriptors_are_close_on_exec(void **state)
{
	const int fds[] = {
		sys->open("/dev/null", O_RDWR),
		sys->dup(0),
		sys->memfd_create("x", 0),
		sys->eventfd(),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		assert_true(fds[i] >= 0);
		assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
		assert_int_equal(sys->close(fds[i]), 0);
	}
}

static void file_kind_tells_memory_files_apart(void **state)
{
	struct hgm_file_kind kind;
	int fd = sys->memfd_create("x", 0);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(sys->ftruncate(fd, 12345), 0);
	assert_int_equal(sys->file_kind(fd, &kind), 0);
	assert_int_equal(kind.size, 12345);
	assert_int_equal(kind.access, O_RDWR);
	assert_int_equal(kind.fs_magic, 0x01021994); /* TMPFS_MAGIC */
	assert_false(kind.sealed || kind.full);
	assert_int_equal(sys->close(fd), 0);
	fd = sys->memfd_create("x", MFD_ALLOW_SEALING);
	assert_int_equal(sys->seal(fd), 0);
	assert_int_equal(sys->file_kind(fd, &kind), 0);
	assert_true(kind.sealed);
	assert_int_equal(sys->close(fd), 0);
}

static void poll_ends_by_time(void **state)
{
	struct pollfd pfd = { .fd = sys->eventfd(), .events = POLLIN };
	uint64_t one = 1;

	(void)state;
	assert_true(pfd.fd >= 0);
	assert_int_equal(sys->poll(&pfd, 1, 1000000), 0);
	assert_int_equal(sys->write(pfd.fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(sys->poll(&pfd, 1, -1), 1);
	assert_int_equal(sys->close(pfd.fd), 0);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(every_function_of_the_seam_is_here),
	cmocka_unit_test(failures_are_negative_errno),
	cmocka_unit_test(failures_leave_errno_alone),
	cmocka_unit_test(descriptors_are_close_on_exec),
	cmocka_unit_test(file_kind_tells_memory_files_apart),
	cmocka_unit_test(poll_ends_by_time),
};

TEST_MAIN(tests)
