/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a process holds: taken before and after, two of these tell whether something was
 * left behind.
 */
#ifndef HGM_TEST_LEAKS_H
#define HGM_TEST_LEAKS_H

#include <dirent.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * The heap is not counted: its top grows and shrinks as malloc() sees fit, and memory that nobody
 * frees is for the sanitizers to find. A sanitizer's own mappings come and go, too: there only
 * those of memory files are counted.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

struct holdings {
	unsigned int descriptors;
	unsigned int threads;
	uint64_t mapped_bytes;
};

/*
 * A collapser has smaps open for one look: the model's table tells whether it is closed again. What
 * was closed since it was listed is not held either.
 */
static inline bool is_held(const char *descriptor)
{
	char path[300], target[100];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/self/fd/%s", descriptor);
	len = readlink(path, target, sizeof(target) - 1);
	target[len < 0 ? 0 : len] = 0;
	return len >= 0 && !strstr(target, "/smaps");
}

static inline unsigned int count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *entry;
	unsigned int n = 0;

	while (dir && (entry = readdir(dir)))
		n += is_held(entry->d_name);
	if (dir)
		closedir(dir);
	return n;
}

/*
 * A thread that was joined may still be seen for a moment, on its way out (PF_EXITING in the ninth
 * field of its stat file).
 */
static inline bool is_thread(const char *tid)
{
	char path[300], line[1024];
	unsigned int flags;
	bool alive = false;
	const char *rest;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%s/stat", tid);
	file = tid[0] == '.' ? NULL : fopen(path, "r");
	if (!file)
		return false;
	if (fgets(line, sizeof(line), file)) {
		rest = strrchr(line, ')'); /* the end of its name */
		alive = rest && sscanf(rest, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1 &&
			!(flags & 4);
	}
	fclose(file);
	return alive;
}

static inline unsigned int count_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	const struct dirent *entry;
	unsigned int n = 0;

	while (dir && (entry = readdir(dir)))
		n += is_thread(entry->d_name);
	if (dir)
		closedir(dir);
	return n;
}

static inline struct holdings take_holdings(void)
{
	struct holdings h = {
		.descriptors = count_descriptors(),
		.threads = count_threads(),
	};
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	uint64_t start;
	uint64_t end;

	while (maps && fgets(line, sizeof(line), maps)) {
		if (strstr(line, "[heap]") || (SANITIZED && !strstr(line, "memfd:")))
			continue;
		if (sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) == 2)
			h.mapped_bytes += end - start;
	}
	if (maps)
		fclose(maps);
	return h;
}

#define assert_same_holdings(before)                                         \
	do {                                                                 \
		const struct holdings now_ = take_holdings();                \
		assert_int_equal(now_.descriptors, (before)->descriptors);   \
		assert_int_equal(now_.threads, (before)->threads);           \
		assert_int_equal(now_.mapped_bytes, (before)->mapped_bytes); \
	} while (0)

#endif
