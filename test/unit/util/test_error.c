/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Error texts: one per thread, and never longer than the buffer.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include <hgm/error.h>

#include "test.h"
#include "util/error.h"

static void *text_of_a_new_thread(void *arg)
{
	char *first = arg;

	strcpy(first, hgm_errmsg());
	hgm_fail(-EIO, "the other thread's");
	return NULL;
}

/* Must run first: nothing has failed in this thread yet. */
static void empty_before_the_first_failure(void **state)
{
	(void)state;
	assert_string_equal(hgm_errmsg(), "");
}

static void fail_returns_the_code_and_keeps_the_text(void **state)
{
	(void)state;
	assert_int_equal(hgm_fail(-ENOSPC, "page %d of %s", 7, "guest.img"), -ENOSPC);
	assert_string_equal(hgm_errmsg(), "page 7 of guest.img");
	assert_int_equal(hgm_fail(-EIO, "next"), -EIO);
	assert_string_equal(hgm_errmsg(), "next");
}

static void a_caller_sets_the_text(void **state)
{
	char longer[2000];

	(void)state;
	assert_int_equal(hgm_set_errmsg(-ENOLINK, "no route"), -ENOLINK);
	assert_string_equal(hgm_errmsg(), "no route");
	assert_int_equal(hgm_set_errmsg(1, hgm_errmsg() + 3), 1);
	assert_string_equal(hgm_errmsg(), "route");
	memset(longer, 'x', sizeof(longer));
	longer[sizeof(longer) - 1] = 0;
	assert_int_equal(hgm_set_errmsg(0, longer), 0);
	assert_int_equal(strlen(hgm_errmsg()), 1023);
	assert_int_equal(hgm_set_errmsg(0, NULL), -EINVAL);
}

static void fail_leaves_errno_alone(void **state)
{
	(void)state;
	errno = ECHILD;
	hgm_fail(-EIO, "x");
	assert_int_equal(errno, ECHILD);
}

static void each_thread_has_its_own_text(void **state)
{
	char first[64] = "not run";
	pthread_t thread;

	(void)state;
	hgm_fail(-EIO, "mine");
	assert_int_equal(pthread_create(&thread, NULL, text_of_a_new_thread, first), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_string_equal(first, "");
	assert_string_equal(hgm_errmsg(), "mine");
}

static void an_overlong_text_is_cut_and_terminated(void **state)
{
	static char word[5000];
	size_t len;

	(void)state;
	memset(word, 'x', sizeof(word) - 1);
	hgm_fail(-EIO, "%s", word);
	len = strlen(hgm_errmsg());
	assert_uint_in_range(len, 500, sizeof(word) - 2);
	assert_memory_equal(hgm_errmsg(), word, len);
}

static void errno_names(void **state)
{
	(void)state;
	assert_string_equal(hgm_errno_name(-ENOMEM), "ENOMEM");
	assert_string_equal(hgm_errno_name(ENOMEM), "ENOMEM");
	assert_string_equal(hgm_errno_name(-99999), "unknown error");
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(empty_before_the_first_failure),
	cmocka_unit_test(fail_returns_the_code_and_keeps_the_text),
	cmocka_unit_test(a_caller_sets_the_text),
	cmocka_unit_test(fail_leaves_errno_alone),
	cmocka_unit_test(each_thread_has_its_own_text),
	cmocka_unit_test(an_overlong_text_is_cut_and_terminated),
	cmocka_unit_test(errno_names),
};

TEST_MAIN(tests)
