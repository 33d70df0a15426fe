/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A child process that has memory of its own and leaves its faults to its parent. It must be
 * started before the parent has a thread. Built as C and as C++ against the installed library.
 */
#ifndef HGM_TEST_CHILD_H
#define HGM_TEST_CHILD_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <hgm/error.h>
#include <hgm/uffd.h>

struct child {
	int pid;
	int sock;
	int uffd;   /* a duplicate of its userfaultfd, -1: it could open none */
	void *addr; /* of its memory, in its address space */
};

/* One message, with a descriptor. */
struct child_message {
	struct msghdr msg;
	struct iovec iov;
	void *addr;
	union {
		size_t aligned;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
};

static void child_prepare(struct child_message *m)
{
	memset(m, 0, sizeof(*m));
	m->iov.iov_base = &m->addr;
	m->iov.iov_len = sizeof(m->addr);
	m->msg.msg_iov = &m->iov;
	m->msg.msg_iovlen = 1;
	m->msg.msg_control = m->control.room;
	m->msg.msg_controllen = sizeof(m->control.room);
}

/* The child: exits with 0 if it reads in its memory what it should. */
static void child_run(int sock, const void *contents, size_t length, uint32_t flags)
{
	int how = PROT_READ | PROT_WRITE, fd;
	struct hgm_uffd_opts opts;
	struct child_message m;
	struct hgm_uffd *u;
	struct cmsghdr *c;

	memset(&opts, 0, sizeof(opts));
	opts.size = sizeof(opts);
	opts.required = HGM_UFFD_FEATURE_EVENT_REMOVE;
	opts.flags = flags;
	child_prepare(&m);
	m.addr = mmap(NULL, length, how, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m.addr == MAP_FAILED || hgm_uffd_open(&u, &opts) ||
	    hgm_uffd_register(u, m.addr, length, HGM_UFFD_MISSING, NULL))
		_exit(1);
	fd = hgm_uffd_fd(u);
	c = CMSG_FIRSTHDR(&m.msg);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	if (sendmsg(sock, &m.msg, 0) < 0)
		_exit(1);
	if (read(sock, &fd, 1) != 1) /* until it is served */
		_exit(1);
	_exit(memcmp(m.addr, contents, length) ? 1 : 0);
}

static void child_start(struct child *c, const void *contents, size_t length, uint32_t flags)
{
	const struct cmsghdr *fd;
	struct child_message m;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		abort();
	c->pid = fork();
	if (!c->pid) {
		close(pair[0]);
		child_run(pair[1], contents, length, flags);
	}
	close(pair[1]);
	c->sock = pair[0];
	c->uffd = -1;
	child_prepare(&m);
	if (recvmsg(c->sock, &m.msg, MSG_CMSG_CLOEXEC) <= 0)
		return;
	fd = CMSG_FIRSTHDR(&m.msg);
	if (!fd)
		return;
	memcpy(&c->uffd, CMSG_DATA(fd), sizeof(c->uffd));
	c->addr = m.addr;
}

/* Let it look at its memory, and wait for its exit status; @look: or let it exit at once. */
static int child_end(struct child *c, int look)
{
	int status;

	if (look && write(c->sock, "", 1) != 1)
		return -1;
	if (!look)
		close(c->sock);
	if (waitpid(c->pid, &status, 0) != c->pid)
		return -1;
	if (look)
		close(c->sock);
	if (c->uffd >= 0)
		close(c->uffd);
	return status;
}

#endif
