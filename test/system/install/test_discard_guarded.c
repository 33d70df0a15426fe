/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Discards of memory whose writes are watched, and stores that bypass write-protection. A reader of
 * discarded memory gets zeroes although writers must wait. A snapshot gets the contents at its
 * instant. Changed memory is dirty.
 */
#include "discarding.h"

#include "snapshotting.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(4 * MIB)
#define PAGES	(LENGTH / PAGE)
#define HOLE	(2 * MIB) /* a whole block, because of hugetlb */

static const struct contents contents = { .seed = 229 };
static const enum backing backings[] = {
	BACKING_SHMEM,	 BACKING_SHMEM_LAZY, BACKING_ANON,	   BACKING_FD,
	BACKING_FD_LAZY, BACKING_MAPPING,    BACKING_MAPPING_ANON, BACKING_FD_HUGETLB_2M,
};

#define EACH_BACKING (sizeof(backings) / sizeof(backings[0]))

struct trial {
	enum backing backing;
	char what[100];
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
};

static bool begin(struct trial *t, enum backing backing, const char *how)
{
	if (backing_lacking(backing, LENGTH))
		return false;
	memset(t, 0, sizeof(*t));
	t->backing = backing;
	snprintf(t->what, sizeof(t->what), "%s, %s", backing_names[backing], how);
	watch(t->what, 60);
	t->provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	t->h = engine(2);
	ram_make(&t->ram, t->h, backing, LENGTH, provider_source(t->provider), 0);
	assert_ok(hgm_start(t->h));
	assert_ok(hgm_wait(t->h, WAIT_MS));
	return true;
}

/* False: there is no such memory, or it is not this trial's turn. */
static bool begin_in_turn(struct trial *t, enum backing backing, const char *how)
{
	static unsigned int turn;

	return turn_of(&turn, 3) && begin(t, backing, how);
}

static void end(struct trial *t)
{
	assert_int_equal(progress_of(t->h).poisoned_bytes, 0);
	ram_end(&t->ram);
	hgm_destroy(t->h);
	provider_free(t->provider);
	calm();
}

static bool is_back(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->signal) != -1;
}

static void assert_reads_zero(const struct trial *t, uint64_t offset)
{
	struct waiter w;

	waiter_start(&w, t->ram.addr + offset);
	if (!eventually(is_back, &w, 3000))
		fail_msg("%s: who reads discarded memory is left asleep", t->what);
	waiter_join(&w);
	assert_int_equal(w.signal, 0);
	assert_int_equal(w.value, 0);
}

/* Writers of protected memory wait. Readers of a hole in it do not. */
static void wait_verdict(enum backing backing, enum way way, bool before)
{
	struct hgm_watch_opts o = { .size = sizeof(o), .verdict = HGM_WRITE_WAIT };
	struct poker poker;
	struct trial t;

	if (!begin(&t, backing, way_names[way]))
		return;
	if (before)
		discard_by(way, &t.ram, HOLE, 2 * MIB);
	assert_ok(hgm_region_watch(t.ram.region, &o));
	assert_ok(hgm_region_protect(t.ram.region, 0, LENGTH, 0, NULL));
	if (!before)
		discard_by(way, &t.ram, HOLE, 2 * MIB);
	assert_reads_zero(&t, HOLE + 40 * PAGE);
	assert_reads_zero(&t, HOLE + 41 * PAGE);
	poker_start(&poker, t.ram.addr + HOLE + 40 * PAGE);
	nap_us(20000);
	if (poker_done(&poker))
		fail_msg("%s: a write to what was discarded is not asked for", t.what);
	assert_ok(hgm_region_unprotect(t.ram.region, 0, LENGTH, 0, NULL));
	assert_true(eventually(poker_done, &poker, 5000));
	pthread_join(poker.thread, NULL);
	assert_int_equal(t.ram.addr[HOLE + 40 * PAGE], 1);
	assert_ok(hgm_region_unwatch(t.ram.region));
	assert_zeroes(t.ram.addr + HOLE + 41 * PAGE, 2 * MIB - 41 * PAGE, t.what);
	end(&t);
}

static void readers_do_not_wait_for_writers(void **state)
{
	unsigned int turn = 0;

	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		for (enum way way = 0; way < WAYS; way++) {
			if (!way_drops(way, backings[i]))
				continue;
			if (turn_of(&turn, 4))
				wait_verdict(backings[i], way, true);
			if (way != WAY_CALL && turn_of(&turn, 4)) /* the call is refused */
				wait_verdict(backings[i], way, false);
		}
	}
}

