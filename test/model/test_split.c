/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MADV_SPLIT, and the fault addresses in split memory. Also kernels on which the advice has another
 * meaning.
 */
#include "play.h"

static int split(uint64_t offset, uint64_t len)
{
	return advise(offset, len, HGM_MADV_SPLIT);
}

static int64_t file_says(const char *path)
{
	char text[8] = "";
	int fd = hgm_sys->open(path, 0);

	if (fd < 0)
		return fd;
	hgm_sys->read(fd, text, sizeof(text) - 1);
	hgm_sys->close(fd);
	return text[0] - '0';
}

/* 2.1 and section 2: the mask is that of 6.3, bit 13 is refused, PAGEMAP_SCAN is unknown */
static void identification(void **state)
{
	uint64_t features = 0, ioctls;
	int fd = hgm_sys->userfaultfd(0);

	(void)state;
	assert_int_equal(hgm_sys->uffd_api(fd, &features, &ioctls), 0);
	assert_int_equal(features, 0x1fff);
	assert_int_equal(ioctls, 0x8000000000000003);
	hgm_sys->close(fd);
	fd = hgm_sys->userfaultfd(0);
	features = HGM_UFFD_FEATURE_WP_UNPOPULATED;
	assert_int_equal(hgm_sys->uffd_api(fd, &features, &ioctls), -EINVAL);
	hgm_sys->close(fd);
	assert_int_equal(file_says("/sys/kernel/mm/hugepages/hgm"), -ENOENT);
	scene(M2, 1);
	assert_int_equal(hgm_sys->pagemap_scan(0, s.primary, s.primary + M2, HGM_PAGE_IS_HUGE, NULL,
					       0, &features),
			 -ENOTTY);
}

/* 2.2 first row */
static void advice_26(void **state)
{
	(void)state;
	assert_int_equal(hgm_sys->madvise(NULL, 0, 26), 0);
	assert_int_equal(hgm_sys->madvise(NULL, 0, 27), -EINVAL);
	assert_int_equal(hgm_sys->madvise((void *)1, 0, 26), -EINVAL);
	assert_int_equal(hgm_sys->madvise(NULL, K4, 26), -ENOMEM);
}

