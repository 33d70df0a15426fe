/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Public functions that describe a region: its address, its actual type and the reason for it, and
 * which pages have arrived.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "collapse/collapse.h"
#include "engine.h"
#include "install/resolve.h"
#include "region/hgm.h"
#include "util/bits.h"
#include "util/cancel.h"
#include "util/error.h"
#include "util/opts.h"

void *hgm_region_addr(const struct hgm_region *r)
{
	return r ? r->view.start : NULL;
}

uint64_t hgm_region_length(const struct hgm_region *r)
{
	return r ? r->length : 0;
}

/* Describe how many of a shmem region's blocks were prepared. */
static void describe_shmem(struct hgm_region *r, const char *of)
{
	int collapse = atomic_load_explicit(&r->last_collapse_error, memory_order_relaxed);
	uint64_t whole = r->whole_end - r->whole_first;
	size_t n = sizeof(r->sentence);

	if (!r->collapses)
		snprintf(r->sentence, n, "shmem, 4 KiB pages%s: the pages stay small", of);
	else if (r->prepared_blocks == whole)
		snprintf(r->sentence, n,
			 "shmem 2 MiB prepared%s: faults cost 4 KiB, full blocks become huge "
			 "without copying",
			 of);
	else
		snprintf(r->sentence, n,
			 "shmem 2 MiB%s: %llu of %llu blocks are prepared, the rest is in 4 KiB "
			 "pages (%s)",
			 of, (unsigned long long)r->prepared_blocks, (unsigned long long)whole,
			 hgm_errno_name(collapse));
}

/* Add which blocks cannot become huge, and why. */
static void describe_margins(struct hgm_region *r)
{
	uint64_t whole = r->whole_end - r->whole_first;
	bool head = r->head, tail = (r->head + r->length) % r->block_bytes;
	size_t used = strlen(r->sentence), n = sizeof(r->sentence) - used;

	if (r->flags & HGM_REGION_NO_COLLAPSE || whole == r->blocks)
		return;
	if (!r->fits_file)
		snprintf(r->sentence + used, n, "; " HGM_SAY_DOES_NOT_FIT);
	else if (!whole)
		snprintf(r->sentence + used, n,
			 "; no block can become huge, because the region has no aligned 2 MiB");
	else
		snprintf(r->sentence + used, n,
			 "; %llu of %llu blocks can become huge, because the region %s%s%s in the "
			 "middle of a block",
			 (unsigned long long)whole, (unsigned long long)r->blocks,
			 head ? "begins" : "", head && tail ? " and " : "", tail ? "ends" : "");
}

/* Add what we may not do to the memory of another process. */
static void describe_rights(struct hgm_region *r)
{
	const struct hgm_space *s = r->view.space;
	size_t used = strlen(r->sentence), n = sizeof(r->sentence) - used;
	bool denied = s->collapse_error == -EPERM || s->collapse_error == -EACCES;

	if (s->collapse_error && !(r->flags & HGM_REGION_NO_COLLAPSE))
		snprintf(r->sentence + used, n, "; no block can become huge: process_madvise: %s%s",
			 hgm_errno_name(s->collapse_error),
			 denied ? " (CAP_SYS_NICE, and the right to trace the process, are needed)"
				: "");
}

void hgm_region_describe(struct hgm_region *r, uint32_t asked, const char *refused)
{
	const char *size = r->block_bytes == UINT64_C(1) << 30 ? "1 GiB" : "2 MiB";
	const char *of = asked == HGM_BACKING_FD	? " (the caller's file)"
			 : asked == HGM_BACKING_MAPPING ? " (the caller's mapping)"
			 : asked == HGM_BACKING_PEER	? " (memory of another process)"
							: "";
	const char *huge = r->collapses ? " and copied into huge pages when a block is full" : "";
	size_t n = sizeof(r->sentence);
	size_t used;

	if (r->native)
		snprintf(r->sentence, n,
			 "hugetlb %s with high-granularity mapping by %s%s: faults cost 4 KiB, "
			 "full blocks %s",
			 size,
			 hgm_choice_by_feature(&r->h->abilities) ? "feature bit 13" : "MADV_SPLIT",
			 of, r->collapses ? "are collapsed without copying" : "are not collapsed");
	else if (r->backing == HGM_BACKING_HUGETLB)
		snprintf(r->sentence, n, "hugetlb %s%s: faults wait for a whole block", size, of);
	else if (r->backing == HGM_BACKING_SHMEM)
		describe_shmem(r, of);
	else
		snprintf(r->sentence, n,
			 "%s, 2 MiB blocks%s: pages of 4 KiB are allocated as they arrive%s",
			 r->backing == HGM_BACKING_ANON ? "anon" : "shmem lazy", of, huge);
	describe_margins(r);
	describe_rights(r);
	used = strlen(r->sentence);
	if (*refused)
		snprintf(r->sentence + used, n - used, "; not chosen: %s", refused);
}

