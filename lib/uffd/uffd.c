/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * userfaultfd: opening, negotiation of features, registration, reading messages. The range
 * operations are in range.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/sys.h"
#include "uffd.h"
#include "util/cancel.h"
#include "util/error.h"
#include "util/fdinfo.h"
#include "util/opts.h"

static const char *const feature_names[] = {
	"PAGEFAULT_FLAG_WP",
	"EVENT_FORK",
	"EVENT_REMAP",
	"EVENT_REMOVE",
	"MISSING_HUGETLBFS",
	"MISSING_SHMEM",
	"EVENT_UNMAP",
	"SIGBUS",
	"THREAD_ID",
	"MINOR_HUGETLBFS",
	"MINOR_SHMEM",
	"EXACT_ADDRESS",
	"WP_HUGETLBFS_SHMEM",
	"WP_UNPOPULATED",
	"POISON",
	"WP_ASYNC",
	"MOVE",
	"RWP",
	"RWP_ASYNC",
};

const char *hgm_uffd_feature_name(unsigned int bit)
{
	if (bit >= sizeof(feature_names) / sizeof(feature_names[0]))
		return NULL;
	return feature_names[bit];
}

static int open_device(void)
{
	int dev = hgm_sys->open("/dev/userfaultfd", O_RDWR);
	int fd;

	if (dev < 0)
		return dev;
	fd = hgm_sys->uffd_new(dev, O_CLOEXEC | O_NONBLOCK);
	hgm_sys->close(dev);
	return fd;
}

/* Return the more informative of two errors: a refusal says more than an absence. */
static int more_telling(int a, int b)
{
	static const int order[] = { -EMFILE, -ENFILE, -ENOMEM, -EPERM, -EACCES };

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		if (a == order[i] || b == order[i])
			return order[i];
	return b == -ENOENT ? a : b;
}

