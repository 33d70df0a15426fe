/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD protocol, as much of it as a client that reads needs, with structured replies.
 */
#include "fake_server.h"

#include <endian.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "test.h"

#define OPT_MAGIC      UINT64_C(0x49484156454f5054)
#define REPLY_MAGIC    UINT64_C(0x3e889045565a9)
#define OPT_GO	       7
#define OPT_STRUCTURED 8
#define REP_ACK	       1
#define REP_INFO       3
#define REP_UNKNOWN    ((uint32_t)1 << 31 | 1)
#define READ	       0
#define DATA_MAX       (2 << 20)

struct __attribute__((packed)) option {
	uint64_t magic;
	uint32_t option, length;
};

struct __attribute__((packed)) option_reply {
	uint64_t magic;
	uint32_t option, type, length;
};

struct __attribute__((packed)) request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t handle, offset;
	uint32_t length;
};

struct __attribute__((packed)) data_reply {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t handle;
	uint32_t length;
	uint64_t offset;
};

static bool get(int fd, void *to, size_t length)
{
	return !length || recv(fd, to, length, MSG_WAITALL) == (ssize_t)length;
}

static bool put(int fd, const void *from, size_t length)
{
	const char *at = from;

	while (length) {
		ssize_t n = send(fd, at, length, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		at += n;
		length -= (size_t)n;
	}
	return true;
}

static bool reply(int fd, uint32_t option, uint32_t type, const void *data, uint32_t length)
{
	const struct option_reply r = { htobe64(REPLY_MAGIC), htobe32(option), htobe32(type),
					htobe32(length) };

	return put(fd, &r, sizeof(r)) && put(fd, data, length);
}

/* Up to NBD_OPT_GO. */
static bool shake_hands(struct fake_server *f, int fd)
{
	static const char hello[] = "NBDMAGICIHAVEOPT\0\3";
	struct __attribute__((packed)) {
		uint16_t type;
		uint64_t size;
		uint16_t flags;
	} info = { 0, htobe64(f->size), htobe16(1 | 2) };
	/* So small that requests come in several pieces. */
	struct __attribute__((packed)) {
		uint16_t type;
		uint32_t least, preferred, most;
	} sizes = { htobe16(3), htobe32(1), htobe32(4096), htobe32(65536) };
	char name[5] = "\0\1"; /* the type, and the name */
	char data[4096];
	uint32_t flags;

	memcpy(name + 2, atomic_load(&f->name), 3);
	if (!put(fd, hello, 18) || !get(fd, &flags, sizeof(flags)))
		return false;
	for (;;) {
		struct option o;
		uint32_t option;

		if (!get(fd, &o, sizeof(o)) || o.magic != htobe64(OPT_MAGIC) ||
		    be32toh(o.length) > sizeof(data) || !get(fd, data, be32toh(o.length)))
			return false;
		option = be32toh(o.option);
		if (option == OPT_GO)
			return reply(fd, option, REP_INFO, &info, sizeof(info)) &&
			       reply(fd, option, REP_INFO, &sizes, sizeof(sizes)) &&
			       reply(fd, option, REP_INFO, name, sizeof(name)) &&
			       reply(fd, option, REP_ACK, NULL, 0);
		if (!reply(fd, option, option == OPT_STRUCTURED ? REP_ACK : REP_UNKNOWN, NULL, 0))
			return false;
	}
}

static void fail_second(struct fake_server *f, int fd)
{
	struct __attribute__((packed)) {
		uint32_t magic;
		uint16_t flags, type;
		uint64_t handle;
		uint32_t length, error;
		uint16_t text;
	} r = { htobe32(0x668e33ef), htobe16(1), htobe16(0x8001), 0, htobe32(6), htobe32(5), 0 };
	struct request q;

	if (!get(fd, &q, sizeof(q)))
		return;
	r.handle = q.handle;
	atomic_fetch_add(&f->misdeeds, 1);
	put(fd, &r, sizeof(r));
}

static bool serve_read(struct fake_server *f, int fd, const struct request *q)
{
	enum fake_manner manner = atomic_load(&f->manner);
	uint32_t length = be32toh(q->length);
	struct data_reply r = {
		htobe32(0x668e33ef), htobe16(1), htobe16(1), q->handle, 0, q->offset
	};
	static char data[DATA_MAX];

	if (manner == FAKE_LATER) {
		fail_second(f, fd);
		return false;
	}
	if (length > DATA_MAX)
		return false;
	if (manner == FAKE_GARBAGE) {
		atomic_fetch_add(&f->misdeeds, 1);
		return !put(fd, "hello, world, this is no NBD", 28);
	}
	memset(data, 0x5a, length);
	if (manner != FAKE_GOOD)
		atomic_fetch_add(&f->misdeeds, 1);
	if (manner == FAKE_SHORT)
		length /= 2;
	if (manner == FAKE_ELSEWHERE)
		r.offset = htobe64(be64toh(q->offset) + length);
	r.length = htobe32(length + 8);
	return put(fd, &r, sizeof(r)) && put(fd, data, manner == FAKE_CUT ? length / 2 : length) &&
	       manner != FAKE_CUT;
}

static void *serve(void *arg)
{
	struct fake_server *f = arg;

	while (!atomic_load(&f->stop)) {
		int fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
		struct request q;
		bool good = fd >= 0 && shake_hands(f, fd);

		while (good && get(fd, &q, sizeof(q)) && be16toh(q.type) == READ)
			good = serve_read(f, fd, &q);
		if (fd >= 0)
			close(fd);
	}
	return NULL;
}

void fake_start(struct fake_server *f, uint64_t size, enum fake_manner manner)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };

	memset(f, 0, sizeof(*f));
	f->size = size;
	atomic_init(&f->manner, manner);
	atomic_init(&f->name, "one");
	snprintf(f->dir, sizeof(f->dir), "/tmp/hgm-nbd-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->socket, sizeof(f->socket), "%s/socket", f->dir);
	snprintf(f->uri, sizeof(f->uri), "nbd+unix:///?socket=%s", f->socket);
	strcpy(name.sun_path, f->socket);
	f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->listener, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(listen(f->listener, 16), 0);
	assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
}

/* No client must be connected any more. */
void fake_end(struct fake_server *f)
{
	atomic_store(&f->stop, true);
	shutdown(f->listener, SHUT_RDWR); /* ends accept() */
	pthread_join(f->thread, NULL);
	close(f->listener);
	unlink(f->socket);
	rmdir(f->dir);
}
