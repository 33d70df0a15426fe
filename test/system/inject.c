/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "inject.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/sys.h"

enum verb {
	OPEN,
	CLOSE,
	DUP,
	SET_NONBLOCK,
	PIDFD_OPEN,
	READ,
	READ_EVENT,
	READ_MESSAGES,
	WRITE,
	RAISE,
	PREAD,
	PWRITE,
	PREAD_NOWAIT,
	LSEEK,
	FILE_KIND,
	MEMFD_CREATE,
	FTRUNCATE,
	SEAL,
	COPY_IN,
	PUNCH_HOLE,
	FSYNC,
	EVENTFD,
	POLL,
	MMAP,
	MUNMAP,
	MPROTECT,
	ADVISE_POPULATE,
	ADVISE_COLLAPSE,
	ADVISE_DROP,
	ADVISE_REMOVE,
	ADVISE_FLAGS,
	ADVISE_SPLIT,
	ADVISE_PROCESS,
	MINCORE,
	SCAN,
	TAKE_WRITTEN,
	TAKE_WRITTEN_LATE,
	USERFAULTFD,
	UFFD_NEW,
	API,
	REGISTER,
	UNREGISTER,
	COPY,
	ZEROPAGE,
	CONTINUE,
	POISON,
	MOVE,
	WRITEPROTECT,
	VERBS,
};

/*
 * The errors in section ERRORS of each manual page, and in mm/ and fs/, except those that only a
 * wrong argument causes (EBADF, EFAULT of a buffer) or the end of the process (ESRCH, but for reads
 * of /proc). UFFDIO_WAKE is not here, because only a wrong range makes it fail.
 * EEXIST of UFFDIO_COPY means that another thread has mapped the page, with other contents. See
 * test_outcomes.
 */
