/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ways to open a userfaultfd: their order, the errno and the text if none works, and that each
 * descriptor is closed.
 */
#include "fake_uffd.h"

/* Pitfall 33: after any failure of the device. */
static void the_system_call_comes_second(void **state)
{
	static const int errors[] = { -EACCES, -EPERM, -ENOENT, -ENODEV, -ENXIO, -EINTR };

	(void)state;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		begin(NULL);
		k.open = errors[i];
		assert_int_equal(try_open(0, 0, HGM_UFFD_ALLOW_USER_MODE_ONLY), 0);
		assert_int_equal(k.user_tried, 0);
		close_it(HGM_UFFD_VIA_SYSCALL);
	}
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		begin(NULL);
		k.uffd_new = errors[i]; /* the device node must be closed nevertheless */
		assert_int_equal(try_open(0, 0, 0), 0);
		close_it(HGM_UFFD_VIA_SYSCALL);
	}
}

static void user_mode_only_where_it_is_allowed(void **state)
{
	(void)state;
	k.open = -EACCES;
	k.userfaultfd = -EPERM;
	assert_int_equal(try_open(0, 0, HGM_UFFD_ALLOW_USER_MODE_ONLY), 0);
	close_it(HGM_UFFD_VIA_USER_MODE_ONLY);
}

static void user_mode_only_where_it_is_not(void **state)
{
	(void)state;
	k.open = -EACCES;
	k.userfaultfd = -EPERM;
	check_refused(try_open(0, 0, 0), -EPERM);
	assert_int_equal(k.user_tried, 0);
	says("/dev/userfaultfd gave EACCES");
	says("userfaultfd(2) gave EPERM");
	says("user mode only was not allowed");
	says("What helps");
	says("permission on /dev/userfaultfd");
	says("vm.unprivileged_userfaultfd");
	says("CAP_SYS_PTRACE");
	says("seccomp");
	says("HGM_ALLOW_USER_MODE_ONLY");
}

static void all_three_fail(void **state)
{
	(void)state;
	k.open = -ENOENT;
	k.userfaultfd = -EPERM;
	k.user_mode = -ENOSYS;
	check_refused(try_open(0, 0, HGM_UFFD_ALLOW_USER_MODE_ONLY), -EPERM);
	assert_int_equal(k.user_tried, 1);
	says("/dev/userfaultfd gave ENOENT");
	says("userfaultfd(2) gave EPERM");
	says("user mode only gave ENOSYS");
	says("CAP_SYS_PTRACE");
	says("seccomp");
}

/* A refusal is more informative than an absence, and an exhausted resource more than either. */
static void the_most_telling_errno(void **state)
{
	static const struct {
		int open, userfaultfd, rc;
	} cases[] = {
		{ -ENOENT, -EPERM, -EPERM },   { -ENOENT, -ENOSYS, -ENOSYS },
		{ -EACCES, -ENOSYS, -EACCES }, { -EACCES, -EPERM, -EPERM },
		{ -EPERM, -EACCES, -EPERM },   { -EMFILE, -EPERM, -EMFILE },
		{ -ENOENT, -ENFILE, -ENFILE }, { -EACCES, -ENOMEM, -ENOMEM },
		{ -ENODEV, -ENOSYS, -ENOSYS },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		begin(NULL);
		k.open = cases[i].open;
		k.userfaultfd = cases[i].userfaultfd;
		check_refused(try_open(0, 0, 0), cases[i].rc);
	}
}

/* A way that worked once may fail the next time. */
static void the_second_descriptor_fails(void **state)
{
	(void)state;
	k.most = 1;
	check_refused(try_open(0, 0, HGM_UFFD_ALLOW_USER_MODE_ONLY), -EMFILE);
	assert_int_equal(k.given, 1);
	assert_int_equal(k.shaken, 1);
	says("EMFILE");
}

static void bad_arguments(void **state)
{
	struct hgm_uffd_opts opts = { .size = sizeof(opts) };

	(void)state;
	assert_int_equal(hgm_uffd_open(NULL, &opts), -EINVAL);
	opts.flags = 0x80;
	check_refused(hgm_uffd_open(&u, &opts), -EINVAL);
	opts.flags = 0;
	opts.reserved = 1;
	check_refused(hgm_uffd_open(&u, &opts), -EINVAL);
	opts.reserved = 0;
	opts.size = 8;
	check_refused(hgm_uffd_open(&u, &opts), -EINVAL);
	assert_int_equal(k.given, 0);
	hgm_uffd_close(NULL);
}

#define TEST(f) cmocka_unit_test_setup(f, begin)

static const struct CMUnitTest tests[] = {
	TEST(the_system_call_comes_second),
	TEST(user_mode_only_where_it_is_allowed),
	TEST(user_mode_only_where_it_is_not),
	TEST(all_three_fail),
	TEST(the_most_telling_errno),
	TEST(the_second_descriptor_fails),
	TEST(bad_arguments),
};

TEST_MAIN(tests)
