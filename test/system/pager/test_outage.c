/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A source that is unavailable for a while, or that lacks a page. Pages that no thread has asked
 * for are never given up. A page that a thread waits for arrives soon after the source is back.
 * Pages that were given up can be requested again.
 */
#include "harness.h"
#include "pager/request.h"
#include "pager/work.h"
#include "region/hgm.h"

#include <errno.h>
#include <signal.h>

#define WAIT_MS	      SMALLER(20000, 100000)
#define LENGTH	      (8 * MIB)
#define OFTEN	      12 /* tries, after which half a millisecond has doubled to a second */
#define SOON_AFTER_NS UINT64_C(100000000)
#define SOON_US	      (500000 * (uint64_t)slowness()) /* while a backoff takes a second */

static const struct contents contents = { .seed = 44 };

/* While it is away, the source fails each request from page @from on with @error. */
struct distant {
	_Atomic bool away;
	_Atomic int error;
	_Atomic uint64_t from;
	_Atomic unsigned int failed;
	_Atomic unsigned int demanded; /* failed requests of demand */
	bool later;
	bool scribbles;
	struct hgm_source *source;
};

static int64_t answer(struct distant *d, const struct hgm_io *io)
{
	uint64_t page = io->offset / PAGE, pages = io->length / PAGE;
	uint64_t from = atomic_load(&d->from);

	if (atomic_load(&d->away) && page + pages > from) {
		if (page < from) {
			contents_write(&contents, page, from - page, io->buf);
			return (int64_t)((from - page) * PAGE);
		}
		if (d->scribbles)
			memset(io->buf, 0x5c, io->length);
		atomic_fetch_add(&d->failed, 1);
		if (io->flags & HGM_IO_DEMAND)
			atomic_fetch_add(&d->demanded, 1);
		return atomic_load(&d->error);
	}
	contents_write(&contents, page, pages, io->buf);
	return (int64_t)io->length;
}

static int64_t read_distant(void *user, const struct hgm_io *io)
{
	struct distant *d = user;

	if (!d->later)
		return answer(d, io);
	hgm_io_done(io, answer(d, io));
	return HGM_IO_LATER;
}

static void distant_make(struct distant *d, uint32_t flags)
{
	const struct hgm_source_fn_opts opts = { .size = sizeof(opts), .flags = flags };

	assert_ok(hgm_source_fn(&d->source, read_distant, d, &opts));
}

static bool has_failed(void *arg)
{
	return atomic_load(&((struct distant *)arg)->failed) > 0;
}

static bool has_failed_demand(void *arg)
{
	return atomic_load(&((struct distant *)arg)->demanded) > 0;
}

static bool some_fail(void *h)
{
	return progress_of(h).failing_requests > 0;
}

/* Fill gives up no page, however long the outage takes. The source is asked only now and then. */
static void fill_loses_nothing(enum backing backing, int error, bool later, uint32_t source_flags,
			       bool prefetch)
{
	struct distant d = {
		.away = true, .error = error, .from = 700, .later = later, .scribbles = later
	};
	struct hgm *h = engine_with((struct hgm_opts){ .retries = 1, .outage_ms = 1 });
	struct ram ram;

	watch("fill through an outage", 60);
	distant_make(&d, source_flags);
	ram_make(&ram, h, backing, LENGTH, d.source, prefetch ? HGM_REGION_NO_FILL : 0);
	if (prefetch)
		assert_ok(hgm_region_prefetch(ram.region, 0, LENGTH));
	assert_ok(hgm_start(h));
	assert_true(eventually(has_failed, &d, 5000));
	nap_us(150000);
	assert_int_equal(progress_of(h).poisoned_bytes, 0);
	assert_true(eventually(some_fail, h, 5000)); /* not counted during a retry */
	assert_int_equal(progress_of(h).last_error, error);
	/* The requests that were in flight, and a few retries. */
	if (atomic_load(&d.failed) > 600)
		fail_msg("asked %u times in 150 ms, in vain", atomic_load(&d.failed));
	assert_int_equal(atomic_load(&d.demanded), 0);
	atomic_store(&d.away, false);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_int_equal(progress_of(h).poisoned_bytes, 0);
	assert_int_equal(progress_of(h).failing_requests, 0);
	assert_pages(&contents, 0, LENGTH / PAGE, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(d.source);
	calm();
}

static void fill_rides_out(void **state)
{
	(void)state;
	fill_loses_nothing(BACKING_SHMEM, -EIO, false, 0, false);
	fill_loses_nothing(BACKING_SHMEM, -ENOTCONN, true, 0, false);
	fill_loses_nothing(BACKING_SHMEM_LAZY, -EIO, false, HGM_SOURCE_BLOCKING, false);
	fill_loses_nothing(BACKING_ANON, -ETIMEDOUT, true, 0, false);
	fill_loses_nothing(BACKING_SHMEM, -EIO, false, 0, true);
	fill_loses_nothing(BACKING_ANON, -EIO, true, 0, true);
}

static void fill_rides_out_hugetlb(void **state)
{
	(void)state;
	if (backing_lacking(BACKING_HUGETLB_2M, LENGTH))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, LENGTH));
	fill_loses_nothing(BACKING_HUGETLB_2M, -EIO, false, 0, false);
	fill_loses_nothing(BACKING_HUGETLB_2M, -EIO, true, 0, false);
}

