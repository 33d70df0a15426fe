/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The choice of memory. Each candidate is forced by taking something away from the kernel, or by
 * the caller's request. The region then reports what it is, and why it is nothing better. An
 * impossible request is refused before anything is allocated.
 */
#include "caps/caps.h"
#include "caps/choice.h"
#include "harness.h"
#include "kernel/sys.h"

#include <errno.h>
#include <sys/mman.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(4 * MIB)

static const struct contents contents = { .seed = 31 };
static const struct hgm_sys *before;
static struct hgm_sys sys;

/* What this kernel is made to lack. */
static struct {
	uint64_t features;
	bool collapse;
	bool room; /* for a second mapping of the same memory */
	const char *cgroup_limit;
	_Atomic unsigned int allocations;
} lack;

static int lacking_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	int rc = *features & lack.features ? -EINVAL : before->uffd_api(fd, features, ioctls);

	*features &= ~lack.features;
	return rc;
}

static int lacking_madvise(void *addr, uint64_t len, int advice)
{
	if (lack.collapse && advice == HGM_MADV_COLLAPSE)
		return -EINVAL;
	return before->madvise(addr, len, advice);
}

/* A cgroup that has used nothing of @cgroup_limit, and must not swap. */
static int lacking_open(const char *path, int flags)
{
	const char *files[][2] = {
		{ "/proc/self/cgroup", "0::/hgm-test\n" },
		{ "/sys/fs/cgroup/hgm-test/memory.max", lack.cgroup_limit },
		{ "/sys/fs/cgroup/hgm-test/memory.swap.max", "0\n" },
	};
	int fd;

	for (unsigned int i = 0; lack.cgroup_limit && i < sizeof(files) / sizeof(files[0]); i++) {
		if (strcmp(path, files[i][0]) != 0)
			continue;
		fd = before->memfd_create("cgroup", 0);
		assert_true(fd >= 0);
		assert_true(before->write(fd, files[i][1], strlen(files[i][1])) > 0);
		assert_int_equal(before->lseek(fd, 0, SEEK_SET), 0);
		return fd;
	}
	return before->open(path, flags);
}

static int counting_memfd_create(const char *name, unsigned int flags)
{
	lack.allocations++;
	return before->memfd_create(name, flags);
}

static int counting_mmap(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
			 uint64_t offset)
{
	static int last_flags; /* of a region's memory */

	lack.allocations++;
	if (lack.room && len >= LENGTH && prot == PROT_NONE && last_flags & MAP_FIXED &&
	    last_flags & MAP_SHARED) {
		last_flags = 0;
		return -ENOMEM;
	}
	if (len >= LENGTH)
		last_flags = flags;
	return before->mmap(out, addr, len, prot, flags, fd, offset);
}

static int set_up(void **state)
{
	(void)state;
	watch("the choice", 60);
	before = hgm_sys;
	sys = *before;
	sys.uffd_api = lacking_api;
	sys.madvise = lacking_madvise;
	sys.open = lacking_open;
	sys.memfd_create = counting_memfd_create;
	sys.mmap = counting_mmap;
	lack.features = 0;
	lack.collapse = lack.room = false;
	lack.cgroup_limit = NULL;
	hgm_sys = &sys;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	hgm_sys = before;
	calm();
	return 0;
}

static struct hgm_region_opts wish(void)
{
	return (struct hgm_region_opts){ .size = sizeof(struct hgm_region_opts),
					 .length = LENGTH,
					 .fd = -1 };
}

/* A region with these options is @backing, mapped by @map_bytes, and its sentence says @why. */
static void becomes(struct hgm_region_opts o, uint32_t backing, uint64_t map_bytes, const char *why)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, o.length);
	struct hgm *h = engine(1);
	struct hgm_region_info info;
	struct hgm_region *r;
	uint8_t value;

	o.source = provider_source(provider);
	assert_ok(hgm_region_create(&r, h, &o));
	info = info_of(r);
	if (info.backing != backing || info.map_bytes != map_bytes || !strstr(info.sentence, why))
		fail_msg("backing %u instead of %u, pieces of %llu instead of %llu, '%s' in: %s",
			 info.backing, backing, (unsigned long long)info.map_bytes,
			 (unsigned long long)map_bytes, why, info.sentence);
	assert_ok(hgm_start(h));
	assert_int_equal(touch((char *)info.addr + LENGTH / 2, &value), 0);
	if (o.length == LENGTH) {
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_pages(&contents, 0, LENGTH / PAGE, info.addr);
	}
	hgm_destroy(h);
	provider_free(provider);
}

