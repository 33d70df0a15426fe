/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The expected contents of memory in every bench: always the same bytes at the same offset
 */
#ifndef HGM_BENCH_CONTENTS_H
#define HGM_BENCH_CONTENTS_H

#include <stddef.h>
#include <stdint.h>

/* The first @bytes of the contents, in memory. */
const char *contents(size_t bytes);

/* The same in an unlinked file whose pages are in the page cache. */
int contents_file(size_t bytes);

/* Dies unless @memory has the checksums of the first @bytes, a multiple of 2 MiB. */
void contents_check(const char *who, const void *memory, size_t bytes);

#endif
