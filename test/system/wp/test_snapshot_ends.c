/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Snapshots that end early: sinks fail, snapshots are cancelled at every stage, and regions and
 * engines are destroyed meanwhile. No thread waits afterwards, and nothing is left.
 */
#include "snapshotting.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(4 * MIB)
#define PAGES	(LENGTH / PAGE)

static const struct contents contents = { .seed = 54 };

struct stage {
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	struct writers writers;
	struct sink sink;
	char *want;
};

static void stage_make(struct stage *st, enum backing backing)
{
	memset(st, 0, sizeof(*st));
	watch(backing_names[backing], 60);
	st->provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	st->h = engine(2);
	st->want = malloc(LENGTH);
	assert_non_null(st->want);
	ram_make(&st->ram, st->h, backing, LENGTH, provider_source(st->provider), 0);
	assert_ok(hgm_start(st->h));
	assert_ok(hgm_wait(st->h, WAIT_MS));
	writers_start(&st->writers, &contents, st->ram.addr, PAGES);
	sink_clear(&st->sink, LENGTH);
}

static struct hgm_snapshot *create(struct stage *st, uint64_t pool_bytes, uint32_t flags)
{
	return snapshot_of(st->h, &(struct hgm_snapshot_opts){ .write = sink_write,
							       .user = &st->sink,
							       .pool_bytes = pool_bytes,
							       .flags = flags });
}

/* All threads go on writing. No page is protected any more, and no writer waits. */
static void assert_writers_go_on(struct stage *st)
{
	writers_wait_for(&st->writers, 2 * PAGES, WAIT_MS);
}

/* The next snapshot is complete. */
static void assert_next_is_right(struct stage *st)
{
	struct hgm_snapshot *s;

	sink_clear(&st->sink, LENGTH);
	s = create(st, 0, 0);
	writers_begin(&st->writers, s, st->want);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	assert_same(st->sink.got, st->want, PAGES, "the next");
}

static void stage_end(struct stage *st)
{
	writers_end(&st->writers);
	ram_end(&st->ram);
	hgm_destroy(st->h);
	provider_free(st->provider);
	free(st->sink.got);
	free(st->want);
	calm();
}

static const struct failure {
	const char *what;
	int fail;
	uint64_t fail_at;
	uint64_t most;
	bool too_much;
	int want;
} failures[] = {
	{ "fails at once", -EIO, 0, 0, false, -EIO },
	{ "fails in the middle", -ENOSPC, LENGTH / 2, 0, false, -ENOSPC },
	{ "takes nothing", 0, LENGTH / 2, 0, true, -EIO },
	{ "takes more than there is", 1 << 30, LENGTH / 2, 0, true, -EIO },
	{ "returns garbage", -70000, 100 * PAGE, 0, true, -EIO },
	{ "takes little", 0, 0, 1000, false, 0 },
	{ "takes a byte less than a page", 0, 0, PAGE - 1, false, 0 },
};

static void failing_sinks(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON, BACKING_HUGETLB_2M };
	unsigned int turn = 0;

	(void)state;
	for (unsigned int p = 0; p < 3; p++) {
		struct stage st;

		if (backing_lacking(backings[p], LENGTH))
			continue;
		stage_make(&st, backings[p]);
		for (unsigned int i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
			const struct failure *f = &failures[i];
			struct hgm_snapshot *s;
			int rc;

			for (uint32_t flags = 0; flags < 2; flags++) {
				if (!turn_of(&turn, 3))
					continue;
				sink_clear(&st.sink, LENGTH);
				st.sink.fail = f->fail;
				st.sink.fail_at = f->fail_at;
				st.sink.returns_nothing = f->too_much && !f->fail;
				st.sink.most = f->most;
				s = create(&st, 0, flags);
				writers_begin(&st.writers, s, st.want);
				rc = hgm_snapshot_wait(s, WAIT_MS);
				if (rc != f->want)
					fail_msg("%s: %d instead of %d", f->what, rc, f->want);
				assert_int_equal(snapshot_progress(s).error, f->want);
				assert_true(snapshot_progress(s).done);
				/* A cancellation does not change a snapshot that has ended. */
				assert_ok(hgm_snapshot_cancel(s));
				assert_int_equal(hgm_snapshot_wait(s, 0), f->want);
				assert_writers_go_on(&st);
				hgm_snapshot_destroy(s);
				if (!f->want)
					assert_same(st.sink.got, st.want, PAGES, f->what);
			}
		}
		assert_next_is_right(&st);
		stage_end(&st);
	}
}

