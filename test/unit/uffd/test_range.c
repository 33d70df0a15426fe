/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The range walker, by result: full, partial, EEXIST and its waking, borders, errors.
 */
#include "range_script.h"

static void full_in_one_call(void **state)
{
	static const uint64_t steps[] = { PAGE, MIB_2, GIB_1 };

	(void)state;
	for (enum request v = 0; v < VERBS; v++) {
		for (int i = 0; i < 3; i++) {
			begin(steps[i], 5, 0);
			expect(v, 0, 5, 0, 5);
			check(call(v), 0, 5, 0, 0);
		}
	}
}

/* A partial result hides its reason. The next call returns it. */
static void partial_then_the_true_error(void **state)
{
	static const int errors[] = { -EFAULT, -ENOMEM, -ENOSPC, -ESRCH,     -EIO,
				      -EAGAIN, -EINTR,	-EPERM,	 -EHWPOISON, -EBUSY };

	(void)state;
	for (enum request v = 0; v < VERBS; v++) {
		for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
			/* The result field says the same, or nothing. */
			begin(PAGE, 8, 0);
			expect(v, 0, 8, -EAGAIN, 3);
			expect(v, 3, 5, errors[i], i % 2 ? errors[i] : UNTOUCHED);
			check(call(v), errors[i], 3, 0, 1);
			/* At the very first page. */
			begin(PAGE, 8, 0);
			expect(v, 0, 8, errors[i], i % 2 ? UNTOUCHED : errors[i]);
			check(call(v), errors[i], 0, 0, 0);
		}
	}
}

static void partial_then_the_rest(void **state)
{
	(void)state;
	begin(PAGE, 8, 0);
	expect(R_CONTINUE, 0, 8, -EAGAIN, 3);
	expect(R_CONTINUE, 3, 5, -EAGAIN, 1);
	expect(R_CONTINUE, 4, 4, 0, 4);
	check(call(R_CONTINUE), 0, 8, 0, 2);
}

/* A success that reports less than requested, or nothing, or too much. */
static void success_with_a_strange_result(void **state)
{
	(void)state;
	begin(PAGE, 8, 0);
	expect(R_COPY, 0, 8, 0, 3);
	expect(R_COPY, 3, 5, 0, 5);
	check(call(R_COPY), 0, 8, 0, 1);
	begin(PAGE, 8, 0);
	expect(R_COPY, 0, 8, 0, UNTOUCHED);
	check(call(R_COPY), 0, 8, 0, 0);
	begin(PAGE, 8, 0);
	expect(R_COPY, 0, 8, 0, 9);
	check(call(R_COPY), 0, 8, 0, 0);
}

/* Pitfall 7: an existing page may have a waiter that was not woken. */
static void exist_is_woken(void **state)
{
	(void)state;
	for (enum request v = 0; v < VERBS; v++) {
		begin(PAGE, 4, 0); /* the first */
		expect(v, 0, 4, -EEXIST, -EEXIST);
		expect(v, 1, 3, 0, 3);
		expect(R_WAKE, 0, 1, 0, 0);
		check(call(v), 0, 3, 1, 0);

		begin(PAGE, 5, 0); /* in the middle */
		expect(v, 0, 5, -EAGAIN, 2);
		expect(v, 2, 3, -EEXIST, UNTOUCHED);
		expect(v, 3, 2, 0, 2);
		expect(R_WAKE, 2, 1, 0, 0);
		check(call(v), 0, 4, 1, 1);

		begin(PAGE, 3, 0); /* the last */
		expect(v, 0, 3, -EAGAIN, 2);
		expect(v, 2, 1, -EEXIST, -EEXIST);
		expect(R_WAKE, 2, 1, 0, 0);
		check(call(v), 0, 2, 1, 1);

		begin(PAGE, 3, 0); /* all: woken together */
		expect(v, 0, 3, -EEXIST, -EEXIST);
		expect(v, 1, 2, -EEXIST, -EEXIST);
		expect(v, 2, 1, -EEXIST, -EEXIST);
		expect(R_WAKE, 0, 3, 0, 0);
		check(call(v), 0, 0, 3, 0);

		begin(PAGE, 5, 0); /* two runs: each together */
		expect(v, 0, 5, -EEXIST, -EEXIST);
		expect(v, 1, 4, -EEXIST, -EEXIST);
		expect(v, 2, 3, -EAGAIN, 1);
		expect(v, 3, 2, -EEXIST, -EEXIST);
		expect(R_WAKE, 0, 2, 0, 0);
		expect(v, 4, 1, 0, 1);
		expect(R_WAKE, 3, 1, 0, 0);
		check(call(v), 0, 2, 3, 1);
	}
}

