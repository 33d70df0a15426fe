/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * High-granularity mapping by feature bit 13 of userfaultfd, as in the RFC v2 (see caps_hgm.c).
 */
#include <errno.h>

#include "caps.h"
#include "util/page.h"

#define EXACT HGM_UFFD_FEATURE_EXACT_ADDRESS
#define BIT13 HGM_UFFD_FEATURE_MINOR_HUGETLBFS_HGM

/*
 * CONTINUE of 4 KiB of hugetlb memory that has no pages. It takes none, and fails: with EINVAL if
 * the size is refused. Returns 1 if it could not be tried; then the answer has been given.
 */
static int continue_nothing(struct hgm_probe *p, uint64_t features)
{
	unsigned int flags = p->flags;
	struct hgm_scratch s;
	int64_t done = 0;
	int rc = 1;

	p->flags &= ~HGM_CAPS_USE_HUGE_PAGES;
	if (hgm_scratch_open(p, &s, HGM_MEMORY_HUGETLB_2M) &&
	    hgm_scratch_register(p, &s, features, HGM_UFFD_MINOR))
		rc = hgm_sys->uffd_continue(s.uffd, s.primary + p->page, p->page, 0, &done);
	hgm_scratch_close(&s);
	p->flags = flags;
	return rc;
}

/* Does feature bit 13 make the difference? */
static void try_feature(struct hgm_probe *p)
{
	int fd = hgm_probe_open_uffd(EXACT | BIT13);
	int rc;

	if (fd == -EINVAL) {
		hgm_probe_answer(p, HGM_NO,
				 "UFFDIO_API with feature bit 13 and EXACT_ADDRESS: EINVAL");
		return;
	}
	if (fd < 0) {
		hgm_probe_answer_errno(p, fd, "no userfaultfd (see uffd.device and uffd.syscall)");
		return;
	}
	hgm_sys->close(fd);
	rc = continue_nothing(p, EXACT | BIT13);
	if (rc == -EINVAL)
		hgm_probe_answer(p, HGM_NO,
				 "UFFDIO_CONTINUE of 4 KiB of hugetlb with feature bit 13: EINVAL; "
				 "the bit means WP_UNPOPULATED here (Linux 6.4 or later)");
	else if (rc < 0 && rc != -EFAULT)
		hgm_probe_answer_errno(p, rc, "UFFDIO_CONTINUE of 4 KiB of hugetlb without pages");
	else if (!rc)
		hgm_probe_answer(p, HGM_NO,
				 "UFFDIO_CONTINUE of 4 KiB of hugetlb without pages reported "
				 "success");
	if (rc != -EFAULT)
		return;
	rc = continue_nothing(p, EXACT);
	if (rc == -EINVAL)
		hgm_probe_answer(p, HGM_YES,
				 "UFFDIO_CONTINUE takes 4 KiB of hugetlb, and only with feature "
				 "bit 13 (MINOR_HUGETLBFS_HGM of the RFC v2)");
	else if (rc <= 0)
		hgm_probe_answer(p, HGM_NO,
				 "UFFDIO_CONTINUE of 4 KiB of hugetlb: the same without feature "
				 "bit 13, so the bit means something else here");
}

void hgm_probe_feature_stage(struct hgm_probe *p)
{
	try_feature(p);
	if (p->answer != HGM_UNPROVEN)
		p->bit13 = p->answer == HGM_YES ? HGM_BIT13_IS_HGM : HGM_BIT13_IS_OTHER;
}

bool hgm_probe_asked_by_feature(struct hgm_probe *p)
{
	struct hgm_probe advice = *p;

	if (p->bit13 == HGM_BIT13_UNKNOWN)
		hgm_probe_feature_stage(p);
	if (p->bit13 == HGM_BIT13_IS_OTHER) {
		advice.bit13 = p->bit13;
		*p = advice;
	}
	return p->bit13 == HGM_BIT13_IS_HGM;
}

bool hgm_probe_bit13_is_hgm(void)
{
	struct hgm_probe p = { .page = HGM_PAGE_BYTES };

	hgm_probe_advice_stage(&p);
	return p.answer == HGM_NO && hgm_probe_asked_by_feature(&p);
}
