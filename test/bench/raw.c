/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The baseline: the shortest loop that serves minor faults on prepared shmem, with nothing but
 * system calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <hgm/uapi.h>

#include "bench.h"

#define BLOCK ((size_t)2 << 20)

struct raw {
	int uffd;
	bool spin;
	_Atomic bool stop;
	pthread_t thread;
	const char *source;
	char *primary;
	char *alias;
	size_t len;
};

static void *serve(void *arg)
{
	struct raw *raw = arg;
	struct pollfd fd = { .fd = raw->uffd, .events = POLLIN };

	while (!atomic_load_explicit(&raw->stop, memory_order_relaxed)) {
		struct uffdio_continue arg_continue = { .range = { .len = 4096 } };
		struct uffd_msg msg;
		size_t offset;

		if (!raw->spin)
			poll(&fd, 1, 100);
		if (read(raw->uffd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		offset = (msg.arg.pagefault.address & ~4095ull) - (uintptr_t)raw->primary;
		memcpy(raw->alias + offset, raw->source + offset, 4096);
		arg_continue.range.start = (uintptr_t)raw->primary + offset;
		if (ioctl(raw->uffd, UFFDIO_CONTINUE, &arg_continue))
			die("raw UFFDIO_CONTINUE", strerror(errno));
	}
	return NULL;
}

static char *map_aligned(int fd, size_t len)
{
	char *at = mmap(NULL, len + BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			-1, 0);
	char *aligned = (char *)(((uintptr_t)at + BLOCK - 1) & ~(BLOCK - 1));

	if (at == MAP_FAILED ||
	    mmap(aligned, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		die("raw mmap", strerror(errno));
	munmap(at, (size_t)(aligned - at));
	munmap(aligned + len, BLOCK - (size_t)(aligned - at));
	return aligned;
}

static void *begin(const char *source, size_t pages, char **memory, bool spin)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MINOR };
	struct raw *raw = calloc(1, sizeof(*raw));
	int fd = memfd_create("raw", MFD_CLOEXEC);

	if (!raw || fd < 0 || ftruncate(fd, (off_t)(pages * 4096)))
		die("raw memfd", strerror(errno));
	raw->len = pages * 4096;
	raw->spin = spin;
	raw->source = source;
	raw->primary = map_aligned(fd, raw->len);
	raw->alias = map_aligned(fd, raw->len);
	close(fd);
	for (size_t at = 0; at < raw->len; at += BLOCK) {
		raw->alias[at] = 0;
		madvise(raw->alias + at, BLOCK, HGM_MADV_COLLAPSE);
	}
	raw->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	reg.range.start = (uintptr_t)raw->primary;
	reg.range.len = raw->len;
	if (raw->uffd < 0 || ioctl(raw->uffd, UFFDIO_API, &api) ||
	    ioctl(raw->uffd, UFFDIO_REGISTER, &reg))
		die("raw userfaultfd", strerror(errno));
	if (pthread_create(&raw->thread, NULL, serve, raw))
		die("raw thread", strerror(errno));
	*memory = raw->primary;
	return raw;
}

static void *begin_spin(const char *source, size_t pages, char **memory)
{
	return begin(source, pages, memory, true);
}

static void *begin_poll(const char *source, size_t pages, char **memory)
{
	return begin(source, pages, memory, false);
}

static void end(void *state)
{
	struct raw *raw = state;

	atomic_store(&raw->stop, true);
	pthread_join(raw->thread, NULL);
	close(raw->uffd);
	munmap(raw->primary, raw->len);
	munmap(raw->alias, raw->len);
	free(raw);
}

const struct server raw_spin_server = { "raw-spin", begin_spin, end };
const struct server raw_poll_server = { "raw-poll", begin_poll, end };
