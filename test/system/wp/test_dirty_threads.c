/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Many threads use dirty tracking and watches at a time, while others write, and end them while
 * they are in use. Nothing is lost, no thread hangs, and each refusal has a text.
 */
#include "snapshotting.h"
#include "random.h"
#include "util/bits.h"

#include <errno.h>
#include <stdlib.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(4 * MIB)
#define PAGES	(LENGTH / PAGE)
#define WORDS	(PAGES / 64)
#define THREADS 3

static const struct contents contents = { .seed = 106 };

struct scene {
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	struct hgm_dirty *d;
	_Atomic uint64_t found[WORDS];
	_Atomic uint64_t seed;
	_Atomic bool stop;
	_Atomic unsigned int done; /* calls that were not refused */
};

static bool begin(struct scene *s, enum backing backing)
{
	memset(s, 0, sizeof(*s));
	if (backing_lacking(backing, LENGTH))
		return false;
	watch(backing_names[backing], 100);
	s->provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	s->h = engine(2);
	ram_make(&s->ram, s->h, backing, LENGTH, provider_source(s->provider), 0);
	assert_ok(hgm_start(s->h));
	assert_ok(hgm_wait(s->h, WAIT_MS));
	s->seed = random_seed();
	return true;
}

static void end(struct scene *s)
{
	ram_end(&s->ram);
	hgm_destroy(s->h);
	provider_free(s->provider);
	calm();
}

static int collect_some(struct scene *s, uint64_t first, uint64_t pages)
{
	uint64_t bitmap[WORDS];
	int rc = hgm_dirty_collect(s->d, first, pages, bitmap, NULL);

	for (uint64_t w = 0; !rc && w * 64 < pages; w++)
		atomic_fetch_or(&s->found[first / 64 + w], bitmap[w]);
	return rc;
}

static void *collector(void *arg)
{
	struct scene *s = arg;
	int rc = 0;

	while (!rc && !atomic_load(&s->stop)) {
		uint64_t first = random_of(&s->seed) % PAGES / 64 * 64;

		rc = collect_some(s, first, 1 + random_of(&s->seed) % (PAGES - first));
		if (!rc)
			atomic_fetch_add(&s->done, 1);
	}
	return (void *)(intptr_t)rc;
}

static void start(pthread_t *thread, void *(*fn)(void *), struct scene *s)
{
	for (unsigned int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, fn, s), 0);
}

static void join(const pthread_t *thread, int want)
{
	for (unsigned int i = 0; i < THREADS; i++) {
		void *rc;

		pthread_join(thread[i], &rc);
		assert_int_equal((intptr_t)rc, want);
	}
}

static void collected_by_many(enum backing backing, uint32_t way)
{
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = way };
	uint64_t *before[WRITERS];
	pthread_t thread[THREADS];
	struct writers writers;
	struct scene s;

	if (!begin(&s, backing))
		return;
	writers_start(&writers, &contents, s.ram.addr, PAGES);
	writers_pause(&writers);
	for (unsigned int i = 0; i < WRITERS; i++) {
		before[i] = malloc(PAGES * sizeof(uint64_t));
		memcpy(before[i], writers.writer[i].last, PAGES * sizeof(uint64_t));
	}
	assert_ok(hgm_dirty_start(&s.d, s.ram.region, &o));
	start(thread, collector, &s);
	writers_resume(&writers);
	nap_us(200000);
	writers_pause(&writers);
	atomic_store(&s.stop, true);
	join(thread, 0);
	assert_ok(collect_some(&s, 0, PAGES));
	for (uint64_t p = 0; p < PAGES; p++)
		for (unsigned int i = 0; i < WRITERS; i++)
			if (writers.writer[i].last[p] != before[i][p] &&
			    !(s.found[p / 64] >> p % 64 & 1))
				fail_msg("%s, way %u: page %llu is in nobody's collection",
					 backing_names[backing], way, (unsigned long long)p);
	writers_resume(&writers);
	hgm_dirty_stop(s.d);
	writers_end(&writers);
	for (unsigned int i = 0; i < WRITERS; i++)
		free(before[i]);
	end(&s);
}

static void several_collectors(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON, BACKING_HUGETLB_2M };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		collected_by_many(backings[i], 0);
		collected_by_many(backings[i], HGM_DIRTY_SYNC);
	}
}