static void refused_by_a_watch(void **state)
{
	struct hgm_watch_opts o = { .size = sizeof(o), .verdict = HGM_WRITE_WAIT };
	struct trial t;

	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		if (!begin_in_turn(&t, backings[i], "under a watch"))
			continue;
		assert_ok(hgm_region_watch(t.ram.region, &o));
		assert_ok(hgm_region_protect(t.ram.region, 2 * MIB, 2 * MIB, 0, NULL));
		assert_error(hgm_region_discard(t.ram.region, 0, LENGTH), -EBUSY);
		assert_error(hgm_region_discard(t.ram.region, 3 * MIB, PAGE), -EBUSY);
		assert_error(hgm_region_before_write(t.ram.region, 3 * MIB, PAGE), -EBUSY);
		assert_pages(&contents, 0, PAGES, t.ram.addr);
		assert_ok(hgm_region_before_write(t.ram.region, 0, 2 * MIB));
		assert_ok(hgm_region_discard(t.ram.region, 0, 2 * MIB));
		assert_reads_zero(&t, PAGE);
		assert_ok(hgm_region_unprotect(t.ram.region, 0, LENGTH, 0, NULL));
		assert_ok(hgm_region_discard(t.ram.region, 2 * MIB, 2 * MIB));
		assert_ok(hgm_region_unwatch(t.ram.region));
		assert_zeroes(t.ram.addr, LENGTH, t.what);
		end(&t);
	}
}

static enum hgm_write_verdict count(void *user, struct hgm_region *r, const struct hgm_span *what)
{
	_Atomic unsigned int *asked = user;

	(void)r;
	(void)what;
	atomic_fetch_add(asked, 1);
	return HGM_WRITE_ALLOW;
}

/* A watch that allows writes is asked about a discard, and about hgm_region_before_write(). */
static void asked_by_the_calls(void **state)
{
	_Atomic unsigned int asked = 0;
	struct hgm_watch_opts o = { .size = sizeof(o), .write = count, .user = &asked };
	struct trial t;

	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		unsigned int units = backings[i] >= BACKINGS_SMALL ? 1 : 4;

		if (!begin_in_turn(&t, backings[i], "asked"))
			continue;
		assert_ok(hgm_region_watch(t.ram.region, &o));
		assert_ok(hgm_region_protect(t.ram.region, 0, LENGTH, 0, NULL));
		atomic_store(&asked, 0);
		assert_ok(hgm_region_before_write(t.ram.region, 100 * PAGE, 4 * PAGE));
		assert_int_equal(atomic_load(&asked), units);
		assert_ok(hgm_region_discard(t.ram.region, HOLE, 2 * MIB));
		assert_int_equal(atomic_load(&asked), units + (units > 1 ? 512 : 1));
		assert_ok(hgm_region_unwatch(t.ram.region));
		assert_zeroes(t.ram.addr + HOLE, 2 * MIB, t.what);
		assert_pages(&contents, 0, HOLE / PAGE, t.ram.addr);
		end(&t);
	}
}

static struct hgm_snapshot *held_snapshot(struct trial *t, struct sink *sink)
{
	struct hgm_snapshot *s;

	sink_clear(sink, LENGTH);
	atomic_store(&sink->hold, true);
	s = snapshot_of(t->h, &(struct hgm_snapshot_opts){ .write = sink_write, .user = sink });
	return s;
}

static void end_snapshot(struct hgm_snapshot *s, struct sink *sink)
{
	atomic_store(&sink->hold, false);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
}

/* The rest is discarded while the sweep is still at the first pages. */
static void what_was_there_at_the_instant(void **state)
{
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	struct trial t;

	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		if (!begin_in_turn(&t, backings[i], "under a snapshot"))
			continue;
		s = held_snapshot(&t, &sink);
		assert_ok(hgm_snapshot_begin(s));
		assert_ok(hgm_region_discard(t.ram.region, HOLE, 2 * MIB));
		assert_reads_zero(&t, HOLE + 5 * PAGE);
		t.ram.addr[HOLE + 6 * PAGE] = 1;
		end_snapshot(s, &sink);
		assert_pages(&contents, 0, PAGES, sink.got);
		assert_int_equal(t.ram.addr[HOLE + 6 * PAGE], 1);
		assert_zeroes(t.ram.addr + HOLE + 7 * PAGE, 2 * MIB - 7 * PAGE, t.what);
		end(&t);
	}
	free(sink.got);
}

