/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counts, by phase, the system calls of a thread and of all threads that it starts from then on.
 */
#ifndef HGM_TEST_OBSERVE_H
#define HGM_TEST_OBSERVE_H

#include <stdatomic.h>

#define OBSERVE_CALLS  512
#define OBSERVE_PHASES 10

/* A call counts in the @phase in which it is made. A process and its children share this struct. */
struct observed {
	_Atomic unsigned int phase;
	_Atomic unsigned int calls[OBSERVE_PHASES][OBSERVE_CALLS];
};

/*
 * From now on the calls of the calling thread are counted, and this never ends. Returns 0, or a
 * negative errno if this kernel does not support it (5.0), or if it is forbidden.
 */
int observe_begin(struct observed *observed);

#endif