static void exist_is_woken_before_an_error_is_told(void **state)
{
	(void)state;
	begin(PAGE, 3, 0);
	expect(R_CONTINUE, 0, 3, -EEXIST, -EEXIST);
	expect(R_CONTINUE, 1, 2, -EFAULT, -EFAULT);
	expect(R_WAKE, 0, 1, 0, 0);
	check(call(R_CONTINUE), -EFAULT, 0, 1, 0);
	/* A wake that fails changes nothing. */
	begin(PAGE, 1, 0);
	expect(R_CONTINUE, 0, 1, -EEXIST, -EEXIST);
	expect(R_WAKE, 0, 1, -EINVAL, 0);
	check(call(R_CONTINUE), 0, 0, 1, 0);
}

static void nobody_is_woken_with_dontwake(void **state)
{
	static const uint64_t dontwake[VERBS] = {
		HGM_UFFD_CONTINUE_DONTWAKE,
		HGM_UFFD_COPY_DONTWAKE | HGM_UFFD_COPY_WP,
		HGM_UFFD_ZEROPAGE_DONTWAKE,
		HGM_UFFD_POISON_DONTWAKE,
	};

	(void)state;
	for (enum request v = 0; v < VERBS; v++) {
		begin(PAGE, 3, dontwake[v]);
		expect(v, 0, 3, -EEXIST, -EEXIST);
		expect(v, 1, 2, 0, 1);
		expect(v, 2, 1, -EEXIST, -EEXIST);
		check(call(v), 0, 1, 2, 1);
	}
	/* Other mode bits do not count as DONTWAKE. */
	begin(PAGE, 1, HGM_UFFD_CONTINUE_WP);
	expect(R_CONTINUE, 0, 1, -EEXIST, -EEXIST);
	expect(R_WAKE, 0, 1, 0, 0);
	check(call(R_CONTINUE), 0, 0, 1, 0);
}

static void a_border_is_found_by_bisection(void **state)
{
	(void)state;
	for (enum request v = 0; v < VERBS; v++) {
		begin(PAGE, 16, 0); /* two areas, the second from step 5 on */
		expect(v, 0, 16, -ENOENT, -ENOENT);
		expect(v, 0, 8, -ENOENT, UNTOUCHED);
		expect(v, 0, 4, 0, 4);
		expect(v, 4, 12, -ENOENT, -ENOENT);
		expect(v, 4, 6, -ENOENT, -ENOENT);
		expect(v, 4, 3, -ENOENT, -ENOENT);
		expect(v, 4, 1, 0, 1);
		expect(v, 5, 11, 0, 11); /* all at once after the border */
		check(call(v), 0, 16, 0, 0);
	}
}

static void behind_a_border_is_nothing(void **state)
{
	(void)state;
	begin(MIB_2, 7, 0); /* no memory from step 5 on */
	expect(R_CONTINUE, 0, 7, -ENOENT, -ENOENT);
	expect(R_CONTINUE, 0, 3, 0, 3);
	expect(R_CONTINUE, 3, 4, -ENOENT, -ENOENT);
	expect(R_CONTINUE, 3, 2, 0, 2);
	expect(R_CONTINUE, 5, 2, -ENOENT, -ENOENT);
	expect(R_CONTINUE, 5, 1, -ENOENT, -ENOENT);
	check(call(R_CONTINUE), -ENOENT, 5, 0, 0);
	begin(GIB_1, 1, 0); /* one step: cannot be halved */
	expect(R_CONTINUE, 0, 1, -ENOENT, -ENOENT);
	check(call(R_CONTINUE), -ENOENT, 0, 0, 0);
}

static void a_border_among_existing_pages(void **state)
{
	(void)state;
	begin(PAGE, 4, 0); /* areas of 2 and 2, steps 0 and 2 exist */
	expect(R_COPY, 0, 4, -ENOENT, -ENOENT);
	expect(R_COPY, 0, 2, -EEXIST, -EEXIST);
	expect(R_COPY, 1, 2, -ENOENT, -ENOENT);
	expect(R_COPY, 1, 1, 0, 1);
	expect(R_COPY, 2, 2, -EEXIST, -EEXIST);
	expect(R_WAKE, 0, 1, 0, 0);
	expect(R_COPY, 3, 1, 0, 1);
	expect(R_WAKE, 2, 1, 0, 0);
	check(call(R_COPY), 0, 2, 2, 0);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(full_in_one_call),
	cmocka_unit_test(partial_then_the_true_error),
	cmocka_unit_test(partial_then_the_rest),
	cmocka_unit_test(success_with_a_strange_result),
	cmocka_unit_test(exist_is_woken),
	cmocka_unit_test(exist_is_woken_before_an_error_is_told),
	cmocka_unit_test(nobody_is_woken_with_dontwake),
	cmocka_unit_test(a_border_is_found_by_bisection),
	cmocka_unit_test(behind_a_border_is_nothing),
	cmocka_unit_test(a_border_among_existing_pages),
};

TEST_MAIN(tests)
