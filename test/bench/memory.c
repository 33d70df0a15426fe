/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <hgm/uapi.h>
#include <hgm/uffd.h>

#include "bench.h"
#include "contents.h"
#include "memory.h"

char *memory_map(size_t len, int fd)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	char *at = mmap(NULL, len + BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			-1, 0);
	char *aligned = (char *)(((uintptr_t)at + BLOCK - 1) & ~(BLOCK - 1));

	if (at == MAP_FAILED ||
	    mmap(aligned, len, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0) == MAP_FAILED)
		die("mmap", strerror(errno));
	if (aligned > at)
		munmap(at, (size_t)(aligned - at));
	munmap(aligned + len, BLOCK - (size_t)(aligned - at));
	return aligned;
}

int memory_prepared_fd(size_t bytes, char **alias)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		die("memfd", strerror(errno));
	*alias = memory_map(bytes, fd);
	for (size_t at = 0; at < bytes; at += BLOCK) {
		(*alias)[at] = 0;
		if (madvise(*alias + at, BLOCK, HGM_MADV_COLLAPSE))
			die("MADV_COLLAPSE of prepared memory", strerror(errno));
	}
	return fd;
}

static int lazy_fd(size_t bytes, char **alias)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		die("memfd", strerror(errno));
	*alias = memory_map(bytes, fd);
	return fd;
}

static int open_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		die("userfaultfd", strerror(errno));
	return fd;
}

void memory_make(struct memory *m, size_t bytes, enum memory_kind kind)
{
	struct uffdio_register reg = { .range.len = bytes };
	int fd = -1;

	*m = (struct memory){ .kind = kind, .bytes = bytes };
	if (kind == MEMORY_PREPARED)
		fd = memory_prepared_fd(bytes, &m->alias);
	else if (kind == MEMORY_FRESH)
		fd = lazy_fd(bytes, &m->alias);
	m->primary = memory_map(bytes, fd);
	if (kind == MEMORY_ANON)
		madvise(m->primary, bytes, MADV_NOHUGEPAGE);
	if (fd >= 0)
		close(fd);
	m->uffd = open_uffd();
	reg.range.start = (uintptr_t)m->primary;
	reg.mode =
		kind == MEMORY_PREPARED ? UFFDIO_REGISTER_MODE_MINOR : UFFDIO_REGISTER_MODE_MISSING;
	if (ioctl(m->uffd, UFFDIO_REGISTER, &reg))
		die("UFFDIO_REGISTER", strerror(errno));
}

void memory_free(struct memory *m)
{
	close(m->uffd);
	munmap(m->primary, m->bytes);
	if (m->alias)
		munmap(m->alias, m->bytes);
}

int64_t memory_next(const struct memory *m)
{
	struct uffd_msg msg;

	if (read(m->uffd, &msg, sizeof(msg)) != sizeof(msg))
		return -1;
	return (int64_t)(msg.arg.pagefault.address & ~(PAGE - 1)) - (int64_t)(uintptr_t)m->primary;
}

static bool failed(const struct memory *m, const char *what, size_t offset, size_t len)
{
	struct uffdio_range range = { .start = (uintptr_t)m->primary + offset, .len = len };

	if (errno != EEXIST)
		die(what, strerror(errno));
	if (ioctl(m->uffd, UFFDIO_WAKE, &range))
		die("UFFDIO_WAKE", strerror(errno));
	return false;
}

bool memory_install(const struct memory *m, size_t offset, size_t len)
{
	const char *from = contents(m->bytes) + offset;
	struct uffdio_copy copy = { .dst = (uintptr_t)m->primary + offset,
				    .src = (uintptr_t)from,
				    .len = len };
	struct uffdio_continue cont = { .range = { copy.dst, len } };

	if (m->kind != MEMORY_PREPARED)
		return !ioctl(m->uffd, UFFDIO_COPY, &copy) || failed(m, "UFFDIO_COPY", offset, len);
	memcpy(m->alias + offset, from, len);
	return !ioctl(m->uffd, UFFDIO_CONTINUE, &cont) || failed(m, "UFFDIO_CONTINUE", offset, len);
}

void memory_collapse(const struct memory *m)
{
	uint64_t huge;

	for (size_t at = 0; at < m->bytes; at += BLOCK)
		if (madvise(m->primary + at, BLOCK, HGM_MADV_COLLAPSE))
			die("MADV_COLLAPSE", strerror(errno));
	if (hgm_mapped_huge(m->primary, m->bytes, &huge) || huge != m->bytes)
		die("MADV_COLLAPSE", "not all is mapped huge");
}

void memory_warm(size_t bytes)
{
	char *huge = memory_map(bytes, -1), *small = memory_map(bytes / 16, -1);

	madvise(huge, bytes, MADV_HUGEPAGE);
	madvise(small, bytes / 16, MADV_NOHUGEPAGE);
	if (madvise(huge, bytes, HGM_MADV_POPULATE_WRITE) ||
	    madvise(small, bytes / 16, HGM_MADV_POPULATE_WRITE))
		die("warming up", strerror(errno));
	munmap(huge, bytes);
	munmap(small, bytes / 16);
}