static const struct inject_verb verbs[VERBS] = {
	[OPEN] = { "open",
		   { -EMFILE, -ENFILE, -ENOMEM, -EACCES, -EPERM, -ENOENT, -ELOOP, -EINTR,
		     -ENXIO } },
	[CLOSE] = { "close", { -EINTR, -EIO, -ENOSPC, -EDQUOT } },
	[DUP] = { "fcntl(F_DUPFD_CLOEXEC)", { -EMFILE, -EINVAL, -ENOMEM } },
	[SET_NONBLOCK] = { "fcntl(F_SETFL)", { -EPERM } },
	[PIDFD_OPEN] = { "pidfd_open", { -EMFILE, -ENFILE, -ENODEV, -ENOMEM, -EPERM, -ENOSYS } },
	[READ] = { "read", { -EINTR, -EAGAIN, -EIO, -ENOMEM, -ESRCH, INJECT_SHORT } },
	[READ_EVENT] = { "read of an eventfd", { -EAGAIN } },
	[READ_MESSAGES] = { "read of a userfaultfd",
			    { -EAGAIN, -EMFILE, -ENFILE, -ENOMEM, INJECT_SHORT } },
	[WRITE] = { "write",
		    { -EINTR, -EAGAIN, -EIO, -ENOSPC, -EDQUOT, -EFBIG, -EPERM, INJECT_SHORT } },
	[RAISE] = { "write to an eventfd", { -EAGAIN } }, /* it is raised already */
	[PREAD] = { "pread", { -EINTR, -EAGAIN, -EIO, -ENOMEM, -ESTALE, INJECT_SHORT } },
	[PWRITE] = { "pwrite",
		     { -EINTR, -EAGAIN, -EIO, -ENOSPC, -EDQUOT, -EFBIG, -ENOMEM, -EPERM,
		       INJECT_SHORT } },
	[PREAD_NOWAIT] = { "preadv2(RWF_NOWAIT)",
			   { -EAGAIN, -EOPNOTSUPP, -ENOSYS, -EINVAL, -EINTR, -EIO, -EPERM,
			     INJECT_SHORT } },
	[LSEEK] = { "lseek", { -EINVAL, -EIO, -EINTR, -EOVERFLOW, -ESPIPE } },
	[FILE_KIND] = { "fstat", { -EIO, -ENOMEM, -ENOSYS, -EOVERFLOW, -EINTR, -ESTALE } },
	[MEMFD_CREATE] = { "memfd_create",
			   { -EMFILE, -ENFILE, -ENOMEM, -EINVAL, -EPERM, -EACCES, -ENODEV,
			     -ENOSYS } },
	[FTRUNCATE] = { "ftruncate", { -EFBIG, -EINTR, -EINVAL, -EIO, -EPERM, -ENOMEM, -ENOSPC } },
	[SEAL] = { "fcntl(F_ADD_SEALS)", { -EPERM, -EBUSY, -EINVAL } },
	[COPY_IN] = { "process_vm_writev", { -ENOMEM, -EPERM, -ENOSYS, INJECT_SHORT } },
	[PUNCH_HOLE] = { "fallocate(PUNCH_HOLE)",
			 { -EINTR, -EIO, -ENOMEM, -ENOSPC, -ENOSYS, -EOPNOTSUPP, -EPERM } },
	[FSYNC] = { "fsync", { -EIO, -EINTR, -ENOSPC, -EDQUOT, -EROFS, -EINVAL } },
	[EVENTFD] = { "eventfd", { -EMFILE, -ENFILE, -ENOMEM, -ENODEV } },
	[POLL] = { "poll", { -EINTR, -ENOMEM, -EINVAL } },
	[MMAP] = { "mmap", { -ENOMEM, -EAGAIN, -EACCES, -EPERM, -ENODEV, -EINVAL } },
	[MUNMAP] = { "munmap", { -ENOMEM, -EINVAL } },
	[MPROTECT] = { "mprotect", { -ENOMEM, -EACCES, -EPERM } },
	[ADVISE_POPULATE] = { "madvise(POPULATE)",
			      { -EINVAL, -ENOMEM, -EFAULT, -EHWPOISON, -EAGAIN, -EPERM } },
	[ADVISE_COLLAPSE] = { "madvise(COLLAPSE)", { -EAGAIN, -EBUSY, -EINVAL, -ENOMEM } },
	[ADVISE_DROP] = { "madvise(DONTNEED)", { -EINVAL, -ENOMEM, -EAGAIN, -EPERM } },
	[ADVISE_REMOVE] = { "madvise(REMOVE)",
			    { -EINVAL, -ENOMEM, -EIO, -EACCES, -EOPNOTSUPP, -ENOSYS } },
	[ADVISE_FLAGS] = { "madvise(DONTFORK, DONTDUMP)", { -ENOMEM, -EAGAIN, -EINVAL } },
	[ADVISE_SPLIT] = { "madvise(SPLIT)", { -ENOMEM, -EPERM } },
	[ADVISE_PROCESS] = { "process_madvise",
			     { -EAGAIN, -EBUSY, -EINVAL, -ENOMEM, -EPERM, -ENOSYS } },
	[MINCORE] = { "mincore", { -EAGAIN, -ENOMEM } },
	[SCAN] = { "PAGEMAP_SCAN", { -ENOMEM, -EINVAL, -EFAULT, -ENOTTY, -EPERM } },
	[TAKE_WRITTEN] = { "PAGEMAP_SCAN(WP)", { -ENOMEM, -EINVAL, -EPERM, -ENOTTY } },
	[TAKE_WRITTEN_LATE] = { "PAGEMAP_SCAN(WP), late", { -ENOMEM, -EPERM } },
	[USERFAULTFD] = { "userfaultfd",
			  { -EMFILE, -ENFILE, -ENOMEM, -EPERM, -ENOSYS, -EINVAL, -ENODEV } },
	[UFFD_NEW] = { "USERFAULTFD_IOC_NEW",
		       { -EMFILE, -ENFILE, -ENOMEM, -ENOTTY, -EPERM, -EINVAL } },
	[API] = { "UFFDIO_API", { -EINVAL, -EPERM, -ENOMEM } },
	[REGISTER] = { "UFFDIO_REGISTER", { -ENOMEM, -EINVAL, -EBUSY, -EPERM } },
	[UNREGISTER] = { "UFFDIO_UNREGISTER", { -ENOMEM, -EINVAL } },
	[COPY] = { "UFFDIO_COPY",
		   { -EAGAIN, INJECT_NAKED, INJECT_PART, -ENOMEM, -ENOSPC, -EFAULT, -ENOENT,
		     -EINVAL } },
	[ZEROPAGE] = { "UFFDIO_ZEROPAGE",
		       { -EAGAIN, INJECT_NAKED, INJECT_PART, INJECT_DONE, -ENOMEM, -ENOENT,
			 -EINVAL } },
	[CONTINUE] = { "UFFDIO_CONTINUE",
		       { -EAGAIN, INJECT_NAKED, INJECT_PART, INJECT_DONE, -ENOMEM, -EFAULT, -ENOENT,
			 -EINVAL, -EIO } },
	[POISON] = { "UFFDIO_POISON",
		     { -EAGAIN, INJECT_NAKED, INJECT_PART, INJECT_DONE, -ENOMEM, -ENOENT,
		       -EINVAL } },
	[MOVE] = { "UFFDIO_MOVE", { -EAGAIN, -EBUSY, -ENOMEM, -EPERM, -ENOENT, -EINVAL } },
	[WRITEPROTECT] = { "UFFDIO_WRITEPROTECT", { -EAGAIN, -ENOMEM, -EFAULT, -ENOENT, -EINVAL } },
};

