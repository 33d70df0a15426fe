/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mappings of huge pages: a list ordered by address. As in the kernel, they never merge.
 */
#include "state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static uint64_t pages_of(const struct vma *v)
{
	return (v->end - v->start) / v->file->block;
}

struct vma *vma_next(uint64_t addr)
{
	struct vma *v = model.vmas;

	while (v && v->end <= addr)
		v = v->next;
	return v;
}

struct vma *vma_at(uint64_t addr)
{
	struct vma *v = vma_next(addr);

	return v && v->start <= addr ? v : NULL;
}

bool vma_in(uint64_t start, uint64_t end)
{
	struct vma *v = vma_next(start);

	return v && v->start < end;
}

/* Add a copy of @from. Its page table is empty if @from has none. */
struct vma *vma_add(const struct vma *from)
{
	struct vma **at = &model.vmas;
	struct vma *v = malloc(sizeof(*v));

	if (!v)
		abort();
	*v = *from;
	v->file->vmas++;
	if (!v->page)
		v->page = big_alloc(pages_of(v) * sizeof(*v->page));
	while (*at && (*at)->start < v->start)
		at = &(*at)->next;
	v->next = *at;
	*at = v;
	return v;
}

void vma_split(struct vma *v, uint64_t at)
{
	uint64_t head = vma_index(v, at);
	uint64_t tail = pages_of(v) - head;
	struct vma upper = *v;
	struct entry *lower;

	upper.start = at;
	upper.offset += at - v->start;
	upper.page = big_alloc(tail * sizeof(*upper.page));
	lower = big_alloc(head * sizeof(*lower));
	memcpy(lower, v->page, head * sizeof(*lower));
	memcpy(upper.page, v->page + head, tail * sizeof(*upper.page));
	big_free(v->page, (head + tail) * sizeof(*lower));
	v->page = lower;
	v->end = at;
	vma_add(&upper);
}

int vma_isolate(uint64_t start, uint64_t end)
{
	const uint64_t border[] = { start, end };

	for (unsigned int i = 0; i < 2; i++) {
		struct vma *v = vma_at(border[i]);

		if (!v || v->start == border[i])
			continue;
		if (border[i] % v->file->block)
			return -EINVAL;
		vma_split(v, border[i]);
	}
	return 0;
}

/* A 1 GiB leaf with PROT_NONE looks like a page table, which munmap and exit then walk. */
static void end_pages(struct vma *v)
{
	uint64_t pages = pages_of(v);

	written_look(v->start, v->end, true);
	for (uint64_t i = 0; i < pages; i++) {
		unsigned long long at = v->start + i * v->file->block;

		if (model.opts.hgm && v->prot == PROT_NONE && v->page[i].kind == KIND_LEAF &&
		    v->file->level == LEVEL_PUD)
			model_bug("munmap() of a 1 GiB leaf with PROT_NONE never returns: %#llx",
				  at);
		tree_free(&v->page[i], v->file->level);
	}
}

void vma_remove(uint64_t start, uint64_t end)
{
	struct vma **at = &model.vmas;

	if (vma_isolate(start, end))
		model_bug("part of a huge page was unmapped: %#llx-%#llx",
			  (unsigned long long)start, (unsigned long long)end);
	while (*at) {
		struct vma *v = *at;

		if (v->start < start || v->start >= end) {
			at = &v->next;
			continue;
		}
		*at = v->next;
		if (v->ctx)
			ctx_forget_waiters(v->ctx, v->start, v->end);
		end_pages(v);
		v->file->vmas--;
		big_free(v->page, pages_of(v) * sizeof(*v->page));
		file_put(v->file);
		free(v);
	}
}

struct sync {
	struct vma *vma;
	struct entry *entry;
	uint64_t base;
};

static void sync_hole(void *arg, const struct piece *p)
{
	struct sync *s = arg;
	uint64_t step = level_bytes(p->level);

	if (!real_present(s->base + p->start, p->size))
		return;
	/* Adjacent 4 KiB holes are visited as one, but each of them is filled on its own. */
	for (uint64_t at = p->start; at < p->start + p->size; at += step) {
		if (p->size > step && !real_present(s->base + at, step))
			continue;
		tree_map(s->entry, s->vma->file->level, at, p->level, p->wp);
		if (s->vma->modes & HGM_UFFD_MINOR)
			real_map(s->vma, s->base + at, step, p->wp);
	}
}

/* Map what the kernel filled by itself: each hole that was touched, as a whole. */
static void sync_holes(struct vma *v, uint64_t index)
{
	struct sync s = { v, &v->page[index], v->start + index * v->file->block };

	tree_each(s.entry, v->file->level, 0, false, sync_hole, &s);
}

/* Must be called before any decision about a huge page that may have been touched. */
void vma_sync(struct vma *v, uint64_t index)
{
	uint64_t block = v->offset / v->file->block + index;

	if (!file_cached(v->file, block) || file_poisoned(v->file, block))
		return;
	/* With MINOR, no page in the page cache is mapped without a message. */
	if (!(v->modes & HGM_UFFD_MINOR))
		sync_holes(v, index);
}

