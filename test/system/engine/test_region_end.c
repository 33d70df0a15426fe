/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of a region must not depend on a worker, nor on the source of another region. All workers
 * may be inside a source that returns only when it is cancelled.
 */
#include "harness.h"
#include "region/hgm.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/sys.h"

#define WORKERS	    2
#define CANCELS_MAX 4096

/* A blocking source that does not answer before it is cancelled. */
struct holder {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned int inside;
	unsigned int cancels;
	uint64_t cancelled[CANCELS_MAX];
	struct hgm_source *source;
};

static bool is_cancelled(const struct holder *s, uint64_t id)
{
	for (unsigned int i = 0; i < s->cancels; i++)
		if (s->cancelled[i] == id)
			return true;
	return false;
}

static int64_t hold(void *user, const struct hgm_io *io)
{
	struct holder *s = user;

	pthread_mutex_lock(&s->lock);
	s->inside++;
	while (!is_cancelled(s, io->id))
		pthread_cond_wait(&s->cond, &s->lock);
	s->inside--;
	pthread_mutex_unlock(&s->lock);
	return -ECANCELED;
}

static void cancel(void *user, struct hgm *h, uint64_t id)
{
	struct holder *s = user;

	(void)h;
	pthread_mutex_lock(&s->lock);
	if (!is_cancelled(s, id) && s->cancels < CANCELS_MAX)
		s->cancelled[s->cancels++] = id;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

static void holder_make(struct holder *s)
{
	const struct hgm_source_fn_opts opts = { .size = sizeof(opts),
						 .flags = HGM_SOURCE_BLOCKING,
						 .cancel = cancel };

	*s = (struct holder){ .inside = 0 };
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	assert_ok(hgm_source_fn(&s->source, hold, s, &opts));
}

static bool all_workers_inside(void *arg)
{
	struct holder *s = arg;
	bool all;

	pthread_mutex_lock(&s->lock);
	all = s->inside == WORKERS;
	pthread_mutex_unlock(&s->lock);
	return all;
}

static bool demanded_three(void *arg)
{
	return stats_of(arg).faults_demand >= WORKERS + 1;
}

/*
 * All workers read for one region. The demand of the other region is in the queue, and no worker
 * has seen it. Then the other region and the first one end in turn, or the engine ends.
 */
static void end_behind_busy_workers(enum backing waiting, bool whole_engine, bool swapped)
{
	struct hgm *h = engine_with((struct hgm_opts){ .fault_threads = 1, .workers = WORKERS });
	struct waiter busy[WORKERS], waiter;
	struct ram a, z, *low = &a, *high = &z;
	struct holder s;

	watch("the end behind busy workers", 60);
	holder_make(&s);
	ram_make(&a, h, BACKING_SHMEM, 4 * MIB, s.source, HGM_REGION_NO_FILL);
	ram_make(&z, h, waiting, 4 * MIB, s.source, HGM_REGION_NO_FILL);
	if (waiting == BACKING_SHMEM && swapped) {
		low = &z;
		high = &a;
	}
	assert_ok(hgm_start(h));
	for (unsigned int i = 0; i < WORKERS; i++)
		waiter_start(&busy[i], low->addr + i * 100 * PAGE);
	assert_true(eventually(all_workers_inside, &s, 5000));
	waiter_start(&waiter, high->addr + 17 * PAGE);
	assert_true(eventually(demanded_three, h, 5000));
	nap_us(5000); /* it is counted just before it is queued */
	if (whole_engine) {
		hgm_destroy(h);
	} else {
		ram_end(high);
		waiter_join(&waiter);
		assert_true(all_workers_inside(&s));
		ram_end(low);
	}
	if (whole_engine)
		waiter_join(&waiter);
	assert_int_equal(waiter.signal, SIGSEGV);
	for (unsigned int i = 0; i < WORKERS; i++) {
		waiter_join(&busy[i]);
		assert_int_equal(busy[i].signal, SIGSEGV);
	}
	if (whole_engine) {
		ram_release(&a);
		ram_release(&z);
	} else {
		hgm_destroy(h);
	}
	hgm_source_destroy(s.source);
	calm();
}

static void the_end_needs_no_worker(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 4; i++)
		end_behind_busy_workers(BACKING_SHMEM, i % 2, i / 2);
	end_behind_busy_workers(BACKING_ANON, false, false);
	end_behind_busy_workers(BACKING_ANON, true, false);
}