/* 2.2 anon, shmem, private: EINVAL; length 0: always 0 */
static void not_eligible(void **state)
{
	int fd = hgm_sys->memfd_create("small", 0);
	void *anon, *shmem, *private;

	(void)state;
	scene(M2, 1);
	assert_int_equal(hgm_sys->ftruncate(fd, M2), 0);
	assert_int_equal(
		hgm_sys->mmap(&anon, NULL, M2, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 0);
	assert_int_equal(hgm_sys->mmap(&shmem, NULL, M2, PROT_READ, MAP_SHARED, fd, 0), 0);
	assert_int_equal(hgm_sys->mmap(&private, NULL, M2, PROT_READ, MAP_PRIVATE, s.fd, 0), 0);
	assert_int_equal(hgm_sys->madvise(anon, M2, 26), -EINVAL);
	assert_int_equal(hgm_sys->madvise(shmem, M2, 26), -EINVAL);
	assert_int_equal(hgm_sys->madvise(private, M2, 26), -EINVAL);
	assert_int_equal(hgm_sys->madvise(anon, 0, 26), 0);
	assert_int_equal(hgm_sys->madvise(private, 0, 26), 0);
	assert_int_equal(split(0, 0), 0);
	assert_false(smaps_flag(0, "hm"));
	hgm_sys->munmap(anon, M2);
	hgm_sys->munmap(shmem, M2);
	hgm_sys->munmap(private, M2);
	hgm_sys->close(fd);
}

/* 2.2 eligible: shared anonymous, PROT_READ, NORESERVE, registered already */
static void eligible(void **state)
{
	void *p;

	(void)state;
	scene(M2, 2);
	scene_register(EXACT, MINOR);
	scene_split();
	assert_true(smaps_flag(0, "hm"));
	assert_true(smaps_flag(0, "ui"));
	assert_int_equal(
		hgm_sys->mmap(&p, NULL, M2, PROT_READ, MAP_SHARED | MAP_NORESERVE, s.fd, 0), 0);
	assert_int_equal(hgm_sys->madvise(p, M2, 26), 0);
	hgm_sys->munmap(p, M2);
	assert_int_equal(hgm_sys->mmap(&p, NULL, M2, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0),
			 0);
	assert_int_equal(hgm_sys->madvise(p, M2, 26), 0);
	hgm_sys->munmap(p, M2);
}

/* 2.2 misaligned: EINVAL and an unchanged flag; the length is rounded up to 4 KiB */
static void misaligned(void **state)
{
	(void)state;
	scene(M2, 4);
	assert_int_equal(split(K4, M2), -EINVAL);
	assert_int_equal(split(0, K4), -EINVAL);
	assert_int_equal(split(0, M2 + K4), -EINVAL);
	assert_int_equal(split(0, M2 - 4097), -EINVAL);
	assert_false(smaps_flag(0, "hm"));
	assert_int_equal(split(0, M2 - 1), 0);
	assert_true(smaps_flag(0, "hm"));
	assert_false(smaps_flag(M2, "hm"));
	/* In split memory, borders are not checked. */
	assert_int_equal(split(K4, K4), 0);
	/* A split is permanent. */
	assert_int_equal(advise(0, M2, MADV_NORMAL), 0);
	assert_true(smaps_flag(0, "hm"));
}

static void misaligned_1g(void **state)
{
	(void)state;
	scene(G1, 2);
	assert_int_equal(split(0, M2), -EINVAL);
	assert_int_equal(split(M2, G1), -EINVAL);
	assert_false(smaps_flag(0, "hm"));
	assert_int_equal(split(0, G1), 0);
	assert_true(smaps_flag(0, "hm"));
	assert_false(smaps_flag(G1, "hm"));
}

/* 2.2 failing calls have side effects */
static void failing_call_splits(void **state)
{
	void *p;

	(void)state;
	scene(M2, 3);
	assert_int_equal(hgm_sys->munmap(s.primary + M2, M2), 0);
	assert_int_equal(split(0, s.len), -ENOMEM); /* hugetlb, gap, hugetlb */
	assert_true(smaps_flag(0, "hm"));
	assert_true(smaps_flag(2 * M2, "hm"));
	assert_int_equal(hgm_sys->mmap(&p, s.primary + M2, M2, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_FIXED, s.fd, M2),
			 0);
	assert_int_equal(hgm_sys->mmap(&p, s.primary + 2 * M2, M2, PROT_READ,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 0);
	assert_int_equal(split(M2, 2 * M2), -EINVAL); /* hugetlb, anon */
	assert_true(smaps_flag(M2, "hm"));
}

/* 2.2 never merged: a CONTINUE across a border is ENOENT; only the split half takes 4 KiB */
static void borders_stay(void **state)
{
	(void)state;
	scene(M2, 2);
	fill(0, 2 * M2);
	scene_register(EXACT, MINOR);
	assert_int_equal(split(0, M2), 0);
	assert_none(cont(M2, K4), EINVAL);
	assert_did(cont(0, K4), K4);
	assert_int_equal(split(M2, M2), 0);
	assert_none(cont(M2 - K4, 2 * K4), ENOENT);
	assert_did(cont(M2, K4), K4);
	assert_leaves(0, 0, 2);
}

/* 2.2 changes no mapping */
static void changes_no_mapping(void **state)
{
	(void)state;
	scene(M2, 1);
	s.primary[0] = 1;
	scene_split();
	scene_register(EXACT, MINOR);
	assert_leaves(0, 1, 0);
	assert_none(cont(0, K4), EEXIST);
	assert_int_equal(advise(0, M2, MADV_DONTNEED), 0);
	assert_did(cont(0, K4), K4);
	assert_leaves(0, 0, 1);
	assert_int_equal(smaps_kb(0, "HugetlbPteMapped"), 4);
	assert_int_equal(smaps_kb(0, "HugetlbPmdMapped"), 0);
}

/* 2.3 */
static void addresses(uint64_t block, uint64_t at, uint64_t features, uint64_t minor, uint64_t rest)
{
	struct toucher t;

	scene(block, 2);
	s.alias[block] = 1;
	scene_split();
	scene_register(features, MISSING | MINOR | WP);
	touch_start(&t, block + at, true);
	assert_told(block + minor, HGM_UFFD_FAULT_MINOR | HGM_UFFD_FAULT_WRITE);
	assert_did(cont(block, block), block);
	touch_end(&t);
	assert_int_equal(protect(block, block, true), 0);
	touch_start(&t, block + at, true);
	assert_told(block + rest, HGM_UFFD_FAULT_WP | HGM_UFFD_FAULT_WRITE);
	assert_int_equal(protect(block, block, false), 0);
	touch_end(&t);
	touch_start(&t, at, false);
	assert_told(rest, 0);
	assert_did(copy(0, block, 1), block);
	touch_end(&t);
}

static void addresses_2m(void **state)
{
	(void)state;
	addresses(M2, 0x5123, 0, 0x5000, 0);
	scene_end();
	addresses(M2, 0x5123, EXACT, 0x5123, 0x5123);
}

static void addresses_1g(void **state)
{
	(void)state;
	addresses(G1, 0x605123, 0, 0x605000, 0);
}

static void addresses_1g_exact(void **state)
{
	(void)state;
	addresses(G1, 0x605123, EXACT, 0x605123, 0x605123);
}

static void begin_odd(struct model_opts o)
{
	o.features = 0x1fff;
	o.pool_2m_pages = 8;
	model_begin(&o);
}

static void end_odd(void)
{
	scene_end();
	assert_int_equal(model_left(), 0);
	model_end();
}

/* The number means something else there: it succeeds on any memory, and splits nothing. */
static void advice_means_else(void **state)
{
	(void)state;
	begin_odd((struct model_opts){ .advice_means_else = true, .sysfs = -1 });
	assert_int_equal(hgm_sys->madvise(NULL, 0, 26), 0);
	scene(M2, 1);
	fill(0, M2);
	scene_split();
	scene_register(EXACT, MINOR);
	assert_false(smaps_flag(0, "hm"));
	assert_none(cont(0, K4), EINVAL);
	assert_int_equal(collapse(0, M2), -EINVAL);
	end_odd();
}

static void flag_is_not_shown(void **state)
{
	(void)state;
	begin_odd((struct model_opts){ .hgm = true, .no_hm = true, .sysfs = 1 });
	assert_int_equal(file_says("/sys/kernel/mm/hugepages/hgm"), 1);
	scene(M2, 1);
	fill(0, M2);
	scene_split();
	scene_register(EXACT, MINOR);
	assert_false(smaps_flag(0, "hm"));
	assert_did(cont(0, K4), K4);
	end_odd();
}

static void flag_but_no_pieces(void **state)
{
	(void)state;
	begin_odd((struct model_opts){ .hgm = true, .continue_4k_fails = true, .sysfs = 0 });
	assert_int_equal(file_says("/sys/kernel/mm/hugepages/hgm"), 0);
	scene(M2, 1);
	fill(0, M2);
	scene_split();
	scene_register(EXACT, MINOR);
	assert_true(smaps_flag(0, "hm"));
	assert_none(cont(0, K4), EINVAL);
	assert_did(cont(0, M2), M2);
	end_odd();
}

static const struct CMUnitTest tests[] = {
	ON("hgm", identification),
	ON("hgm", advice_26),
	ON("hgm", not_eligible),
	ON("hgm", eligible),
	ON("hgm", misaligned),
	ON("hgm", misaligned_1g),
	ON("hgm", failing_call_splits),
	ON("hgm", borders_stay),
	ON("hgm", changes_no_mapping),
	ON("hgm", addresses_2m),
	ON("hgm", addresses_1g),
	ON("hgm", addresses_1g_exact),
	cmocka_unit_test(advice_means_else),
	cmocka_unit_test(flag_is_not_shown),
	cmocka_unit_test(flag_but_no_pieces),
};

TEST_MAIN(tests)
