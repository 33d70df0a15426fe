/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading /proc/self/smaps: fields are found by name, in any column, wherever reads end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/sys.h"
#include "test.h"
#include "uffd/smaps.h"

#define FD 9

static struct fake {
	const char *text;
	size_t length;
	size_t at;
	size_t border; /* a read ends here */
	size_t most;   /* bytes per read */
	int open_error;
	int error; /* of a read after the text */
	unsigned int interrupts;
	unsigned int opened, closed, reads;
} fake;

static int fake_open(const char *path, int flags)
{
	(void)flags;
	assert_string_equal(path, "/proc/self/smaps");
	if (fake.open_error)
		return fake.open_error;
	fake.opened++;
	fake.at = 0;
	return FD;
}

static int fake_close(int fd)
{
	assert_int_equal(fd, FD);
	fake.closed++;
	return 0;
}

static ssize_t fake_read(int fd, void *buf, size_t len)
{
	size_t n = fake.length - fake.at;

	assert_int_equal(fd, FD);
	fake.reads++;
	if (fake.interrupts) {
		fake.interrupts--;
		return -EINTR;
	}
	if (!n)
		return fake.error;
	n = n < len ? n : len;
	n = n < fake.most ? n : fake.most;
	if (fake.at < fake.border && fake.at + n > fake.border)
		n = fake.border - fake.at;
	memcpy(buf, fake.text + fake.at, n);
	fake.at += n;
	return (ssize_t)n;
}

static const struct hgm_sys fake_sys = {
	.open = fake_open,
	.close = fake_close,
	.read = fake_read,
};

static int set_up(void **state)
{
	(void)state;
	fake = (struct fake){ .most = SIZE_MAX };
	hgm_sys = &fake_sys;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	hgm_sys = &hgm_sys_linux;
	return fake.opened == fake.closed ? 0 : -1;
}

static struct hgm_smaps sum(const char *text, uintptr_t start, uintptr_t end)
{
	struct hgm_smaps out;

	fake.text = text;
	fake.length = strlen(text);
	assert_int_equal(hgm_smaps_sum((void *)start, end - start, &out), 0);
	return out;
}

/* An ordinary area, two of an HGM kernel, one of shmem, one of anonymous memory. */
static const char some[] =
	"00010000-00011000 r--p 00000000 fe:01 1234                    /usr/bin/with a space: kB\n"
	"Size:                  4 kB\n"
	"HugetlbPteMapped:        0 kB\n"
	"AnonHugePages:      4096 kB\n"
	"VmFlags: rd mr mw me sd \n"
	"00200000-00400000 rw-s 00000000 00:0f 1027      /memfd:guest (deleted)\n"
	"Size:                     2048 kB\n"
	"Rss:                         0 kB\n"
	"AnonHugePages:               0 kB\n"
	"ShmemPmdMapped:              0 kB\n"
	"HugetlbPudMapped:            0 kB\n"
	"HugetlbPmdMapped:         2048 kB\n"
	"HugetlbPteMapped:\t0 kB\n"
	"Shared_Hugetlb:           1024 kB\n"
	"Private_Hugetlb:          1024 kB\n"
	"THPeligible:    0\n"
	"VmFlags: rd wr sh mr mw me ms de ht ui hm \n"
	"00400000-00600000 rw-s 00200000 00:0f 1027      /memfd:guest (deleted)\n"
	"HugetlbPudMapped: 0 kB\n"
	"HugetlbPmdMapped: 0 kB\n"
	"HugetlbPteMapped: 2044 kB\n"
	"Shared_Hugetlb: 2044 kB\n"
	"VmFlags: rd wr sh mr mw me ms de ht ui hm\n"
	"00800000-00a00000 rw-s 00000000 00:01 55   /dev/zero (deleted)\n"
	"ShmemPmdMapped:     2048 kB\n"
	"VmFlags: rd wr sh mr mw me ms sd \n"
	"7f0000000000-7f0000400000 rw-p 00000000 00:00 0 \n"
	"AnonHugePages:      2048 kB\n"
	"VmFlags: rd wr mr mw me ac sd \n"
	"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
	"AnonHugePages:        4 kB\n"
	"VmFlags: ex \n";

