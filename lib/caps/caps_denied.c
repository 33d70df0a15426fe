/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Why a userfaultfd is refused. The kernel returns EPERM in all cases. Other facts about this
 * process distinguish between sysctl, capability, seccomp filter and security module.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "caps.h"

#define CAP_SYS_PTRACE_BIT (UINT64_C(1) << 19)

/* What /proc shows; -1 if unknown. */
struct standing {
	int sysctl;	 /* vm.unprivileged_userfaultfd */
	int seccomp;	 /* 0 none, 1 strict, 2 a filter */
	int cap_ptrace;	 /* in the effective set */
	int initial_ids; /* the user namespace maps all users to themselves: the initial one */
};

static ssize_t read_file(const char *path, char *buf, size_t len)
{
	int fd = hgm_sys->open(path, O_RDONLY);
	ssize_t n;

	buf[0] = '\0';
	if (fd < 0)
		return fd;
	n = hgm_sys->read(fd, buf, len - 1);
	hgm_sys->close(fd);
	buf[n > 0 ? n : 0] = '\0';
	return n;
}

static const char *field(const char *status, const char *name)
{
	const char *at = strstr(status, name);

	return at ? at + strlen(name) : NULL;
}

static struct standing look(void)
{
	struct standing st = { -1, -1, -1, -1 };
	unsigned int inside, outside;
	unsigned long count;
	const char *at;
	char buf[4096];

	if (read_file("/proc/sys/vm/unprivileged_userfaultfd", buf, sizeof(buf)) > 0 &&
	    (buf[0] == '0' || buf[0] == '1'))
		st.sysctl = buf[0] - '0';
	if (read_file("/proc/self/status", buf, sizeof(buf)) > 0) {
		at = field(buf, "\nSeccomp:");
		if (at)
			st.seccomp = (int)strtol(at, NULL, 10);
		at = field(buf, "\nCapEff:");
		if (at)
			st.cap_ptrace = !!(strtoull(at, NULL, 16) & CAP_SYS_PTRACE_BIT);
	}
	if (read_file("/proc/self/uid_map", buf, sizeof(buf)) > 0 &&
	    sscanf(buf, "%u %u %lu", &inside, &outside, &count) == 3)
		st.initial_ids = !inside && !outside && count == UINT32_MAX;
	return st;
}

/*
 * User mode needs no privilege. If that is refused too, the cause is neither the sysctl nor the
 * capability.
 */
static const char *by_filter(const struct standing *st, int rc)
{
	if (st->seccomp > 0)
		return rc == -ENOSYS ? "the seccomp filter of this process hides it, or the kernel "
				       "is built without CONFIG_USERFAULTFD"
				     : "the seccomp filter of this process refuses it; use a "
				       "profile that allows userfaultfd";
	if (st->seccomp == 0)
		return rc == -ENOSYS ? "the kernel is built without CONFIG_USERFAULTFD (there is "
				       "no seccomp filter)"
				     : "a security module refuses it (there is no seccomp filter)";
	return rc == -ENOSYS ? "the kernel is built without CONFIG_USERFAULTFD, or a seccomp "
			       "filter hides it"
			     : "it needs no privilege, so a seccomp filter or a security module "
			       "refuses it";
}

void hgm_probe_denied_by(char *text, size_t len, int rc, bool user_mode)
{
	struct standing st = look();

	if (user_mode || rc == -ENOSYS)
		snprintf(text, len, "%s", by_filter(&st, rc));
	else if (st.sysctl == 1)
		snprintf(text, len, "vm.unprivileged_userfaultfd is 1: %s", by_filter(&st, rc));
	else if (st.cap_ptrace == 1 && st.initial_ids == 0)
		snprintf(text, len,
			 "vm.unprivileged_userfaultfd is 0, and CAP_SYS_PTRACE of a user namespace "
			 "does not count; hold the capability outside of the namespace, set the "
			 "sysctl to 1, or provide /dev/userfaultfd");
	else if (st.cap_ptrace == 1)
		snprintf(text, len, "this process has CAP_SYS_PTRACE: %s", by_filter(&st, rc));
	else if (st.sysctl == 0 && st.cap_ptrace == 0)
		snprintf(text, len,
			 "vm.unprivileged_userfaultfd is 0 and this process has no CAP_SYS_PTRACE; "
			 "set the sysctl to 1, or give the process that capability%s or access to "
			 "/dev/userfaultfd%s",
			 st.initial_ids == 0 ? " (outside of this user namespace)" : "",
			 st.seccomp > 0 ? "; its seccomp filter must also allow userfaultfd" : "");
	else
		snprintf(text, len,
			 "it needs CAP_SYS_PTRACE or sysctl vm.unprivileged_userfaultfd=1, and a "
			 "seccomp filter that allows it");
}
