/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Probes: userfaultfd operations, per kind of memory and size of the piece.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "caps.h"
#include "util/error.h"

/*
 * Answer for a range operation that ended with @rc and processed @done of @len bytes. A success
 * must also show in the page table, where the page table can be read.
 */
static void judge(struct hgm_probe *p, const struct hgm_scratch *s, const char *verb, int rc,
		  int64_t done, uint64_t len, int64_t want)
{
	char what[96];
	int64_t seen;

	snprintf(what, sizeof(what), "%s of %s", verb, hgm_probe_size(len).text);
	if (rc == -EINVAL && len < s->block) {
		hgm_probe_answer(
			p, HGM_NO,
			"%s: EINVAL; the kernel does not accept pages of this memory one by one",
			what);
		return;
	}
	if (rc) {
		hgm_probe_answer_errno(p, rc, what);
		return;
	}
	if (done != (int64_t)len) {
		hgm_probe_answer(p, HGM_NO, "%s: processed %" PRId64 " bytes only", what, done);
		return;
	}
	if (!want) {
		hgm_probe_answer(p, HGM_YES, "%s worked", what);
		return;
	}
	seen = hgm_probe_pagemap(p, s->primary);
	if (seen < 0)
		hgm_probe_answer(p, HGM_YES, "%s worked (not verified: /proc/self/pagemap: %s)",
				 what, hgm_errno_name((int)seen));
	else if (seen & want)
		hgm_probe_answer(p, HGM_YES, "%s worked; the page table shows it", what);
	else
		hgm_probe_answer(p, HGM_NO,
				 "%s reported success, but the page table does not show it", what);
}

static uint64_t step_of(const struct hgm_probe *p, const struct hgm_scratch *s,
			const struct hgm_probe_row *row)
{
	return row->block ? s->block : p->page;
}

void hgm_probe_copy(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch s;
	void *src = NULL;
	uint64_t step = 0;
	int64_t done = 0;
	int rc;

	if (!hgm_scratch_open(p, &s, row->memory) ||
	    !hgm_scratch_register(p, &s, 0, HGM_UFFD_MISSING))
		goto close;
	step = step_of(p, &s, row);
	if (row->block && !s.reserved) {
		hgm_probe_answer(p, HGM_UNPROVEN,
				 "UFFDIO_REGISTER for MISSING worked; UFFDIO_COPY was not tried, "
				 "as " HGM_SAY_USE_HUGE_PAGES);
		goto close;
	}
	/* Never written to: zeroes that take no memory. */
	rc = hgm_sys->mmap(&src, NULL, step, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			   -1, 0);
	if (rc) {
		hgm_probe_answer_errno(p, rc, "allocating memory to copy from");
		goto close;
	}
	/*
	 * Map the source first: if the kernel cannot read it at once, it takes a second huge page
	 * to copy to. If this fails, the copy reports it.
	 */
	hgm_sys->madvise(src, step, HGM_MADV_POPULATE_READ);
	rc = hgm_sys->uffd_copy(s.uffd, s.primary, src, step, 0, &done);
	judge(p, &s, "UFFDIO_COPY", rc, done, step, HGM_PAGEMAP_PRESENT);
	hgm_sys->munmap(src, step);
close:
	hgm_scratch_close(&s);
}

void hgm_probe_zeropage(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch s;
	int64_t done = 0;
	uint64_t step;
	int rc;

	if (hgm_scratch_open(p, &s, row->memory) &&
	    hgm_scratch_register(p, &s, 0, HGM_UFFD_MISSING)) {
		step = step_of(p, &s, row);
		rc = hgm_sys->uffd_zeropage(s.uffd, s.primary, step, 0, &done);
		judge(p, &s, "UFFDIO_ZEROPAGE", rc, done, step, HGM_PAGEMAP_PRESENT);
	}
	hgm_scratch_close(&s);
}

void hgm_probe_continue(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch s;
	int64_t done = 0;
	uint64_t step;
	int rc;

	if (!hgm_scratch_open(p, &s, row->memory))
		goto close;
	step = step_of(p, &s, row);
	if (s.alias && s.reserved &&
	    !hgm_scratch_populate(p, &s, s.alias,
				  row->memory < HGM_MEMORY_HUGETLB_2M ? step : s.block))
		goto close;
	if (!hgm_scratch_register(p, &s, 0, HGM_UFFD_MINOR))
		goto close;
	rc = hgm_sys->uffd_continue(s.uffd, s.primary, step, 0, &done);
	if (rc == -EFAULT && !s.reserved)
		hgm_probe_answer(p, HGM_UNPROVEN,
				 "UFFDIO_CONTINUE of %s was understood (EFAULT: no page in the "
				 "page cache), but not verified, as " HGM_SAY_USE_HUGE_PAGES,
				 hgm_probe_size(step).text);
	else
		judge(p, &s, "UFFDIO_CONTINUE", rc, done, step, HGM_PAGEMAP_PRESENT);
close:
	hgm_scratch_close(&s);
}

