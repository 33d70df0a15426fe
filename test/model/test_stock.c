/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The model of a kernel without HGM. The same cases also run on the running kernel.
 */
#include "play.h"

#include <unistd.h>

#define AT (UINT64_C(0x5123))

/* 2.3, first two rows */
static void addresses(uint64_t features, uint64_t want)
{
	struct toucher t;

	fill(0, K4);
	scene_register(features, MISSING | MINOR | WP);
	touch_start(&t, AT, false);
	assert_told(want, HGM_UFFD_FAULT_MINOR);
	assert_did(cont(0, s.block), s.block);
	touch_end(&t);
	assert_int_equal(protect(0, s.block, true), 0);
	touch_start(&t, AT, true);
	assert_told(want, HGM_UFFD_FAULT_WP | HGM_UFFD_FAULT_WRITE);
	assert_int_equal(protect(0, s.block, false), 0);
	touch_end(&t);
	touch_start(&t, s.block + AT, false);
	assert_told(s.block + want, 0);
	assert_did(copy(s.block, s.block, 9), s.block);
	touch_end(&t);
	assert_int_equal(t.value, 9);
}

static void address_is_rounded_to_the_huge_page(void **state)
{
	(void)state;
	scene(M2, 2);
	addresses(0, 0);
}

static void address_is_exact(void **state)
{
	(void)state;
	scene(M2, 2);
	addresses(EXACT, AT);
}

static void continue_takes_whole_huge_pages(void **state)
{
	(void)state;
	scene(M2, 4);
	fill(0, K4);
	fill(M2, K4);
	scene_register(EXACT, MINOR);
	assert_none(cont(0, K4), EINVAL);
	assert_none(cont(K4, M2), EINVAL);
	assert_none(cont(3 * M2, M2), EFAULT); /* nothing in the page cache */
	assert_did(cont(0, M2), M2);
	assert_none(cont(0, M2), EEXIST);
	assert_int_equal(cont(M2, 2 * M2), -EAGAIN); /* the prefix */
	assert_int_equal(done, M2);
	assert_none(cont(3 * M2, 2 * M2), ENOENT); /* across the end */
	assert_int_equal(hgm_sys->uffd_continue(s.uffd, s.alias, M2, 0, &done), -ENOENT);
	assert_int_equal(cont(1, M2), -EINVAL);
	assert_int_equal(done, DONE_UNTOUCHED);
	assert_int_equal(cont(0, 0), -EINVAL);
	assert_int_equal(done, DONE_UNTOUCHED);
	assert_int_equal(cont_mode(0, M2, 8), -EINVAL);
	assert_int_equal(done, DONE_UNTOUCHED);
}

static void continue_1g(void **state)
{
	(void)state;
	scene(G1, 1);
	fill(0, K4);
	scene_register(EXACT, MINOR);
	assert_none(cont(0, K4), EINVAL);
	assert_none(cont(M2, M2), EINVAL);
	assert_did(cont(0, G1), G1);
	assert_int_equal(touch_silently(5, false), 1);
	assert_int_equal(touch_silently(G1 - 1, false), 0);
}

/* 2.4 CONTINUE beyond the end of the file: EFAULT */
static void continue_beyond_the_end(void **state)
{
	(void)state;
	scene(M2, 2);
	fill(0, K4);
	scene_register(EXACT, MINOR);
	assert_int_equal(hgm_sys->ftruncate(s.fd, M2), 0);
	assert_none(cont(M2, M2), EFAULT);
	assert_int_equal(hgm_sys->ftruncate(s.fd, K4), -EINVAL);
}

/* 2.4 EEXIST wakes no thread; WAKE does */
static void exist_wakes_nobody(void **state)
{
	struct toucher t;

	(void)state;
	scene(M2, 1);
	fill(0, K4);
	scene_register(EXACT, MINOR);
	touch_start(&t, AT, false);
	assert_told(AT, HGM_UFFD_FAULT_MINOR);
	assert_did(cont_mode(0, M2, HGM_UFFD_CONTINUE_DONTWAKE), M2);
	assert_none(cont(0, M2), EEXIST);
	assert_true(touch_waits(&t));
	assert_int_equal(wake(K4, K4), 0);
	assert_true(touch_waits(&t));
	assert_int_equal(wake(AT & ~(K4 - 1), K4), 0);
	touch_end(&t);
}

