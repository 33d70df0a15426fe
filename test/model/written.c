/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * HGM v2 warns at the first write to a leaf below the size of the huge page that was protected and
 * is not any more. Nothing tells the model of a write. It keeps a checksum of each such 4 KiB, and
 * looks whether the contents have changed. A write through another mapping counts too.
 */
#include "state.h"

#include <stdlib.h>
#include <unistd.h>

struct watched {
	uint64_t addr;
	struct file *file;
	uint64_t offset;
	uint64_t sum;
};

static struct {
	struct watched *page;
	size_t count;
	size_t room;
} all;

static uint64_t sum_of(const struct file *f, uint64_t offset)
{
	uint64_t word[KIB4 / 8] = { 0 };
	uint64_t sum = 0;

	if (pread(f->fd, word, sizeof(word), (off_t)offset) < 0)
		return 0;
	for (unsigned int i = 0; i < KIB4 / 8; i++)
		sum = (sum ^ word[i]) * UINT64_C(0x9e3779b97f4a7c15) + (sum >> 29);
	return sum;
}

struct watch {
	struct vma *vma;
	uint64_t base; /* of the huge page */
	uint64_t start;
	uint64_t end;
};

static void watch_piece(void *arg, const struct piece *p)
{
	const struct watch *w = arg;
	struct vma *v = w->vma;

	if (!p->wp || p->poison || p->level == v->file->level)
		return;
	for (uint64_t at = w->base + p->start; at < w->base + p->start + p->size; at += KIB4) {
		uint64_t offset = v->offset + (at - v->start);

		if (at < w->start || at >= w->end)
			continue;
		if (all.count == all.room) {
			all.room = all.room ? 2 * all.room : 512;
			all.page = realloc(all.page, all.room * sizeof(*all.page));
			if (!all.page)
				abort();
		}
		all.page[all.count++] =
			(struct watched){ at, v->file, offset, sum_of(v->file, offset) };
	}
}

void written_watch(struct vma *v, uint64_t start, uint64_t end)
{
	struct watch w = { v, 0, start, end };
	uint64_t block = v->file->block;

	if (model.warnings) /* WARN_ON_ONCE */
		return;
	for (w.base = start - (start - v->start) % block; w.base < end; w.base += block)
		tree_each(&v->page[vma_index(v, w.base)], v->file->level, 0, true, watch_piece, &w);
}

void written_look(uint64_t start, uint64_t end, bool forget)
{
	size_t kept = 0;

	for (size_t i = 0; i < all.count; i++) {
		const struct watched *w = &all.page[i];
		bool inside = w->addr >= start && w->addr < end;

		if (inside && sum_of(w->file, w->offset) != w->sum)
			model.warnings = 1;
		if (!inside || !forget)
			all.page[kept++] = *w;
	}
	all.count = kept;
}

void written_end(void)
{
	free(all.page);
	all.page = NULL;
	all.count = all.room = 0;
}

unsigned int model_warnings(void)
{
	unsigned int n;

	model_lock();
	written_look(0, UINT64_MAX, false);
	n = model.warnings;
	model_unlock();
	return n;
}
