/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A source under test, and a directory of its own with one file to make it from.
 */
#ifndef HGM_TEST_TEMP_SOURCE_H
#define HGM_TEST_TEMP_SOURCE_H

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "leaks.h"
#include "source/source.h"
#include "test.h"

#define PAGE   UINT64_C(4096)
#define BLOCK  (UINT64_C(2) << 20)
#define UNREAD 0xee

static char dir[64];
static char path[96];
static struct hgm_source *src;
static struct holdings before;
static unsigned char buf[BLOCK] __attribute__((aligned(4096)));

static inline int begin(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(dir, sizeof(dir), "%s/hgm-test-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/file", dir);
	src = NULL;
	before = take_holdings();
	return 0;
}

static inline int end(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir);
}

/* Gone, and nothing left behind. */
static inline void destroy(void)
{
	hgm_source_destroy(src);
	src = NULL;
	assert_int_equal(take_holdings().descriptors, before.descriptors);
}

static inline int make_file(uint64_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static inline int64_t ask(hgm_read_fn read, uint64_t offset, uint64_t length)
{
	const struct hgm_io io = { .offset = offset, .length = length, .buf = buf };

	memset(buf, UNREAD, sizeof(buf));
	return read(src->user, &io);
}

#endif
