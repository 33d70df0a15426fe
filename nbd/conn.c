/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connections: how they begin, what a server must say to be the one that it was, and how they end.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hgm/error.h>

#include "nbd.h"

#define BACKOFF_FIRST_NS (10 * NS_IN_MS)
#define BACKOFF_MAX_NS	 (1000 * NS_IN_MS)

static void set_backoff(struct conn *c)
{
	c->due_ns = hgm_nbd_now_ns() + c->backoff_ns;
	c->backoff_ns = c->backoff_ns ? 2 * c->backoff_ns : BACKOFF_FIRST_NS;
	if (c->backoff_ns > BACKOFF_MAX_NS)
		c->backoff_ns = BACKOFF_MAX_NS;
}

/* -errno; libnbd has the text. */
static int start(struct conn *c)
{
	c->closing = c->fault = c->leaving = false;
	c->tells_zeroes = false;
	c->h = nbd_create();
	if (!c->h)
		return hgm_nbd_error();
	/*
	 * Who names the server may also name the file of its keys. Contents of failed reads are
	 * never given out, so there is no need to clear buffers first.
	 */
	if (nbd_set_uri_allow_local_file(c->h, true) || nbd_set_full_info(c->h, true) ||
	    nbd_set_pread_initialize(c->h, false) ||
	    nbd_add_meta_context(c->h, LIBNBD_CONTEXT_BASE_ALLOCATION) ||
	    nbd_aio_connect_uri(c->h, c->n->uri))
		return hgm_nbd_error();
	c->state = CONN_CONNECTING;
	c->due_ns = hgm_nbd_now_ns() + c->n->timeout_ns;
	return 0;
}

void hgm_nbd_conn_close(struct conn *c)
{
	struct list *link;

	hgm_nbd_pieces_done(c->n);
	c->closing = true;
	c->state = CONN_CLOSED;
	hgm_nbd_zeroes_lost(c);
	nbd_close(c->h); /* from here on nothing is written to buffers */
	c->h = NULL;
	c->count = 0;
	c->bytes = 0;
	while ((link = list_first(&c->pieces)))
		hgm_nbd_piece_lost(c, (struct piece *)link);
}

bool hgm_nbd_conn_any_ready(const struct source_nbd *n)
{
	for (uint32_t i = 0; i < n->opts.connections; i++)
		if (n->conn[i].state == CONN_READY)
			return true;
	return false;
}

static void note_loss(struct source_nbd *n)
{
	if (hgm_nbd_conn_any_ready(n) || n->lost_ns)
		return;
	n->lost_ns = hgm_nbd_now_ns();
	n->look_ns = 0;
}

void hgm_nbd_conn_lose(struct conn *c, const char *why)
{
	struct source_nbd *n = c->n;
	bool was_ready = c->state == CONN_READY;

	hgm_nbd_log(n, HGM_LOG_WARNING, "NBD %s: %s: %s", n->uri,
		    was_ready ? "a connection was lost" : "cannot connect",
		    why ? why : "no reason given");
	hgm_nbd_conn_close(c);
	set_backoff(c);
	note_loss(n);
}

/* -errno with text: not a server that can be used. */
static int check_server(struct conn *c, int64_t size)
{
	const struct source_nbd *n = c->n;
	int64_t least = nbd_get_block_size(c->h, LIBNBD_SIZE_MINIMUM);

	if (size < 0)
		return hgm_nbd_fail(hgm_nbd_error(), "%s", nbd_get_error());
	if ((uint64_t)size < PAGE)
		return hgm_nbd_fail(-EINVAL, "the export has %lld bytes, which is less than a page",
				    (long long)size);
	if (least > (int64_t)PAGE)
		return hgm_nbd_fail(-ENOTSUP, "the server reads no less than %lld bytes at a time",
				    (long long)least);
	if (n->size && n->size != (uint64_t)size)
		return hgm_nbd_fail(-ESTALE, "the export has %lld bytes, and had %llu before",
				    (long long)size, (unsigned long long)n->size);
	return 0;
}

static int check_name(struct conn *c, char *name)
{
	const struct source_nbd *n = c->n;

	if (n->size && n->name && name && strcmp(n->name, name) != 0)
		return hgm_nbd_fail(-ESTALE, "the export is '%.100s', and was '%.100s' before",
				    name, n->name);
	return 0;
}

static void note_server(struct conn *c, int64_t size, char *name)
{
	struct source_nbd *n = c->n;
	int64_t most = nbd_get_block_size(c->h, LIBNBD_SIZE_MAXIMUM);

	n->size = (uint64_t)size;
	n->name = name;
	n->piece_max = most >= (int64_t)PAGE && (uint64_t)most < PIECE
			       ? (uint64_t)most & ~(PAGE - 1)
			       : PIECE;
	n->many = nbd_can_multi_conn(c->h) == 1;
	if (!n->many)
		n->opts.connections = 1;
}

