/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A live snapshot equals the memory at the instant, byte for byte, while threads write as fast as
 * they can. This holds for every kind of memory, complete or still being restored. Afterwards all
 * blocks that were huge are huge again.
 */
#include "snapshotting.h"
#include "region/hgm.h"
#include "util/bits.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define WAIT_MS SMALLER(20000, 100000)

static const struct contents contents = { .seed = 53, .holes = true };

/* Counts the pages in the map itself. */
static uint64_t present_bytes(const struct ram *ram)
{
	uint64_t pages = ram->length / PAGE, present = 0;
	uint64_t *bitmap = calloc(hgm_bits_words(pages), sizeof(bitmap[0]));

	assert_non_null(bitmap);
	assert_ok(hgm_region_export(ram->region, 0, pages, bitmap));
	for (uint64_t w = 0; w < hgm_bits_words(pages); w++)
		present += (uint64_t)__builtin_popcountll(bitmap[w]);
	free(bitmap);
	return present * PAGE;
}

static void take_one(const struct ram *ram, struct hgm *h, struct writers *writers,
		     struct sink *sink, uint32_t flags, char *want)
{
	struct hgm_snapshot *s =
		snapshot_of(h, &(struct hgm_snapshot_opts){
				       .write = sink_write, .user = sink, .flags = flags });
	uint64_t before = present_bytes(ram), after;
	struct hgm_snapshot_progress p;

	writers_begin(writers, s, want);
	after = present_bytes(ram);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	p = snapshot_progress(s);
	assert_true(p.done);
	assert_int_equal(p.error, 0);
	assert_int_equal(p.done_bytes, p.total_bytes);
	assert_int_equal(p.pool_used_bytes, 0);
	assert_int_equal(p.unreadable_bytes, 0);
	/* Pages that were not present at the instant come from the source, and no others. */
	if (p.source_bytes < p.total_bytes - after || p.source_bytes > p.total_bytes - before)
		fail_msg("%llu bytes from the source, present were %llu to %llu",
			 (unsigned long long)p.source_bytes, (unsigned long long)before,
			 (unsigned long long)after);
	assert_true(p.copied_bytes <= p.total_bytes - p.source_bytes);
	assert_int_equal(sink->taken + p.zero_bytes, p.total_bytes);
	assert_true(p.begin_ns > 0);
	if (flags & HGM_SNAPSHOT_ORDERED)
		assert_true(sink->ascending);
	hgm_snapshot_destroy(s);
}

static bool huge_again(void *arg)
{
	struct ram *ram = arg;
	struct hgm_region_info info = info_of(ram->region);

	return info.huge_bytes >= info.length / info.block_bytes * info.block_bytes / 100 * 95;
}

static void snapshots_of(enum backing backing, uint64_t length, bool complete,
			 enum provider_kind kind, unsigned int rounds)
{
	struct provider *provider = provider_make(kind, &contents, length);
	struct hgm *h = engine(2);
	char *want = malloc(length);
	struct sink sink = { 0 };
	struct writers writers;
	struct ram ram;

	watch(backing_names[backing], 100);
	ram_make(&ram, h, backing, length, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	if (complete)
		assert_ok(hgm_wait(h, WAIT_MS));
	writers_start(&writers, &contents, ram.addr, length / PAGE);
	for (unsigned int i = 0; i < rounds; i++) {
		sink_clear(&sink, length);
		take_one(&ram, h, &writers, &sink, i % 2 ? HGM_SNAPSHOT_ORDERED : 0, want);
		assert_same(sink.got, want, length / PAGE, backing_names[backing]);
	}
	writers_end(&writers);
	assert_ok(hgm_wait(h, WAIT_MS));
	if (backing_can_be_huge(backing) && !eventually(huge_again, &ram, 5000))
		fail_msg("%s: huge are %llu of %llu bytes, %llu blocks left split",
			 backing_names[backing], (unsigned long long)info_of(ram.region).huge_bytes,
			 (unsigned long long)length,
			 (unsigned long long)info_of(ram.region).left_split);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	free(sink.got);
	free(want);
	calm();
}

static void complete_memory(void **state)
{
	(void)state;
	for (int backing = 0; backing < BACKINGS; backing++) {
		if (backing == BACKING_HUGETLB_1G)
			continue;
		if (backing_lacking((enum backing)backing, 8 * MIB))
			test_skip("%s", backing_lacking((enum backing)backing, 8 * MIB));
		snapshots_of((enum backing)backing, SMALLER(8, 4) * MIB, true, PROVIDER_NOW,
			     SMALLER(6, 2));
	}
}

static void memory_being_restored(void **state)
{
	static const enum provider_kind kinds[] = { PROVIDER_LATER, PROVIDER_BLOCKING,
						    PROVIDER_SHORT };

	(void)state;
	for (int backing = 0; backing < BACKINGS; backing++)
		if (backing != BACKING_HUGETLB_1G &&
		    !backing_lacking((enum backing)backing, 8 * MIB))
			snapshots_of((enum backing)backing, SMALLER(8, 4) * MIB, false,
				     kinds[backing % 3], SMALLER(3, 2));
}

/*
 * Snapshots follow each other without a pause. Anything that one leaves behind would disturb the
 * next.
 */
static void a_hundred_in_a_row(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON, BACKING_HUGETLB_2M };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		uint64_t length = i < 2 ? MIB + 100 * PAGE : 2 * MIB;

		if (backing_lacking(backings[i], length))
			test_skip("%s", backing_lacking(backings[i], length));
		snapshots_of(backings[i], length, true, PROVIDER_NOW, SMALLER(100, 10));
	}
}

static bool is_called(void *sink)
{
	return atomic_load(&((struct sink *)sink)->calls) > 0;
}

/*
 * A guest that only reads has at most one fault in 16 pages, and none once all pages are mapped
 * again.
 */
static void readers_are_spared(void **state)
{
	uint64_t length = 32 * MIB, pages = length / PAGE, sum = 0, before, most;
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, length);
	struct hgm *h = engine(1);
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	struct ram ram;

	(void)state;
	most = pages / 16;
	watch("readers", 60);
	ram_make(&ram, h, BACKING_SHMEM, length, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	sink_clear(&sink, length);
	sink.hold = true;
	s = snapshot_of(h, &(struct hgm_snapshot_opts){ .write = sink_write, .user = &sink });
	assert_ok(hgm_snapshot_begin(s));
	before = stats_of(h).faults;
	for (uint64_t p = 0; p < pages; p++)
		sum += *(volatile uint8_t *)(ram.addr + p * PAGE);
	if (stats_of(h).faults - before > most)
		fail_msg("%llu faults of reading %llu pages (%llu)",
			 (unsigned long long)(stats_of(h).faults - before),
			 (unsigned long long)pages, (unsigned long long)sum);
	assert_true(eventually(is_called, &sink, 5000)); /* all pages are mapped again by then */
	before = stats_of(h).faults;
	for (uint64_t p = 0; p < pages; p++)
		sum += *(volatile uint8_t *)(ram.addr + p * PAGE);
	assert_int_equal(stats_of(h).faults, before);
	assert_int_equal(snapshot_progress(s).copied_bytes, 0);
	atomic_store(&sink.hold, false);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	assert_pages(&contents, 0, pages, sink.got);
	if (!eventually(huge_again, &ram, 5000))
		fail_msg("not huge again");
	assert_huge(&ram, BACKING_SHMEM);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	free(sink.got);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(a_hundred_in_a_row),
	cmocka_unit_test(readers_are_spared),
	cmocka_unit_test(complete_memory),
	cmocka_unit_test(memory_being_restored),
};

TEST_MAIN(tests)
