/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pieces: how requests are cut, sent to the connections, and put together again. A piece that is
 * small enough lets demand pass, and lets several connections share a request.
 */
#include <errno.h>

#include "nbd.h"

void hgm_nbd_piece_free(struct source_nbd *n, struct piece *p)
{
	p->req->pieces--;
	list_append(&n->free_pieces, &p->link);
	n->free_count++;
}

void hgm_nbd_piece_again(struct source_nbd *n, struct piece *p)
{
	struct request *req = p->req;

	if (!req->ended) {
		list_append(&n->again[req->demand], &p->link);
		return;
	}
	/* Another piece has failed. What is delivered must end where this one is missing. */
	if (p->offset < req->good)
		req->good = p->offset;
	hgm_nbd_piece_free(n, p);
	hgm_nbd_request_advance(n, req);
}

/* Called by libnbd, which holds its lock: only notes. */
static int chunk(void *user, const void *buf, size_t length, uint64_t offset, unsigned int status,
		 int *error)
{
	struct piece *p = user;

	(void)buf;
	(void)offset;
	(void)error;
	if (status == LIBNBD_READ_DATA || status == LIBNBD_READ_HOLE)
		p->got += (uint32_t)length;
	return 0;
}

static int completed(void *user, int *error)
{
	struct piece *p = user;
	struct conn *c = p->conn;

	if (c->closing)
		return 1;
	p->error = *error ? *error : p->got == p->length ? 0 : EPROTO;
	list_append(&c->n->done, &p->link);
	return 1;
}

static struct piece *get_piece(struct source_nbd *n, struct request *req, uint32_t length)
{
	struct piece *p = (struct piece *)list_first(&n->free_pieces);

	list_remove(&p->link);
	n->free_count--;
	p->req = req;
	p->offset = req->at;
	p->length = length;
	req->at += length;
	req->pieces++;
	return p;
}

static bool is_zero(const struct request *req, uint64_t page)
{
	return req->has_zeroes && req->zeroes[page / 64] >> page % 64 & 1;
}

/* The next piece of what was not asked yet. NULL: nothing can be asked now. */
static struct piece *cut_piece(struct source_nbd *n, bool demand)
{
	struct request *req;

	while ((req = (struct request *)list_first(&n->waiting[demand]))) {
		uint32_t end = (uint32_t)req->slot->io.length, length = 0;
		struct piece *p = NULL;

		/* Fill waits until it is known what is zero; demand does not. */
		if (!req->at && !hgm_nbd_zeroes_of(n, req)) {
			hgm_nbd_zeroes_ask(n, req->slot->io.offset);
			if (!demand && n->zeroes.conn)
				return NULL;
		}
		while (req->at < end && is_zero(req, req->at / PAGE))
			req->at += PAGE;
		while (req->at + length < end && length < n->piece_max &&
		       !is_zero(req, (req->at + length) / PAGE))
			length += PAGE;
		if (length)
			p = get_piece(n, req, length);
		while (req->at < end && is_zero(req, req->at / PAGE))
			req->at += PAGE;
		if (req->at == end)
			list_remove(&req->link);
		if (p)
			return p;
		hgm_nbd_request_advance(n, req);
	}
	return NULL;
}

/* Fill keeps off the first connection while there are others: there demand need not queue. */
static struct conn *pick(struct source_nbd *n, bool demand)
{
	struct conn *best = NULL;
	bool others = false;

	for (uint32_t i = n->opts.connections; i--;) {
		struct conn *c = &n->conn[i];

		if (c->state != CONN_READY || (!demand && !i && others))
			continue;
		others = true;
		if (c->count < (demand ? 2 : 1) * IN_FLIGHT && (!best || c->bytes <= best->bytes))
			best = c;
	}
	return best;
}

static void send_piece(struct source_nbd *n, struct conn *c, struct piece *p)
{
	const struct hgm_io *io = &p->req->slot->io;
	uint64_t now = hgm_nbd_now_ns();

	if (!c->count && n->zeroes.conn != c)
		c->heard_ns = now;
	if (!p->req->sent_ns)
		p->req->sent_ns = now;
	p->conn = c;
	p->got = 0;
	p->error = 0;
	c->count++;
	c->bytes += p->length;
	list_append(&c->pieces, &p->link);
	if (nbd_aio_pread_structured(
		    c->h, (char *)io->buf + p->offset, p->length, io->offset + p->offset,
		    (nbd_chunk_callback){ .callback = chunk, .user_data = p },
		    (nbd_completion_callback){ .callback = completed, .user_data = p }, 0) < 0) {
		const char *why = nbd_get_error();

		hgm_nbd_pieces_done(n);
		if (c->h)
			hgm_nbd_conn_lose(c, why);
	} else {
		hgm_nbd_conn_look(c, now);
	}
}

static void send_all(struct source_nbd *n, bool demand)
{
	while (n->free_count > (demand ? 0 : URGENT_PIECES)) {
		struct conn *c = pick(n, demand);
		struct list *link = list_first(&n->again[demand]);

		if (!c)
			return;
		if (!link)
			link = (struct list *)cut_piece(n, demand);
		if (!link)
			return;
		/* Where zeroes were asked for meanwhile, the connection may be gone. */
		if (c->state == CONN_READY)
			send_piece(n, c, (struct piece *)link);
		else
			hgm_nbd_piece_again(n, (struct piece *)link);
	}
}

void hgm_nbd_pieces_send(struct source_nbd *n)
{
	send_all(n, true);
	send_all(n, false);
}

/* The server's word on a piece. What comes before the first bad piece of a request is good. */
static void take_result(struct source_nbd *n, struct piece *p)
{
	struct request *req = p->req;
	unsigned long long at = req->slot->io.offset + p->offset;

	if (p->error == EPROTO)
		hgm_nbd_log(n, HGM_LOG_WARNING, "NBD %s: the server sent %u of %u bytes at %llu",
			    n->uri, p->got, p->length, at);
	if (p->error && p->offset < req->good) {
		req->good = p->offset;
		req->error = p->error == EPROTO ? -EIO : -p->error;
	}
	if (p->error && !req->ended) {
		req->ended = true;
		list_remove(&req->link);
	}
	hgm_nbd_piece_free(n, p);
	hgm_nbd_request_advance(n, req);
}

/*
 * Which buffer the kernel could not write to is not known. The library finds out, as it asks again
 * for each of them.
 */
void hgm_nbd_piece_lost(struct conn *c, struct piece *p)
{
	p->error = EFAULT;
	if (c->fault)
		take_result(c->n, p);
	else
		hgm_nbd_piece_again(c->n, p);
}

void hgm_nbd_pieces_done(struct source_nbd *n)
{
	struct list *link;

	while ((link = list_first(&n->done))) {
		struct piece *p = (struct piece *)link;
		struct conn *c = p->conn;

		list_remove(link);
		c->count--;
		c->bytes -= p->length;
		if (p->error == ENOTCONN || p->error == ESHUTDOWN) {
			c->leaving |= p->error == ESHUTDOWN;
			hgm_nbd_piece_lost(c, p); /* the connection's end, or soon to come */
		} else {
			c->backoff_ns = 0;
			take_result(n, p);
		}
	}
}
