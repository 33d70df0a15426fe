/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Blocks that fill has left unmapped, because their collapse will map them, and that lack a few
 * pages. A thread that touches such a block waits for its own page only.
 */
#include "collapsing.h"

#include <errno.h>
#include <signal.h>

#define WAIT_MS	    SMALLER(20000, 100000)
#define SOON_MS	    SMALLER(5000, 20000)
#define BLOCK_PAGES 512

/* A source that answers at once, except for two pages and what is requested with them. */
#define KEPT 2
static const uint64_t kept_pages[KEPT] = { 100, 300 };
static const struct contents contents = { .seed = 122 };

struct miser {
	struct hgm_source *src;
	bool sleeps; /* blocks its caller, too */
	struct hgm_io kept[KEPT];
	_Atomic unsigned int has;   /* bitmap of the requests that it keeps */
	_Atomic unsigned int gives; /* bitmap of those that it may answer now */
	_Atomic unsigned int asked[2 * BLOCK_PAGES];
};

static int64_t answer(struct miser *m, const struct hgm_io *io, uint64_t pages)
{
	uint64_t page = io->offset / PAGE;

	for (uint64_t p = page; p < page + pages; p++)
		atomic_fetch_add(&m->asked[p], 1);
	contents_write(&contents, page, pages, io->buf);
	return (int64_t)(pages * PAGE);
}

static int64_t read_miser(void *user, const struct hgm_io *io)
{
	uint64_t page = io->offset / PAGE, pages = io->length / PAGE;
	struct miser *m = user;

	for (unsigned int i = 0; i < KEPT; i++) {
		if (page < kept_pages[i] && page + pages > kept_pages[i])
			pages = kept_pages[i] - page;
		if (page != kept_pages[i])
			continue;
		m->kept[i] = *io;
		atomic_fetch_or(&m->has, 1u << i);
		if (!m->sleeps)
			return HGM_IO_LATER;
		while (!(atomic_load(&m->gives) >> i & 1))
			nap_us(100);
	}
	return answer(m, io, pages);
}

static void miser_gives(struct miser *m, unsigned int i)
{
	const struct hgm_io *io = &m->kept[i];

	atomic_fetch_or(&m->gives, 1u << i);
	if (!m->sleeps)
		assert_ok(hgm_io_done(io, answer(m, io, io->length / PAGE)));
}

struct scene {
	struct miser miser;
	struct hgm *h;
	struct ram ram;
	uint64_t there; /* bytes that must have arrived */
};

static void begin(struct scene *s, enum backing backing, bool sleeps)
{
	struct hgm_source_fn_opts o = { .size = sizeof(o), .length = 4 * MIB };

	memset(s, 0, sizeof(*s));
	s->miser.sleeps = sleeps;
	if (sleeps)
		o.flags = HGM_SOURCE_BLOCKING;
	assert_ok(hgm_source_fn(&s->miser.src, read_miser, &s->miser, &o));
	s->h = engine_with((struct hgm_opts){ .fault_threads = 1, .workers = 8 });
	ram_make(&s->ram, s->h, backing, 4 * MIB, s->miser.src, 0);
	collapsing_watch(&s->ram);
	assert_ok(hgm_start(s->h));
}

static void end(struct scene *s)
{
	ram_end(&s->ram);
	hgm_destroy(s->h);
	hgm_source_destroy(s->miser.src);
}

static bool has_come(void *arg)
{
	const struct scene *s = arg;

	return progress_of(s->h).present_bytes >= s->there;
}

static uint64_t kept_end(const struct scene *s, unsigned int i)
{
	return kept_pages[i] + s->miser.kept[i].length / PAGE;
}

/* All pages have arrived except those that are kept. Fill goes on around them. */
static void await_the_rest(struct scene *s)
{
	uint64_t kept = 0;

	while (atomic_load(&s->miser.has) != (1u << KEPT) - 1)
		nap_us(100);
	for (unsigned int i = 0; i < KEPT; i++)
		kept += s->miser.kept[i].length;
	assert_true(kept_end(s, 0) < kept_pages[1]);
	s->there = 4 * MIB - kept;
	if (!eventually(has_come, s, SOON_MS))
		fail_msg("fill stands still behind what the source keeps");
}

static void assert_asked_once(struct scene *s)
{
	for (uint64_t p = 0; p < 2 * BLOCK_PAGES; p++)
		if (atomic_load(&s->miser.asked[p]) != 1)
			fail_msg("the source gave page %llu %u times", (unsigned long long)p,
				 atomic_load(&s->miser.asked[p]));
	assert_int_equal(stats_of(s->h).faults_demand, 0);
}

/* For the first block. A toucher goes on before the pages that were mapped for it are counted. */
static bool are_counted(void *arg)
{
	const struct scene *s = arg;
	uint64_t pages = s->there / PAGE - BLOCK_PAGES;

	return collapsing_continued(0) == pages && stats_of(s->h).installed_pages == pages;
}