/* A page that was dropped before it arrived is zero, not what the source has for it. */
static void dropped_before_the_instant(void **state)
{
	struct sink sink = { 0 };
	unsigned int turn = 0;

	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
		enum way way = way_drops(WAY_REMOVE, backings[i]) ? WAY_REMOVE : WAY_DONTNEED;
		struct hgm_snapshot *s;
		struct hgm *h;
		struct ram ram;

		/* For hugetlb only a touch reveals it. */
		if (backings[i] < BACKINGS_SMALL && turn_of(&turn, 3)) {
			watch(backing_names[backings[i]], 60);
			h = engine(2);
			ram_make(&ram, h, backings[i], LENGTH, provider_source(provider),
				 HGM_REGION_NO_FILL);
			assert_ok(hgm_start(h));
			sink_clear(&sink, LENGTH);
			s = snapshot_of(h, &(struct hgm_snapshot_opts){ .write = sink_write,
									.user = &sink });
			discard_by(way, &ram, HOLE, 2 * MIB);
			assert_ok(hgm_snapshot_begin(s));
			assert_ok(hgm_snapshot_wait(s, WAIT_MS));
			hgm_snapshot_destroy(s);
			assert_pages(&contents, 0, HOLE / PAGE, sink.got);
			assert_zeroes(sink.got + HOLE, 2 * MIB, backing_names[backings[i]]);
			ram_end(&ram);
			hgm_destroy(h);
			calm();
		}
		provider_free(provider);
	}
	free(sink.got);
}

/*
 * A store that has pinned its pages before they are protected: process_vm_writev(2) from source
 * memory that has not arrived yet.
 */
struct pinned {
	struct trial *t;
	struct ledger ledger;
	struct hgm *h;
	struct ram from;
	uint64_t offset;
	pthread_t thread;
};

static const struct contents stored = { .seed = 233 };

static void *store(void *arg)
{
	struct pinned *p = arg;
	struct iovec from = { .iov_base = p->from.addr, .iov_len = PAGE };
	struct iovec to = { .iov_base = p->t->ram.addr + p->offset, .iov_len = PAGE };

	assert_int_equal(process_vm_writev(getpid(), &from, 1, &to, 1, 0), PAGE);
	return NULL;
}

static bool is_pinned(void *arg)
{
	return ledger_kept(&((struct pinned *)arg)->ledger);
}

static void pin(struct pinned *p, struct trial *t, uint64_t offset)
{
	memset(p, 0, sizeof(*p));
	p->t = t;
	p->offset = offset;
	ledger_make(&p->ledger, &stored, 2 * MIB);
	atomic_store(&p->ledger.keep, true);
	p->h = engine(1);
	ram_make(&p->from, p->h, BACKING_ANON, 2 * MIB, p->ledger.source, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(p->h));
	assert_int_equal(pthread_create(&p->thread, NULL, store, p), 0);
	assert_true(eventually(is_pinned, p, 5000));
}

static void let_it_store(struct pinned *p)
{
	atomic_store(&p->ledger.keep, false);
	ledger_give(&p->ledger, LEDGER_REQUESTS);
	pthread_join(p->thread, NULL);
	assert_pages(&stored, 0, 1, p->t->ram.addr + p->offset);
	ram_end(&p->from);
	hgm_destroy(p->h);
	ledger_free(&p->ledger);
}

static void announced_to_a_snapshot(void **state)
{
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	struct pinned p;
	struct trial t;

	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		if (!begin_in_turn(&t, backings[i], "a store into pinned pages"))
			continue;
		s = held_snapshot(&t, &sink);
		pin(&p, &t, 3 * MIB);
		assert_ok(hgm_snapshot_begin(s));
		assert_ok(hgm_region_before_write(t.ram.region, 3 * MIB, PAGE));
		let_it_store(&p);
		end_snapshot(s, &sink);
		assert_pages(&contents, 0, PAGES, sink.got);
		end(&t);
	}
	free(sink.got);
}

static bool is_dirty(struct hgm_dirty *d, uint64_t page)
{
	uint64_t bitmap[PAGES / 64];

	assert_ok(hgm_dirty_collect(d, 0, PAGES, bitmap, NULL));
	return bitmap[page / 64] >> page % 64 & 1;
}

static void told_to_dirty_tracking(void **state)
{
	static const uint32_t ways[] = { 0, HGM_DIRTY_SYNC };
	struct hgm_dirty *d;
	struct pinned p;
	struct trial t;

	(void)state;
	for (size_t i = 0; i < 2 * EACH_BACKING; i++) {
		struct hgm_dirty_opts o = { .size = sizeof(o), .flags = ways[i % 2] };

		if (!begin_in_turn(&t, backings[i / 2], i % 2 ? "told, sync" : "told"))
			continue;
		assert_ok(hgm_dirty_start(&d, t.ram.region, &o));
		is_dirty(d, 0);
		pin(&p, &t, 3 * MIB);
		is_dirty(d, 0);
		let_it_store(&p);
		assert_ok(hgm_dirty_mark(d, 3 * MIB + 1, 1));
		assert_true(is_dirty(d, 3 * MIB / PAGE));
		assert_false(is_dirty(d, 3 * MIB / PAGE));
		hgm_dirty_stop(d);
		end(&t);
	}
}

