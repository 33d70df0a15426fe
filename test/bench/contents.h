/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the memory of every bench shall hold: the same bytes at the same offset each time
 */
#ifndef HGM_BENCH_CONTENTS_H
#define HGM_BENCH_CONTENTS_H

#include <stddef.h>
#include <stdint.h>

/* The first @bytes of them, in memory. */
const char *contents(size_t bytes);

/* The same as an unlinked file whose pages are in the page cache. */
int contents_file(size_t bytes);

/* Dies unless @memory holds the first @bytes, by checksum; a multiple of 2 MiB. */
void contents_check(const char *who, const void *memory, size_t bytes);

#endif
