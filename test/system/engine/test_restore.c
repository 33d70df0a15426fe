/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every kind of memory is restored from every kind of source, while threads touch it and write to
 * it. All bytes are right at every touch and at the end, and all that can be huge is huge.
 */
#include "harness.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define WAIT_MS SMALLER(20000, 100000)

static const struct contents contents = { .seed = 4711, .holes = true };

struct mode {
	unsigned int threads;
	uint32_t fault_threads;
	bool write;
	uint64_t step;
	uint32_t flags;
};

static const struct mode modes[] = {
	{ .threads = 1, .fault_threads = 1 },
	{ .threads = 8, .fault_threads = 2, .write = true },
	{ .threads = 2, .fault_threads = 1, .step = 2, .flags = HGM_REGION_NO_FILL },
};

/* The caller's own file has the same contents. */
static void assert_file(const struct ram *ram)
{
	uint8_t page[PAGE] __attribute__((aligned(8)));
	char why[160];

	if (ram->fd < 0)
		return;
	for (uint64_t p = 0; p < ram->length / PAGE; p++) {
		assert_int_equal(pread(ram->fd, page, PAGE, (off_t)(p * PAGE)), PAGE);
		if (!page_right(&contents, p, page, -1, why))
			fail_msg("in the caller's file: %s", why);
	}
}

static void restore(enum backing backing, uint64_t length, struct hgm_source *src,
		    const struct mode *m)
{
	struct hgm *h = engine(m->fault_threads);
	struct touchers touchers;
	struct plan plan = { .contents = &contents,
			     .pages = length / PAGE,
			     .step = m->step,
			     .write = m->write,
			     .passes = m->write ? 3 : 1 };
	struct ram ram;
	bool fill = !(m->flags & HGM_REGION_NO_FILL);

	ram_make(&ram, h, backing, length, src, m->flags);
	assert_true((uintptr_t)ram.addr % backing_block(backing) == 0);
	plan.addr = ram.addr;
	assert_ok(hgm_start(h));
	touchers_start(&touchers, m->threads, &plan);
	if (fill)
		assert_ok(hgm_wait(h, WAIT_MS));
	touchers_join(&touchers);
	assert_ok(hgm_wait(h, WAIT_MS));
	if (fill) {
		assert_int_equal(info_of(ram.region).present_bytes, length);
		assert_true(progress_of(h).complete);
		if (backing_can_be_huge(backing))
			assert_huge(&ram, backing);
		else
			assert_int_equal(info_of(ram.region).huge_bytes, length);
		assert_pages(&contents, 0, length / PAGE, ram.addr);
		assert_file(&ram);
	} else if (backing_can_be_huge(backing)) {
		assert_int_equal(info_of(ram.region).present_bytes,
				 (length / PAGE + m->step - 1) / m->step * PAGE);
	}
	ram_end(&ram);
	hgm_destroy(h);
}

/*
 * All sources and all modes. The length is some blocks, and a page where the backing allows it.
 * Where this takes long, each memory is tested with each source, and each mode with each memory and
 * with each source.
 */
static void restore_all(enum backing backing)
{
	uint64_t length = SMALLER(6, 2) * MIB + (backing < BACKINGS_SMALL ? PAGE : 0);
	const char *lacking = backing_lacking(backing, length);
	struct holdings before;

	if (lacking)
		test_skip("%s", lacking);
	before = take_holdings();
	for (int kind = 0; kind < PROVIDER_KINDS; kind++) {
		struct provider *provider =
			provider_make((enum provider_kind)kind, &contents, length);

		for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
			char what[100];

			if (SMALLER(false, (kind + (int)backing + (int)i) % 3))
				continue;
			snprintf(what, sizeof(what), "%s, %s, mode %zu", backing_names[backing],
				 provider_names[kind], i);
			watch(what, 60);
			restore(backing, length, provider_source(provider), &modes[i]);
			calm();
		}
		provider_free(provider);
	}
	assert_int_equal(take_holdings().descriptors, before.descriptors);
}

#define RESTORE(name, backing)                   \
	static void restore_##name(void **state) \
	{                                        \
		(void)state;                     \
		restore_all(backing);            \
	}

RESTORE(shmem, BACKING_SHMEM)
RESTORE(shmem_lazy, BACKING_SHMEM_LAZY)
RESTORE(anon, BACKING_ANON)
RESTORE(fd, BACKING_FD)
RESTORE(fd_lazy, BACKING_FD_LAZY)
RESTORE(mapping, BACKING_MAPPING)
RESTORE(mapping_lazy, BACKING_MAPPING_LAZY)
RESTORE(mapping_anon, BACKING_MAPPING_ANON)
RESTORE(hugetlb, BACKING_HUGETLB_2M)
RESTORE(fd_hugetlb, BACKING_FD_HUGETLB_2M)