#define KIB(n) ((uint64_t)(n) << 10)

static void assert_the_two(const struct hgm_smaps *s)
{
	assert_int_equal(s->mapped_bytes, KIB(4096));
	assert_int_equal(s->areas, 2);
	assert_int_equal(s->pud, 0);
	assert_int_equal(s->pmd, KIB(2048));
	assert_int_equal(s->pte, KIB(2044));
	assert_int_equal(s->hugetlb, KIB(4092));
	assert_int_equal(s->shmem_pmd, 0);
	assert_int_equal(s->anon_huge, 0);
	assert_true(s->has_leaf_counters && s->all_hm && s->any_hm && !s->partial);
}

static void ranges_are_summed(void **state)
{
	struct hgm_smaps s = sum(some, 0x200000, 0x600000);

	(void)state;
	assert_the_two(&s);
	s = sum(some, 0x1ff000, 0x601000); /* into holes */
	assert_the_two(&s);
	s = sum(some, 0x800000, 0xa00000);
	assert_int_equal(s.shmem_pmd, KIB(2048));
	assert_true(!s.has_leaf_counters && !s.all_hm && !s.any_hm);
	s = sum(some, 0x400000, 0xa00000);
	assert_int_equal(s.mapped_bytes, KIB(4096));
	assert_int_equal(s.shmem_pmd, KIB(2048));
	assert_true(s.any_hm && !s.all_hm && s.has_leaf_counters);
	s = sum(some, 0x10000, UINTPTR_MAX);
	assert_int_equal(s.areas, 6);
	assert_int_equal(s.anon_huge, KIB(4096 + 2048 + 4));
	s = sum(some, 0x600000, 0x800000);
	assert_int_equal(s.areas, 0);
	assert_true(!s.all_hm && !s.partial && !s.mapped_bytes);
	s = sum(some, 0xffffffffff600000, 0xffffffffff601000);
	assert_int_equal(s.anon_huge, KIB(4));
}

static void areas_that_lie_inside_in_part(void **state)
{
	struct hgm_smaps s = sum(some, 0x201000, 0x600000);

	(void)state;
	assert_true(s.partial && s.all_hm && s.has_leaf_counters);
	assert_int_equal(s.mapped_bytes, KIB(4092));
	assert_int_equal(s.pmd, 0);
	assert_int_equal(s.pte, KIB(2044));
	s = sum(some, 0x200000, 0x401000);
	assert_true(s.partial);
	assert_int_equal(s.pmd, KIB(2048));
	assert_int_equal(s.pte, 0);
}

static struct hgm_smaps one_by_one(const struct hgm_smaps_range *range)
{
	return sum(some, (uintptr_t)range->start, (uintptr_t)range->end);
}

/* One walk gives the same result as one walk for each range. */
static void several_ranges(void **state)
{
	static const uint64_t borders[] = { 0x1000,
					    0x10000,
					    0x10800,
					    0x11000,
					    0x200000,
					    0x201000,
					    0x400000,
					    0x600000,
					    0x700000,
					    0x800000,
					    0x900000,
					    0xa00000,
					    0x10000000,
					    0x7f0000000000,
					    0x7f0000200000,
					    0x7f0000400000,
					    0xffffffffff600000,
					    0xffffffffff601000 };
	enum {
		BORDERS = sizeof(borders) / sizeof(borders[0])
	};
	struct hgm_smaps_range range[BORDERS];
	uint64_t random = 11;

	(void)state;
	for (unsigned int round = 0; round < 2000; round++) {
		unsigned int n = 0;

		for (unsigned int i = 0; i + 1 < BORDERS; i++) {
			random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
			if (n && range[n - 1].end > borders[i])
				continue;
			if (random >> 62)
				range[n++] = (struct hgm_smaps_range){
					.start = borders[i],
					.end = borders[i + 1 +
						       (random >> 40) % 3 % (BORDERS - 1 - i)],
				};
		}
		fake.at = 0;
		fake.text = some;
		fake.length = sizeof(some) - 1;
		assert_int_equal(hgm_smaps_sums(range, n), 0);
		for (unsigned int i = 0; i < n; i++) {
			struct hgm_smaps alone = one_by_one(&range[i]);

			assert_memory_equal(&alone, &range[i].sum, sizeof(alone));
		}
	}
}

