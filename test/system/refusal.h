/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The C library or the kernel refuses one request of the library: the n-th piece of memory, thread,
 * mapping or descriptor that it asks for. Later requests succeed. A test that uses this must be
 * linked with REFUSAL_LINK_ARGS of test/meson.build.
 */
#ifndef HGM_TEST_REFUSAL_H
#define HGM_TEST_REFUSAL_H

#include <stdbool.h>
#include <stdint.h>

enum refusal {
	REFUSE_MEMORY,
	REFUSE_THREAD,
	REFUSE_MAPPING,
	REFUSE_DESCRIPTOR,
	REFUSE_LEAF, /* of the page-state map, which reserves its leaves at the beginning */
	REFUSALS,
};

extern const char *const refusal_names[];
extern const int refusal_errors[]; /* the negative errno that a refusal returns */

/* Inserts a layer between the library and the kernel. No object of the library may exist. */
void refusal_begin(void);

/* From now on, the @nth request is refused, counted from 0. */
void refusal_arm(enum refusal what, unsigned int nth);
/* True if something was refused. */
bool refusal_disarm(void);

/* What the library holds at the moment: pieces of memory, and bytes of mappings. */
long refusal_pieces(void);
int64_t refusal_mapped(void);

#endif
