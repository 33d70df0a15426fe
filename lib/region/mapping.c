/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Check that a caller's mapping is what the caller says it is. With a wrong descriptor, the library
 * would write contents into a file that the guest never sees. /proc/self/maps has the truth.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "kernel/sys.h"
#include "region.h"
#include "util/error.h"

#define NOT_MAPPED (-EADDRNOTAVAIL) /* nothing is mapped at a part of the range */

struct area {
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	uint64_t inode;
	unsigned int major;
	unsigned int minor;
	char perms[5];
};

struct want {
	uint64_t at; /* the range has been found up to here */
	uint64_t end;
	uint64_t offset; /* file offset of @at */
	struct hgm_file_kind kind;
	bool file;
};

/*
 * Does the area contain the next part of the range? Returns 1 if so, 0 if the area lies elsewhere,
 * and -EINVAL if the area is something else.
 */
static int check_area(struct want *w, const struct area *a)
{
	bool same;

	if (w->at < a->start || w->at >= a->end)
		return 0;
	same = !w->file ? !a->inode && a->perms[3] == 'p'
			: a->inode == w->kind.inode && a->major == major(w->kind.device) &&
				  a->minor == minor(w->kind.device) && a->perms[3] == 's' &&
				  a->offset + (w->at - a->start) == w->offset;
	if (!same)
		return -EINVAL;
	w->offset += a->end - w->at;
	w->at = a->end;
	return 1;
}

static int check_line(struct want *w, const char *line)
{
	struct area a;

	if (sscanf(line, "%lx-%lx %4s %lx %x:%x %lu", &a.start, &a.end, a.perms, &a.offset,
		   &a.major, &a.minor, &a.inode) != 7)
		return 0;
	return check_area(w, &a);
}

/* Check all lines of the file, with a buffer that holds the longest line. */
static int check_lines(struct want *w, int fd)
{
	char buf[8192];
	size_t have = 0;
	int rc = 0;

	while (rc >= 0 && w->at < w->end) {
		ssize_t n = hgm_sys->read(fd, buf + have, sizeof(buf) - 1 - have);
		char *line = buf, *eol;

		if (n == -EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? (int)n : NOT_MAPPED;
		have += (size_t)n;
		buf[have] = 0;
		while (rc >= 0 && w->at < w->end && (eol = strchr(line, '\n'))) {
			*eol = 0;
			rc = check_line(w, line);
			line = eol + 1;
		}
		have -= (size_t)(line - buf);
		memmove(buf, line, have);
	}
	return rc < 0 ? rc : 0;
}

/* @pid 0: this process. */
static int open_maps(int pid, char path[32])
{
	snprintf(path, 32, "/proc/self/maps");
	if (pid)
		snprintf(path, 32, "/proc/%d/maps", pid);
	return hgm_sys->open(path, O_RDONLY);
}

bool hgm_mapping_none(int pid, const void *page)
{
	struct want w = { .at = (uintptr_t)page, .end = (uintptr_t)page + HGM_PAGE_BYTES };
	char path[32];
	int maps = open_maps(pid, path), rc;

	if (maps < 0)
		return false;
	rc = check_lines(&w, maps);
	hgm_sys->close(maps);
	return rc == NOT_MAPPED;
}

int hgm_mapping_check(int pid, const void *addr, uint64_t len, int fd, uint64_t offset)
{
	struct want w = {
		.at = (uintptr_t)addr,
		.end = (uintptr_t)addr + len,
		.offset = offset,
		.file = fd >= 0,
	};
	int maps, rc = 0;
	char path[32];

	if (w.end < w.at)
		return hgm_fail(-EINVAL, "addr %p + %llu bytes overflows", addr,
				(unsigned long long)len);
	if (w.file)
		rc = hgm_sys->file_kind(fd, &w.kind);
	if (rc)
		return hgm_fail(rc, "descriptor %d: %s", fd, hgm_errno_name(rc));
	maps = open_maps(pid, path);
	if (maps < 0)
		return hgm_fail(maps, "open %s: %s", path, hgm_errno_name(maps));
	rc = check_lines(&w, maps);
	hgm_sys->close(maps);
	if (rc == NOT_MAPPED)
		return hgm_fail(-EINVAL, "the mapping at %p: nothing is mapped at %#llx", addr,
				(unsigned long long)w.at);
	if (rc == -EINVAL)
		return hgm_fail(rc, "the mapping at %p, from %#llx on, is not %s", addr,
				(unsigned long long)w.at,
				w.file ? "a shared mapping of that descriptor at that offset"
				: pid  ? "private anonymous memory"
				       : "private anonymous memory; pass its descriptor");
	return rc ? hgm_fail(rc, "%s: %s", path, hgm_errno_name(rc)) : 0;
}
