/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Split, collapse, and counting huge mappings: the scan continues where the kernel stopped, and
 * ends when the kernel makes no progress.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>

#include <hgm/error.h>
#include <hgm/uffd.h>

#include "kernel/sys.h"
#include "random.h"
#include "test.h"

#define BASE   UINT64_C(0x7f0000000000)
#define MIB_2  (UINT64_C(2) << 20)
#define BLOCKS 200
#define FD     6
#define SMAPS  7

static struct {
	bool huge[BLOCKS];
	int open, madvise, scan; /* negative errno; 0: works */
	int advice;
	uint64_t most; /* blocks that one scan visits */
	bool stuck;    /* no progress: hugetlb and a range below its page */
	unsigned int scans;
	unsigned int opened, closed;
	const char *smaps;
} k;

static int fake_open(const char *path, int flags)
{
	assert_int_equal(flags & O_ACCMODE, O_RDONLY);
	if (k.open)
		return k.open;
	k.opened++;
	if (!strcmp(path, "/proc/self/smaps"))
		return SMAPS;
	assert_string_equal(path, "/proc/self/pagemap");
	return FD;
}

static int fake_close(int fd)
{
	assert_true(fd == FD || fd == SMAPS);
	k.closed++;
	return 0;
}

static ssize_t fake_read(int fd, void *buf, size_t len)
{
	size_t n = strlen(k.smaps);

	assert_int_equal(fd, SMAPS);
	n = n < len ? n : len;
	memcpy(buf, k.smaps, n);
	k.smaps += n;
	return (ssize_t)n;
}

static int fake_madvise(void *addr, uint64_t len, int advice)
{
	assert_int_equal((uintptr_t)addr, BASE);
	assert_int_equal(len, MIB_2);
	k.advice = advice;
	return k.madvise;
}

/* Adjacent blocks are one region. Reports at most as many regions as fit. */
static int fake_scan(int fd, const void *start, const void *end, uint64_t category,
		     struct hgm_pm_region *out, uint64_t out_len, uint64_t *walk_end)
{
	uint64_t at = (uintptr_t)start;
	uint64_t last = (uintptr_t)end;
	int n = 0;

	assert_int_equal(fd, FD);
	assert_int_equal(category, HGM_PAGE_IS_HUGE);
	assert_true(at >= BASE && at < last && last <= BASE + BLOCKS * MIB_2);
	k.scans++;
	if (k.scan)
		return k.scan;
	if (k.stuck) {
		*walk_end = at;
		return 0;
	}
	last = last < at + k.most * MIB_2 ? last : at + k.most * MIB_2;
	while (at < last) {
		uint64_t border = (at / MIB_2 + 1) * MIB_2;
		uint64_t to = border < last ? border : last;

		if (k.huge[(at - BASE) / MIB_2]) {
			if (n && out[n - 1].end == at) {
				out[n - 1].end = to;
			} else if ((uint64_t)n == out_len) {
				break;
			} else {
				out[n++] = (struct hgm_pm_region){ at, to, HGM_PAGE_IS_HUGE };
			}
		}
		at = to;
	}
	*walk_end = at;
	return n;
}

static const struct hgm_sys fake_sys = {
	.open = fake_open,
	.close = fake_close,
	.read = fake_read,
	.madvise = fake_madvise,
	.pagemap_scan = fake_scan,
};

static int begin(void **state)
{
	(void)state;
	memset(&k, 0, sizeof(k));
	k.most = BLOCKS;
	hgm_sys = &fake_sys;
	return 0;
}

static void says(const char *word)
{
	if (!strstr(hgm_errmsg(), word))
		fail_msg("\"%s\" does not say \"%s\"", hgm_errmsg(), word);
}

static int count(uint64_t addr, uint64_t len, uint64_t *bytes)
{
	return hgm_mapped_huge((void *)(uintptr_t)addr, len, bytes);
}

static void split_and_collapse(void **state)
{
	static const int refusals[] = { -EINVAL, -ENOMEM, -EBUSY, -EAGAIN };
	void *addr = (void *)(uintptr_t)BASE;

	(void)state;
	assert_int_equal(hgm_split(addr, MIB_2), 0);
	assert_int_equal(k.advice, HGM_MADV_SPLIT);
	assert_int_equal(hgm_collapse(addr, MIB_2), 0);
	assert_int_equal(k.advice, HGM_MADV_COLLAPSE);
	k.madvise = -EINVAL;
	assert_int_equal(hgm_split(addr, MIB_2), -EINVAL);
	says("MADV_SPLIT");
	says("high-granularity mapping");
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		k.madvise = refusals[i];
		assert_int_equal(hgm_collapse(addr, MIB_2), refusals[i]);
		says("MADV_COLLAPSE");
		says(strerrorname_np(-refusals[i]));
	}
}

