/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The capability table: every row is tested on this kernel, and reports the result.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "caps.h"
#include "util/cancel.h"
#include "util/error.h"

struct hgm_caps {
	unsigned int count;
	struct hgm_cap cap[];
};

#define ANON	   HGM_MEMORY_ANON
#define SHMEM	   HGM_MEMORY_SHMEM
#define GUEST	   HGM_MEMORY_GUEST
#define HUGETLB_2M HGM_MEMORY_HUGETLB_2M
#define HUGETLB_1G HGM_MEMORY_HUGETLB_1G

static const struct hgm_probe_row rows[] = {
	{ "hgm", hgm_probe_hgm },
	{ "hgm.sysfs", hgm_probe_hgm_sysfs },
	{ "hgm.advice", hgm_probe_hgm_advice },
	{ "hgm.feature", hgm_probe_hgm_feature },
	{ "hgm.split", hgm_probe_hgm_split, HUGETLB_2M },
	{ "hgm.2m.minor.4k", hgm_probe_hgm_minor, HUGETLB_2M },
	{ "hgm.2m.collapse", hgm_probe_hgm_collapse, HUGETLB_2M, true },
	{ "hgm.2m.wp.4k", hgm_probe_hgm_writeprotect, HUGETLB_2M },
	{ "hgm.1g.minor.4k", hgm_probe_hgm_minor, HUGETLB_1G },
	{ "hgm.1g.collapse", hgm_probe_hgm_collapse, HUGETLB_1G, true },
	{ "hgm.1g.wp.4k", hgm_probe_hgm_writeprotect, HUGETLB_1G },

	{ "uffd.device", hgm_probe_uffd_device },
	{ "uffd.syscall", hgm_probe_uffd_syscall },
	{ "uffd.user_mode_only", hgm_probe_uffd_user_mode_only },
	{ "uffd.features", hgm_probe_features },
	{ "uffd.exact_address", hgm_probe_exact_address, ANON, false,
	  HGM_UFFD_FEATURE_EXACT_ADDRESS },
	{ "uffd.thread_id", hgm_probe_thread_id, ANON, false, HGM_UFFD_FEATURE_THREAD_ID },
	{ "uffd.continue_wp", hgm_probe_continue_wp, SHMEM },
	{ "uffd.wp_async", hgm_probe_wp_async, SHMEM, false,
	  HGM_UFFD_FEATURE_WP_ASYNC | HGM_UFFD_FEATURE_WP_UNPOPULATED },
	{ "uffd.rwp_async", hgm_probe_rwp_async, ANON, false,
	  HGM_UFFD_FEATURE_RWP | HGM_UFFD_FEATURE_RWP_ASYNC },
	{ "uffd.set_mode", hgm_probe_set_mode, ANON, false,
	  HGM_UFFD_FEATURE_RWP | HGM_UFFD_FEATURE_RWP_ASYNC },
	{ "pagemap.scan", hgm_probe_pagemap_scan, SHMEM },
	{ "pagemap.guard", hgm_probe_pagemap_guard, ANON },
	{ "pagemap.accessed", hgm_probe_pagemap_accessed, ANON, false,
	  HGM_UFFD_FEATURE_RWP | HGM_UFFD_FEATURE_RWP_ASYNC },

	{ "anon.missing.4k", hgm_probe_copy, ANON },
	{ "anon.zeropage.4k", hgm_probe_zeropage, ANON },
	{ "anon.minor.4k", hgm_probe_continue, ANON },
	{ "anon.wp.4k", hgm_probe_writeprotect, ANON },
	{ "anon.wp.block", hgm_probe_writeprotect, ANON, true },
	{ "anon.rwp.4k", hgm_probe_rwp, ANON, false, HGM_UFFD_FEATURE_RWP },
	{ "anon.poison.4k", hgm_probe_poison, ANON },
	{ "anon.move.4k", hgm_probe_move, ANON },
	{ "anon.collapse", hgm_probe_collapse, ANON, true },

	{ "shmem.missing.4k", hgm_probe_copy, SHMEM },
	{ "shmem.zeropage.4k", hgm_probe_zeropage, SHMEM },
	{ "shmem.minor.4k", hgm_probe_continue, SHMEM },
	{ "shmem.minor.block", hgm_probe_continue, SHMEM, true },
	{ "shmem.wp.4k", hgm_probe_writeprotect, SHMEM },
	{ "shmem.wp.block", hgm_probe_writeprotect, SHMEM, true },
	{ "shmem.rwp.4k", hgm_probe_rwp, SHMEM, false, HGM_UFFD_FEATURE_RWP },
	{ "shmem.poison.4k", hgm_probe_poison, SHMEM },
	{ "shmem.huge", hgm_probe_shmem_enabled, SHMEM },
	{ "shmem.collapse", hgm_probe_collapse, SHMEM, true },
	{ "shmem.collapse.prepared", hgm_probe_collapse_prepared, SHMEM, true },

	{ "guest_memfd.mmap", hgm_probe_guest_mmap, GUEST },
	{ "guest_memfd.missing.4k", hgm_probe_copy, GUEST },
	{ "guest_memfd.minor.4k", hgm_probe_continue, GUEST },

	{ "hugetlb.2m", hgm_probe_huge_page_pool, HUGETLB_2M, true },
	{ "hugetlb.2m.missing.4k", hgm_probe_copy, HUGETLB_2M },
	{ "hugetlb.2m.missing.block", hgm_probe_copy, HUGETLB_2M, true },
	{ "hugetlb.2m.zeropage.block", hgm_probe_zeropage, HUGETLB_2M, true },
	{ "hugetlb.2m.minor.4k", hgm_probe_continue, HUGETLB_2M },
	{ "hugetlb.2m.minor.block", hgm_probe_continue, HUGETLB_2M, true },
	{ "hugetlb.2m.wp.4k", hgm_probe_writeprotect, HUGETLB_2M },
	{ "hugetlb.2m.wp.block", hgm_probe_writeprotect, HUGETLB_2M, true },
	{ "hugetlb.2m.rwp.block", hgm_probe_rwp, HUGETLB_2M, true, HGM_UFFD_FEATURE_RWP },
	{ "hugetlb.2m.poison.4k", hgm_probe_poison, HUGETLB_2M },
	{ "hugetlb.2m.poison.block", hgm_probe_poison, HUGETLB_2M, true },

	{ "hugetlb.1g", hgm_probe_huge_page_pool, HUGETLB_1G, true },
	{ "hugetlb.1g.missing.4k", hgm_probe_copy, HUGETLB_1G },
	{ "hugetlb.1g.missing.block", hgm_probe_copy, HUGETLB_1G, true },
	{ "hugetlb.1g.zeropage.block", hgm_probe_zeropage, HUGETLB_1G, true },
	{ "hugetlb.1g.minor.4k", hgm_probe_continue, HUGETLB_1G },
	{ "hugetlb.1g.minor.block", hgm_probe_continue, HUGETLB_1G, true },
	{ "hugetlb.1g.wp.4k", hgm_probe_writeprotect, HUGETLB_1G },
	{ "hugetlb.1g.wp.block", hgm_probe_writeprotect, HUGETLB_1G, true },
	{ "hugetlb.1g.rwp.block", hgm_probe_rwp, HUGETLB_1G, true, HGM_UFFD_FEATURE_RWP },
	{ "hugetlb.1g.poison.4k", hgm_probe_poison, HUGETLB_1G },
	{ "hugetlb.1g.poison.block", hgm_probe_poison, HUGETLB_1G, true },
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

int hgm_caps_probe(struct hgm_caps **out, unsigned int flags)
{
	HGM_UNCANCELLED;
	struct hgm_probe p = { .flags = flags, .page = (uint64_t)sysconf(_SC_PAGESIZE) };
	struct hgm_caps *caps;
	int fd;

	if (!out)
		return hgm_fail(-EINVAL, "hgm_caps_probe: out is NULL");
	*out = NULL;
	if (flags & ~HGM_CAPS_USE_HUGE_PAGES)
		return hgm_fail(-EINVAL,
				"hgm_caps_probe: unknown flags %#x; only %#x "
				"(HGM_CAPS_USE_HUGE_PAGES) is supported",
				flags & ~HGM_CAPS_USE_HUGE_PAGES, HGM_CAPS_USE_HUGE_PAGES);
	caps = calloc(1, sizeof(*caps) + ROWS * sizeof(caps->cap[0]));
	if (!caps)
		goto no_memory;

	fd = hgm_probe_open_uffd(0);
	if (fd < 0)
		p.no_uffd = fd;
	else
		hgm_sys->close(fd);

	for (; caps->count < ROWS; caps->count++) {
		const struct hgm_probe_row *row = &rows[caps->count];
		char *reason;

		p.value = 0;
		row->probe(&p, row);
		reason = strdup(p.reason);
		if (!reason)
			goto no_memory;
		caps->cap[caps->count] = (struct hgm_cap){
			.name = row->name,
			.answer = p.answer,
			.value = p.value,
			.reason = reason,
		};
	}
	*out = caps;
	return 0;

no_memory:
	hgm_caps_free(caps);
	return hgm_fail(-ENOMEM, "hgm_caps_probe: out of memory for the table");
}

void hgm_caps_free(struct hgm_caps *caps)
{
	if (!caps)
		return;
	for (unsigned int i = 0; i < caps->count; i++)
		free((char *)caps->cap[i].reason);
	free(caps);
}

unsigned int hgm_caps_count(const struct hgm_caps *caps)
{
	return caps ? caps->count : 0;
}

const struct hgm_cap *hgm_caps_at(const struct hgm_caps *caps, unsigned int index)
{
	return index < hgm_caps_count(caps) ? &caps->cap[index] : NULL;
}

const struct hgm_cap *hgm_caps_find(const struct hgm_caps *caps, const char *name)
{
	for (unsigned int i = 0; name && i < hgm_caps_count(caps); i++)
		if (!strcmp(caps->cap[i].name, name))
			return &caps->cap[i];
	return NULL;
}
