/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sequential fill makes the pages of a block present and leaves their mapping to its collapse. No
 * page is mapped twice, and none stays unmapped.
 */
#include "collapsing.h"
#include "kernel/sys.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define WAIT_MS	    SMALLER(20000, 100000)
#define SOON_MS	    SMALLER(5000, 20000)
#define BLOCK_PAGES 512

static const struct contents contents = { .seed = 121, .holes = true };

/*
 * Linux 6.1 collapses blocks later that MADV_COLLAPSE could not collapse at once: khugepaged unmaps
 * a huge page of the cache that small pages map. CONTINUE had mapped such a block, and it faults
 * again.
 */
static bool may_be_unmapped(uint64_t page, uint64_t pages)
{
	return !kernel_has(KERNEL_PAGEMAP_SCAN) &&
	       collapsing_continued(page / BLOCK_PAGES) >= pages;
}

/* Every page is mapped, so reading all of them causes no fault for the library. */
static void assert_mapped(const struct ram *ram, struct hgm *h, const char *what)
{
	uint64_t huge = huge_in_smaps(ram->addr, ram->length), all = ram->length / PAGE;

	for (uint64_t page = 0; page < all; page += BLOCK_PAGES) {
		uint64_t pages = all - page < BLOCK_PAGES ? all - page : BLOCK_PAGES;
		uint64_t faults = stats_of(h).faults;

		assert_pages(&contents, page, pages, ram->addr + page * PAGE);
		faults = stats_of(h).faults - faults;
		if (faults && !may_be_unmapped(page, pages))
			fail_msg("%s: %llu faults of block %llu, all of which had arrived, with "
				 "%llu KiB mapped huge",
				 what, (unsigned long long)faults,
				 (unsigned long long)(page / BLOCK_PAGES),
				 (unsigned long long)huge >> 10);
	}
}

static void assert_continued(uint64_t block, uint64_t want, const char *what)
{
	if (collapsing_continued(block) != want)
		fail_msg("%s: of block %llu CONTINUE mapped %llu pages instead of %llu", what,
			 (unsigned long long)block, (unsigned long long)collapsing_continued(block),
			 (unsigned long long)want);
}

static void fill(struct ram *ram, struct hgm *h, enum backing backing, uint64_t length,
		 const struct provider *provider, uint32_t flags)
{
	ram_make(ram, h, backing, length, provider_source(provider), flags);
	collapsing_watch(ram);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
}

/* An incomplete last block cannot be huge, and is mapped. The library's own is rounded up. */
static void maps_whole_blocks_by_collapse(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_FD, BACKING_MAPPING };
	static const enum provider_kind kinds[] = { PROVIDER_MEMORY, PROVIDER_LATER,
						    PROVIDER_SHORT };
	const uint64_t tail_pages = 100, length = 6 * MIB + tail_pages * PAGE;

	(void)state;
	for (unsigned int i = 0; i < 3 * 3; i++) {
		enum backing backing = backings[i / 3];
		bool rounded = backing == BACKING_SHMEM;
		uint64_t mapped = rounded ? 0 : tail_pages;
		struct provider *provider = provider_make(kinds[i % 3], &contents, length);
		struct hgm *h = engine(1);
		struct ram ram;

		fill(&ram, h, backing, length, provider, 0);
		for (uint64_t block = 0; block < 3; block++)
			assert_continued(block, 0, backing_names[backing]);
		assert_continued(3, mapped, backing_names[backing]);
		assert_int_equal(stats_of(h).installed_pages, mapped);
		assert_int_equal(info_of(ram.region).huge_bytes, rounded ? length : 6 * MIB);
		assert_mapped(&ram, h, backing_names[backing]);
		assert_int_equal(huge_in_smaps(ram.addr, length), rounded ? 8 * MIB : 6 * MIB);
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
	}
}

/* A block is mapped once its collapse is given up, not sooner. Its neighbours are collapsed. */
static void maps_what_is_left_split(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_FD, BACKING_MAPPING };
	static const int errors[] = { -EINVAL, -EAGAIN, -ENOMEM };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		struct provider *provider = provider_make(PROVIDER_MEMORY, &contents, 6 * MIB);
		struct hgm *h = engine(1);
		struct ram ram;

		ram_make(&ram, h, backings[i], 6 * MIB, provider_source(provider), 0);
		collapsing_watch(&ram);
		collapsing_refuse(1 << 1, errors[i], 1);
		assert_ok(hgm_start(h));
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_int_equal(info_of(ram.region).left_split, 1);
		assert_int_equal(info_of(ram.region).collapse_error, errors[i]);
		assert_int_equal(info_of(ram.region).huge_bytes, 4 * MIB);
		assert_continued(0, 0, backing_names[backings[i]]);
		assert_continued(1, BLOCK_PAGES, backing_names[backings[i]]);
		assert_continued(2, 0, backing_names[backings[i]]);
		assert_mapped(&ram, h, backing_names[backings[i]]);
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
	}
}