#define SITES_MAX 512

static struct {
	_Atomic(const void *) from;
	_Atomic unsigned int verb;
	_Atomic unsigned int calls;
} seen[SITES_MAX];

static struct {
	_Atomic(const struct inject_verb *) verb; /* NULL: none */
	const void *from;
	int result;
	_Atomic int left; /* calls before it; negative: it has been made */
} armed;

static struct {
	_Atomic(void *) addr; /* NULL: nothing */
	uint64_t len;
} left_mapped;

static _Atomic bool counting;
static const struct hgm_sys *kernel;
static struct hgm_sys sys;
extern const char __executable_start;

static void note(enum verb verb, const void *from)
{
	for (unsigned int i = 0; i < SITES_MAX; i++) {
		const void *there = atomic_load(&seen[i].from);

		if (!there && atomic_compare_exchange_strong(&seen[i].from, &there, from)) {
			atomic_store(&seen[i].verb, verb + 1);
			there = from;
		}
		while (there == from && !atomic_load(&seen[i].verb))
			;
		if (there == from && atomic_load(&seen[i].verb) == verb + 1) {
			atomic_fetch_add(&seen[i].calls, 1);
			return;
		}
	}
}

/* Returns 0 if nothing is injected. */
static int injected(enum verb verb, const void *from)
{
	if (atomic_load_explicit(&counting, memory_order_relaxed))
		note(verb, from);
	if (atomic_load(&armed.verb) != &verbs[verb] || armed.from != from)
		return 0;
	return atomic_fetch_sub(&armed.left, 1) ? 0 : armed.result;
}

#define HERE(verb) injected(verb, __builtin_extract_return_addr(__builtin_return_address(0)))

/* Calls that fail before they begin. */
#define PLAIN(type, name, verb, parameters, ...)            \
	static type odd_##name parameters                   \
	{                                                   \
		int rc = HERE(verb);                        \
                                                            \
		return rc ? rc : kernel->name(__VA_ARGS__); \
	}

PLAIN(int, open, OPEN, (const char *path, int flags), path, flags)
PLAIN(int, dup, DUP, (int fd), fd)
PLAIN(int, set_nonblock, SET_NONBLOCK, (int fd), fd)
PLAIN(int, pidfd_open, PIDFD_OPEN, (int pid), pid)
PLAIN(int, process_madvise, ADVISE_PROCESS, (int pidfd, void *addr, uint64_t len, int advice),
      pidfd, addr, len, advice)
