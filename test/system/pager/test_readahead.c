/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread that walks through memory whose source is far away waits for some of its pages, not for
 * each one.
 */
#include "harness.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#define LENGTH	   (64 * MIB)
#define PAGES	   (LENGTH / PAGE)
#define WALK	   2048 /* the last pages; fill begins with the others, and gets no answer */
#define LATENCY_US (1000 * slowness()) /* much more than it takes to produce an answer */
#define KEPT_MAX   1024
#define TRIES	   10

static const struct contents contents = { .seed = 61 };

/* A source that is far away. It does not answer fill before the end. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct hgm_io asked[KEPT_MAX];
	struct hgm_io kept[KEPT_MAX];
	unsigned int asked_count, kept_count;
	bool open, stop;
	pthread_t thread;
	_Atomic uint64_t requests, pages; /* of demand only */
} far = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

static int64_t ask(void *user, const struct hgm_io *io)
{
	(void)user;
	pthread_mutex_lock(&far.lock);
	if (io->flags & HGM_IO_DEMAND) {
		atomic_fetch_add(&far.requests, 1);
		atomic_fetch_add(&far.pages, io->length / PAGE);
	}
	if (io->flags & HGM_IO_DEMAND || far.open)
		far.asked[far.asked_count++] = *io;
	else
		far.kept[far.kept_count++] = *io;
	pthread_cond_signal(&far.cond);
	pthread_mutex_unlock(&far.lock);
	return HGM_IO_LATER;
}

static void *answer(void *arg)
{
	pthread_mutex_lock(&far.lock);
	while (!far.stop) {
		struct hgm_io io;

		if (!far.asked_count) {
			pthread_cond_wait(&far.cond, &far.lock);
			continue;
		}
		io = far.asked[0];
		memmove(far.asked, far.asked + 1, --far.asked_count * sizeof(io));
		pthread_mutex_unlock(&far.lock);
		nap_us(LATENCY_US);
		contents_write(&contents, io.offset / PAGE, io.length / PAGE, io.buf);
		assert_ok(hgm_io_done(&io, (int64_t)io.length));
		pthread_mutex_lock(&far.lock);
	}
	pthread_mutex_unlock(&far.lock);
	return arg;
}

static void open_up(void)
{
	pthread_mutex_lock(&far.lock);
	far.open = true;
	for (unsigned int i = 0; i < far.kept_count; i++)
		far.asked[far.asked_count++] = far.kept[i];
	far.kept_count = 0;
	pthread_cond_signal(&far.cond);
	pthread_mutex_unlock(&far.lock);
}

static uint64_t in_order(uint64_t i)
{
	return PAGES - WALK + i;
}

/* Two touches in a row rarely hit adjacent pages, so this is not a walk. */
static uint64_t in_disorder(uint64_t i)
{
	return PAGES / 2 + mix(i) % (PAGES / 2);
}

/*
 * Touches pages of a region that is being filled, or not. *pages receives the mean number of pages
 * of a demand request. Returns the number of these requests.
 */
static uint64_t touch_all(enum backing backing, uint32_t flags, uint64_t (*page)(uint64_t),
			  uint64_t touches, double *pages)
{
	struct hgm_source *src;
	struct hgm *h = engine(1);
	struct ram ram;

	watch(backing_names[backing], 100);
	far.open = far.stop = false;
	atomic_store(&far.requests, 0);
	atomic_store(&far.pages, 0);
	assert_int_equal(pthread_create(&far.thread, NULL, answer, NULL), 0);
	assert_ok(hgm_source_fn(&src, ask, NULL, NULL));
	ram_make(&ram, h, backing, LENGTH, src, flags);
	assert_ok(hgm_start(h));
	for (uint64_t i = 0; i < touches; i++)
		assert_pages(&contents, page(i), 1, ram.addr + page(i) * PAGE);
	*pages = (double)atomic_load(&far.pages) / (double)atomic_load(&far.requests);
	open_up();
	if (!flags) {
		assert_ok(hgm_wait(h, 100000));
		assert_pages(&contents, 0, PAGES, ram.addr);
	}
	ram_end(&ram);
	hgm_destroy(h);
	pthread_mutex_lock(&far.lock);
	far.stop = true;
	pthread_cond_signal(&far.cond);
	pthread_mutex_unlock(&far.lock);
	pthread_join(far.thread, NULL);
	hgm_source_destroy(src);
	calm();
	return atomic_load(&far.requests);
}

static void who_walks_waits_seldom(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON, BACKING_SHMEM_LAZY };
	double pages;

	(void)state;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		uint64_t requests = WALK;

		/* Load makes wide answers look slow. It takes a part of a walk to know better. */
		for (int tries = 0; tries < TRIES && requests >= WALK / 4; tries++)
			requests = touch_all(backings[i], 0, in_order, WALK, &pages);
		if (requests >= WALK / 4)
			fail_msg("%s: %llu requests for %d pages", backing_names[backings[i]],
				 (unsigned long long)requests, WALK);
	}
}