/* The region is refused with @count reasons. If @early, nothing was allocated. */
static void is_refused(struct hgm_region_opts o, int want, unsigned int count, bool early)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, o.length);
	struct hgm *h = engine(1);
	struct holdings held = take_holdings();
	struct hgm_region *r = NULL;
	unsigned int reasons = 1;

	o.source = provider_source(provider);
	lack.allocations = 0;
	assert_error(hgm_region_create(&r, h, &o), want);
	assert_null(r);
	for (const char *at = hgm_errmsg(); (at = strstr(at, "; ")); at += 2)
		reasons++;
	if (reasons < count)
		fail_msg("%u reasons instead of %u: %s", reasons, count, hgm_errmsg());
	if (early)
		assert_int_equal(lack.allocations, 0);
	assert_same_holdings(&held);
	hgm_destroy(h);
	provider_free(provider);
}

static bool has_hgm(void)
{
	return !before->madvise(NULL, 0, HGM_MADV_SPLIT) || hgm_probe_bit13_is_hgm();
}

static void first_choice(void **state)
{
	(void)state;
	if (has_hgm())
		becomes(wish(), HGM_BACKING_HUGETLB, PAGE, "high-granularity");
	else
		becomes(wish(), HGM_BACKING_SHMEM, PAGE, "MADV_SPLIT");
}

static void hgm_is_not_wanted(void **state)
{
	struct hgm_region_opts o = wish();

	(void)state;
	o.avoid = HGM_AVOID_HGM;
	becomes(o, HGM_BACKING_SHMEM, PAGE, "HGM_AVOID_HGM");
	o.require = HGM_REQUIRE_HUGETLB;
	if (backing_lacking(BACKING_HUGETLB_2M, LENGTH))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, LENGTH));
	becomes(o, HGM_BACKING_HUGETLB, 2 * MIB, "HGM_AVOID_HGM");
}

static void no_exact_address(void **state)
{
	struct hgm_region_opts o = wish();

	(void)state;
	lack.features = HGM_UFFD_FEATURE_EXACT_ADDRESS;
	becomes(o, HGM_BACKING_SHMEM, PAGE, "EXACT_ADDRESS");
}

static void no_collapse(void **state)
{
	struct hgm_region_opts o = wish();

	(void)state;
	lack.collapse = true;
	becomes(o, HGM_BACKING_SHMEM_LAZY, PAGE, "MADV_COLLAPSE");
	/* A caller that names a backing gets it. */
	o.backing = HGM_BACKING_SHMEM;
	becomes(o, HGM_BACKING_SHMEM, PAGE, "0 of 2 blocks are prepared");
	o.require = HGM_REQUIRE_HUGE;
	is_refused(o, -EOPNOTSUPP, 1, false);
	o.backing = HGM_BACKING_ANON;
	is_refused(o, -EOPNOTSUPP, 1, false);
	o.backing = HGM_BACKING_AUTO;
	if (backing_lacking(BACKING_HUGETLB_2M, LENGTH))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, LENGTH));
	becomes(o, HGM_BACKING_HUGETLB, 2 * MIB, "shmem lazy: ");
}

static void no_minor_shmem(void **state)
{
	struct hgm_region_opts o = wish();

	(void)state;
	lack.features = HGM_UFFD_FEATURE_MINOR_SHMEM;
	o.avoid = HGM_AVOID_HGM;
	if (!backing_lacking(BACKING_HUGETLB_2M, LENGTH))
		becomes(o, HGM_BACKING_HUGETLB, 2 * MIB, "MINOR_SHMEM");
	o.map_bytes_max = PAGE;
	becomes(o, HGM_BACKING_ANON, PAGE, "faults wait for 2048 kB");
	o.map_bytes_max = 0;
	o.avoid = HGM_AVOID_HUGETLB;
	becomes(o, HGM_BACKING_ANON, PAGE, "HGM_AVOID_HUGETLB");
	o.require = HGM_REQUIRE_SHARED;
	is_refused(o, -EOPNOTSUPP, HGM_CANDIDATES, true);
	lack.features |= HGM_UFFD_FEATURE_MINOR_HUGETLBFS;
	o = wish();
	becomes(o, HGM_BACKING_ANON, PAGE, "MINOR_HUGETLBFS");
	o.backing = HGM_BACKING_HUGETLB;
	is_refused(o, -EOPNOTSUPP, 2, true);
	o.backing = HGM_BACKING_SHMEM_LAZY;
	is_refused(o, -EOPNOTSUPP, 1, true);
}

static void nothing_committed(void **state)
{
	struct hgm_region_opts o = wish();

	(void)state;
	o.avoid = HGM_AVOID_COMMIT;
	becomes(o, HGM_BACKING_SHMEM_LAZY, PAGE, "HGM_AVOID_COMMIT");
	o.require = HGM_REQUIRE_HUGETLB;
	is_refused(o, -EOPNOTSUPP, HGM_CANDIDATES, true);
	o = wish();
	o.avoid = HGM_AVOID_COMMIT;
	o.backing = HGM_BACKING_SHMEM;
	is_refused(o, -EOPNOTSUPP, 1, true);
}

