/* SPDX-License-Identifier: 0BSD */
/* Serve the memory of a process that does not use the engine. */
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <hgm/hgm.h>

#define LENGTH (8 << 20)

/* One message with one descriptor, to be sent or to be received. */
struct letter {
	struct msghdr msg;
	struct iovec iov;
	char *addr;
	_Alignas(struct cmsghdr) char room[CMSG_SPACE(sizeof(int))];
};

static void prepare(struct letter *l)
{
	memset(l, 0, sizeof(*l));
	l->iov.iov_base = &l->addr;
	l->iov.iov_len = sizeof(l->addr);
	l->msg.msg_iov = &l->iov;
	l->msg.msg_iovlen = 1;
	l->msg.msg_control = l->room;
	l->msg.msg_controllen = sizeof(l->room);
}

static void check(int rc)
{
	if (rc)
		errx(1, "%s", hgm_errmsg());
}

/* The process: any VMM that leaves its faults to a handler. */
static int vmm(int sock)
{
	struct hgm_uffd_opts opts = {
		.size = sizeof(opts),
		.required = HGM_UFFD_FEATURE_EVENT_REMOVE,
	};
	struct hgm_uffd *u;
	struct cmsghdr *c;
	struct letter l;
	int fd;

	prepare(&l);
	l.addr = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (l.addr == MAP_FAILED)
		err(1, "mmap");
	check(hgm_uffd_open(&u, &opts));
	check(hgm_uffd_register(u, l.addr, LENGTH, HGM_UFFD_MISSING,
				NULL));
	fd = hgm_uffd_fd(u);
	c = CMSG_FIRSTHDR(&l.msg);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	if (sendmsg(sock, &l.msg, 0) < 0)
		err(1, "sendmsg");
	printf("the process reads: %s\n", l.addr + (size_t)5 * 4096);
	return 0;
}

static int64_t contents(void *user, const struct hgm_io *io)
{
	(void)user;
	for (uint64_t at = 0; at < io->length; at += 4096)
		snprintf((char *)io->buf + at, 4096, "page %d",
			 (int)((io->offset + at) / 4096));
	return (int64_t)io->length;
}

/* Its descriptor, and where its memory is. */
static int receive(int sock, void **addr)
{
	struct cmsghdr *c;
	struct letter l;
	int fd;

	prepare(&l);
	if (recvmsg(sock, &l.msg, MSG_CMSG_CLOEXEC) < 0)
		err(1, "recvmsg");
	c = CMSG_FIRSTHDR(&l.msg);
	if (!c || c->cmsg_type != SCM_RIGHTS)
		errx(1, "no descriptor came");
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	*addr = l.addr;
	return fd;
}

int main(void)
{
	struct hgm_peer_opts who = { .size = sizeof(who) };
	struct hgm_peer_info info = { .size = sizeof(info) };
	struct hgm_region_opts opts = { .size = sizeof(opts) };
	struct hgm_region *region;
	struct hgm_peer *peer;
	int sock[2], status;
	struct hgm *h;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sock))
		err(1, "socketpair");
	who.pid = fork();
	if (!who.pid)
		return vmm(sock[0]);
	close(sock[0]);

	who.uffd = receive(sock[1], &opts.addr);
	check(hgm_create(&h, NULL));
	check(hgm_start(h));
	check(hgm_peer_create(&peer, h, &who));
	close(who.uffd); /* the library has a duplicate */

	check(hgm_source_fn(&opts.source, contents, NULL, NULL));
	opts.length = LENGTH;
	opts.backing = HGM_BACKING_PEER;
	opts.peer = peer;
	check(hgm_region_create(&region, h, &opts));

	check(hgm_peer_get_info(peer, &info));
	if (info.collapse_error)
		warnx("its memory stays in small pages");
	waitpid(who.pid, &status, 0);
	hgm_peer_destroy(peer);
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	return status ? 1 : 0;
}
