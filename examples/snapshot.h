/* SPDX-License-Identifier: 0BSD */
/*
 * A snapshot file to restore guest memory from, made of seeded noise, zero pages and holes
 */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * struct snapshot - a snapshot file
 * @fd:	    open for reading
 * @data:   its contents, mapped
 * @length: its size
 * @path:   where it is, if it was to be kept; else it has no name any more
 */
struct snapshot {
	int fd;
	const uint8_t *data;
	uint64_t length;
	char path[PATH_MAX];
};

/**
 * snapshot_file - an empty file, in $TMPDIR or else in /var/tmp
 * @path:   filled in, PATH_MAX bytes
 * @length: bytes that it will need
 * @why:    what went wrong, in words
 * @size:   its size
 *
 * Return: a descriptor, or a negative errno.
 */
int snapshot_file(char *path, uint64_t length, char *why, size_t size);

/**
 * snapshot_create - make one, where snapshot_file() does
 * @s:	    filled in
 * @length: bytes, a multiple of 2 MiB
 * @seed:   equal seeds give equal files
 * @keep:   leave it in the file system
 * @why:    what went wrong, in words
 * @size:   its size
 *
 * Return: 0 or a negative errno.
 */
int snapshot_create(struct snapshot *s, uint64_t length, uint64_t seed, bool keep, char *why,
		    size_t size);
void snapshot_close(struct snapshot *s);

#endif /* SNAPSHOT_H */
