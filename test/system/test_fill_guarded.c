/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write-protection that begins while pages have arrived that nobody has mapped, as their blocks'
 * collapse would have done it: no write is missed, and none is seen that was not.
 */
#include "collapsing.h"
#include "crew.h"
#include "random.h"

#include <errno.h>

#define WAIT_MS	    SMALLER(20000, 100000)
#define SOON_MS	    SMALLER(5000, 20000)
#define LENGTH	    (6 * MIB + 100 * PAGE)
#define PAGES	    (LENGTH / PAGE)
#define WORDS	    ((PAGES + 63) / 64)
#define HALF	    ((uint64_t)768) /* a block and a half */
#define BLOCK_PAGES 512

static const struct contents contents = { .seed = 123, .holes = true };

enum guard {
	DIRTY,
	DIRTY_EXACT,
	DIRTY_SYNC,
	DIRTY_ARRIVALS,
	WATCH,
	SNAPSHOT,
	GUARDS,
};

static const char *const guard_names[] = {
	[DIRTY] = "dirty tracking",
	[DIRTY_EXACT] = "exact dirty tracking",
	[DIRTY_SYNC] = "synchronous dirty tracking",
	[DIRTY_ARRIVALS] = "dirty tracking of arrivals",
	[WATCH] = "a watch",
	[SNAPSHOT] = "a snapshot",
};

static const uint32_t dirty_flags[] = {
	[DIRTY] = 0,
	[DIRTY_EXACT] = HGM_DIRTY_EXACT,
	[DIRTY_SYNC] = HGM_DIRTY_SYNC,
	[DIRTY_ARRIVALS] = HGM_DIRTY_SYNC | HGM_DIRTY_ARRIVALS,
	[SNAPSHOT] = 0,
};

struct scene {
	struct random random;
	enum guard guard;
	uint64_t arrived; /* pages that are there when the guard begins */
	struct feed *feed;
	struct hgm *h;
	struct field f;
	struct hgm_dirty *d;
	struct hgm_snapshot *snapshot;
	struct sink sink;
	char *want, *instant; /* what memory holds, and held when it was guarded */
	uint64_t written[WORDS];
	_Atomic uint64_t found[WORDS];
};

static bool bit(const uint64_t *bitmap, uint64_t page)
{
	return bitmap[page / 64] >> page % 64 & 1;
}

static enum hgm_write_verdict on_write(void *user, struct hgm_region *r,
				       const struct hgm_span *what)
{
	struct scene *s = user;
	uint64_t page = what->offset / PAGE, end = page + what->length / PAGE;

	(void)r;
	for (; page < end && page < PAGES; page++)
		atomic_fetch_or(&s->found[page / 64], UINT64_C(1) << page % 64);
	return HGM_WRITE_ALLOW;
}

static void guard(struct scene *s)
{
	const struct hgm_watch_opts w = { .size = sizeof(w), .write = on_write, .user = s };
	struct hgm_dirty_opts o = { .size = sizeof(o) };

	switch (s->guard) {
	case SNAPSHOT:
		memcpy(s->instant, s->want, LENGTH);
		atomic_store(&s->sink.hold, true);
		s->snapshot = snapshot_of(s->h, &(struct hgm_snapshot_opts){ .write = sink_write,
									     .user = &s->sink });
		assert_ok(hgm_snapshot_begin(s->snapshot));
		return;
	case WATCH:
		assert_ok(hgm_region_watch(s->f.region, &w));
		assert_ok(hgm_region_protect(s->f.region, 0, LENGTH, 0, NULL));
		return;
	default:
		o.flags = dirty_flags[s->guard];
		assert_ok(hgm_dirty_start(&s->d, s->f.region, &o));
	}
}

static void collect(struct scene *s)
{
	uint64_t bitmap[WORDS];

	if (!s->d)
		return;
	assert_ok(hgm_dirty_collect(s->d, 0, PAGES, bitmap, NULL));
	for (uint64_t w = 0; w < WORDS; w++)
		atomic_fetch_or(&s->found[w], bitmap[w]);
}