static void marks_are_collected_once(void **state)
{
	uint64_t bitmap[PAGES / 64], dirty;
	struct trial t = { 0 };
	struct hgm_dirty *d;

	(void)state;
	assert_true(begin(&t, BACKING_SHMEM, "marks"));
	assert_ok(hgm_dirty_start(&d, t.ram.region, NULL));
	assert_ok(hgm_dirty_collect(d, 0, PAGES, bitmap, &dirty));
	assert_ok(hgm_dirty_mark(d, 0, 0));
	assert_ok(hgm_dirty_mark(d, PAGE - 1, 2));
	assert_ok(hgm_dirty_mark(d, 63 * PAGE, 3 * PAGE));
	assert_ok(hgm_dirty_mark(d, LENGTH - 1, 1));
	assert_ok(hgm_dirty_collect(d, 0, PAGES, bitmap, &dirty));
	assert_int_equal(dirty, 2 + 3 + 1);
	assert_int_equal(bitmap[0], 3 | UINT64_C(1) << 63);
	assert_int_equal(bitmap[1], 3);
	assert_int_equal(bitmap[PAGES / 64 - 1], UINT64_C(1) << 63);
	assert_ok(hgm_dirty_collect(d, 0, PAGES, bitmap, &dirty));
	assert_int_equal(dirty, 0);
	assert_error(hgm_dirty_mark(NULL, 0, 1), -EINVAL);
	assert_error(hgm_dirty_mark(d, LENGTH, 1), -EINVAL);
	assert_error(hgm_dirty_mark(d, 1, LENGTH), -EINVAL);
	assert_error(hgm_dirty_mark(d, UINT64_MAX, 2), -EINVAL);
	assert_ok(hgm_dirty_mark(d, LENGTH, 0));
	hgm_dirty_stop(d);
	end(&t);
}

/* For all memory and each way of tracking, discarded memory counts as changed. */
static void discards_are_dirty(enum backing backing, enum way way, uint32_t tracking)
{
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = tracking };
	uint64_t bitmap[PAGES / 64];
	struct hgm_dirty *d;
	struct trial t;

	if (!begin(&t, backing, way_names[way]))
		return;
	assert_ok(hgm_dirty_start(&d, t.ram.region, &o));
	for (unsigned int round = 0; round < SMALLER(3, 2); round++) {
		is_dirty(d, 0);
		is_dirty(d, 0);
		assert_false(is_dirty(d, HOLE / PAGE));
		discard_by(way, &t.ram, HOLE, 2 * MIB);
		assert_ok(hgm_dirty_collect(d, 0, PAGES, bitmap, NULL));
		for (uint64_t page = HOLE / PAGE; page < PAGES; page++)
			if (!(bitmap[page / 64] >> page % 64 & 1))
				fail_msg("%s, tracking %#x, round %u: discarded page %llu is clean",
					 t.what, tracking, round, (unsigned long long)page);
		/* It does not stay dirty for ever, and its next write is noticed. */
		is_dirty(d, 0);
		assert_reads_zero(&t, HOLE + PAGE);
		is_dirty(d, 0);
		assert_false(is_dirty(d, HOLE / PAGE));
		memset(t.ram.addr + HOLE, 0x5a, 2 * MIB);
		assert_true(is_dirty(d, HOLE / PAGE));
	}
	hgm_dirty_stop(d);
	end(&t);
}

static void what_was_discarded_is_dirty(void **state)
{
	static const uint32_t tracking[] = { 0, HGM_DIRTY_EXACT, HGM_DIRTY_SYNC };
	unsigned int turn = 0;

	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		for (enum way way = 0; way < WAYS; way++) {
			if (!way_drops(way, backings[i]) || way == WAY_PUNCH)
				continue;
			for (size_t k = 0; k < 3; k++)
				if ((k != 1 || backings[i] < BACKINGS_SMALL) && turn_of(&turn, 7))
					discards_are_dirty(backings[i], way, tracking[k]);
		}
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(readers_do_not_wait_for_writers),
	cmocka_unit_test(refused_by_a_watch),
	cmocka_unit_test(asked_by_the_calls),
	cmocka_unit_test(what_was_there_at_the_instant),
	cmocka_unit_test(dropped_before_the_instant),
	cmocka_unit_test(announced_to_a_snapshot),
	cmocka_unit_test(told_to_dirty_tracking),
	cmocka_unit_test(marks_are_collected_once),
	cmocka_unit_test(what_was_discarded_is_dirty),
};

TEST_MAIN(tests)
