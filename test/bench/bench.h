/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_BENCH_H
#define HGM_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one server of faults did in one round. */
struct result {
	double p50_us;
	double p99_us;
	double faults_per_s;
};

/*
 * Somebody who serves the faults of @pages pages of memory whose contents lie ready at @source:
 * made before the round's clock starts, and ended after it.
 */
struct server {
	const char *name;
	void *(*begin)(const char *source, size_t pages, char **memory);
	void (*end)(void *state);
};

extern const struct server hgm_server; /* libhgm */
extern const struct server
	raw_spin_server; /* read without sleeping, memcpy, CONTINUE: nothing else */
extern const struct server raw_poll_server; /* the same, sleeping in poll(2) */

void die(const char *what, const char *why) __attribute__((noreturn));

#endif
