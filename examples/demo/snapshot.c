/* SPDX-License-Identifier: 0BSD */
/*
 * Making a snapshot file: see snapshot.h
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "../random.h"
#include "snapshot.h"

#define PAGE  4096
#define CHUNK (64 << 10) /* size of a hole */
#define SPARE (64 << 20) /* space to leave free in the file system */

static int failed(int error, const char *what, const char *path, char *why, size_t size)
{
	snprintf(why, size, "%s %s: %s", what, path, strerror(error));
	return -error;
}

/* One of 16 chunks is a hole. In the other chunks, one of 16 pages is a zero page. */
static int write_chunk(int fd, uint64_t offset, uint64_t *seed)
{
	static uint64_t chunk[CHUNK / 8];
	ssize_t done, n;
	size_t i;

	if (!random_below(seed, 16))
		return 0;
	for (i = 0; i < CHUNK / 8; i++)
		chunk[i] = random_next(seed);
	for (i = 0; i < CHUNK / PAGE; i++) {
		if (!random_below(seed, 16))
			memset((uint8_t *)chunk + i * PAGE, 0, PAGE);
	}
	for (done = 0; done < CHUNK; done += n) {
		n = pwrite(fd, (uint8_t *)chunk + done, CHUNK - done, offset + done);
		if (n < 0)
			return -errno;
	}
	return 0;
}

static int fill(struct snapshot *s, uint64_t seed, char *why, size_t size)
{
	uint64_t offset;
	int rc;

	if (ftruncate(s->fd, s->length))
		return failed(errno, "making room in", s->path, why, size);
	for (offset = 0; offset < s->length; offset += CHUNK) {
		rc = write_chunk(s->fd, offset, &seed);
		if (rc)
			return failed(-rc, "writing", s->path, why, size);
	}
	s->data = mmap(NULL, s->length, PROT_READ, MAP_SHARED, s->fd, 0);
	if (s->data == MAP_FAILED) {
		s->data = NULL;
		return failed(errno, "mapping", s->path, why, size);
	}
	return 0;
}

int snapshot_file(char *path, uint64_t length, char *why, size_t size)
{
	const char *dir = getenv("TMPDIR");
	struct statvfs fs;
	uint64_t space;
	int rc;

	if (!dir || !*dir)
		dir = "/var/tmp";
	if (statvfs(dir, &fs))
		return failed(errno, "looking at", dir, why, size);
	space = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (space < length + SPARE) {
		snprintf(why, size,
			 "%s has %llu MiB free, %llu are needed; set TMPDIR to another place", dir,
			 (unsigned long long)space >> 20,
			 (unsigned long long)(length + SPARE) >> 20);
		return -ENOSPC;
	}
	rc = snprintf(path, PATH_MAX, "%s/hgm-demo-XXXXXX", dir);
	if (rc >= PATH_MAX)
		return failed(ENAMETOOLONG, "making a file in", dir, why, size);
	rc = mkostemp(path, O_CLOEXEC);
	return rc < 0 ? failed(errno, "making a file in", dir, why, size) : rc;
}

int snapshot_create(struct snapshot *s, uint64_t length, uint64_t seed, bool keep, char *why,
		    size_t size)
{
	int rc;

	*s = (struct snapshot){ .length = length };
	s->fd = snapshot_file(s->path, length, why, size);
	if (s->fd < 0)
		return s->fd;
	rc = fill(s, seed, why, size);
	if (rc || !keep)
		unlink(s->path); /* goes away with its descriptor, however this program ends */
	if (rc)
		snapshot_close(s);
	else if (!keep)
		s->path[0] = '\0';
	return rc;
}

void snapshot_close(struct snapshot *s)
{
	if (s->data)
		munmap((void *)s->data, s->length);
	if (s->fd >= 0)
		close(s->fd);
	s->data = NULL;
	s->fd = -1;
}
