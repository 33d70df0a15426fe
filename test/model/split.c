/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MADV_SPLIT of one mapping: it changes nothing that is mapped, but from now on CONTINUE takes
 * pieces. This cannot be undone.
 */
#include "state.h"

#include <errno.h>

int model_split(struct vma *v, uint64_t start, uint64_t end)
{
	uint64_t block;

	if (!v || !v->shared) /* not hugetlb, or private */
		return -EINVAL;
	block = v->file->block;
	if (v->hm) /* already split: borders are not checked */
		return 0;
	if (start > v->start) {
		if (start % block)
			return -EINVAL;
		vma_split(v, start); /* stays split even if the end is refused */
		v = v->next;
	}
	if (end < v->end) {
		if (end % block)
			return -EINVAL;
		vma_split(v, end);
	}
	v->hm = true;
	return 0;
}
