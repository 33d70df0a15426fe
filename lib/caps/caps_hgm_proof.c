/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * High-granularity mapping, tested on a huge page from the pool.
 *
 * The only kernel that had it needs each of these rules:
 *
 *	- The page is written through the alias before any CONTINUE. A CONTINUE that fails leaves
 *	  a page table behind, which prevents larger mappings.
 *	- All of the page is in place before it is collapsed, because collapse maps holes too.
 *	- Collapse never gets less than the whole huge page.
 *	- Threads that wait are woken afterwards.
 *	- A page that has been write-protected is never written.
 *	- No fork.
 */
#include <errno.h>
#include <inttypes.h>

#include "caps.h"
#include "uffd/smaps.h"
#include "util/error.h"

/* This many words of the block have contents of their own: in 2 MiB, one per page. */
#define MARKS 512

#define CONTINUE_TRIES 4

static uint64_t *mark(char *addr, uint64_t block, unsigned int i)
{
	return (uint64_t *)(addr + block / MARKS * i);
}

static uint64_t mark_value(unsigned int i)
{
	return (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

/* Put a huge page into the page cache, split and register its mapping; map nothing of it. */
static bool begin(struct hgm_probe *p, struct hgm_scratch *s, enum hgm_memory memory,
		  uint64_t modes)
{
	int rc;

	if (!hgm_scratch_open(p, s, memory) || !hgm_scratch_populate(p, s, s->alias, s->block))
		return false;
	for (unsigned int i = 0; i < MARKS; i++)
		*mark(s->alias, s->block, i) = mark_value(i);
	if (p->by_feature)
		return hgm_scratch_register(
			p, s, HGM_UFFD_FEATURE_EXACT_ADDRESS | HGM_UFFD_FEATURE_MINOR_HUGETLBFS_HGM,
			modes);
	rc = hgm_sys->madvise(s->primary, s->block, HGM_MADV_SPLIT);
	if (rc) {
		hgm_probe_answer_errno(p, rc, "MADV_SPLIT of a mapping of a huge page");
		return false;
	}
	return hgm_scratch_register(p, s, HGM_UFFD_FEATURE_EXACT_ADDRESS, modes);
}

/* Answer whether the page tables show the second page, and only that page. */
static void see_one_page(struct hgm_probe *p, struct hgm_scratch *s)
{
	int64_t before = hgm_probe_pagemap(p, s->primary);
	int64_t page = hgm_probe_pagemap(p, s->primary + p->page);
	int64_t after = hgm_probe_pagemap(p, s->primary + 2 * p->page);
	bool have_pagemap = before >= 0 && page >= 0 && after >= 0;
	struct hgm_smaps seen;
	bool have_counters;
	int rc;

	rc = hgm_smaps_sum(s->primary, s->block, &seen);
	have_counters = !rc && seen.has_leaf_counters && !seen.partial;

	if (!have_pagemap && !have_counters)
		hgm_probe_answer(p, HGM_UNPROVEN,
				 "UFFDIO_CONTINUE of 4 KiB of a huge page reported success, but "
				 "nothing shows what it mapped: /proc/self/pagemap: %s",
				 hgm_errno_name((int)(page < 0	   ? page
						      : before < 0 ? before
								   : after)));
	else if (have_pagemap && !(page & HGM_PAGEMAP_PRESENT))
		hgm_probe_answer(p, HGM_NO,
				 "UFFDIO_CONTINUE of 4 KiB of a huge page reported success, but "
				 "the page table does not show it");
	else if (have_pagemap && (before | after) & HGM_PAGEMAP_PRESENT)
		hgm_probe_answer(
			p, HGM_NO,
			"UFFDIO_CONTINUE of 4 KiB of a huge page also mapped adjacent pages");
	else if (have_counters && (seen.pud || seen.pmd || seen.pte != p->page))
		hgm_probe_answer(p, HGM_NO,
				 "UFFDIO_CONTINUE of 4 KiB of a huge page: /proc/self/smaps shows "
				 "%" PRIu64 " bytes in 4 KiB mappings, %" PRIu64 " in larger ones",
				 seen.pte, seen.pmd + seen.pud);
	else
		hgm_probe_answer(p, HGM_YES,
				 "UFFDIO_CONTINUE mapped 4 KiB of a huge page of %s, and no more "
				 "(%s%s%s)",
				 hgm_probe_size(s->block).text, have_pagemap ? "pagemap" : "",
				 have_pagemap && have_counters ? ", " : "",
				 have_counters ? "smaps" : "");
}

/* Map the second page, so that an address rounded to the start of the block is noticed. */
static bool map_one_page(struct hgm_probe *p, struct hgm_scratch *s)
{
	int64_t done = 0;
	int rc = hgm_sys->uffd_continue(s->uffd, s->primary + p->page, p->page, 0, &done);

	if (rc == -EINVAL)
		hgm_probe_answer(p, HGM_NO,
				 "UFFDIO_CONTINUE of 4 KiB of a huge page: EINVAL, though %s was "
				 "accepted",
				 hgm_form(p));
	else if (rc)
		hgm_probe_answer_errno(p, rc, "UFFDIO_CONTINUE of 4 KiB of a huge page");
	else if (done != (int64_t)p->page)
		hgm_probe_answer(p, HGM_NO,
				 "UFFDIO_CONTINUE of 4 KiB of a huge page: processed %" PRId64
				 " bytes",
				 done);
	else
		see_one_page(p, s);
	return p->answer == HGM_YES;
}

static bool map_range(struct hgm_probe *p, struct hgm_scratch *s, uint64_t from, uint64_t to)
{
	unsigned int tries = 0;
	int64_t done;
	int rc;

	while (from < to) {
		done = 0;
		rc = hgm_sys->uffd_continue(s->uffd, s->primary + from, to - from, 0, &done);
		if (done > 0 && done <= (int64_t)(to - from)) {
			from += (uint64_t)done;
			continue;
		}
		if (rc == -EAGAIN && ++tries < CONTINUE_TRIES) {
			hgm_sys->poll(NULL, 0, 1000000);
			continue;
		}
		if (rc)
			hgm_probe_answer_errno(p, rc, "UFFDIO_CONTINUE of the rest of the block");
		else
			hgm_probe_answer(p, HGM_NO,
					 "UFFDIO_CONTINUE of the rest of the block reported "
					 "success, but processed %" PRId64 " bytes",
					 done);
		return false;
	}
	return true;
}

/* How the block is mapped, by the counters of HGM kernels, or by what else can be seen. */
struct look {
	bool counters;
	uint64_t small; /* bytes in mappings below the size of the block */
	uint64_t whole;
	int64_t huge; /* PAGEMAP_SCAN; it may call all hugetlb memory huge */
};

static struct look look_at(const struct hgm_scratch *s, enum hgm_memory memory)
{
	struct look look = { .huge = hgm_probe_huge_bytes(s->primary, s->block) };
	struct hgm_smaps seen;

	if (hgm_smaps_sum(s->primary, s->block, &seen) || seen.partial || !seen.has_leaf_counters)
		return look;
	look.counters = true;
	look.whole = memory == HGM_MEMORY_HUGETLB_1G ? seen.pud : seen.pmd;
	look.small = seen.pud + seen.pmd + seen.pte - look.whole;
	return look;
}

static void judge_collapse(struct hgm_probe *p, const struct hgm_scratch *s, int rc,
			   const struct look *before, const struct look *after)
{
	bool scan = !after->counters && before->huge == 0 && after->huge >= 0;
	uint64_t whole = scan ? (uint64_t)after->huge : after->whole;

	if ((after->counters || scan) && whole == s->block && !after->small)
		hgm_probe_answer(
			p, HGM_YES,
			"UFFDIO_CONTINUE mapped the block in 4 KiB pages, and MADV_COLLAPSE turned "
			"these into one mapping of %s, contents intact (%s)",
			hgm_probe_size(s->block).text, scan ? "PAGEMAP_SCAN" : "smaps");
	else if (rc)
		hgm_probe_answer_errno(p, rc, "MADV_COLLAPSE of a split huge page");
	else if (after->counters || scan)
		hgm_probe_answer(
			p, HGM_NO,
			"MADV_COLLAPSE of a split huge page reported success, but %s shows "
			"only %" PRIu64 " bytes in one mapping",
			scan ? "PAGEMAP_SCAN" : "/proc/self/smaps", whole);
	else
		hgm_probe_answer(p, HGM_UNPROVEN,
				 "MADV_COLLAPSE of a split huge page reported success, but nothing "
				 "here shows the size of mappings");
}

bool hgm_prove_collapse(struct hgm_probe *p, enum hgm_memory memory)
{
	struct look before, after;
	struct hgm_scratch s;
	bool one_by_one;
	int rc;

	one_by_one = begin(p, &s, memory, HGM_UFFD_MINOR) && map_one_page(p, &s);
	if (!one_by_one || !map_range(p, &s, 0, p->page) || !map_range(p, &s, 2 * p->page, s.block))
		goto close;
	before = look_at(&s, memory);
	if (before.counters && (before.small != s.block || before.whole)) {
		hgm_probe_answer(
			p, HGM_NO,
			"UFFDIO_CONTINUE of the block in parts: /proc/self/smaps shows %" PRIu64
			" bytes in small mappings, %" PRIu64 " in one",
			before.small, before.whole);
		goto close;
	}
	rc = hgm_probe_try_collapse(s.primary, s.block);
	hgm_sys->uffd_wake(s.uffd, s.primary, s.block);
	after = look_at(&s, memory);
	/* The return value can be about adjacent memory, so the page tables decide. */
	judge_collapse(p, &s, rc, &before, &after);

	hgm_scratch_unregister(&s);
	for (unsigned int i = 0; i < MARKS && p->answer == HGM_YES; i++)
		if (*mark(s.primary, s.block, i) != mark_value(i))
			hgm_probe_answer(p, HGM_NO,
					 "MADV_COLLAPSE of a split huge page changed its contents, "
					 "%" PRIu64 " bytes from the start",
					 s.block / MARKS * i);
close:
	hgm_scratch_close(&s);
	return one_by_one;
}

void hgm_prove_minor(struct hgm_probe *p, enum hgm_memory memory)
{
	struct hgm_scratch s;

	if (begin(p, &s, memory, HGM_UFFD_MINOR))
		map_one_page(p, &s);
	hgm_scratch_close(&s);
}

void hgm_prove_writeprotect(struct hgm_probe *p, enum hgm_memory memory)
{
	struct hgm_scratch s;
	int64_t seen;
	int rc;

	if (!begin(p, &s, memory, HGM_UFFD_MINOR | HGM_UFFD_WP) || !map_one_page(p, &s))
		goto close;
	rc = hgm_sys->uffd_writeprotect(s.uffd, s.primary + p->page, p->page, HGM_UFFD_WP_PROTECT);
	if (rc == -EINVAL) {
		hgm_probe_answer(p, HGM_NO,
				 "UFFDIO_WRITEPROTECT of 4 KiB of a split huge page: EINVAL; it "
				 "protects whole huge pages only");
		goto close;
	}
	if (rc) {
		hgm_probe_answer_errno(p, rc, "UFFDIO_WRITEPROTECT of 4 KiB of a split huge page");
		goto close;
	}
	seen = hgm_probe_pagemap(p, s.primary + p->page);
	if (seen < 0)
		hgm_probe_answer(p, HGM_UNPROVEN,
				 "UFFDIO_WRITEPROTECT of 4 KiB of a split huge page reported "
				 "success, but nothing shows it: /proc/self/pagemap: %s",
				 hgm_errno_name((int)seen));
	else if (!(seen & HGM_PAGEMAP_UFFD_WP))
		hgm_probe_answer(p, HGM_NO,
				 "UFFDIO_WRITEPROTECT of 4 KiB of a split huge page reported "
				 "success, but the page table does not show it");
	else
		hgm_probe_answer(p, HGM_YES,
				 "UFFDIO_WRITEPROTECT of 4 KiB of a split huge page worked; the "
				 "page table shows it");
close:
	hgm_scratch_close(&s);
}