/* For hugetlb in whole blocks, a block waits in the queue. */
static void the_end_needs_no_worker_hugetlb(void **state)
{
	(void)state;
	if (backing_lacking(BACKING_HUGETLB_2M, 4 * MIB))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, 4 * MIB));
	end_behind_busy_workers(BACKING_HUGETLB_2M, false, false);
	end_behind_busy_workers(BACKING_HUGETLB_2M, true, false);
}

static bool keeps_one(void *arg)
{
	return provider_kept(arg) > 0;
}

/* A source that obeys a cancellation has not failed. Nothing is retried or counted. */
static void cancelled_is_not_failed(void **state)
{
	static const struct contents contents = { .seed = 3 };
	struct provider *provider = provider_make(PROVIDER_NEVER, &contents, 4 * MIB);
	struct hgm *h =
		engine_with((struct hgm_opts){ .fault_threads = 1, .retry_first_us = 1000000 });
	struct waiter waiter;
	struct ram ram;

	(void)state;
	watch("cancelled answers", 60);
	ram_make(&ram, h, BACKING_SHMEM, 4 * MIB, provider_source(provider), HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	waiter_start(&waiter, ram.addr);
	assert_true(eventually(keeps_one, provider, 5000));
	ram_end(&ram);
	waiter_join(&waiter);
	assert_true(provider_cancels(provider) > 0);
	assert_int_equal(progress_of(h).last_error, 0);
	assert_int_equal(progress_of(h).failing_requests, 0);
	assert_int_equal(stats_of(h).source_errors, 0);
	assert_int_equal(stats_of(h).source_retries, 0);
	hgm_destroy(h);
	provider_free(provider);
	calm();
}

/* Reads the event, so that each event is taken once. */
static bool event_has_come(void *arg)
{
	struct pollfd fd = { .fd = hgm_event_fd(arg), .events = POLLIN };
	uint64_t count;

	return poll(&fd, 1, 0) == 1 && read(fd.fd, &count, sizeof(count)) == sizeof(count);
}

struct owner {
	struct hgm *h;
	_Atomic bool done;
	int rc;
};

static void *wait_for_all(void *arg)
{
	struct owner *o = arg;

	o->rc = hgm_wait(o->h, -1);
	atomic_store(&o->done, true);
	return NULL;
}

static bool somebody_waits(void *arg)
{
	return atomic_load(&((struct hgm *)arg)->waiters) == 1;
}

static bool is_done(void *arg)
{
	return atomic_load(&((struct owner *)arg)->done);
}

/*
 * The last incomplete region is gone, so all others are complete. A thread that waits for that is
 * told, although no page has arrived. @asked: the source of that region was asked, and never
 * answers.
 */
static void the_last_incomplete_one_goes(bool asked, bool sleeping)
{
	static const struct contents contents = { .seed = 4 };
	static const struct hgm_fill_opts paused = { .size = sizeof(paused),
						     .flags = HGM_FILL_PAUSED };
	struct provider *good = provider_make(PROVIDER_NOW, &contents, 4 * MIB);
	struct provider *silent = provider_make(PROVIDER_NEVER, &contents, 4 * MIB);
	struct hgm *h = engine(1);
	struct owner owner = { .h = h };
	pthread_t thread;
	struct ram a, z;

	watch("the last incomplete region goes", 60);
	ram_make(&a, h, BACKING_SHMEM, 4 * MIB, provider_source(good), 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, -1));
	if (!asked)
		assert_ok(hgm_set_fill(h, &paused));
	ram_make(&z, h, BACKING_SHMEM, 4 * MIB, provider_source(silent), 0);
	if (asked)
		assert_true(eventually(keeps_one, silent, 5000));
	assert_error(hgm_wait(h, 0), -ETIMEDOUT);
	event_has_come(h); /* the event of the complete region */
	assert_false(event_has_come(h));
	if (sleeping) {
		assert_int_equal(pthread_create(&thread, NULL, wait_for_all, &owner), 0);
		assert_true(eventually(somebody_waits, h, 5000));
	}
	ram_end(&z);
	assert_true(event_has_come(h));
	assert_ok(hgm_wait(h, 0));
	if (sleeping) {
		assert_true(eventually(is_done, &owner, 5000));
		pthread_join(thread, NULL);
		assert_int_equal(owner.rc, 0);
	}
	ram_end(&a);
	hgm_destroy(h);
	provider_free(good);
	provider_free(silent);
	calm();
}

static void all_are_complete_without_it(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 4; i++)
		the_last_incomplete_one_goes(i / 2, i % 2);
}