/* Without EXACT_ADDRESS, the waiter is queued at the base of the huge page. */
static void queued_at_the_base(void **state)
{
	struct toucher t;

	(void)state;
	scene(M2, 1);
	fill(0, K4);
	scene_register(0, MINOR);
	touch_start(&t, AT, false);
	assert_told(0, HGM_UFFD_FAULT_MINOR);
	assert_did(cont_mode(0, M2, HGM_UFFD_CONTINUE_DONTWAKE), M2);
	assert_int_equal(wake(AT & ~(K4 - 1), K4), 0);
	assert_true(touch_waits(&t));
	assert_int_equal(wake(0, K4), 0);
	touch_end(&t);
}

/* Section 5.8: UNREGISTER wakes threads that wait for MISSING, but not those that wait for MINOR */
static void unregister_and_waiters(void **state)
{
	struct toucher t;

	(void)state;
	scene(M2, 1);
	fill(0, K4);
	scene_register(EXACT, MINOR);
	touch_start(&t, AT, false);
	assert_told(AT, HGM_UFFD_FAULT_MINOR);
	assert_int_equal(hgm_sys->uffd_unregister(s.uffd, s.primary, M2), 0);
	assert_true(touch_waits(&t));
	assert_int_equal(wake(0, M2), 0);
	touch_end(&t);
	assert_int_equal(advise(0, M2, MADV_DONTNEED), 0);
	assert_int_equal(hgm_sys->uffd_register(s.uffd, s.primary, M2, MISSING | MINOR, &s.ioctls),
			 0);
	touch_start(&t, AT, false);
	assert_told(AT, HGM_UFFD_FAULT_MINOR);
	assert_int_equal(hgm_sys->uffd_unregister(s.uffd, s.primary, M2), 0);
	touch_end(&t);
}

static void close_releases(void **state)
{
	struct toucher t;

	(void)state;
	scene(M2, 1);
	fill(0, K4);
	scene_register(EXACT, MINOR);
	touch_start(&t, AT, false);
	assert_told(AT, HGM_UFFD_FAULT_MINOR);
	assert_int_equal(hgm_sys->close(s.uffd), 0);
	s.uffd = -1;
	touch_end(&t);
}

/* 2.5: with MISSING only, a huge page in the page cache is mapped, whole, without a message. */
static void missing_only_maps_the_cache(void **state)
{
	(void)state;
	scene(M2, 1);
	fill(0, 16 * K4);
	scene_register(EXACT, MISSING);
	assert_int_equal(touch_silently(9 * K4 + 5, false), 10);
	assert_none(cont(0, M2), EEXIST);
	assert_int_equal(smaps_kb(0, "Shared_Hugetlb"), 2048);
}

/* 2.5: with MINOR only, an absent huge page is zero-filled, whole, without a message. */
static void minor_only_fills_with_zero(void **state)
{
	(void)state;
	scene(M2, 1);
	scene_register(EXACT, MINOR);
	assert_int_equal(touch_silently(9 * K4 + 5, false), 0);
	assert_none(cont(0, M2), EEXIST);
	fill(0, 16 * K4);
	assert_int_equal(touch_silently(10 * K4 + 5, false), 11);
	assert_int_equal(smaps_kb(0, "Private_Hugetlb") + smaps_kb(0, "Shared_Hugetlb"), 2048);
}

