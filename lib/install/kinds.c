/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kinds of memory, as the installing modules see them.
 */
#include "by_copy.h"
#include "kinds.h"
#include "region/hgm.h"
#include "resolve.h"

/* Poison of anonymous memory goes away with the memory. */
static int no_poison_left(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	(void)r;
	(void)page;
	(void)pages;
	return 0;
}

static const struct hgm_kind anon = {
	.contents = hgm_contents_copied_anon,
	.install = hgm_by_copy,
	.map_present = hgm_map_anon,
	.map_zero = hgm_map_zero_page,
	.drop = hgm_drop_anon,
	.drop_call = "MADV_DONTNEED",
	.drop_poison = no_poison_left,
	.removal = HGM_REMOVAL_DROPS,
};

/* anonymous memory of another process, which drops its memory itself */
static const struct hgm_kind anon_of_peer = {
	.contents = hgm_contents_copied_anon,
	.install = hgm_by_copy,
	.map_present = hgm_map_anon,
	.map_zero = hgm_map_zero_page,
	.drop = hgm_drop_not,
	.drop_call = "dropping memory of another process",
	.drop_poison = no_poison_left,
	.removal = HGM_REMOVAL_DROPS,
};

/* shmem whose pages are allocated as they arrive */
static const struct hgm_kind lazy = {
	.contents = hgm_contents_copied,
	.install = hgm_by_copy,
	.map_present = hgm_map_file,
	.map_zero = hgm_map_zero_page,
	.drop = hgm_drop_file,
	.drop_call = "FALLOC_FL_PUNCH_HOLE",
	.drop_poison = hgm_poison_unmap,
	.removal = HGM_REMOVAL_SUSPECT,
};

/* shmem whose blocks are in the page cache before they arrive */
static const struct hgm_kind prepared = {
	.contents = hgm_contents_by_alias,
	.install = hgm_install_by_page,
	.map_present = hgm_map_file,
	.map_zero = hgm_map_zero_page,
	.drop = hgm_drop_file,
	.drop_call = "FALLOC_FL_PUNCH_HOLE",
	.drop_poison = hgm_poison_unmap,
	.removal = HGM_REMOVAL_SUSPECT,
};

/* hugetlb that is mapped by whole blocks */
static const struct hgm_kind whole = {
	.contents = hgm_contents_by_block,
	.install = hgm_install_by_page,
	.map_present = hgm_map_around,
	.map_zero = hgm_map_zero_block,
	.drop = hgm_drop_file,
	.drop_call = "FALLOC_FL_PUNCH_HOLE",
	.drop_poison = hgm_drop_poison_of_blocks,
	.removal = HGM_REMOVAL_NOTHING,
};

/* hugetlb with high-granularity mapping */
static const struct hgm_kind native = {
	.contents = hgm_contents_by_leaf,
	.install = hgm_install_by_leaf,
	.map_present = hgm_map_leaf,
	.map_zero = hgm_map_zero_block,
	.drop = hgm_drop_file,
	.drop_call = "FALLOC_FL_PUNCH_HOLE",
	.drop_poison = hgm_poison_unmap,
	.removal = HGM_REMOVAL_NOTHING,
};

const struct hgm_kind *hgm_kind_of(const struct hgm_region *r)
{
	if (r->backing == HGM_BACKING_ANON)
		return hgm_region_foreign(r) ? &anon_of_peer : &anon;
	if (r->backing == HGM_BACKING_HUGETLB)
		return r->native ? &native : &whole;
	return r->copies ? &lazy : &prepared;
}
