/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write-protection that begins while some pages have arrived but are unmapped, because the collapse
 * of their blocks would have mapped them. No write is missed, and no false write is reported.
 */
#include "collapse/blocks.h"
#include "collapsing.h"
#include "snapshotting.h"
#include "kernel/sys.h"
#include "random.h"
#include "region/hgm.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

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
	uint64_t arrived; /* pages that have arrived when the wp owner begins */
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	struct hgm_dirty *d;
	struct hgm_snapshot *snapshot;
	struct sink sink;
	char *want, *instant; /* what memory holds now, and held when the wp owner began */
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
		assert_ok(hgm_region_watch(s->ram.region, &w));
		assert_ok(hgm_region_protect(s->ram.region, 0, LENGTH, 0, NULL));
		return;
	default:
		o.flags = dirty_flags[s->guard];
		assert_ok(hgm_dirty_start(&s->d, s->ram.region, &o));
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

/* A wp owner that reports writes must report all of them, and, if it is exact, no others. */
static void assert_found(struct scene *s)
{
	struct hgm_dirty_info info = { .size = sizeof(info), .unit_bytes = PAGE };
	bool exact = kernel_has(KERNEL_PAGEMAP_SCAN); /* before 6.4 arrivals look like writes */
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
		assert_ok(hgm_region_unwatch(s->ram.region));
	} else {
		hgm_dirty_stop(s->d);
	}
}

/* Uses random pages below @pages: writes the slot's mark, or reads. */
static void use(struct scene *s, uint64_t pages, unsigned int slot)
{
	for (uint64_t i = 0; i < pages / 4; i++) {
		uint64_t page = random_below(&s->random, pages);

		if (random_one_in(&s->random, 3)) {
			page_mark(page, s->ram.addr + page * PAGE, slot);
			page_mark(page, s->want + page * PAGE, slot);
			s->written[page / 64] |= UINT64_C(1) << page % 64;
		} else {
			assert_same(s->ram.addr + page * PAGE, s->want + page * PAGE, 1, "a look");
		}
	}
}

static bool has_come(void *arg)
{
	const struct scene *s = arg;

	return progress_of(s->h).present_bytes >= s->arrived * PAGE;
}

static void make(struct scene *s, enum backing backing, enum guard kind)
{
	memset(s, 0, sizeof(*s));
	s->random.state = random_seed();
	s->guard = kind;
	s->provider = provider_make(PROVIDER_NEVER, &contents, LENGTH);
	s->h = engine(2);
	s->want = malloc(LENGTH);
	s->instant = malloc(LENGTH);
	contents_write(&contents, 0, PAGES, s->want);
	sink_clear(&s->sink, LENGTH);
	ram_make(&s->ram, s->h, backing, LENGTH, provider_source(s->provider), 0);
	collapsing_watch(&s->ram);
}

static void end(struct scene *s)
{
	ram_end(&s->ram);
	hgm_destroy(s->h);
	provider_free(s->provider);
	free(s->sink.got);
	free(s->want);
	free(s->instant);
}

/* The collapse does not come, so its pages must be mapped. Before 6.4 protection unmaps. */
static void assert_all_mapped(struct scene *s)
{
	uint64_t faults = stats_of(s->h).faults;

	assert_same(s->ram.addr, s->want, PAGES, guard_names[s->guard]);
	faults = stats_of(s->h).faults - faults;
	if (s->guard != SNAPSHOT && kernel_has(KERNEL_PAGEMAP_SCAN) && faults)
		fail_msg("%s: %llu faults on pages that have arrived", guard_names[s->guard],
			 (unsigned long long)faults);
}

/* @refused: blocks that are not collapsed before it has ended */
static void begins(enum backing backing, enum guard kind, uint64_t arrived, uint64_t refused)
{
	struct scene s;

	make(&s, backing, kind);
	s.arrived = arrived;
	collapsing_refuse(refused, -EAGAIN, 1);
	provider_answer_below(s.provider, arrived);
	assert_ok(hgm_start(s.h));
	assert_true(eventually(has_come, &s, SOON_MS));
	if (arrived == HALF) /* only half of the block has arrived */
		assert_int_equal(collapsing_continued(1), 0);
	else if (!refused)
		assert_ok(hgm_wait(s.h, WAIT_MS));
	use(&s, arrived, 0);
	guard(&s);
	memset(s.written, 0, sizeof(s.written));
	use(&s, arrived, 1);
	collect(&s);
	provider_answer_below(s.provider, PAGES);
	provider_give(s.provider);
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
	assert_huge(&s.ram, backing);
	assert_same(s.ram.addr, s.want, PAGES, guard_names[kind]);
	end(&s);
}

