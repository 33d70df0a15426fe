/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The source: its options, its beginning and end, and what the engine's threads call.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <hgm/error.h>

#include "nbd.h"

#define STACK_BYTES	    (512 << 10) /* libnbd resolves names and speaks TLS on it */
#define OPTS_MAX	    4096
#define CONNECTIONS_DEFAULT 4
#define TIMEOUT_MS	    10000
#define GIVE_UP_MS	    30000
#define FIRST_SIZE	    (offsetof(struct hgm_source_nbd_opts, log_user) + sizeof(void *))

static void wake(struct source_nbd *n)
{
	const uint64_t one = 1;
	int saved = errno;
	ssize_t put;

	/* Nonblocking. It fails only if the counter is full, and then the thread wakes anyway. */
	put = write(n->wake_fd, &one, sizeof(one));
	(void)put;
	errno = saved;
}

/* On fault threads. */
static int64_t ask(void *user, const struct hgm_io *io)
{
	struct source_nbd *n = user;
	struct ring_slot *slot = hgm_nbd_ring_get(&n->ring);

	if (!slot) /* of several engines: one engine's requests all fit */
		return -EBUSY;
	slot->io = *io;
	slot->kind = RING_READ;
	if (hgm_nbd_ring_ask(&n->ring, slot))
		wake(n);
	return HGM_IO_LATER;
}

static void tell(struct source_nbd *n, enum ring_kind kind, struct hgm *engine, uint64_t id)
{
	struct ring_slot *slot = NULL;

	/* They must not take the slots of reads. */
	if (atomic_fetch_add_explicit(&n->told, 1, memory_order_relaxed) < RING_TOLD)
		slot = hgm_nbd_ring_get(&n->ring);
	if (!slot) { /* the library repeats a cancel, and a hurry is a wish */
		atomic_fetch_sub_explicit(&n->told, 1, memory_order_relaxed);
		return;
	}
	slot->io = (struct hgm_io){ .engine = engine, .id = id };
	slot->kind = kind;
	if (hgm_nbd_ring_ask(&n->ring, slot))
		wake(n);
}

static void hurry(void *user, struct hgm *engine, uint64_t id)
{
	tell(user, RING_HURRY, engine, id);
}

static void cancel(void *user, struct hgm *engine, uint64_t id)
{
	tell(user, RING_CANCEL, engine, id);
}

static void release(struct source_nbd *n)
{
	hgm_nbd_zeroes_free(n);
	if (n->wake_fd >= 0)
		close(n->wake_fd);
	free(n->name);
	free(n->uri);
	free(n);
}

static void stop(void *user)
{
	struct source_nbd *n = user;
	int before;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	atomic_store_explicit(&n->stop, true, memory_order_release);
	wake(n);
	pthread_join(n->thread, NULL);
	release(n);
	pthread_setcancelstate(before, NULL);
}

static int start_thread(struct source_nbd *n)
{
	static const int synchronous[] = { SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGSYS };
	sigset_t most, before;
	pthread_attr_t attr;
	int rc;

	/* A blocked synchronous signal kills the process without calling the caller's handler. */
	sigfillset(&most);
	for (size_t i = 0; i < sizeof(synchronous) / sizeof(synchronous[0]); i++)
		sigdelset(&most, synchronous[i]);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_sigmask(SIG_SETMASK, &most, &before);
	rc = pthread_create(&n->thread, &attr, hgm_nbd_thread, n);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	if (rc)
		return hgm_nbd_fail(-rc, "hgm_source_nbd: starting thread hgm-nbd: %s",
				    strerror(rc));
	pthread_setname_np(n->thread, "hgm-nbd");
	return 0;
}

