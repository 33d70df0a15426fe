/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reason why a userfaultfd is refused: found from what /proc says about the process.
 */
#include <errno.h>
#include <string.h>

#include "caps/caps.h"
#include "test.h"

#define WITH_CAP    "CapEff:\t000001ffffffffff\n"
#define WITHOUT_CAP "CapEff:\t0000000000000000\n"
#define ONLY_CAP    "CapEff:\t0000000000080000\n"
#define ALL_BUT_CAP "CapEff:\t000001fffff7ffff\n"
#define FILTER	    "Seccomp:\t2\nSeccomp_filters:\t1\n"
#define NO_FILTER   "Seccomp:\t0\nSeccomp_filters:\t0\n"
#define INITIAL	    "         0          0 4294967295\n"
#define USER_NS	    "         0       1000          1\n"

/* NULL: the file cannot be opened */
static const char *sysctl_text, *status_text, *uid_map_text;

enum {
	FD_SYSCTL = 10,
	FD_STATUS,
	FD_UID_MAP
};

static unsigned int opened;

static int fake_open(const char *path, int flags)
{
	const char *text = NULL;
	int fd = 0;

	(void)flags;
	if (!strcmp(path, "/proc/sys/vm/unprivileged_userfaultfd")) {
		fd = FD_SYSCTL;
		text = sysctl_text;
	} else if (!strcmp(path, "/proc/self/status")) {
		fd = FD_STATUS;
		text = status_text;
	} else if (!strcmp(path, "/proc/self/uid_map")) {
		fd = FD_UID_MAP;
		text = uid_map_text;
	}
	if (!text)
		return -ENOENT;
	opened++;
	return fd;
}

static int fake_close(int fd)
{
	(void)fd;
	opened--;
	return 0;
}

static ssize_t fake_read(int fd, void *buf, size_t len)
{
	const char *text = fd == FD_SYSCTL   ? sysctl_text
			   : fd == FD_STATUS ? status_text
					     : uid_map_text;

	assert_true(strlen(text) < len);
	memcpy(buf, text, strlen(text));
	return (ssize_t)strlen(text);
}

static const struct hgm_sys fake_sys = {
	.open = fake_open,
	.close = fake_close,
	.read = fake_read,
};

static void assert_cause(int rc, bool user_mode, const char *words)
{
	char text[320];

	hgm_sys = &fake_sys;
	hgm_probe_denied_by(text, sizeof(text), rc, user_mode);
	hgm_sys = &hgm_sys_linux;
	assert_int_equal(opened, 0);
	/* The text ends with one of its own words: it was not truncated. */
	assert_true(strlen(text) < sizeof(text) - 1);
	if (!strstr(text, words))
		fail_msg("'%s' instead of '%s'", text, words);
}

#define STATUS(cap, seccomp) "Name:\tx\n" cap seccomp "Cpus_allowed:\t3\n"

static void the_sysctl_and_the_capability(void **state)
{
	(void)state;
	sysctl_text = "0\n";
	uid_map_text = INITIAL;
	status_text = STATUS(WITHOUT_CAP, NO_FILTER);
	assert_cause(-EPERM, false, "is 0 and this process has no CAP_SYS_PTRACE");
	assert_cause(-EPERM, false, "access to /dev/userfaultfd");
	status_text = STATUS(ALL_BUT_CAP, FILTER);
	assert_cause(-EPERM, false, "is 0 and this process has no CAP_SYS_PTRACE");
	assert_cause(-EPERM, false, "its seccomp filter must also allow");
	uid_map_text = USER_NS;
	assert_cause(-EPERM, false, "outside of this user namespace");
	status_text = STATUS(ONLY_CAP, NO_FILTER);
	assert_cause(-EPERM, false, "CAP_SYS_PTRACE of a user namespace does not count");
}

static void a_seccomp_filter(void **state)
{
	(void)state;
	sysctl_text = "0\n";
	uid_map_text = INITIAL;
	status_text = STATUS(WITH_CAP, FILTER);
	assert_cause(-EPERM, false, "has CAP_SYS_PTRACE: the seccomp filter of this process");
	assert_cause(-EPERM, true, "the seccomp filter of this process refuses it");
	assert_cause(-ENOSYS, false, "the seccomp filter of this process hides it");
	sysctl_text = "1\n";
	status_text = STATUS(WITHOUT_CAP, FILTER);
	assert_cause(-EPERM, false, "unprivileged_userfaultfd is 1: the seccomp filter");
}

static void a_security_module(void **state)
{
	(void)state;
	sysctl_text = "1\n";
	uid_map_text = INITIAL;
	status_text = STATUS(WITH_CAP, NO_FILTER);
	assert_cause(-EPERM, false, "a security module refuses it");
	assert_cause(-EPERM, true, "a security module refuses it");
	assert_cause(-ENOSYS, false, "built without CONFIG_USERFAULTFD (there is no seccomp");
}

static void without_proc(void **state)
{
	(void)state;
	sysctl_text = status_text = uid_map_text = NULL;
	assert_cause(-EPERM, false, "needs CAP_SYS_PTRACE or sysctl");
	assert_cause(-EPERM, true, "a seccomp filter or a security module");
	assert_cause(-ENOSYS, true, "or a seccomp filter hides it");
	/* Malformed contents are ignored. */
	sysctl_text = "";
	status_text = "Seccomp:\t2\nCapEff:\t0";
	uid_map_text = "x";
	assert_cause(-EPERM, false, "needs CAP_SYS_PTRACE or sysctl");
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(the_sysctl_and_the_capability),
	cmocka_unit_test(a_seccomp_filter),
	cmocka_unit_test(a_security_module),
	cmocka_unit_test(without_proc),
};

TEST_MAIN(tests)
