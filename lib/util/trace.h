/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Static probes (USDT) of provider "hgm", for bpftrace, perf and systemtap. Each is one no-op
 * instruction until a tracer attaches. examples/faults.bt shows how to use them. Names and
 * arguments:
 *
 *	fault		address, HGM_UFFD_FAULT_* flags		a message was read
 *	ask		request, offset, bytes, demand or 0	the source is asked
 *	answer		request, result				it has answered
 *	install		address, bytes, bytes that existed	mapped; waiters are woken, or soon
 *	wake		address, bytes				waiters are woken by a separate call
 *	collapse	address, bytes, result			one try at a block
 *	protect		address, result				a write to a write-protected page
 *
 * A request is identified by its address until it is answered. test/install/probes.py checks the
 * table.
 */
#ifndef HGM_LIB_TRACE_H
#define HGM_LIB_TRACE_H

#ifdef HGM_USDT
#include <sys/sdt.h>

#define HGM_TRACE2(name, a, b)	     DTRACE_PROBE2(hgm, name, a, b)
#define HGM_TRACE3(name, a, b, c)    DTRACE_PROBE3(hgm, name, a, b, c)
#define HGM_TRACE4(name, a, b, c, d) DTRACE_PROBE4(hgm, name, a, b, c, d)
#else
#define HGM_TRACE2(name, a, b)	     ((void)(a), (void)(b))
#define HGM_TRACE3(name, a, b, c)    ((void)(a), (void)(b), (void)(c))
#define HGM_TRACE4(name, a, b, c, d) ((void)(a), (void)(b), (void)(c), (void)(d))
#endif

#endif
