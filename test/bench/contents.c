/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The contents: words that differ between all pages, and a checksum of each 2 MiB that depends on
 * the place of every word
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "contents.h"

#define LONGEST GIB
#define WORDS	(BLOCK / sizeof(uint64_t))
#define LANES	4

static uint64_t *memory;
static size_t made;
static uint64_t sums[LONGEST / BLOCK];

static uint64_t word_at(uint64_t index)
{
	uint64_t z = (index + 1) * UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	return z ^ (z >> 31);
}

static uint64_t checksum(const uint64_t *words)
{
	uint64_t lane[LANES] = { 1, 2, 3, 4 }, sum = 0;
	size_t i, k;

	for (i = 0; i < WORDS; i += LANES)
		for (k = 0; k < LANES; k++)
			lane[k] = (lane[k] ^ words[i + k]) * UINT64_C(0x100000001b3);
	for (k = 0; k < LANES; k++)
		sum = (sum ^ lane[k]) * UINT64_C(0x9e3779b97f4a7c15);
	return sum;
}

const char *contents(size_t bytes)
{
	if (bytes > LONGEST)
		die("contents", "longer than LONGEST");
	if (!memory) {
		memory = mmap(NULL, LONGEST, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (memory == MAP_FAILED)
			die("contents", strerror(errno));
		madvise(memory, LONGEST, MADV_HUGEPAGE);
	}
	for (; made < bytes; made += BLOCK) {
		uint64_t first = made / sizeof(uint64_t);

		for (uint64_t i = first; i < first + WORDS; i++)
			memory[i] = word_at(i);
		sums[made / BLOCK] = checksum(memory + first);
	}
	return (const char *)memory;
}

int contents_file(size_t bytes)
{
	const char *dir = getenv("TMPDIR"), *from = contents(bytes);
	char path[256];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/hgm-bench-XXXXXX", dir ? dir : "/tmp");
	fd = mkstemp(path);
	if (fd < 0)
		die(path, strerror(errno));
	unlink(path);
	for (size_t at = 0; at < bytes; at += (size_t)n) {
		n = write(fd, from + at, bytes - at);
		if (n <= 0)
			die(path, strerror(errno));
	}
	/* There must be no writeback during a measurement. */
	if (fsync(fd))
		die(path, strerror(errno));
	return fd;
}

void contents_check(const char *who, const void *is, size_t bytes)
{
	if (!bytes || bytes % BLOCK || bytes > made)
		die(who, "no contents of that length");
	for (size_t i = 0; i < bytes / BLOCK; i++)
		if (checksum((const uint64_t *)is + i * WORDS) != sums[i])
			die(who, "WRONG CONTENTS: the checksum of a block differs");
}
