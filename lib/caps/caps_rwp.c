/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Probes of RWP, protection against all access: pages stay, but the next access to each of them is
 * reported, or recorded by the kernel (RWP_ASYNC).
 */
#include <inttypes.h>
#include <linux/userfaultfd.h>

#include "caps.h"
#include "util/error.h"

/* Protect present memory of the row. If false, the answer has been given. */
static bool protect(struct hgm_probe *p, const struct hgm_probe_row *row, struct hgm_scratch *s,
		    uint64_t present, uint64_t len)
{
	int rc;

	if (!hgm_scratch_open(p, s, row->memory) ||
	    (s->reserved && !hgm_scratch_populate(p, s, s->primary, present)) ||
	    !hgm_scratch_register(p, s, row->feature, HGM_UFFD_RWP))
		return false;
	rc = hgm_sys->uffd_rwprotect(s->uffd, s->primary, len, HGM_UFFD_RWP_PROTECT);
	if (rc)
		hgm_probe_answer_errno(p, rc, "UFFDIO_RWPROTECT");
	return !rc;
}

/* A read must be reported, as an access to protected memory. */
static void expect_message(struct hgm_probe *p, struct hgm_scratch *s, const char *how)
{
	struct uffd_msg msg = { 0 };
	uint32_t tid;

	switch (hgm_probe_touch(p, s, false, &msg, &tid)) {
	case HGM_CAME_DONE:
		hgm_probe_answer(p, HGM_NO, "%s succeeded, but a read caused no message", how);
		break;
	case HGM_CAME_FAULT:
		if (msg.arg.pagefault.flags & HGM_UFFD_FAULT_RWP)
			hgm_probe_answer(p, HGM_YES, "after %s, a read was reported", how);
		else
			hgm_probe_answer(p, HGM_NO,
					 "after %s, a read was reported with flags %#" PRIx64, how,
					 (uint64_t)msg.arg.pagefault.flags);
		break;
	case HGM_CAME_NONE:
		break;
	}
}

void hgm_probe_rwp(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch s;
	uint64_t len;

	len = row->memory == HGM_MEMORY_HUGETLB_1G ? UINT64_C(1) << 30
	      : row->block			   ? UINT64_C(1) << 21
						   : p->page;
	if (protect(p, row, &s, len, len)) {
		if (s.reserved)
			expect_message(p, &s, "UFFDIO_RWPROTECT");
		else
			hgm_probe_answer(p, HGM_UNPROVEN,
					 "UFFDIO_RWPROTECT worked, but not on a page, "
					 "as " HGM_SAY_USE_HUGE_PAGES);
	}
	hgm_scratch_close(&s);
}

void hgm_probe_rwp_async(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct uffd_msg msg = { 0 };
	struct hgm_scratch s;
	uint32_t tid;

	if (!protect(p, row, &s, p->page, p->page))
		goto close;
	switch (hgm_probe_touch(p, &s, false, &msg, &tid)) {
	case HGM_CAME_DONE:
		hgm_probe_answer(p, HGM_YES,
				 "a read of a protected page succeeded without a message");
		break;
	case HGM_CAME_FAULT:
		hgm_probe_answer(
			p, HGM_NO,
			"the kernel accepted RWP_ASYNC, but a read still caused a message");
		break;
	case HGM_CAME_NONE:
		break;
	}
close:
	hgm_scratch_close(&s);
}

/* With RWP_ASYNC switched off, an access causes a message again. */
void hgm_probe_set_mode(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch s;
	int rc;

	if (protect(p, row, &s, p->page, p->page)) {
		rc = hgm_sys->uffd_set_mode(s.uffd, 0, HGM_UFFD_FEATURE_RWP_ASYNC);
		if (rc)
			hgm_probe_answer_errno(p, rc, "UFFDIO_SET_MODE");
		else
			expect_message(p, &s, "UFFDIO_SET_MODE that disables RWP_ASYNC");
	}
	hgm_scratch_close(&s);
}

/* Of four protected pages, one is no longer protected, as after an access. */
void hgm_probe_pagemap_accessed(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch s;
	char *second;
	int rc;

	if (protect(p, row, &s, 4 * p->page, 4 * p->page)) {
		second = s.primary + p->page;
		rc = hgm_sys->uffd_rwprotect(s.uffd, second, p->page, 0);
		if (rc)
			hgm_probe_answer_errno(p, rc, "UFFDIO_RWPROTECT that ends protection");
		else
			hgm_probe_scan(p, s.primary, HGM_PAGE_IS_ACCESSED, second, "was accessed");
	}
	hgm_scratch_close(&s);
}
