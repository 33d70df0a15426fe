/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread that owns the connections.
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "nbd.h"

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* When the thread must be awake, whatever comes. */
static uint64_t next_deadline(const struct source_nbd *n)
{
	uint64_t when = n->unanswered ? n->look_ns : NEVER;
	uint32_t most = hgm_nbd_conn_any_ready(n) ? n->opts.connections : 1;

	for (uint32_t i = 0; i < n->opts.connections; i++) {
		const struct conn *c = &n->conn[i];

		if (c->state == CONN_CONNECTING || (!c->h && i < most))
			when = earlier(when, c->due_ns);
		else if (c->count || n->zeroes.conn == c)
			when = earlier(when, c->heard_ns + n->timeout_ns);
	}
	return when;
}

/* What poll(2) said of one connection. -errno: libnbd has failed, and has the text. */
static int notify(struct conn *c, short events, short revents)
{
	if (!revents)
		return 0;
	if (events & POLLOUT && revents & (POLLOUT | POLLERR | POLLHUP))
		return nbd_aio_notify_write(c->h) ? hgm_nbd_error() : 0;
	c->heard_ns = hgm_nbd_now_ns();
	return nbd_aio_notify_read(c->h) ? hgm_nbd_error() : 0;
}

static int milliseconds_to(uint64_t until_ns)
{
	uint64_t now = hgm_nbd_now_ns(), ms;

	if (until_ns == NEVER)
		return -1;
	if (until_ns <= now)
		return 0;
	ms = (until_ns - now + NS_IN_MS - 1) / NS_IN_MS;
	return ms < 60000 ? (int)ms : 60000;
}

/*
 * Wait until @until_ns for connections, for @only one, or for requests, and handle what has come.
 * -errno: @only has failed.
 */
int hgm_nbd_poll(struct source_nbd *n, struct conn *only, uint64_t until_ns)
{
	struct pollfd fds[CONNECTIONS_MAX + 1] = { { .fd = n->wake_fd, .events = POLLIN } };
	struct conn *of[CONNECTIONS_MAX + 1];
	uint64_t count, now;
	nfds_t used = 1;
	ssize_t got = 0;
	int rc = 0;

	for (struct conn *c = n->conn; c < n->conn + CONNECTIONS_MAX; c++) {
		unsigned int direction;

		if (!c->h || (only && c != only))
			continue;
		direction = nbd_aio_get_direction(c->h);
		of[used] = c;
		fds[used++] = (struct pollfd){
			.fd = nbd_aio_get_fd(c->h),
			.events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
					  (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0)),
		};
	}
	if (poll(fds, used, milliseconds_to(until_ns)) <= 0)
		return 0;
	now = hgm_nbd_now_ns();
	if (fds[0].revents)
		got = read(n->wake_fd, &count, sizeof(count));
	(void)got; /* it fails if it was reset already */
	for (nfds_t i = 1; i < used; i++) {
		struct conn *c = of[i];

		rc = notify(c, fds[i].events, fds[i].revents);
		if (only)
			continue;
		c->fault = rc == -EFAULT;
		hgm_nbd_pieces_done(n);
		if (!rc)
			hgm_nbd_conn_look(c, now);
		else if (c->h)
			hgm_nbd_conn_lose(c, nbd_get_error());
	}
	return only ? rc : 0;
}

static void turn(struct source_nbd *n)
{
	uint64_t now = hgm_nbd_now_ns(), until;

	hgm_nbd_requests_take(n);
	hgm_nbd_conn_open_due(n, now);
	for (uint32_t i = 0; i < n->opts.connections; i++)
		hgm_nbd_conn_look(&n->conn[i], now);
	if (n->unanswered && now >= n->look_ns)
		hgm_nbd_requests_look(n, now);
	hgm_nbd_zeroes_answered(n);
	hgm_nbd_pieces_send(n);
	until = next_deadline(n);
	if (!hgm_nbd_ring_may_sleep(&n->ring))
		until = 0;
	hgm_nbd_poll(n, NULL, until);
}

static void end(struct source_nbd *n)
{
	for (struct conn *c = n->conn; c < n->conn + CONNECTIONS_MAX; c++) {
		if (!c->h)
			continue;
		if (c->state == CONN_READY)
			nbd_aio_disconnect(c->h, 0); /* a courtesy: does not wait */
		hgm_nbd_conn_close(c);
	}
}

void *hgm_nbd_thread(void *arg)
{
	struct source_nbd *n = arg;

	while (!atomic_load_explicit(&n->stop, memory_order_acquire))
		turn(n);
	end(n);
	return NULL;
}