/* Kernels that need a page table first get one, and no block is tried in vain. */
static void makes_a_table(void **state)
{
	const uint64_t length = 16 * MIB;
	struct provider *provider = provider_make(PROVIDER_MEMORY, &contents, length);
	struct hgm *h = engine(1);
	uint64_t pages = 0;
	struct ram ram;

	(void)state;
	ram_make(&ram, h, BACKING_SHMEM, length, provider_source(provider), 0);
	collapsing_watch(&ram);
	collapsing_needs_a_page();
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	for (uint64_t block = 0; block < length / (2 * MIB); block++)
		pages += collapsing_continued(block);
	assert_int_equal(pages, 1);
	assert_int_equal(info_of(ram.region).left_split, 0);
	assert_int_equal(info_of(ram.region).huge_bytes, length);
	assert_mapped(&ram, h, "no table");
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

/* The same with the kernel's own rule: nothing else lies within 1 GiB of the region. */
static void collapses_far_from_all_else(void **state)
{
	const uint64_t length = 16 * MIB, gib = UINT64_C(1) << 30;
	struct provider *provider = provider_make(PROVIDER_MEMORY, &contents, length);
	char *room =
		mmap(NULL, 3 * gib, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *at = (char *)(((uintptr_t)room + 2 * gib - 1) & ~(gib - 1));
	struct hgm_region_opts opts = { .size = sizeof(opts),
					.length = length,
					.source = provider_source(provider),
					.backing = HGM_BACKING_MAPPING,
					.fd = memfd_create("far", MFD_CLOEXEC),
					.addr = at };
	struct hgm *h = engine(1);
	struct hgm_region *r;

	(void)state;
	assert_true(room != MAP_FAILED && opts.fd >= 0 && !ftruncate(opts.fd, (off_t)length));
	assert_true(mmap(at, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, opts.fd, 0) ==
		    at);
	assert_ok(hgm_region_create(&r, h, &opts));
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_int_equal(info_of(r).left_split, 0);
	assert_int_equal(info_of(r).huge_bytes, length);
	assert_pages(&contents, 0, length / PAGE, at);
	hgm_destroy(h);
	provider_free(provider);
	munmap(room, 3 * gib);
	close(opts.fd);
}

/* Without a collapse, or before a deferred one, pages are mapped as they arrive. */
static void maps_what_is_not_to_collapse(void **state)
{
	static const uint32_t flags[] = { HGM_REGION_NO_COLLAPSE, HGM_REGION_DEFER_COLLAPSE };

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct provider *provider = provider_make(PROVIDER_NOW, &contents, 4 * MIB);
		struct hgm *h = engine(1);
		struct ram ram;

		fill(&ram, h, BACKING_SHMEM, 4 * MIB, provider, flags[i]);
		assert_continued(0, BLOCK_PAGES, "not to collapse");
		assert_continued(1, BLOCK_PAGES, "not to collapse");
		assert_int_equal(huge_in_smaps(ram.addr, 4 * MIB), 0);
		assert_mapped(&ram, h, "not to collapse");
		if (flags[i] == HGM_REGION_DEFER_COLLAPSE) {
			assert_ok(hgm_region_collapse(ram.region));
			assert_ok(hgm_wait(h, WAIT_MS));
			assert_huge(&ram, BACKING_SHMEM);
		}
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
	}
}

static const struct hgm_sys *kernel;

static int no_device(const char *path, int flags)
{
	return strcmp(path, "/dev/userfaultfd") ? kernel->open(path, flags) : -EACCES;
}

static int user_mode_only(int flags)
{
	return flags & UFFD_USER_MODE_ONLY ? kernel->userfaultfd(flags) : -EPERM;
}

#define ARRIVED 100

static bool is_mapped(void *arg)
{
	(void)arg;
	return collapsing_continued(0) == ARRIVED;
}

/* Kernel faults are not served, so a system call must find pages that have arrived mapped. */
static void maps_for_system_calls(void **state)
{
	static struct hgm_sys lesser;
	struct provider *provider = provider_make(PROVIDER_NEVER, &contents, 2 * MIB);
	int fd = memfd_create("written", 0);
	uint64_t words[PAGE / sizeof(uint64_t)];
	struct ram ram;
	struct hgm *h;

	(void)state;
	kernel = hgm_sys;
	lesser = *kernel;
	lesser.open = no_device;
	lesser.userfaultfd = user_mode_only;
	hgm_sys = &lesser;
	h = engine_with((struct hgm_opts){ .fault_threads = 1, .flags = HGM_ALLOW_USER_MODE_ONLY });
	provider_answer_below(provider, ARRIVED);
	ram_make(&ram, h, BACKING_SHMEM, 2 * MIB, provider_source(provider), 0);
	collapsing_watch(&ram);
	assert_int_equal(info_of(ram.region).user_mode_only, 1);
	assert_ok(hgm_start(h));
	assert_true(eventually(is_mapped, NULL, SOON_MS));
	for (uint64_t page = 0; page < ARRIVED; page++) {
		assert_int_equal(pwrite(fd, ram.addr + page * PAGE, PAGE, 0), PAGE);
		assert_int_equal(pread(fd, words, PAGE, 0), PAGE);
		assert_pages(&contents, page, 1, words);
	}
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	close(fd);
	hgm_sys = kernel;
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, collapsing_set_up, collapsing_tear_down)

static const struct CMUnitTest tests[] = {
	CASE(maps_whole_blocks_by_collapse), CASE(maps_what_is_left_split),
	CASE(maps_what_is_not_to_collapse),  CASE(makes_a_table),
	CASE(collapses_far_from_all_else),   CASE(maps_for_system_calls),
};

TEST_MAIN(tests)