/* It has just been connected. -errno with text: not to the server that it should be. */
static int become_ready(struct conn *c)
{
	int64_t size = nbd_get_size(c->h);
	char *name = nbd_get_canonical_export_name(c->h);
	struct source_nbd *n = c->n;
	int rc;

	rc = check_server(c, size);
	if (!rc)
		rc = check_name(c, name);
	if (!rc && !n->size)
		note_server(c, size, name);
	else
		free(name);
	if (rc)
		return rc;
	c->tells_zeroes = nbd_can_meta_context(c->h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
	c->state = CONN_READY;
	c->heard_ns = hgm_nbd_now_ns();
	if (n->lost_ns)
		hgm_nbd_log(n, HGM_LOG_INFO, "NBD %s: connected again after %llu ms", n->uri,
			    (unsigned long long)((c->heard_ns - n->lost_ns) / NS_IN_MS));
	n->lost_ns = 0;
	n->refused = 0;
	return 0;
}

static void refuse(struct conn *c)
{
	struct source_nbd *n = c->n;

	hgm_nbd_log(n, HGM_LOG_ERROR, "NBD %s: the server is not the one that it was: %s", n->uri,
		    hgm_errmsg());
	hgm_nbd_conn_close(c);
	set_backoff(c);
	note_loss(n);
	if (!hgm_nbd_conn_any_ready(n)) {
		n->refused = -ESTALE;
		hgm_nbd_requests_refuse(n, n->refused);
	}
}

void hgm_nbd_conn_look(struct conn *c, uint64_t now)
{
	if (!c->h)
		return;
	if (nbd_aio_is_dead(c->h)) {
		hgm_nbd_conn_lose(c, nbd_get_error());
		return;
	}
	if (nbd_aio_is_closed(c->h)) {
		hgm_nbd_conn_lose(c, "the server has closed it");
		return;
	}
	if (c->leaving) {
		hgm_nbd_conn_lose(c, "the server is shutting down");
		return;
	}
	if (c->state == CONN_CONNECTING) {
		if (nbd_aio_is_ready(c->h)) {
			if (become_ready(c))
				refuse(c);
		} else if (now >= c->due_ns) {
			hgm_nbd_conn_lose(c, "the server does not answer");
		}
		return;
	}
	if ((c->count || c->n->zeroes.conn == c) && now - c->heard_ns >= c->n->timeout_ns &&
	    now > c->heard_ns)
		hgm_nbd_conn_lose(c, "the server does not answer requests");
}

void hgm_nbd_conn_open_due(struct source_nbd *n, uint64_t now)
{
	uint32_t most = hgm_nbd_conn_any_ready(n) ? n->opts.connections : 1;

	/* While nobody answers, one connection at a time finds out when that changes. */
	for (uint32_t i = 0; i < most; i++) {
		struct conn *c = &n->conn[i];

		if (c->h || now < c->due_ns)
			continue;
		if (start(c)) {
			hgm_nbd_log(n, HGM_LOG_WARNING, "NBD %s: cannot connect: %s", n->uri,
				    nbd_get_error());
			if (c->h)
				hgm_nbd_conn_close(c);
			set_backoff(c);
			note_loss(n);
		} else {
			hgm_nbd_conn_look(c, now); /* a local one may be there at once */
		}
	}
}

static int not_connected(struct source_nbd *n, struct conn *c, int rc, const char *why)
{
	hgm_nbd_fail(rc, "hgm_source_nbd: %s: %s", n->uri, why);
	if (c->h) {
		c->closing = true;
		nbd_close(c->h);
		c->h = NULL;
		c->state = CONN_CLOSED;
	}
	return rc;
}

/* On the caller's thread, before there is another one. */
int hgm_nbd_conn_open_first(struct source_nbd *n)
{
	struct conn *c = &n->conn[0];
	int rc = start(c);
	char why[512];

	while (!rc && !nbd_aio_is_ready(c->h)) {
		if (nbd_aio_is_dead(c->h)) {
			rc = hgm_nbd_error();
			break;
		}
		if (nbd_aio_is_closed(c->h))
			return not_connected(n, c, -ECONNRESET,
					     "the server has closed the connection");
		if (hgm_nbd_now_ns() >= c->due_ns)
			return not_connected(n, c, -ETIMEDOUT, "the server does not answer");
		rc = hgm_nbd_poll(n, c, c->due_ns);
	}
	if (rc) {
		const char *text = nbd_get_error();

		return not_connected(n, c, rc, text ? text : "the connection failed");
	}
	rc = become_ready(c);
	if (!rc)
		return 0;
	snprintf(why, sizeof(why), "%s", hgm_errmsg());
	return not_connected(n, c, rc, why);
}
