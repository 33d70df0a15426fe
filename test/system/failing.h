/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A kernel, or a model of one, that refuses one call.
 */
#ifndef HGM_TEST_FAILING_H
#define HGM_TEST_FAILING_H

#include "harness.h"

enum failing_verb {
	FAILING_WRITEPROTECT,
	FAILING_REGISTER,
	FAILING_UNREGISTER,
	FAILING_TAKE_WRITTEN,	   /* at once */
	FAILING_TAKE_WRITTEN_LATE, /* after some of the range has been handled and reported */
	FAILING_API,
	FAILING_VERBS,
};

extern const char *const failing_names[];

void failing_begin(void);
void failing_end(void);

/* From now on the @nth call, counted from 0, fails with @error. */
void failing_arm(enum failing_verb verb, unsigned int nth, int error);
/* True if that call has been made. */
bool failing_disarm(void);

#endif
