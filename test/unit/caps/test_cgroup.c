/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Limits of memory cgroups, of both versions and all levels, as the kernel's files show them.
 */
#include <errno.h>
#include <string.h>

#include "caps/cgroup.h"
#include "kernel/sys.h"
#include "test.h"

#define MIB	 UINT64_C(1048576)
#define FIRST_FD 1000

struct file {
	const char *path;
	const char *text;
};

static const struct file *files;
static size_t at;

static int fake_open(const char *path, int flags)
{
	(void)flags;
	at = 0;
	for (int i = 0; files[i].path; i++)
		if (!strcmp(files[i].path, path))
			return FIRST_FD + i;
	return -ENOENT;
}

static int fake_close(int fd)
{
	(void)fd;
	return 0;
}

static ssize_t fake_read(int fd, void *buf, size_t size)
{
	const char *text = files[fd - FIRST_FD].text;
	size_t left = strlen(text) - at;

	size = size < left ? size : left;
	memcpy(buf, text + at, size);
	at += size;
	return (ssize_t)size;
}

static const struct hgm_sys fake = { .open = fake_open, .close = fake_close, .read = fake_read };

static uint64_t room(const struct file *tree, uint64_t swap_bytes)
{
	const struct hgm_sys *before = hgm_sys;
	uint64_t bytes;

	files = tree;
	hgm_sys = &fake;
	bytes = hgm_cgroup_room(swap_bytes);
	hgm_sys = before;
	return bytes;
}

static void no_limit(void **state)
{
	static const struct file nothing[] = { { NULL, NULL } };
	static const struct file unlimited[] = {
		{ "/proc/self/cgroup", "0::/a/b\n" },
		{ "/sys/fs/cgroup/a/b/memory.max", "max\n" },
		{ "/sys/fs/cgroup/a/memory.max", "max\n" },
		{ NULL, NULL },
	};
	static const struct file unlimited_v1[] = {
		{ "/proc/self/cgroup", "3:cpu,cpuacct:/x\n2:memory:/x\n0::/\n" },
		{ "/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n" },
		{ NULL, NULL },
	};
	static const struct file other[] = {
		{ "/proc/self/cgroup", "3:memory_of_something_else:/x\n" },
		{ "/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "4096\n" },
		{ NULL, NULL },
	};

	(void)state;
	assert_int_equal(room(nothing, 0), UINT64_MAX);
	assert_int_equal(room(unlimited, MIB), UINT64_MAX);
	assert_int_equal(room(unlimited_v1, 0), UINT64_MAX);
	assert_int_equal(room(other, 0), UINT64_MAX);
}

/* The minimum of all levels. Caches count as free memory. Swap has its own limit. */
static void version_2(void **state)
{
	static const struct file tree[] = {
		{ "/proc/self/cgroup", "0::/a/b\n" },
		{ "/sys/fs/cgroup/a/b/memory.max", "104857600\n" },
		{ "/sys/fs/cgroup/a/b/memory.current", "52428800\n" },
		{ "/sys/fs/cgroup/a/b/memory.stat",
		  "anon 5\nfile 99999999\ninactive_file 1048576\nactive_file 2097152\n" },
		{ "/sys/fs/cgroup/a/b/memory.swap.max", "max\n" },
		{ "/sys/fs/cgroup/a/memory.max", "62914560\n" },
		{ "/sys/fs/cgroup/a/memory.current", "58720256\n" },
		{ "/sys/fs/cgroup/a/memory.swap.max", "3145728\n" },
		{ "/sys/fs/cgroup/a/memory.swap.current", "1048576\n" },
		{ NULL, NULL },
	};

	(void)state;
	assert_int_equal(room(tree, 0), 4 * MIB);
	assert_int_equal(room(tree, 100 * MIB), 6 * MIB);
	assert_int_equal(room(tree, MIB), 5 * MIB);
}

/* In a container, the path is that of the host, and the limit is at the root. */
static void version_1(void **state)
{
	static const struct file tree[] = {
		{ "/proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/0123\n" },
		{ "/sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n" },
		{ "/sys/fs/cgroup/memory/memory.usage_in_bytes", "94371840\n" },
		{ "/sys/fs/cgroup/memory/memory.stat",
		  "inactive_file 7\ntotal_inactive_file 1048576\ntotal_active_file 0\n" },
		{ "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "106954752\n" },
		{ "/sys/fs/cgroup/memory/memory.memsw.usage_in_bytes", "94371840\n" },
		{ NULL, NULL },
	};

	(void)state;
	assert_int_equal(room(tree, 0), 11 * MIB);
	assert_int_equal(room(tree, 100 * MIB), 13 * MIB);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(no_limit),
	cmocka_unit_test(version_2),
	cmocka_unit_test(version_1),
};

TEST_MAIN(tests)