static void cancelled_at_each_stage(void **state)
{
	struct hgm_snapshot *s;
	struct stage st;

	(void)state;
	stage_make(&st, BACKING_SHMEM);

	s = create(&st, 0, 0);
	assert_error(hgm_snapshot_wait(s, 0), -EINVAL);
	assert_error(hgm_snapshot_wait(s, 0), -EINVAL);
	assert_ok(hgm_snapshot_cancel(s));
	/* The snapshot has ended. The next call says so, and its regions are free. */
	assert_error(hgm_snapshot_wait(s, 0), -ECANCELED);
	assert_true(snapshot_progress(s).done);
	assert_error(hgm_snapshot_begin(s), -ECANCELED);
	assert_error(hgm_snapshot_wait(s, WAIT_MS), -ECANCELED);
	assert_int_equal(st.sink.taken, 0);
	hgm_snapshot_destroy(s);
	assert_writers_go_on(&st);

	s = create(&st, 0, 0);
	assert_writers_go_on(&st);
	hgm_snapshot_destroy(s); /* never begun */
	assert_writers_go_on(&st);

	for (unsigned int i = 0; i < 2; i++) { /* in the middle, and while the sink blocks */
		sink_clear(&st.sink, LENGTH);
		st.sink.nap_us = 2000;
		atomic_store(&st.sink.hold, i);
		s = create(&st, 256 * PAGE, i ? HGM_SNAPSHOT_ORDERED : 0);
		writers_begin(&st.writers, s, st.want);
		while (i && !atomic_load(&st.sink.calls))
			nap_us(100);
		assert_error(hgm_snapshot_wait(s, 20), -ETIMEDOUT);
		assert_ok(hgm_snapshot_cancel(s));
		if (i)
			assert_error(hgm_snapshot_wait(s, 20), -ETIMEDOUT);
		atomic_store(&st.sink.hold, false);
		assert_error(hgm_snapshot_wait(s, WAIT_MS), -ECANCELED);
		assert_error(hgm_snapshot_begin(s), -EALREADY);
		assert_writers_go_on(&st);
		hgm_snapshot_destroy(s);
	}
	sink_clear(&st.sink, LENGTH);
	s = create(&st, 0, 0);
	writers_begin(&st.writers, s, st.want);
	hgm_snapshot_destroy(s); /* without waiting */
	assert_writers_go_on(&st);

	/* At the slowest rate. Nothing must wait for it. */
	sink_clear(&st.sink, LENGTH);
	s = snapshot_of(st.h, &(struct hgm_snapshot_opts){
				      .write = sink_write, .user = &st.sink, .rate_bytes = 1 });
	writers_begin(&st.writers, s, st.want);
	assert_writers_go_on(&st);
	hgm_snapshot_destroy(s);
	assert_next_is_right(&st);
	stage_end(&st);
}

static void begun_twice(void **state)
{
	struct hgm_snapshot *s, *other;
	struct stage st;
	uint64_t began;

	(void)state;
	stage_make(&st, BACKING_SHMEM);
	s = create(&st, 0, 0);
	assert_error(hgm_snapshot_create(
			     &other, st.h,
			     &(struct hgm_snapshot_opts){ .size = sizeof(struct hgm_snapshot_opts),
							  .write = sink_write }),
		     -EBUSY);
	writers_begin(&st.writers, s, st.want);
	began = snapshot_progress(s).begin_ns;
	assert_error(hgm_snapshot_begin(s), -EALREADY);
	assert_int_equal(snapshot_progress(s).begin_ns, began);
	assert_ok(hgm_snapshot_wait(s, -1));
	assert_error(hgm_snapshot_begin(s), -EALREADY);
	assert_same(st.sink.got, st.want, PAGES, "begun twice");
	/* The snapshot has ended, but is not destroyed yet. It does not prevent the next one. */
	assert_next_is_right(&st);
	hgm_snapshot_destroy(s);
	stage_end(&st);
}

/*
 * Writers wait for room in the pool when the region or the engine is destroyed under the snapshot.
 */
static void destroyed_under_it(void **state)
{
	static const enum backing backings[] = { BACKING_MAPPING, BACKING_MAPPING_ANON };
	struct holdings before;

	(void)state;
	for (unsigned int i = 0; i < 21; i++) { /* the first seven warm up */
		enum backing backing = backings[i % 2];
		bool engine_too = i % 7 > 2, begin = i % 7 != 5;
		struct hgm_snapshot *s;
		struct stage st;

		if (i == 7)
			before = take_holdings();
		stage_make(&st, backing);
		s = create(&st, 16 * PAGE, 0);
		if (begin) {
			atomic_store(&st.sink.hold, true);
			writers_begin(&st.writers, s, st.want);
			while (!snapshot_progress(s).pool_full)
				nap_us(100);
			/* The sink returns while the region waits for it. */
			st.sink.nap_us = 1000;
			atomic_store(&st.sink.hold, false);
		}
		if (engine_too)
			hgm_destroy(st.h);
		else
			hgm_region_destroy(st.ram.region);
		if (!begin)
			assert_error(hgm_snapshot_begin(s), -ECANCELED);
		assert_error(hgm_snapshot_wait(s, WAIT_MS), -ECANCELED);
		assert_writers_go_on(&st);
		hgm_snapshot_destroy(s);
		writers_end(&st.writers);
		ram_release(&st.ram);
		if (!engine_too)
			hgm_destroy(st.h);
		provider_free(st.provider);
		free(st.sink.got);
		free(st.want);
		calm();
	}
	assert_same_holdings(&before);
}