PLAIN(int64_t, lseek, LSEEK, (int fd, int64_t offset, int whence), fd, offset, whence)
PLAIN(int, file_kind, FILE_KIND, (int fd, struct hgm_file_kind *kind), fd, kind)
PLAIN(int, memfd_create, MEMFD_CREATE, (const char *name, unsigned int flags), name, flags)
PLAIN(int, ftruncate, FTRUNCATE, (int fd, uint64_t len), fd, len)
PLAIN(int, seal, SEAL, (int fd), fd)
PLAIN(int, punch_hole, PUNCH_HOLE, (int fd, uint64_t offset, uint64_t len), fd, offset, len)
PLAIN(int, fsync, FSYNC, (int fd), fd)
PLAIN(int, poll, POLL, (struct pollfd * fds, unsigned int n, int64_t ns), fds, n, ns)
PLAIN(int, mmap, MMAP,
      (void **out, void *addr, uint64_t len, int prot, int flags, int fd, uint64_t offset), out,
      addr, len, prot, flags, fd, offset)
PLAIN(int, mprotect, MPROTECT, (void *addr, uint64_t len, int prot), addr, len, prot)
PLAIN(int, mincore, MINCORE, (const void *addr, uint64_t len, unsigned char *resident), addr, len,
      resident)
PLAIN(int, pagemap_scan, SCAN,
      (int fd, const void *start, const void *end, uint64_t category, struct hgm_pm_region *out,
       uint64_t out_len, uint64_t *walk_end),
      fd, start, end, category, out, out_len, walk_end)
PLAIN(int, uffd_api, API, (int fd, uint64_t *features, uint64_t *ioctls), fd, features, ioctls)
PLAIN(int, uffd_register, REGISTER,
      (int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls), fd, addr, len, modes,
      ioctls)
PLAIN(int, uffd_unregister, UNREGISTER, (int fd, void *addr, uint64_t len), fd, addr, len)
PLAIN(int, uffd_writeprotect, WRITEPROTECT, (int fd, void *addr, uint64_t len, uint64_t mode), fd,
      addr, len, mode)

static size_t shorter(size_t len)
{
	return len > 1 ? len / 2 : len;
}

/* Calls that may do only a part. */
#define PARTLY(name, verb, parameters, len, ...)                     \
	static ssize_t odd_##name parameters                         \
	{                                                            \
		int rc = HERE(verb);                                 \
                                                                     \
		if (rc == INJECT_SHORT)                              \
			(len) = shorter(len), rc = 0;                \
		return rc ? (ssize_t)rc : kernel->name(__VA_ARGS__); \
	}

PARTLY(pread, PREAD, (int fd, void *buf, size_t len, uint64_t offset), len, fd, buf, len, offset)
PARTLY(pwrite, PWRITE, (int fd, const void *buf, size_t len, uint64_t offset), len, fd, buf, len,
       offset)
PARTLY(pread_nowait, PREAD_NOWAIT, (int fd, void *buf, size_t len, uint64_t offset), len, fd, buf,
       len, offset)

static int64_t odd_copy(void *to, const void *from, uint64_t len)
{
	int rc = HERE(COPY_IN);

	if (rc == INJECT_SHORT)
		len = shorter(len), rc = 0;
	return rc ? rc : kernel->copy(to, from, len);
}

#define MESSAGE_BYTES 32
#define FDS_MAX	      1024

/* What a read of each descriptor counts as. */
static _Atomic unsigned char reads[FDS_MAX];

static int note_fd(int fd, enum verb verb)
{
	if (fd >= 0 && fd < FDS_MAX)
		atomic_store(&reads[fd], verb);
	return fd;
}

/* The descriptor is closed, whatever close(2) returns. */
static int odd_close(int fd)
{
	int error = HERE(CLOSE), rc;

	note_fd(fd, 0);
	rc = kernel->close(fd);
	return error ? error : rc;
}

static int odd_eventfd(void)
{
	int rc = HERE(EVENTFD);

	return rc ? rc : note_fd(kernel->eventfd(), READ_EVENT);
}

static int odd_userfaultfd(int flags)
{
	int rc = HERE(USERFAULTFD);

	return rc ? rc : note_fd(kernel->userfaultfd(flags), READ_MESSAGES);
}

static int odd_uffd_new(int dev, int flags)
{
	int rc = HERE(UFFD_NEW);

	return rc ? rc : note_fd(kernel->uffd_new(dev, flags), READ_MESSAGES);
}

