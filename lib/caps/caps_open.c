/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Probes: the ways to open a userfaultfd, and the features that it offers.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdio.h>

#include "caps.h"
#include "uffd/uffd.h"
#include "util/error.h"

static int open_any_way(void)
{
	int dev;
	int fd;
	int rc;

	dev = hgm_sys->open("/dev/userfaultfd", O_RDWR);
	fd = dev;
	if (dev >= 0) {
		fd = hgm_sys->uffd_new(dev, O_CLOEXEC | O_NONBLOCK);
		hgm_sys->close(dev);
	}
	if (fd < 0)
		fd = hgm_sys->userfaultfd(O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		return fd;
	rc = hgm_sys->userfaultfd(O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	/* The errno of the full call tells more. */
	return rc >= 0 ? rc : fd;
}

int hgm_probe_open_uffd(uint64_t features)
{
	uint64_t ioctls;
	int fd;
	int rc;

	fd = open_any_way();
	if (fd < 0)
		return fd;
	rc = hgm_sys->uffd_api(fd, &features, &ioctls);
	if (rc) {
		hgm_sys->close(fd);
		return rc;
	}
	return fd;
}

void hgm_probe_uffd_device(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	int dev = hgm_sys->open("/dev/userfaultfd", O_RDWR);
	char cause[320];
	int fd;

	(void)row;
	if (dev == -EACCES) {
		hgm_probe_answer(
			p, HGM_DENIED,
			"open /dev/userfaultfd: EACCES; its owner can give this user access with "
			"chmod, chgrp or setfacl (if /dev is mounted nodev, no user can open it)");
		return;
	}
	if (dev == -EPERM) {
		hgm_probe_answer(
			p, HGM_DENIED,
			"open /dev/userfaultfd: EPERM; the device control group, a seccomp filter "
			"or a security module refuses it, regardless of chmod and setfacl");
		return;
	}
	if (dev == -ENOENT || dev == -ENODEV || dev == -ENXIO) {
		hgm_probe_answer(p, HGM_NO,
				 "open /dev/userfaultfd: %s; Linux 6.1 introduced it, and "
				 "containers must be given it",
				 hgm_errno_name(dev));
		return;
	}
	if (dev < 0) {
		hgm_probe_answer_errno(p, dev, "open /dev/userfaultfd");
		return;
	}
	fd = hgm_sys->uffd_new(dev, O_CLOEXEC | O_NONBLOCK);
	hgm_sys->close(dev);
	if (fd == -ENOTTY || fd == -EINVAL) {
		hgm_probe_answer(p, HGM_NO,
				 "USERFAULTFD_IOC_NEW on /dev/userfaultfd: %s; this file is not "
				 "the userfaultfd device",
				 hgm_errno_name(fd));
		return;
	}
	if (fd == -EPERM || fd == -EACCES) {
		/* The kernel itself requires no privilege once the device is open. */
		hgm_probe_denied_by(cause, sizeof(cause), fd, true);
		hgm_probe_answer(p, HGM_DENIED, "USERFAULTFD_IOC_NEW on /dev/userfaultfd: %s; %s",
				 hgm_errno_name(fd), cause);
		return;
	}
	if (fd < 0) {
		hgm_probe_answer_errno(p, fd, "USERFAULTFD_IOC_NEW on /dev/userfaultfd");
		return;
	}
	hgm_sys->close(fd);
	hgm_probe_answer(p, HGM_YES, "opened, and USERFAULTFD_IOC_NEW gave a userfaultfd");
}

static void try_syscall(struct hgm_probe *p, int flags, const char *what)
{
	int fd = hgm_sys->userfaultfd(O_CLOEXEC | O_NONBLOCK | flags);
	char cause[320];

	if (fd >= 0) {
		hgm_sys->close(fd);
		hgm_probe_answer(p, HGM_YES, "%s gave a userfaultfd", what);
	} else if (fd == -EPERM || fd == -EACCES || fd == -ENOSYS) {
		hgm_probe_denied_by(cause, sizeof(cause), fd, flags);
		hgm_probe_answer(p, fd == -ENOSYS ? HGM_NO : HGM_DENIED, "%s: %s; %s", what,
				 hgm_errno_name(fd), cause);
	} else {
		hgm_probe_answer_errno(p, fd, what);
	}
}

void hgm_probe_uffd_syscall(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	(void)row;
	try_syscall(p, 0, "userfaultfd(2)");
}

void hgm_probe_uffd_user_mode_only(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	(void)row;
	try_syscall(p, UFFD_USER_MODE_ONLY, "userfaultfd(2) with UFFD_USER_MODE_ONLY");
}

/* The names of the bits, each after a space; bits without a name as one number. */
static void name_features(uint64_t features, char *text, size_t len)
{
	uint64_t unnamed = 0;
	size_t used = 0;

	text[0] = '\0';
	for (unsigned int bit = 0; bit < 64; bit++) {
		const char *name = hgm_uffd_feature_name(bit);

		if (!(features >> bit & 1))
			continue;
		if (name && used < len)
			used += (size_t)snprintf(text + used, len - used, " %s", name);
		else
			unnamed |= UINT64_C(1) << bit;
	}
	if (unnamed && used < len)
		snprintf(text + used, len - used, " and %#" PRIx64 " without a name here", unnamed);
}

void hgm_probe_features(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	uint64_t features = 0;
	uint64_t ioctls = 0;
	char names[400];
	int fd;
	int rc;

	(void)row;
	if (p->no_uffd) {
		hgm_probe_answer_errno(p, p->no_uffd,
				       "no userfaultfd (see uffd.device and uffd.syscall)");
		return;
	}
	fd = open_any_way();
	if (fd < 0) {
		hgm_probe_answer_errno(p, fd, "a userfaultfd");
		return;
	}
	rc = hgm_sys->uffd_api(fd, &features, &ioctls);
	hgm_sys->close(fd);
	if (rc) {
		hgm_probe_answer_errno(p, rc, "UFFDIO_API");
		return;
	}
	p->value = features;
	name_features(features, names, sizeof(names));
	hgm_probe_answer(p, HGM_YES,
			 "UFFDIO_API offers features %#" PRIx64 ", ioctls %#" PRIx64 ":%s",
			 features, ioctls, names);
}
