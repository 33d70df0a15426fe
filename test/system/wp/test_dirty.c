/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty tracking loses no write. A copy that is updated with the pages it reports equals the memory
 * as soon as the writers stand still. This holds for every kind of memory, complete or still
 * arriving, both ways, while threads write as fast as they can. Tracking reports no more than was
 * written.
 */
#include "snapshotting.h"
#include "random.h"
#include "util/bits.h"

#include <errno.h>
#include <stdlib.h>

#define WAIT_MS SMALLER(20000, 100000)

static const struct contents contents = { .seed = 83, .holes = true };

struct track {
	struct ram ram;
	struct hgm *h;
	struct provider *provider;
	struct hgm_dirty *d;
	uint64_t pages;
	uint64_t *bitmap;
	char *copy;
};

static void begin(struct track *t, enum backing backing, uint64_t length, enum provider_kind kind,
		  bool complete)
{
	*t = (struct track){ .pages = length / PAGE };
	watch(backing_names[backing], 100);
	t->provider = provider_make(kind, &contents, length);
	t->h = engine(2);
	t->bitmap = calloc(hgm_bits_words(t->pages), sizeof(t->bitmap[0]));
	t->copy = malloc(length);
	contents_write(&contents, 0, t->pages, t->copy);
	ram_make(&t->ram, t->h, backing, length, provider_source(t->provider), 0);
	assert_ok(hgm_start(t->h));
	if (complete)
		assert_ok(hgm_wait(t->h, WAIT_MS));
}

static void end(struct track *t)
{
	hgm_dirty_stop(t->d);
	ram_end(&t->ram);
	hgm_destroy(t->h);
	provider_free(t->provider);
	free(t->bitmap);
	free(t->copy);
	calm();
}

static struct hgm_dirty_info dirty_info(struct hgm_dirty *d)
{
	struct hgm_dirty_info info = { .size = sizeof(info) };

	assert_ok(hgm_dirty_get_info(d, &info));
	return info;
}

static void start(struct track *t, uint32_t flags)
{
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = flags };

	assert_ok(hgm_dirty_start(&t->d, t->ram.region, &o));
}

static uint64_t collect(struct track *t)
{
	uint64_t dirty, counted = 0;

	assert_ok(hgm_dirty_collect(t->d, 0, t->pages, t->bitmap, &dirty));
	for (uint64_t w = 0; w < hgm_bits_words(t->pages); w++)
		counted += (uint64_t)__builtin_popcountll(t->bitmap[w]);
	assert_int_equal(counted, dirty);
	return dirty;
}

static void copy_page(struct track *t, uint64_t page)
{
	memcpy(t->copy + page * PAGE, t->ram.addr + page * PAGE, PAGE);
}

static void copy_dirty(struct track *t)
{
	for (uint64_t p = 0; p < t->pages; p++)
		if (t->bitmap[p / 64] >> p % 64 & 1)
			copy_page(t, p);
}

/* Copies only the pages that have arrived, so that no page is forced in. */
static void copy_all(struct track *t)
{
	assert_ok(hgm_region_export(t->ram.region, 0, t->pages, t->bitmap));
	copy_dirty(t);
}

/* Like a migration: copy everything, then dirty pages repeatedly, then the rest while paused. */
static void keep_a_copy(enum backing backing, uint64_t length, uint32_t flags,
			enum provider_kind kind, bool complete)
{
	struct random rnd = { random_seed() };
	struct writers writers;
	char *want = malloc(length);
	struct track t;

	begin(&t, backing, length, kind, complete);
	writers_start(&writers, &contents, t.ram.addr, t.pages);
	start(&t, flags);
	copy_all(&t);
	for (uint64_t i = 0; i < 5 + random_below(&rnd, 10); i++) {
		nap_us((unsigned int)random_below(&rnd, 3000));
		collect(&t);
		copy_dirty(&t);
	}
	writers_pause(&writers);
	collect(&t);
	copy_dirty(&t);
	writers_expect(&writers, want);
	assert_same(t.copy, want, t.pages, dirty_info(t.d).sentence);
	writers_resume(&writers);
	writers_end(&writers);
	free(want);
	end(&t);
}