static struct {
	const struct hgm_sys *kernel;
	struct hgm_sys sys;
	_Atomic unsigned int pieces;
	_Atomic unsigned int protected;
} end_by;

static int counting_mmap(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
			 uint64_t offset)
{
	int rc = end_by.kernel->mmap(out, addr, len, prot, flags, fd, offset);

	atomic_fetch_add(&end_by.pieces, !rc && prot == PROT_NONE && flags & MAP_FIXED);
	return rc;
}

static int counting_mprotect(void *addr, uint64_t len, int prot)
{
	atomic_fetch_add(&end_by.protected, 1);
	return end_by.kernel->mprotect(addr, len, prot);
}

static int api_without_poison(int fd, uint64_t *features, uint64_t *ioctls)
{
	int rc = end_by.kernel->uffd_api(fd, features, ioctls);

	*features &= ~HGM_UFFD_FEATURE_POISON;
	return rc;
}

static int cannot_poison(void **state)
{
	(void)state;
	end_by.kernel = hgm_sys;
	end_by.sys = *hgm_sys;
	end_by.sys.mmap = counting_mmap;
	end_by.sys.mprotect = counting_mprotect;
	end_by.sys.uffd_api = api_without_poison;
	hgm_sys = &end_by.sys;
	return 0;
}

static int can_poison(void **state)
{
	(void)state;
	hgm_sys = end_by.kernel;
	return 0;
}

static bool demanded(void *arg)
{
	return stats_of(arg).faults_demand > 0;
}

/*
 * Own memory is replaced, in pieces of at most 256 MiB or a block. A caller's mapping that cannot
 * be poisoned becomes inaccessible. Threads that wait are get SIGSEGV.
 */
static void end_one(enum backing backing, uint64_t length, unsigned int pieces, bool started)
{
	static const struct contents contents = { .seed = 5 };
	struct provider *silent = provider_make(PROVIDER_NEVER, &contents, length);
	struct hgm *h = engine(1);
	struct waiter waiter;
	uint8_t value;
	struct ram ram;

	ram_make(&ram, h, backing, length, provider_source(silent), HGM_REGION_NO_FILL);
	if (started)
		assert_ok(hgm_start(h));
	waiter_start(&waiter, ram.addr + length / 2 + PAGE);
	if (started)
		assert_true(eventually(demanded, h, 5000));
	else
		nap_us(2000); /* it may wait by now */
	atomic_store(&end_by.pieces, 0);
	atomic_store(&end_by.protected, 0);
	hgm_region_destroy(ram.region);
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, SIGSEGV);
	if (!ram.mapping) {
		assert_int_equal(atomic_load(&end_by.pieces), pieces);
		assert_int_equal(atomic_load(&end_by.protected), 0);
	} else {
		assert_true(atomic_load(&end_by.protected) > 0);
		assert_int_equal(touch(ram.addr, &value), SIGSEGV);
	}
	ram_release(&ram);
	hgm_destroy(h);
	provider_free(silent);
}

static void memory_is_taken_away(void **state)
{
	static const struct {
		enum backing backing;
		uint64_t length;
		unsigned int pieces;
	} rows[] = {
		{ BACKING_SHMEM, 4 * MIB, 1 },	      { BACKING_SHMEM_LAZY, 600 * MIB, 3 },
		{ BACKING_ANON, 600 * MIB, 3 },	      { BACKING_FD, 4 * MIB, 1 },
		{ BACKING_MAPPING, 4 * MIB, 0 },      { BACKING_MAPPING_LAZY, 4 * MIB, 0 },
		{ BACKING_MAPPING_ANON, 4 * MIB, 0 }, { BACKING_HUGETLB_2M, 4 * MIB, 1 },
		{ BACKING_HUGETLB_1G, GIB, 1 },
	};

	(void)state;
	watch("memory is taken away", 100);
	for (size_t i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
		enum backing backing = rows[i / 2].backing;

		if (!backing_lacking(backing, rows[i / 2].length))
			end_one(backing, rows[i / 2].length, rows[i / 2].pieces, i % 2);
	}
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(the_end_needs_no_worker),
	cmocka_unit_test(the_end_needs_no_worker_hugetlb),
	cmocka_unit_test(cancelled_is_not_failed),
	cmocka_unit_test(all_are_complete_without_it),
	cmocka_unit_test_setup_teardown(memory_is_taken_away, cannot_poison, can_poison),
};

TEST_MAIN(tests)
