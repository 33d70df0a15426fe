/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write-protection of memory of the caller that is not aligned to blocks: live snapshots, watches,
 * and dirty tracking. Nothing around the region is touched.
 */
#include "snapshotting.h"
#include "discarding.h"
#include "unaligned.h"

#include <errno.h>
#include <stdlib.h>

#define WAIT_MS SMALLER(20000, 100000)
#define FIRST	UNALIGNED_SOURCE_PAGE

static const struct contents contents = { .seed = 101, .holes = true };

static int set_up(void **state)
{
	(void)state;
	fence_set_up();
	return 0;
}

static void begin(struct unaligned *t, enum backing backing, const struct shape *shape,
		  bool complete)
{
	unaligned_begin(t, &contents, backing, shape, PROVIDER_NOW, 0);
	assert_ok(hgm_start(t->h));
	if (complete)
		assert_ok(hgm_wait(t->h, WAIT_MS));
}

static void snapshots(enum backing backing, const struct shape *shape)
{
	uint64_t skip = FIRST * PAGE;
	char *want = malloc(shape->pages * PAGE);
	struct sink sink = { 0 };
	struct unaligned t;
	struct writers writers;

	begin(&t, backing, shape, shape->head % 2);
	writers_start(&writers, &contents, t.ram.addr, t.pages);
	writers.first_page = FIRST;
	for (unsigned int i = 0; i < 3; i++) {
		struct hgm_snapshot *s;

		sink_clear(&sink, skip + t.ram.length);
		s = snapshot_of(t.h, &(struct hgm_snapshot_opts){
					     .write = sink_write,
					     .user = &sink,
					     .flags = i % 2 ? HGM_SNAPSHOT_ORDERED : 0 });
		writers_begin(&writers, s, want);
		assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		assert_int_equal(snapshot_progress(s).total_bytes, t.ram.length);
		assert_int_equal(snapshot_progress(s).done_bytes, t.ram.length);
		assert_int_equal(sink.taken + snapshot_progress(s).zero_bytes, t.ram.length);
		assert_same(sink.got + skip, want, t.pages, t.what);
		hgm_snapshot_destroy(s);
	}
	writers_end(&writers);
	assert_ok(hgm_wait(t.h, WAIT_MS));
	assert_whole_huge(&t, backing, shape);
	unaligned_end(&t);
	free(sink.got);
	free(want);
}

static void a_snapshot_is_of_the_region(void **state)
{
	(void)state;
	unaligned_each(snapshots);
}

/*
 * Others have punched pages out of the file before these arrived. A snapshot has zeroes there, also
 * beside the margins.
 */
static void snapshot_with_holes(enum backing backing, const struct shape *shape)
{
	uint64_t last = shape->pages - 1, skip = FIRST * PAGE;
	char *want = malloc(shape->pages * PAGE);
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	struct unaligned t;

	if (backing != BACKING_FD && backing != BACKING_MAPPING) {
		free(want);
		return;
	}
	unaligned_begin(&t, &contents, backing, shape, PROVIDER_NOW, HGM_REGION_NO_FILL);
	contents_write(&contents, FIRST, t.pages, want);
	for (uint64_t p = 0; p <= last; p += last ? last : 1) {
		discard_by(WAY_PUNCH, &t.ram, p * PAGE, PAGE);
		memset(want + p * PAGE, 0, PAGE);
	}
	assert_ok(hgm_start(t.h));
	sink_clear(&sink, skip + t.ram.length);
	s = snapshot_of(t.h, &(struct hgm_snapshot_opts){ .write = sink_write, .user = &sink });
	assert_ok(hgm_snapshot_begin(s));
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	assert_same(sink.got + skip, want, t.pages, t.what);
	hgm_snapshot_destroy(s);
	assert_zeroes(t.ram.addr, PAGE, t.what);
	assert_zeroes(t.ram.addr + last * PAGE, PAGE, t.what);
	unaligned_end(&t);
	free(sink.got);
	free(want);
}

static void a_snapshot_finds_holes(void **state)
{
	(void)state;
	unaligned_each(snapshot_with_holes);
}