static ssize_t odd_read(int fd, void *buf, size_t len)
{
	enum verb verb = fd < FDS_MAX && reads[fd] ? reads[fd] : READ;
	int rc = HERE(verb);

	if (rc == INJECT_SHORT && verb == READ_MESSAGES)
		len = MESSAGE_BYTES, rc = 0;
	else if (rc == INJECT_SHORT)
		len = shorter(len), rc = 0;
	return rc ? rc : kernel->read(fd, buf, len);
}

static ssize_t odd_write(int fd, const void *buf, size_t len)
{
	bool raise = len == sizeof(uint64_t);
	int rc = HERE(raise ? RAISE : WRITE);

	if (rc == INJECT_SHORT)
		len = shorter(len), rc = 0;
	if (raise && rc)
		kernel->write(fd, buf, len);
	return rc ? rc : kernel->write(fd, buf, len);
}

static int odd_munmap(void *addr, uint64_t len)
{
	int rc = HERE(MUNMAP);
	void *left = addr;

	if (!rc) { /* perhaps a second try */
		atomic_compare_exchange_strong(&left_mapped.addr, &left, NULL);
		return kernel->munmap(addr, len);
	}
	left_mapped.len = len;
	atomic_store(&left_mapped.addr, addr);
	return rc;
}

static enum verb verb_of(int advice)
{
	switch (advice) {
	case HGM_MADV_POPULATE_READ:
	case HGM_MADV_POPULATE_WRITE:
		return ADVISE_POPULATE;
	case HGM_MADV_COLLAPSE:
		return ADVISE_COLLAPSE;
	case HGM_MADV_SPLIT:
		return ADVISE_SPLIT;
	case MADV_REMOVE:
		return ADVISE_REMOVE;
	case MADV_DONTFORK:
	case MADV_DONTDUMP:
		return ADVISE_FLAGS;
	}
	return ADVISE_DROP;
}

static int odd_madvise(void *addr, uint64_t len, int advice)
{
	int rc = HERE(verb_of(advice));

	return rc ? rc : kernel->madvise(addr, len, advice);
}

/* An error is late if the array reports what was found and protected again. */
static int odd_take_written(int fd, const void *start, const void *end, struct hgm_pm_region *out,
			    uint64_t out_len, uint64_t *walk_end)
{
	int rc = HERE(TAKE_WRITTEN), late = rc ? 0 : HERE(TAKE_WRITTEN_LATE);

	if (!rc)
		rc = kernel->pagemap_take_written(fd, start, end, out, out_len, walk_end);
	return late ? late : rc;
}

/* Returns half of a range, in whole pages. 0: it has no half. */
static uint64_t half_of(uint64_t len)
{
	return len / 2 & ~UINT64_C(4095);
}

static bool goes_on(int odd, uint64_t len)
{
	return !odd || odd == INJECT_DONE || (odd == INJECT_PART && len);
}

static int refuse(int odd, int64_t *done)
{
	if (odd == INJECT_NAKED || odd == INJECT_PART)
		return -EAGAIN;
	*done = odd;
	return odd;
}

static int spoil(int odd, int rc, int64_t *done)
{
	if (rc && odd == INJECT_PART) /* half of a huge page */
		return refuse(-EAGAIN, done);
	if (rc || !odd)
		return rc;
	return odd == INJECT_PART ? -EAGAIN : refuse(-EEXIST, done);
}

/* Calls with a result field, which receives what they did, or the error once more. */
#define RANGED(name, verb, parameters, ...)                         \
	static int odd_##name parameters                            \
	{                                                           \
		int odd = HERE(verb);                               \
                                                                    \
		if (odd == INJECT_PART)                             \
			len = half_of(len);                         \
		if (!goes_on(odd, len))                             \
			return refuse(odd, done);                   \
		return spoil(odd, kernel->name(__VA_ARGS__), done); \
	}

RANGED(uffd_copy, COPY,
       (int fd, void *dst, const void *src, uint64_t len, uint64_t mode, int64_t *done), fd, dst,
       src, len, mode, done)
RANGED(uffd_zeropage, ZEROPAGE, (int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done),
       fd, addr, len, mode, done)
RANGED(uffd_continue, CONTINUE, (int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done),
       fd, addr, len, mode, done)
RANGED(uffd_poison, POISON, (int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done), fd,
       addr, len, mode, done)
