/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Limits of memory cgroups. A process that exceeds a limit gets no error: it, or another process of
 * the same cgroup, is killed.
 *
 * A container sees its own cgroup at the root of the cgroup file system, but /proc may show another
 * path. Levels that do not exist are skipped, and the root is always checked.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cgroup.h"
#include "kernel/sys.h"

#define NO_LIMIT       (UINT64_C(1) << 60)
#define PATH_MAX_BYTES 512

/* The files of one version of cgroups. */
struct version {
	const char *root;
	const char *limit;
	const char *used;
	const char *inactive_file; /* lines of memory.stat: reclaimed first */
	const char *active_file;
	const char *swap_limit; /* in v1 this includes memory */
	const char *swap_used;
	bool swap_with_memory;
};

static const struct version v1 = {
	.root = "/sys/fs/cgroup/memory",
	.limit = "memory.limit_in_bytes",
	.used = "memory.usage_in_bytes",
	.inactive_file = "total_inactive_file ",
	.active_file = "total_active_file ",
	.swap_limit = "memory.memsw.limit_in_bytes",
	.swap_used = "memory.memsw.usage_in_bytes",
	.swap_with_memory = true,
};

static const struct version v2 = {
	.root = "/sys/fs/cgroup",
	.limit = "memory.max",
	.used = "memory.current",
	.inactive_file = "inactive_file ",
	.active_file = "active_file ",
	.swap_limit = "memory.swap.max",
	.swap_used = "memory.swap.current",
};

static bool read_text(const char *path, char *text, size_t size)
{
	int fd = hgm_sys->open(path, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return false;
	n = hgm_sys->read(fd, text, size - 1);
	hgm_sys->close(fd);
	if (n <= 0)
		return false;
	text[n] = 0;
	return true;
}

static uint64_t read_number(const struct version *v, const char *group, const char *file,
			    uint64_t otherwise)
{
	char path[PATH_MAX_BYTES + 128], text[64];

	snprintf(path, sizeof(path), "%s%s/%s", v->root, group, file);
	if (!read_text(path, text, sizeof(text)) || text[0] < '0' || text[0] > '9')
		return otherwise; /* also for "max" */
	return strtoull(text, NULL, 10);
}

/* The value of a line of memory.stat. */
static uint64_t stat_of(const char *text, const char *line)
{
	for (const char *at = text; (at = strstr(at, line)); at++)
		if (at == text || at[-1] == '\n')
			return strtoull(at + strlen(line), NULL, 10);
	return 0;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static uint64_t swap_room(const struct version *v, const char *group, uint64_t memory,
			  uint64_t swap_bytes)
{
	uint64_t limit = read_number(v, group, v->swap_limit, UINT64_MAX);
	uint64_t room = minus(limit, read_number(v, group, v->swap_used, 0));

	if (limit >= NO_LIMIT)
		return swap_bytes;
	if (v->swap_with_memory)
		room = minus(room, memory);
	return room < swap_bytes ? room : swap_bytes;
}

/* The room in one level. */
static uint64_t room_of(const struct version *v, const char *group, uint64_t swap_bytes)
{
	uint64_t limit = read_number(v, group, v->limit, UINT64_MAX), room;
	char path[PATH_MAX_BYTES + 128], text[8192];

	if (limit >= NO_LIMIT)
		return UINT64_MAX;
	room = minus(limit, read_number(v, group, v->used, 0));
	room += swap_room(v, group, room, swap_bytes);
	snprintf(path, sizeof(path), "%s%s/memory.stat", v->root, group);
	if (read_text(path, text, sizeof(text)))
		room += stat_of(text, v->inactive_file) + stat_of(text, v->active_file);
	return room;
}

/* The least room in all levels, from @group up to the root. */
static uint64_t room_up(const struct version *v, char *group, uint64_t swap_bytes)
{
	uint64_t least = UINT64_MAX;

	for (;;) {
		uint64_t room = room_of(v, group, swap_bytes);
		char *slash = strrchr(group, '/');

		least = room < least ? room : least;
		if (!slash)
			return least;
		*slash = 0;
	}
}

/* The room by a line of /proc/self/cgroup: "0::/path", or "4:memory,other:/path". */
static uint64_t room_by_line(const char *line, size_t length, uint64_t swap_bytes)
{
	const char *controllers = memchr(line, ':', length), *path;
	char group[PATH_MAX_BYTES];
	const struct version *v;
	size_t bytes;

	if (!controllers)
		return UINT64_MAX;
	controllers++;
	path = memchr(controllers, ':', length - (size_t)(controllers - line));
	if (!path)
		return UINT64_MAX;
	v = path == controllers ? &v2 : &v1;
	if (v == &v1) {
		char names[128];

		bytes = (size_t)(path - controllers);
		snprintf(names, sizeof(names), ",%.*s,", (int)(bytes < 100 ? bytes : 100),
			 controllers);
		if (!strstr(names, ",memory,"))
			return UINT64_MAX;
	}
	path++;
	bytes = length - (size_t)(path - line);
	if (bytes >= sizeof(group))
		return UINT64_MAX;
	memcpy(group, path, bytes);
	group[bytes] = 0;
	if (!strcmp(group, "/"))
		group[0] = 0;
	return room_up(v, group, swap_bytes);
}

uint64_t hgm_cgroup_room(uint64_t swap_bytes)
{
	uint64_t least = UINT64_MAX;
	char text[8192], *line = text;

	if (!read_text("/proc/self/cgroup", text, sizeof(text)))
		return UINT64_MAX;
	while (*line) {
		size_t length = strcspn(line, "\n");
		uint64_t room = room_by_line(line, length, swap_bytes);

		least = room < least ? room : least;
		line += length + (line[length] == '\n');
	}
	return least;
}
