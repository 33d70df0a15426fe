/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The probe for high-granularity mapping on kernels that do not have it but look as if they had.
 * Each wrong guess ends in "no" or "unproven" with the true reason, and leaves nothing behind.
 */
#include "fake_hgm_sys.h"

#define PROVE HGM_CAPS_USE_HUGE_PAGES

typedef void probe_fn(struct hgm_probe *p, const struct hgm_probe_row *row);

static void assert_row(probe_fn *fn, enum hgm_memory memory, unsigned int flags,
		       enum hgm_answer answer, const char *words)
{
	const struct hgm_probe_row row = { .memory = memory };
	struct hgm_probe p = { .flags = flags, .page = FAKE_PAGE };
	struct holdings before = take_holdings();

	fake.calls = fake.populated = fake.collapses = fake.wakes_after_collapse = 0;
	fn(&p, &row);
	assert_same_holdings(&before);
	if (p.answer != answer || !strstr(p.reason, words))
		fail_msg("%u, '%s' instead of %u, '%s'", p.answer, p.reason, answer, words);
	assert_int_equal(p.flags, flags);
}

static void verdict_2m(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	(void)row;
	hgm_probe_hgm_verdict(p, MIB2);
}

static void verdict_1g(struct hgm_probe *p, const struct hgm_probe_row *row)
{
	(void)row;
	hgm_probe_hgm_verdict(p, GIB1);
}

static void assert_verdict(unsigned int flags, enum hgm_answer answer, const char *words)
{
	assert_row(verdict_2m, HGM_MEMORY_NONE, flags, answer, words);
	assert_row(verdict_1g, HGM_MEMORY_NONE, flags, answer, words);
}

static void it_is_proven_where_it_works(void **state)
{
	(void)state;
	assert_row(verdict_2m, 0, PROVE, HGM_YES, "one mapping of 2 MiB, contents intact (smaps)");
	assert_int_equal(fake.collapses, 1);
	assert_int_equal(fake.wakes_after_collapse, 2); /* one of them ends the registration */
	assert_row(verdict_1g, 0, PROVE, HGM_YES, "one mapping of 1 GiB, contents intact (smaps)");
	assert_row(hgm_probe_hgm_minor, HGM_MEMORY_HUGETLB_2M, PROVE, HGM_YES,
		   "4 KiB of a huge page of 2 MiB, and no more (pagemap, smaps)");
	assert_int_equal(fake.collapses, 0);
	assert_row(hgm_probe_hgm_collapse, HGM_MEMORY_HUGETLB_1G, PROVE, HGM_YES, "1 GiB");
	assert_row(hgm_probe_hgm_writeprotect, HGM_MEMORY_HUGETLB_2M, PROVE, HGM_NO,
		   "whole huge pages only");
	assert_row(hgm_probe_hgm_split, HGM_MEMORY_HUGETLB_2M, PROVE, HGM_YES, "'hm'");
	assert_row(hgm_probe_hgm_sysfs, 0, PROVE, HGM_UNPROVEN, "says nothing");
	fake.busy = 5;
	assert_row(verdict_2m, 0, PROVE, HGM_YES, "one mapping");
}

static void unasked_no_huge_page_is_taken(void **state)
{
	(void)state;
	assert_verdict(0, HGM_UNPROVEN, "minor.4k: not tried, as the test takes a huge page");
	assert_row(hgm_probe_hgm_split, HGM_MEMORY_HUGETLB_2M, 0, HGM_YES, "'hm'");
	assert_row(hgm_probe_hgm_collapse, HGM_MEMORY_HUGETLB_2M, 0, HGM_UNPROVEN,
		   "HGM_CAPS_USE_HUGE_PAGES allows it");
	assert_int_equal(fake.reserved, 0);
	assert_int_equal(fake.populated, 0);
}

