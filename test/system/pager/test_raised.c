/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread waits for a page that fill has requested already. The page becomes demand at once. Where
 * contents are copied in, the library sends another request for it. Elsewhere it tells the source
 * to hurry. The answer that comes last must not become visible.
 */
#include "harness.h"

#include <errno.h>
#include <stdlib.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(4 * MIB)
#define KEPT	1024

static const struct contents contents = { .seed = 40, .holes = true };

/*
 * Demand is answered at once. Requests of fill are kept until let_go() answers them, in part or as
 * a whole.
 */
struct keeper {
	pthread_mutex_t lock;
	struct hgm_io kept[KEPT];
	unsigned int count;
	_Atomic bool keeps;
	_Atomic unsigned int demanded;
	_Atomic unsigned int hurried;
	bool blocks; /* the source blocks */
	struct hgm_source *source;
};

static int64_t give(const struct hgm_io *io)
{
	contents_write(&contents, io->offset / PAGE, io->length / PAGE, io->buf);
	return (int64_t)io->length;
}

static int64_t keep(void *user, const struct hgm_io *io)
{
	struct keeper *k = user;
	bool keeps;

	if (io->flags & HGM_IO_DEMAND) {
		atomic_fetch_add(&k->demanded, 1);
		return give(io);
	}
	pthread_mutex_lock(&k->lock);
	keeps = atomic_load(&k->keeps) && k->count < KEPT;
	if (keeps)
		k->kept[k->count++] = *io;
	pthread_mutex_unlock(&k->lock);
	if (!keeps)
		return give(io);
	if (!k->blocks)
		return HGM_IO_LATER;
	while (atomic_load(&k->keeps))
		nap_us(200);
	return give(io);
}

static unsigned int kept(struct keeper *k)
{
	unsigned int n;

	pthread_mutex_lock(&k->lock);
	n = k->count;
	pthread_mutex_unlock(&k->lock);
	return n;
}

static bool keeps_some(void *arg)
{
	return kept(arg) >= 1;
}

static bool keeps_the_first(void *arg)
{
	struct keeper *k = arg;
	bool found = false;

	pthread_mutex_lock(&k->lock);
	for (unsigned int i = 0; i < k->count; i++)
		found |= !k->kept[i].offset;
	pthread_mutex_unlock(&k->lock);
	return found;
}

static bool pop(struct keeper *k, struct hgm_io *io)
{
	bool any;

	pthread_mutex_lock(&k->lock);
	any = k->count;
	if (any)
		*io = k->kept[--k->count];
	pthread_mutex_unlock(&k->lock);
	return any;
}

/*
 * Answers the requests that were kept: those of more than @pages pages with @pages, unless that is
 * 0, and all others with @error, or completely if that is 0.
 */
static void let_go(struct keeper *k, uint64_t pages, int error)
{
	struct hgm_io io;

	pthread_mutex_lock(&k->lock); /* no request is kept after this */
	atomic_store(&k->keeps, false);
	pthread_mutex_unlock(&k->lock);
	while (!k->blocks && pop(k, &io)) {
		if (pages && io.length > pages * PAGE) {
			contents_write(&contents, io.offset / PAGE, pages, io.buf);
			assert_ok(hgm_io_done(&io, (int64_t)(pages * PAGE)));
			continue;
		}
		assert_ok(hgm_io_done(&io, error ? error : give(&io)));
	}
}

static void hurry(void *user, struct hgm *h, uint64_t id)
{
	struct keeper *k = user;
	struct hgm_io io = { .engine = NULL };

	atomic_fetch_add(&k->hurried, 1);
	pthread_mutex_lock(&k->lock);
	for (unsigned int i = 0; i < k->count; i++)
		if (k->kept[i].id == id && k->kept[i].engine == h) {
			io = k->kept[i];
			k->kept[i] = k->kept[--k->count];
		}
	pthread_mutex_unlock(&k->lock);
	if (io.engine)
		hgm_io_done(&io, give(&io));
}

static void keeper_make(struct keeper *k, bool blocks, bool hurries)
{
	const struct hgm_source_fn_opts opts = { .size = sizeof(opts),
						 .flags = blocks ? HGM_SOURCE_BLOCKING : 0,
						 .hurry = hurries ? hurry : NULL };

	*k = (struct keeper){ .keeps = true, .blocks = blocks };
	pthread_mutex_init(&k->lock, NULL);
	assert_ok(hgm_source_fn(&k->source, keep, k, &opts));
}