static void no_write_is_lost(void **state)
{
	static const uint32_t ways[] = { 0, HGM_DIRTY_SYNC, HGM_DIRTY_SYNC | HGM_DIRTY_ARRIVALS };
	unsigned int turn = 0;

	(void)state;
	for (int backing = 0; backing < BACKINGS; backing++) {
		if (backing == BACKING_HUGETLB_1G)
			continue;
		if (backing_lacking((enum backing)backing, 8 * MIB))
			test_skip("%s", backing_lacking((enum backing)backing, 8 * MIB));
		for (unsigned int i = 0; i < 3; i++)
			if (turn_of(&turn, 5))
				keep_a_copy((enum backing)backing, SMALLER(8, 4) * MIB, ways[i],
					    PROVIDER_NOW, true);
		if (backing_block((enum backing)backing) == 2 * MIB && backing < BACKINGS_SMALL &&
		    turn_of(&turn, 5))
			keep_a_copy((enum backing)backing, SMALLER(8, 4) * MIB, HGM_DIRTY_EXACT,
				    PROVIDER_NOW, true);
	}
}

static void nor_while_memory_arrives(void **state)
{
	static const enum provider_kind kinds[] = { PROVIDER_LATER, PROVIDER_BLOCKING,
						    PROVIDER_SHORT };
	unsigned int turn = 0;

	(void)state;
	for (int backing = 0; backing < BACKINGS; backing++) {
		if (backing == BACKING_HUGETLB_1G ||
		    backing_lacking((enum backing)backing, 8 * MIB))
			continue;
		if (turn_of(&turn, 3))
			keep_a_copy((enum backing)backing, SMALLER(8, 4) * MIB, 0,
				    kinds[backing % 3], false);
		if (turn_of(&turn, 3))
			keep_a_copy((enum backing)backing, SMALLER(8, 4) * MIB, HGM_DIRTY_ARRIVALS,
				    kinds[(backing + 1) % 3], false);
	}
}

/* The copy is what memory must hold. */
static void write_some(struct track *t, struct random *rnd, uint64_t unit_pages, uint64_t *want)
{
	uint64_t offset;

	memset(want, 0, hgm_bits_words(t->pages) * sizeof(want[0]));
	for (unsigned int i = 0; i < 40; i++) {
		uint64_t page = random_below(rnd, t->pages);

		offset = page * PAGE + random_below(rnd, PAGE);
		*(volatile char *)(t->ram.addr + offset) += 1;
		t->copy[offset] += 1;
		for (uint64_t p = page / unit_pages * unit_pages;
		     p < (page / unit_pages + 1) * unit_pages && p < t->pages; p++)
			want[p / 64] |= UINT64_C(1) << p % 64;
	}
}

static void read_all(const struct track *t)
{
	assert_same(t->ram.addr, t->copy, t->pages, dirty_info(t->d).sentence);
}

/* Exactly the units that were written to are dirty. Reads and deferred collapses report nothing. */
static void only_what_was_written(void **state)
{
	static const uint32_t ways[] = { 0, HGM_DIRTY_EXACT, HGM_DIRTY_SYNC };
	struct random rnd = { random_seed() };

	(void)state;
	for (int backing = 0; backing < BACKINGS; backing++) {
		uint64_t words, length = 8 * MIB;

		if (backing == BACKING_HUGETLB_1G || backing_lacking((enum backing)backing, length))
			continue;
		for (unsigned int i = 0; i < 3; i++) {
			uint64_t *want, unit;
			struct track t;

			if (ways[i] == HGM_DIRTY_EXACT && backing >= BACKINGS_SMALL)
				continue;
			begin(&t, (enum backing)backing, length, PROVIDER_NOW, true);
			words = hgm_bits_words(t.pages);
			want = calloc(words, sizeof(want[0]));
			start(&t, ways[i]);
			unit = dirty_info(t.d).unit_bytes / PAGE;
			/* Where pages cannot be mapped protected, a read maps them unprotected. */
			if (dirty_info(t.d).flags & HGM_DIRTY_ARRIVALS) {
				read_all(&t);
				collect(&t);
			}
			for (unsigned int round = 0; round < 4; round++) {
				write_some(&t, &rnd, unit, want);
				read_all(&t);
				collect(&t);
				assert_memory_equal(t.bitmap, want, words * sizeof(want[0]));
				assert_int_equal(collect(&t), 0);
			}
			free(want);
			end(&t);
		}
	}
}

static bool huge_again(void *arg)
{
	return info_of(((struct ram *)arg)->region).huge_bytes ==
	       info_of(((struct ram *)arg)->region).length;
}