/* A touch of an incomplete block gets the pages that have arrived, with neighbours. */
static void serves_a_block_that_lacks_pages(void **state)
{
	struct hgm_stats stats;
	struct scene s;

	(void)state;
	begin(&s, BACKING_SHMEM, false);
	await_the_rest(&s);
	assert_int_equal(collapsing_continued(0), 0);
	assert_pages(&contents, 0, kept_pages[0], s.ram.addr);
	for (unsigned int i = 0; i < KEPT; i++) {
		uint64_t from = kept_end(&s, i), to = i + 1 < KEPT ? kept_pages[i + 1] : 512;

		assert_pages(&contents, from, to - from, s.ram.addr + from * PAGE);
	}
	assert_true(eventually(are_counted, &s, SOON_MS));
	stats = stats_of(s.h);
	assert_int_equal(stats.installed_pages - stats.neighbour_pages, stats.faults_present);
	/*
	 * A fault-around window of 16 pages each, plus the windows that the kept pages cut short.
	 */
	assert_uint_in_range(stats.faults_present, 1, BLOCK_PAGES / 16 + 2 * KEPT);
	miser_gives(&s.miser, 0);
	miser_gives(&s.miser, 1);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_int_equal(info_of(s.ram.region).huge_bytes, 4 * MIB);
	assert_huge(&s.ram, BACKING_SHMEM);
	assert_pages(&contents, 0, 2 * BLOCK_PAGES, s.ram.addr);
	assert_asked_once(&s);
	end(&s);
}

static bool is_back(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->signal) != -1;
}

static bool are_known(void *arg)
{
	return stats_of(arg).faults_claimed >= 3;
}

/*
 * The arrival of a page that fill requested wakes the threads that wait for it. Its block is not
 * full, so no collapse would wake them instead.
 */
static void wakes_who_waits_for_fill(bool sleeps)
{
	struct waiter w[3];
	struct scene s;

	begin(&s, BACKING_SHMEM, sleeps);
	await_the_rest(&s);
	for (unsigned int i = 0; i < 3; i++)
		waiter_start(&w[i], s.ram.addr + (kept_pages[0] + 3 * i) * PAGE);
	assert_true(eventually(are_known, s.h, SOON_MS));
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(atomic_load(&w[i].signal), -1);
	miser_gives(&s.miser, 0);
	for (unsigned int i = 0; i < 3; i++) {
		uint64_t page = ((const char *)w[i].addr - s.ram.addr) / PAGE;
		uint64_t words[BLOCK_PAGES];

		if (!eventually(is_back, &w[i], SOON_MS))
			fail_msg("who waits for page %llu sleeps although it has come",
				 (unsigned long long)page);
		waiter_join(&w[i]);
		assert_int_equal(w[i].signal, 0);
		contents_write(&contents, page, 1, words);
		assert_int_equal(w[i].value, (uint8_t)words[0]);
	}
	assert_int_equal(progress_of(s.h).present_bytes, 4 * MIB - s.miser.kept[1].length);
	miser_gives(&s.miser, 1);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_huge(&s.ram, BACKING_SHMEM);
	assert_pages(&contents, 0, 2 * BLOCK_PAGES, s.ram.addr);
	assert_asked_once(&s);
	end(&s);
}

static void wakes_those_who_wait_for_fill(void **state)
{
	(void)state;
	wakes_who_waits_for_fill(false);
	wakes_who_waits_for_fill(true);
}

#define BAD ((uint64_t)700)

static int64_t read_but_bad(void *user, const struct hgm_io *io)
{
	uint64_t page = io->offset / PAGE, pages = io->length / PAGE;

	(void)user;
	if (page <= BAD && BAD < page + pages)
		return -EIO;
	contents_write(&contents, page, pages, io->buf);
	return (int64_t)io->length;
}

static bool all_but_one_came(void *arg)
{
	return info_of(arg).present_bytes == 6 * MIB - PAGE;
}

/* A block with a page that is given up is never full, so no page of it waits for its collapse. */
static void maps_around_a_bad_page(void **state)
{
	struct hgm *h = engine_with((struct hgm_opts){ .retries = HGM_RETRY_NEVER });
	struct hgm_source *src;
	uint64_t faults;
	uint8_t value;
	struct ram ram;

	(void)state;
	skip_unless(KERNEL_POISON);
	assert_ok(hgm_source_fn(&src, read_but_bad, NULL, NULL));
	ram_make(&ram, h, BACKING_SHMEM, 6 * MIB, src, 0);
	collapsing_watch(&ram);
	assert_ok(hgm_start(h));
	assert_true(eventually(all_but_one_came, ram.region, WAIT_MS));
	assert_int_equal(touch(ram.addr + BAD * PAGE, &value), SIGBUS);
	assert_int_equal(hgm_wait(h, WAIT_MS), -EIO);
	assert_int_equal(info_of(ram.region).huge_bytes, 4 * MIB);
	assert_int_equal(collapsing_continued(1), 511);
	faults = stats_of(h).faults;
	assert_pages(&contents, 0, BAD, ram.addr);
	assert_pages(&contents, BAD + 1, 6 * MIB / PAGE - BAD - 1, ram.addr + (BAD + 1) * PAGE);
	assert_int_equal(stats_of(h).faults, faults);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, collapsing_set_up, collapsing_tear_down)

static const struct CMUnitTest tests[] = {
	CASE(maps_around_a_bad_page),
	CASE(serves_a_block_that_lacks_pages),
	CASE(wakes_those_who_wait_for_fill),
};

TEST_MAIN(tests)
