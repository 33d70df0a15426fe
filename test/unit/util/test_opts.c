/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sized structs at each boundary size. The release under test knows struct own; callers were built
 * with older, equal and newer ones.
 */
#include <errno.h>
#include <string.h>

#include <hgm/error.h>

#include "test.h"
#include "util/opts.h"

struct first { /* the first release's struct */
	size_t size;
	uint64_t a;
};

struct own {
	size_t size;
	uint64_t a;
	uint64_t b;
	uint64_t c;
};

struct newer {
	size_t size;
	uint64_t a;
	uint64_t b;
	uint64_t c;
	uint64_t d;
};

/* The largest struct that is accepted, and one byte more. */
union page {
	size_t size;
	struct own own;
	unsigned char bytes[4097];
};

static int in(struct own *own, const void *user)
{
	memset(own, 0xa5, sizeof(*own));
	return hgm_opts_in(own, sizeof(*own), sizeof(struct first), user, "fn");
}

static void the_first_size_stays_as_fields_are_added(void **state)
{
	struct odd {
		uint64_t a;
		uint8_t b; /* and padding */
	};

	(void)state;
	assert_int_equal(HGM_FIRST_SIZE(struct own, a), sizeof(struct first));
	assert_int_equal(HGM_FIRST_SIZE(struct own, c), sizeof(struct own));
	assert_int_equal(HGM_FIRST_SIZE(struct odd, b), sizeof(struct odd));
}

static void null_asks_for_the_defaults(void **state)
{
	struct own own;

	(void)state;
	assert_int_equal(in(&own, NULL), 0);
	assert_memory_equal(&own, (&(struct own){ .size = sizeof(own) }), sizeof(own));
}

static void sizes_below_the_first_release_are_refused(void **state)
{
	struct newer user = { .a = 1 };
	struct own own;

	(void)state;
	user.size = 0;
	assert_int_equal(in(&own, &user), -EINVAL);
	assert_non_null(strstr(hgm_errmsg(), "fn: "));
	assert_non_null(strstr(hgm_errmsg(), "size field is 0"));
	user.size = sizeof(size_t);
	assert_int_equal(in(&own, &user), -EINVAL);
	user.size = sizeof(struct first) - 1;
	assert_int_equal(in(&own, &user), -EINVAL);
	assert_non_null(strstr(hgm_errmsg(), "less than in any release"));
}

static void the_first_release_s_struct_is_extended_with_zeroes(void **state)
{
	struct {
		struct first first;
		uint64_t beyond;
	} user = { .first = { .size = sizeof(struct first), .a = 7 }, .beyond = 0xdead };
	struct own own;

	(void)state;
	assert_int_equal(in(&own, &user), 0);
	assert_memory_equal(&own, (&(struct own){ .size = sizeof(own), .a = 7 }), sizeof(own));
}

static void one_byte_less_than_own_reads_no_further(void **state)
{
	struct own user = { .size = sizeof(user) - 1, .a = 1, .b = 2, .c = UINT64_MAX };
	struct own own;
	uint64_t c = 0;

	(void)state;
	memset(&c, 0xff, sizeof(c) - 1);
	assert_int_equal(in(&own, &user), 0);
	assert_int_equal(own.b, 2);
	assert_memory_equal(&own.c, &c, sizeof(c));
}

static void own_size_is_taken_whole(void **state)
{
	struct own user = { .size = sizeof(user), .a = 1, .b = 2, .c = 3 };
	struct own own;

	(void)state;
	assert_int_equal(in(&own, &user), 0);
	assert_memory_equal(&own, &user, sizeof(own));
}

static void a_newer_struct_passes_while_its_new_bytes_are_zero(void **state)
{
	struct newer user = { .size = sizeof(user), .a = 1, .b = 2, .c = 3 };
	struct own own;

	(void)state;
	assert_int_equal(in(&own, &user), 0);
	assert_int_equal(own.size, sizeof(own));
	assert_int_equal(own.c, 3);
}