static void who_jumps_gets_what_is_wanted(void **state)
{
	double pages;

	(void)state;
	touch_all(BACKING_SHMEM, 0, in_disorder, WALK / 4, &pages);
	assert_true(pages < 1.5);
}

static void without_fill_nothing_else_comes(void **state)
{
	double pages;

	(void)state;
	assert_int_equal(touch_all(BACKING_SHMEM, HGM_REGION_NO_FILL, in_order, WALK / 8, &pages),
			 WALK / 8);
	assert_true(pages == 1);
}

static _Atomic uint64_t bad_from, bad_pages;
static _Atomic bool bad_soon; /* from the second page of the next request of several pages on */

static int64_t answer_unless_bad(void *user, const struct hgm_io *io)
{
	uint64_t first = io->offset / PAGE, pages = io->length / PAGE;
	uint64_t bad = atomic_load(&bad_from);

	(void)user;
	assert_true(pages);
	if (!(io->flags & HGM_IO_DEMAND)) /* the source is slow for fill */
		nap_us(2000);
	if (io->flags & HGM_IO_DEMAND && pages > 1 && atomic_exchange(&bad_soon, false)) {
		bad = first + 1;
		atomic_store(&bad_from, bad);
		atomic_store(&bad_pages, 100);
	}
	if (atomic_load(&bad_pages) && first < bad && bad < first + pages)
		pages = bad - first; /* up to the first bad page */
	if (first >= bad && first < bad + atomic_load(&bad_pages))
		return -EIO;
	contents_write(&contents, first, pages, io->buf);
	return (int64_t)(pages * PAGE);
}

/* A page is poisoned before it is counted. */
static bool some_is_poisoned(void *region)
{
	return info_of(region).poisoned_bytes;
}

static uint64_t failed_before;

static bool fails_twice(void *h)
{
	return stats_of(h).source_errors >= failed_before + 2;
}

/* Pages that no thread waited for are not given up because of the page beside them. */
static void what_is_read_ahead_is_not_given_up(void **state)
{
	const struct hgm_source_fn_opts so = { .size = sizeof(so), .flags = HGM_SOURCE_BLOCKING };
	uint64_t bad = PAGES / 2 + 500;
	struct hgm_source *src;
	struct hgm *h;
	struct ram ram;
	uint8_t value;

	(void)state;
	skip_unless(KERNEL_POISON);
	watch("read ahead, and bad", 100);
	assert_ok(hgm_source_fn(&src, answer_unless_bad, NULL, &so));
	h = engine_with((struct hgm_opts){ .fault_threads = 1, .retries = 1 });
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, 0);
	assert_ok(hgm_region_set_fill(ram.region,
				      &(struct hgm_fill_opts){ .size = sizeof(struct hgm_fill_opts),
							       .flags = HGM_FILL_PAUSED }));
	assert_ok(hgm_start(h));
	for (uint64_t page = bad - 480; page < bad - 1; page++)
		assert_pages(&contents, page, 1, ram.addr + page * PAGE);
	/* By now some pages are read ahead. The source fails for all of them. */
	atomic_store(&bad_from, bad);
	atomic_store(&bad_pages, 100);
	while (!touch(ram.addr + bad * PAGE, &value))
		bad++;
	assert_true(eventually(some_is_poisoned, ram.region, 5000));
	assert_int_equal(info_of(ram.region).poisoned_bytes, PAGE);
	atomic_store(&bad_pages, 0);
	assert_pages(&contents, bad + 1, 99, ram.addr + (bad + 1) * PAGE);
	assert_ok(hgm_region_retry(ram.region));
	/* The page that a thread waits for arrives, and the rest of the request fails. */
	failed_before = stats_of(h).source_errors;
	atomic_store(&bad_soon, true);
	for (bad = PAGES / 4 * 3; bad < PAGES && !atomic_load(&bad_pages); bad++)
		assert_pages(&contents, bad, 1, ram.addr + bad * PAGE);
	assert_true(eventually(fails_twice, h, 5000));
	assert_int_equal(info_of(ram.region).poisoned_bytes, 0);
	atomic_store(&bad_pages, 0);
	assert_ok(hgm_region_set_fill(ram.region, NULL));
	assert_ok(hgm_wait(h, 100000));
	assert_pages(&contents, 0, PAGES, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(what_is_read_ahead_is_not_given_up),
	cmocka_unit_test(who_walks_waits_seldom),
	cmocka_unit_test(who_jumps_gets_what_is_wanted),
	cmocka_unit_test(without_fill_nothing_else_comes),
};

TEST_MAIN(tests)
