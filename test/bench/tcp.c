/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <hgm/hgm.h>

#include "bench.h"

struct tcp {
	const char *data;
	size_t bytes;
	int near;
	int far;
	struct hgm_source *source;
	pthread_mutex_t lock; /* for writes at the near end */
	pthread_t server;
	pthread_t receiver;
};

static bool send_all(int fd, const void *from, size_t bytes)
{
	for (size_t at = 0; at < bytes;) {
		ssize_t n = send(fd, (const char *)from + at, bytes - at, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		at += (size_t)n;
	}
	return true;
}

static bool receive_all(int fd, void *to, size_t bytes)
{
	for (size_t at = 0; at < bytes;) {
		ssize_t n = recv(fd, (char *)to + at, bytes - at, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		at += (size_t)n;
	}
	return true;
}

/* The request itself is sent over the wire, before the contents. */
static int64_t ask(void *user, const struct hgm_io *io)
{
	struct tcp *t = user;
	bool sent;

	pthread_mutex_lock(&t->lock);
	sent = send_all(t->near, io, sizeof(*io));
	pthread_mutex_unlock(&t->lock);
	return sent ? HGM_IO_LATER : -EPIPE;
}

static void *server(void *arg)
{
	struct tcp *t = arg;
	struct hgm_io io;

	while (receive_all(t->far, &io, sizeof(io)))
		if (io.offset + io.length > t->bytes || !send_all(t->far, &io, sizeof(io)) ||
		    !send_all(t->far, t->data + io.offset, io.length))
			break;
	return NULL;
}

static void *receiver(void *arg)
{
	struct tcp *t = arg;
	struct hgm_io io;

	while (receive_all(t->near, &io, sizeof(io)) && receive_all(t->near, io.buf, io.length))
		hgm_io_done(&io, (int64_t)io.length);
	return NULL;
}

static void connect_both(struct tcp *t)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	socklen_t length = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	t->near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || t->near < 0 ||
	    bind(listener, (const struct sockaddr *)&addr, sizeof(addr)) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&addr, &length) ||
	    connect(t->near, (const struct sockaddr *)&addr, sizeof(addr)))
		die("tcp", strerror(errno));
	t->far = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (t->far < 0 || setsockopt(t->near, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ||
	    setsockopt(t->far, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		die("tcp", strerror(errno));
	close(listener);
}

struct tcp *tcp_create(const void *data, size_t bytes)
{
	struct hgm_source_fn_opts opts = { .size = sizeof(opts), .length = bytes };
	struct tcp *t = calloc(1, sizeof(*t));

	if (!t)
		die("tcp", "no memory");
	t->data = data;
	t->bytes = bytes;
	pthread_mutex_init(&t->lock, NULL);
	connect_both(t);
	if (hgm_source_fn(&t->source, ask, t, &opts))
		die("tcp", hgm_errmsg());
	if (pthread_create(&t->server, NULL, server, t) ||
	    pthread_create(&t->receiver, NULL, receiver, t))
		die("tcp", "no thread to be had");
	return t;
}

void tcp_destroy(struct tcp *t)
{
	shutdown(t->near, SHUT_RDWR);
	pthread_join(t->server, NULL);
	pthread_join(t->receiver, NULL);
	close(t->near);
	close(t->far);
	hgm_source_destroy(t->source);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

struct hgm_source *tcp_source(const struct tcp *t)
{
	return t->source;
}
