/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Negotiation of features: queried on a temporary descriptor, required, optional, unknown,
 * colliding.
 */
#include "fake_uffd.h"

static void features_are_learnt_on_a_descriptor_of_their_own(void **state)
{
	(void)state;
	k.features = ALL_FEATURES & ~HGM_UFFD_FEATURE_MOVE;
	assert_int_equal(try_open(HGM_UFFD_FEATURE_MINOR_SHMEM,
				  HGM_UFFD_FEATURE_MOVE | HGM_UFFD_FEATURE_POISON, 0),
			 0);
	assert_int_equal(k.asked[0], 0);
	assert_int_equal(k.asked[1], HGM_UFFD_FEATURE_MINOR_SHMEM | HGM_UFFD_FEATURE_POISON);
	assert_int_equal(hgm_uffd_features(u), k.asked[1]); /* not what the reply says */
	assert_int_equal(hgm_uffd_supported(u), k.features);
	close_it(HGM_UFFD_VIA_DEVICE);
}

static void defaults_ask_for_nothing(void **state)
{
	(void)state;
	assert_int_equal(hgm_uffd_open(&u, NULL), 0);
	assert_int_equal(k.asked[1], 0);
	assert_int_equal(hgm_uffd_features(u), 0);
	close_it(HGM_UFFD_VIA_DEVICE);
}

static void a_required_feature_is_missing(void **state)
{
	(void)state;
	k.features = UINT64_C(0x1fff); /* 6.1 */
	check_refused(try_open(HGM_UFFD_FEATURE_POISON | HGM_UFFD_FEATURE_MOVE |
				       HGM_UFFD_FEATURE_EXACT_ADDRESS,
			       0, 0),
		      -EOPNOTSUPP);
	assert_int_equal(k.given, 1); /* no need for a second */
	says("POISON");
	says("MOVE");
	assert_null(strstr(hgm_errmsg(), "EXACT_ADDRESS"));
	/* A bit without a name is shown by its mask. */
	k.shaken = 0;
	check_refused(try_open(UINT64_C(1) << 40, 0, 0), -EOPNOTSUPP);
	says("0x10000000000");
	/* All possible bits: the text must not overflow. */
	k.shaken = 0;
	k.features = 0;
	check_refused(try_open(~UINT64_C(0), 0, 0), -EOPNOTSUPP);
	says("0xffffffffffffffff");
}

/* Pitfall 1: bit 13 once meant HGM, and means another feature on every kernel since 6.4. */
static void bit_13_proves_nothing(void **state)
{
	static const uint64_t bit_13 = UINT64_C(1) << 13;

	(void)state;
	assert_string_equal(hgm_uffd_feature_name(13), "WP_UNPOPULATED");
	for (unsigned int bit = 0; bit < 64; bit++)
		if (hgm_uffd_feature_name(bit))
			assert_null(strstr(hgm_uffd_feature_name(bit), "HGM"));
	assert_int_equal(try_open(bit_13, 0, 0), 0);
	assert_int_equal(hgm_uffd_features(u), bit_13);
	close_it(HGM_UFFD_VIA_DEVICE);
	begin(NULL);
	k.features &= ~bit_13;
	check_refused(try_open(bit_13, 0, 0), -EOPNOTSUPP);
	says("WP_UNPOPULATED");
	assert_null(strstr(hgm_errmsg(), "HGM"));
}

/*
 * Pitfall 6: bits that this release does not know are neither requested nor taken for known ones.
 */
static void unknown_bits_are_left_alone(void **state)
{
	(void)state;
	k.features = ~UINT64_C(0);
	assert_int_equal(try_open(0, ALL_FEATURES, 0), 0);
	assert_int_equal(hgm_uffd_features(u), ALL_FEATURES);
	assert_string_equal(hgm_uffd_feature_name(18), "RWP_ASYNC");
	assert_null(hgm_uffd_feature_name(19));
	assert_null(hgm_uffd_feature_name(20));
	close_it(HGM_UFFD_VIA_DEVICE);
}

static void the_handshake_fails(void **state)
{
	(void)state;
	k.api[0] = -EINVAL;
	check_refused(try_open(0, 0, 0), -EINVAL);
	assert_int_equal(k.given, 1);
	says("UFFDIO_API");
	begin(NULL);
	k.api[1] = -EPERM;
	check_refused(try_open(HGM_UFFD_FEATURE_EVENT_FORK, 0, 0), -EPERM);
	assert_int_equal(k.given, 2);
	says("UFFDIO_API");
	says("EVENT_FORK");
	says("CAP_SYS_PTRACE");
	/* The kernel clears its answer; the text has what was asked for. */
	begin(NULL);
	k.api[1] = -EINVAL;
	check_refused(try_open(HGM_UFFD_FEATURE_MOVE, 0, 0), -EINVAL);
	says("0x10000");
}

#define TEST(f) cmocka_unit_test_setup(f, begin)

static const struct CMUnitTest tests[] = {
	TEST(features_are_learnt_on_a_descriptor_of_their_own),
	TEST(defaults_ask_for_nothing),
	TEST(a_required_feature_is_missing),
	TEST(bit_13_proves_nothing),
	TEST(unknown_bits_are_left_alone),
	TEST(the_handshake_fails),
};

TEST_MAIN(tests)
