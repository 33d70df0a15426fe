/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file source on file systems that this machine may not have: without SEEK_HOLE, without
 * RWF_NOWAIT, with reads that are short, interrupted or fail, with extents at any place.
 */
#include <hgm/error.h>

#include "fake_file.h"
#include "random.h"

/* Everything is data then. Reading holes returns zeroes too. */
static void a_file_system_without_holes(void **state)
{
	static const int cases[][2] = {
		{ -EINVAL, -EINVAL },
		{ -EOPNOTSUPP, 0 },
		{ 0, -EINVAL },
		{ -EIO, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		begin(NULL);
		f.data[3] = f.data[4] = f.data[200] = false;
		f.seek_data = cases[i][0];
		f.seek_hole = cases[i][1];
		open_it();
		assert_int_equal(ask(src->read, 0, BLOCK), BLOCK);
		check_buf(0, BLOCK);
		end(NULL);
		src = NULL;
	}
}

static void a_file_system_without_nowait(void **state)
{
	(void)state;
	f.nowait = -EOPNOTSUPP;
	f.data[7] = false;
	open_it();
	assert_int_equal(ask(src->read_nowait, 0, PAGE), -EAGAIN);
	assert_int_equal(f.nowaits, 1);
	assert_int_equal(f.reads, 0); /* no read that could sleep */
	/* Holes need no read. */
	assert_int_equal(ask(src->read_nowait, 7 * PAGE, PAGE), (int64_t)PAGE | HGM_IO_ZERO);
	assert_int_equal(f.nowaits, 1);
	assert_int_equal(ask(src->read, 0, PAGE), PAGE);
	check_buf(0, PAGE);
	f.nowait = -EAGAIN;
	assert_int_equal(ask(src->read_nowait, 0, PAGE), -EAGAIN);
	f.nowait = -EIO;
	assert_int_equal(ask(src->read_nowait, 0, PAGE), -EIO);
	f.nowait = 0;
	assert_int_equal(ask(src->read_nowait, 0, PAGE), PAGE);
	check_buf(0, PAGE);
	/* EOPNOTSUPP from a read that may sleep is an error like any other. */
	f.fail = -EOPNOTSUPP;
	assert_int_equal(ask(src->read, 0, PAGE), -EOPNOTSUPP);
}

static void short_and_interrupted_reads(void **state)
{
	static const uint64_t most[] = { 1, 100, 4095, 4096, 4097, 70000 };

	(void)state;
	open_it();
	for (size_t i = 0; i < sizeof(most) / sizeof(most[0]); i++) {
		f.most = most[i];
		f.interrupts = 3;
		assert_int_equal(ask(src->read, 5 * PAGE, 20 * PAGE), 20 * PAGE);
		check_buf(5 * PAGE, 20 * PAGE);
		f.interrupts = 2;
		assert_int_equal(ask(src->read_nowait, 5 * PAGE, 2 * PAGE), 2 * PAGE);
		check_buf(5 * PAGE, 2 * PAGE);
	}
}

/* Whole pages that were read are reported. An error is reported only if there are none. */
static void a_read_that_fails_on_the_way(void **state)
{
	static const struct {
		uint64_t after;
		int64_t got;
	} cases[] = {
		{ 0, -EIO },
		{ 1, -EIO },
		{ PAGE - 1, -EIO },
		{ PAGE, PAGE },
		{ PAGE + 1, PAGE },
		{ 3 * PAGE - 1, 2 * PAGE },
		{ 7 * PAGE, 7 * PAGE },
		{ 8 * PAGE - 1, 7 * PAGE },
		{ 8 * PAGE, 8 * PAGE },
	};

	(void)state;
	open_it();
	f.fail = -EIO;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		f.fail_after = cases[i].after;
		assert_int_equal(ask(src->read, 4 * PAGE, 8 * PAGE), cases[i].got);
		check_buf(4 * PAGE, cases[i].got > 0 ? (uint64_t)cases[i].got : 0);
	}
	/* Not everything is in the page cache. */
	f.fail = -EAGAIN;
	f.fail_after = 2 * PAGE + 5;
	assert_int_equal(ask(src->read_nowait, 0, 8 * PAGE), 2 * PAGE);
	f.fail_after = 5;
	assert_int_equal(ask(src->read_nowait, 0, 8 * PAGE), -EAGAIN);
}

/*
 * Wherever borders are, a page with any data is data, all others are holes, and bytes are right.
 */
