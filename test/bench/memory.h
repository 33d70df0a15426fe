/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of the baselines, registered with userfaultfd: plain system calls only
 */
#ifndef HGM_BENCH_MEMORY_H
#define HGM_BENCH_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum memory_kind {
	MEMORY_PREPARED, /* shmem, huge in the page cache: minor faults */
	MEMORY_FRESH,	 /* shmem, nothing allocated: missing faults */
	MEMORY_ANON,	 /* anonymous, nothing allocated: missing faults */
};

struct memory {
	enum memory_kind kind;
	size_t bytes;
	char *primary;
	char *alias; /* NULL for MEMORY_ANON */
	int uffd;
};

void memory_make(struct memory *m, size_t bytes, enum memory_kind kind);
void memory_free(struct memory *m);

/* The page offset in the next message; -1 if there is no message. */
int64_t memory_next(const struct memory *m);

/*
 * Write the contents of [offset, offset + len) and map it, by memcpy and CONTINUE, or COPY. This
 * wakes its waiters. Returns false if a part is mapped already. The waiters are woken separately
 * then.
 */
bool memory_install(const struct memory *m, size_t offset, size_t len);

/* Collapse the memory; dies if it is not huge afterwards. */
void memory_collapse(const struct memory *m);

/* Map @len bytes at a 2 MiB boundary, of @fd or, if it is -1, anonymous. */
char *memory_map(size_t len, int fd);

/* Create a memfd in which each block is one huge page. */
int memory_prepared_fd(size_t bytes, char **alias);

/*
 * Make the host back as much free memory as will be needed. The host takes back memory that has
 * been free for some seconds, and provides it again at some microseconds per page. This
 * applies to huge pages, and to small ones for page tables.
 */
void memory_warm(size_t bytes);

#endif
