/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One refusal, by the C library or the kernel, of what the library needs: the n-th piece of memory,
 * thread, mapping or descriptor that it asks for is not to be had; those after it are. Linked with
 * REFUSAL_LINK_ARGS of test/meson.build.
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
	REFUSE_LEAF, /* of the page-state map, which has them from the beginning */
	REFUSALS,
};

extern const char *const refusal_names[];
extern const int refusal_errors[]; /* what is returned then: negative errno */

/* Put something between the library and the kernel, while no object of the library exists. */
void refusal_begin(void);

/* From now on; @nth is counted from 0. */
void refusal_arm(enum refusal what, unsigned int nth);
/* True if something was refused. */
bool refusal_disarm(void);

/* What the library has at the moment: pieces of memory, bytes of mappings. */
long refusal_pieces(void);
int64_t refusal_mapped(void);

#endif