static void *destroyer(void *arg)
{
	struct scene *s = arg;

	hgm_region_destroy(s->ram.region);
	return NULL;
}

/* The region ends while its pages are collected, and while tracking ends. */
static void gone_meanwhile(enum backing backing, uint32_t way, bool at_once)
{
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = way };
	pthread_t thread[THREADS], last;
	struct holdings before = take_holdings();
	struct scene s;

	if (!begin(&s, backing))
		return;
	assert_ok(hgm_dirty_start(&s.d, s.ram.region, &o));
	if (!at_once) {
		start(thread, collector, &s);
		nap_us(3000);
	}
	pthread_create(&last, NULL, destroyer, &s);
	if (!at_once)
		join(thread, -ECANCELED);
	hgm_dirty_stop(s.d);
	pthread_join(last, NULL);
	s.ram.region = NULL;
	end(&s);
	assert_int_equal(take_holdings().descriptors, before.descriptors);
	assert_int_equal(take_holdings().threads, before.threads);
}

static void region_goes_first(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_MAPPING,
						 BACKING_MAPPING_ANON };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		for (unsigned int round = 0; round < SMALLER(6, 2); round++) {
			gone_meanwhile(backings[i], 0, round % 2);
			gone_meanwhile(backings[i], HGM_DIRTY_SYNC, round % 2);
		}
	}
}

static int some_call(struct scene *s, uint64_t random)
{
	struct hgm_watch_opts o = { .size = sizeof(o), .verdict = random >> 32 & 1 };
	uint64_t offset = random % LENGTH, length = 1 + (random >> 16) % (LENGTH - offset);

	switch (random >> 60) {
	case 0:
		return hgm_region_unwatch(s->ram.region);
	case 1:
	case 2:
		return hgm_region_watch(s->ram.region, &o);
	case 3:
	case 4:
	case 5:
	case 6:
		return hgm_region_protect(s->ram.region, offset, length, HGM_PROTECT_ROUND, NULL);
	default:
		return hgm_region_unprotect(s->ram.region, offset, length, HGM_PROTECT_ROUND, NULL);
	}
}

static void *caller(void *arg)
{
	struct scene *s = arg;

	while (!atomic_load(&s->stop)) {
		int rc = some_call(s, random_of(&s->seed));

		if (rc && rc != -EINVAL && rc != -EBUSY)
			return (void *)(intptr_t)rc;
		atomic_fetch_add(&s->done, !rc);
	}
	return NULL;
}

/* Threads watch, protect, unprotect and unwatch one region at random. In the end writers go on. */
static void watched_by_many(enum backing backing)
{
	pthread_t thread[THREADS];
	struct writers writers;
	struct scene s;

	if (!begin(&s, backing))
		return;
	writers_start(&writers, &contents, s.ram.addr, PAGES);
	start(thread, caller, &s);
	nap_us(400000);
	atomic_store(&s.stop, true);
	join(thread, 0);
	assert_true(s.done > 0);
	hgm_region_unwatch(s.ram.region); /* if a thread left it watched */
	writers_pause(&writers);
	writers_resume(&writers);
	writers_wait_for(&writers, 1, 20000);
	writers_end(&writers);
	end(&s);
}

static void several_watchers(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON, BACKING_FD_LAZY,
						 BACKING_HUGETLB_2M };

	(void)state;
	for (unsigned int i = 0; i < 4; i++)
		watched_by_many(backings[i]);
}

/* A source that does not answer keeps hgm_region_destroy() waiting: the region is still there. */
struct stuck {
	_Atomic bool go, asked;
};

static int64_t stuck_read(void *user, const struct hgm_io *io)
{
	struct stuck *s = user;

	atomic_store(&s->asked, true);
	while (!atomic_load(&s->go))
		nap_us(100);
	memset(io->buf, 1, io->length);
	return (int64_t)io->length;
}

static bool is_asked(void *arg)
{
	return atomic_load(&((struct stuck *)arg)->asked);
}

static void *destroy(void *region)
{
	hgm_region_destroy(region);
	return NULL;
}

/* Until then the result is -EBUSY, because the region has a wp owner already. */
static bool is_ending(void *region)
{
	return hgm_region_watch(region, NULL) == -ECANCELED;
}

/* The region's end ends its watch. */
static bool has_ended(void *region)
{
	return hgm_region_unwatch(region) == -EINVAL;
}

