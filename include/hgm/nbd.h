/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/nbd.h - page contents from an NBD server
 *
 * A library of its own, libhgm-nbd (pkg-config: hgm-nbd), because it needs libnbd.
 */
#ifndef HGM_NBD_H
#define HGM_NBD_H

#include <hgm/base.h>
#include <hgm/log.h>
#include <hgm/source.h>

HGM_BEGIN_DECLS

/**
 * struct hgm_source_nbd_opts - options of an NBD source
 * @size:        sizeof(struct hgm_source_nbd_opts)
 * @connections: how many connections to use, at most 16, if the server allows more than one
 *               (multi-conn). While there are others, the first one carries only what threads wait
 *               for. Default: 4
 * @timeout_ms:  how long the server may be silent, in milliseconds: while it is being connected to,
 *               and while requests are unanswered. After that the connection counts as lost.
 *               Default: 10000
 * @give_up_ms:  how long a request is asked over and over, in milliseconds, counted from when it
 *               was sent first or, if there is no connection, from when it was lost. After that the
 *               request fails with -ETIMEDOUT, and the engine retries it for as long as @outage_ms
 *               of struct hgm_opts says. Default: 30000
 * @reserved:    0
 * @log:         called on the source's own thread to report connections that are lost and made
 *               again, and servers that are not the one they were. May be NULL
 * @log_user:    passed to @log
 */
struct hgm_source_nbd_opts {
	size_t size;
	uint32_t connections;
	uint32_t timeout_ms;
	uint32_t give_up_ms;
	uint32_t reserved;
	hgm_log_fn log;
	void *log_user;
};

/**
 * hgm_source_nbd - a source that reads an NBD export
 * @out:  the new source
 * @uri:  of the export, as nbd_connect_uri(3) takes it: nbd://host/export,
 *        nbd+unix:///export?socket=path, nbd+vsock://cid/export, and the same with nbds for TLS. It
 *        may name local files with keys, so it must come from somebody who may read them
 * @opts: NULL for the defaults
 *
 * The call makes the first connection. A thread of the source, hgm-nbd, makes the others and reads
 * from all of them, with many requests in flight. Contents that a thread waits for go before those
 * of fill. What the server says to be zero (base:allocation) is not read.
 *
 * If a connection is lost, or the server is silent for @timeout_ms, the thread connects again,
 * after a pause that grows up to a second, and asks again for everything that was unanswered. The
 * export must keep its contents while the source is in use. If the server comes back with another
 * size or with another name of the export, requests fail with -ESTALE until it comes back as it
 * was.
 *
 * The source is released with hgm_source_destroy(). The call that frees it waits for the thread,
 * which waits for nobody, except that libnbd resolves names of hosts when it connects.
 *
 * Errors: -EINVAL @out or @uri is NULL, @uri is not an NBD URI, an option is out of range, or the
 * export is smaller than a page; -E2BIG bad options; -ENOMEM; -ENOTSUP the server reads no pieces
 * of 4096 bytes, or one side lacks TLS that the URI asks for; -ETIMEDOUT the server does not
 * answer; others as connect(2) and the server say, most often -ENOENT, -EACCES and -ECONNREFUSED,
 * and -EPROTO if the server breaks the protocol, or if libnbd has only words for what failed, as
 * for a host that is not known.
 * Calling thread: any. Blocks until the server has answered, @timeout_ms at most, and for as long
 * as it takes to resolve the host's name. Since: 0.1.
 */
HGM_PUBLIC int hgm_source_nbd(struct hgm_source **out, const char *uri,
			      const struct hgm_source_nbd_opts *opts);

HGM_END_DECLS

#endif /* HGM_NBD_H */