/* Pitfall 1: mainline uses the bit of the first drafts for WP_UNPOPULATED. */
static void feature_bit_13_proves_nothing(void **state)
{
	(void)state;
	fake.features = 0x1ffff;
	fake.advice_zero = fake.advice = -EINVAL;
	assert_verdict(PROVE, HGM_NO, "hgm.advice: ");
	assert_int_equal(fake.reserved, 0);
	assert_int_equal(fake.populated, 0);
	assert_row(hgm_probe_hgm, 0, PROVE, HGM_NO, "does not know it");
	assert_row(hgm_probe_hgm_split, HGM_MEMORY_HUGETLB_2M, PROVE, HGM_NO, "hgm.advice: ");
	assert_int_equal(fake.calls, 1);
	assert_row(hgm_probe_hgm_feature, 0, PROVE, HGM_NO, "means WP_UNPOPULATED here");
	assert_false(hgm_probe_bit13_is_hgm());
	/* Nor does it, if a kernel takes 4 KiB without it too. */
	fake.bit13_is_inert = true;
	assert_verdict(PROVE, HGM_NO, "hgm.advice: ");
	assert_row(hgm_probe_hgm_feature, 0, PROVE, HGM_NO, "the same without feature bit 13");
	assert_false(hgm_probe_bit13_is_hgm());
	fake.bit13_is_inert = false;

	/* Its absence proves nothing either. */
	fake.features = 0x1fff;
	assert_row(hgm_probe_hgm_feature, 0, PROVE, HGM_NO, "and EXACT_ADDRESS: EINVAL");
	fake.advice_zero = fake.advice = 0;
	assert_verdict(PROVE, HGM_YES, "; asked for by MADV_SPLIT");
	assert_false(hgm_probe_bit13_is_hgm());
}

/* The RFC v2: no MADV_SPLIT, and 4 KiB with feature bit 13 */
static void by_feature(void **state)
{
	(void)state;
	fake.rfc = true;
	fake.features = 0x3fff;
	fake.advice_zero = fake.advice = -EINVAL;
	hgm.no_hm = true;
	assert_verdict(PROVE, HGM_YES, "contents intact (smaps); asked for by feature bit 13");
	assert_row(hgm_probe_hgm_feature, 0, 0, HGM_YES, "only with feature bit 13");
	assert_int_equal(fake.reserved, 2 * 2); /* by the two verdicts: primary and alias */
	assert_row(hgm_probe_hgm_minor, HGM_MEMORY_HUGETLB_2M, PROVE, HGM_YES, "and no more");
	assert_row(hgm_probe_hgm_writeprotect, HGM_MEMORY_HUGETLB_2M, PROVE, HGM_NO,
		   "whole huge pages only");
	assert_row(hgm_probe_hgm_split, HGM_MEMORY_HUGETLB_2M, PROVE, HGM_NO, "hgm.advice: ");
	assert_true(hgm_probe_bit13_is_hgm());
	/* Only the proof says yes. */
	assert_verdict(0, HGM_UNPROVEN, "minor.4k: not tried");
	fake.continue_4k = -EINVAL;
	assert_verdict(PROVE, HGM_NO, "EINVAL, though feature bit 13 was accepted");
	fake.continue_4k = 0;
	hgm.maps_neighbours = true;
	assert_verdict(PROVE, HGM_NO, "also mapped adjacent pages");
	hgm.maps_neighbours = false;
	hgm.collapse_inert = true;
	assert_verdict(PROVE, HGM_NO, "shows only 0 bytes");
}

/* What could not be tried is not a no. */
static void by_feature_not_tried(void **state)
{
	(void)state;
	fake.rfc = true;
	fake.features = 0x3fff;
	fake.advice_zero = fake.advice = -EINVAL;
	fake.no_uffd = -EMFILE;
	assert_verdict(PROVE, HGM_UNPROVEN, "hgm.feature: ");
	assert_false(hgm_probe_bit13_is_hgm());
	fake.no_uffd = -EPERM;
	assert_verdict(PROVE, HGM_NO, "hgm.advice: ");
}

static void the_sysfs_file_is_a_hint(void **state)
{
	(void)state;
	fake.sysfs = "1\n";
	fake.advice_zero = fake.advice = -EINVAL;
	assert_verdict(PROVE, HGM_NO, "hgm.advice: ");
	assert_row(hgm_probe_hgm_sysfs, 0, 0, HGM_UNPROVEN, "is '1': a hint");

	fake.advice_zero = fake.advice = 0;
	fake.sysfs = "0\n";
	assert_verdict(PROVE, HGM_NO, "hgm.sysfs: switched off");
	assert_row(hgm_probe_hgm_sysfs, 0, 0, HGM_NO, "is 0");
	assert_int_equal(fake.reserved, 0);

	fake.sysfs_path = "/sys/kernel/vm/hugepages/hgm"; /* the other place that was proposed */
	assert_verdict(PROVE, HGM_NO, "hgm.sysfs: switched off: /sys/kernel/vm/");
	fake.sysfs = "";
	assert_verdict(PROVE, HGM_YES, "");
	fake.sysfs_error = -EACCES;
	assert_row(hgm_probe_hgm_sysfs, 0, 0, HGM_DENIED, "EACCES");
	assert_verdict(PROVE, HGM_YES, "");
}