/* 2.6 */
static void other_verbs(void **state)
{
	(void)state;
	scene(M2, 4);
	scene_register(EXACT, MISSING | MINOR | WP);
	assert_none(copy(0, K4, 1), EINVAL);
	assert_did(copy(0, M2, 1), M2);
	assert_none(copy(0, M2, 2), EEXIST);
	fill(M2, K4);
	assert_none(copy(M2, M2, 2), EEXIST); /* it is in the page cache */
	assert_int_equal(hgm_sys->uffd_zeropage(s.uffd, s.primary + 2 * M2, M2, 0, &done), -EINVAL);
	assert_int_equal(protect(0, K4, true), -EINVAL);
	assert_int_equal(protect(0, 2 * M2, true), 0); /* the second is a hole */
	assert_true(smaps_flag(0, "uw"));
	assert_int_equal(hgm_sys->uffd_move(s.uffd, s.primary, s.primary + M2, M2, 0, &done),
			 -EINVAL);
}

/* A marker causes no WP message where MINOR is registered, and CONTINUE drops it. */
static void continue_drops_a_marker(void **state)
{
	struct toucher t;

	(void)state;
	scene(M2, 1);
	fill(0, K4);
	scene_register(EXACT, MINOR | WP);
	assert_int_equal(protect(0, M2, true), 0);
	touch_start(&t, AT, true);
	assert_told(AT, HGM_UFFD_FAULT_MINOR | HGM_UFFD_FAULT_WRITE);
	assert_did(cont(0, M2), M2);
	touch_end(&t);
}

static void poison(void **state)
{
	int rc;

	(void)state;
	scene(M2, 2);
	fill(0, K4);
	scene_register(EXACT, MISSING | MINOR);
	rc = hgm_sys->uffd_poison(s.uffd, s.primary, K4, 0, &done);
	assert_int_equal(rc, -EINVAL);
	assert_int_equal(done, -EINVAL);
	assert_did(hgm_sys->uffd_poison(s.uffd, s.primary, M2, 0, &done), M2);
	assert_none(hgm_sys->uffd_poison(s.uffd, s.primary, M2, 0, &done), EEXIST);
	assert_did(cont(0, M2), M2); /* replaces the poison */
	assert_int_equal(touch_silently(5, false), 1);
	assert_none(hgm_sys->uffd_poison(s.uffd, s.primary, M2, 0, &done), EEXIST);
}

static void registration(void **state)
{
	uint64_t features = EXACT, ioctls;
	int other;

	(void)state;
	scene(M2, 2);
	scene_register(EXACT, MISSING);
	assert_int_equal(s.ioctls, 0x10c);
	assert_int_equal(hgm_sys->uffd_register(s.uffd, s.primary, s.len, MINOR | WP, &s.ioctls),
			 0);
	assert_int_equal(s.ioctls, 0x1cc);
	assert_false(smaps_flag(0, "um"));
	/* Registration with fewer modes does not remove the others. */
	assert_int_equal(hgm_sys->uffd_register(s.uffd, s.primary, s.len, MINOR, &s.ioctls), 0);
	assert_int_equal(s.ioctls, 0x18c);
	assert_true(smaps_flag(0, "uw"));
	assert_true(smaps_flag(0, "ui"));
	assert_true(smaps_flag(0, "ht"));
	assert_int_equal(hgm_sys->uffd_register(s.uffd, s.alias, K4, MINOR, &s.ioctls), -EINVAL);
	assert_int_equal(hgm_sys->uffd_unregister(s.uffd, s.primary + K4, M2), -EINVAL);
	other = hgm_sys->userfaultfd(0);
	assert_int_equal(hgm_sys->uffd_api(other, &features, &ioctls), 0);
	assert_int_equal(features, 0x1ffff);
	assert_int_equal(hgm_sys->uffd_register(other, s.primary, M2, MINOR, &ioctls), -EBUSY);
	hgm_sys->close(other);
	assert_int_equal(hgm_sys->uffd_unregister(s.uffd, s.primary, M2), 0);
	assert_false(smaps_flag(0, "ui"));
	assert_true(smaps_flag(M2, "ui"));
	fill(0, K4);
	assert_none(cont(0, M2), ENOENT);
}