static int64_t slow_sink(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	_Atomic unsigned int *calls = user;

	(void)buf;
	(void)offset;
	atomic_fetch_add(calls, 1);
	nap_us(5000);
	return (int64_t)length;
}

/*
 * A thread that destroys a region waits for the sink's running call, not for all pages of the pool.
 */
static void destroyed_with_a_full_pool(void **state)
{
	_Atomic unsigned int calls = 0;
	struct hgm_snapshot *s;
	unsigned int before;
	struct stage st;

	(void)state;
	stage_make(&st, BACKING_MAPPING);
	s = snapshot_of(st.h, &(struct hgm_snapshot_opts){ .write = slow_sink, .user = &calls });
	writers_begin(&st.writers, s, st.want);
	/* The snapshot is in the middle of the pages that it took out of the pool at once. */
	while (snapshot_progress(s).pool_used_bytes < 200 * PAGE || atomic_load(&calls) < 50)
		nap_us(100);
	before = atomic_load(&calls);
	hgm_region_destroy(st.ram.region);
	if (atomic_load(&calls) - before > 3)
		fail_msg("%u calls of the sink", atomic_load(&calls) - before);
	assert_error(hgm_snapshot_wait(s, WAIT_MS), -ECANCELED);
	assert_writers_go_on(&st);
	hgm_snapshot_destroy(s);
	st.ram.region = NULL;
	stage_end(&st);
}

struct stuck {
	_Atomic bool inside, hold;
	int fail; /* the result then; 0: success */
};

static int64_t stuck_sink(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	struct stuck *stuck = user;

	(void)buf;
	(void)offset;
	atomic_store(&stuck->inside, true);
	while (atomic_load(&stuck->hold))
		nap_us(100);
	return stuck->fail ? stuck->fail : (int64_t)length;
}

/* The sink does not return, and writers wait for room in the pool. */
static struct hgm_snapshot *begin_stuck(struct stage *st, struct stuck *stuck)
{
	struct hgm_snapshot *s =
		snapshot_of(st->h, &(struct hgm_snapshot_opts){ .write = stuck_sink,
								.user = stuck,
								.pool_bytes = PAGE });

	writers_begin(&st->writers, s, st->want);
	while (!atomic_load(&stuck->inside) || !snapshot_progress(s).pool_full)
		nap_us(100);
	return s;
}

/* A thread that waits to write goes on as soon as the snapshot is cancelled. */
static void writers_are_released_at_once(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON };

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct stuck stuck = { .hold = true };
		struct hgm_snapshot *s;
		struct stage st;

		stage_make(&st, backings[i]);
		s = begin_stuck(&st, &stuck);
		assert_ok(hgm_snapshot_cancel(s));
		assert_writers_go_on(&st);
		assert_false(snapshot_progress(s).done);
		atomic_store(&stuck.hold, false);
		assert_error(hgm_snapshot_wait(s, WAIT_MS), -ECANCELED);
		hgm_snapshot_destroy(s);
		assert_next_is_right(&st);
		stage_end(&st);
	}
}

struct destroyer {
	pthread_t thread;
	struct hgm_region *r;
	_Atomic bool done;
};

static void *destroy_region(void *arg)
{
	struct destroyer *d = arg;

	hgm_region_destroy(d->r);
	atomic_store(&d->done, true);
	return NULL;
}

/*
 * No thread cancels the snapshot. It fails because one of its regions is being destroyed, which
 * waits for the sink. Threads that write to another region do not wait.
 */
