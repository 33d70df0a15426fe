/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The range walker when it does not walk: refused ranges, EINVAL and its text, and the two
 * variants, write-protect and "until something exists".
 */
#include <stdbool.h>

#include "range_script.h"

static void einval_comes_with_the_whole_story(void **state)
{
	(void)state;
	for (enum request v = 0; v <= R_WRITEPROTECT; v++) {
		begin(PAGE, 2, 0);
		expect(v, 0, 2, -EINVAL, UNTOUCHED);
		check(call(v), -EINVAL, 0, 0, 0);
		assert_non_null(strstr(hgm_errmsg(), names[v]));
		assert_non_null(strstr(hgm_errmsg(), "8192 bytes"));
		assert_non_null(strstr(hgm_errmsg(), "0x7f0000000000"));
		assert_non_null(strstr(hgm_errmsg(), "4096"));
	}
}

static void bad_ranges_never_reach_the_kernel(void **state)
{
	static const struct {
		uintptr_t addr;
		uint64_t len;
		uint64_t step;
	} bad[] = {
		{ (uintptr_t)BASE, 0, PAGE },
		{ (uintptr_t)BASE, PAGE + 1, PAGE },
		{ (uintptr_t)BASE, PAGE - 1, PAGE },
		{ (uintptr_t)BASE + 1, PAGE, PAGE },
		{ (uintptr_t)BASE + 2048, PAGE, PAGE },
		{ (uintptr_t)BASE, PAGE, 0 },
		{ 999 * PAGE, 3 * PAGE, 3 * PAGE }, /* not a power of two */
		{ (uintptr_t)BASE + PAGE, MIB_2, MIB_2 },
		{ (uintptr_t)BASE, MIB_2 + PAGE, MIB_2 },
		{ (uintptr_t)BASE + MIB_2, GIB_1, GIB_1 },
		{ (uintptr_t)-PAGE, 2 * PAGE, PAGE },
		{ (uintptr_t)-PAGE, PAGE, PAGE },
		{ (uintptr_t)BASE, -PAGE, PAGE },
		{ PAGE, -PAGE, PAGE },
	};

	(void)state;
	for (enum request v = 0; v <= R_WRITEPROTECT; v++) {
		for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			begin(PAGE, 1, 0);
			range.addr = (void *)bad[i].addr;
			range.len = bad[i].len;
			range.step = bad[i].step;
			check(call(v), -EINVAL, 0, 0, 0);
			assert_non_null(strstr(hgm_errmsg(), names[v]));
		}
	}
}

/* All or nothing: no result field, no partial results, no search for borders. */
static void writeprotect_is_one_call(void **state)
{
	static const int errors[] = { 0,       -ENOENT, -EAGAIN, -EFAULT,   -ESRCH,
				      -ENOMEM, -ENOSPC, -EIO,	 -EHWPOISON };

	(void)state;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		begin(PAGE, 6, HGM_UFFD_WP_PROTECT);
		expect(R_WRITEPROTECT, 0, 6, errors[i], 0);
		check(call(R_WRITEPROTECT), errors[i], errors[i] ? 0 : 6, 0, 0);
	}
	begin(MIB_2, 2, HGM_UFFD_WP_DONTWAKE);
	expect(R_WRITEPROTECT, 0, 2, 0, 0);
	check(call(R_WRITEPROTECT), 0, 2, 0, 0);
}

/* The engine's variant: the caller handles an existing page, and its waking. */
static void until_exist_stops_there(void **state)
{
	(void)state;
	for (enum request v = 0; v < VERBS; v++) {
		enum hgm_verb verb = (enum hgm_verb)v;

		begin(PAGE, 4, 0);
		expect(v, 0, 4, -EAGAIN, 2);
		expect(v, 2, 2, -EEXIST, -EEXIST);
		check(hgm_range_until_exist(&uffd, &range, verb, SRC), -EEXIST, 2, 0, 1);
		begin(PAGE, 4, 0);
		expect(v, 0, 4, -ENOENT, -ENOENT);
		expect(v, 0, 2, 0, 2);
		expect(v, 2, 2, 0, 2);
		check(hgm_range_until_exist(&uffd, &range, verb, SRC), 0, 4, 0, 0);
		begin(PAGE, 4, 0);
		range.len++;
		check(hgm_range_until_exist(&uffd, &range, verb, SRC), -EINVAL, 0, 0, 0);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(einval_comes_with_the_whole_story),
	cmocka_unit_test(bad_ranges_never_reach_the_kernel),
	cmocka_unit_test(writeprotect_is_one_call),
	cmocka_unit_test(until_exist_stops_there),
};

TEST_MAIN(tests)
