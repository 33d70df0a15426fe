/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Open what we may know of another process, and find out what we may do to its memory.
 *
 * What is opened in /proc belongs to the address space that the process has now. If it exits, or
 * runs another program, reads return nothing, and a process that gets its number is not mistaken
 * for it.
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/sys.h"
#include "remote.h"
#include "uffd/uffd.h"
#include "util/error.h"
#include "util/fdinfo.h"

/* Where to look for an address that the other process does not use: without ASLR it uses many. */
#define ROOM_BYTES (UINT64_C(1) << 30)
#define STEP_BYTES (UINT64_C(16) << 20)

static int read_pid(int pidfd, int *pid)
{
	char value[HGM_FDINFO_MAX];
	int rc = hgm_fdinfo(pidfd, "Pid", value);

	if (rc)
		return rc == -ENOENT
			       ? hgm_fail(-EINVAL, "descriptor %d is no pidfd: set pidfd or pid",
					  pidfd)
			       : rc;
	*pid = atoi(value);
	/* -1: it has exited; 0: it is in a PID namespace that we do not see */
	if (*pid < 0)
		return hgm_fail(-ESRCH, "the process of pidfd %d has exited", pidfd);
	if (!*pid)
		return hgm_fail(-EINVAL,
				"the process of pidfd %d is not in our PID namespace, so its "
				"memory cannot be described",
				pidfd);
	return 0;
}

static int open_pidfd(struct hgm_space *s, int pidfd, int pid)
{
	int rc;

	if (!pid) {
		rc = read_pid(pidfd, &s->pid);
		if (rc)
			return rc;
		s->pidfd = hgm_sys->dup(pidfd);
		return s->pidfd < 0 ? hgm_fail(s->pidfd, "descriptor %d: %s", pidfd,
					       hgm_errno_name(s->pidfd))
				    : 0;
	}
	s->pid = pid;
	s->pidfd = pid < 0 ? -EINVAL : hgm_sys->pidfd_open(pid);
	return s->pidfd < 0 ? hgm_fail(s->pidfd, "pidfd_open of process %d: %s", pid,
				       hgm_errno_name(s->pidfd))
			    : 0;
}

/* The process ran when all was open, so all is its own. */
static int check_runs(const struct hgm_space *s)
{
	struct pollfd fd = { .fd = s->pidfd, .events = POLLIN };

	if (hgm_sys->poll(&fd, 1, 0) > 0)
		return hgm_fail(-ESRCH, "process %d has exited", s->pid);
	return hgm_space_is_gone(s)
		       ? hgm_fail(-ESRCH, "the process that made the userfaultfd has exited, "
					  "or runs another program")
		       : 0;
}

/*
 * Is it a userfaultfd of this process? Then it can register a page that only this process has.
 * Where we cannot tell what the other process has, do not try, and say no.
 */
static bool is_ours(const struct hgm_space *s)
{
	int fd = hgm_uffd_fd(s->uffd[0]);
	uint64_t at = 0, ioctls;
	bool ours = false;
	void *room;

	if (hgm_sys->mmap(&room, NULL, ROOM_BYTES, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))
		return false;
	while (at < ROOM_BYTES && !hgm_mapping_none(s->pid, (char *)room + at))
		at += STEP_BYTES;
	if (at < ROOM_BYTES)
		ours = !hgm_sys->uffd_register(fd, (char *)room + at, HGM_PAGE_BYTES,
					       HGM_UFFD_MISSING, &ioctls);
	if (ours) /* else munmap() may wait until its event is read */
		hgm_sys->uffd_unregister(fd, (char *)room + at, HGM_PAGE_BYTES);
	hgm_sys->munmap(room, ROOM_BYTES);
	return ours;
}

/* What the kernel may say at any time says nothing of what it allows. */
static int why_no_collapse(const struct hgm_space *s)
{
	int rc = hgm_sys->process_madvise(s->pidfd, NULL, 0, HGM_MADV_COLLAPSE);

	return rc == -EPERM || rc == -EACCES || rc == -EINVAL || rc == -ENOSYS ? rc : 0;
}

/*
 * An event of a fork brings a descriptor of the child, which must be served, too. After a move it
 * is no longer known which page is where. SIGBUS takes the place of all messages.
 */
static int check_features(uint64_t features)
{
	const uint64_t not = HGM_UFFD_FEATURE_EVENT_FORK | HGM_UFFD_FEATURE_EVENT_REMAP |
			     HGM_UFFD_FEATURE_SIGBUS;

	return features & not
		       ? hgm_fail(-EOPNOTSUPP,
				  "hgm_peer_create: the userfaultfd has EVENT_FORK, EVENT_REMAP or "
				  "SIGBUS (features 0x%llx)",
				  (unsigned long long)features)
		       : 0;
}

static int open_all(struct hgm_space *s, int uffd, int pidfd, int pid)
{
	char proc[24];
	int rc = open_pidfd(s, pidfd, pid);

	if (rc)
		return rc;
	if (s->pid == getpid())
		return hgm_fail(-EINVAL, "process %d is this one: use HGM_BACKING_MAPPING", s->pid);
	rc = hgm_uffd_adopt(&s->uffd[0], uffd);
	if (rc)
		return rc;
	rc = check_features(hgm_uffd_features(s->uffd[0]));
	if (rc)
		return rc;
	s->stop_fd = hgm_sys->eventfd();
	if (s->stop_fd < 0)
		return hgm_fail(s->stop_fd, "eventfd: %s; " HGM_FD_HINT,
				hgm_errno_name(s->stop_fd));
	snprintf(proc, sizeof(proc), "/proc/%d", s->pid);
	hgm_space_open(s, proc);
	s->collapse_error = why_no_collapse(s);
	rc = check_runs(s);
	if (!rc && is_ours(s))
		rc = hgm_fail(-EINVAL, "the userfaultfd is of this process, not of process %d",
			      s->pid);
	return rc;
}

int hgm_remote_open(struct hgm_space *s, int uffd, int pidfd, int pid)
{
	int rc;

	memset(s, 0, sizeof(*s));
	s->foreign = true;
	s->stripes = 1;
	s->pidfd = s->stop_fd = s->pagemap_fd = s->scan_fd = s->mem_fd = -1;
	rc = open_all(s, uffd, pidfd, pid);
	if (rc)
		hgm_remote_close(s);
	return rc;
}

void hgm_remote_close(struct hgm_space *s)
{
	hgm_space_close(s);
	hgm_uffd_close(s->uffd[0]);
	if (s->stop_fd >= 0)
		hgm_sys->close(s->stop_fd);
	if (s->pidfd >= 0)
		hgm_sys->close(s->pidfd);
}
