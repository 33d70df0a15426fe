/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that is discarded, as a balloon does, before and while its writes are tracked or watched.
 * A reader gets zeroes at once, and a later write is noticed like any other.
 */
#include "harness.h"
#include "kernel/sys.h"
#include "util/bits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(4 * MIB)
#define PAGES	(LENGTH / PAGE)
/* The memory that is discarded, in whole blocks because of hugetlb, and one page in it. */
#define HOLE	 (2 * MIB)
#define HOLE_END (4 * MIB)
#define IN_HOLE	 (3 * MIB)

static const struct contents contents = { .seed = 101 };
static const enum backing backings[] = {
	BACKING_FD,   BACKING_FD_LAZY,	    BACKING_MAPPING,
	BACKING_ANON, BACKING_MAPPING_ANON, BACKING_FD_HUGETLB_2M
};
#define EACH_BACKING (sizeof(backings) / sizeof(backings[0]))

struct scene {
	enum backing backing;
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	_Atomic unsigned int asked;
};

static bool begin(struct scene *s, enum backing backing, uint32_t flags)
{
	memset(s, 0, sizeof(*s));
	if (backing_lacking(backing, LENGTH))
		return false;
	watch(backing_names[backing], 60);
	s->backing = backing;
	s->provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	s->h = engine(2);
	ram_make(&s->ram, s->h, backing, LENGTH, provider_source(s->provider), flags);
	assert_ok(hgm_start(s->h));
	assert_ok(hgm_wait(s->h, WAIT_MS));
	return true;
}

static void end(struct scene *s)
{
	ram_end(&s->ram);
	hgm_destroy(s->h);
	provider_free(s->provider);
	calm();
}

static void discard(const struct scene *s)
{
	int rc;

	if (s->ram.fd >= 0)
		rc = fallocate(s->ram.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, HOLE,
			       HOLE_END - HOLE);
	else
		rc = madvise(s->ram.addr + HOLE, HOLE_END - HOLE, MADV_DONTNEED);
	if (rc)
		fail_msg("discarding: %s", strerrorname_np(errno));
}

static bool is_back(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->signal) != -1;
}

static void assert_reads_zero(const struct scene *s, uint64_t offset)
{
	struct waiter w;

	waiter_start(&w, s->ram.addr + offset);
	if (!eventually(is_back, &w, 5000))
		fail_msg("%s: who reads discarded memory is left asleep",
			 backing_names[s->backing]);
	waiter_join(&w);
	assert_int_equal(w.signal, 0);
	assert_int_equal(w.value, 0);
}

static void poke(const struct scene *s, uint64_t offset)
{
	*(volatile char *)(s->ram.addr + offset) += 1;
}

static bool is_dirty(struct hgm_dirty *d, uint64_t offset)
{
	uint64_t bitmap[PAGES / 64], page = offset / PAGE;

	assert_ok(hgm_dirty_collect(d, 0, PAGES, bitmap, NULL));
	return bitmap[page / 64] >> page % 64 & 1;
}

/*
 * This takes a while. A fault is counted after its waiter has been served. While a full block's
 * registration is renewed for its collapse, the kernel itself gives zeroes.
 */
static bool faults_again(void *arg)
{
	struct scene *s = arg;
	uint64_t before = stats_of(s->h).faults;

	discard(s);
	assert_reads_zero(s, IN_HOLE + 60 * PAGE);
	return stats_of(s->h).faults > before;
}

static void tracked(enum backing backing, uint32_t way, uint32_t flags, bool before)
{
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = way };
	struct hgm_dirty *d;
	struct scene s;

	if (!begin(&s, backing, flags))
		return;
	if (before)
		discard(&s);
	assert_ok(hgm_dirty_start(&d, s.ram.region, &o));
	if (!before)
		discard(&s);
	is_dirty(d, 0);
	for (unsigned int round = 0; round < 3; round++) {
		uint64_t at = IN_HOLE + round * 4 * PAGE;

		assert_reads_zero(&s, at);
		is_dirty(d, 0);
		poke(&s, at);
		poke(&s, at + PAGE); /* no thread has read this page */
		if (!is_dirty(d, at))
			fail_msg("%s, way %u: lost: written after it was read",
				 backing_names[backing], way);
		poke(&s, at + 2 * PAGE);
		if (!is_dirty(d, at + 2 * PAGE))
			fail_msg("%s, way %u: lost: the first write", backing_names[backing], way);
		/* A neighbour of pages that are protected again. */
		assert_reads_zero(&s, at + 3 * PAGE);
	}
	hgm_dirty_stop(d);
	assert_reads_zero(&s, IN_HOLE + 50 * PAGE);
	/* The engine serves the memory again, whichever part of it had registered the memory. */
	discard(&s);
	assert_reads_zero(&s, IN_HOLE + 60 * PAGE);
	if (backing == BACKING_ANON)
		assert_true(eventually(faults_again, &s, 5000));
	end(&s);
}

