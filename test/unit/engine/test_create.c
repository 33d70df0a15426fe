/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm_create() when the kernel refuses what an engine needs: the call returns the kernel's errno,
 * the text names it, and nothing is left behind.
 */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <hgm/hgm.h>

#include "kernel/sys.h"
#include "leaks.h"
#include "test.h"

static struct {
	int device, syscall, api; /* negative errno; 0: works */
	int eventfd;
	int eventfds; /* number that succeed before */
	long page_bytes;
} k;

static struct hgm_sys sys;

/* The library's calls resolve to the program's own function before that of the C library. */
long sysconf(int name)
{
	long (*genuine)(int) = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");

	return name == _SC_PAGESIZE && k.page_bytes ? k.page_bytes : genuine(name);
}

static int fake_open(const char *path, int flags)
{
	if (!strcmp(path, "/dev/userfaultfd"))
		return k.device ? k.device : hgm_sys_linux.eventfd();
	return hgm_sys_linux.open(path, flags);
}

static int fake_uffd_new(int dev, int flags)
{
	(void)dev;
	(void)flags;
	return hgm_sys_linux.eventfd();
}

static int fake_userfaultfd(int flags)
{
	(void)flags;
	return k.syscall ? k.syscall : hgm_sys_linux.eventfd();
}

static int fake_eventfd(void)
{
	return k.eventfd && !k.eventfds-- ? k.eventfd : hgm_sys_linux.eventfd();
}

static int fake_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	(void)fd;
	*features = 0;
	*ioctls = 0;
	return k.api;
}

static int begin(void **state)
{
	(void)state;
	memset(&k, 0, sizeof(k));
	sys = hgm_sys_linux;
	sys.open = fake_open;
	sys.uffd_new = fake_uffd_new;
	sys.userfaultfd = fake_userfaultfd;
	sys.eventfd = fake_eventfd;
	sys.uffd_api = fake_api;
	hgm_sys = &sys;
	return 0;
}

/* Try to create an engine. */
static int create(void)
{
	struct hgm_opts opts = { .size = sizeof(opts), .fault_threads = 2 };
	struct hgm *h = NULL;
	int rc = hgm_create(&h, &opts);

	assert_int_equal(!rc, !!h);
	hgm_destroy(h);
	return rc;
}

static void check_refused(int want)
{
	struct holdings before = take_holdings();

	assert_int_equal(create(), want);
	if (!strstr(hgm_errmsg(), strerrorname_np(-want)))
		fail_msg("\"%s\" does not say %s", hgm_errmsg(), strerrorname_np(-want));
	assert_int_equal(take_holdings().descriptors, before.descriptors);
}

static void no_userfaultfd(void **state)
{
	static const struct {
		int device, syscall, want;
	} cases[] = {
		{ -ENOENT, -ENOSYS, -ENOSYS }, { -ENOENT, -EPERM, -EPERM },
		{ -EACCES, -ENOSYS, -EACCES }, { -EACCES, -EPERM, -EPERM },
		{ -ENFILE, -EPERM, -ENFILE },  { -EPERM, -EMFILE, -EMFILE },
		{ -ENOENT, -ENOMEM, -ENOMEM },
	};

	(void)state;
	assert_int_equal(create(), 0); /* now liburcu has its thread */
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		k.device = cases[i].device;
		k.syscall = cases[i].syscall;
		check_refused(cases[i].want);
	}
}

static void no_handshake(void **state)
{
	(void)state;
	assert_int_equal(create(), 0);
	k.api = -EINVAL;
	check_refused(-EINVAL);
}

static void no_eventfd(void **state)
{
	static const int errors[] = { -EMFILE, -ENFILE, -ENOMEM };

	(void)state;
	assert_int_equal(create(), 0);
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		for (int first = 0; first < 2; first++) {
			k.eventfd = errors[i];
			k.eventfds = first;
			check_refused(errors[i]);
		}
}

static void other_pages(void **state)
{
	(void)state;
	k.page_bytes = 65536;
	assert_int_equal(create(), -EOPNOTSUPP);
	assert_non_null(strstr(hgm_errmsg(), "65536"));
	k.page_bytes = 0;
	assert_int_equal(create(), 0);
}

#define TEST(t) cmocka_unit_test_setup(t, begin)

static const struct CMUnitTest tests[] = {
	TEST(no_userfaultfd),
	TEST(no_handshake),
	TEST(no_eventfd),
	TEST(other_pages),
};

TEST_MAIN(tests)