void vma_sync_range(struct vma *v, uint64_t start, uint64_t end)
{
	for (uint64_t i = vma_index(v, start); v->start + i * v->file->block < end; i++)
		vma_sync(v, i);
}

/*
 * The block may have appeared because a thread touched it in a mapping that is registered for MINOR
 * only. From now on, accesses to it there would cause messages.
 */
void vma_block_appeared(struct file *f, uint64_t block)
{
	for (struct vma *v = model.vmas; v; v = v->next) {
		uint64_t first = v->offset / f->block;

		if (v->file == f && block >= first && block - first < pages_of(v) &&
		    (v->modes & (HGM_UFFD_MINOR | HGM_UFFD_MISSING)) == HGM_UFFD_MINOR)
			sync_holes(v, block - first);
	}
}

void vma_block_dropped(struct file *f, uint64_t block)
{
	for (struct vma *v = model.vmas; v; v = v->next) {
		uint64_t first = v->offset / f->block;

		if (v->file != f || block < first || block - first >= pages_of(v))
			continue;
		written_look(v->start + (block - first) * f->block,
			     v->start + (block - first + 1) * f->block, true);
		tree_unmap(&v->page[block - first], f->level);
	}
}

/* Each leaf becomes an entry that raises SIGBUS. Holes stay: faults in them find the page bad. */
void vma_block_poisoned(struct file *f, uint64_t block)
{
	for (struct vma *v = model.vmas; v; v = v->next) {
		uint64_t first = v->offset / f->block;
		uint64_t at = v->start + (block - first) * f->block;

		if (v->file != f || block < first || block - first >= pages_of(v))
			continue;
		vma_sync(v, block - first);
		tree_hwpoison(&v->page[block - first], f->level);
		/* An access causes a message again, upon which it gets the signal (message.c). */
		if (v->modes & HGM_UFFD_MINOR)
			hgm_sys_linux.madvise((void *)(uintptr_t)at, f->block,
					      HGM_MADV_DONTNEED_LOCKED);
	}
}

/* A 1 GiB leaf in [start, end), or 0. */
uint64_t vma_1g_leaf(struct vma *v, uint64_t start, uint64_t end)
{
	if (v->file->level < LEVEL_PUD)
		return 0;
	start = start > v->start ? start : v->start;
	end = end < v->end ? end : v->end;
	vma_sync_range(v, start, end);
	for (uint64_t at = start; at < end; at += v->file->block)
		if (v->page[vma_index(v, at)].kind == KIND_LEAF)
			return at;
	return 0;
}

/*
 * The kernel's mincore() writes one byte for each 4 KiB of an entry, leaf or hole, into a buffer of
 * one page, however few were asked for.
 */
void vma_mincore(const struct vma *v, uint64_t start, uint64_t end)
{
	for (uint64_t at = start; at < end && at < v->end; at += KIB4)
		if (v->page[vma_index(v, at)].kind != KIND_TABLE && v->file->level == LEVEL_PUD)
			model_bug("mincore() of a 1 GiB leaf writes past its buffer: %#llx",
				  (unsigned long long)at);
}

void vma_forked(struct vma *v)
{
	for (uint64_t i = 0; i < pages_of(v); i++)
		tree_free(&v->page[i], v->file->level);
	v->ctx = NULL;
	v->modes = 0;
}

void vma_deregister(struct vma *v)
{
	if (v->modes & HGM_UFFD_WP)
		for (uint64_t i = 0; i < pages_of(v); i++)
			tree_protect(&v->page[i], v->file->level, 0, v->file->block, false);
	ctx_forget_waiters(v->ctx, v->start, v->end);
	v->ctx = NULL;
	v->modes = 0;
}

/* The first memory of any kind that ends above an address. */
bool real_memory_at(uint64_t addr, uint64_t *start, uint64_t *end)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	bool found = false;
	char line[512];

	while (maps && !found && fgets(line, sizeof(line), maps))
		found = sscanf(line, "%lx-%lx ", start, end) == 2 && *end > addr;
	if (maps)
		fclose(maps);
	return found;
}

bool stretch_next(struct stretch *s, uint64_t end)
{
	uint64_t at = s->end;
	uint64_t there, until;
	struct vma *v = vma_next(at);

	if (at >= end)
		return false;
	s->start = at;
	s->vma = NULL;
	if (v && v->start <= at) {
		s->kind = STRETCH_MODEL;
		s->vma = v;
		s->end = v->end < end ? v->end : end;
		return true;
	}
	if (v && v->start < end)
		end = v->start;
	if (!real_memory_at(at, &there, &until) || there >= end) {
		s->kind = STRETCH_GAP;
		s->end = end;
	} else if (there > at) {
		s->kind = STRETCH_GAP;
		s->end = there;
	} else {
		s->kind = STRETCH_OTHER;
		s->end = until < end ? until : end;
	}
	return true;
}