RANGED(uffd_move, MOVE, (int fd, void *dst, void *src, uint64_t len, uint64_t mode, int64_t *done),
       fd, dst, src, len, mode, done)

void inject_begin(void)
{
	kernel = hgm_sys;
	sys = (struct hgm_sys){
		.open = odd_open,
		.close = odd_close,
		.dup = odd_dup,
		.set_nonblock = odd_set_nonblock,
		.pidfd_open = odd_pidfd_open,
		.read = odd_read,
		.write = odd_write,
		.pread = odd_pread,
		.pwrite = odd_pwrite,
		.pread_nowait = odd_pread_nowait,
		.lseek = odd_lseek,
		.file_kind = odd_file_kind,
		.memfd_create = odd_memfd_create,
		.ftruncate = odd_ftruncate,
		.punch_hole = odd_punch_hole,
		.seal = odd_seal,
		.copy = odd_copy,
		.fsync = odd_fsync,
		.eventfd = odd_eventfd,
		.poll = odd_poll,
		.mmap = odd_mmap,
		.munmap = odd_munmap,
		.mprotect = odd_mprotect,
		.madvise = odd_madvise,
		.process_madvise = odd_process_madvise,
		.mincore = odd_mincore,
		.pagemap_scan = odd_pagemap_scan,
		.pagemap_take_written = odd_take_written,
		.userfaultfd = odd_userfaultfd,
		.uffd_new = odd_uffd_new,
		.uffd_api = odd_uffd_api,
		.uffd_register = odd_uffd_register,
		.uffd_unregister = odd_uffd_unregister,
		.uffd_wake = kernel->uffd_wake,
		.uffd_copy = odd_uffd_copy,
		.uffd_zeropage = odd_uffd_zeropage,
		.uffd_continue = odd_uffd_continue,
		.uffd_poison = odd_uffd_poison,
		.uffd_move = odd_uffd_move,
		.uffd_writeprotect = odd_uffd_writeprotect,
		.uffd_rwprotect = kernel->uffd_rwprotect,
		.uffd_set_mode = kernel->uffd_set_mode,
		.kvm_create_vm = kernel->kvm_create_vm,
		.kvm_guest_memfd = kernel->kvm_guest_memfd,
	};
	hgm_sys = &sys;
}

void inject_count(void)
{
	for (unsigned int i = 0; i < SITES_MAX; i++) {
		atomic_store(&seen[i].from, NULL);
		atomic_store(&seen[i].verb, 0);
		atomic_store(&seen[i].calls, 0);
	}
	atomic_store(&counting, true);
}

void inject_count_no_more(void)
{
	atomic_store(&counting, false);
}

unsigned int inject_sites(struct inject_site *sites, unsigned int max)
{
	unsigned int n = 0;

	for (; n < max && n < SITES_MAX && atomic_load(&seen[n].from); n++)
		sites[n] = (struct inject_site){
			.verb = &verbs[atomic_load(&seen[n].verb) - 1],
			.from = atomic_load(&seen[n].from),
			.calls = atomic_load(&seen[n].calls),
		};
	return n;
}

void inject_arm(const struct inject_site *site, unsigned int nth, int result)
{
	armed.from = site->from;
	armed.result = result;
	atomic_store(&armed.left, (int)nth);
	atomic_store(&armed.verb, site->verb);
}

bool inject_disarm(void)
{
	void *left;

	atomic_store(&armed.verb, NULL);
	left = atomic_exchange(&left_mapped.addr, NULL);
	if (left)
		kernel->munmap(left, left_mapped.len);
	return atomic_load(&armed.left) < 0;
}

const char *inject_result_name(int result)
{
	static const char *const names[] = {
		[INJECT_SHORT] = "short",
		[INJECT_NAKED] = "EAGAIN without a result",
		[INJECT_PART] = "half of it",
		[INJECT_DONE] = "EEXIST",
	};

	return result < 0 ? strerrorname_np(-result) : names[result];
}

uint64_t inject_backing(const struct inject_site *site)
{
	return (uint64_t)((const char *)site->from - &__executable_start);
}

const struct inject_verb *inject_verbs(unsigned int *count)
{
	*count = VERBS;
	return verbs;
}