static bool is_picked(uint64_t page, uint64_t pages)
{
	return !page || page == pages - 1 || mix(page) % 7 == 0;
}

/* Collects in pieces, of which the last one is not whole. Exactly the picked pages are dirty. */
static void collect_picked(const struct unaligned *t, struct hgm_dirty *d, bool any)
{
	uint64_t bitmap[3], dirty, found = 0;

	for (uint64_t first = 0; first < t->pages; first += 128) {
		uint64_t pages = t->pages - first < 128 ? t->pages - first : 128;

		bitmap[(pages + 63) / 64] = 0x5a5a;
		assert_ok(hgm_dirty_collect(d, first, pages, bitmap, &dirty));
		assert_int_equal(bitmap[(pages + 63) / 64], 0x5a5a);
		for (uint64_t i = 0; i < (pages + 63) / 64 * 64; i++) {
			bool is = bitmap[i / 64] >> i % 64 & 1, want;

			want = any && i < pages && is_picked(first + i, t->pages);
			found += is;
			if (is != want)
				fail_msg("%s: page %llu is%s dirty", t->what,
					 (unsigned long long)(first + i), is ? "" : " not");
		}
		found -= dirty;
	}
	assert_int_equal(found, 0);
}

static void track(enum backing backing, const struct shape *shape, uint32_t flags)
{
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = HGM_DIRTY_EXACT | flags };
	struct hgm_dirty *d;
	struct unaligned t;

	begin(&t, backing, shape, true);
	assert_whole_huge(&t, backing, shape);
	assert_ok(hgm_dirty_start(&d, t.ram.region, &o));
	collect_picked(&t, d, false);
	for (uint64_t p = 0; p < t.pages; p++)
		if (is_picked(p, t.pages))
			*(volatile uint64_t *)(t.ram.addr + p * PAGE + 64) = p;
	collect_picked(&t, d, true);
	collect_picked(&t, d, false);
	for (uint64_t p = 0; p < t.pages; p++)
		if (is_picked(p, t.pages))
			assert_ok(hgm_dirty_mark(d, p * PAGE + 1, PAGE - 1));
	assert_error(hgm_dirty_mark(d, t.ram.length - PAGE, PAGE + 1), -EINVAL);
	collect_picked(&t, d, true);
	/* What is discarded has changed. */
	for (uint64_t p = 0; p < t.pages; p++)
		if (is_picked(p, t.pages))
			assert_ok(hgm_region_discard(t.ram.region, p * PAGE, PAGE));
	collect_picked(&t, d, true);
	hgm_dirty_stop(d);
	for (uint64_t p = 0; p < t.pages; p++)
		if (is_picked(p, t.pages))
			*(volatile uint64_t *)(t.ram.addr + p * PAGE) = p;
	assert_ok(hgm_region_collapse(t.ram.region));
	assert_whole_huge(&t, backing, shape);
	unaligned_end(&t);
}

static void track_sync(enum backing backing, const struct shape *shape)
{
	track(backing, shape, HGM_DIRTY_SYNC);
}

static void track_async(enum backing backing, const struct shape *shape)
{
	track(backing, shape, 0);
}

static void exactly_the_written_pages_are_dirty(void **state)
{
	(void)state;
	unaligned_each(track_sync);
	unaligned_each(track_async);
}

/* Tracking that begins while memory still arrives, and writers. No write is lost. */
static void track_arriving(enum backing backing, const struct shape *shape)
{
	uint64_t words = (shape->pages + 63) / 64, *bitmap = calloc(words, sizeof(*bitmap));
	char *copy = malloc(shape->pages * PAGE), *want = malloc(shape->pages * PAGE);
	struct hgm_dirty *d;
	struct unaligned t;
	struct writers writers;

	begin(&t, backing, shape, false);
	assert_ok(hgm_dirty_start(&d, t.ram.region, NULL));
	contents_write(&contents, FIRST, t.pages, copy);
	writers_start(&writers, &contents, t.ram.addr, t.pages);
	writers.first_page = FIRST;
	for (unsigned int round = 0; round < 3; round++) {
		if (round == 2)
			writers_stop(&writers);
		assert_ok(hgm_dirty_collect(d, 0, t.pages, bitmap, NULL));
		for (uint64_t p = 0; p < t.pages; p++)
			if (bitmap[p / 64] >> p % 64 & 1)
				memcpy(copy + p * PAGE, t.ram.addr + p * PAGE, PAGE);
	}
	writers_expect(&writers, want);
	assert_same(copy, want, t.pages, t.what);
	writers_end(&writers);
	hgm_dirty_stop(d);
	assert_ok(hgm_wait(t.h, WAIT_MS));
	assert_whole_huge(&t, backing, shape);
	unaligned_end(&t);
	free(bitmap);
	free(copy);
	free(want);
}

