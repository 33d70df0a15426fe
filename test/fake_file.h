/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file on a file system that can be told what it knows and how its reads end, and a source made
 * from it.
 */
#ifndef HGM_TEST_FAKE_FILE_H
#define HGM_TEST_FAKE_FILE_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/sys.h"
#include "source/source.h"
#include "test.h"

#define PAGE  UINT64_C(4096)
#define BLOCK (UINT64_C(2) << 20)
#define FD    9

static struct file {
	mode_t mode;
	int access;
	uint64_t stat_size;
	uint64_t size;
	int seek_data; /* negative errno, 0: works */
	int seek_hole;
	bool data[512]; /* by pieces of @grain bytes */
	uint64_t grain;
	int open_error, dup_error;
	int kind_error;
	int nowait;    /* what pread_nowait says, 0: works */
	uint64_t most; /* bytes per read */
	int fail;      /* after so many bytes of a request, with this */
	uint64_t fail_after;
	unsigned int interrupts;
	uint64_t served;
	int64_t position;
	unsigned int opened, closed, reads, nowaits;
} f;

static struct hgm_source *src;
static unsigned char buf[BLOCK] __attribute__((aligned(4096)));

static inline int fake_open(const char *path, int flags)
{
	(void)path;
	assert_int_equal(flags & O_ACCMODE, O_RDONLY);
	if (f.open_error)
		return f.open_error;
	f.opened++;
	return FD;
}

static inline int fake_dup(int fd)
{
	assert_int_equal(fd, FD);
	if (f.dup_error)
		return f.dup_error;
	f.opened++;
	return FD;
}

static inline int fake_close(int fd)
{
	assert_int_equal(fd, FD);
	f.closed++;
	return 0;
}

static inline int fake_file_kind(int fd, struct hgm_file_kind *kind)
{
	assert_int_equal(fd, FD);
	if (f.kind_error)
		return f.kind_error;
	*kind = (struct hgm_file_kind){ .mode = f.mode, .size = f.stat_size, .access = f.access };
	return 0;
}

static inline bool is_data(uint64_t offset)
{
	return f.data[offset / f.grain];
}

static inline int64_t fake_lseek(int fd, int64_t offset, int whence)
{
	uint64_t at = (uint64_t)offset;

	assert_int_equal(fd, FD);
	switch (whence) {
	case SEEK_END:
		return (int64_t)f.size + offset;
	case SEEK_CUR:
		return f.position;
	case SEEK_DATA:
		if (f.seek_data)
			return f.seek_data;
		while (at < f.size && !is_data(at))
			at = at / f.grain * f.grain + f.grain;
		return at < f.size ? (int64_t)at : -ENXIO;
	case SEEK_HOLE:
		if (f.seek_hole)
			return f.seek_hole;
		while (at < f.size && is_data(at))
			at = at / f.grain * f.grain + f.grain;
		return at < f.size ? (int64_t)at : (int64_t)f.size;
	}
	return -EINVAL;
}

static inline unsigned char contents_of(uint64_t offset)
{
	return is_data(offset) ? (unsigned char)(offset * 31 / 7 % 250 + 1) : 0;
}

static inline ssize_t fake_pread(int fd, void *to, size_t len, uint64_t offset)
{
	assert_int_equal(fd, FD);
	f.reads++;
	if (f.interrupts) {
		f.interrupts--;
		return -EINTR;
	}
	if (f.fail && f.served >= f.fail_after)
		return f.fail;
	if (offset >= f.size)
		return 0;
	len = len < f.most ? len : f.most;
	len = len < f.size - offset ? len : f.size - offset;
	if (f.fail && len > f.fail_after - f.served)
		len = f.fail_after - f.served;
	for (size_t i = 0; i < len; i++)
		((unsigned char *)to)[i] = contents_of(offset + i);
	f.served += len;
	return (ssize_t)len;
}

static inline ssize_t fake_pread_nowait(int fd, void *to, size_t len, uint64_t offset)
{
	f.nowaits++;
	return f.nowait ? f.nowait : fake_pread(fd, to, len, offset);
}

static const struct hgm_sys fake_sys = {
	.open = fake_open,
	.close = fake_close,
	.dup = fake_dup,
	.lseek = fake_lseek,
	.file_kind = fake_file_kind,
	.pread = fake_pread,
	.pread_nowait = fake_pread_nowait,
};

/* A regular file, all data. */
static inline int begin(void **state)
{
	(void)state;
	f = (struct file){
		.mode = S_IFREG | 0600,
		.access = O_RDONLY,
		.stat_size = BLOCK,
		.size = BLOCK,
		.grain = PAGE,
		.most = BLOCK,
	};
	memset(f.data, true, sizeof(f.data));
	hgm_sys = &fake_sys;
	src = NULL;
	return 0;
}

static inline void open_it(void)
{
	assert_int_equal(hgm_source_file(&src, "x"), 0);
	assert_int_equal(f.closed, 0);
}

static inline int end(void **state)
{
	(void)state;
	hgm_source_destroy(src);
	return f.opened == f.closed ? 0 : -1;
}

static inline int64_t ask(hgm_read_fn read, uint64_t offset, uint64_t length)
{
	const struct hgm_io io = { .offset = offset, .length = length, .buf = buf };

	memset(buf, 0xee, sizeof(buf));
	f.served = 0;
	return read(src->user, &io);
}

static inline void check_buf(uint64_t offset, uint64_t got)
{
	for (uint64_t i = 0; i < got; i++)
		if (buf[i] != contents_of(offset + i))
			fail_msg("byte %llu is %u", (unsigned long long)(offset + i), buf[i]);
}

#endif
