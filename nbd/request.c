/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests of engines, from the ring to the answer.
 */
#include <errno.h>
#include <string.h>

#include "nbd.h"

#define LOOK_NS (50 * NS_IN_MS)
/* What is on its way when its request is cancelled has this long to arrive. */
#define CANCEL_GRACE_NS (200 * NS_IN_MS)

static void answer(struct source_nbd *n, struct request *req)
{
	struct ring_slot *slot = req->slot;
	struct hgm_io io = slot->io;

	list_remove(&req->link);
	req->slot = NULL;
	n->unanswered--;
	hgm_nbd_ring_put(&n->ring, slot);
	if (!req->good)
		hgm_io_done(&io, req->error);
	else if (req->has_zeroes)
		hgm_io_done_sparse(&io, req->good, req->zeroes);
	else
		hgm_io_done(&io, (int64_t)req->good);
}

/* A part of it has been decided. Answers the request if that was the last one. */
void hgm_nbd_request_advance(struct source_nbd *n, struct request *req)
{
	if (!req->pieces && (req->ended || req->at == req->slot->io.length))
		answer(n, req);
}

/* The pieces that wait to be asked again are not asked. */
static void drop_again(struct source_nbd *n, struct list *again, const struct request *req)
{
	struct list *next;

	for (struct list *link = again->next; link != again; link = next) {
		struct piece *p = (struct piece *)link;

		next = link->next;
		if (p->req == req)
			hgm_nbd_piece_free(n, p);
	}
}

/*
 * Ask for nothing more of it. What is on its way may still arrive, until @cut_ns: then its
 * connections are dropped, as libnbd writes into the buffer for as long as they exist.
 */
void hgm_nbd_request_end(struct request *req, struct source_nbd *n, int error, uint64_t cut_ns)
{
	req->ended = true;
	req->good = 0;
	req->error = error;
	req->cut_ns = cut_ns < req->cut_ns ? cut_ns : req->cut_ns;
	list_remove(&req->link);
	drop_again(n, &n->again[false], req);
	drop_again(n, &n->again[true], req);
	hgm_nbd_request_advance(n, req);
}

static struct request *find(struct source_nbd *n, const struct hgm_io *io)
{
	for (uint32_t i = 0; i < RING_SLOTS; i++) {
		struct request *req = &n->request[i];

		if (req->slot && req->slot->io.id == io->id && req->slot->io.engine == io->engine)
			return req;
	}
	return NULL;
}

static void take_read(struct source_nbd *n, struct ring_slot *slot, uint64_t now)
{
	struct request *req = &n->request[slot - n->ring.slot];

	req->slot = slot;
	req->asked_ns = now;
	req->sent_ns = 0;
	req->cut_ns = NEVER;
	req->at = 0;
	req->good = (uint32_t)slot->io.length;
	req->pieces = 0;
	req->error = 0;
	req->ended = false;
	req->demand = slot->io.flags & HGM_IO_DEMAND;
	req->has_zeroes = false;
	if (!n->unanswered++)
		n->look_ns = now + LOOK_NS;
	list_append(&n->waiting[req->demand], &req->link);
	/* The library asks for no more than the length that it was told. */
	if (slot->io.offset > n->size || slot->io.length > n->size - slot->io.offset ||
	    slot->io.length > CHUNK)
		hgm_nbd_request_end(req, n, -EINVAL, 0);
	else if (n->refused)
		hgm_nbd_request_end(req, n, n->refused, 0);
}

static void hurry(struct source_nbd *n, struct request *req)
{
	struct list *next;

	if (req->demand)
		return;
	req->demand = true;
	if (!list_empty(&req->link))
		list_append(&n->waiting[true], &req->link);
	for (struct list *link = n->again[false].next; link != &n->again[false]; link = next) {
		next = link->next;
		if (((struct piece *)link)->req == req)
			list_append(&n->again[true], link);
	}
}

void hgm_nbd_requests_take(struct source_nbd *n)
{
	struct ring_slot *slot = hgm_nbd_ring_take(&n->ring), *next;
	uint64_t now = slot ? hgm_nbd_now_ns() : 0;

	for (; slot; slot = next) {
		struct request *req = slot->kind == RING_READ ? NULL : find(n, &slot->io);

		next = hgm_nbd_ring_next(&n->ring, slot);
		if (slot->kind == RING_READ) {
			take_read(n, slot, now);
			continue;
		}
		if (req && slot->kind == RING_HURRY)
			hurry(n, req);
		else if (req)
			hgm_nbd_request_end(req, n, -ECANCELED, now + CANCEL_GRACE_NS);
		hgm_nbd_ring_put(&n->ring, slot);
		atomic_fetch_sub_explicit(&n->told, 1, memory_order_relaxed);
	}
}

static void cut(struct source_nbd *n, const struct request *req)
{
	for (uint32_t i = 0; i < n->opts.connections; i++) {
		struct conn *c = &n->conn[i];

		for (struct list *link = c->pieces.next; link != &c->pieces; link = link->next) {
			if (((struct piece *)link)->req == req) {
				hgm_nbd_conn_lose(c, "a request took too long");
				break;
			}
		}
	}
}

static bool has_waited(const struct source_nbd *n, const struct request *req, uint64_t now)
{
	uint64_t since = req->asked_ns > n->lost_ns ? req->asked_ns : n->lost_ns;

	if (req->sent_ns)
		return now - req->sent_ns >= n->give_up_ns;
	return n->lost_ns && now >= since + n->give_up_ns;
}

void hgm_nbd_requests_look(struct source_nbd *n, uint64_t now)
{
	n->look_ns = now + LOOK_NS;
	for (uint32_t i = 0; i < RING_SLOTS; i++) {
		struct request *req = &n->request[i];

		if (req->slot && has_waited(n, req, now))
			hgm_nbd_request_end(req, n, -ETIMEDOUT, now);
		if (req->slot && now >= req->cut_ns)
			cut(n, req);
	}
}

/* All that wait, and that no connection holds. */
void hgm_nbd_requests_refuse(struct source_nbd *n, int error)
{
	for (uint32_t i = 0; i < RING_SLOTS; i++)
		if (n->request[i].slot && !n->request[i].ended)
			hgm_nbd_request_end(&n->request[i], n, error, NEVER);
}