static void extents_anywhere(void **state)
{
	static const uint64_t grains[] = { 512, 1024, 4096, 65536 };
	struct random random = { random_seed() };

	(void)state;
	for (int round = 0; round < 400; round++) {
		begin(NULL);
		f.grain = grains[random_below(&random, 4)];
		f.size = f.stat_size = 1 + random_below(&random, 500 * f.grain);
		if (f.size > BLOCK)
			f.size = f.stat_size = BLOCK - random_below(&random, 5000);
		for (int i = 0; i < 512; i++)
			f.data[i] = i && !random_one_in(&random, 4) ? f.data[i - 1]
								    : random_one_in(&random, 2);
		open_it();
		for (uint64_t at = 0; at + PAGE <= f.size;) {
			uint64_t length = (1 + random_below(&random, 64)) * PAGE;
			int64_t got = ask(src->read, at, length);
			uint64_t bytes = (uint64_t)(got & ~HGM_IO_ZERO);

			assert_true(got > 0);
			assert_int_equal(bytes % PAGE, 0);
			assert_uint_in_range(bytes, PAGE, length);
			if (got & HGM_IO_ZERO)
				memset(buf, 0, bytes);
			else /* a page that has only holes is not read */
				for (uint64_t p = at; p < at + bytes; p += PAGE)
					assert_true(fake_lseek(FD, (int64_t)p, SEEK_DATA) <
						    (int64_t)(p + PAGE));
			check_buf(at, at + bytes <= f.size ? bytes : f.size - at);
			at += bytes;
		}
		end(NULL);
		src = NULL;
	}
}

static void a_block_device_has_its_size_from_its_end(void **state)
{
	(void)state;
	f.mode = S_IFBLK | 0600;
	f.stat_size = 0;
	f.seek_data = f.seek_hole = -EINVAL;
	open_it();
	assert_int_equal(src->length, BLOCK);
	assert_int_equal(ask(src->read, BLOCK - PAGE, PAGE), PAGE);
	check_buf(BLOCK - PAGE, PAGE);
}

static void what_cannot_be_a_source(void **state)
{
	(void)state;
	f.kind_error = -EIO;
	assert_int_equal(hgm_source_file(&src, "guest.img"), -EIO);
	assert_non_null(strstr(hgm_errmsg(), "guest.img"));
	f.kind_error = 0;
	f.mode = S_IFCHR | 0600;
	assert_int_equal(hgm_source_file(&src, "guest.img"), -EINVAL);
	f.mode = S_IFSOCK | 0600;
	assert_int_equal(hgm_source_file(&src, "guest.img"), -EINVAL);
	f.mode = S_IFBLK | 0600;
	f.size = 0;
	assert_int_equal(hgm_source_file(&src, "guest.img"), -EINVAL);
	assert_non_null(strstr(hgm_errmsg(), "empty"));
	assert_int_equal(f.opened, 4);
	assert_int_equal(f.closed, 4);
	f.mode = S_IFREG | 0600;
	f.access = O_WRONLY;
	assert_int_equal(hgm_source_fd(&src, 9), -EBADF);
	assert_int_equal(f.opened, 4);
}

static void a_file_that_cannot_be_opened(void **state)
{
	static const int errors[] = { -EACCES, -EMFILE, -ENFILE, -ENOENT };

	(void)state;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		f.open_error = errors[i];
		assert_int_equal(hgm_source_file(&src, "guest.img"), errors[i]);
		assert_non_null(strstr(hgm_errmsg(), "guest.img"));
		assert_non_null(strstr(hgm_errmsg(), strerrorname_np(-errors[i])));
	}
	/* A descriptor that cannot be reopened, for example without /proc, is duplicated. */
	assert_int_equal(hgm_source_fd(&src, FD), 0);
	hgm_source_destroy(src);
	src = NULL;
	f.dup_error = -EMFILE;
	assert_int_equal(hgm_source_fd(&src, FD), -EMFILE);
	assert_non_null(strstr(hgm_errmsg(), "EMFILE"));
	assert_int_equal(f.opened, 1);
	assert_int_equal(f.closed, 1);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, begin, end)

static const struct CMUnitTest tests[] = {
	TEST(a_file_system_without_holes),
	TEST(a_file_system_without_nowait),
	TEST(short_and_interrupted_reads),
	TEST(a_read_that_fails_on_the_way),
	TEST(extents_anywhere),
	TEST(a_block_device_has_its_size_from_its_end),
	TEST(what_cannot_be_a_source),
	TEST(a_file_that_cannot_be_opened),
};

TEST_MAIN(tests)
