/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The probe of high-granularity mapping on the running kernel, which most likely lacks it. The
 * probe must say so soon, and without a page of the pool.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "caps/caps.h"
#include "caps_answers.h"
#include "leaks.h"
#include "test.h"
#include "uffd/smaps.h"

/* An independent look that does not use the caps. */
static long pool(unsigned int kib, const char *what)
{
	char path[128];
	FILE *file;
	long n = -1;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%ukB/%s_hugepages", kib,
		 what);
	file = fopen(path, "r");
	if (file) {
		if (fscanf(file, "%ld", &n) != 1)
			n = -1;
		fclose(file);
	}
	return n;
}

/* Other processes use the pools, too, but not in all of these tries. */
#define TRIES 50

static const unsigned int pool_kib[] = { 2048, 1 << 20 };
static const char *const pool_counters[] = { "free", "resv", "surplus", "nr" };

struct pools {
	long n[2][4];
};

static struct pools pools_now(void)
{
	struct pools p;

	for (int i = 0; i < 2; i++)
		for (int j = 0; j < 4; j++)
			p.n[i][j] = pool(pool_kib[i], pool_counters[j]);
	return p;
}

static bool pools_are(const struct pools *before)
{
	struct pools now = pools_now();

	return !memcmp(&now, before, sizeof(now));
}

static bool kernel_knows_split(void)
{
	return !madvise(NULL, 0, HGM_MADV_SPLIT);
}

/* Pitfalls 1 and 2, on the kernel that uses bit 13 for something else: it is tried, and says no. */
static void bit_13_is_not_hgm(void **state)
{
	struct hgm_probe p = { .flags = HGM_CAPS_USE_HUGE_PAGES, .page = 4096 };
	struct holdings before;
	struct hgm_caps *caps;
	bool offered;

	(void)state;
	if (kernel_knows_split())
		test_skip("this kernel knows advice %d", HGM_MADV_SPLIT);
	caps = probe(0);
	offered = hgm_caps_find(caps, "uffd.features")->value & HGM_UFFD_FEATURE_WP_UNPOPULATED;
	hgm_caps_free(caps);
	before = take_holdings();
	assert_false(hgm_probe_bit13_is_hgm());
	hgm_probe_hgm_verdict(&p, UINT64_C(1) << 21);
	assert_int_equal(p.answer, HGM_NO);
	assert_non_null(strstr(p.reason, "hgm.advice: "));
	assert_int_equal(p.bit13, HGM_BIT13_IS_OTHER);
	assert_false(p.by_feature);
	hgm_probe_hgm_feature(&p, NULL);
	assert_int_equal(p.answer, HGM_NO);
	if (offered)
		assert_non_null(strstr(p.reason, "means WP_UNPOPULATED here"));
	assert_same_holdings(&before);
}

static void without_hgm_all_its_rows_say_no(void **state)
{
	static const char *const rows[] = {
		"hgm",
		"hgm.advice",
		"hgm.split",
		"hgm.2m.minor.4k",
		"hgm.2m.collapse",
		"hgm.2m.wp.4k",
		"hgm.1g.minor.4k",
		"hgm.1g.collapse",
		"hgm.1g.wp.4k",
	};
	struct holdings before;
	struct hgm_caps *caps;
	struct pools had;
	bool same = false;

	(void)state;
	if (kernel_knows_split())
		test_skip("this kernel knows advice %d", HGM_MADV_SPLIT);
	hgm_caps_free(probe(0));
	before = take_holdings();
	for (int tries = 0; tries < TRIES && !same; tries++) {
		had = pools_now();
		for (unsigned int flags = 0; flags <= HGM_CAPS_USE_HUGE_PAGES; flags++) {
			caps = probe(flags);
			for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
				assert_int_equal(answer(caps, rows[i]), HGM_NO);
				assert_non_null(strstr(hgm_caps_find(caps, rows[i])->reason,
						       "zero bytes: EINVAL"));
			}
			assert_int_equal(answer(caps, "hgm.feature"), HGM_NO);
			assert_int_not_equal(answer(caps, "hgm.sysfs"), HGM_YES);
			hgm_caps_free(caps);
		}
		same = pools_are(&had);
	}
	assert_same_holdings(&before);
	assert_true(same);
}

/* While the stages before the proof run, no page leaves the pool, and none is reserved. */
static void split_needs_no_page_of_the_pool(void **state)
{
	struct hgm_smaps seen;
	struct hgm_probe p = { .page = 4096 };
	struct hgm_scratch s;
	struct pools had;
	bool same = false;

	(void)state;
	if (pool(2048, "nr") < 0)
		test_skip("no pool of 2 MiB pages here");
	for (int tries = 0; tries < TRIES && !same; tries++) {
		had = pools_now();
		assert_true(hgm_scratch_open(&p, &s, HGM_MEMORY_HUGETLB_2M));
		if (!kernel_knows_split())
			assert_int_equal(hgm_sys->madvise(s.primary, s.block, HGM_MADV_SPLIT),
					 -EINVAL);
		same = pools_are(&had);
		assert_int_equal(hgm_smaps_sum(s.primary, s.block, &seen), 0);
		assert_int_equal(seen.areas, 1);
		assert_int_equal(seen.mapped_bytes, s.block);
		assert_true(!seen.partial && !seen.hugetlb && !seen.any_hm);
		hgm_scratch_close(&s);
	}
	assert_true(same);
}

static int no_pagemap_scan(int fd, const void *start, const void *end, uint64_t category,
			   struct hgm_pm_region *out, uint64_t out_len, uint64_t *walk_end)
{
	(void)fd;
	(void)start;
	(void)end;
	(void)category;
	(void)out;
	(void)out_len;
	(void)walk_end;
	return -ENOTTY;
}

/* As on kernels before Linux 6.7. */
static void smaps_verifies_a_collapse(void **state)
{
	static const enum hgm_memory memories[] = { HGM_MEMORY_ANON, HGM_MEMORY_SHMEM };
	struct hgm_sys older = hgm_sys_linux;

	(void)state;
	older.pagemap_scan = no_pagemap_scan;
	for (size_t i = 0; i < 2; i++) {
		const struct hgm_probe_row row = { .memory = memories[i] };
		struct hgm_probe p = { .page = 4096 };

		hgm_sys = &older;
		for (int tries = 0; tries < 5; tries++) {
			hgm_probe_collapse(&p, &row);
			if (p.answer != HGM_UNPROVEN)
				break;
		}
		hgm_sys = &hgm_sys_linux;
		if (p.answer == HGM_NO && strstr(p.reason, "EINVAL"))
			test_skip("nothing can be collapsed here: %s", p.reason);
		assert_int_equal(p.answer, HGM_YES);
		assert_non_null(strstr(p.reason, "smaps shows it mapped huge"));
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(bit_13_is_not_hgm),
	cmocka_unit_test(without_hgm_all_its_rows_say_no),
	cmocka_unit_test(split_needs_no_page_of_the_pool),
	cmocka_unit_test(smaps_verifies_a_collapse),
};

TEST_MAIN(tests)
