/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A source that reads an NBD export. One thread owns all that is here, but for the ring and @stop;
 * before that thread starts and after it has ended, the caller's thread does.
 */
#ifndef HGM_NBD_NBD_H
#define HGM_NBD_NBD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <libnbd.h>

#include <hgm/nbd.h>

#include "list.h"
#include "ring.h"

#define PAGE	 UINT64_C(4096)
#define CHUNK	 (UINT64_C(2) << 20) /* the largest request; zeroes are known by the chunk */
#define PIECE	 (UINT64_C(256) << 10)
#define NS_IN_MS UINT64_C(1000000)
#define NEVER	 UINT64_MAX

#define CONNECTIONS_MAX 16
#define IN_FLIGHT	64 /* pieces of a connection */
#define PIECES		(CONNECTIONS_MAX * IN_FLIGHT)
#define URGENT_PIECES	64 /* that fill leaves to demand */

/* A request of the engine. It has the place of its ring slot. */
struct request {
	struct list link;	/* in a queue, while not all of it was cut into pieces */
	struct ring_slot *slot; /* NULL: none */
	uint64_t asked_ns;
	uint64_t sent_ns; /* when its first piece was sent first; 0: not yet */
	uint64_t cut_ns;  /* when connections that hold pieces of it are dropped; NEVER */
	uint32_t at;	  /* bytes that pieces or zeroes have covered so far */
	uint32_t good;	  /* bytes up to the first that failed */
	uint32_t pieces;
	int error;  /* -errno of what is not good */
	bool ended; /* nothing of it is asked any more */
	bool demand;
	bool has_zeroes;
	uint64_t zeroes[CHUNK / PAGE / 64];
};

/* A part of a request, as it is asked of the server. */
struct piece {
	struct list link; /* free, in flight on a connection, done, or to be asked again */
	struct request *req;
	struct conn *conn;
	uint32_t offset; /* in the request */
	uint32_t length;
	uint32_t got;
	int error; /* errno */
};

enum conn_state {
	CONN_CLOSED,
	CONN_CONNECTING,
	CONN_READY
};

struct conn {
	struct source_nbd *n;
	struct nbd_handle *h; /* NULL: closed */
	enum conn_state state;
	struct list pieces; /* in flight */
	unsigned int count; /* of these */
	uint64_t bytes;
	uint64_t due_ns;     /* closed: when to connect; connecting: when it has taken too long */
	uint64_t heard_ns;   /* ready: when something came last, or else was asked first */
	uint64_t backoff_ns; /* until the next try */
	bool tells_zeroes;
	bool leaving; /* the server is shutting down */
	bool fault;   /* the kernel could not write into a buffer */
	bool closing; /* its callbacks do not count any more */
};

/* What base:allocation says. A bit for each page that is zero, and what of it is known. */
struct zeroes {
	uint64_t *page;
	bool *known; /* of each chunk; unless it is, its bits do not count */
	bool off;
	struct conn *conn;	   /* that is being asked, or NULL */
	uint64_t at, covered, run; /* of the question; @run: start of zeroes at its end, or NEVER */
	uint64_t next; /* where to go on within a chunk that took more than one answer */
	unsigned int tries;
	unsigned int losses; /* connections that ended over a question, in a row */
	bool done;
	int error;
};

struct source_nbd {
	struct ring ring;
	int wake_fd;
	_Atomic bool stop;
	_Atomic unsigned int told; /* slots that hurries and cancels have */
	pthread_t thread;

	char *uri;
	struct hgm_source_nbd_opts opts;
	uint64_t timeout_ns, give_up_ns;

	/* What the first connection said; each later one must say the same. */
	uint64_t size;
	char *name;	    /* NULL: the server tells none */
	uint64_t piece_max; /* bytes */
	bool many;	    /* connections may be used side by side */

	struct conn conn[CONNECTIONS_MAX];
	struct request request[RING_SLOTS];
	struct piece piece[PIECES];
	struct list free_pieces;
	unsigned int free_count;
	struct list waiting[2]; /* requests; [1]: demand */
	struct list again[2];	/* pieces, likewise */
	struct list done;	/* pieces */
	unsigned int unanswered;
	uint64_t look_ns; /* when to look for requests that have waited for too long */
	uint64_t lost_ns; /* since when no connection is ready; 0: one is */
	int refused;	  /* -errno: the server is not the one it was */
	struct zeroes zeroes;

	char said[512]; /* the last line of the log */
	uint64_t said_ns;
};

uint64_t hgm_nbd_now_ns(void);

/* words.c */
int hgm_nbd_fail(int rc, const char *format, ...) __attribute__((format(printf, 2, 3)));
void hgm_nbd_log(struct source_nbd *n, enum hgm_log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
int hgm_nbd_error(void); /* -errno of libnbd's last error on this thread */

/* conn.c: connections. An error of the first one has a text. */
int hgm_nbd_conn_open_first(struct source_nbd *n);
void hgm_nbd_conn_open_due(struct source_nbd *n, uint64_t now);
bool hgm_nbd_conn_any_ready(const struct source_nbd *n);
void hgm_nbd_conn_look(struct conn *c,
		       uint64_t now); /* after each call that may change its state */
void hgm_nbd_conn_lose(struct conn *c, const char *why); /* asks again for what it held */
void hgm_nbd_conn_close(struct conn *c);

/* request.c: from the ring to the answer */
void hgm_nbd_requests_take(struct source_nbd *n);
void hgm_nbd_requests_look(struct source_nbd *n, uint64_t now);
void hgm_nbd_requests_refuse(struct source_nbd *n, int error);
void hgm_nbd_request_end(struct request *req, struct source_nbd *n, int error, uint64_t cut_ns);
void hgm_nbd_request_advance(struct source_nbd *n, struct request *req);

/* piece.c */
void hgm_nbd_pieces_send(struct source_nbd *n);
void hgm_nbd_pieces_done(struct source_nbd *n);
void hgm_nbd_piece_again(struct source_nbd *n, struct piece *p);
void hgm_nbd_piece_lost(struct conn *c, struct piece *p); /* its connection has ended */
void hgm_nbd_piece_free(struct source_nbd *n, struct piece *p);

/* zeroes.c */
void hgm_nbd_zeroes_init(struct source_nbd *n);
void hgm_nbd_zeroes_free(struct source_nbd *n);
bool hgm_nbd_zeroes_of(struct source_nbd *n, struct request *req); /* false: not known yet */
void hgm_nbd_zeroes_ask(struct source_nbd *n, uint64_t offset);
void hgm_nbd_zeroes_answered(struct source_nbd *n);
void hgm_nbd_zeroes_lost(struct conn *c);

/* loop.c */
int hgm_nbd_poll(struct source_nbd *n, struct conn *only, uint64_t until_ns);
void *hgm_nbd_thread(void *arg);

#endif