/* Who knows of writes must know of all; does it know of none else? */
static void assert_found(struct scene *s)
{
	struct hgm_dirty_info info = { .size = sizeof(info), .unit_bytes = PAGE };
	bool exact = kernel_has(KERNEL_PAGEMAP_SCAN); /* before 6.4 arrivals are not told apart */
	uint64_t unit;

	if (s->d)
		assert_ok(hgm_dirty_get_info(s->d, &info));
	if (exact && s->arrived == PAGES)
		assert_int_equal(info.flags & HGM_DIRTY_SYNC,
				 dirty_flags[s->guard] & HGM_DIRTY_SYNC);
	unit = info.unit_bytes / PAGE;
	for (uint64_t page = 0; page < PAGES; page++) {
		bool found = atomic_load(&s->found[page / 64]) >> page % 64 & 1;
		bool written = false;

		for (uint64_t p = page / unit * unit; p < (page / unit + 1) * unit && p < PAGES;
		     p++)
			written |= bit(s->written, p);
		if (bit(s->written, page) && !found)
			fail_msg("%s: a write to page %llu was missed", guard_names[s->guard],
				 (unsigned long long)page);
		if (exact && found && !written &&
		    (page < s->arrived || !(info.flags & HGM_DIRTY_ARRIVALS)))
			fail_msg("%s: nobody has written to page %llu", guard_names[s->guard],
				 (unsigned long long)page);
	}
}

static void unguard(struct scene *s)
{
	if (s->guard == SNAPSHOT) {
		atomic_store(&s->sink.hold, false);
		assert_ok(hgm_snapshot_wait(s->snapshot, WAIT_MS));
		hgm_snapshot_destroy(s->snapshot);
	} else if (s->guard == WATCH) {
		assert_ok(hgm_region_unwatch(s->f.region));
	} else {
		hgm_dirty_stop(s->d);
	}
}

/* Here and there below @pages: a mark of one's own, or a look. */
static void use(struct scene *s, uint64_t pages, unsigned int slot)
{
	for (uint64_t i = 0; i < pages / 4; i++) {
		uint64_t page = random_below(&s->random, pages);

		if (random_one_in(&s->random, 3)) {
			page_mark(page, s->f.addr + page * PAGE, slot);
			page_mark(page, s->want + page * PAGE, slot);
			s->written[page / 64] |= UINT64_C(1) << page % 64;
		} else {
			assert_same(s->f.addr + page * PAGE, s->want + page * PAGE, 1, "a look");
		}
	}
}

static bool has_come(void *arg)
{
	const struct scene *s = arg;

	return progress_of(s->h).present_bytes >= s->arrived * PAGE;
}

static void make(struct scene *s, enum place place, enum guard kind)
{
	memset(s, 0, sizeof(*s));
	s->random.state = random_seed();
	s->guard = kind;
	s->feed = feed_make(FEED_NEVER, &contents, LENGTH);
	s->h = engine(2);
	s->want = malloc(LENGTH);
	s->instant = malloc(LENGTH);
	contents_write(&contents, 0, PAGES, s->want);
	sink_clear(&s->sink, LENGTH);
	field_make(&s->f, s->h, place, LENGTH, feed_source(s->feed), 0);
	collapsing_watch(&s->f);
}

static void end(struct scene *s)
{
	field_end(&s->f);
	hgm_destroy(s->h);
	feed_free(s->feed);
	free(s->sink.got);
	free(s->want);
	free(s->instant);
}

/* What the collapse was to map is mapped, as it does not come. Before 6.4 protection unmaps. */
static void assert_all_mapped(struct scene *s)
{
	uint64_t faults = stats_of(s->h).faults;

	assert_same(s->f.addr, s->want, PAGES, guard_names[s->guard]);
	if (s->guard != SNAPSHOT && kernel_has(KERNEL_PAGEMAP_SCAN) &&
	    stats_of(s->h).faults != faults)
		fail_msg("%s: %llu faults on pages that have arrived", guard_names[s->guard],
			 (unsigned long long)(stats_of(s->h).faults - faults));
}