static void no_write_to_it_is_lost(void **state)
{
	static const uint32_t ways[] = { 0, HGM_DIRTY_SYNC, HGM_DIRTY_SYNC | HGM_DIRTY_ARRIVALS };
	unsigned int turn = 0;

	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		for (size_t k = 0; k < sizeof(ways) / sizeof(ways[0]); k++) {
			if (turn_of(&turn, 2))
				tracked(backings[i], ways[k], 0, true);
			if (turn_of(&turn, 2))
				tracked(backings[i], ways[k], 0, false);
			if (turn_of(&turn, 2))
				tracked(backings[i], ways[k], HGM_REGION_NO_COLLAPSE, true);
		}
	}
}

static enum hgm_write_verdict count(void *user, struct hgm_region *r, const struct hgm_span *what)
{
	struct scene *s = user;

	(void)r;
	(void)what;
	atomic_fetch_add(&s->asked, 1);
	return HGM_WRITE_ALLOW;
}

/* A discard does not remove the protection. The watch is asked about the write that follows. */
static void asked_of_it(enum backing backing, bool before)
{
	struct hgm_watch_opts o = { .size = sizeof(o), .write = count };
	struct scene s;

	if (!begin(&s, backing, 0))
		return;
	o.user = &s;
	if (before)
		discard(&s);
	assert_ok(hgm_region_watch(s.ram.region, &o));
	assert_ok(hgm_region_protect(s.ram.region, 0, LENGTH, 0, NULL));
	if (!before)
		discard(&s);
	poke(&s, IN_HOLE);
	if (!atomic_load(&s.asked))
		fail_msg("%s: nobody was asked", backing_names[backing]);
	assert_reads_zero(&s, IN_HOLE + PAGE);
	poke(&s, IN_HOLE + PAGE);
	assert_ok(hgm_region_unprotect(s.ram.region, 0, LENGTH, 0, NULL));
	assert_reads_zero(&s, IN_HOLE + 2 * PAGE);
	end(&s);
}

static void asked_of_writes_to_it(void **state)
{
	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		asked_of_it(backings[i], true);
		asked_of_it(backings[i], false);
	}
}

/* A collection while hgm_region_discard() drops the memory, just before or just after the drop. */
static struct {
	const struct hgm_sys *kernel;
	struct hgm_sys sys;
	_Atomic(struct hgm_dirty *) dirty;
	bool behind;
	bool found;
} collector;

static int punch_hole(int fd, uint64_t offset, uint64_t len)
{
	struct hgm_dirty *d = atomic_exchange(&collector.dirty, NULL);
	int rc;

	if (d && !collector.behind) {
		collector.found = is_dirty(d, IN_HOLE);
		is_dirty(d, IN_HOLE);
	}
	rc = collector.kernel->punch_hole(fd, offset, len);
	if (d && collector.behind)
		collector.found = is_dirty(d, IN_HOLE);
	return rc;
}

/* An earlier write is in the next collection. Pages that became zero are in the last one. */
static void collected_in_the_midst(enum backing backing, uint32_t way, bool behind)
{
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = way };
	struct hgm_dirty *d;
	struct scene s;

	if (!begin(&s, backing, 0))
		return;
	assert_ok(hgm_dirty_start(&d, s.ram.region, &o));
	is_dirty(d, IN_HOLE);
	poke(&s, IN_HOLE);
	collector.behind = behind;
	atomic_store(&collector.dirty, d);
	assert_ok(hgm_region_discard(s.ram.region, HOLE, HOLE_END - HOLE));
	if (!collector.found)
		fail_msg("%s, way %u: lost: written before it was discarded",
			 backing_names[backing], way);
	if (!behind && !is_dirty(d, IN_HOLE))
		fail_msg("%s, way %u: lost: discarded behind a collection", backing_names[backing],
			 way);
	hgm_dirty_stop(d);
	end(&s);
}

static void written_before(void **state)
{
	static const enum backing files[] = { BACKING_FD, BACKING_FD_LAZY, BACKING_MAPPING,
					      BACKING_FD_HUGETLB_2M };
	static const uint32_t ways[] = { 0, HGM_DIRTY_SYNC };

	(void)state;
	collector.kernel = hgm_sys;
	collector.sys = *hgm_sys;
	collector.sys.punch_hole = punch_hole;
	hgm_sys = &collector.sys;
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		for (size_t k = 0; k < 4; k++)
			collected_in_the_midst(files[i], ways[k / 2], k % 2);
	hgm_sys = collector.kernel;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(no_write_to_it_is_lost),
	cmocka_unit_test(written_before),
	cmocka_unit_test(asked_of_writes_to_it),
};

TEST_MAIN(tests)
