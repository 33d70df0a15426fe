/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Native regions on the RFC v2 of high-granularity mapping: by feature bit 13, without MADV_SPLIT.
 * Where the bit means something else, no userfaultfd of an engine has it.
 */
#include "native.h"

#include <sys/mman.h>

#define LENGTH (8 * MIB)
#define BIT13  HGM_UFFD_FEATURE_MINOR_HUGETLBFS_HGM

static void assert_by_feature(const struct hgm_region *r, uint64_t block)
{
	struct hgm_region_info info = info_of(r);

	assert_int_equal(info.backing, HGM_BACKING_HUGETLB);
	assert_int_equal(info.map_bytes, PAGE);
	assert_int_equal(info.protect_bytes, block); /* 4 KiB cannot be protected */
	if (!strstr(info.sentence, "with high-granularity mapping by feature bit 13"))
		fail_msg("%s", info.sentence);
}

static void restores(uint64_t block, uint64_t length)
{
	struct native n;

	native_make(&n, block, length, PROVIDER_NOW, HGM_REGION_NO_FILL);
	assert_by_feature(n.r, block);
	assert_true(n.h->abilities.features & BIT13);
	assert_ok(hgm_start(n.h));
	assert_pages(&native_contents, 7, 1, n.addr + 7 * PAGE); /* a fault */
	assert_true(page_mapped(n.addr + 7 * PAGE));
	assert_false(page_mapped(n.addr + 400 * PAGE));
	assert_int_equal(leaves_of(&n).pmd + leaves_of(&n).pud, 0);
	fetch(&n, 0, length / PAGE);
	assert_all_huge(&n);
	assert_int_equal(calls_in(CALL_SPLIT, n.addr, length), 0);
	native_free(&n);
}

static void restores_2m(void **state)
{
	(void)state;
	restores(LEAF, LENGTH);
}

static void restores_1g(void **state)
{
	(void)state;
	restores(GIB, GIB);
}

/* The best candidate; and in a caller's mapping */
static void chosen(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &native_contents, LENGTH);
	struct hgm_region_opts o = native_opts(HGM_BACKING_AUTO, LENGTH, provider);
	struct hgm *h = engine(1);
	struct hgm_region *r;
	void *at;
	int fd;

	(void)state;
	assert_ok(hgm_region_create(&r, h, &o));
	assert_by_feature(r, LEAF);
	hgm_region_destroy(r);

	fd = hgm_sys->memfd_create("theirs", MFD_HUGETLB);
	assert_true(fd >= 0);
	assert_ok(hgm_sys->ftruncate(fd, LENGTH));
	assert_ok(hgm_sys->mmap(&at, NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	o = native_opts(HGM_BACKING_MAPPING, LENGTH, provider);
	o.fd = fd;
	o.addr = at;
	assert_ok(hgm_region_create(&r, h, &o));
	assert_by_feature(r, LEAF);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&native_contents, 0, LENGTH / PAGE, at);
	assert_int_equal(model_leaves(at, LENGTH).pmd, LENGTH);
	hgm_region_destroy(r);
	hgm_destroy(h);
	hgm_sys->munmap(at, LENGTH);
	hgm_sys->close(fd);
	provider_free(provider);
}

/* The bit is enabled where it means HGM, and there it does not mean Linux 6.4. */
static void nowhere_else(void **state)
{
	static const struct {
		const char *kernel;
		bool by_feature, can_continue_wp;
	} want[] = {
		{ "rfc", true, false },	       { "hgm", false, false },
		{ "hgm-next", false, true },   { "stock", false, true },
		{ "stock-6.1", false, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		struct hgm *h;

		native_begin_named(want[i].kernel);
		h = engine(2);
		for (unsigned int s = 0; s < h->space.stripes; s++)
			assert_int_equal(!!(hgm_uffd_features(h->space.uffd[s]) & BIT13),
					 want[i].by_feature);
		assert_int_equal(h->abilities.can_continue_wp, want[i].can_continue_wp);
		hgm_destroy(h);
		native_end();
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(restores_2m, on_rfc, off),
	cmocka_unit_test_setup_teardown(restores_1g, on_rfc, off),
	cmocka_unit_test_setup_teardown(chosen, on_rfc, off),
	cmocka_unit_test(nowhere_else),
};

TEST_MAIN(tests)