static void whole_huge_pages_everywhere(void **state)
{
	void *at;

	(void)state;
	scene(M2, 2);
	assert_int_equal(hgm_sys->munmap(s.primary, K4), -EINVAL);
	assert_int_equal(hgm_sys->mprotect(s.primary + K4, K4, PROT_READ), -EINVAL);
	assert_int_equal(hgm_sys->mmap(&at, NULL, M2, PROT_READ, MAP_SHARED, s.fd, K4), -EINVAL);
	memset(s.primary, 3, M2);
	assert_int_equal(advise(0, K4, MADV_DONTNEED), 0); /* has no effect */
	assert_int_equal(smaps_kb(0, "Private_Hugetlb"), 2048);
	assert_int_equal(advise(K4, M2, MADV_DONTNEED), -EINVAL);
	assert_int_equal(advise(0, M2 + K4, MADV_DONTNEED), 0);
	assert_int_equal(smaps_kb(0, "Private_Hugetlb"), 0);
	assert_int_equal(advise(0, M2, HGM_MADV_DONTNEED_LOCKED), 0);
	assert_int_equal(s.alias[K4], 3);
}

/* 2.2, 2.7 on a kernel without HGM */
static void no_split_no_collapse(void **state)
{
	(void)state;
	scene(M2, 1);
	memset(s.primary, 3, M2);
	assert_int_equal(hgm_sys->madvise(NULL, 0, HGM_MADV_SPLIT), -EINVAL);
	assert_int_equal(hgm_sys->madvise(NULL, K4, HGM_MADV_SPLIT), -EINVAL);
	assert_int_equal(advise(0, M2, HGM_MADV_SPLIT), -EINVAL);
	assert_int_equal(collapse(0, M2), -EINVAL);
	assert_false(smaps_flag(0, "hm"));
	assert_int_equal(smaps_kb(0, "HugetlbPmdMapped"), -1);
}

/* Promise the rest to one mapping: no other can take it. Returns NULL or what was wrong. */
static const char *promise_the_rest(uint64_t pages)
{
	int fd = hgm_sys->memfd_create("rest", MFD_HUGETLB | 21U << HGM_MFD_HUGE_SHIFT);
	const char *wrong = NULL;
	void *at, *lazy;

	assert_true(fd >= 0);
	assert_int_equal(hgm_sys->ftruncate(fd, (pages + 1) * M2), 0);
	if (!hgm_sys->mmap(&at, NULL, (pages + 1) * M2, PROT_WRITE, MAP_SHARED, fd, 0)) {
		hgm_sys->munmap(at, (pages + 1) * M2);
		wrong = "more than there is was promised";
	} else if (hgm_sys->mmap(&at, NULL, pages * M2, PROT_WRITE, MAP_SHARED, fd, 0)) {
		wrong = "what was free could not be promised";
	} else {
		assert_int_equal(hgm_sys->mmap(&lazy, NULL, M2, PROT_READ | PROT_WRITE,
					       MAP_SHARED | MAP_NORESERVE, fd, pages * M2),
				 0);
		if (hgm_sys->madvise(lazy, M2, HGM_MADV_POPULATE_WRITE) != -EFAULT)
			wrong = "somebody had what was promised to another";
		if (hgm_sys->madvise(at, M2, HGM_MADV_POPULATE_WRITE))
			wrong = "what was promised could not be had";
		hgm_sys->munmap(lazy, M2);
		hgm_sys->munmap(at, pages * M2);
	}
	hgm_sys->close(fd);
	return wrong;
}

static bool holds(const struct model_pool *p, uint64_t free, uint64_t promised)
{
	return p->free == free && p->promised == promised;
}