static void unknown_bytes_are_refused(void **state)
{
	struct newer user = { .size = sizeof(user) };
	unsigned char *d = (unsigned char *)&user.d;
	struct own own;

	(void)state;
	d[0] = 1;
	assert_int_equal(in(&own, &user), -E2BIG);
	assert_non_null(strstr(hgm_errmsg(), "newer libhgm"));
	d[0] = 0;
	d[7] = 1;
	assert_int_equal(in(&own, &user), -E2BIG);
	/* The same byte outside the size that the caller states must be ignored. */
	user.size = sizeof(user) - 1;
	assert_int_equal(in(&own, &user), 0);
	user.size = sizeof(struct own) + 1;
	assert_int_equal(in(&own, &user), 0);
	d[0] = 1;
	assert_int_equal(in(&own, &user), -E2BIG);
}

static void absurd_sizes_are_refused_without_reading_them(void **state)
{
	static union page user;
	struct own own;

	(void)state;
	user.size = 4096;
	assert_int_equal(in(&own, &user), 0);
	user.size = 4097;
	assert_int_equal(in(&own, &user), -EINVAL);
	assert_non_null(strstr(hgm_errmsg(), "as if it had not been set"));
	user.size = SIZE_MAX;
	assert_int_equal(in(&own, &user), -EINVAL);
}

static int out(void *user)
{
	const struct own own = { .size = sizeof(own), .a = 1, .b = 2, .c = 3 };

	return hgm_opts_out(user, &own, sizeof(own), sizeof(struct first), "fn");
}

static void out_refuses_null_and_bad_sizes(void **state)
{
	union page user;

	(void)state;
	assert_int_equal(out(NULL), -EINVAL);
	assert_non_null(strstr(hgm_errmsg(), "NULL"));
	user.size = 0;
	assert_int_equal(out(&user), -EINVAL);
	user.size = sizeof(struct first) - 1;
	assert_int_equal(out(&user), -EINVAL);
	user.size = 4097;
	assert_int_equal(out(&user), -EINVAL);
}

static void out_writes_no_further_than_the_caller_s_struct(void **state)
{
	struct own user = { .size = sizeof(struct first), .b = 0x55, .c = 0x66 };

	(void)state;
	assert_int_equal(out(&user), 0);
	assert_int_equal(user.size, sizeof(struct first));
	assert_int_equal(user.a, 1);
	assert_int_equal(user.b, 0x55);
	assert_int_equal(user.c, 0x66);
}

static void out_fills_equal_and_clears_the_rest_of_newer_structs(void **state)
{
	struct own same = { .size = sizeof(same) };
	struct newer user = { .size = sizeof(user), .d = 0xdead };

	(void)state;
	assert_int_equal(out(&same), 0);
	assert_int_equal(same.c, 3);
	assert_int_equal(out(&user), 0);
	assert_int_equal(user.size, sizeof(user));
	assert_int_equal(user.c, 3);
	assert_int_equal(user.d, 0);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(the_first_size_stays_as_fields_are_added),
	cmocka_unit_test(null_asks_for_the_defaults),
	cmocka_unit_test(sizes_below_the_first_release_are_refused),
	cmocka_unit_test(the_first_release_s_struct_is_extended_with_zeroes),
	cmocka_unit_test(one_byte_less_than_own_reads_no_further),
	cmocka_unit_test(own_size_is_taken_whole),
	cmocka_unit_test(a_newer_struct_passes_while_its_new_bytes_are_zero),
	cmocka_unit_test(unknown_bytes_are_refused),
	cmocka_unit_test(absurd_sizes_are_refused_without_reading_them),
	cmocka_unit_test(out_refuses_null_and_bad_sizes),
	cmocka_unit_test(out_writes_no_further_than_the_caller_s_struct),
	cmocka_unit_test(out_fills_equal_and_clears_the_rest_of_newer_structs),
};

TEST_MAIN(tests)
