/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying cold pages: copies every byte, writes nothing beside them, and reads nothing beyond the
 * source.
 */
#include "util/copy.h"

#include <string.h>
#include <sys/mman.h>

#include "random.h"
#include "test.h"

#define PAGE	   4096
#define MOST_PAGES 64
#define ALIGN_MAX  64

/* Pages between two inaccessible pages. */
struct fenced {
	char *at;
	size_t pages;
};

static struct fenced fence(size_t pages)
{
	struct fenced f = { .pages = pages };
	char *all = mmap(NULL, (pages + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(all, MAP_FAILED);
	f.at = all + PAGE;
	assert_int_equal(mprotect(f.at, pages * PAGE, PROT_READ | PROT_WRITE), 0);
	return f;
}

static void unfence(struct fenced f)
{
	munmap(f.at - PAGE, (f.pages + 2) * PAGE);
}

/* All pages of a source differ, and so do all lines of a page. */
static struct fenced source(size_t pages)
{
	struct random random = { .state = random_seed() };
	struct fenced f = fence(pages);

	for (size_t at = 0; at < pages * PAGE; at += sizeof(uint64_t)) {
		uint64_t word = random_next(&random);

		memcpy(f.at + at, &word, sizeof(word));
	}
	return f;
}

/* Copy to the very start and to the very end of the writable pages. The rest must not change. */
static void assert_copies(const char *from, size_t pages)
{
	struct fenced to = fence(pages + 1);

	for (size_t first = 0; first < 2; first++) {
		char *at = to.at + first * PAGE;
		const char *beside = first ? to.at : to.at + pages * PAGE;

		memset(to.at, 0x5a, to.pages * PAGE);
		hgm_copy_cold(at, from, pages * PAGE);
		if (memcmp(at, from, pages * PAGE) != 0)
			fail_msg("%zu pages from an address of 64n + %zu are wrong", pages,
				 (uintptr_t)from % 64);
		for (size_t i = 0; i < PAGE; i++)
			if (beside[i] != 0x5a)
				fail_msg("%zu pages: byte %zu of the page %s them was written",
					 pages, i, first ? "before" : "behind");
	}
	unfence(to);
}

static const size_t lengths[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, MOST_PAGES };
#define LENGTHS (sizeof(lengths) / sizeof(lengths[0]))

static void from_the_start_of_a_mapping(void **state)
{
	struct fenced from = source(MOST_PAGES + 1);

	(void)state;
	for (size_t align = 0; align <= ALIGN_MAX; align++)
		for (size_t i = 0; i < LENGTHS; i++)
			assert_copies(from.at + align, lengths[i]);
	unfence(from);
}

static void up_to_the_end_of_a_mapping(void **state)
{
	struct fenced from = source(MOST_PAGES + 1);
	const char *end = from.at + from.pages * PAGE;

	(void)state;
	for (size_t short_of = 0; short_of <= ALIGN_MAX; short_of++)
		for (size_t i = 0; i < LENGTHS; i++)
			assert_copies(end - short_of - lengths[i] * PAGE, lengths[i]);
	unfence(from);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(from_the_start_of_a_mapping),
	cmocka_unit_test(up_to_the_end_of_a_mapping),
};

TEST_MAIN(tests)