static void huge_bytes_are_counted(void **state)
{
	struct random random = { random_seed() };

	(void)state;
	for (int round = 0; round < 2000; round++) {
		uint64_t first = random_below(&random, BLOCKS * 512 - 1);
		uint64_t pages = 1 + random_below(&random, BLOCKS * 512 - first);
		uint64_t expected = 0, bytes = 77;

		k.most = 1 + random_below(&random, BLOCKS);
		for (int i = 0; i < BLOCKS; i++)
			k.huge[i] = random_one_in(&random, 2);
		for (uint64_t p = first; p < first + pages; p++)
			expected += k.huge[p / 512] ? 4096 : 0;
		assert_int_equal(count(BASE + first * 4096, pages * 4096, &bytes), 0);
		assert_int_equal(bytes, expected);
	}
	assert_int_equal(k.opened, k.closed);
}

static void no_progress_is_no_endless_loop(void **state)
{
	uint64_t bytes;

	(void)state;
	k.stuck = true;
	assert_int_equal(count(BASE, 4096, &bytes), -EINVAL);
	assert_int_equal(k.scans, 1);
	assert_int_equal(k.closed, 1);
	says("PAGEMAP_SCAN");
}

static void failures(void **state)
{
	static const int errors[] = { -EMFILE, -EACCES, -ENOENT };
	uint64_t bytes;

	(void)state;
	k.scan = -EPERM;
	assert_int_equal(count(BASE, MIB_2, &bytes), -EPERM);
	says("EPERM");
	assert_int_equal(k.opened, 1);
	assert_int_equal(k.closed, 1);
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		k.open = errors[i];
		assert_int_equal(count(BASE, MIB_2, &bytes), k.open);
		says("/proc/self/pagemap");
		says(strerrorname_np(-k.open));
		assert_int_equal(k.closed, 1);
	}
}

/* Without PAGEMAP_SCAN, smaps shows counts of whole areas. */
static void smaps_instead(void **state)
{
	static const struct {
		const char *text;
		uint64_t kb;
	} cases[] = {
		{ "7f0000000000-7f0000400000 rw-s 0 00:01 9 /memfd:x\nShmemPmdMapped: 2048 kB\n",
		  2048 },
		{ "7f0000000000-7f0000400000 rw-p 0 00:00 0\nAnonHugePages: 4096 kB\n", 4096 },
		{ "7f0000000000-7f0000400000 rw-s 0 00:01 9 /memfd:x\nPrivate_Hugetlb: 2048 kB\n"
		  "Shared_Hugetlb: 2048 kB\n",
		  4096 },
		{ "7f0000000000-7f0000400000 rw-s 0 00:01 9 /memfd:x\nPrivate_Hugetlb: 4096 kB\n"
		  "HugetlbPudMapped: 0 kB\nHugetlbPmdMapped: 2048 kB\nHugetlbPteMapped: 8 kB\n",
		  2048 },
	};
	uint64_t bytes;

	(void)state;
	k.scan = -ENOTTY;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		k.smaps = cases[i].text;
		assert_int_equal(count(BASE, 2 * MIB_2, &bytes), 0);
		assert_int_equal(bytes, cases[i].kb << 10);
		k.smaps = cases[i].text; /* says nothing about half an area */
		assert_int_equal(count(BASE, MIB_2, &bytes), -EOPNOTSUPP);
		says("6.7");
	}
	assert_int_equal(k.opened, k.closed);
}

static void bad_ranges(void **state)
{
	uint64_t bytes;

	(void)state;
	assert_int_equal(count(BASE + 1, MIB_2, &bytes), -EINVAL);
	assert_int_equal(count(BASE, MIB_2 + 1, &bytes), -EINVAL);
	assert_int_equal(count(BASE, MIB_2, NULL), -EINVAL);
	assert_int_equal(count(BASE, -UINT64_C(4096), &bytes), -EINVAL); /* wraps around the end */
	assert_int_equal(k.opened, 0);
}

#define TEST(f) cmocka_unit_test_setup(f, begin)

static const struct CMUnitTest tests[] = {
	TEST(split_and_collapse),
	TEST(huge_bytes_are_counted),
	TEST(no_progress_is_no_endless_loop),
	TEST(failures),
	TEST(smaps_instead),
	TEST(bad_ranges),
};

TEST_MAIN(tests)