static void each_guard(enum backing backing, uint64_t arrived)
{
	static const uint64_t refused[] = { 0, COLLAPSING_ALL_BLOCKS, 1 << 1 };
	unsigned int turn = 0;

	for (unsigned int kind = 0; kind < GUARDS; kind++)
		for (unsigned int i = 0; i < 3; i++)
			if (turn_of(&turn, 2))
				begins(backing, (enum guard)kind, arrived, refused[i]);
}

static void guard_begins_in_the_midst(void **state)
{
	(void)state;
	each_guard(BACKING_SHMEM, HALF);
}

/* All pages have arrived, and some are unmapped. The kernel may then record the writes. */
static void guard_begins_at_the_end(void **state)
{
	(void)state;
	each_guard(BACKING_FD, PAGES);
}

/* All pages have arrived, and their blocks wait for a collapser that is busy with the first. */
static void guard_begins_while_blocks_wait(void **state)
{
	(void)state;
	for (unsigned int kind = 0; kind < SNAPSHOT; kind++) {
		struct scene s;

		make(&s, BACKING_FD, (enum guard)kind);
		s.arrived = PAGES;
		collapsing_take_us(50000);
		provider_answer_below(s.provider, PAGES);
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
		assert_huge(&s.ram, BACKING_FD);
		assert_same(s.ram.addr, s.want, PAGES, guard_names[kind]);
		end(&s);
	}
}

/*
 * Write-protected blocks are not collapsed. Pages are mapped as they arrive, as without a collapse.
 */
static void guard_begins_before_fill(void **state)
{
	(void)state;
	for (unsigned int kind = 0; kind < SNAPSHOT; kind++) {
		uint64_t faults;
		struct scene s;

		make(&s, BACKING_SHMEM, (enum guard)kind);
		provider_answer_below(s.provider, PAGES);
		guard(&s);
		assert_ok(hgm_start(s.h));
		assert_ok(hgm_wait(s.h, WAIT_MS));
		for (uint64_t block = 0; block < PAGES / BLOCK_PAGES; block++)
			assert_int_equal(collapsing_continued(block), BLOCK_PAGES);
		assert_int_equal(collapsing_continued(3), PAGES % BLOCK_PAGES);
		faults = stats_of(s.h).faults;
		assert_same(s.ram.addr, s.want, PAGES, guard_names[kind]);
		assert_int_equal(stats_of(s.h).faults, faults);
		use(&s, PAGES, 1);
		collect(&s);
		assert_found(&s);
		unguard(&s);
		assert_huge(&s.ram, BACKING_SHMEM);
		assert_same(s.ram.addr, s.want, PAGES, guard_names[kind]);
		end(&s);
	}
}

/*
 * A page is touched each time the collapser looks whether its block has become huge. So the block
 * does not count as huge although it is.
 */
static struct {
	const struct hgm_sys *kernel;
	_Atomic(struct hgm_region *) r; /* NULL: nothing is touched */
	uint64_t block;
} doubted;

static int doubted_scan(int fd, const void *start, const void *end, uint64_t category,
			struct hgm_pm_region *found, uint64_t n, uint64_t *walk_end)
{
	struct hgm_region *r = atomic_load(&doubted.r);
	uint8_t collapsing = HGM_BLOCK_COLLAPSING;
	int rc = doubted.kernel->pagemap_scan(fd, start, end, category, found, n, walk_end);

	if (r && start == r->view.base + doubted.block * r->block_bytes)
		atomic_compare_exchange_strong(&r->collapse->state[doubted.block], &collapsing,
					       HGM_BLOCK_TOUCHED);
	return rc;
}

static bool is_doubted(void *arg)
{
	const struct scene *s = arg;
	const struct hgm_region *r = s->ram.region;

	return stats_of(s->h).collapsed_blocks >= 2 && /* the other blocks */
	       hgm_collapse_may_be_huge(r, doubted.block);
}

