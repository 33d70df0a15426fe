/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * /proc/self/pagemap: exact for each 4 KiB, but does not show the size of leaves. As in Linux 6.18,
 * PAGEMAP_SCAN reports all memory of huge pages as huge, including holes.
 */
#include "state.h"

#include <errno.h>

#define WORD_PRESENT (UINT64_C(1) << 63)
#define WORD_WP	     (UINT64_C(1) << 57)

struct scan {
	struct hgm_pm_region *out;
	uint64_t room;
	uint64_t found;
	uint64_t category;
	uint64_t base;
	uint64_t from;
	uint64_t to;
	uint64_t stopped; /* address at which the output was full; 0: not full */
};

/* Adjacent ranges are merged into one region. */
static void report(struct scan *s, uint64_t start, uint64_t end)
{
	if (s->stopped)
		return;
	if (s->found && s->out[s->found - 1].end == start) {
		s->out[s->found - 1].end = end;
	} else if (s->found == s->room) {
		s->stopped = start;
	} else {
		s->out[s->found++] = (struct hgm_pm_region){ start, end, s->category };
	}
}

static void report_leaf(void *arg, const struct piece *p)
{
	struct scan *s = arg;
	uint64_t start = s->base + p->start;
	uint64_t end = start + p->size;

	start = start > s->from ? start : s->from;
	end = end < s->to ? end : s->to;
	if (start < end && !p->poison && !(p->wp && s->category & HGM_PAGE_IS_WRITTEN))
		report(s, start, end);
}

static void scan_model(struct scan *s, struct vma *v)
{
	const uint64_t known =
		HGM_PAGE_IS_HUGE | HGM_PAGE_IS_PRESENT | HGM_PAGE_IS_FILE | HGM_PAGE_IS_WRITTEN;

	if (s->category & ~known)
		return;
	if (s->category == HGM_PAGE_IS_HUGE) {
		report(s, s->from, s->to);
		return;
	}
	vma_sync_range(v, s->from, s->to);
	for (uint64_t i = vma_index(v, s->from); v->start + i * v->file->block < s->to; i++) {
		s->base = v->start + i * v->file->block;
		tree_each(&v->page[i], v->file->level, 0, true, report_leaf, s);
	}
}

static int scan_other(struct scan *s, int fd)
{
	while (!s->stopped && s->from < s->to) {
		struct hgm_pm_region region[16];
		uint64_t end = s->to;
		int n = hgm_sys_linux.pagemap_scan(fd, (void *)(uintptr_t)s->from,
						   (void *)(uintptr_t)s->to, s->category, region,
						   16, &end);

		if (n < 0)
			return n;
		for (int i = 0; i < n; i++)
			report(s, region[i].start, region[i].end);
		if (end <= s->from)
			return -EINVAL;
		s->from = end;
	}
	return 0;
}

int model_pagemap_scan(int fd, const void *start, const void *end, uint64_t category,
		       struct hgm_pm_region *out, uint64_t out_len, uint64_t *walk_end)
{
	struct stretch at = { .end = (uintptr_t)start };
	struct scan s = { .out = out, .room = out_len, .category = category };
	int rc = 0;

	if (!model.opts.pagemap_scan) {
		*walk_end = 0;
		return -ENOTTY;
	}
	model_lock();
	if (!vma_in((uintptr_t)start, (uintptr_t)end)) {
		model_unlock();
		return hgm_sys_linux.pagemap_scan(fd, start, end, category, out, out_len, walk_end);
	}
	while (!rc && !s.stopped && stretch_next(&at, (uintptr_t)end)) {
		s.from = at.start;
		s.to = at.end;
		if (at.kind == STRETCH_MODEL)
			scan_model(&s, at.vma);
		else if (at.kind == STRETCH_OTHER)
			rc = scan_other(&s, fd);
	}
	*walk_end = s.stopped ? s.stopped : (uintptr_t)end;
	model_unlock();
	return rc ? rc : (int)s.found;
}

/* WP_ASYNC is not modelled: the model does not know which of its memory was written. */
int model_pagemap_take_written(int fd, const void *start, const void *end,
			       struct hgm_pm_region *out, uint64_t out_len, uint64_t *walk_end)
{
	bool mine;

	*walk_end = 0;
	if (!model.opts.pagemap_scan)
		return -ENOTTY;
	model_lock();
	mine = vma_in((uintptr_t)start, (uintptr_t)end);
	model_unlock();
	return mine ? -EOPNOTSUPP
		    : hgm_sys_linux.pagemap_take_written(fd, start, end, out, out_len, walk_end);
}

static uint64_t word_of(struct vma *v, uint64_t addr, uint64_t real)
{
	struct piece p;

	vma_sync(v, vma_index(v, addr));
	p = tree_at(&v->page[vma_index(v, addr)], v->file->level,
		    (addr - v->start) % v->file->block);
	real &= ~(WORD_PRESENT | WORD_WP);
	return real | (p.mapped && !p.poison ? WORD_PRESENT : 0) | (p.wp ? WORD_WP : 0);
}

ssize_t model_pread(int fd, void *buf, size_t len, uint64_t offset)
{
	ssize_t n = hgm_sys_linux.pread(fd, buf, len, offset);
	uint64_t *word = buf;

	if (n < (ssize_t)sizeof(*word) || offset % sizeof(*word))
		return n;
	model_lock();
	if (fd_object(fd, OBJECT_PAGEMAP)) {
		for (size_t i = 0; i < (size_t)n / sizeof(*word); i++) {
			uint64_t addr = (offset / sizeof(*word) + i) * KIB4;
			struct vma *v = vma_at(addr);

			if (v)
				word[i] = word_of(v, addr, word[i]);
		}
	}
	model_unlock();
	return n;
}
