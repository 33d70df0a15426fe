/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * High-granularity mapping as in the RFC v2 of October 2022: a program asks for feature bit 13,
 * together with EXACT_ADDRESS. Registration for MINOR is what MADV_SPLIT is later. (r2-N is message
 * N of the series.)
 */
#include "play.h"

#define BIT13 HGM_UFFD_FEATURE_MINOR_HUGETLBFS_HGM

static int api(uint64_t features)
{
	int fd = hgm_sys->userfaultfd(0);
	uint64_t ioctls;
	int rc;

	assert_true(fd >= 0);
	rc = hgm_sys->uffd_api(fd, &features, &ioctls);
	if (!rc)
		assert_int_equal(features, 0x3fff);
	hgm_sys->close(fd);
	return rc;
}

/* r2-34, r2-36: the bit is offered, and refused without EXACT_ADDRESS */
static void handshake(void **state)
{
	(void)state;
	assert_int_equal(api(0), 0);
	assert_int_equal(api(BIT13), -EINVAL);
	assert_int_equal(api(BIT13 | HGM_UFFD_FEATURE_MINOR_HUGETLBFS), -EINVAL);
	assert_int_equal(api(BIT13 | EXACT), 0);
	assert_int_equal(api(HGM_UFFD_FEATURE_POISON), -EINVAL);
}

/* There is no MADV_SPLIT, and no flag in VmFlags; the counters of smaps exist (r2-40). */
static void no_advice(void **state)
{
	(void)state;
	assert_int_equal(hgm_sys->madvise(NULL, 0, HGM_MADV_SPLIT), -EINVAL);
	scene(M2, 1);
	assert_int_equal(advise(0, M2, HGM_MADV_SPLIT), -EINVAL);
	scene_register(EXACT | BIT13, MINOR);
	fill(0, M2);
	assert_did(cont(3 * K4, K4), K4);
	assert_false(smaps_flag(0, "hm"));
	assert_true(smaps_flag(0, "ui"));
	assert_int_equal(smaps_kb(0, "HugetlbPteMapped"), 4);
}

/* r2-35: 4 KiB through a descriptor with the bit */
static void pieces_with_the_bit(void **state)
{
	struct toucher t;

	(void)state;
	scene(M2, 2);
	scene_register(EXACT | BIT13, MINOR);
	assert_none(cont(0, K4), EFAULT);
	fill(0, 2 * M2);
	touch_start(&t, 7 * K4 + 5, false);
	assert_told(7 * K4 + 5, HGM_UFFD_FAULT_MINOR);
	assert_did(cont(7 * K4, K4), K4);
	touch_end(&t);
	assert_int_equal(t.value, 8);
	assert_did(cont(M2, M2), M2);
	assert_leaves(0, 1, 1);
	scene_end();
	scene(G1, 1);
	scene_register(EXACT | BIT13, MINOR | MISSING);
	s.alias[0] = 1;
	assert_did(cont(M2 - K4, M2 + 2 * K4), M2 + 2 * K4);
	assert_leaves(0, 1, 2);
}

/* Whole pages only without it, and where nothing is registered for MINOR */
static void whole_pages_without_it(void **state)
{
	(void)state;
	scene(M2, 1);
	scene_register(EXACT, MINOR);
	fill(0, M2);
	assert_none(cont(0, K4), EINVAL);
	assert_did(cont(0, M2), M2);
	assert_int_equal(collapse(0, M2), 0);
	scene_end();
	scene(M2, 1);
	scene_register(EXACT | BIT13, MISSING);
	fill(0, M2);
	assert_none(cont(0, K4), EINVAL);
}

/* By descriptor: once registered with another one, the mapping takes whole pages only. */
static void by_descriptor(void **state)
{
	(void)state;
	scene(M2, 1);
	scene_register(EXACT | BIT13, MINOR);
	fill(0, M2);
	assert_did(cont(0, K4), K4);
	assert_int_equal(hgm_sys->uffd_unregister(s.uffd, s.primary, M2), 0);
	hgm_sys->close(s.uffd);
	scene_register(EXACT, MINOR);
	assert_none(cont(K4, K4), EINVAL);
	assert_leaves(0, 0, 1);
	/* What is mapped in pieces stays so, and can be collapsed. */
	assert_int_equal(collapse(0, M2), 0);
	assert_leaves(0, 1, 0);
}

/* r2-37: as in the later series */
static void collapses(void **state)
{
	(void)state;
	scene(M2, 2);
	scene_register(EXACT | BIT13, MINOR);
	fill(0, 2 * M2);
	assert_did(cont(0, K4), K4);
	assert_did(cont(K4, M2 - K4), M2 - K4);
	assert_leaves(0, 0, 512);
	assert_int_equal(collapse(0, 2 * M2), 0);
	assert_leaves(0, 1, 0);
	assert_int_equal((uint8_t)touch_silently(300 * K4 + 5, false), 300 % 251 + 1);
}

/* The bit does not mean WP_UNPOPULATED here, nor Linux 6.4: CONTINUE cannot protect. */
static void not_of_6_4(void **state)
{
	(void)state;
	scene(M2, 1);
	scene_register(EXACT | BIT13, MINOR | WP);
	fill(0, M2);
	assert_int_equal(cont_mode(0, K4, HGM_UFFD_CONTINUE_WP), -EINVAL);
	assert_int_equal(done, DONE_UNTOUCHED);
	assert_did(cont(0, K4), K4);
	assert_int_equal(protect(0, K4, true), -EINVAL);
	assert_int_equal(protect(0, M2, true), 0);
}

/* Mainline: the same handshake succeeds, and 4 KiB do not. */
static void mainline(void **state)
{
	(void)state;
	scene(M2, 1);
	scene_register(EXACT | BIT13, MINOR);
	fill(0, M2);
	assert_none(cont(0, K4), EINVAL);
}

static const struct CMUnitTest tests[] = {
	ON("rfc", handshake),		ON("rfc", no_advice),
	ON("rfc", pieces_with_the_bit), ON("rfc", whole_pages_without_it),
	ON("rfc", by_descriptor),	ON("rfc", collapses),
	ON("rfc", not_of_6_4),		ON("stock", mainline),
	ON("linux", mainline),
};

TEST_MAIN(tests)
