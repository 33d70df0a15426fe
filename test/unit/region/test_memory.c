/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading guest memory on a kernel that fails in all ways: each page is contents, a hole or
 * unreadable. A page that could not be read is never taken for zero.
 */
#include "kernel/sys.h"
#include "region/hgm.h"
#include "region/memory.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define PAGE	  UINT64_C(4096)
#define PAGES	  64
#define FIRST	  300 /* page of the region */
#define FD_OFFSET (UINT64_C(2) << 20)
#define PRIMARY	  (UINT64_C(1) << 40)
#define PRESENT	  (UINT64_C(1) << 63)
#define SWAPPED	  (UINT64_C(1) << 62)

enum {
	FILE_FD = 40,
	MEM_FD,
	PAGEMAP_FD
};

/* What the kernel does, indexed by page from FIRST on. */
static struct {
	int fails[PAGES];	   /* error of reads that reach the page */
	unsigned int heals[PAGES]; /* failed tries before it can be read; 0: never */
	uint64_t entry[PAGES];
	uint64_t most; /* maximum bytes per read; 0: all */
	uint64_t size; /* file size, from FIRST on */
	unsigned int interrupts;
	int pagemap_fails;
	unsigned int reads;
	int open_mem; /* -errno */
	unsigned int opens;
} k;

static const struct hgm_sys *before;
static struct hgm_sys sys;
static struct hgm h;
static struct hgm_region r;
static uint8_t buf[(PAGES + 1) * PAGE];

static ssize_t read_pagemap(void *to, size_t len, uint64_t offset)
{
	uint64_t page = offset / 8 - PRIMARY / PAGE - FIRST;

	if (k.pagemap_fails)
		return k.pagemap_fails;
	assert_true(offset % 8 == 0 && page + len / 8 <= PAGES);
	memcpy(to, &k.entry[page], len);
	return (ssize_t)len;
}

static ssize_t fake_pread(int fd, void *to, size_t len, uint64_t offset)
{
	uint64_t from = fd == FILE_FD ? FD_OFFSET : PRIMARY, got = 0;
	uint64_t at = offset - from - FIRST * PAGE;

	if (k.interrupts) {
		k.interrupts--;
		return -EINTR;
	}
	if (fd == PAGEMAP_FD)
		return read_pagemap(to, len, offset);
	k.reads++;
	assert_int_equal(fd, r.fd >= 0 ? FILE_FD : MEM_FD);
	assert_true(at + len <= PAGES * PAGE);
	len = k.most && k.most < len ? k.most : len;
	while (got < len && at + got < k.size) {
		uint64_t page = (at + got) / PAGE, left = PAGE - (at + got) % PAGE;

		if (k.fails[page] && k.heals[page] && !--k.heals[page])
			k.fails[page] = 0;
		else if (k.fails[page])
			return got ? (ssize_t)got : k.fails[page];
		left = left < len - got ? left : len - got;
		left = left < k.size - at - got ? left : k.size - at - got;
		memset((char *)to + got, (int)page + 1, left);
		got += left;
	}
	return (ssize_t)got;
}

static int fake_open(const char *path, int flags)
{
	assert_int_equal(flags & O_ACCMODE, O_RDONLY);
	k.opens++;
	assert_string_equal(path, "/proc/self/mem");
	return k.open_mem ? k.open_mem : MEM_FD;
}

static int begin(void **state)
{
	(void)state;
	memset(&k, 0, sizeof(k));
	k.size = PAGES * PAGE;
	before = hgm_sys;
	sys = *before;
	sys.pread = fake_pread;
	sys.open = fake_open;
	hgm_sys = &sys;
	memset(&h, 0, sizeof(h));
	pthread_mutex_init(&h.table_lock, NULL);
	h.space.mem_fd = -ENOENT;
	h.space.pagemap_fd = PAGEMAP_FD;
	r = (struct hgm_region){ .h = &h,
				 .fd = FILE_FD,
				 .fd_offset = FD_OFFSET,
				 .view = { .space = &h.space,
					   .base = (char *)(uintptr_t)PRIMARY } };
	return 0;
}

static int end(void **state)
{
	(void)state;
	pthread_mutex_destroy(&h.table_lock);
	hgm_sys = before;
	return 0;
}

static void be_anon(void)
{
	r.fd = -1;
	assert_int_equal(hgm_memory_open(&r), 0);
	for (int p = 0; p < PAGES; p++)
		k.entry[p] = PRESENT;
}

/* A hole of anonymous memory, as the kernel shows it. */
static void punch(unsigned int page)
{
	k.fails[page] = -EIO;
	k.entry[page] = 0;
}

static struct hgm_memory_outcome read_all(void)
{
	struct hgm_memory_outcome out;

	memset(buf, 0xee, sizeof(buf));
	out = hgm_memory_read(&r, FIRST, PAGES, buf);
	assert_false(out.hole & out.unreadable);
	for (uint64_t p = 0; p < PAGES; p++) {
		bool zero = (out.hole | out.unreadable) >> p & 1;

		for (uint64_t b = 0; b < PAGE; b++)
			assert_int_equal(buf[p * PAGE + b], zero ? 0 : (int)p + 1);
	}
	for (uint64_t b = 0; b < PAGE; b++)
		assert_int_equal(buf[PAGES * PAGE + b], 0xee);
	return out;
}

static void assert_all_there(struct hgm_memory_outcome out)
{
	assert_int_equal(out.hole | out.unreadable, 0);
	assert_int_equal(out.error, 0);
}

