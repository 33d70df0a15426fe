/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A source behind one TCP connection over loopback. A thread at the far end answers one request
 * after the other, as most image servers do for each client.
 */
#ifndef HGM_BENCH_TCP_H
#define HGM_BENCH_TCP_H

#include <stddef.h>

#include <hgm/source.h>

struct tcp;

/* Dies on failure. @data must stay valid. */
struct tcp *tcp_create(const void *data, size_t bytes);

/* Call this when no engine uses it any more. */
void tcp_destroy(struct tcp *t);

struct hgm_source *tcp_source(const struct tcp *t);

#endif