static void no_write_is_lost(void **state)
{
	(void)state;
	unaligned_each(track_arriving);
}

struct asked {
	_Atomic unsigned int times;
	_Atomic uint64_t offset, length;
};

static enum hgm_write_verdict note(void *user, struct hgm_region *r, const struct hgm_span *what)
{
	struct asked *a = user;

	(void)r;
	atomic_store(&a->offset, what->offset);
	atomic_store(&a->length, what->length);
	atomic_fetch_add(&a->times, 1);
	return HGM_WRITE_ALLOW;
}

/* Writes to a page, which is expected to ask @times times. */
static void poke(const struct unaligned *t, struct asked *a, uint64_t page, unsigned int times)
{
	unsigned int before = atomic_load(&a->times);

	*(volatile uint64_t *)(t->ram.addr + page * PAGE + 8) += 1;
	assert_int_equal(atomic_load(&a->times) - before, times);
	if (times) {
		assert_int_equal(atomic_load(&a->offset), page * PAGE);
		assert_int_equal(atomic_load(&a->length), PAGE);
	}
}

static void watches(enum backing backing, const struct shape *shape)
{
	struct asked asked = { 0 };
	struct hgm_watch_opts o = { .size = sizeof(o), .write = note, .user = &asked };
	uint64_t last = shape->pages - 1;
	struct hgm_span what = { 0 };
	struct unaligned t;

	begin(&t, backing, shape, true);
	assert_ok(hgm_region_watch(t.ram.region, &o));
	assert_ok(hgm_region_protect(t.ram.region, 0, PAGE, 0, &what));
	assert_int_equal(what.offset, 0);
	assert_int_equal(what.length, PAGE);
	assert_ok(hgm_region_protect(t.ram.region, last * PAGE + 17, 1, HGM_PROTECT_ROUND, &what));
	assert_int_equal(what.offset, last * PAGE);
	assert_int_equal(what.length, PAGE);
	assert_error(hgm_region_protect(t.ram.region, last * PAGE, 2 * PAGE, 0, NULL), -EINVAL);
	poke(&t, &asked, 0, 1);
	poke(&t, &asked, 0, 0);
	poke(&t, &asked, last, last ? 1 : 0);
	if (last > 1)
		poke(&t, &asked, last - 1, 0);
	assert_ok(hgm_region_protect(t.ram.region, 0, t.ram.length, 0, &what));
	assert_int_equal(what.offset, 0);
	assert_int_equal(what.length, t.ram.length);
	poke(&t, &asked, last / 2, 1);
	assert_ok(hgm_region_before_write(t.ram.region, last * PAGE, PAGE));
	assert_int_equal(atomic_load(&asked.offset), last * PAGE);
	assert_ok(hgm_region_unprotect(t.ram.region, 0, t.ram.length, 0, &what));
	assert_int_equal(what.length, t.ram.length);
	poke(&t, &asked, 0, 0);
	assert_ok(hgm_region_unwatch(t.ram.region));
	assert_whole_huge(&t, backing, shape);
	unaligned_end(&t);
}

static void a_watch_tells_offsets_of_the_region(void **state)
{
	(void)state;
	unaligned_each(watches);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup(a_snapshot_is_of_the_region, set_up),
	cmocka_unit_test_setup(a_snapshot_finds_holes, set_up),
	cmocka_unit_test_setup(exactly_the_written_pages_are_dirty, set_up),
	cmocka_unit_test_setup(no_write_is_lost, set_up),
	cmocka_unit_test_setup(a_watch_tells_offsets_of_the_region, set_up),
};

TEST_MAIN(tests)
