/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Probes: the ways to open a userfaultfd, the features that it offers, and memory that KVM
 * allocates for a guest and that the VMM can map (guest_memfd).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdio.h>

#include "caps.h"
#include "uffd/uffd.h"
#include "util/error.h"

/* Of <linux/kvm.h> since 6.18; shared memory is what a VMM can touch. */
#define GUEST_MEMFD_MMAP	(UINT64_C(1) << 0)
#define GUEST_MEMFD_INIT_SHARED (UINT64_C(1) << 1)

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

static int open_kvm(struct hgm_probe *p)
{
	int kvm = hgm_sys->open("/dev/kvm", O_RDWR);

	if (kvm >= 0)
		return kvm;
	if (kvm == -ENOENT || kvm == -ENODEV || kvm == -ENXIO)
		hgm_probe_answer(p, HGM_UNPROVEN,
				 "open /dev/kvm: %s; the kernel has no KVM for this CPU, or its "
				 "module is not loaded; containers must be given the device",
				 hgm_errno_name(kvm));
	else if (kvm == -EACCES)
		hgm_probe_answer(p, HGM_DENIED,
				 "open /dev/kvm: EACCES; its owner can give this user access with "
				 "a group (often kvm) or setfacl");
	else if (kvm == -EPERM)
		hgm_probe_answer(p, HGM_DENIED,
				 "open /dev/kvm: EPERM; the device control group, a seccomp filter "
				 "or a security module refuses it");
	else
		hgm_probe_answer_errno(p, kvm, "open /dev/kvm");
	return kvm;
}

/* The virtual machine that this takes has no CPU and no memory, and ends with the guest_memfd. */
int hgm_probe_guest_memfd(struct hgm_probe *p, uint64_t len)
{
	int kvm = open_kvm(p);
	int vm, fd;

	if (kvm < 0)
		return kvm;
	vm = hgm_sys->kvm_create_vm(kvm);
	hgm_sys->close(kvm);
	if (vm < 0) {
		hgm_probe_answer_errno(p, vm, "KVM_CREATE_VM on /dev/kvm");
		return vm;
	}
	fd = hgm_sys->kvm_guest_memfd(vm, len, GUEST_MEMFD_MMAP | GUEST_MEMFD_INIT_SHARED);
	hgm_sys->close(vm);
	if (fd == -ENOTTY || fd == -EINVAL)
		hgm_probe_answer(p, HGM_NO,
				 "KVM_CREATE_GUEST_MEMFD with GUEST_MEMFD_FLAG_MMAP: %s; this "
				 "kernel has no guest_memfd that can be mapped",
				 hgm_errno_name(fd));
	else if (fd < 0)
		hgm_probe_answer_errno(p, fd, "KVM_CREATE_GUEST_MEMFD");
	return fd;
}

void hgm_probe_guest_mmap(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch s;

	if (hgm_scratch_open(p, &s, row->memory) && hgm_scratch_populate(p, &s, s.alias, p->page)) {
		if (*(volatile char *)s.primary == *s.alias)
			hgm_probe_answer(p, HGM_YES,
					 "a guest_memfd was mapped twice, and what was written "
					 "by one mapping was read by the other");
		else
			hgm_probe_answer(p, HGM_NO,
					 "two mappings of a guest_memfd have different contents");
	}
	hgm_scratch_close(&s);
}
