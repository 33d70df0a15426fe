/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the probes share: scratch mappings, temporary userfaultfds, and answers.
 *
 * One rule applies to all of them: a thread that must not wait never touches a registered page.
 * Contents are checked after the registration has ended. Until then, /proc/self/pagemap shows the
 * state.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "caps.h"
#include "util/error.h"

void hgm_probe_answer(struct hgm_probe *p, enum hgm_answer answer, const char *format, ...)
{
	va_list ap;

	p->answer = answer;
	va_start(ap, format);
	vsnprintf(p->reason, sizeof(p->reason), format, ap);
	va_end(ap);
}

void hgm_probe_answer_errno(struct hgm_probe *p, int rc, const char *what)
{
	const char *name = hgm_errno_name(rc);

	switch (-rc) {
	case EPERM:
	case EACCES:
		hgm_probe_answer(p, HGM_DENIED, "%s: %s; this process is not permitted to do this",
				 what, name);
		return;
	case ENOMEM:
	case ENOSPC:
		hgm_probe_answer(p, HGM_UNPROVEN, "%s: %s; out of memory, or no free huge page",
				 what, name);
		return;
	case EMFILE:
	case ENFILE:
		hgm_probe_answer(p, HGM_UNPROVEN, "%s: %s; raise the limit of open files", what,
				 name);
		return;
	case EAGAIN:
	case EBUSY:
	case EINTR:
		hgm_probe_answer(p, HGM_UNPROVEN, "%s: %s; try again", what, name);
		return;
	default:
		hgm_probe_answer(p, HGM_NO, "%s: %s", what, name);
	}
}

struct hgm_size_text hgm_probe_size(uint64_t bytes)
{
	unsigned int shift = bytes >> 30 ? 30 : bytes >> 20 ? 20 : 10;
	struct hgm_size_text t;

	snprintf(t.text, sizeof(t.text), "%" PRIu64 " %ciB", bytes >> shift, " KMG"[shift / 10]);
	return t;
}

int hgm_probe_read_text(const char *path, char *buf, size_t len)
{
	ssize_t n;
	int fd;

	fd = hgm_sys->open(path, O_RDONLY);
	if (fd < 0)
		return fd;
	n = hgm_sys->read(fd, buf, len - 1);
	hgm_sys->close(fd);
	if (n < 0)
		return (int)n;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return (int)strlen(buf);
}

static int open_memory(struct hgm_scratch *s, enum hgm_memory memory)
{
	unsigned int flags = 0;

	if (memory == HGM_MEMORY_HUGETLB_2M)
		flags = MFD_HUGETLB | 21U << HGM_MFD_HUGE_SHIFT;
	if (memory == HGM_MEMORY_HUGETLB_1G)
		flags = MFD_HUGETLB | 30U << HGM_MFD_HUGE_SHIFT;
	s->memfd = hgm_sys->memfd_create("hgm-probe", flags);
	if (s->memfd < 0)
		return s->memfd;
	return hgm_sys->ftruncate(s->memfd, s->block);
}

/* Replace a part of the reservation with memory. */
static int map_over(const struct hgm_scratch *s, char *addr)
{
	int flags = MAP_FIXED | (s->reserved ? 0 : MAP_NORESERVE);
	void *out;

	flags |= s->memfd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	return hgm_sys->mmap(&out, addr, s->block, PROT_READ | PROT_WRITE, flags, s->memfd, 0);
}

