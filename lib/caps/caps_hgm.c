/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * High-granularity mapping of hugetlb memory: the stages that take no huge page, and the verdict.
 *
 * There are two forms. The series v1 and v2 have MADV_SPLIT. In the RFC v2, a program asks for
 * feature bit 13 of userfaultfd (MINOR_HUGETLBFS_HGM), and what it then registers for MINOR is as
 * good as split. That form is tried where MADV_SPLIT is unknown.
 *
 * No single sign of support is trusted. Bit 13 is WP_UNPOPULATED since Linux 6.4: that a kernel
 * takes it says nothing. The sysfs file was proposed, in two places, and never written. Advice 26
 * is free in mainline, and may get another meaning. Therefore each stage can say no, but only the
 * proof on a huge page (caps_hgm_proof.c) says yes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "caps.h"
#include "uffd/smaps.h"
#include "util/error.h"

#define EXACT HGM_UFFD_FEATURE_EXACT_ADDRESS

static const char *split_name(void)
{
	return HGM_MADV_SPLIT == 26 ? "advice 26 (MADV_SPLIT)" : "advice 74 (MADV_SPLIT)";
}

/* Never answers yes. True if the file says that HGM is switched off; else nothing is known. */
static bool sysfs_stage(struct hgm_probe *p)
{
	static const char *const paths[] = { "/sys/kernel/mm/hugepages/hgm",
					     "/sys/kernel/vm/hugepages/hgm" };
	const char *path = paths[0];
	char text[64];
	int rc = hgm_probe_read_text(path, text, sizeof(text));

	if (rc == -ENOENT) {
		path = paths[1];
		rc = hgm_probe_read_text(path, text, sizeof(text));
	}
	if (rc == -ENOENT) {
		hgm_probe_answer(p, HGM_UNPROVEN,
				 "%s and %s are absent, which says nothing: no known kernel has "
				 "them",
				 paths[0], paths[1]);
	} else if (rc < 0) {
		hgm_probe_answer_errno(p, rc, path);
	} else if (!strcmp(text, "0")) {
		hgm_probe_answer(p, HGM_NO, "switched off: %s is 0", path);
		return true;
	} else {
		hgm_probe_answer(p, HGM_UNPROVEN, "%s is '%s': a hint, not a proof", path, text);
	}
	return false;
}

void hgm_probe_advice_stage(struct hgm_probe *p)
{
	int rc = hgm_sys->madvise(NULL, 0, HGM_MADV_SPLIT);

	if (!rc)
		hgm_probe_answer(p, HGM_YES,
				 "this kernel knows %s, but may use the number for something else",
				 split_name());
	else if (rc == -EINVAL)
		hgm_probe_answer(p, HGM_NO,
				 "%s for zero bytes: EINVAL; this kernel does not know it",
				 split_name());
	else
		hgm_probe_answer_errno(p, rc, split_name());
}

/* A CONTINUE of 4 KiB does not wake a thread that waits at the huge page's base. */
static void exact_address_stage(struct hgm_probe *p)
{
	int fd = hgm_probe_open_uffd(EXACT);

	if (fd >= 0) {
		hgm_sys->close(fd);
		hgm_probe_answer(p, HGM_YES, "userfaultfd offers EXACT_ADDRESS");
	} else if (fd == -EINVAL) {
		hgm_probe_answer(p, HGM_NO,
				 "UFFDIO_API with EXACT_ADDRESS: EINVAL; without it a fault inside "
				 "a huge page does not report which page was touched");
	} else {
		hgm_probe_answer_errno(p, fd, "no userfaultfd (see uffd.device and uffd.syscall)");
	}
}

/* Split a mapping without pages. It takes none from the pool, and reserves none. */
static void split_stage(struct hgm_probe *p, enum hgm_memory memory)
{
	unsigned int flags = p->flags;
	struct hgm_scratch s;
	struct hgm_smaps seen;
	int rc;

	p->flags &= ~HGM_CAPS_USE_HUGE_PAGES;
	if (!hgm_scratch_open(p, &s, memory))
		goto close;
	rc = hgm_sys->madvise(s.primary, s.block, HGM_MADV_SPLIT);
	if (rc == -EINVAL)
		hgm_probe_answer(p, HGM_NO,
				 "%s of shared hugetlb memory: EINVAL, although the kernel knows "
				 "the number: it means something else here",
				 split_name());
	else if (rc)
		hgm_probe_answer_errno(p, rc, "MADV_SPLIT of shared hugetlb memory");
	if (rc)
		goto close;

	rc = hgm_smaps_sum(s.primary, s.block, &seen);
	if (rc)
		hgm_probe_answer(p, HGM_UNPROVEN,
				 "MADV_SPLIT was accepted, but nothing shows whether it marked the "
				 "memory: /proc/self/smaps: %s",
				 hgm_errno_name(rc));
	else if (!seen.areas)
		hgm_probe_answer(
			p, HGM_UNPROVEN,
			"MADV_SPLIT was accepted, but /proc/self/smaps does not show the memory");
	else if (!seen.all_hm)
		hgm_probe_answer(p, HGM_NO,
				 "%s was accepted, but did not mark the memory (no 'hm' in VmFlags "
				 "of /proc/self/smaps): it means something else here",
				 split_name());
	else
		hgm_probe_answer(p, HGM_YES,
				 "MADV_SPLIT was accepted and marked the memory ('hm' in VmFlags)");
close:
	hgm_scratch_close(&s);
	p->flags = flags;
}