/*
 * True if a request has failed so often that its next try would be seconds away if each pause were
 * twice the last one, and its next try is a tenth of a second away at most. The request waits in
 * the queue meanwhile.
 */
static bool asks_again_soon(void *arg)
{
	struct hgm_work *w = ((struct hgm *)arg)->work;
	const struct hgm_request *req;
	bool soon;

	pthread_mutex_lock(&w->lock);
	req = w->retry.first;
	soon = req && req->attempt >= OFTEN && req->due_ns - req->answered_ns <= SOON_AFTER_NS;
	pthread_mutex_unlock(&w->lock);
	return soon;
}

/* A thread waits through an outage that is longer than all retries. */
static void demand_waits(enum backing backing, int error)
{
	struct distant d = { .away = true, .error = error };
	struct hgm *h = engine_with((struct hgm_opts){
		.fault_threads = 1, .retries = 1, .retry_first_us = 500, .outage_ms = 60000 });
	struct waiter waiter;
	struct ram ram;
	uint64_t back;

	watch("demand through an outage", 60);
	distant_make(&d, 0);
	ram_make(&ram, h, backing, LENGTH, d.source, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	waiter_start(&waiter, ram.addr + 33 * PAGE);
	assert_true(eventually(has_failed_demand, &d, 5000));
	assert_true(eventually(asks_again_soon, h, WAIT_MS));
	assert_int_equal(atomic_load(&waiter.signal), -1);
	back = now_us();
	atomic_store(&d.away, false);
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, 0);
	if (now_us() - back > SOON_US)
		fail_msg("%s: served %llu ms after the source was back", backing_names[backing],
			 (unsigned long long)(now_us() - back) / 1000);
	assert_int_equal(stats_of(h).poisoned_pages, 0);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(d.source);
	calm();
}

static void demand_rides_out(void **state)
{
	(void)state;
	demand_waits(BACKING_SHMEM, -ENOTCONN);
	demand_waits(BACKING_ANON, -ETIMEDOUT);
	demand_waits(BACKING_SHMEM_LAZY, -EAGAIN);
}

/*
 * Gives up a page when the outage is longer than @outage_ms. HGM_OUTAGE_NEVER makes errors that
 * pass the same as any other. The page must take @least_us at least.
 */
static void given_up_after(uint64_t outage_ms, uint64_t least_us)
{
	struct distant d = { .away = true, .error = -ECONNRESET };
	struct hgm *h = engine_with((struct hgm_opts){
		.fault_threads = 1, .retries = 1, .retry_first_us = 500, .outage_ms = outage_ms });
	struct ram ram;
	uint64_t began;
	uint8_t value;

	watch("an outage too long", 60);
	distant_make(&d, 0);
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, d.source, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	began = now_us();
	assert_int_equal(touch(ram.addr + 5 * PAGE, &value), SIGBUS);
	assert_true(now_us() - began >= least_us);
	if (!least_us)
		assert_int_equal(atomic_load(&d.failed), 2);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(d.source);
	calm();
}

static void assert_outage(uint64_t asked_for_ms, uint64_t is_ms)
{
	struct hgm *h = engine_with((struct hgm_opts){ .outage_ms = asked_for_ms });

	assert_int_equal(h->opts.outage_ms, is_ms);
	hgm_destroy(h);
}

static void how_long_it_may_be(void **state)
{
	(void)state;
	assert_outage(0, 30000);
	assert_outage(1, 1);
	assert_outage(HGM_OUTAGE_NEVER, 0);
}

static void an_outage_may_be_too_long(void **state)
{
	(void)state;
	skip_unless(KERNEL_POISON);
	given_up_after(200, 200000);
	given_up_after(HGM_OUTAGE_NEVER, 0);
}

/*
 * A request that waits for its next try does not wait any longer when the answer to another request
 * shows that the source works.
 */
static void a_good_answer_ends_all_waiting(void **state)
{
	struct distant d = { .away = true, .error = -EIO, .from = 0 };
	struct hgm *h =
		engine_with((struct hgm_opts){ .fault_threads = 1, .retry_first_us = 1000000 });
	struct waiter waiter;
	struct ram ram;
	uint64_t well;
	uint8_t value;

	(void)state;
	watch("the source is well again", 60);
	distant_make(&d, 0);
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, d.source, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	waiter_start(&waiter, ram.addr + 33 * PAGE);
	assert_true(eventually(has_failed_demand, &d, 5000));
	nap_us(20000);
	atomic_store(&d.away, false);
	well = now_us();
	assert_int_equal(touch(ram.addr + 99 * PAGE, &value), 0);
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, 0);
	if (now_us() - well > SOON_US)
		fail_msg("served %llu ms after the source was seen to be well",
			 (unsigned long long)(now_us() - well) / 1000);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(d.source);
	calm();
}

