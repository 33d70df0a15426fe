/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file source on real files, on the file system of this machine.
 */
#include <errno.h>
#include <stdbool.h>

#include "temp_source.h"

static unsigned char contents_of(uint64_t offset)
{
	return (unsigned char)(1 + (offset / PAGE * 7 + offset % 251) % 200);
}

static void write_data(int fd, uint64_t offset, uint64_t length)
{
	for (uint64_t at = offset; at < offset + length;) {
		unsigned char page[4096];
		uint64_t n =
			offset + length - at < sizeof(page) ? offset + length - at : sizeof(page);

		for (uint64_t i = 0; i < n; i++)
			page[i] = contents_of(at + i);
		assert_int_equal(pwrite(fd, page, n, (off_t)at), n);
		at += n;
	}
}

/* The buffer has @got bytes from @offset on, and nothing was written after them. */
static void check_buf(uint64_t offset, uint64_t got)
{
	for (uint64_t i = 0; i < got; i++)
		if (buf[i] != contents_of(offset + i))
			fail_msg("byte %llu is %u", (unsigned long long)(offset + i), buf[i]);
	for (uint64_t i = got; i < got + PAGE && i < sizeof(buf); i++)
		assert_int_equal(buf[i], UNREAD);
}

/* Reads of a page up to a block: the same result, up to the next border. */
static void data_and_holes(void **state)
{
	static const uint64_t lengths[] = { PAGE, 16 * PAGE, 64 * PAGE, BLOCK };
	/* 64 KiB pieces: a common file system block at most */
	const uint64_t piece = 64 * 1024, size = 16 * piece;
	int fd = make_file(size);
	off_t hole;

	(void)state;
	write_data(fd, 2 * piece, 3 * piece);
	write_data(fd, 8 * piece, 1 * piece);
	hole = lseek(fd, 0, SEEK_DATA);
	close(fd);
	if (hole != (off_t)(2 * piece))
		test_skip("the file system of %s keeps no holes of 64 KiB", dir);
	assert_int_equal(hgm_source_file(&src, path), 0);
	assert_int_equal(src->length, size);
	assert_true(src->blocking);
	assert_non_null(src->read_nowait);
	for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++) {
		for (uint64_t at = 0; at < size; at += PAGE) {
			uint64_t p = at / piece;
			bool data = (p >= 2 && p < 5) || p == 8;
			uint64_t border = p < 2 ? 2 : p < 5 ? 5 : p < 8 ? 8 : p < 9 ? 9 : 16;
			uint64_t run = border * piece - at;

			run = run < lengths[l] ? run : lengths[l];
			assert_int_equal(ask(src->read, at, lengths[l]),
					 (int64_t)run | (data ? 0 : HGM_IO_ZERO));
			check_buf(at, data ? run : 0);
		}
	}
	destroy();
}

static void nothing_but_a_hole_nothing_but_data(void **state)
{
	int fd = make_file(BLOCK);

	(void)state;
	close(fd);
	assert_int_equal(hgm_source_file(&src, path), 0);
	assert_int_equal(ask(src->read, 0, BLOCK), (int64_t)BLOCK | HGM_IO_ZERO);
	assert_int_equal(ask(src->read, BLOCK - PAGE, PAGE), (int64_t)PAGE | HGM_IO_ZERO);
	destroy();
	fd = make_file(BLOCK);
	write_data(fd, 0, BLOCK);
	close(fd);
	assert_int_equal(hgm_source_file(&src, path), 0);
	assert_int_equal(ask(src->read, 0, BLOCK), BLOCK);
	check_buf(0, BLOCK);
	destroy();
}

/*
 * The page cache has what was just written. nowait returns it, or says that it would have to wait.
 */
static void without_waiting(void **state)
{
	int fd = make_file(BLOCK);
	int64_t got;

	(void)state;
	write_data(fd, 0, BLOCK);
	close(fd);
	assert_int_equal(hgm_source_file(&src, path), 0);
	got = ask(src->read_nowait, 5 * PAGE, 3 * PAGE);
	if (got != -EAGAIN) {
		assert_int_equal(got, 3 * PAGE);
		check_buf(5 * PAGE, 3 * PAGE);
	}
	destroy();
}

/* Never a byte that the file does not have: whole pages, then an error. */
static void the_end_within_a_page(void **state)
{
	int fd = make_file(5 * PAGE + 100);

	(void)state;
	write_data(fd, 0, 5 * PAGE + 100);
	close(fd);
	assert_int_equal(hgm_source_file(&src, path), 0);
	assert_int_equal(src->length, 5 * PAGE + 100);
	assert_int_equal(ask(src->read, 0, 16 * PAGE), 5 * PAGE);
	assert_int_equal(ask(src->read, 4 * PAGE, PAGE), PAGE);
	check_buf(4 * PAGE, PAGE);
	assert_int_equal(ask(src->read, 5 * PAGE, PAGE), -EIO);
	assert_int_equal(ask(src->read, 6 * PAGE, PAGE), -EIO);
	assert_int_equal(ask(src->read, UINT64_C(1) << 60, PAGE), -EIO);
	destroy();
}

static void shorter_after_opening(void **state)
{
	int fd = make_file(16 * PAGE);

	(void)state;
	write_data(fd, 0, 16 * PAGE);
	assert_int_equal(hgm_source_file(&src, path), 0);
	assert_int_equal(ftruncate(fd, 6 * PAGE + 1000), 0);
	assert_int_equal(ask(src->read, 2 * PAGE, 14 * PAGE), 4 * PAGE);
	assert_int_equal(ask(src->read, 6 * PAGE, 2 * PAGE), -EIO);
	assert_int_equal(ask(src->read, 10 * PAGE, PAGE), -EIO);
	close(fd);
	destroy();
}

static void a_descriptor_keeps_its_position(void **state)
{
	int fd = make_file(1024 * 1024);
	int dup_fd;

	(void)state;
	write_data(fd, 256 * 1024, 64 * 1024);
	assert_int_equal(lseek(fd, 12345, SEEK_SET), 12345);
	before = take_holdings();
	assert_int_equal(hgm_source_fd(&src, fd), 0);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 12345);
	assert_int_equal(ask(src->read, 256 * 1024, PAGE), PAGE);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 12345);
	/* The source has its own descriptor: the caller may close the other. */
	dup_fd = dup(fd);
	close(fd);
	assert_int_equal(ask(src->read, 256 * 1024 + PAGE, PAGE), PAGE);
	check_buf(256 * 1024 + PAGE, PAGE);
	destroy();
	/* The same if there will be no source. */
	assert_int_equal(ftruncate(dup_fd, 0), 0);
	assert_int_equal(lseek(dup_fd, 77, SEEK_SET), 77);
	assert_int_equal(hgm_source_fd(&src, dup_fd), -EINVAL);
	assert_int_equal(lseek(dup_fd, 0, SEEK_CUR), 77);
	close(dup_fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

static const struct CMUnitTest tests[] = {
	TEST(data_and_holes),	     TEST(nothing_but_a_hole_nothing_but_data),
	TEST(without_waiting),	     TEST(the_end_within_a_page),
	TEST(shorter_after_opening), TEST(a_descriptor_keeps_its_position),
};

TEST_MAIN(tests)
