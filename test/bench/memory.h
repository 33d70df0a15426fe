/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of the baselines, registered with userfaultfd: system calls and nothing else
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

/* A page's offset, of the next message; -1 if none waits. */
int64_t memory_next(const struct memory *m);

/*
 * Have [offset, offset + len) hold its contents and be mapped: memcpy and CONTINUE, or COPY. Its
 * waiters wake. False if some of it is mapped already: then they were woken apart.
 */
bool memory_install(const struct memory *m, size_t offset, size_t len);

/* Map it huge; dies if it is not. */
void memory_collapse(const struct memory *m);

/* @len bytes that lie on a 2 MiB boundary; of @fd, or anonymous for -1. */
char *memory_map(size_t len, int fd);

/* A memfd of which each block is one huge page. */
int memory_prepared_fd(size_t bytes, char **alias);

/*
 * Have the host back as much free memory as will be needed: it takes back what has been free for
 * some seconds, and gives it again at some microseconds per page. Huge pages, and small ones for
 * page tables.
 */
void memory_warm(size_t bytes);

#endif