static const char *pools_once(void)
{
	struct model_pool before = pool_now(M2), now;
	const char *wrong = NULL;

	scene(M2, 2);
	now = pool_now(M2);
	if (!holds(&now, before.free, before.promised + 2)) /* once for both mappings */
		wrong = "of two pages, mapped twice, two are not promised";
	s.primary[0] = 1;
	s.alias[1] = 1;
	now = pool_now(M2);
	if (!wrong && !holds(&now, before.free - 1, before.promised + 1))
		wrong = "of two promised pages one is not taken";
	if (!wrong)
		wrong = promise_the_rest(now.free - now.promised);
	scene_end();
	now = pool_now(M2);
	if (!wrong && !holds(&now, before.free, before.promised))
		wrong = "not all was given back";
	return wrong;
}

/* Other programs use the machine's pools too: there, one try without them must succeed. */
static void pools(void **state)
{
	unsigned int tries = on_linux() ? 200 : 1;
	const char *wrong = "";

	(void)state;
	needs_pages(M2, 4);
	while (wrong && tries--) {
		wrong = pools_once();
		if (wrong && tries)
			usleep(1000);
	}
	if (wrong)
		fail_msg("%s", wrong);
}

static int count_regions(uint64_t category, uint64_t len, uint64_t *bytes)
{
	struct hgm_pm_region r[8];
	int fd = hgm_sys->open("/proc/self/pagemap", 0);
	uint64_t end;
	int n = hgm_sys->pagemap_scan(fd, s.primary, s.primary + len, category, r, 8, &end);

	*bytes = 0;
	for (int i = 0; i < n; i++)
		*bytes += r[i].end - r[i].start;
	hgm_sys->close(fd);
	return n;
}

static void pagemap_scan(void **state)
{
	uint64_t bytes, word[2] = { 0 };
	int fd;

	(void)state;
	scene(M2, 4);
	s.primary[0] = 1;
	s.primary[2 * M2] = 1;
	assert_int_equal(count_regions(HGM_PAGE_IS_HUGE, s.len, &bytes), 1);
	assert_int_equal(bytes, s.len); /* holes too */
	assert_int_equal(count_regions(HGM_PAGE_IS_PRESENT, s.len, &bytes), 2);
	assert_int_equal(bytes, 2 * M2);
	assert_int_equal(count_regions(HGM_PAGE_IS_PRESENT, 3 * K4, &bytes), 1);
	assert_int_equal(bytes, 3 * K4);
	fd = hgm_sys->open("/proc/self/pagemap", 0);
	assert_int_equal(hgm_sys->pread(fd, word, 16, ((uintptr_t)s.primary + M2 - K4) / K4 * 8),
			 16);
	assert_true(word[0] >> 63);
	assert_false(word[1] >> 63);
	hgm_sys->close(fd);
}

static void kind_of_file(void **state)
{
	struct hgm_file_kind kind;

	(void)state;
	scene(M2, 2);
	assert_int_equal(hgm_sys->file_kind(s.fd, &kind), 0);
	assert_int_equal(kind.fs_magic, 0x958458f6);
	assert_int_equal(kind.fs_block_bytes, M2);
	assert_int_equal(kind.size, 2 * M2);
	assert_int_equal(hgm_sys->write(s.fd, "x", 1), -EINVAL);
}

#define BOTH(f) ON("linux", f), ON("stock", f)

static const struct CMUnitTest tests[] = {
	BOTH(address_is_rounded_to_the_huge_page),
	BOTH(address_is_exact),
	BOTH(continue_takes_whole_huge_pages),
	BOTH(continue_1g),
	BOTH(continue_beyond_the_end),
	BOTH(exist_wakes_nobody),
	BOTH(queued_at_the_base),
	BOTH(unregister_and_waiters),
	BOTH(close_releases),
	BOTH(missing_only_maps_the_cache),
	BOTH(minor_only_fills_with_zero),
	BOTH(other_verbs),
	BOTH(continue_drops_a_marker),
	BOTH(poison),
	BOTH(registration),
	BOTH(whole_huge_pages_everywhere),
	BOTH(no_split_no_collapse),
	BOTH(pools),
	BOTH(pagemap_scan),
	BOTH(kind_of_file),
};

TEST_MAIN(tests)