/* Put the name of the stage before the reason. */
static void name_stage(struct hgm_probe *p, const char *name)
{
	char reason[sizeof(p->reason)];

	memcpy(reason, p->reason, sizeof(reason));
	snprintf(p->reason, sizeof(p->reason), "%s: %.*s", name,
		 (int)(sizeof(p->reason) - 1 - strlen(name) - 2), reason);
}

/* The names of the rows of the proof: single pages, and collapse. */
static const char *const *proof_names(enum hgm_memory memory)
{
	static const char *const small[] = { "hgm.2m.minor.4k", "hgm.2m.collapse" };
	static const char *const large[] = { "hgm.1g.minor.4k", "hgm.1g.collapse" };

	return memory == HGM_MEMORY_HUGETLB_1G ? large : small;
}

/* The stages of the series that has MADV_SPLIT. */
static bool split_stages(struct hgm_probe *p, enum hgm_memory memory)
{
	exact_address_stage(p);
	if (p->answer != HGM_YES) {
		name_stage(p, "uffd.exact_address");
		return false;
	}
	split_stage(p, memory);
	/* If only the mark could not be checked, the proof shows more than the mark would. */
	if (p->answer == HGM_NO || p->answer == HGM_DENIED ||
	    (p->answer == HGM_UNPROVEN && !(p->flags & HGM_CAPS_USE_HUGE_PAGES))) {
		name_stage(p, "hgm.split");
		return false;
	}
	return true;
}

bool hgm_probe_hgm_stages(struct hgm_probe *p, enum hgm_memory memory)
{
	p->by_feature = false;
	if (sysfs_stage(p)) {
		name_stage(p, "hgm.sysfs");
		return false;
	}
	hgm_probe_advice_stage(p);
	if (p->answer == HGM_NO)
		p->by_feature = hgm_probe_asked_by_feature(p);
	if (p->answer == HGM_UNPROVEN) {
		name_stage(p, "hgm.feature");
		return false;
	}
	if (p->answer != HGM_YES && !p->by_feature) {
		name_stage(p, "hgm.advice");
		return false;
	}
	if (!p->by_feature && !split_stages(p, memory))
		return false;
	if (!(p->flags & HGM_CAPS_USE_HUGE_PAGES)) {
		hgm_probe_answer(p, HGM_UNPROVEN,
				 "%s: not tried, as " HGM_SAY_USE_HUGE_PAGES
				 " (all earlier stages answer yes)",
				 proof_names(memory)[0]);
		return false;
	}
	return true;
}

void hgm_probe_hgm_verdict(struct hgm_probe *p, uint64_t block_bytes)
{
	enum hgm_memory memory;
	size_t used;

	if (block_bytes == UINT64_C(1) << 21) {
		memory = HGM_MEMORY_HUGETLB_2M;
	} else if (block_bytes == UINT64_C(1) << 30) {
		memory = HGM_MEMORY_HUGETLB_1G;
	} else {
		hgm_probe_answer(p, HGM_NO, "no huge page has %" PRIu64 " bytes", block_bytes);
		return;
	}
	if (hgm_probe_hgm_stages(p, memory))
		name_stage(p, proof_names(memory)[hgm_prove_collapse(p, memory)]);
	used = strlen(p->reason);
	if (p->answer == HGM_YES)
		snprintf(p->reason + used, sizeof(p->reason) - used, "; asked for by %s",
			 hgm_form(p));
}

void hgm_probe_hgm(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_probe other;

	(void)row;
	hgm_probe_hgm_verdict(p, UINT64_C(1) << 21);
	if (p->answer != HGM_UNPROVEN || !(p->flags & HGM_CAPS_USE_HUGE_PAGES))
		return;
	/* Perhaps no 2 MiB page is free; a 1 GiB page is sufficient too. */
	other = *p;
	hgm_probe_hgm_verdict(&other, UINT64_C(1) << 30);
	if (other.answer == HGM_YES)
		*p = other;
}

void hgm_probe_hgm_sysfs(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	(void)row;
	sysfs_stage(p);
}

void hgm_probe_hgm_advice(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	(void)row;
	hgm_probe_advice_stage(p);
}

void hgm_probe_hgm_feature(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	(void)row;
	hgm_probe_feature_stage(p);
}

void hgm_probe_hgm_split(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	hgm_probe_advice_stage(p);
	if (p->answer == HGM_YES)
		split_stage(p, row->memory);
	else
		name_stage(p, "hgm.advice");
}

void hgm_probe_hgm_minor(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	if (hgm_probe_hgm_stages(p, row->memory))
		hgm_prove_minor(p, row->memory);
}

void hgm_probe_hgm_collapse(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	if (hgm_probe_hgm_stages(p, row->memory))
		hgm_prove_collapse(p, row->memory);
}

void hgm_probe_hgm_writeprotect(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	if (hgm_probe_hgm_stages(p, row->memory))
		hgm_prove_writeprotect(p, row->memory);
}
