/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files as sources. Holes are located once. A request is answered up to the next boundary between
 * data and a hole, and the rest is requested again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/sys.h"
#include "map/map.h"
#include "source.h"
#include "util/cancel.h"
#include "util/error.h"

struct extent {
	uint64_t start;
	uint64_t end;
};

struct file {
	int fd;
	uint64_t size;
	struct extent *data; /* in ascending order, rounded outwards to pages */
	size_t extents;
};

static uint64_t page_up(uint64_t bytes)
{
	return (bytes + HGM_PAGE_BYTES - 1) & ~(HGM_PAGE_BYTES - 1);
}

static uint64_t page_down(uint64_t bytes)
{
	return bytes & ~(HGM_PAGE_BYTES - 1);
}

/* Return how many bytes from @offset on are of the same kind, and whether they are a hole. */
static uint64_t run_at(const struct file *f, uint64_t offset, bool *hole)
{
	size_t low = 0, high = f->extents;

	while (low < high) { /* find the first extent that ends after offset */
		size_t mid = low + (high - low) / 2;

		if (f->data[mid].end <= offset)
			low = mid + 1;
		else
			high = mid;
	}
	*hole = low == f->extents || f->data[low].start > offset;
	if (!*hole)
		return f->data[low].end - offset;
	return (low == f->extents ? page_up(f->size) : f->data[low].start) - offset;
}

static int64_t file_read(const struct file *f, const struct hgm_io *io, bool nowait)
{
	uint64_t length = io->length;
	uint64_t got = 0;
	uint64_t run;
	bool hole;

	if (io->offset >= f->size)
		return -EIO;
	run = run_at(f, io->offset, &hole);
	length = length < run ? length : run;
	if (hole)
		return (int64_t)length | HGM_IO_ZERO;
	while (got < length) {
		char *to = (char *)io->buf + got;
		ssize_t n =
			nowait ? hgm_sys->pread_nowait(f->fd, to, length - got, io->offset + got)
			       : hgm_sys->pread(f->fd, to, length - got, io->offset + got);

		if (n == -EINTR)
			continue;
		if (n == -EOPNOTSUPP && nowait) /* a file system without RWF_NOWAIT */
			n = -EAGAIN;
		if (n < 0)
			return page_down(got) ? (int64_t)page_down(got) : n;
		if (!n) /* the file became shorter */
			return page_down(got) ? (int64_t)page_down(got) : -EIO;
		got += (uint64_t)n;
	}
	return (int64_t)got;
}

static int64_t file_read_wait(void *user, const struct hgm_io *io)
{
	return file_read(user, io, false);
}

static int64_t file_read_nowait(void *user, const struct hgm_io *io)
{
	return file_read(user, io, true);
}

static void file_free(struct hgm_source *src)
{
	struct file *f = src->user;

	hgm_sys->close(f->fd);
	free(f->data);
	free(f);
}

static int add_extent(struct file *f, uint64_t start, uint64_t end)
{
	start = page_down(start);
	end = page_up(end);
	if (f->extents && f->data[f->extents - 1].end >= start) {
		f->data[f->extents - 1].end = end;
		return 0;
	}
	if (!(f->extents & (f->extents - 1))) { /* room for 1, 2, 4, ... */
		size_t room = f->extents ? f->extents * 2 : 1;
		struct extent *more = realloc(f->data, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		f->data = more;
	}
	f->data[f->extents++] = (struct extent){ start, end };
	return 0;
}

/* A file system that does not support holes reports everything as data. */
static int find_extents(struct file *f)
{
	int64_t at = 0;

	while ((uint64_t)at < f->size) {
		int64_t data = hgm_sys->lseek(f->fd, at, SEEK_DATA);
		int64_t hole;
		int rc;

		if (data == -ENXIO) /* only a hole from here on */
			return 0;
		if (data < 0)
			return add_extent(f, (uint64_t)at, f->size);
		hole = hgm_sys->lseek(f->fd, data, SEEK_HOLE);
		if (hole <= data)
			hole = (int64_t)f->size;
		rc = add_extent(f, (uint64_t)data, (uint64_t)hole);
		if (rc)
			return rc;
		at = hole;
	}
	return 0;
}

/* Takes ownership of @fd. */
static int make_source(struct hgm_source **out, int fd, const char *what)
{
	struct hgm_source *src = hgm_source_new();
	struct file *f = calloc(1, sizeof(*f));
	struct hgm_file_kind kind;
	int64_t size;
	int rc;

	if (!src || !f) {
		rc = hgm_fail(-ENOMEM, "%s: out of memory", what);
		goto fail;
	}
	rc = hgm_sys->file_kind(fd, &kind);
	if (rc) {
		hgm_fail(rc, "%s: fstat: %s", what, hgm_errno_name(rc));
		goto fail;
	}
	if (!S_ISREG(kind.mode) && !S_ISBLK(kind.mode)) {
		rc = hgm_fail(-EINVAL, "%s: neither a regular file nor a block device", what);
		goto fail;
	}
	size = hgm_sys->lseek(fd, 0, SEEK_END);
	if (S_ISREG(kind.mode))
		size = (int64_t)kind.size;
	if (size < 0) {
		rc = hgm_fail((int)size, "%s: lseek: %s", what, hgm_errno_name((int)size));
		goto fail;
	}
	if (!size) {
		rc = hgm_fail(-EINVAL, "%s: the file is empty", what);
		goto fail;
	}
	f->fd = fd;
	f->size = (uint64_t)size;
	rc = find_extents(f);
	if (rc) {
		hgm_fail(rc, "%s: out of memory for the list of holes", what);
		goto fail;
	}
	src->read = file_read_wait;
	src->read_nowait = file_read_nowait;
	src->free = file_free;
	src->user = f;
	src->blocking = true;
	src->copied_by_kernel = true;
	src->file = hgm_file_id(&kind);
	src->length = f->size;
	*out = src;
	return 0;
fail:
	if (f)
		free(f->data);
	free(f);
	free(src);
	hgm_sys->close(fd);
	return rc;
}

int hgm_source_file(struct hgm_source **out, const char *path)
{
	HGM_UNCANCELLED;
	int fd;

	if (!out || !path)
		return hgm_fail(-EINVAL, "hgm_source_file: %s is NULL", out ? "path" : "out");
	fd = hgm_sys->open(path, O_RDONLY | O_NONBLOCK); /* opening a FIFO would wait */
	if (fd < 0)
		return hgm_fail(fd, "open %s: %s", path, hgm_errno_name(fd));
	return make_source(out, fd, path);
}

int hgm_source_fd(struct hgm_source **out, int fd)
{
	HGM_UNCANCELLED;
	struct hgm_file_kind kind;
	char path[32];
	int own, rc;

	if (!out)
		return hgm_fail(-EINVAL, "hgm_source_fd: out is NULL");
	rc = hgm_sys->file_kind(fd, &kind);
	if (!rc && kind.access == O_WRONLY)
		rc = -EBADF;
	if (rc)
		return hgm_fail(rc, "hgm_source_fd: descriptor %d is not open for reading: %s", fd,
				hgm_errno_name(rc));
	/* Open the file anew: a duplicate would share the caller's file position. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = hgm_sys->open(path, O_RDONLY | O_NONBLOCK | (kind.direct ? O_DIRECT : 0));
	if (own < 0)
		own = hgm_sys->dup(fd);
	if (own < 0)
		return hgm_fail(own, "hgm_source_fd: descriptor %d: %s", fd, hgm_errno_name(own));
	return make_source(out, own, "hgm_source_fd");
}