bool hgm_scratch_open(struct hgm_probe *p, struct hgm_scratch *s, enum hgm_memory memory)
{
	bool hugetlb = memory == HGM_MEMORY_HUGETLB_2M || memory == HGM_MEMORY_HUGETLB_1G;
	void *base;
	int rc;

	*s = (struct hgm_scratch){ .uffd = -1, .memfd = -1 };
	s->block = memory == HGM_MEMORY_HUGETLB_1G ? UINT64_C(1) << 30 : UINT64_C(1) << 21;
	s->reserved = !hugetlb || p->flags & HGM_CAPS_USE_HUGE_PAGES;

	if (memory == HGM_MEMORY_GUEST) {
		s->memfd = hgm_probe_guest_memfd(p, s->block);
		if (s->memfd < 0)
			return false;
	} else if (memory != HGM_MEMORY_ANON) {
		rc = open_memory(s, memory);
		if (rc < 0) {
			hgm_probe_answer_errno(p, rc,
					       hugetlb ? "a memfd of huge pages of this size"
						       : "memfd_create");
			return false;
		}
	}
	s->base_len = 3 * s->block;
	rc = hgm_sys->mmap(&base, NULL, s->base_len, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (rc) {
		hgm_probe_answer_errno(p, rc, "reserving address space");
		return false;
	}
	s->base = base;
	s->primary = s->base + (-(uintptr_t)s->base & (s->block - 1));
	rc = map_over(s, s->primary);
	if (!rc && s->memfd >= 0) {
		s->alias = s->primary + s->block;
		rc = map_over(s, s->alias);
	}
	if (rc) {
		hgm_probe_answer_errno(p, rc, "mapping scratch memory");
		return false;
	}
	return true;
}

bool hgm_scratch_populate(struct hgm_probe *p, struct hgm_scratch *s, char *addr, uint64_t len)
{
	uint64_t unit = s->memfd < 0 ? p->page : len;
	int rc;

	/* Fails where a plain write would raise SIGBUS: control groups, broken memory. */
	rc = hgm_sys->madvise(addr, len, HGM_MADV_POPULATE_WRITE);
	if (rc) {
		hgm_probe_answer(p, HGM_UNPROVEN, "writing scratch memory: %s", hgm_errno_name(rc));
		return false;
	}
	for (uint64_t i = 0; i < len; i += unit)
		addr[i] = 0x5a;
	return true;
}

bool hgm_scratch_register(struct hgm_probe *p, struct hgm_scratch *s, uint64_t features,
			  uint64_t modes)
{
	uint64_t ioctls;
	int rc;

	if (p->no_uffd) {
		hgm_probe_answer_errno(p, p->no_uffd,
				       "no userfaultfd (see uffd.device and uffd.syscall)");
		return false;
	}
	s->uffd = hgm_probe_open_uffd(features);
	if (s->uffd < 0) {
		hgm_probe_answer_errno(p, s->uffd, "UFFDIO_API with the feature");
		return false;
	}
	rc = hgm_sys->uffd_register(s->uffd, s->primary, s->block, modes, &ioctls);
	if (rc) {
		hgm_probe_answer_errno(p, rc,
				       modes & HGM_UFFD_RWP	? "UFFDIO_REGISTER for RWP"
				       : modes & HGM_UFFD_WP	? "UFFDIO_REGISTER for WP"
				       : modes & HGM_UFFD_MINOR ? "UFFDIO_REGISTER for MINOR"
								: "UFFDIO_REGISTER for MISSING");
		return false;
	}
	return true;
}

void hgm_scratch_unregister(struct hgm_scratch *s)
{
	if (s->uffd < 0)
		return;
	/*
	 * Closing would be enough, were it not for a fork() in another thread, which duplicates
	 * the descriptor.
	 */
	hgm_sys->uffd_unregister(s->uffd, s->primary, s->block);
	hgm_sys->uffd_wake(s->uffd, s->primary, s->block);
	hgm_sys->close(s->uffd);
	s->uffd = -1;
}

void hgm_scratch_close(struct hgm_scratch *s)
{
	hgm_scratch_unregister(s);
	if (s->base)
		hgm_sys->munmap(s->base, s->base_len);
	if (s->memfd >= 0)
		hgm_sys->close(s->memfd);
}

int64_t hgm_probe_pagemap(const struct hgm_probe *p, const void *addr)
{
	uint64_t word = 0;
	ssize_t n;
	int fd;

	fd = hgm_sys->open("/proc/self/pagemap", O_RDONLY);
	if (fd < 0)
		return fd;
	n = hgm_sys->pread(fd, &word, sizeof(word), (uintptr_t)addr / p->page * sizeof(word));
	hgm_sys->close(fd);
	if (n != sizeof(word))
		return n < 0 ? n : -EIO;
	return (int64_t)(word >> 63 ? HGM_PAGEMAP_PRESENT : 0) |
	       (int64_t)(word & HGM_PAGEMAP_UFFD_WP);
}