void hgm_probe_continue_wp(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch s;
	int64_t done = 0;
	int rc;

	if (hgm_scratch_open(p, &s, row->memory) && hgm_scratch_populate(p, &s, s.alias, p->page) &&
	    hgm_scratch_register(p, &s, 0, HGM_UFFD_MINOR | HGM_UFFD_WP)) {
		rc = hgm_sys->uffd_continue(s.uffd, s.primary, p->page, HGM_UFFD_CONTINUE_WP,
					    &done);
		if (rc == -EINVAL)
			hgm_probe_answer(p, HGM_NO,
					 "UFFDIO_CONTINUE with MODE_WP: EINVAL; pages "
					 "cannot be mapped write-protected in one step");
		else
			judge(p, &s, "UFFDIO_CONTINUE with MODE_WP", rc, done, p->page,
			      HGM_PAGEMAP_UFFD_WP);
	}
	hgm_scratch_close(&s);
}

void hgm_probe_writeprotect(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch s;
	uint64_t step;
	int rc;

	if (!hgm_scratch_open(p, &s, row->memory))
		goto close;
	step = step_of(p, &s, row);
	/* On hugetlb without a page to spare, absent memory is protected, which takes no page. */
	if (s.reserved &&
	    !hgm_scratch_populate(p, &s, s.primary,
				  row->memory >= HGM_MEMORY_HUGETLB_2M ? s.block : p->page))
		goto close;
	if (!hgm_scratch_register(p, &s, 0, HGM_UFFD_WP))
		goto close;
	rc = hgm_sys->uffd_writeprotect(s.uffd, s.primary, step, HGM_UFFD_WP_PROTECT);
	judge(p, &s, "UFFDIO_WRITEPROTECT", rc, (int64_t)step, step,
	      s.reserved ? HGM_PAGEMAP_UFFD_WP : 0);
close:
	hgm_scratch_close(&s);
}

/*
 * A poison marker shows only when it is accessed. Let the kernel access it: the kernel gets EFAULT
 * where a thread would get SIGBUS. The registration has ended by then, so nothing can wait.
 */
static void touch_poison(struct hgm_probe *p, struct hgm_scratch *s, uint64_t step)
{
	ssize_t n;
	int fd;

	hgm_scratch_unregister(s);
	fd = hgm_sys->eventfd();
	if (fd < 0)
		return;
	n = hgm_sys->write(fd, s->primary, sizeof(uint64_t));
	hgm_sys->close(fd);
	if (n >= 0)
		hgm_probe_answer(p, HGM_NO,
				 "UFFDIO_POISON reported success, but the page could be read");
	else if (n == -EFAULT)
		hgm_probe_answer(p, HGM_YES, "UFFDIO_POISON of %s worked; reading the page fails",
				 hgm_probe_size(step).text);
}

void hgm_probe_poison(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch s;
	int64_t done = 0;
	uint64_t step;
	int rc;

	if (!hgm_scratch_open(p, &s, row->memory) ||
	    !hgm_scratch_register(p, &s, 0, HGM_UFFD_MISSING))
		goto close;
	step = step_of(p, &s, row);
	rc = hgm_sys->uffd_poison(s.uffd, s.primary, step, 0, &done);
	/* On hugetlb, EINVAL can be about the size of the piece. */
	if (rc == -ENOTTY || (rc == -EINVAL && (row->block || row->memory < HGM_MEMORY_HUGETLB_2M)))
		hgm_probe_answer(p, HGM_NO, "UFFDIO_POISON: %s; this kernel does not know it",
				 hgm_errno_name(rc));
	else
		judge(p, &s, "UFFDIO_POISON", rc, done, step, 0);
	if (p->answer == HGM_YES)
		touch_poison(p, &s, step);
close:
	hgm_scratch_close(&s);
}

void hgm_probe_move(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch from;
	struct hgm_scratch to = { .uffd = -1, .memfd = -1 };
	int64_t done = 0;
	int rc;

	if (hgm_scratch_open(p, &from, row->memory) &&
	    hgm_scratch_populate(p, &from, from.primary, p->page) &&
	    hgm_scratch_open(p, &to, row->memory) &&
	    hgm_scratch_register(p, &to, 0, HGM_UFFD_MISSING)) {
		rc = hgm_sys->uffd_move(to.uffd, to.primary, from.primary, p->page, 0, &done);
		if (rc == -EINVAL || rc == -ENOTTY)
			hgm_probe_answer(p, HGM_NO, "UFFDIO_MOVE: %s; this kernel does not know it",
					 hgm_errno_name(rc));
		else
			judge(p, &to, "UFFDIO_MOVE", rc, done, p->page, HGM_PAGEMAP_PRESENT);
		hgm_scratch_unregister(&to);
		if (p->answer == HGM_YES && *to.primary != 0x5a)
			hgm_probe_answer(
				p, HGM_NO,
				"UFFDIO_MOVE reported success, but the contents are not there");
	}
	hgm_scratch_close(&to);
	hgm_scratch_close(&from);
}