/* Whole blocks only, mapped by pages, are impossible on a kernel without HGM. */
static void impossible(void **state)
{
	struct hgm_region_opts o = wish();

	(void)state;
	o.require = HGM_REQUIRE_HUGETLB;
	o.map_bytes_max = PAGE;
	o.avoid = HGM_AVOID_HGM;
	is_refused(o, -EOPNOTSUPP, HGM_CANDIDATES, true);
	o.backing = HGM_BACKING_HUGETLB;
	is_refused(o, -EOPNOTSUPP, 2, true);
	o.map_bytes_max = 2 * MIB;
	if (backing_lacking(BACKING_HUGETLB_2M, LENGTH))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, LENGTH));
	becomes(o, HGM_BACKING_HUGETLB, 2 * MIB, "whole block");
}

/* More than the pool has leads to the next candidate, and the pool is reported as the reason. */
static void pool_is_dry(void **state)
{
	struct hgm_region_opts o = wish();

	(void)state;
	lack.features = HGM_UFFD_FEATURE_MINOR_SHMEM;
	o.length = 64 * GIB;
	becomes(o, HGM_BACKING_ANON, PAGE, "huge pages");
	o.require = HGM_REQUIRE_HUGETLB;
	is_refused(o, -ENOMEM, HGM_CANDIDATES, false);
}

/* The primary fits into the address space, but its alias does not. An anonymous region says so. */
static void no_room_for_the_alias(void **state)
{
	struct hgm_region_opts o = wish();

	(void)state;
	lack.room = true;
	becomes(o, HGM_BACKING_ANON, PAGE, "shmem lazy: no address space for the alias, 4194304");
	becomes(o, HGM_BACKING_ANON, PAGE, "use shorter regions");
	o.require = HGM_REQUIRE_SHARED;
	is_refused(o, -ENOMEM, HGM_CANDIDATES, false);
	o.backing = HGM_BACKING_SHMEM;
	is_refused(o, -ENOMEM, 1, false);
}

/* A memory cgroup would have the process killed, so its limit is checked first. */
static void cgroup_is_small(void **state)
{
	struct hgm_region_opts o = wish();

	(void)state;
	o.avoid = HGM_AVOID_HGM;
	lack.cgroup_limit = "3145728\n";
	becomes(o, HGM_BACKING_SHMEM_LAZY, PAGE, "the memory cgroup allows 3 MiB");
	o.backing = HGM_BACKING_SHMEM;
	is_refused(o, -ENOMEM, 1, false);
	assert_non_null(strstr(hgm_errmsg(), "the memory cgroup allows 3 MiB"));
	lack.cgroup_limit = "4194304\n";
	becomes(o, HGM_BACKING_SHMEM, PAGE, "shmem");
	o.backing = HGM_BACKING_AUTO;
	becomes(o, HGM_BACKING_SHMEM, PAGE, "shmem");
}

static void odd_lengths_and_blocks(void **state)
{
	struct hgm_region_opts o = wish();

	(void)state;
	o.length = 2 * MIB + PAGE;
	o.require = HGM_REQUIRE_HUGETLB;
	is_refused(o, -EOPNOTSUPP, HGM_CANDIDATES, true);
	o.backing = HGM_BACKING_HUGETLB;
	is_refused(o, -EINVAL, 2, true);
	o = wish();
	o.block_bytes = GIB;
	is_refused(o, -EINVAL, HGM_CANDIDATES, true); /* 4 MiB is no block of 1 GiB */
	o.block_bytes = 3 * MIB;
	is_refused(o, -EINVAL, HGM_CANDIDATES, true);
}

static void contradictions(void **state)
{
	struct hgm_region_opts o = wish();

	(void)state;
	o.map_bytes_max = 3 * PAGE;
	is_refused(o, -EINVAL, 1, true);
	o.map_bytes_max = PAGE / 2;
	is_refused(o, -EINVAL, 1, true);
	o = wish();
	o.require = 0x80;
	is_refused(o, -EINVAL, 1, true);
	o = wish();
	o.avoid = 0x80;
	is_refused(o, -EINVAL, 1, true);
	o = wish();
	o.flags = HGM_REGION_NO_COLLAPSE;
	o.require = HGM_REQUIRE_HUGE;
	is_refused(o, -EINVAL, 1, true);
	o = wish();
	o.flags = HGM_REGION_NO_COLLAPSE | HGM_REGION_DEFER_COLLAPSE;
	is_refused(o, -EINVAL, 1, true);
	o = wish();
	o.backing = HGM_BACKING_SHMEM;
	o.require = HGM_REQUIRE_HUGETLB;
	is_refused(o, -EOPNOTSUPP, 1, true);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(first_choice),   CASE(hgm_is_not_wanted),	   CASE(no_exact_address),
	CASE(no_collapse),    CASE(no_minor_shmem),	   CASE(nothing_committed),
	CASE(impossible),     CASE(pool_is_dry),	   CASE(odd_lengths_and_blocks),
	CASE(contradictions), CASE(no_room_for_the_alias), CASE(cgroup_is_small),
};

TEST_MAIN(tests)