static void reads_end_anywhere(void **state)
{
	struct hgm_smaps s;

	(void)state;
	for (size_t i = 0; i < sizeof(some); i++) {
		fake.border = i;
		s = sum(some, 0x200000, 0x600000);
		assert_the_two(&s);
	}
	fake.border = 0;
	fake.most = 1;
	s = sum(some, 0x200000, 0x600000);
	assert_the_two(&s);
	fake.interrupts = 3;
	s = sum(some, 0x200000, 0x600000);
	assert_the_two(&s);
}

/* A number without its end must not be believed. */
static void the_file_ends_anywhere(void **state)
{
	struct hgm_smaps s;

	(void)state;
	fake.text = some;
	for (fake.length = 0; fake.length < sizeof(some); fake.length++) {
		assert_int_equal(hgm_smaps_sum((void *)0x200000, 0x400000, &s), 0);
		assert_true(s.pmd == 0 || s.pmd == KIB(2048));
		assert_true(s.pte == 0 || s.pte == KIB(2044));
		assert_true(s.hugetlb == 0 || s.hugetlb == KIB(1024) || s.hugetlb == KIB(2048) ||
			    s.hugetlb == KIB(4092));
		assert_true(s.areas <= 2);
		/* The second area without its flags is not marked. */
		assert_true(!s.all_hm || s.areas == 1 || s.pte == KIB(2044));
	}
}

static void reading_stops_behind_the_range(void **state)
{
	(void)state;
	fake.most = 64;
	sum(some, 0x10000, 0x11000);
	assert_true(fake.reads < 8);
}

static void odd_lines(void **state)
{
	static const char *const not_marked[] = {
		"VmFlags: hmx ahm hhmm h m HM\n",
		"VmFlags:\n",
		"VmFlags: \n",
		"VmFlagshm: hm\n",
		" VmFlags: hm\n",
		"hm\n",
		"Name: hm\n",
		"VmFlags: h",
		"VmFlags: rd hm", /* not known to be whole */
	};
	static const char *const no_number[] = {
		"HugetlbPteMapped: kB\n",
		"HugetlbPteMapped: -4 kB\n",
		"HugetlbPteMapped: 4\n",
		"HugetlbPteMapped: 4 MB\n",
		"HugetlbPteMapped: 4 kBx\n",
		"HugetlbPteMapped: a kB\n",
		"HugetlbPteMapped: 99999999999999999999999 kB\n",
		"HugetlbPteMapped: 18014398509481984 kB\n", /* 2^54 */
		"HugetlbPteMapped 4 kB\n",
		"XHugetlbPteMapped: 4 kB\n",
		"HugetlbPteMappedX: 4 kB\n",
		"HugetlbPteMapped: 4 kB", /* not known to be whole */
	};
	static const char *const no_area[] = {
		"1000-2000\n",	    "1000 2000 r--p\n",
		"1000-200g r--p\n", "-2000 r--p\n",
		"1000- r--p\n",	    "10000000000000000-10000000000002000 r--p\n",
		"\n\n\n",	    "",
	};
	struct hgm_smaps s;
	char text[256];

	(void)state;
	for (size_t i = 0; i < sizeof(not_marked) / sizeof(not_marked[0]); i++) {
		snprintf(text, sizeof(text), "1000-2000 rw-s 0 0 0\n%s", not_marked[i]);
		s = sum(text, 0x1000, 0x2000);
		assert_int_equal(s.areas, 1);
		if (s.all_hm || s.any_hm)
			fail_msg("'%s'", not_marked[i]);
	}
	for (size_t i = 0; i < sizeof(no_number) / sizeof(no_number[0]); i++) {
		snprintf(text, sizeof(text), "1000-2000 rw-s 0 0 0\n%s", no_number[i]);
		s = sum(text, 0x1000, 0x2000);
		if (s.has_leaf_counters || s.pte)
			fail_msg("'%s'", no_number[i]);
	}
	for (size_t i = 0; i < sizeof(no_area) / sizeof(no_area[0]); i++)
		assert_int_equal(sum(no_area[i], 1, UINTPTR_MAX).areas, 0);
	s = sum("VmFlags: hm\nHugetlbPteMapped: 4 kB\n", 0, UINTPTR_MAX);
	assert_true(!s.areas && !s.any_hm && !s.pte);
}