/*
 * One gigabyte block. It is read once from each of the sources that need no gigabyte of their own.
 * Where that takes long, it is read only from the first one.
 */
static void restore_hugetlb_1g(void **state)
{
	static const enum provider_kind kinds[] = { PROVIDER_NOW, PROVIDER_LATER };
	const char *lacking = backing_lacking(BACKING_HUGETLB_1G, GIB);

	(void)state;
	if (lacking)
		test_skip("%s", lacking);
	for (size_t i = 0; i < SMALLER(sizeof(kinds) / sizeof(kinds[0]), 1); i++) {
		struct provider *provider = provider_make(kinds[i], &contents, GIB);
		struct mode m = { .threads = 8, .fault_threads = 2, .step = 4099 };

		watch("hugetlb 1 GiB", 60);
		restore(BACKING_HUGETLB_1G, GIB, provider_source(provider), &m);
		calm();
		provider_free(provider);
	}
}

static void lengths(void **state)
{
	const uint64_t each[] = { PAGE, 2 * MIB - PAGE, 2 * MIB + PAGE, SMALLER(64, 8) * MIB };
	struct provider *provider = provider_make(PROVIDER_MEMORY, &contents, each[3]);

	(void)state;
	for (int backing = 0; backing < BACKINGS_SMALL; backing++) {
		for (size_t i = 0; i < sizeof(each) / sizeof(each[0]); i++) {
			struct mode m = { .threads = 4, .fault_threads = 2, .write = true };

			watch(backing_names[backing], 60);
			restore((enum backing)backing, each[i], provider_source(provider), &m);
			calm();
		}
	}
	provider_free(provider);
}

/* Contents in memory that begin in the middle of a page and of a word, and a region within them. */
static void unaligned_memory(void **state)
{
	const uint64_t length = 4 * MIB, offset = 2 * PAGE;
	char *memory = malloc(length + offset + 3);

	(void)state;
	assert_non_null(memory);
	contents_write(&contents, 0, length / PAGE, memory);
	memmove(memory + 3 + offset, memory, length);
	for (int backing = 0; backing < BACKINGS_SMALL; backing++) {
		struct hgm *h = engine(1);
		struct hgm_source *src;
		struct ram ram;

		watch(backing_names[backing], 60);
		assert_ok(hgm_source_memory(&src, memory + 3, length + offset));
		assert_ok(ram_try(&ram, h, (enum backing)backing, length, src, offset, 0));
		hgm_source_destroy(src);
		assert_ok(hgm_start(h));
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_pages(&contents, 0, length / PAGE, ram.addr);
		ram_end(&ram);
		hgm_destroy(h);
		calm();
	}
	free(memory);
}

/* Several regions of different memory, several fault threads, and parts of one source. */
static void many_regions(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON,
						 BACKING_FD,	BACKING_MAPPING,    BACKING_SHMEM };
	enum {
		N = sizeof(backings) / sizeof(backings[0])
	};
	uint64_t length = 4 * MIB + PAGE;
	struct provider *provider = provider_make(PROVIDER_LATER, &contents, N * length);
	struct hgm *h = engine(4);
	struct touchers touchers[N];
	struct ram ram[N];

	(void)state;
	watch("many regions", 60);
	assert_ok(hgm_start(h));
	for (unsigned int i = 0; i < N; i++) {
		struct plan plan = { .contents = &contents,
				     .first_page = i * length / PAGE,
				     .pages = length / PAGE,
				     .write = true,
				     .passes = 2 };

		assert_ok(ram_try(&ram[i], h, backings[i], length, provider_source(provider),
				  i * length, 0));
		plan.addr = ram[i].addr;
		touchers_start(&touchers[i], 2, &plan);
	}
	for (unsigned int i = 0; i < N; i++)
		touchers_join(&touchers[i]);
	assert_ok(hgm_wait(h, WAIT_MS));
	for (unsigned int i = 0; i < N; i++) {
		assert_pages(&contents, i * length / PAGE, length / PAGE, ram[i].addr);
		assert_huge(&ram[i], backings[i]);
	}
	hgm_destroy(h);
	for (unsigned int i = 0; i < N; i++)
		ram_release(&ram[i]);
	provider_free(provider);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(restore_shmem),	cmocka_unit_test(restore_shmem_lazy),
	cmocka_unit_test(restore_anon),		cmocka_unit_test(restore_fd),
	cmocka_unit_test(restore_fd_lazy),	cmocka_unit_test(restore_mapping),
	cmocka_unit_test(restore_mapping_lazy), cmocka_unit_test(restore_mapping_anon),
	cmocka_unit_test(restore_hugetlb),	cmocka_unit_test(restore_fd_hugetlb),
	cmocka_unit_test(restore_hugetlb_1g),	cmocka_unit_test(lengths),
	cmocka_unit_test(unaligned_memory),	cmocka_unit_test(many_regions),
};

TEST_MAIN(tests)
