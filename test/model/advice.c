/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * madvise on huge pages. As in the kernel, a range is processed mapping by mapping. An error ends
 * it. A gap does not, but the result is then ENOMEM.
 */
#include "state.h"

#include <errno.h>
#include <sys/mman.h>

/* Whole huge pages only: the end is rounded down, the start must be aligned. Tables stay. */
static int dont_need(const struct stretch *s)
{
	struct vma *v = s->vma;
	uint64_t end = s->end - s->end % v->file->block;
	int rc;

	if (s->start % v->file->block)
		return -EINVAL;
	if (end <= s->start)
		return 0;
	/* Locked memory too: hugetlb does not check VM_LOCKED. */
	rc = hgm_sys_linux.madvise((void *)(uintptr_t)s->start, end - s->start,
				   HGM_MADV_DONTNEED_LOCKED);
	written_look(s->start, end, true);
	for (uint64_t at = s->start; !rc && at < end; at += v->file->block)
		tree_unmap(&v->page[vma_index(v, at)], v->file->level);
	return rc;
}

static int hwpoison(const struct stretch *s)
{
	uint64_t block = vma_block(s->vma, s->start);
	int rc = file_allocate(s->vma->file, block);

	if (rc)
		return rc;
	vma_block_poisoned(s->vma->file, block);
	s->vma->file->state[block] |= BLOCK_POISONED;
	return 0;
}

/* Do what accesses to one huge page would do without a message. */
static int fill(struct vma *v, uint64_t from, uint64_t to)
{
	uint64_t index = vma_index(v, from);
	uint64_t base = v->start + index * v->file->block;
	struct entry *e = &v->page[index];
	bool cached = file_cached(v->file, vma_block(v, from));
	int rc;

	if (file_poisoned(v->file, vma_block(v, from)))
		return -EHWPOISON;
	if (v->modes & (cached ? HGM_UFFD_MINOR : HGM_UFFD_MISSING))
		return 0;
	rc = file_allocate(v->file, vma_block(v, from));
	if (rc)
		return -EFAULT;
	vma_sync(v, index);
	for (uint64_t at = from - base; at < to - base;) {
		struct piece p = tree_at(e, v->file->level, at);

		if (!p.mapped && !p.poison) {
			tree_map(e, v->file->level, p.start, p.level, p.wp);
			if (v->modes & HGM_UFFD_MINOR)
				real_map(v, base + p.start, p.size, p.wp);
		}
		at = p.start + p.size;
	}
	return 0;
}

static int populate(const struct stretch *s)
{
	uint64_t block = s->vma->file->block;
	int rc = 0;

	for (uint64_t at = s->start; !rc && at < s->end;) {
		uint64_t next = at - at % block + block;

		rc = fill(s->vma, at, next < s->end ? next : s->end);
		at = next;
	}
	return rc;
}

static int advise_one(const struct stretch *s, int advice)
{
	void *addr = (void *)(uintptr_t)s->start;
	struct vma *v = s->vma;

	if (s->kind == STRETCH_OTHER)
		return hgm_sys_linux.madvise(addr, s->end - s->start, advice);
	switch (advice) {
	case MADV_DONTNEED:
	case HGM_MADV_DONTNEED_LOCKED:
		return dont_need(s);
	case MADV_REMOVE:
		return file_punch(v->file, v->offset + (s->start - v->start), s->end - s->start);
	case MADV_HWPOISON:
		return hwpoison(s);
	case HGM_MADV_COLLAPSE:
		return model_collapse(v, s->start, s->end);
	case HGM_MADV_SPLIT:
		return model_split(v, s->start, s->end);
	case HGM_MADV_POPULATE_READ:
	case HGM_MADV_POPULATE_WRITE:
		return populate(s);
	default:
		return hgm_sys_linux.madvise(addr, s->end - s->start, advice);
	}
}

static int advise(uint64_t start, uint64_t end, int advice)
{
	struct stretch s = { .end = start };
	int unmapped = 0;

	while (stretch_next(&s, end)) {
		int rc = s.kind == STRETCH_GAP ? 0 : advise_one(&s, advice);

		if (rc)
			return rc;
		if (s.kind == STRETCH_GAP)
			unmapped = -ENOMEM;
	}
	return unmapped;
}

static int split_advice(uint64_t start, uint64_t end)
{
	struct stretch s = { .end = start };

	if (model.opts.advice_means_else) {
		while (stretch_next(&s, end))
			if (s.kind == STRETCH_GAP)
				return -ENOMEM;
		return 0;
	}
	return model.opts.hgm ? advise(start, end, HGM_MADV_SPLIT) : -EINVAL;
}

/* Advice that, on a part of a mapping, splits the mapping for good. */
static bool sets_a_flag(int advice)
{
	return advice == MADV_DONTFORK || advice == MADV_DOFORK || advice == MADV_DONTDUMP ||
	       advice == MADV_DODUMP || advice == MADV_RANDOM || advice == MADV_SEQUENTIAL;
}

int model_madvise(void *addr, uint64_t len, int advice)
{
	uint64_t start = (uintptr_t)addr;
	uint64_t end = start + ((len + KIB4 - 1) & ~(KIB4 - 1));
	bool populates = advice == HGM_MADV_POPULATE_READ || advice == HGM_MADV_POPULATE_WRITE;
	bool known = (model.opts.hgm && !model.opts.rfc) || model.opts.advice_means_else;
	int rc;

	if (advice == HGM_MADV_SPLIT && (!known || start % KIB4 || end < start))
		return -EINVAL;
	model_lock();
	if (advice == HGM_MADV_SPLIT) {
		rc = split_advice(start, end);
		model_unlock();
		return rc;
	}
	if (start % KIB4 || !vma_in(start, end)) {
		model_unlock();
		return hgm_sys_linux.madvise(addr, len, advice);
	}
	rc = sets_a_flag(advice) ? vma_isolate(start, end) : 0;
	if (!rc)
		rc = advise(start, end, advice);
	model_unlock();
	/* This may report faults. Without the lock, another thread can serve them. */
	if (!rc && populates)
		rc = hgm_sys_linux.madvise(addr, len, advice);
	return rc;
}