/* Pitfall 2: the number is unused, and may be assigned to something else. */
static void the_advice_means_something_else(void **state)
{
	(void)state;
	fake.advice = -EINVAL;
	assert_verdict(PROVE, HGM_NO, "hgm.split: advice 26 (MADV_SPLIT) of shared hugetlb");
	fake.advice = 0;
	hgm.no_hm = true;
	hgm.no_counters = true;
	fake.continue_4k = -EINVAL;
	assert_verdict(PROVE, HGM_NO, "no 'hm' in VmFlags");
	assert_row(hgm_probe_hgm_split, HGM_MEMORY_HUGETLB_2M, 0, HGM_NO, "something else");
	assert_int_equal(fake.reserved, 0);
	/* Not even if 4 KiB work: the mark is required. */
	fake.continue_4k = 0;
	assert_verdict(PROVE, HGM_NO, "no 'hm' in VmFlags");
}

static void the_advice_is_refused(void **state)
{
	(void)state;
	fake.advice_zero = -EPERM;
	assert_verdict(PROVE, HGM_DENIED, "hgm.advice: ");
	fake.advice_zero = 0;
	fake.advice = -EPERM;
	assert_verdict(PROVE, HGM_DENIED, "hgm.split: ");
}

static void exact_addresses_are_part_of_it(void **state)
{
	(void)state;
	fake.features &= ~HGM_UFFD_FEATURE_EXACT_ADDRESS;
	assert_verdict(PROVE, HGM_NO, "uffd.exact_address: UFFDIO_API with EXACT_ADDRESS");
	assert_int_equal(fake.reserved, 0);
	fake.no_uffd = -EPERM;
	assert_verdict(PROVE, HGM_DENIED, "see uffd.device");
}

static void continue_fails_after_the_split(void **state)
{
	(void)state;
	fake.continue_4k = -EINVAL;
	assert_row(verdict_2m, 0, PROVE, HGM_NO, "hgm.2m.minor.4k: UFFDIO_CONTINUE");
	assert_row(verdict_1g, 0, PROVE, HGM_NO, "hgm.1g.minor.4k: UFFDIO_CONTINUE");
	assert_verdict(PROVE, HGM_NO, "EINVAL, though MADV_SPLIT was accepted");
	assert_row(hgm_probe_hgm_writeprotect, HGM_MEMORY_HUGETLB_2M, PROVE, HGM_NO, "accepted");
	fake.continue_4k = -EFAULT;
	assert_verdict(PROVE, HGM_NO, "EFAULT");
	fake.continue_4k = -EAGAIN;
	assert_verdict(PROVE, HGM_UNPROVEN, "EAGAIN");
	assert_int_equal(fake.collapses, 0);
	fake.continue_4k = 0;
	fake.continue_rounds = true;
	assert_verdict(PROVE, HGM_NO, "processed");
	assert_int_equal(fake.collapses, 0);
}

static void neighbours_are_mapped_too(void **state)
{
	(void)state;
	hgm.maps_neighbours = true;
	assert_verdict(PROVE, HGM_NO, "also mapped adjacent pages");
	fake.no_pagemap = -EACCES;
	assert_verdict(PROVE, HGM_NO, "shows 12288 bytes in 4 KiB mappings");
	assert_int_equal(fake.collapses, 0);
}

static void collapse_lies(void **state)
{
	(void)state;
	hgm.collapse_inert = true;
	assert_row(verdict_2m, 0, PROVE, HGM_NO, "hgm.2m.collapse: MADV_COLLAPSE");
	assert_verdict(PROVE, HGM_NO, "success, but /proc/self/smaps shows only 0 bytes");
	assert_int_equal(fake.wakes_after_collapse, 2);
	fake.collapse = -EBUSY;
	assert_verdict(PROVE, HGM_UNPROVEN, "EBUSY");
	fake.collapse = -EINVAL;
	assert_verdict(PROVE, HGM_NO, "MADV_COLLAPSE of a split huge page: EINVAL");
	/* An error can be about the adjacent memory. */
	hgm.collapse_inert = false;
	assert_verdict(PROVE, HGM_YES, "one mapping");
	fake.collapse = 0;
	fake.collapse_spoils = true;
	assert_verdict(PROVE, HGM_NO, "changed its contents");
}

