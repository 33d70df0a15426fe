/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unaligned.h"

#define BLOCK 512 /* pages */

const struct shape unaligned_shapes[] = {
	{ .head = 1, .file_head = 1, .tail = 1, .pages = 3 * BLOCK - 2 },
	{ .head = 511, .file_head = 511, .tail = 511, .pages = 3 * BLOCK - 1022 },
	{ .head = 37, .file_head = 37, .tail = 0, .pages = 2 * BLOCK - 37 },
	{ .head = 0, .file_head = 0, .tail = 100, .pages = 2 * BLOCK - 100 },
	/* The file does not fit. */
	{ .head = 3, .file_head = 0, .tail = 5, .pages = 2 * BLOCK + 9 },
	{ .head = 0, .file_head = 511, .tail = 0, .pages = 2 * BLOCK },
	/* Less than a block, in the middle of one and across a border. */
	{ .head = 100, .file_head = 100, .tail = 396, .pages = 16 },
	{ .head = 504, .file_head = 504, .tail = 504, .pages = 16 },
	{ .head = 63, .file_head = 63, .tail = 448, .pages = 1 },
};
const unsigned int unaligned_shapes_count = sizeof(unaligned_shapes) / sizeof(unaligned_shapes[0]);

void unaligned_begin(struct unaligned *t, const struct contents *c, enum backing backing,
		     const struct shape *shape, enum provider_kind kind, uint32_t flags)
{
	const struct margins m = { .head = shape->head * PAGE,
				   .file_head = shape->file_head * PAGE,
				   .tail = shape->tail * PAGE };

	*t = (struct unaligned){ .pages = shape->pages };
	snprintf(t->what, sizeof(t->what), "%s, %llu pages behind %llu (%llu in the file)",
		 backing_names[backing], (unsigned long long)shape->pages,
		 (unsigned long long)shape->head, (unsigned long long)shape->file_head);
	watch(t->what, 100);
	t->provider = provider_make(kind, c, (UNALIGNED_SOURCE_PAGE + t->pages) * PAGE);
	t->h = engine(2);
	assert_ok(ram_try_within(&t->ram, t->h, backing, t->pages * PAGE,
				 provider_source(t->provider), UNALIGNED_SOURCE_PAGE * PAGE, flags,
				 &m));
}

void unaligned_end(struct unaligned *t)
{
	hgm_region_destroy(t->ram.region);
	hgm_destroy(t->h);
	fence_end();
	assert_margins(&t->ram, t->what);
	ram_release(&t->ram);
	provider_free(t->provider);
	calm();
}

void unaligned_each(void (*trial)(enum backing backing, const struct shape *shape))
{
	unsigned int turn = 0;

	for (int backing = UNALIGNED_FIRST; backing <= UNALIGNED_LAST; backing++)
		for (unsigned int i = 0; i < unaligned_shapes_count; i++)
			if (turn_of(&turn, 4))
				trial((enum backing)backing, &unaligned_shapes[i]);
}

uint64_t unaligned_whole(enum backing backing, const struct shape *shape)
{
	bool chosen = backing == BACKING_FD ||
		      backing == BACKING_FD_LAZY; /* the address, to fit the file */
	uint64_t head = chosen ? shape->file_head : shape->head;
	uint64_t first = (head + BLOCK - 1) / BLOCK, end = (head + shape->pages) / BLOCK;

	if (!chosen && backing != BACKING_MAPPING_ANON && head != shape->file_head)
		return 0;
	return end > first ? end - first : 0;
}

struct look {
	const struct unaligned *t;
	uint64_t wanted, info, scan;
};

static bool is_huge(void *arg)
{
	struct look *l = arg;

	l->info = info_of(l->t->ram.region).huge_bytes;
	if (hgm_mapped_huge(l->t->ram.addr, l->t->ram.length, &l->scan))
		l->scan = l->wanted; /* no PAGEMAP_SCAN here */
	return l->info == l->wanted && l->scan == l->wanted;
}

void assert_whole_huge(const struct unaligned *t, enum backing backing, const struct shape *shape)
{
	struct look look = { .t = t, .wanted = unaligned_whole(backing, shape) * 2 * MIB };

	if (!eventually(is_huge, &look, 20000))
		fail_msg("%s: of %llu bytes that can be huge are %llu (info), %llu (PAGEMAP_SCAN)",
			 t->what, (unsigned long long)look.wanted, (unsigned long long)look.info,
			 (unsigned long long)look.scan);
	assert_int_equal(info_of(t->ram.region).left_split, 0);
	assert_int_equal(info_of(t->ram.region).huge_bytes_max, look.wanted);
}