static void while_destroyed(void **state)
{
	struct hgm_source_fn_opts so = { .size = sizeof(so), .flags = HGM_SOURCE_BLOCKING };
	uint64_t bitmap[WORDS];
	struct stuck stuck[2] = { 0 };
	struct hgm_dirty *d, *late = NULL;
	struct hgm_source *src[2];
	struct ram ram[2];
	pthread_t thread[2];
	struct hgm *h;

	(void)state;
	watch("a region that is being destroyed", 60);
	h = engine(1);
	for (unsigned int i = 0; i < 2; i++) {
		assert_ok(hgm_source_fn(&src[i], stuck_read, &stuck[i], &so));
		ram_make(&ram[i], h, BACKING_SHMEM, LENGTH, src[i], 0);
	}
	assert_ok(hgm_start(h));
	for (unsigned int i = 0; i < 2; i++)
		assert_true(eventually(is_asked, &stuck[i], 5000));
	assert_ok(hgm_region_watch(ram[0].region, NULL));
	assert_ok(hgm_dirty_start(&d, ram[1].region, NULL));
	for (unsigned int i = 0; i < 2; i++)
		pthread_create(&thread[i], NULL, destroy, ram[i].region);
	for (unsigned int i = 0; i < 2; i++)
		assert_true(eventually(is_ending, ram[i].region, 5000));
	assert_error(hgm_region_protect(ram[0].region, 0, LENGTH, 0, NULL), -ECANCELED);
	assert_error(hgm_region_unprotect(ram[0].region, 0, LENGTH, 0, NULL), -ECANCELED);
	assert_error(hgm_region_watch(ram[0].region, NULL), -ECANCELED);
	assert_true(eventually(has_ended, ram[0].region, 5000));
	assert_error(hgm_dirty_start(&late, ram[1].region, NULL), -ECANCELED);
	assert_error(hgm_dirty_collect(d, 0, PAGES, bitmap, NULL), -ECANCELED);
	hgm_dirty_stop(d);
	for (unsigned int i = 0; i < 2; i++) {
		atomic_store(&stuck[i].go, true);
		pthread_join(thread[i], NULL);
		ram_release(&ram[i]);
		hgm_source_destroy(src[i]);
	}
	hgm_destroy(h);
	calm();
}

/* A cancel function, called in the middle of hgm_region_destroy(), collects. */
static struct {
	struct hgm_dirty *dirty;
	struct hgm_io io;
	_Atomic bool asked;
	int rc;
} ending = { .rc = 1 };

static int64_t keep(void *user, const struct hgm_io *io)
{
	(void)user;
	ending.io = *io; /* the only one */
	atomic_store(&ending.asked, true);
	return HGM_IO_LATER;
}

static void collect_at_the_end(void *user, struct hgm *h, uint64_t id)
{
	uint64_t bitmap[WORDS];

	(void)user;
	(void)h;
	if (id != ending.io.id)
		return;
	ending.rc = hgm_dirty_collect(ending.dirty, 0, PAGES, bitmap, NULL);
	hgm_io_done(&ending.io, -ECANCELED);
}

static bool was_asked(void *arg)
{
	return atomic_load((_Atomic bool *)arg);
}

/* From then on discards may no longer be reported, so a collection could lack them. */
static void collected_at_the_end(void **state)
{
	struct hgm_source_fn_opts so = { .size = sizeof(so), .cancel = collect_at_the_end };
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = HGM_DIRTY_SYNC };
	struct hgm *h = engine(1);
	struct hgm_source *src;
	struct waiter waiter;
	struct ram ram;

	(void)state;
	watch("a collection when a region ends", 60);
	assert_ok(hgm_source_fn(&src, keep, NULL, &so));
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	assert_ok(hgm_dirty_start(&ending.dirty, ram.region, &o));
	waiter_start(&waiter, ram.addr);
	assert_true(eventually(was_asked, &ending.asked, 5000));
	hgm_region_destroy(ram.region);
	assert_int_equal(ending.rc, -ECANCELED);
	hgm_dirty_stop(ending.dirty);
	waiter_join(&waiter);
	ram_release(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(collected_at_the_end), cmocka_unit_test(several_collectors),
	cmocka_unit_test(region_goes_first),	cmocka_unit_test(several_watchers),
	cmocka_unit_test(while_destroyed),
};

TEST_MAIN(tests)
