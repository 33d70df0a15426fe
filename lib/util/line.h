/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_LINE_H
#define HGM_LIB_LINE_H

#include <stddef.h>

#define HGM_LINE_BYTES 64

/*
 * A field that several threads change all the time keeps other threads from everything that shares
 * its cache line. So the part of a struct from @first to before @next has cache lines of its own.
 */
#define HGM_OWN_LINES(type, first, next)                                     \
	_Static_assert(offsetof(type, first) % HGM_LINE_BYTES == 0 &&        \
			       offsetof(type, next) % HGM_LINE_BYTES == 0 && \
			       offsetof(type, first) < offsetof(type, next), \
		       #first " of " #type " begins a cache line, and " #next " another one")

/* No element of an array of these shares a cache line with the next one. */
#define HGM_WHOLE_LINES(type)                                                                  \
	_Static_assert(sizeof(type) % HGM_LINE_BYTES == 0 && _Alignof(type) >= HGM_LINE_BYTES, \
		       #type " is whole cache lines")

#endif