static uint64_t huge_bytes_max(const struct hgm_region *r)
{
	uint64_t bytes = (r->whole_end - r->whole_first) * r->block_bytes;

	if (!r->collapses && !hgm_region_whole_blocks(r))
		return 0;
	return bytes < r->length ? bytes : r->length; /* the last block may exceed the end */
}

int hgm_region_get_info(const struct hgm_region *r, struct hgm_region_info *out)
{
	struct hgm_region_info info;

	if (!r)
		return hgm_fail(-EINVAL, "hgm_region_get_info: the region is NULL");
	info = (struct hgm_region_info){
		.size = sizeof(info),
		.addr = r->view.start,
		.length = r->length,
		.block_bytes = r->block_bytes,
		.map_bytes = r->map_bytes,
		.backing = r->backing,
		.flags = r->flags,
		.present_bytes = hgm_map_present_pages(r->map) << HGM_PAGE_SHIFT,
		.huge_bytes = hgm_region_huge_bytes(r),
		.poisoned_bytes = hgm_region_poisoned_bytes(r),
		.blocks = r->blocks,
		.left_split = hgm_collapse_left_split(r),
		.sentence = r->sentence,
		.user_mode_only = r->h->user_mode_only,
		.collapse_error =
			atomic_load_explicit(&r->last_collapse_error, memory_order_relaxed),
		.protect_bytes = r->wp_bytes,
		.huge_bytes_max = huge_bytes_max(r),
	};
	return hgm_opts_out(out, &info, sizeof(info),
			    HGM_FIRST_SIZE(struct hgm_region_info, huge_bytes_max),
			    "hgm_region_get_info");
}

static int check_pages(const struct hgm_region *r, uint64_t first, uint64_t pages,
		       const uint64_t *bitmap, const char *function)
{
	if (!r || !bitmap)
		return hgm_fail(-EINVAL, "%s: the %s is NULL", function, r ? "bitmap" : "region");
	return hgm_opts_pages(hgm_region_pages(r), first, pages, function);
}

int hgm_region_export(const struct hgm_region *r, uint64_t first, uint64_t pages, uint64_t *bitmap)
{
	int rc = check_pages(r, first, pages, bitmap, "hgm_region_export");

	if (rc)
		return rc;
	for (uint64_t w = 0; w * 64 < pages; w++) {
		uint64_t page = hgm_region_first(r) + first + w * 64, shift = page % 64;
		uint64_t mask = hgm_bits_low(pages - w * 64);

		bitmap[w] = hgm_map_present_word(r->map, page / 64) >> shift;
		if (hgm_bits_carry(mask, shift))
			bitmap[w] |= hgm_map_present_word(r->map, page / 64 + 1) << (64 - shift);
		bitmap[w] &= mask;
	}
	return 0;
}

/* Declare that a run of claimed pages, all of one word, has arrived. */
static void import_run(struct hgm_region *r, uint64_t page, uint64_t run)
{
	uint64_t block = hgm_region_block(r, page);
	bool full;

	hgm_collapse_imported(r, block); /* before the block can be full */
	full = hgm_resolve_publish(r, page, run);
	if (full)
		r->h->ops->filled(r, block);
	hgm_region_wake(r, page, run);
	hgm_region_count_off(r, run);
}

/* Declare that pages of one word have arrived. */
static int import_word(struct hgm_region *r, uint64_t word, uint64_t bits)
{
	uint64_t mine, low, run;
	int rc = hgm_map_claim(r->map, word, bits, &mine);

	if (rc)
		return hgm_fail(rc, "hgm_region_import: out of memory");
	while (hgm_bits_take_run(&mine, &low, &run))
		import_run(r, word * 64 + low, run);
	return 0;
}

int hgm_region_import(struct hgm_region *r, uint64_t first, uint64_t pages, const uint64_t *bitmap)
{
	HGM_UNCANCELLED;
	int rc = check_pages(r, first, pages, bitmap, "hgm_region_import");

	if (rc)
		return rc;
	if (!r->holds_contents)
		return hgm_fail(-EOPNOTSUPP,
				"hgm_region_import: only a caller's file can hold earlier contents "
				"(HGM_BACKING_FD, HGM_BACKING_MAPPING with fd)");
	if (atomic_load_explicit(&r->h->running, memory_order_acquire))
		return hgm_fail(-EBUSY, "hgm_region_import: the engine was already started");
	for (uint64_t w = 0; !rc && w * 64 < pages; w++) {
		uint64_t page = hgm_region_first(r) + first + w * 64, shift = page % 64;
		uint64_t bits = bitmap[w] & hgm_bits_low(pages - w * 64);

		if (bits << shift)
			rc = import_word(r, page / 64, bits << shift);
		if (!rc && hgm_bits_carry(bits, shift))
			rc = import_word(r, page / 64 + 1, hgm_bits_carry(bits, shift));
	}
	return rc;
}
