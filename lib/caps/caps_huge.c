/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Probes: huge page pools, whether shmem uses huge pages by itself, collapse, PAGEMAP_SCAN.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "caps.h"
#include "uffd/hugepage.h"
#include "uffd/smaps.h"
#include "util/error.h"

#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

/* The kernel returns EAGAIN, EBUSY and even EINVAL for temporary conditions. */
#define COLLAPSE_TRIES 4

static int read_pool(uint64_t kib, const char *file, uint64_t *value)
{
	char path[96];
	char text[32];
	int rc;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB/%s", kib,
		 file);
	rc = hgm_probe_read_text(path, text, sizeof(text));
	if (rc < 0)
		return rc;
	*value = strtoull(text, NULL, 10);
	return 0;
}

void hgm_probe_huge_page_pool(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	uint64_t kib = row->memory == HGM_MEMORY_HUGETLB_1G ? 1 << 20 : 1 << 11;
	uint64_t reserved = 0;
	uint64_t total = 0;
	uint64_t nfree = 0;
	int rc;

	rc = read_pool(kib, "free_hugepages", &nfree);
	if (!rc)
		rc = read_pool(kib, "nr_hugepages", &total);
	if (!rc)
		rc = read_pool(kib, "resv_hugepages", &reserved);
	if (rc == -ENOENT) {
		hgm_probe_answer(p, HGM_NO,
				 "no pool of %" PRIu64 " kB pages in "
				 "/sys/kernel/mm/hugepages",
				 kib);
	} else if (rc) {
		hgm_probe_answer_errno(p, rc, "the pool's files in /sys/kernel/mm/hugepages");
	} else {
		p->value = nfree;
		hgm_probe_answer(p, HGM_YES,
				 "%" PRIu64 " of %" PRIu64 " pages are free, %" PRIu64
				 " of these are reserved; to get more, write to nr_hugepages in "
				 "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB",
				 nfree, total, reserved, kib);
	}
}

void hgm_probe_shmem_enabled(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	char text[128];
	int rc;

	(void)row;
	rc = hgm_probe_read_text(SHMEM_ENABLED, text, sizeof(text));
	if (rc == -ENOENT)
		hgm_probe_answer(p, HGM_NO,
				 SHMEM_ENABLED
				 ": ENOENT; the kernel is built without transparent huge pages, or "
				 "/sys is not mounted");
	else if (rc < 0)
		hgm_probe_answer_errno(p, rc, SHMEM_ENABLED);
	else if (strstr(text, "[deny]"))
		hgm_probe_answer(p, HGM_NO,
				 SHMEM_ENABLED " is '%s': this forbids MADV_COLLAPSE too", text);
	else if (strstr(text, "[never]"))
		hgm_probe_answer(p, HGM_NO,
				 SHMEM_ENABLED " is '%s': the kernel makes no huge page by itself, "
					       "but MADV_COLLAPSE ignores this setting",
				 text);
	else
		hgm_probe_answer(p, HGM_YES, SHMEM_ENABLED " is '%s'", text);
}

int64_t hgm_probe_huge_bytes(const void *addr, uint64_t len)
{
	uint64_t bytes;
	int fd = hgm_pagemap_open();
	int rc;

	if (fd < 0)
		return fd;
	rc = hgm_pagemap_huge(fd, addr, len, &bytes);
	hgm_sys->close(fd);
	return rc ? rc : (int64_t)bytes;
}

int hgm_probe_try_collapse(void *addr, uint64_t len)
{
	int rc = 0;

	for (int i = 0; i < COLLAPSE_TRIES; i++) {
		rc = hgm_sys->madvise(addr, len, HGM_MADV_COLLAPSE);
		if (!rc || rc == -ENOMEM || rc == -EPERM)
			break;
		hgm_sys->poll(NULL, 0, 1000000);
	}
	return rc;
}

/* Linux before 6.7 has no PAGEMAP_SCAN, but it has smaps. */
static int64_t huge_bytes_by_any_way(const struct hgm_scratch *s, const char **way)
{
	int64_t huge = hgm_probe_huge_bytes(s->primary, s->block);
	struct hgm_smaps seen;

	*way = "PAGEMAP_SCAN";
	if (huge >= 0 || hgm_smaps_sum(s->primary, s->block, &seen) || !seen.areas || seen.partial)
		return huge;
	*way = "smaps";
	return (int64_t)(seen.shmem_pmd + seen.anon_huge);
}

static void answer_refused(struct hgm_probe *p, const struct hgm_scratch *s, int rc,
			   const char *how)
{
	char text[128] = "";

	if (rc != -EINVAL) {
		hgm_probe_answer_errno(p, rc, "MADV_COLLAPSE");
		return;
	}
	if (s->alias)
		hgm_probe_read_text(SHMEM_ENABLED, text, sizeof(text));
	hgm_probe_answer(p, HGM_NO,
			 "MADV_COLLAPSE %s: EINVAL; the kernel does not know it, or transparent "
			 "huge pages are off%s%s",
			 how, *text ? ": shmem_enabled is " : "", text);
}