/* PAGEMAP_SCAN may report all hugetlb memory as huge: it counts only if it told the two apart. */
static void without_counters(void **state)
{
	(void)state;
	hgm.no_counters = true;
	assert_verdict(PROVE, HGM_UNPROVEN, "nothing here shows the size of mappings");
	fake.scan = 0;
	assert_verdict(PROVE, HGM_YES, "(PAGEMAP_SCAN)");
	fake.all_is_huge = true;
	assert_verdict(PROVE, HGM_UNPROVEN, "nothing here shows the size of mappings");
	fake.all_is_huge = false;
	hgm.collapse_inert = true;
	assert_verdict(PROVE, HGM_NO, "PAGEMAP_SCAN shows only 0 bytes");
}

static void without_proc(void **state)
{
	(void)state;
	fake.no_smaps = -ENOENT;
	assert_row(hgm_probe_hgm_split, HGM_MEMORY_HUGETLB_2M, 0, HGM_UNPROVEN,
		   "/proc/self/smaps: ENOENT");
	assert_verdict(0, HGM_UNPROVEN, "hgm.split: ");
	fake.scan = 0;
	assert_verdict(PROVE, HGM_YES, "(PAGEMAP_SCAN)");
	fake.no_pagemap = -ENOENT;
	assert_verdict(PROVE, HGM_UNPROVEN, "nothing shows what it mapped");
	assert_int_equal(fake.collapses, 0);
}

static void no_huge_page_can_be_had(void **state)
{
	(void)state;
	fake.pool_is_empty = true;
	assert_verdict(PROVE, HGM_UNPROVEN, "no free huge page");
	assert_row(hgm_probe_hgm, 0, PROVE, HGM_UNPROVEN, "no free huge page");
	fake.pool_is_empty = false;
	fake.small_pool_is_empty = true;
	assert_row(hgm_probe_hgm, 0, PROVE, HGM_YES, "one mapping of 1 GiB");
	fake.continue_4k = -EINVAL;
	assert_row(hgm_probe_hgm, 0, PROVE, HGM_UNPROVEN, "no free huge page");
	fake.continue_4k = 0;
	fake.small_pool_is_empty = false;
	fake.populate = -EFAULT; /* the limit of the cgroup */
	assert_verdict(PROVE, HGM_UNPROVEN, "writing scratch memory: EFAULT");
}

static void protection_by_pages(void **state)
{
	(void)state;
	fake.wp_4k = 0;
	assert_row(hgm_probe_hgm_writeprotect, HGM_MEMORY_HUGETLB_1G, PROVE, HGM_YES, "worked");
	fake.protected = false;
	fake.wp_not_seen = true;
	assert_row(hgm_probe_hgm_writeprotect, HGM_MEMORY_HUGETLB_2M, PROVE, HGM_NO,
		   "does not show it");
	fake.wp_4k = -EPERM;
	assert_row(hgm_probe_hgm_writeprotect, HGM_MEMORY_HUGETLB_2M, PROVE, HGM_DENIED, "EPERM");
}

static void other_sizes(void **state)
{
	struct hgm_probe p = { .page = FAKE_PAGE };

	(void)state;
	hgm_probe_hgm_verdict(&p, FAKE_PAGE);
	assert_int_equal(p.answer, HGM_NO);
	assert_non_null(strstr(p.reason, "4096"));
	assert_int_equal(fake.calls, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(it_is_proven_where_it_works),
	CASE(unasked_no_huge_page_is_taken),
	CASE(feature_bit_13_proves_nothing),
	CASE(by_feature),
	CASE(by_feature_not_tried),
	CASE(the_sysfs_file_is_a_hint),
	CASE(the_advice_means_something_else),
	CASE(the_advice_is_refused),
	CASE(exact_addresses_are_part_of_it),
	CASE(continue_fails_after_the_split),
	CASE(neighbours_are_mapped_too),
	CASE(collapse_lies),
	CASE(without_counters),
	CASE(without_proc),
	CASE(no_huge_page_can_be_had),
	CASE(protection_by_pages),
	CASE(other_sizes),
};

TEST_MAIN(tests)
