/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What every cmocka program of the test suite includes.
 *
 * A program ends with TEST_MAIN(tests): it exits 0, or 1 if a case failed, or 77 if all its cases
 * were skipped. A case is skipped by test_skip() with a reason, never by returning early.
 */
#ifndef HGM_TEST_H
#define HGM_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Since cmocka 2.0 the name without a type is deprecated, which is an error here: none uses it. */
#ifndef assert_uint_in_range
#define assert_uint_in_range(value, min, max)                                                      \
	_assert_in_range(cast_to_largest_integral_type(value), cast_to_largest_integral_type(min), \
			 cast_to_largest_integral_type(max), __FILE__, __LINE__)
#endif
#undef assert_in_range

static unsigned int test_skipped __attribute__((unused));

/* What a skipped case would have seen is missing from the record (errors/record.h). */
static inline void test_note_skip(void)
{
	const char *folder = getenv("HGM_RECORD");
	char path[4096];
	FILE *file;

	if (!folder)
		return;
	snprintf(path, sizeof(path), "%s/skipped", folder);
	file = fopen(path, "a");
	if (file)
		fclose(file);
}

/* The reasons go to stdout, where test/summary.py finds them. */
#define test_skip(...)                 \
	do {                           \
		printf("# skipped: "); \
		printf(__VA_ARGS__);   \
		printf("\n");          \
		fflush(stdout);        \
		test_note_skip();      \
		test_skipped++;        \
		skip();                \
	} while (0)

#define TEST_EXIT_SKIPPED 77

/* @set_up: of the group, or NULL; @lacking: why none of the cases can run here, or NULL */
#define TEST_MAIN_UNLESS(tests, set_up, lacking)                                                   \
	int main(void)                                                                             \
	{                                                                                          \
		const char *why = lacking;                                                         \
                                                                                                   \
		setvbuf(stdout, NULL, _IOLBF, 0);                                                  \
		if (why) {                                                                         \
			printf("# skipped: %s\n", why);                                            \
			return TEST_EXIT_SKIPPED;                                                  \
		}                                                                                  \
		if (cmocka_run_group_tests(tests, set_up, NULL))                                   \
			return 1;                                                                  \
		return test_skipped == sizeof(tests) / sizeof((tests)[0]) ? TEST_EXIT_SKIPPED : 0; \
	}

#define TEST_MAIN(tests) TEST_MAIN_UNLESS(tests, NULL, NULL)

#endif