/* Collapse the primary. Check that this made it huge and changed no contents. */
static void collapse_primary(struct hgm_probe *p, struct hgm_scratch *s, const char *how)
{
	const char *way;
	int64_t huge;
	int rc;

	rc = hgm_probe_try_collapse(s->primary, s->block);
	if (rc) {
		answer_refused(p, s, rc, how);
		return;
	}
	huge = huge_bytes_by_any_way(s, &way);
	hgm_scratch_unregister(s);
	for (uint64_t i = 0; i < s->block; i += p->page) {
		if (s->primary[i] != (char)(i / p->page)) {
			hgm_probe_answer(p, HGM_NO, "MADV_COLLAPSE %s changed page %" PRIu64, how,
					 i / p->page);
			return;
		}
	}
	if (huge < 0)
		hgm_probe_answer(p, HGM_YES,
				 "MADV_COLLAPSE %s succeeded (not verified: PAGEMAP_SCAN: "
				 "%s)",
				 how, hgm_errno_name((int)huge));
	else if ((uint64_t)huge == s->block)
		hgm_probe_answer(p, HGM_YES, "MADV_COLLAPSE %s worked; %s shows it mapped huge",
				 how, way);
	else
		hgm_probe_answer(p, HGM_NO,
				 "MADV_COLLAPSE %s reported success, but %s shows only %" PRId64
				 " huge bytes",
				 how, way, huge);
}

/* Give every page a byte of its own. */
static bool fill(struct hgm_probe *p, struct hgm_scratch *s, char *addr)
{
	if (!hgm_scratch_populate(p, s, addr, s->block))
		return false;
	for (uint64_t i = 0; i < s->block; i += p->page)
		addr[i] = (char)(i / p->page);
	return true;
}

void hgm_probe_collapse(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch s;

	if (hgm_scratch_open(p, &s, row->memory) && fill(p, &s, s.alias ? s.alias : s.primary))
		collapse_primary(p, &s, "of 4 KiB pages");
	hgm_scratch_close(&s);
}

/*
 * Do what regions of prepared shmem do: the page cache gets its huge page while the block is empty,
 * and 4 KiB pieces of it are mapped as they arrive. Collapse then has nothing to copy.
 */
void hgm_probe_collapse_prepared(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch s;
	int64_t done = 0;
	int rc;

	if (!hgm_scratch_open(p, &s, row->memory) || !hgm_scratch_populate(p, &s, s.alias, p->page))
		goto close;
	rc = hgm_probe_try_collapse(s.alias, s.block);
	if (rc) {
		answer_refused(p, &s, rc, "of an empty block");
		goto close;
	}
	if (!fill(p, &s, s.alias) || !hgm_scratch_register(p, &s, 0, HGM_UFFD_MINOR))
		goto close;
	for (uint64_t i = 0; i < s.block && !rc; i += p->page)
		rc = hgm_sys->uffd_continue(s.uffd, s.primary + i, p->page, 0, &done);
	if (rc)
		hgm_probe_answer_errno(p, rc, "UFFDIO_CONTINUE of 4 KiB of a huge page");
	else
		collapse_primary(p, &s,
				 "of a registered block, prepared through its alias and mapped in "
				 "4 KiB pages,");
close:
	hgm_scratch_close(&s);
}

void hgm_probe_scan(struct hgm_probe *p, const char *start, uint64_t category, const char *only,
		    const char *what)
{
	struct hgm_pm_region region = { 0 };
	uint64_t walk_end = 0;
	int fd;
	int n;

	fd = hgm_sys->open("/proc/self/pagemap", O_RDONLY);
	if (fd < 0) {
		hgm_probe_answer_errno(p, fd, "/proc/self/pagemap");
		return;
	}
	n = hgm_sys->pagemap_scan(fd, start, start + 4 * p->page, category, &region, 1, &walk_end);
	hgm_sys->close(fd);
	if (n == -ENOTTY || n == -EINVAL)
		hgm_probe_answer(
			p, HGM_NO,
			"PAGEMAP_SCAN for a page that %s: %s; this kernel does not know it", what,
			hgm_errno_name(n));
	else if (n < 0)
		hgm_probe_answer_errno(p, n, "PAGEMAP_SCAN of /proc/self/pagemap");
	else if (n == 1 && region.start == (uintptr_t)only &&
		 region.end == (uintptr_t)only + p->page)
		hgm_probe_answer(p, HGM_YES, "PAGEMAP_SCAN found the one page that %s", what);
	else
		hgm_probe_answer(p, HGM_NO,
				 "PAGEMAP_SCAN found %d regions instead of the one page that %s", n,
				 what);
}

void hgm_probe_pagemap_scan(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch s;

	if (hgm_scratch_open(p, &s, row->memory) && hgm_scratch_populate(p, &s, s.primary, p->page))
		hgm_probe_scan(p, s.primary, HGM_PAGE_IS_PRESENT, s.primary, "was touched");
	hgm_scratch_close(&s);
}

void hgm_probe_pagemap_guard(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	struct hgm_scratch s;
	int rc;

	if (!hgm_scratch_open(p, &s, row->memory))
		goto close;
	rc = hgm_sys->madvise(s.primary, p->page, HGM_MADV_GUARD_INSTALL);
	if (rc)
		hgm_probe_answer_errno(p, rc, "MADV_GUARD_INSTALL");
	else
		hgm_probe_scan(p, s.primary, HGM_PAGE_IS_GUARD, s.primary, "is a guard");
close:
	hgm_scratch_close(&s);
}