/* @refused: blocks that are not collapsed before it has ended */
static void begins(enum place place, enum guard kind, uint64_t arrived, uint64_t refused)
{
	struct scene s;

	make(&s, place, kind);
	s.arrived = arrived;
	collapsing_refuse(refused, -EAGAIN, 1);
	feed_answer_below(s.feed, arrived);
	assert_ok(hgm_start(s.h));
	assert_true(eventually(has_come, &s, SOON_MS));
	if (arrived == HALF) /* it has only half a block there */
		assert_int_equal(collapsing_continued(1), 0);
	else if (!refused)
		assert_ok(hgm_wait(s.h, WAIT_MS));
	use(&s, arrived, 0);
	guard(&s);
	memset(s.written, 0, sizeof(s.written));
	use(&s, arrived, 1);
	collect(&s);
	feed_answer_below(s.feed, PAGES);
	feed_give(s.feed);
	use(&s, PAGES, 2);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_all_mapped(&s);
	use(&s, PAGES, 3);
	collect(&s);
	if (kind != SNAPSHOT)
		assert_found(&s);
	unguard(&s);
	if (kind == SNAPSHOT)
		assert_same(s.sink.got, s.instant, PAGES, "the snapshot");
	collapsing_refuse(0, 0, 1);
	assert_huge(&s.f, place);
	assert_same(s.f.addr, s.want, PAGES, guard_names[kind]);
	end(&s);
}

static void each_guard(enum place place, uint64_t arrived)
{
	static const uint64_t refused[] = { 0, COLLAPSING_ALL_BLOCKS, 1 << 1 };

	for (unsigned int kind = 0; kind < GUARDS; kind++)
		for (unsigned int i = 0; i < 3; i++)
			begins(place, (enum guard)kind, arrived, refused[i]);
}

static void guard_begins_in_the_midst(void **state)
{
	(void)state;
	each_guard(PLACE_SHMEM, HALF);
}

/* All has arrived, and some of it is mapped by nobody: the kernel may be left to note writes. */
static void guard_begins_at_the_end(void **state)
{
	(void)state;
	each_guard(PLACE_FD, PAGES);
}

/* All is there, and its blocks wait for a collapser that is busy with the first. */
static void guard_begins_while_blocks_wait(void **state)
{
	(void)state;
	for (unsigned int kind = 0; kind < SNAPSHOT; kind++) {
		struct scene s;

		make(&s, PLACE_FD, (enum guard)kind);
		s.arrived = PAGES;
		collapsing_take_us(50000);
		feed_answer_below(s.feed, PAGES);
		assert_ok(hgm_start(s.h));
		assert_true(eventually(has_come, &s, SOON_MS));
		guard(&s);
		assert_ok(hgm_wait(s.h, WAIT_MS));
		assert_all_mapped(&s);
		collect(&s);
		assert_found(&s);
		use(&s, PAGES, 1);
		collect(&s);
		assert_found(&s);
		collapsing_take_us(0);
		unguard(&s);
		assert_huge(&s.f, PLACE_FD);
		assert_same(s.f.addr, s.want, PAGES, guard_names[kind]);
		end(&s);
	}
}

/* Guarded blocks are not collapsed: what arrives is mapped at once, as without a collapse. */
static void guard_begins_before_fill(void **state)
{
	(void)state;
	for (unsigned int kind = 0; kind < SNAPSHOT; kind++) {
		uint64_t faults;
		struct scene s;

		make(&s, PLACE_SHMEM, (enum guard)kind);
		feed_answer_below(s.feed, PAGES);
		guard(&s);
		assert_ok(hgm_start(s.h));
		assert_ok(hgm_wait(s.h, WAIT_MS));
		for (uint64_t block = 0; block < PAGES / BLOCK_PAGES; block++)
			assert_int_equal(collapsing_continued(block), BLOCK_PAGES);
		assert_int_equal(collapsing_continued(3), PAGES % BLOCK_PAGES);
		faults = stats_of(s.h).faults;
		assert_same(s.f.addr, s.want, PAGES, guard_names[kind]);
		assert_int_equal(stats_of(s.h).faults, faults);
		use(&s, PAGES, 1);
		collect(&s);
		assert_found(&s);
		unguard(&s);
		assert_huge(&s.f, PLACE_SHMEM);
		assert_same(s.f.addr, s.want, PAGES, guard_names[kind]);
		end(&s);
	}
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, collapsing_set_up, collapsing_tear_down)

static const struct CMUnitTest tests[] = {
	CASE(guard_begins_in_the_midst),
	CASE(guard_begins_at_the_end),
	CASE(guard_begins_while_blocks_wait),
	CASE(guard_begins_before_fill),
};

TEST_MAIN(tests)
