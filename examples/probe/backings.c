/* SPDX-License-Identifier: 0BSD */
/*
 * Which backings the capabilities allow, and which of them is the best.
 */
#include <string.h>

#include "probe.h"

const char *answer_text(uint32_t answer)
{
	static const char *const texts[] = {
		[HGM_NO] = "no",
		[HGM_YES] = "yes",
		[HGM_DENIED] = "denied",
		[HGM_UNPROVEN] = "unproven",
	};

	return answer <= HGM_UNPROVEN ? texts[answer] : "unproven";
}

bool has(const struct hgm_caps *caps, const char *name)
{
	const struct hgm_cap *cap = hgm_caps_find(caps, name);

	return cap && cap->answer == HGM_YES;
}

/* The backing needs both capabilities. The first missing one decides. */
static void needs(struct backing *b, const struct hgm_caps *caps, const char *first,
		  const char *second)
{
	const char *names[] = { first, second };

	for (int i = 0; i < 2 && names[i]; i++) {
		b->says = hgm_caps_find(caps, names[i]);
		b->answer = b->says ? b->says->answer : HGM_UNPROVEN;
		if (b->answer != HGM_YES)
			return;
	}
}

/* Choose a size: prefer a proven one, then one that could work, then one that cannot. */
static void either_size(struct backing *b, const struct hgm_caps *caps)
{
	static const uint32_t order[] = { HGM_YES, HGM_UNPROVEN, HGM_DENIED, HGM_NO };
	const struct hgm_cap *small = hgm_caps_find(caps, "hugetlb.2m.minor.block");
	const struct hgm_cap *large = hgm_caps_find(caps, "hugetlb.1g.minor.block");

	for (int i = 0; i < 4; i++) {
		if (small && small->answer == order[i])
			b->says = small;
		else if (large && large->answer == order[i])
			b->says = large;
		else
			continue;
		b->answer = order[i];
		b->fault_bytes = b->says == small ? UINT64_C(1) << 21 : UINT64_C(1) << 30;
		return;
	}
	b->answer = HGM_UNPROVEN;
}

void find_out(struct findings *f, const struct hgm_caps *caps, bool proved)
{
	static const struct backing backings[BACKINGS] = {
		[BACKING_HGM] = { "hugetlb.hgm", "hugetlb with HGM", .fault_bytes = 4096,
				  .huge_by = "remap" },
		[BACKING_PREPARED] = { "shmem.prepared", "shmem, prepared", .fault_bytes = 4096,
				       .huge_by = "remap" },
		[BACKING_LAZY] = { "shmem.lazy", "shmem, lazy", .fault_bytes = 4096 },
		[BACKING_WHOLE] = { "hugetlb.whole", "hugetlb, whole blocks", .huge_by = "born" },
		[BACKING_ANON] = { "anon", "anonymous", .fault_bytes = 4096 },
	};

	memset(f, 0, sizeof(*f));
	f->caps = caps;
	f->proved = proved;
	memcpy(f->backings, backings, sizeof(backings));

	needs(&f->backings[BACKING_HGM], caps, "hgm", NULL);
	needs(&f->backings[BACKING_PREPARED], caps, "shmem.minor.4k", "shmem.collapse.prepared");
	needs(&f->backings[BACKING_LAZY], caps, "shmem.missing.4k", "shmem.minor.4k");
	if (has(caps, "shmem.collapse"))
		f->backings[BACKING_LAZY].huge_by = "copy";
	either_size(&f->backings[BACKING_WHOLE], caps);
	needs(&f->backings[BACKING_ANON], caps, "anon.missing.4k", NULL);
	if (has(caps, "anon.collapse"))
		f->backings[BACKING_ANON].huge_by = "copy";

	for (int i = BACKINGS - 1; i >= 0; i--)
		if (f->backings[i].answer == HGM_YES)
			f->best = &f->backings[i];
	f->no_uffd = !has(caps, "uffd.features");
	f->user_mode_only = !f->no_uffd && !has(caps, "uffd.device") && !has(caps, "uffd.syscall");
	if (f->no_uffd)
		f->status = STATUS_NO_UFFD;
	else if (has(caps, "shmem.minor.4k") || has(caps, "anon.missing.4k") || has(caps, "hgm"))
		f->status = STATUS_FINE;
	else
		f->status = STATUS_COARSE;
}
