/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which pages of the export are zero, by the meta context base:allocation. It is asked for a long
 * stretch from the first page on of which it is not known, one question at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nbd.h"

#define STRETCH	  (UINT64_C(1) << 30)
#define TRIES	  16 /* answers that one chunk may take; what is left is taken for contents */
#define LOSSES	  8
#define GAP_PAGES 8 /* fewer zero pages between contents are not worth another read */

/* Without memory for it everything is read. */
void hgm_nbd_zeroes_init(struct source_nbd *n)
{
	uint64_t pages = n->size / PAGE;
	struct zeroes *z = &n->zeroes;

	z->page = calloc(pages / 64 + 1, sizeof(*z->page));
	z->known = calloc(n->size / CHUNK + 1, sizeof(*z->known));
	z->off = !z->page || !z->known || !n->conn[0].tells_zeroes;
	z->next = NEVER;
}

void hgm_nbd_zeroes_free(struct source_nbd *n)
{
	free(n->zeroes.page);
	free(n->zeroes.known);
}

static bool page_is_zero(const struct zeroes *z, uint64_t page)
{
	return z->page[page / 64] >> page % 64 & 1;
}

/* @count pages from @from on are read although they are zero. */
static void clear(struct request *req, uint64_t from, uint64_t count)
{
	for (uint64_t i = from; i < from + count; i++)
		req->zeroes[i / 64] &= ~(UINT64_C(1) << i % 64);
}

static void clear_gaps(struct request *req, uint64_t pages)
{
	uint64_t run = 0;

	for (uint64_t i = 0; i <= pages; i++) {
		if (i < pages && req->zeroes[i / 64] >> i % 64 & 1) {
			run++;
			continue;
		}
		if (run < GAP_PAGES && run < pages)
			clear(req, i - run, run);
		run = 0;
	}
}

bool hgm_nbd_zeroes_of(struct source_nbd *n, struct request *req)
{
	const struct hgm_io *io = &req->slot->io;
	uint64_t first = io->offset / PAGE, pages = io->length / PAGE;
	struct zeroes *z = &n->zeroes;
	uint64_t any = 0;

	if (z->off)
		return true;
	if (!z->known[io->offset / CHUNK] || !z->known[(io->offset + io->length - 1) / CHUNK])
		return false;
	memset(req->zeroes, 0, sizeof(req->zeroes));
	for (uint64_t i = 0; i < pages; i++)
		if (page_is_zero(z, first + i))
			req->zeroes[i / 64] |= UINT64_C(1) << i % 64;
	clear_gaps(req, pages);
	for (uint64_t i = 0; i < (pages + 63) / 64; i++)
		any |= req->zeroes[i];
	req->has_zeroes = any;
	return true;
}

static void note_run(struct zeroes *z, uint64_t end)
{
	uint64_t from = (z->run + PAGE - 1) / PAGE;

	if (z->run == NEVER)
		return;
	for (uint64_t i = from; i < end / PAGE; i++)
		z->page[i / 64] |= UINT64_C(1) << i % 64;
	z->run = NEVER;
}

/* Called by libnbd, which holds its lock. */
static int extents(void *user, const char *context, uint64_t offset, uint32_t *entries,
		   size_t count, int *error)
{
	struct conn *c = user;
	struct source_nbd *n = c->n;
	struct zeroes *z = &n->zeroes;
	uint64_t at = offset;

	if (c->closing || *error || z->covered != z->at || offset != z->at ||
	    strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
		return 0;
	for (size_t i = 0; i + 1 < count && at < n->size; i += 2) {
		uint64_t end = at + entries[i] < n->size ? at + entries[i] : n->size;

		if (!(entries[i + 1] & LIBNBD_STATE_ZERO))
			note_run(z, at);
		else if (z->run == NEVER)
			z->run = at;
		at = end;
	}
	note_run(z, at);
	z->covered = at;
	return 0;
}

static int completed(void *user, int *error)
{
	struct conn *c = user;
	struct zeroes *z = &c->n->zeroes;

	if (c->closing)
		return 1;
	z->error = *error;
	z->done = true;
	return 1;
}

static struct conn *pick(struct source_nbd *n)
{
	struct conn *best = NULL;

	for (uint32_t i = 0; i < n->opts.connections; i++) {
		struct conn *c = &n->conn[i];

		if (c->state == CONN_READY && c->tells_zeroes && (!best || c->bytes < best->bytes))
			best = c;
	}
	return best;
}

void hgm_nbd_zeroes_ask(struct source_nbd *n, uint64_t offset)
{
	struct zeroes *z = &n->zeroes;
	uint64_t at = offset / CHUNK * CHUNK, length;
	struct conn *c;

	if (z->off || z->conn)
		return;
	if (z->known[at / CHUNK]) /* the request's other chunk is the unknown one */
		at += CHUNK;
	if (z->next != NEVER && z->next / CHUNK * CHUNK == at)
		at = z->next;
	else
		z->tries = 0;
	c = pick(n);
	if (!c) {
		/* A server that came back without the context, or is away. */
		z->off = hgm_nbd_conn_any_ready(n);
		return;
	}
	length = n->size - at < STRETCH ? n->size - at : STRETCH;
	z->at = z->covered = at;
	z->run = NEVER;
	z->done = false;
	z->error = 0;
	z->conn = c;
	if (!c->count)
		c->heard_ns = hgm_nbd_now_ns();
	if (nbd_aio_block_status(
		    c->h, length, at, (nbd_extent_callback){ .callback = extents, .user_data = c },
		    (nbd_completion_callback){ .callback = completed, .user_data = c }, 0) < 0) {
		z->conn = NULL;
		z->off = !nbd_aio_is_dead(c->h);
	}
	hgm_nbd_conn_look(c, c->heard_ns);
}

/* Chunks that are covered as a whole are known. */
static void note_known(struct source_nbd *n)
{
	struct zeroes *z = &n->zeroes;
	uint64_t first = z->at / CHUNK, last = z->covered / CHUNK;

	if (z->covered == n->size)
		last = (n->size + CHUNK - 1) / CHUNK;
	for (uint64_t i = first; i < last; i++)
		z->known[i] = true;
	z->next = NEVER;
	if (last > first)
		return;
	z->next = z->covered / PAGE * PAGE;
	if (++z->tries >= TRIES || z->next <= z->at) {
		z->known[first] = true;
		z->next = NEVER;
	}
}

/* Perhaps the question is what the server does not survive. */
void hgm_nbd_zeroes_lost(struct conn *c)
{
	struct zeroes *z = &c->n->zeroes;

	if (z->conn != c)
		return;
	z->conn = NULL;
	z->off |= ++z->losses >= LOSSES;
}

void hgm_nbd_zeroes_answered(struct source_nbd *n)
{
	struct zeroes *z = &n->zeroes;

	if (!z->conn || !z->done)
		return;
	z->conn = NULL;
	z->done = false;
	if (z->error == ENOTCONN || z->error == ESHUTDOWN)
		return;
	z->losses = 0;
	if (!z->error) {
		note_known(n);
	} else {
		hgm_nbd_log(n, HGM_LOG_INFO,
			    "NBD %s: the server does not say what is zero (%s): all of it is read",
			    n->uri, strerror(z->error));
		z->off = true;
	}
}