/* Try the ways to open a userfaultfd, best first. After any failure, try the next. */
static int open_any(unsigned int flags, enum hgm_uffd_via *via)
{
	int dev, sys, user = 0;
	int rc;

	*via = HGM_UFFD_VIA_DEVICE;
	dev = open_device();
	if (dev >= 0)
		return dev;
	*via = HGM_UFFD_VIA_SYSCALL;
	sys = hgm_sys->userfaultfd(O_CLOEXEC | O_NONBLOCK);
	if (sys >= 0)
		return sys;
	if (flags & HGM_UFFD_ALLOW_USER_MODE_ONLY) {
		*via = HGM_UFFD_VIA_USER_MODE_ONLY;
		user = hgm_sys->userfaultfd(O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
		if (user >= 0)
			return user;
	}
	rc = more_telling(dev, sys);
	if (rc == -EMFILE || rc == -ENFILE)
		return hgm_fail(rc, "no userfaultfd: out of descriptors (%s); " HGM_FD_HINT,
				hgm_errno_name(rc));
	return hgm_fail(
		rc,
		"no userfaultfd: /dev/userfaultfd gave %s; userfaultfd(2) gave %s; user mode only "
		"%s%s. What helps: read and write permission on /dev/userfaultfd (kernel 6.1 or "
		"later), or CAP_SYS_PTRACE, or sysctl vm.unprivileged_userfaultfd=1; in a "
		"container, the device node and a seccomp profile that allows userfaultfd(2)%s",
		hgm_errno_name(dev), hgm_errno_name(sys), user ? "gave " : "was not allowed",
		user ? hgm_errno_name(user) : "",
		user ? "" : "; without KVM, HGM_ALLOW_USER_MODE_ONLY");
}

/* UFFDIO_API works only once per descriptor: query the features on a temporary one. */
static int discover(unsigned int flags, uint64_t *supported)
{
	enum hgm_uffd_via via;
	uint64_t ioctls;
	int fd = open_any(flags, &via);
	int rc;

	if (fd < 0)
		return fd;
	*supported = 0;
	rc = hgm_sys->uffd_api(fd, supported, &ioctls);
	hgm_sys->close(fd);
	if (rc)
		return hgm_fail(rc,
				"UFFDIO_API: the kernel's userfaultfd refuses the handshake: %s",
				hgm_errno_name(rc));
	return 0;
}

static int missing_features(uint64_t missing)
{
	char names[256] = "";
	size_t used = 0;

	for (unsigned int bit = 0; bit < 64; bit++) {
		const char *name = hgm_uffd_feature_name(bit);

		if (!(missing >> bit & 1))
			continue;
		if (name && used + strlen(name) + 2 < sizeof(names)) {
			names[used++] = ' ';
			strcpy(names + used, name);
			used += strlen(name);
		}
	}
	if (!used)
		return hgm_fail(-EOPNOTSUPP,
				"required feature bits 0x%llx are unknown to this kernel",
				(unsigned long long)missing);
	return hgm_fail(-EOPNOTSUPP,
			"this kernel's userfaultfd lacks required features:%s (mask 0x%llx); "
			"<hgm/uapi.h> lists the kernel that introduced each",
			names, (unsigned long long)missing);
}

int hgm_uffd_open(struct hgm_uffd **out, const struct hgm_uffd_opts *opts)
{
	HGM_UNCANCELLED;
	struct hgm_uffd_opts o;
	struct hgm_uffd *u;
	uint64_t features, ioctls;
	int rc;

	if (!out)
		return hgm_fail(-EINVAL, "hgm_uffd_open: out is NULL");
	rc = hgm_opts_in(&o, sizeof(o), HGM_FIRST_SIZE(struct hgm_uffd_opts, reserved), opts,
			 "hgm_uffd_open");
	if (rc)
		return rc;
	if (o.flags & ~HGM_UFFD_ALLOW_USER_MODE_ONLY || o.reserved)
		return hgm_fail(-EINVAL, "hgm_uffd_open: unknown flags 0x%x, or reserved is not 0",
				o.flags);

	u = calloc(1, sizeof(*u));
	if (!u)
		return hgm_fail(-ENOMEM, "hgm_uffd_open: out of memory");
	rc = discover(o.flags, &u->supported);
	if (rc)
		goto fail;
	if (o.required & ~u->supported) {
		rc = missing_features(o.required & ~u->supported);
		goto fail;
	}
	u->fd = rc = open_any(o.flags, &u->via);
	if (rc < 0)
		goto fail;
	u->features = o.required | (o.optional & u->supported);
	features = u->features; /* the reply says what is supported, not what is enabled */
	rc = hgm_sys->uffd_api(u->fd, &features, &ioctls);
	if (rc) {
		rc = hgm_fail(rc, "UFFDIO_API with features 0x%llx: %s%s",
			      (unsigned long long)u->features, hgm_errno_name(rc),
			      rc == -EPERM ? " (EVENT_FORK needs CAP_SYS_PTRACE)" : "");
		hgm_sys->close(u->fd);
		goto fail;
	}
	*out = u;
	return 0;
fail:
	free(u);
	return rc;
}

/* The kernel's own mark of a userfaultfd that has had its UFFDIO_API. */
#define INITIALIZED UINT64_C(0x80000000)

/* The value is "aa:FEATURES:IOCTLS". */
static int read_features(int fd, int callers_fd, uint64_t *features)
{
	char value[HGM_FDINFO_MAX];
	unsigned long long enabled;
	unsigned int api;
	int rc = hgm_fdinfo(fd, "API", value);

	if (rc && rc != -ENOENT)
		return rc;
	if (rc || sscanf(value, "%x:%llx:", &api, &enabled) != 2 || api != UFFD_API)
		return hgm_fail(-EINVAL, "descriptor %d is no userfaultfd", callers_fd);
	if (!(enabled & INITIALIZED))
		return hgm_fail(-EINVAL, "the userfaultfd's owner has not called UFFDIO_API yet");
	*features = enabled & ~INITIALIZED;
	return 0;
}

int hgm_uffd_adopt(struct hgm_uffd **out, int fd)
{
	struct hgm_uffd *u = calloc(1, sizeof(*u));
	int rc;

	if (!u)
		return hgm_fail(-ENOMEM, "hgm_peer_create: out of memory");
	u->fd = rc = hgm_sys->dup(fd);
	if (rc < 0) {
		free(u);
		return hgm_fail(rc, "descriptor %d: %s", fd, hgm_errno_name(rc));
	}
	rc = read_features(u->fd, fd, &u->features);
	if (!rc) {
		rc = hgm_sys->set_nonblock(u->fd);
		if (rc)
			hgm_fail(rc, "O_NONBLOCK of the userfaultfd: %s", hgm_errno_name(rc));
	}
	if (rc) {
		hgm_uffd_close(u);
		return rc;
	}
	u->supported = u->features;
	*out = u;
	return 0;
}

void hgm_uffd_close(struct hgm_uffd *u)
{
	if (!u)
		return;
	hgm_sys->close(u->fd);
	free(u);
}

static int no_object(const char *function)
{
	return hgm_fail(-EINVAL, "%s: the userfaultfd is NULL", function);
}

int hgm_uffd_fd(const struct hgm_uffd *u)
{
	return u ? u->fd : no_object("hgm_uffd_fd");
}

uint64_t hgm_uffd_features(const struct hgm_uffd *u)
{
	return u ? u->features : 0;
}

uint64_t hgm_uffd_supported(const struct hgm_uffd *u)
{
	return u ? u->supported : 0;
}

enum hgm_uffd_via hgm_uffd_get_via(const struct hgm_uffd *u)
{
	return u ? u->via : (enum hgm_uffd_via)0;
}

int hgm_uffd_register(struct hgm_uffd *u, void *addr, uint64_t len, uint64_t modes,
		      uint64_t *ioctls)
{
	uint64_t offered = 0;
	int rc;

	if (!u)
		return no_object("hgm_uffd_register");
	rc = hgm_sys->uffd_register(u->fd, addr, len, modes, &offered);
	if (ioctls)
		*ioctls = offered;
	if (!rc)
		return 0;
	return hgm_fail(rc, "UFFDIO_REGISTER of %llu bytes at %p, modes 0x%llx: %s%s",
			(unsigned long long)len, addr, (unsigned long long)modes,
			hgm_errno_name(rc),
			rc == -EBUSY	? " (this memory is registered with another userfaultfd, "
					  "or for write-protection, which these modes lack)"
			: rc == -EPERM	? " (the file is open read-only)"
			: rc == -ENOMEM ? " (" HGM_AREAS_HINT ")"
			: rc == -EINVAL
				? " (not aligned to the huge page, or the kernel does not offer "
				  "this mode on this memory)"
				: "");
}

int hgm_uffd_unregister(struct hgm_uffd *u, void *addr, uint64_t len)
{
	int rc;

	if (!u)
		return no_object("hgm_uffd_unregister");
	rc = hgm_sys->uffd_unregister(u->fd, addr, len);
	/*
	 * UFFDIO_UNREGISTER does not wake threads that wait for minor or write-protect faults.
	 * Waking them before it would be a race, because they could queue again. After it has
	 * returned, no thread can join the queue.
	 */
	hgm_sys->uffd_wake(u->fd, addr, len);
	if (rc)
		return hgm_fail(rc, "UFFDIO_UNREGISTER of %llu bytes at %p: %s%s",
				(unsigned long long)len, addr, hgm_errno_name(rc),
				rc == -ENOMEM ? " (" HGM_AREAS_HINT ")" : "");
	return 0;
}

bool hgm_uffd_changing(const struct hgm_uffd *u)
{
	int64_t done;

	return hgm_sys->uffd_zeropage(u->fd, NULL, 0, 0, &done) == -EAGAIN;
}

int hgm_uffd_wake(struct hgm_uffd *u, void *addr, uint64_t len)
{
	int rc;

	if (!u)
		return no_object("hgm_uffd_wake");
	rc = hgm_sys->uffd_wake(u->fd, addr, len);
	if (rc)
		return hgm_fail(rc, "UFFDIO_WAKE of %llu bytes at %p: %s", (unsigned long long)len,
				addr, hgm_errno_name(rc));
	return 0;
}

static void decode(struct hgm_uffd_event *ev, const struct uffd_msg *msg)
{
	*ev = (struct hgm_uffd_event){ .type = msg->event };
	switch (msg->event) {
	case UFFD_EVENT_PAGEFAULT:
		ev->flags = msg->arg.pagefault.flags;
		ev->addr = msg->arg.pagefault.address;
		ev->tid = msg->arg.pagefault.feat.ptid;
		break;
	case UFFD_EVENT_FORK:
		ev->tid = msg->arg.fork.ufd;
		break;
	case UFFD_EVENT_REMAP:
		ev->addr = msg->arg.remap.from;
		ev->end = msg->arg.remap.to;
		ev->len = msg->arg.remap.len;
		break;
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		ev->addr = msg->arg.remove.start;
		ev->end = msg->arg.remove.end;
		break;
	}
}

int hgm_uffd_read(struct hgm_uffd *u, struct hgm_uffd_event *ev, unsigned int max)
{
	struct uffd_msg msg[HGM_UFFD_READ_MAX];
	ssize_t got;

	if (!u)
		return no_object("hgm_uffd_read");
	if (!ev || !max)
		return hgm_fail(-EINVAL,
				"hgm_uffd_read: the buffer is NULL or has no room for a message");
	if (max > HGM_UFFD_READ_MAX)
		max = HGM_UFFD_READ_MAX;
	got = hgm_sys->read(u->fd, msg, max * sizeof(msg[0]));
	if (got == -EAGAIN || got == -EINTR)
		return -EAGAIN;
	if (got < 0)
		return hgm_fail((int)got, "hgm_uffd_read: %s", hgm_errno_name((int)got));
	if (!got || (size_t)got % sizeof(msg[0]))
		return hgm_fail(-EIO, "hgm_uffd_read: read %zd bytes, which are not whole messages",
				got);
	for (size_t i = 0; i < (size_t)got / sizeof(msg[0]); i++)
		decode(&ev[i], &msg[i]);
	return (int)((size_t)got / sizeof(msg[0]));
}
