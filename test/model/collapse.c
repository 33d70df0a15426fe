/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MADV_COLLAPSE of one mapping of huge pages, with its defects: it fills holes, drops protection,
 * wakes no thread, and its result does not say what happened.
 */
#include "state.h"

#include <errno.h>
#include <stdlib.h>

static enum level largest(const struct vma *v, uint64_t at, uint64_t end)
{
	enum level level = v->file->level;

	while (level > LEVEL_PTE && (at % level_bytes(level) || end - at < level_bytes(level)))
		level--;
	return level;
}

static void whole_table(struct vma *v, uint64_t at)
{
	uint64_t block = vma_block(v, at);
	bool cached = file_cached(v->file, block);

	if (file_poisoned(v->file, block))
		return;
	written_look(at, at + v->file->block, true);
	if (cached && v->modes & (HGM_UFFD_MINOR | HGM_UFFD_MISSING))
		real_map_pieces(v, at, false);
	if (v->modes & HGM_UFFD_WP)
		real_unprotect(v, at, v->file->block);
	tree_collapse(&v->page[vma_index(v, at)], v->file->level, 0, v->file->level, cached);
}

static int collapse_vma(struct vma *v, uint64_t start, uint64_t end)
{
	for (uint64_t at = start; at < end;) {
		enum level level = largest(v, at, end);
		struct entry *root = &v->page[vma_index(v, at)];
		enum kind kind;

		vma_sync(v, vma_index(v, at));
		if (tree_walk(root, v->file->level, (at - v->start) % v->file->block, level, &kind))
			return -EEXIST; /* inside a larger leaf */
		if (kind == KIND_TABLE && level < v->file->level)
			model_bug("kernel BUG at mm/hugetlb.c: 2 MiB with a table, inside of a "
				  "1 GiB page, cannot be collapsed: %#llx-%#llx",
				  (unsigned long long)start, (unsigned long long)end);
		if (kind == KIND_TABLE)
			whole_table(v, at);
		at += level_bytes(level);
	}
	return 0;
}

int model_collapse(struct vma *v, uint64_t start, uint64_t end)
{
	uint64_t above, unused;

	if (!model.opts.hgm)
		return -EINVAL;
	if (v->shared && (!v->hm || !collapse_vma(v, start, end)))
		return 0;
	/*
	 * The kernel's loop continues with the next mapping above, wherever that is, and returns
	 * the result of that.
	 */
	return real_memory_at(v->end, &above, &unused) && vma_at(above) ? 0 : -EINVAL;
}