/* The unit is the size of the mapping. Exact tracking splits. Afterwards all is huge again. */
static void units_and_huge_pages(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON };
	static const uint32_t ways[] = { 0, HGM_DIRTY_EXACT, HGM_DIRTY_SYNC };

	(void)state;
	for (unsigned int p = 0; p < 3; p++) {
		for (unsigned int i = 0; i < 3; i++) {
			struct hgm_dirty_info info;
			struct track t;
			bool async;

			begin(&t, backings[p], 8 * MIB, PROVIDER_NOW, true);
			assert_huge(&t.ram, backings[p]);
			start(&t, ways[i]);
			info = dirty_info(t.d);
			async = !(info.flags & HGM_DIRTY_SYNC);
			assert_int_equal(async, ways[i] != HGM_DIRTY_SYNC &&
							kernel_has(KERNEL_PAGEMAP_SCAN));
			assert_int_equal(info.unit_bytes,
					 async && !ways[i] && backings[p] != BACKING_ANON ? 2 * MIB
											  : PAGE);
			assert_true(strlen(info.sentence) > 20);
			*(volatile char *)(t.ram.addr + 3 * PAGE) += 1;
			collect(&t);
			if (info.unit_bytes == 2 * MIB)
				assert_int_equal(huge_in_smaps(t.ram.addr, 8 * MIB), 8 * MIB);
			hgm_dirty_stop(t.d);
			t.d = NULL;
			if (!eventually(huge_again, &t.ram, 5000))
				fail_msg("%s, %s: huge are %llu bytes", backing_names[backings[p]],
					 info.sentence,
					 (unsigned long long)info_of(t.ram.region).huge_bytes);
			assert_huge(&t.ram, backings[p]);
			end(&t);
		}
	}
}

/* Pages that come from the source are dirty only if the caller asks for that. */
static void arrivals(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON,
						 BACKING_HUGETLB_2M };

	(void)state;
	for (unsigned int p = 0; p < 4; p++) {
		for (unsigned int counts = 0; counts < 2; counts++) {
			struct track t;

			if (backing_lacking(backings[p], 4 * MIB))
				test_skip("%s", backing_lacking(backings[p], 4 * MIB));
			begin(&t, backings[p], 4 * MIB, PROVIDER_NEVER, false);
			start(&t, counts ? HGM_DIRTY_ARRIVALS : 0);
			assert_int_equal(collect(&t), 0);
			provider_answer_below(t.provider, UINT64_MAX);
			provider_give(t.provider);
			assert_ok(hgm_wait(t.h, WAIT_MS));
			read_all(&t);
			counts |= !!(dirty_info(t.d).flags & HGM_DIRTY_ARRIVALS);
			assert_int_equal(collect(&t), counts ? t.pages : 0);
			assert_int_equal(collect(&t), 0);
			end(&t);
		}
	}
}

/* A write that is collected in parts is neither lost nor reported twice, whatever the unit. */
static void collected_in_parts(void **state)
{
	static const uint32_t ways[] = { 0, HGM_DIRTY_SYNC };

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		enum backing backing = i < 2 ? BACKING_SHMEM : BACKING_HUGETLB_2M;
		uint64_t part[2], found = 0, unit, dirty;
		struct track t;

		if (backing_lacking(backing, 4 * MIB))
			test_skip("%s", backing_lacking(backing, 4 * MIB));
		begin(&t, backing, 4 * MIB, PROVIDER_NOW, true);
		start(&t, ways[i % 2]);
		unit = dirty_info(t.d).unit_bytes / PAGE;
		*(volatile char *)(t.ram.addr + 200 * PAGE) += 1;
		/* Begin in the middle of a block. */
		for (uint64_t first = t.pages; first;) {
			first -= 128;
			assert_ok(hgm_dirty_collect(t.d, first, 100, part, &dirty));
			assert_int_equal(part[1] >> 36, 0);
			found += dirty;
		}
		assert_int_equal(found, unit == 1 ? 1 : 4 * 100);
		assert_int_equal(collect(&t), unit == 1 ? 0 : unit - 4 * 100);
		/* Collecting a part of a block that was left huge does not split it. */
		if (backing == BACKING_SHMEM && unit > 1)
			assert_int_equal(huge_in_smaps(t.ram.addr, 4 * MIB), 4 * MIB);
		end(&t);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(only_what_was_written), cmocka_unit_test(collected_in_parts),
	cmocka_unit_test(units_and_huge_pages),	 cmocka_unit_test(arrivals),
	cmocka_unit_test(no_write_is_lost),	 cmocka_unit_test(nor_while_memory_arrives),
};

TEST_MAIN(tests)