static void assert_unreadable(struct hgm_memory_outcome out, uint64_t pages, int error)
{
	assert_int_equal(out.unreadable, pages);
	assert_int_equal(out.error, error);
}

static void a_run_is_one_read(void **state)
{
	(void)state;
	assert_all_there(read_all());
	assert_int_equal(k.reads, 1);
	be_anon();
	assert_all_there(read_all());
	assert_int_equal(k.reads, 2);
}

static void short_and_interrupted_reads(void **state)
{
	(void)state;
	for (int anon = 0; anon < 2; anon++) {
		k.most = 3 * PAGE + 7;
		k.interrupts = 5;
		assert_all_there(read_all());
		assert_int_equal(k.interrupts, 0);
		k.most = PAGE;
		assert_all_there(read_all());
		be_anon();
	}
}

/* Includes a truncated file that ends inside a page: the rest is not zero, but missing. */
static void a_file_that_became_shorter(void **state)
{
	(void)state;
	k.size = 10 * PAGE;
	assert_unreadable(read_all(), ~UINT64_C(0) << 10, -ENODATA);
	k.size = 10 * PAGE + 1;
	assert_unreadable(read_all(), ~UINT64_C(0) << 10, -ENODATA);
	k.size = 0;
	assert_unreadable(read_all(), ~UINT64_C(0), -ENODATA);
	k.size = PAGES * PAGE - 1;
	assert_unreadable(read_all(), UINT64_C(1) << 63, -ENODATA);
}

static void pages_of_a_file_that_cannot_be_read(void **state)
{
	(void)state;
	k.fails[0] = -EIO;
	k.fails[20] = -EIO;
	k.fails[21] = -EIO;
	k.fails[63] = -ENOMEM;
	assert_unreadable(read_all(), UINT64_C(1) | UINT64_C(3) << 20 | UINT64_C(1) << 63, -ENOMEM);
	for (int p = 0; p < PAGES; p++)
		k.fails[p] = -EIO;
	assert_unreadable(read_all(), ~UINT64_C(0), -EIO);
}

static void holes_of_anonymous_memory(void **state)
{
	struct hgm_memory_outcome out;

	(void)state;
	be_anon();
	punch(0);
	for (unsigned int p = 10; p < 30; p++)
		punch(p);
	punch(63);
	out = read_all();
	assert_int_equal(out.hole,
			 UINT64_C(1) | ((UINT64_C(1) << 20) - 1) << 10 | UINT64_C(1) << 63);
	assert_unreadable(out, 0, 0);
	for (unsigned int p = 0; p < PAGES; p++)
		punch(p);
	k.reads = 0;
	out = read_all();
	assert_int_equal(out.hole, ~UINT64_C(0));
	assert_unreadable(out, 0, 0);
	assert_int_equal(k.reads, 1);
}

/* A page that exists, in memory or in swap, and cannot be read is not a hole. */
static void anonymous_pages_that_cannot_be_read(void **state)
{
	static const uint64_t entry[] = { PRESENT, SWAPPED, SWAPPED | UINT64_C(1) << 57 };

	(void)state;
	be_anon();
	for (unsigned int i = 0; i < 3; i++) {
		struct hgm_memory_outcome out;

		punch(29);
		k.fails[30] = k.fails[33] = -EIO;
		k.entry[30] = k.entry[33] = entry[i];
		punch(31);
		out = read_all();
		assert_int_equal(out.hole, UINT64_C(1) << 29 | UINT64_C(1) << 31);
		assert_unreadable(out, UINT64_C(1) << 30 | UINT64_C(1) << 33, -EIO);
	}
}

/* The page was absent when it was read, and present when the page table was checked. */
static void a_page_that_comes_meanwhile(void **state)
{
	(void)state;
	be_anon();
	k.fails[5] = -EIO;
	k.heals[5] = 2;
	assert_all_there(read_all());
}

static void without_the_page_table(void **state)
{
	struct hgm_memory_outcome out;

	(void)state;
	h.space.pagemap_fd = -1;
	be_anon();
	punch(7);
	out = read_all();
	assert_int_equal(out.hole, 0);
	assert_unreadable(out, UINT64_C(1) << 7, -EIO);
	h.space.pagemap_fd = PAGEMAP_FD;
	k.pagemap_fails = -EIO;
	assert_unreadable(read_all(), UINT64_C(1) << 7, -EIO);
}

/* Files are opened once for an engine. A failed open is retried, an open file is kept. */
static void opened_when_it_can_be(void **state)
{
	(void)state;
	k.open_mem = -EACCES;
	assert_int_equal(hgm_memory_open(&r), -EACCES);
	assert_int_equal(hgm_memory_open(&r), -EACCES);
	k.open_mem = 0;
	assert_int_equal(hgm_memory_open(&r), 0);
	assert_int_equal(k.opens, 3);
	k.open_mem = -EACCES;
	assert_int_equal(hgm_memory_open(&r), 0);
	assert_int_equal(k.opens, 3);
	r.fd = -1;
	assert_all_there(read_all());
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

static const struct CMUnitTest tests[] = {
	CASE(a_run_is_one_read),	   CASE(short_and_interrupted_reads),
	CASE(a_file_that_became_shorter),  CASE(pages_of_a_file_that_cannot_be_read),
	CASE(holes_of_anonymous_memory),   CASE(anonymous_pages_that_cannot_be_read),
	CASE(a_page_that_comes_meanwhile), CASE(without_the_page_table),
	CASE(opened_when_it_can_be),
};

TEST_MAIN(tests)
