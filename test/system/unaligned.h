/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A region in memory of the caller that is not aligned to blocks, with a source, an engine, and
 * fences around it.
 */
#ifndef HGM_TEST_UNALIGNED_H
#define HGM_TEST_UNALIGNED_H

#include "margins.h"

/* All in pages. The region and its margins are whole blocks, unless the file does not fit. */
struct shape {
	uint64_t head, tail, pages, file_head;
};

extern const struct shape unaligned_shapes[];
extern const unsigned int unaligned_shapes_count;

/* BACKING_FD to BACKING_MAPPING_ANON */
#define UNALIGNED_FIRST BACKING_FD
#define UNALIGNED_LAST	BACKING_MAPPING_ANON

/* The region's first page in the source. */
#define UNALIGNED_SOURCE_PAGE 5

struct unaligned {
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	uint64_t pages;
	char what[100];
};

void unaligned_begin(struct unaligned *t, const struct contents *c, enum backing backing,
		     const struct shape *shape, enum provider_kind kind, uint32_t flags);
void unaligned_end(struct unaligned *t);

/* Calls @trial for each backing and each shape. */
void unaligned_each(void (*trial)(enum backing backing, const struct shape *shape));

/* How many blocks of that region can become huge. */
uint64_t unaligned_whole(enum backing backing, const struct shape *shape);

/* Fails the test if not all of them, and no others, become huge. */
void assert_whole_huge(const struct unaligned *t, enum backing backing, const struct shape *shape);

#endif