/* A block that is huge, but does not count as huge, is mapped again when it is protected. */
static void guard_begins_while_a_block_is_in_doubt(void **state)
{
	static struct hgm_sys sys;

	(void)state;
	if (!kernel_has(KERNEL_PAGEMAP_SCAN))
		return; /* the library asks smaps, later */
	doubted.kernel = hgm_sys;
	doubted.block = 1;
	sys = *hgm_sys;
	sys.pagemap_scan = doubted_scan;
	hgm_sys = &sys;
	for (unsigned int kind = 0; kind < SNAPSHOT; kind++) {
		struct scene s;

		make(&s, BACKING_SHMEM, (enum guard)kind);
		s.arrived = PAGES;
		atomic_store(&doubted.r, s.ram.region);
		provider_answer_below(s.provider, PAGES);
		assert_ok(hgm_start(s.h));
		assert_true(eventually(is_doubted, &s, WAIT_MS));
		guard(&s);
		assert_ok(hgm_wait(s.h, WAIT_MS));
		assert_all_mapped(&s);
		atomic_store(&doubted.r, NULL);
		unguard(&s);
		assert_huge(&s.ram, BACKING_SHMEM);
		assert_same(s.ram.addr, s.want, PAGES, guard_names[kind]);
		end(&s);
	}
	hgm_sys = doubted.kernel;
}

/*
 * A thread that leaves arrived pages to the collapse wakes the threads that wait for them. It does
 * so when the last pages are present, before it counts them. This thread is stopped there.
 */
static struct {
	const struct hgm_sys *kernel;
	_Atomic(struct hgm_region *) r; /* NULL: none is stopped */
	_Atomic bool stays;
	_Atomic bool let_go;
} last;

static __thread bool is_starting;

static bool is_let_go(void *arg)
{
	(void)arg;
	return atomic_load(&last.let_go);
}

static bool is_counted_off(void *arg)
{
	return !atomic_load(&((struct hgm_region *)arg)->open_pages);
}

static int staying_wake(int fd, void *addr, uint64_t len)
{
	struct hgm_region *r = atomic_load(&last.r);

	if (r && len < 2 * MIB && info_of(r).present_bytes == r->length) {
		atomic_store(&last.stays, true);
		eventually(is_let_go, NULL, WAIT_MS);
	}
	return last.kernel->uffd_wake(fd, addr, len);
}

/* The library's calls resolve to this function of the program before the C library's. */
int sched_yield(void)
{
	if (!is_starting)
		return (int)syscall(SYS_sched_yield);
	atomic_store(&last.let_go, true);
	return eventually(is_counted_off, atomic_load(&last.r), WAIT_MS) ? 0 : -1;
}

static bool one_stays(void *arg)
{
	(void)arg;
	return atomic_load(&last.stays);
}

/* Callers see that all is present, and dirty tracking sees it too. */
static void guard_begins_before_the_last_is_counted(void **state)
{
	struct provider *provider;
	struct hgm_dirty_info info = { .size = sizeof(info) };
	static struct hgm_sys sys;
	struct hgm_dirty *d;
	struct ram ram;
	struct hgm *h;

	(void)state;
	if (!kernel_has(KERNEL_PAGEMAP_SCAN))
		return; /* all tracking is synchronous, so there is no difference */
	provider = provider_make(PROVIDER_NEVER, &contents, 4 * MIB);
	last.kernel = hgm_sys;
	sys = *hgm_sys;
	sys.uffd_wake = staying_wake;
	hgm_sys = &sys;
	h = engine(1);
	ram_make(&ram, h, BACKING_SHMEM, 4 * MIB, provider_source(provider), 0);
	last.stays = last.let_go = false;
	atomic_store(&last.r, ram.region);
	provider_answer_below(provider, 4 * MIB / PAGE);
	assert_ok(hgm_start(h));
	assert_true(eventually(one_stays, NULL, WAIT_MS));
	assert_int_equal(info_of(ram.region).present_bytes, 4 * MIB);
	assert_false(is_counted_off(ram.region));
	is_starting = true;
	assert_ok(hgm_dirty_start(&d, ram.region, NULL));
	is_starting = false;
	atomic_store(&last.let_go, true);
	assert_ok(hgm_dirty_get_info(d, &info));
	if (info.flags & HGM_DIRTY_SYNC)
		fail_msg("all is present, and dirty tracking is %s", info.sentence);
	assert_ok(hgm_wait(h, WAIT_MS));
	hgm_dirty_stop(d);
	assert_pages(&contents, 0, 4 * MIB / PAGE, ram.addr);
	atomic_store(&last.r, NULL);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	hgm_sys = last.kernel;
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, collapsing_set_up, collapsing_tear_down)

static const struct CMUnitTest tests[] = {
	CASE(guard_begins_in_the_midst),
	CASE(guard_begins_at_the_end),
	CASE(guard_begins_while_blocks_wait),
	CASE(guard_begins_before_fill),
	CASE(guard_begins_while_a_block_is_in_doubt),
	CASE(guard_begins_before_the_last_is_counted),
};

TEST_MAIN(tests)