static void released_when_it_fails(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON };

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct provider *provider = provider_make(PROVIDER_NOW, &contents, 2 * LENGTH);
		struct stuck stuck = { .hold = true };
		struct destroyer destroyer = { 0 };
		struct hgm_snapshot *s;
		struct ram other;
		struct stage st;

		stage_make(&st, backings[i]);
		assert_ok(ram_try(&other, st.h, BACKING_MAPPING, LENGTH, provider_source(provider),
				  LENGTH, 0));
		assert_ok(hgm_wait(st.h, WAIT_MS));
		s = begin_stuck(&st, &stuck);
		destroyer.r = other.region;
		assert_int_equal(
			pthread_create(&destroyer.thread, NULL, destroy_region, &destroyer), 0);
		assert_writers_go_on(&st);
		assert_int_equal(snapshot_progress(s).error, -ECANCELED);
		assert_false(snapshot_progress(s).done);
		assert_false(atomic_load(&destroyer.done));
		atomic_store(&stuck.hold, false);
		pthread_join(destroyer.thread, NULL);
		assert_error(hgm_snapshot_wait(s, WAIT_MS), -ECANCELED);
		hgm_snapshot_destroy(s);
		ram_release(&other);
		assert_next_is_right(&st);
		stage_end(&st);
		provider_free(provider);
	}
}

/* No thread waits again for a sink that failed while the pool was full. */
static void released_by_a_failing_sink(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON };

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct stuck stuck = { .hold = true, .fail = -ENOSPC };
		struct hgm_snapshot *s;
		struct stage st;

		stage_make(&st, backings[i]);
		s = begin_stuck(&st, &stuck);
		atomic_store(&stuck.inside, false);
		atomic_store(&stuck.hold, false);
		assert_writers_go_on(&st);
		assert_error(hgm_snapshot_wait(s, WAIT_MS), -ENOSPC);
		assert_false(atomic_load(&stuck.inside));
		hgm_snapshot_destroy(s);
		assert_next_is_right(&st);
		stage_end(&st);
	}
}

struct nosy {
	_Atomic(struct hgm_snapshot *) s;
	_Atomic int got;
};

static int64_t nosy_sink(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	struct nosy *n = user;

	(void)buf;
	(void)offset;
	atomic_store(&n->got, hgm_snapshot_wait(atomic_load(&n->s), -1));
	return (int64_t)length;
}

/* The sink waits for its own snapshot. The call is refused, and the snapshot goes on. */
static void waited_for_by_its_sink(void **state)
{
	struct nosy n = { .got = 0 };
	struct stage st;

	(void)state;
	stage_make(&st, BACKING_SHMEM);
	n.s = snapshot_of(st.h, &(struct hgm_snapshot_opts){ .write = nosy_sink, .user = &n });
	assert_ok(hgm_snapshot_begin(n.s));
	assert_ok(hgm_snapshot_wait(n.s, WAIT_MS));
	assert_int_equal(n.got, -EDEADLK);
	hgm_snapshot_destroy(n.s);
	stage_end(&st);
}

struct last_act {
	_Atomic(struct hgm_snapshot *) s;
	_Atomic unsigned int calls;
	_Atomic bool returned;
};

static int64_t destroying_sink(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	struct last_act *act = user;

	(void)buf;
	(void)offset;
	atomic_fetch_add(&act->calls, 1);
	hgm_snapshot_destroy(atomic_load(&act->s));
	atomic_store(&act->returned, true);
	return (int64_t)length;
}

static bool has_returned(void *act)
{
	return atomic_load(&((struct last_act *)act)->returned);
}

static bool same_threads(void *before)
{
	return take_holdings().threads == ((struct holdings *)before)->threads;
}

/*
 * The sink destroys its own snapshot. The snapshot ends when the sink has returned, and nothing of
 * it is left.
 */
static void destroyed_by_its_sink(void **state)
{
	struct last_act act = { .calls = 0 };
	struct holdings before;
	struct stage st;

	(void)state;
	stage_make(&st, BACKING_SHMEM);
	before = take_holdings();
	act.s = snapshot_of(st.h,
			    &(struct hgm_snapshot_opts){ .write = destroying_sink, .user = &act });
	assert_ok(hgm_snapshot_begin(act.s));
	assert_true(eventually(has_returned, &act, WAIT_MS));
	assert_true(eventually(same_threads, &before, WAIT_MS));
	assert_int_equal(atomic_load(&act.calls), 1);
	assert_writers_go_on(&st);
	assert_next_is_right(&st);
	stage_end(&st);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(failing_sinks),
	cmocka_unit_test(cancelled_at_each_stage),
	cmocka_unit_test(begun_twice),
	cmocka_unit_test(destroyed_under_it),
	cmocka_unit_test(destroyed_with_a_full_pool),
	cmocka_unit_test(writers_are_released_at_once),
	cmocka_unit_test(released_when_it_fails),
	cmocka_unit_test(released_by_a_failing_sink),
	cmocka_unit_test(waited_for_by_its_sink),
	cmocka_unit_test(destroyed_by_its_sink),
};

TEST_MAIN(tests)
