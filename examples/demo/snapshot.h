/* SPDX-License-Identifier: 0BSD */
/*
 * A snapshot file to restore guest memory from. It contains seeded noise, zero pages and holes.
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
 * @data:   mapping of its contents
 * @length: its size
 * @path:   its path if the file is kept; otherwise it no longer has a name
 */
struct snapshot {
	int fd;
	const uint8_t *data;
	uint64_t length;
	char path[PATH_MAX];
};

/**
 * snapshot_file - make an empty file in $TMPDIR or, if that is not set, in /var/tmp
 * @path:   filled in, PATH_MAX bytes
 * @length: bytes that the file will need
 * @why:    buffer for a text that says what went wrong
 * @size:   size of @why
 *
 * Return: a descriptor, or a negative errno.
 */
int snapshot_file(char *path, uint64_t length, char *why, size_t size);

/**
 * snapshot_create - make a snapshot file, in the same place as snapshot_file()
 * @s:	    filled in
 * @length: bytes, a multiple of 2 MiB
 * @seed:   equal seeds give equal files
 * @keep:   leave the file in the file system
 * @why:    buffer for a text that says what went wrong
 * @size:   size of @why
 *
 * Return: 0 or a negative errno.
 */
int snapshot_create(struct snapshot *s, uint64_t length, uint64_t seed, bool keep, char *why,
		    size_t size);
void snapshot_close(struct snapshot *s);

#endif /* SNAPSHOT_H */