/* All flags that exist; a path that is too long for any line buffer. */
static void long_lines(void **state)
{
	static char text[20000];
	struct hgm_smaps s;
	int n;

	(void)state;
	n = sprintf(text, "1000-2000 rw-s 0 0 0 /");
	memset(text + n, 'p', 9000);
	n += 9000;
	n += sprintf(text + n, "\nHugetlbPteMapped: 4 kB\nVmFlags:");
	for (int i = 0; i < 63; i++)
		n += sprintf(text + n, " xx");
	sprintf(text + n, " hm\n");
	s = sum(text, 0x1000, 0x2000);
	assert_true(s.all_hm);
	assert_int_equal(s.pte, KIB(4));

	/* A word that becomes "hm" when the end of the buffer cuts it. */
	for (int pad = 235; pad < 260; pad++) {
		n = sprintf(text, "1000-2000 rw-s 0 0 0\nVmFlags:");
		memset(text + n, ' ', (size_t)pad);
		sprintf(text + n + pad, "hmx\n");
		assert_false(sum(text, 0x1000, 0x2000).any_hm);
	}
}

static void a_file_of_many_areas(void **state)
{
	enum {
		AREAS = 60000
	};
	char *text = malloc(AREAS * 96 + 1);
	struct hgm_smaps s;
	size_t n = 0;

	(void)state;
	assert_non_null(text);
	for (unsigned int i = 1; i <= AREAS; i++)
		n += (size_t)sprintf(
			text + n, "%x000-%x000 rw-s 0 0 0\nHugetlbPteMapped: 4 kB\nVmFlags: hm\n",
			i, i + 1);
	s = sum(text, 0x1000, UINTPTR_MAX);
	assert_int_equal(s.areas, AREAS);
	assert_int_equal(s.pte, KIB(4) * AREAS);
	assert_true(s.all_hm);
	free(text);
}

static void what_goes_wrong_is_told(void **state)
{
	struct hgm_smaps s;

	(void)state;
	fake.text = "";
	assert_int_equal(hgm_smaps_sum((void *)0x1000, 0, &s), -EINVAL);
	assert_int_equal(hgm_smaps_sum((void *)0x1000, UINT64_MAX, &s), -EINVAL);
	fake.open_error = -EACCES;
	assert_int_equal(hgm_smaps_sum((void *)0x1000, 4096, &s), -EACCES);
	fake.open_error = 0;
	fake.error = -EIO;
	assert_int_equal(hgm_smaps_sum((void *)0x1000, 4096, &s), -EIO);
	fake.interrupts = 1000000;
	assert_int_equal(hgm_smaps_sum((void *)0x1000, 4096, &s), -EINTR);
}

/* The running kernel's smaps. */
static void this_process(void **state)
{
	struct hgm_smaps s;
	static int here;

	(void)state;
	hgm_sys = &hgm_sys_linux;
	assert_int_equal(hgm_smaps_sum((void *)((uintptr_t)&here & ~UINT64_C(4095)), 4096, &s), 0);
	assert_int_equal(s.areas, 1);
	assert_int_equal(s.mapped_bytes, 4096);
	assert_false(s.any_hm);
	assert_int_equal(hgm_smaps_sum(NULL, UINT64_MAX, &s), 0);
	assert_true(s.areas > 5 && !s.all_hm);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(ranges_are_summed),
	CASE(areas_that_lie_inside_in_part),
	CASE(several_ranges),
	CASE(reads_end_anywhere),
	CASE(the_file_ends_anywhere),
	CASE(reading_stops_behind_the_range),
	CASE(odd_lines),
	CASE(long_lines),
	CASE(a_file_of_many_areas),
	CASE(what_goes_wrong_is_told),
	CASE(this_process),
};

TEST_MAIN(tests)