/*
 * A thread that touches a page for which fill has failed does not wait either, however long fill
 * pauses.
 */
static void a_touch_of_what_fill_failed_for(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		struct distant d = { .away = true, .error = -EIO, .scribbles = true };
		struct hgm *h = engine_with(
			(struct hgm_opts){ .fault_threads = 1, .retry_first_us = 1000000 });
		struct ram ram;
		uint64_t began;
		uint8_t value;

		watch("a touch of what fill has failed for", 60);
		distant_make(&d, 0);
		ram_make(&ram, h, backings[i], LENGTH, d.source, 0);
		assert_ok(hgm_start(h));
		assert_true(eventually(has_failed, &d, 5000));
		nap_us(20000);
		atomic_store(&d.away, false);
		began = now_us();
		assert_int_equal(touch(ram.addr, &value), 0);
		if (now_us() - began > SOON_US)
			fail_msg("%s: a touch waited %llu ms for fill", backing_names[backings[i]],
				 (unsigned long long)(now_us() - began) / 1000);
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_pages(&contents, 0, LENGTH / PAGE, ram.addr);
		ram_end(&ram);
		hgm_destroy(h);
		hgm_source_destroy(d.source);
		calm();
	}
}

/* The pages are counted just after the waiting thread has received SIGBUS. */
struct want {
	struct hgm *h;
	uint64_t bytes;
};

static bool is_poisoned(void *arg)
{
	const struct want *want = arg;

	return progress_of(want->h).poisoned_bytes >= want->bytes;
}

static void want_poison(struct hgm *h, uint64_t bytes)
{
	struct want want = { h, bytes };

	assert_true(eventually(is_poisoned, &want, 5000));
}

/* Pages that were given up, some of them consecutive, are requested again. */
static void had_again(enum backing backing, bool fills)
{
	static const uint64_t lost[] = { 3, 70, 71, 72, 511 };
	struct distant d = { .away = true, .error = -EIO, .scribbles = true };
	struct hgm *h = engine_with(
		(struct hgm_opts){ .fault_threads = 1, .retries = 1, .retry_first_us = 100 });
	bool whole = backing >= BACKINGS_SMALL;
	struct ram ram;
	uint8_t value;

	watch("pages that were given up", 60);
	distant_make(&d, 0);
	ram_make(&ram, h, backing, LENGTH, d.source, fills ? 0 : HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	for (unsigned int i = 0; i < sizeof(lost) / sizeof(lost[0]); i++)
		assert_int_equal(touch(ram.addr + lost[i] * PAGE, &value), SIGBUS);
	want_poison(h,
		    whole ? 2 * MIB : 5 * PAGE); /* all pages of the block, one after the other */
	/* The source is still away. The retry loses nothing. */
	assert_ok(hgm_region_retry(ram.region));
	assert_int_equal(progress_of(h).poisoned_bytes, 0);
	assert_int_equal(touch(ram.addr + 70 * PAGE, &value), SIGBUS);
	want_poison(h, whole ? 2 * MIB : PAGE);
	atomic_store(&d.away, false);
	assert_int_equal(touch(ram.addr + 70 * PAGE, &value), SIGBUS);
	assert_ok(hgm_region_retry(ram.region));
	assert_int_equal(progress_of(h).poisoned_bytes, 0);
	if (fills) {
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_int_equal(info_of(ram.region).present_bytes, LENGTH);
	}
	assert_pages(&contents, 0, LENGTH / PAGE, ram.addr);
	if (fills && backing_can_be_huge(backing))
		assert_huge(&ram, backing);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_ok(hgm_region_retry(ram.region)); /* nothing to do */
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(d.source);
	calm();
}

static void given_up_and_had_again(void **state)
{
	(void)state;
	skip_unless(KERNEL_POISON);
	for (int backing = 0; backing < BACKINGS_SMALL; backing++) {
		had_again((enum backing)backing, true);
		had_again((enum backing)backing, false);
	}
}

static void given_up_and_had_again_hugetlb(void **state)
{
	(void)state;
	skip_unless(KERNEL_POISON);
	if (backing_lacking(BACKING_HUGETLB_2M, LENGTH))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, LENGTH));
	had_again(BACKING_HUGETLB_2M, false);
	had_again(BACKING_FD_HUGETLB_2M, false);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(fill_rides_out),
	cmocka_unit_test(fill_rides_out_hugetlb),
	cmocka_unit_test(demand_rides_out),
	cmocka_unit_test(how_long_it_may_be),
	cmocka_unit_test(an_outage_may_be_too_long),
	cmocka_unit_test(a_good_answer_ends_all_waiting),
	cmocka_unit_test(a_touch_of_what_fill_failed_for),
	cmocka_unit_test(given_up_and_had_again),
	cmocka_unit_test(given_up_and_had_again_hugetlb),
};

TEST_MAIN(tests)