/* As for all structs of libhgm that begin with their size. */
static int copy_opts(struct hgm_source_nbd_opts *own, const struct hgm_source_nbd_opts *user)
{
	size_t size = user ? user->size : sizeof(*own);
	const unsigned char *bytes = (const unsigned char *)user;

	memset(own, 0, sizeof(*own));
	if (size < FIRST_SIZE || size > OPTS_MAX)
		return hgm_nbd_fail(-EINVAL,
				    "hgm_source_nbd: the struct's size field is %zu; set it "
				    "to sizeof the struct and zero the rest",
				    size);
	for (size_t i = sizeof(*own); user && i < size; i++)
		if (bytes[i])
			return hgm_nbd_fail(-E2BIG,
					    "hgm_source_nbd: an option at byte %zu is from a "
					    "newer library than the one in use",
					    i);
	if (user)
		memcpy(own, user, size < sizeof(*own) ? size : sizeof(*own));
	if (own->reserved || own->connections > CONNECTIONS_MAX)
		return hgm_nbd_fail(-EINVAL,
				    "hgm_source_nbd: %u connections, the most are %d; or "
				    "reserved is not 0",
				    own->connections, CONNECTIONS_MAX);
	own->connections = own->connections ? own->connections : CONNECTIONS_DEFAULT;
	own->timeout_ms = own->timeout_ms ? own->timeout_ms : TIMEOUT_MS;
	own->give_up_ms = own->give_up_ms ? own->give_up_ms : GIVE_UP_MS;
	return 0;
}

static void init(struct source_nbd *n)
{
	hgm_nbd_ring_init(&n->ring);
	list_init(&n->free_pieces);
	list_init(&n->done);
	for (int i = 0; i < 2; i++) {
		list_init(&n->waiting[i]);
		list_init(&n->again[i]);
	}
	for (int i = 0; i < PIECES; i++) {
		list_init(&n->piece[i].link);
		list_append(&n->free_pieces, &n->piece[i].link);
	}
	n->free_count = PIECES;
	for (int i = 0; i < RING_SLOTS; i++)
		list_init(&n->request[i].link);
	for (int i = 0; i < CONNECTIONS_MAX; i++) {
		n->conn[i].n = n;
		list_init(&n->conn[i].pieces);
	}
	n->timeout_ns = n->opts.timeout_ms * NS_IN_MS;
	n->give_up_ns = n->opts.give_up_ms * NS_IN_MS;
}

static int make(struct hgm_source **out, const char *uri, const struct hgm_source_nbd_opts *opts)
{
	struct hgm_source_fn_opts fn = {
		.size = sizeof(fn), .cancel = cancel, .hurry = hurry, .free = stop
	};
	struct hgm_source_nbd_opts own;
	struct source_nbd *n;
	int rc = copy_opts(&own, opts);

	if (rc)
		return rc;
	n = aligned_alloc(alignof(struct source_nbd), sizeof(*n));
	if (!n)
		return hgm_nbd_fail(-ENOMEM, "hgm_source_nbd: out of memory");
	memset(n, 0, sizeof(*n));
	n->opts = own;
	init(n);
	n->uri = strdup(uri);
	n->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (n->wake_fd < 0)
		rc = hgm_nbd_fail(-errno, "hgm_source_nbd: eventfd: %s", strerror(errno));
	else if (!n->uri)
		rc = hgm_nbd_fail(-ENOMEM, "hgm_source_nbd: out of memory");
	if (!rc)
		rc = hgm_nbd_conn_open_first(n);
	if (rc) {
		release(n);
		return rc;
	}
	hgm_nbd_zeroes_init(n);
	rc = start_thread(n);
	if (rc) {
		hgm_nbd_conn_close(&n->conn[0]);
		release(n);
		return rc;
	}
	fn.length = n->size;
	rc = hgm_source_fn(out, ask, n, &fn);
	if (rc)
		stop(n);
	return rc;
}

int hgm_source_nbd(struct hgm_source **out, const char *uri, const struct hgm_source_nbd_opts *opts)
{
	int before, rc;

	if (!out || !uri)
		return hgm_nbd_fail(-EINVAL, "hgm_source_nbd: %s is NULL", out ? "uri" : "out");
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	rc = make(out, uri, opts);
	pthread_setcancelstate(before, NULL);
	return rc;
}
