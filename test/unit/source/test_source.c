/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sources: memory, the caller's function, and descriptors that are not files to read from.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <hgm/error.h>

#include "temp_source.h"

static void check_refused(int rc, int expected, const char *why)
{
	assert_int_equal(rc, expected);
	assert_null(src);
	assert_int_equal(take_holdings().descriptors, before.descriptors);
	if (!strstr(hgm_errmsg(), why))
		fail_msg("\"%s\" does not say \"%s\"", hgm_errmsg(), why);
}

static void what_is_no_source(void **state)
{
	char missing[128];
	int fd = make_file(PAGE);
	int pipes[2];

	(void)state;
	close(fd);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	before = take_holdings();
	check_refused(hgm_source_fd(&src, fd), -EBADF, "reading");
	close(fd);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check_refused(hgm_source_fd(&src, fd), -EINVAL, "regular file");
	close(fd);
	fd = open(path, O_PATH | O_CLOEXEC);
	check_refused(hgm_source_fd(&src, fd), -EBADF, "EBADF");
	close(fd);
	before = take_holdings();
	check_refused(hgm_source_fd(&src, -1), -EBADF, "EBADF");
	check_refused(hgm_source_fd(&src, fd), -EBADF, "EBADF"); /* closed */
	check_refused(hgm_source_file(&src, dir), -EINVAL, dir);
	snprintf(missing, sizeof(missing), "%s/missing", dir);
	check_refused(hgm_source_file(&src, missing), -ENOENT, missing);
	assert_int_equal(truncate(path, 0), 0);
	check_refused(hgm_source_file(&src, path), -EINVAL, "empty");
	check_refused(hgm_source_file(&src, "/dev/null"), -EINVAL, "regular file");
	check_refused(hgm_source_file(&src, NULL), -EINVAL, "NULL");
	assert_int_equal(hgm_source_file(NULL, path), -EINVAL);
	assert_int_equal(hgm_source_fd(NULL, 0), -EINVAL);
	assert_int_equal(pipe(pipes), 0);
	before = take_holdings();
	check_refused(hgm_source_fd(&src, pipes[0]), -EINVAL, "regular file");
	close(pipes[0]);
	close(pipes[1]);
}

static _Atomic bool returned;
static bool had_to_be_helped;

/* If open(2) waits for a writer, provide one in the end, so that the test can report it. */
static void *help_out(void *arg)
{
	(void)arg;
	for (int ms = 0; ms < 1000 && !atomic_load(&returned); ms++)
		usleep(1000);
	while (!atomic_load(&returned)) {
		int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);

		had_to_be_helped = true;
		if (fd >= 0)
			close(fd);
		usleep(1000);
	}
	return NULL;
}

static void a_fifo_is_refused_at_once(void **state)
{
	pthread_t thread;
	int rc;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(pthread_create(&thread, NULL, help_out, NULL), 0);
	rc = hgm_source_file(&src, path);
	atomic_store(&returned, true);
	pthread_join(thread, NULL);
	check_refused(rc, -EINVAL, "regular file");
	assert_false(had_to_be_helped);
}

static void memory(void **state)
{
	static const unsigned char bytes[3 * 4096 + 5] = { [4096] = 1, [4097] = 2, [8191] = 3 };

	(void)state;
	assert_int_equal(hgm_source_memory(&src, bytes, sizeof(bytes)), 0);
	assert_int_equal(src->length, sizeof(bytes));
	assert_ptr_equal(src->memory, bytes);
	assert_false(src->blocking);
	assert_int_equal(ask(src->read, PAGE, PAGE), PAGE);
	assert_memory_equal(buf, bytes + PAGE, PAGE);
	assert_int_equal(buf[PAGE], UNREAD);
	destroy();
	check_refused(hgm_source_memory(&src, NULL, PAGE), -EINVAL, "NULL");
	assert_int_equal(hgm_source_memory(NULL, bytes, PAGE), -EINVAL);
	check_refused(hgm_source_memory(&src, bytes, 0), -EINVAL, "zero");
	check_refused(hgm_source_memory(&src, bytes, UINT64_MAX), -EINVAL, "overflows");
	check_refused(hgm_source_memory(&src, (void *)-PAGE, 2 * PAGE), -EINVAL, "overflows");
	check_refused(hgm_source_memory(&src, bytes, UINT64_C(1) << 63), -EINVAL, "overflows");
}

static int64_t answer_42(void *user, const struct hgm_io *io)
{
	(void)io;
	*(int *)user = 42;
	return 42;
}

static void no_cancel(void *user, struct hgm *engine, uint64_t id)
{
	(void)user;
	(void)engine;
	(void)id;
}

static void count_frees(void *user)
{
	(*(int *)user)++;
}

static void the_callers_function(void **state)
{
	struct hgm_source_fn_opts opts = {
		.size = sizeof(opts),
		.length = 123,
		.flags = HGM_SOURCE_BLOCKING,
		.cancel = no_cancel,
	};
	int called = 0;

	(void)state;
	assert_int_equal(hgm_source_fn(&src, answer_42, &called, NULL), 0);
	assert_int_equal(src->length, 0);
	assert_false(src->blocking);
	assert_null(src->cancel);
	assert_int_equal(ask(src->read, 0, PAGE), 42);
	assert_int_equal(called, 42);
	destroy();
	assert_int_equal(hgm_source_fn(&src, answer_42, NULL, &opts), 0);
	assert_int_equal(src->length, 123);
	assert_true(src->blocking);
	assert_true(src->cancel == no_cancel);
	assert_null(src->read_nowait);
	/* The source is reference counted: the last reference frees it. */
	hgm_source_hold(src);
	hgm_source_destroy(src);
	assert_int_equal(src->length, 123);
	destroy();
	hgm_source_destroy(NULL);

	/* With the last reference, once. */
	opts.free = count_frees;
	called = 0;
	assert_int_equal(hgm_source_fn(&src, answer_42, &called, &opts), 0);
	hgm_source_hold(src);
	hgm_source_destroy(src);
	assert_int_equal(called, 0);
	destroy();
	assert_int_equal(called, 1);
	check_refused(hgm_source_fn(&src, NULL, &called, &opts), -EINVAL, "NULL");
	assert_int_equal(called, 1);

	check_refused(hgm_source_fn(&src, NULL, NULL, NULL), -EINVAL, "NULL");
	assert_int_equal(hgm_source_fn(NULL, answer_42, NULL, NULL), -EINVAL);
	opts.flags = 0x10;
	check_refused(hgm_source_fn(&src, answer_42, NULL, &opts), -EINVAL, "flags");
	opts.flags = 0;
	opts.reserved = 1;
	check_refused(hgm_source_fn(&src, answer_42, NULL, &opts), -EINVAL, "hgm_source_fn");
	opts.reserved = 0;
	opts.size = 4;
	check_refused(hgm_source_fn(&src, answer_42, NULL, &opts), -EINVAL, "size");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

static const struct CMUnitTest tests[] = {
	TEST(what_is_no_source),
	TEST(a_fifo_is_refused_at_once),
	TEST(memory),
	TEST(the_callers_function),
};

TEST_MAIN(tests)
