/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the kernel takes for a hole when it collapses registered anonymous memory: a page made by
 * UFFDIO_ZEROPAGE, but not a page of zeroes made by UFFDIO_COPY. For this reason the library copies
 * zeroes where a block is to become huge (hgm_resolve_contents()).
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <hgm/uffd.h>

#include "userfaultfd.h"

#define PAGE  4096
#define BLOCK (2u << 20)

static char *reserved;
static char *block;
static struct hgm_uffd *uffd;

static int set_up(void **state)
{
	uint64_t ioctls;

	(void)state;
	reserved =
		mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(reserved != MAP_FAILED);
	block = (char *)(((uintptr_t)reserved + BLOCK - 1) & ~(uintptr_t)(BLOCK - 1));
	assert_int_equal(hgm_uffd_open(&uffd, NULL), 0);
	assert_int_equal(hgm_uffd_register(uffd, block, BLOCK, HGM_UFFD_MISSING, &ioctls), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	hgm_uffd_close(uffd);
	munmap(reserved, 2 * BLOCK);
	return 0;
}

/* Fills the block from page @first on by copying @byte, and returns whether it can be collapsed. */
static int fill_and_collapse(unsigned int first, int byte)
{
	struct hgm_range rest = { .addr = block + (size_t)first * PAGE,
				  .len = BLOCK - (uint64_t)first * PAGE,
				  .step = PAGE };
	char *contents = malloc(BLOCK);
	uint64_t huge;
	int rc;

	assert_non_null(contents);
	memset(contents, byte, BLOCK);
	assert_int_equal(hgm_uffd_copy(uffd, &rest, contents), 0);
	free(contents);
	rc = hgm_collapse(block, BLOCK);
	if (!rc && !hgm_mapped_huge(block, BLOCK, &huge))
		assert_int_equal(huge, BLOCK);
	return rc;
}

static void copied_pages_collapse(void **state)
{
	(void)state;
	assert_int_equal(fill_and_collapse(0, 7), 0);
	assert_int_equal(block[BLOCK - 1], 7);
}

static void copied_zeroes_collapse(void **state)
{
	(void)state;
	assert_int_equal(fill_and_collapse(0, 0), 0);
	assert_int_equal(block[BLOCK - 1], 0);
}

static void one_zeropage_keeps_it_split(void **state)
{
	struct hgm_range zero = { .addr = block, .len = PAGE, .step = PAGE };

	(void)state;
	assert_int_equal(hgm_uffd_zeropage(uffd, &zero), 0);
	assert_int_not_equal(fill_and_collapse(1, 7), 0);
	assert_int_equal(block[0], 0);
	assert_int_equal(block[BLOCK - 1], 7);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(copied_pages_collapse),
	CASE(copied_zeroes_collapse),
	CASE(one_zeropage_keeps_it_split),
};

TEST_MAIN(tests)
