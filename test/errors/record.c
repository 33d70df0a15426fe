/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The record is a file that is mapped before main() and written to by plain stores: also in
 * processes that have no descriptors, no memory or no time left, in their children, on all
 * threads, and if they are killed.
 */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct row {
	char name[RECORD_NAME_BYTES];
	_Atomic char seen[RECORD_ERRNOS];
};

static struct row *record;

__attribute__((constructor)) static void open_record(void)
{
	const char *folder = getenv("HGM_RECORD");
	size_t size = record_rows * sizeof(*record);
	char path[4096];
	void *addr;
	int fd;

	if (!folder || !*folder)
		return;
	snprintf(path, sizeof(path), "%s/%s.%s", folder, program_invocation_short_name,
		 RECORD_SUFFIX);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0 || ftruncate(fd, (off_t)size)) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(99);
	}
	addr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (addr == MAP_FAILED) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(99);
	}
	record = addr;
	for (unsigned int i = 0; i < record_rows; i++)
		strncpy(record[i].name, record_names[i], RECORD_NAME_BYTES - 1);
}

void record_call(unsigned int row, long result)
{
	long error = result < 0 ? -result : 0;

	if (!record)
		return;
	if (error >= RECORD_ERRNOS)
		error = RECORD_ERRNOS - 1;
	atomic_store_explicit(&record[row].seen[error], 1, memory_order_relaxed);
}
