/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A region of twelve tebibytes costs address space, and little else until it is touched.
 */
#include "harness.h"

#include <errno.h>
#include <unistd.h>

#define LENGTH	  (12 * 1024 * GIB)
#define TOUCHES	  2000
#define IDLE_MOST (64 * MIB)

static const struct contents contents = { .seed = 12 };

/* All memory of the process, including page tables. */
static uint64_t footprint(void)
{
	FILE *file = fopen("/proc/self/status", "r");
	uint64_t kb, sum = 0;
	char line[256];

	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "VmRSS: %" SCNu64, &kb) == 1 ||
		    sscanf(line, "VmPTE: %" SCNu64, &kb) == 1)
			sum += kb << 10;
	fclose(file);
	return sum;
}

static int64_t read_now(void *user, const struct hgm_io *io)
{
	(void)user;
	contents_write(&contents, io->offset / PAGE, io->length / PAGE, io->buf);
	return (int64_t)io->length;
}

static void twelve_tebibytes(void **state)
{
	struct hgm *h = engine(2);
	_Atomic uint64_t dice = 1;
	struct hgm_source *src;
	struct ram ram;
	uint64_t before, idle;
	int rc;

	(void)state;
	watch("12 TiB", 60);
	assert_ok(hgm_source_fn(&src, read_now, NULL, NULL));
	assert_ok(hgm_start(h));
	ram_make(&ram, h, BACKING_SHMEM_LAZY, PAGE, src, HGM_REGION_NO_FILL);
	assert_pages(&contents, 0, 1, ram.addr);
	ram_end(&ram);
	before = footprint();
	rc = ram_try(&ram, h, BACKING_SHMEM_LAZY, LENGTH, src, 0, HGM_REGION_NO_FILL);
	if (rc == -ENOMEM) {
		char why[512];

		snprintf(why, sizeof(why), "%s", hgm_errmsg());
		hgm_destroy(h);
		hgm_source_destroy(src);
		test_skip("no address space for 12 TiB twice: %s", why);
	}
	assert_ok(rc);
	idle = footprint() - before;
	if (idle > IDLE_MOST)
		fail_msg("an idle region of 12 TiB takes %llu kB", (unsigned long long)idle >> 10);
	printf("# 12 TiB idle: %llu kB\n", (unsigned long long)idle >> 10);
	for (unsigned int i = 0; i < TOUCHES; i++) {
		uint64_t page = random_of(&dice) % (LENGTH / PAGE);

		assert_pages(&contents, page, 1, ram.addr + page * PAGE);
	}
	assert_pages(&contents, 0, 1, ram.addr);
	assert_pages(&contents, LENGTH / PAGE - 1, 1, ram.addr + LENGTH - PAGE);
	assert_ok(hgm_wait(h, 5000));
	assert_uint_in_range(info_of(ram.region).present_bytes, (TOUCHES - 10) * PAGE,
			     (TOUCHES + 2) * PAGE);
	/* A whole block in the middle becomes huge like any other. */
	assert_ok(hgm_region_prefetch(ram.region, LENGTH / 2, 2 * MIB));
	assert_ok(hgm_wait(h, 5000));
	assert_int_equal(info_of(ram.region).huge_bytes, 2 * MIB);
	assert_pages(&contents, LENGTH / 2 / PAGE, 512, ram.addr + LENGTH / 2);
	ram_end(&ram);
	assert_uint_in_range(footprint(), 0, before + IDLE_MOST);
	hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(twelve_tebibytes),
};

TEST_MAIN(tests)