/*
 * Fill has requested pages from 0 on. Some of them are touched and written to before the rest of
 * fill's answer comes.
 */
static void asked_for_once_more(enum backing backing, bool blocks, uint64_t short_pages, int error)
{
	struct hgm *h = engine_with((struct hgm_opts){
		.fault_threads = 1, .retry_first_us = 100, .fill_window_bytes = LENGTH });
	struct keeper *k = calloc(1, sizeof(*k));
	unsigned int taken = 0;
	struct ram ram;

	watch("pages that fill has asked for", 60);
	assert_non_null(k);
	keeper_make(k, blocks, false);
	ram_make(&ram, h, backing, LENGTH, k->source, 0);
	assert_ok(hgm_start(h));
	assert_true(eventually(keeps_some, k, 5000));
	nap_us(20000);
	for (uint64_t p = 0; p < 130; p++) {
		if (p % 64 > 2 && p % 64 != 30 && p % 64 != 31 && p % 64 != 63)
			continue;
		assert_pages(&contents, p, 1, ram.addr + p * PAGE); /* fill has brought none */
		page_mark(p, ram.addr + p * PAGE, 3);
		taken++;
	}
	assert_true(atomic_load(&k->demanded) >= taken);
	let_go(k, short_pages, error);
	assert_ok(hgm_wait(h, WAIT_MS));
	for (uint64_t p = 0; p < LENGTH / PAGE; p++) {
		bool marked =
			p < 130 && (p % 64 <= 2 || p % 64 == 30 || p % 64 == 31 || p % 64 == 63);
		char why[160];

		if (!page_right(&contents, p, ram.addr + p * PAGE, marked ? 3 : -1, why))
			fail_msg("%s: %s", backing_names[backing], why);
	}
	assert_int_equal(info_of(ram.region).present_bytes, LENGTH);
	assert_huge(&ram, backing);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(k->source);
	free(k);
	calm();
}

static void by_a_request_of_its_own(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM_LAZY, BACKING_ANON,
						 BACKING_FD_LAZY };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		asked_for_once_more(backings[i], false, 0, 0);
		asked_for_once_more(backings[i], false, 1, 0);
		asked_for_once_more(backings[i], false, 17, 0);
		asked_for_once_more(backings[i], false, 0, -EIO);
		asked_for_once_more(backings[i], true, 0, 0);
	}
}

/* In other memory, the source writes to where the guest will read. It is told to hurry, once. */
static void by_having_the_source_hurry(void **state)
{
	struct hgm *h = engine_with((struct hgm_opts){ .fault_threads = 1 });
	struct keeper *k = calloc(1, sizeof(*k));
	struct ram ram;

	(void)state;
	watch("a source that hurries", 60);
	assert_non_null(k);
	keeper_make(k, false, true);
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, k->source, 0);
	assert_ok(hgm_start(h));
	assert_true(eventually(keeps_the_first, k, 5000));
	assert_pages(&contents, 0, 1, ram.addr);
	assert_int_equal(atomic_load(&k->hurried), 1);
	assert_int_equal(atomic_load(&k->demanded), 0);
	let_go(k, 0, 0);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&contents, 0, LENGTH / PAGE, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(k->source);
	free(k);
	calm();
}

/* Threads touch all pages while fill brings the same pages from three threads in random order. */
static void under_load(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM_LAZY, BACKING_ANON };

	(void)state;
	for (unsigned int i = 0; i < SMALLER(12, 4); i++) {
		struct provider *provider = provider_make(
			i % 4 < 2 ? PROVIDER_LATER : PROVIDER_MIXED, &contents, 8 * MIB);
		struct hgm *h = engine(2);
		struct plan plan = {
			.contents = &contents, .pages = 8 * MIB / PAGE, .passes = 2, .write = true
		};
		struct touchers touchers;
		struct ram ram;

		watch("touchers against fill", 60);
		ram_make(&ram, h, backings[i % 2], 8 * MIB, provider_source(provider), 0);
		plan.addr = ram.addr;
		assert_ok(hgm_start(h));
		touchers_start(&touchers, 4, &plan);
		touchers_join(&touchers);
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_int_equal(info_of(ram.region).present_bytes, 8 * MIB);
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
		calm();
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(by_a_request_of_its_own),
	cmocka_unit_test(by_having_the_source_hurry),
	cmocka_unit_test(under_load),
};

TEST_MAIN(tests)
