/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Snapshots of memory that is still being restored, or that was discarded. A thread that touches
 * memory waits neither for the instant nor for the sink. Pages that do not arrive are reported.
 */
#include "snapshotting.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define WAIT_MS SMALLER(20000, 100000)
#define SOON_MS SMALLER(3000, 30000)
#define LENGTH	(4 * MIB)
#define PAGES	(LENGTH / PAGE)

static const struct contents contents = { .seed = 58 };

static void assert_can_touch(const void *addr)
{
	uint8_t value;

	assert_int_equal(touch(addr, &value), 0);
}

static bool is_back(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->signal) >= 0;
}

static struct hgm_snapshot *snapshot_to(struct hgm *h, struct sink *sink)
{
	return snapshot_of(h, &(struct hgm_snapshot_opts){ .write = sink_write, .user = sink });
}

/* A guest that must wait for the instant cannot be paused for it. */
static void touched_before_the_instant(void **state)
{
	static const enum backing backings[] = { BACKING_ANON, BACKING_SHMEM, BACKING_SHMEM_LAZY };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
		struct hgm *h = engine(1);
		struct sink sink = { 0 };
		struct hgm_snapshot *s;
		struct waiter w[2];
		struct ram ram;

		watch(backing_names[backings[i]], 60);
		sink_clear(&sink, LENGTH);
		ram_make(&ram, h, backings[i], LENGTH, provider_source(provider),
			 HGM_REGION_NO_FILL);
		assert_ok(hgm_start(h));
		assert_can_touch(ram.addr);
		assert_can_touch(ram.addr + PAGE);
		s = snapshot_to(h, &sink);
		assert_int_equal(madvise(ram.addr, PAGE,
					 backings[i] == BACKING_ANON ? MADV_DONTNEED : MADV_REMOVE),
				 0);
		waiter_start(&w[0], ram.addr);		    /* discarded */
		waiter_start(&w[1], ram.addr + 700 * PAGE); /* absent */
		for (unsigned int n = 0; n < 2; n++) {
			if (!eventually(is_back, &w[n], SOON_MS))
				fail_msg("%s: waits for the instant", backing_names[backings[i]]);
			waiter_join(&w[n]);
		}
		assert_int_equal(w[0].value, 0);
		memset(ram.addr + PAGE, 0x5a, 2 * PAGE);
		assert_ok(hgm_snapshot_begin(s));
		memset(ram.addr, 0xa5, 4 * PAGE);
		assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		hgm_snapshot_destroy(s);
		for (uint64_t b = 0; b < 3 * PAGE; b++)
			assert_int_equal((uint8_t)sink.got[b], b < PAGE ? 0 : 0x5a);
		assert_pages(&contents, 3, PAGES - 3, sink.got + 3 * PAGE);
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
		free(sink.got);
		calm();
	}
}

/* A slow source that counts the pages that it is asked for. */
static _Atomic uint64_t asked_pages;

static int64_t give_slowly(void *user, const struct hgm_io *io)
{
	(void)user;
	atomic_fetch_add(&asked_pages, io->length / PAGE);
	nap_us(10000);
	contents_write(&contents, io->offset / PAGE, io->length / PAGE, io->buf);
	return (int64_t)io->length;
}

static void *touch_some(void *arg)
{
	const struct ram *ram = arg;
	uint8_t value;

	for (uint64_t p = PAGES; p > 7; p -= 7)
		if (touch(ram->addr + (p - 1) * PAGE, &value))
			break;
	return NULL;
}

/* A snapshot that begins with a restore. Returns for how many pages the source was asked. */
static uint64_t restore_and_save(enum backing backing, struct hgm_source *src, bool touched)
{
	struct hgm *h = engine(1);
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	pthread_t thread;
	struct ram ram;

	watch(backing_names[backing], 100);
	sink_clear(&sink, LENGTH);
	atomic_store(&asked_pages, 0);
	ram_make(&ram, h, backing, LENGTH, src, 0);
	assert_ok(hgm_start(h));
	s = snapshot_to(h, &sink);
	assert_ok(hgm_snapshot_begin(s));
	if (touched)
		assert_int_equal(pthread_create(&thread, NULL, touch_some, &ram), 0);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	assert_ok(hgm_wait(h, WAIT_MS));
	if (touched)
		pthread_join(thread, NULL);
	assert_pages(&contents, 0, PAGES, sink.got);
	assert_pages(&contents, 0, PAGES, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	free(sink.got);
	calm();
	return atomic_load(&asked_pages);
}

/*
 * Pages that are read for a snapshot are not fetched again, except for those in flight. If the
 * snapshot's thread gets no CPU for a while, fill goes on meanwhile. For this reason there is more
 * than one try.
 */
static void fetched_once(void **state)
{
	static const enum backing backings[] = { BACKING_ANON, BACKING_SHMEM, BACKING_SHMEM_LAZY,
						 BACKING_FD, BACKING_HUGETLB_2M };
	struct hgm_source_fn_opts so = { .size = sizeof(so), .flags = HGM_SOURCE_BLOCKING };
	struct hgm_source *src;

	(void)state;
	assert_ok(hgm_source_fn(&src, give_slowly, NULL, &so));
	for (unsigned int i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		uint64_t asked = UINT64_MAX;

		if (backing_lacking(backings[i], LENGTH))
			continue;
		for (unsigned int n = 0; n < 8 && asked > PAGES * 5 / 4; n++)
			asked = restore_and_save(backings[i], src, false);
		if (asked > PAGES * 5 / 4)
			fail_msg("%s: asked for %llu pages of %llu", backing_names[backings[i]],
				 (unsigned long long)asked, (unsigned long long)PAGES);
		restore_and_save(backings[i], src, true);
	}
	hgm_source_destroy(src);
}

/*
 * hgm_wait() between create and begin returns, and the blocks that waited for the snapshot are huge
 * afterwards.
 */
static void waited_for_before_the_instant(void **state)
{
	struct provider *provider = provider_make(PROVIDER_LATER, &contents, LENGTH);

	(void)state;
	watch("waited for", 100);
	for (unsigned int round = 0; round < SMALLER(30, 5); round++) {
		struct hgm *h = engine(1);
		struct sink sink = { 0 };
		struct hgm_snapshot *s;
		struct ram ram;

		sink_clear(&sink, LENGTH);
		ram_make(&ram, h, BACKING_SHMEM, LENGTH, provider_source(provider), 0);
		assert_ok(hgm_start(h));
		nap_us(round * 300); /* collapses are under way in some rounds */
		s = snapshot_to(h, &sink);
		assert_ok(hgm_wait(h, WAIT_MS));
		if (round % 2)
			assert_ok(hgm_snapshot_begin(s));
		if (round % 2)
			assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		hgm_snapshot_destroy(s);
		if (round % 2)
			assert_pages(&contents, 0, PAGES, sink.got);
		for (unsigned int i = 0; i < 3000 * slowness(); i++) {
			if (info_of(ram.region).huge_bytes == LENGTH)
				break;
			nap_us(1000);
		}
		if (info_of(ram.region).huge_bytes != LENGTH)
			fail_msg("round %u: huge are %llu bytes, %llu blocks left split", round,
				 (unsigned long long)info_of(ram.region).huge_bytes,
				 (unsigned long long)info_of(ram.region).left_split);
		ram_end(&ram);
		hgm_destroy(h);
		free(sink.got);
	}
	provider_free(provider);
	calm();
}

/* Blocks become full under a snapshot that has not begun. No thread waits for their collapse. */
static void filled_before_the_instant(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NEVER, &contents, LENGTH);
	struct hgm *h = engine(1);
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	struct ram ram;

	(void)state;
	watch("filled before the instant", 60);
	provider_answer_below(provider, 600);
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	while (progress_of(h).present_bytes < 600 * PAGE)
		nap_us(100);
	s = snapshot_to(h, &sink);
	provider_answer_below(provider, PAGES);
	provider_give(provider);
	assert_ok(hgm_wait(h, SOON_MS));
	hgm_snapshot_destroy(s);
	for (unsigned int i = 0; i < SOON_MS && info_of(ram.region).huge_bytes != LENGTH; i++)
		nap_us(1000);
	assert_int_equal(info_of(ram.region).huge_bytes, LENGTH);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	calm();
}

/*
 * The first pages of a block have arrived, and the others arrive later, while the sink stands
 * still.
 */
static void a_block_in_parts(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NEVER, &contents, LENGTH);
	struct hgm *h = engine(1);
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	struct waiter w;
	struct ram ram;

	(void)state;
	if (backing_lacking(BACKING_HUGETLB_2M, LENGTH)) {
		hgm_destroy(h);
		provider_free(provider);
		test_skip("no huge pages");
	}
	watch("a block in parts", 60);
	provider_answer_below(provider, 600);
	sink_clear(&sink, LENGTH);
	ram_make(&ram, h, BACKING_HUGETLB_2M, LENGTH, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	while (progress_of(h).present_bytes < 600 * PAGE)
		nap_us(100);
	s = snapshot_to(h, &sink);
	atomic_store(&sink.hold, true);
	assert_ok(hgm_snapshot_begin(s));
	provider_answer_below(provider, PAGES);
	provider_give(provider);
	waiter_start(&w, ram.addr + 513 * PAGE);
	if (!eventually(is_back, &w, SOON_MS))
		fail_msg("a read of a block that is complete waits for the sink");
	waiter_join(&w);
	memset(ram.addr + 2 * MIB, 0x33, 2 * MIB); /* a write does not wait either */
	atomic_store(&sink.hold, false);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	assert_pages(&contents, 0, PAGES, sink.got);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	free(sink.got);
	calm();
}

#define BAD_FIRST 100
#define BAD_PAGES 11

static int64_t read_but_some(void *user, const struct hgm_io *io)
{
	uint64_t page = io->offset / PAGE, pages = io->length / PAGE;

	(void)user;
	if (page < BAD_FIRST + BAD_PAGES && page + pages > BAD_FIRST)
		return -ENODATA;
	contents_write(&contents, page, pages, io->buf);
	return (int64_t)io->length;
}

static void a_source_with_bad_pages(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON };

	(void)state;
	/* Without UFFDIO_POISON, the pages behind bad pages do not arrive. */
	for (unsigned int i = 0; i < (kernel_has(KERNEL_POISON) ? 4 : 2); i++) {
		struct hgm *h = engine_with((struct hgm_opts){ .retries = 1, .retry_first_us = 1 });
		struct sink sink = { 0 };
		struct hgm_snapshot *s;
		struct hgm_source *src;
		struct ram ram;

		watch("bad pages", 60);
		sink_clear(&sink, LENGTH);
		memset(sink.got, 0x11, LENGTH);
		memset(sink.got + BAD_FIRST * PAGE, 0, BAD_PAGES * PAGE);
		assert_ok(hgm_source_fn(&src, read_but_some, NULL, NULL));
		ram_make(&ram, h, backings[i % 2], LENGTH, src, i < 2 ? HGM_REGION_NO_FILL : 0);
		assert_ok(hgm_start(h));
		if (i >= 2)
			while (progress_of(h).present_bytes < LENGTH - BAD_PAGES * PAGE)
				nap_us(100);
		s = snapshot_to(h, &sink);
		assert_ok(hgm_snapshot_begin(s));
		assert_error(hgm_snapshot_wait(s, WAIT_MS), -ENODATA);
		assert_int_equal(snapshot_progress(s).unreadable_bytes, BAD_PAGES * PAGE);
		assert_int_equal(snapshot_progress(s).done_bytes, LENGTH);
		hgm_snapshot_destroy(s);
		assert_pages(&contents, 0, BAD_FIRST, sink.got);
		for (uint64_t b = BAD_FIRST * PAGE; b < (BAD_FIRST + BAD_PAGES) * PAGE; b++)
			assert_int_equal(sink.got[b], 0);
		assert_pages(&contents, BAD_FIRST + BAD_PAGES, PAGES - BAD_FIRST - BAD_PAGES,
			     sink.got + (BAD_FIRST + BAD_PAGES) * PAGE);
		ram_end(&ram);
		hgm_destroy(h);
		hgm_source_destroy(src);
		free(sink.got);
		calm();
	}
}

/*
 * The source never answers. A thread that cancels does not wait for it, and other threads are not
 * disturbed.
 */
static void cancelled_while_the_source_sleeps(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		struct provider *provider = provider_make(PROVIDER_NEVER, &contents, LENGTH);
		struct hgm *h = engine(1);
		struct sink sink = { 0 };
		struct hgm_snapshot *s;
		struct waiter w;
		struct ram ram;

		watch("the source sleeps", 60);
		sink_clear(&sink, LENGTH);
		provider_answer_below(provider, 10);
		ram_make(&ram, h, BACKING_SHMEM, LENGTH, provider_source(provider),
			 HGM_REGION_NO_FILL);
		assert_ok(hgm_start(h));
		waiter_start(&w, ram.addr + 20 * PAGE);
		while (!provider_kept(provider))
			nap_us(100);
		s = snapshot_to(h, &sink);
		assert_ok(hgm_snapshot_begin(s));
		while (provider_kept(provider) < 2)
			nap_us(100);
		if (i == 0) {
			assert_ok(hgm_snapshot_cancel(s));
			assert_error(hgm_snapshot_wait(s, SOON_MS), -ECANCELED);
		} else if (i == 1) { /* the region's end cancels too: the waiter gets SIGSEGV */
			ram_end(&ram);
			assert_error(hgm_snapshot_wait(s, SOON_MS), -ECANCELED);
		}
		hgm_snapshot_destroy(s);
		if (i != 1) {
			assert_int_equal(atomic_load(&w.signal), -1);
			provider_answer_below(provider, PAGES);
			provider_give(provider);
		}
		waiter_join(&w);
		assert_int_equal(w.signal != 0, i == 1);
		if (i != 1)
			ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
		free(sink.got);
		calm();
	}
}

static bool keeps_many(void *provider)
{
	return provider_kept(provider) >= 16;
}

/* A source that takes long for each answer is asked for many pages at a time. */
static void many_at_a_time(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON };

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct provider *provider = provider_make(PROVIDER_NEVER, &contents, LENGTH);
		struct hgm *h = engine(1);
		struct sink sink = { 0 };
		struct hgm_snapshot *s;
		struct ram ram;

		watch(backing_names[backings[i]], 60);
		sink_clear(&sink, LENGTH);
		ram_make(&ram, h, backings[i], LENGTH, provider_source(provider),
			 HGM_REGION_NO_FILL);
		assert_ok(hgm_start(h));
		s = snapshot_to(h, &sink);
		assert_ok(hgm_snapshot_begin(s));
		if (!eventually(keeps_many, provider, WAIT_MS))
			fail_msg("%s: %u requests at a time", backing_names[backings[i]],
				 provider_kept(provider));
		provider_answer_below(provider, PAGES);
		provider_give(provider);
		assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		assert_int_equal(snapshot_progress(s).source_bytes, LENGTH);
		hgm_snapshot_destroy(s);
		assert_pages(&contents, 0, PAGES, sink.got);
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
		free(sink.got);
		calm();
	}
}

/* A source that sleeps, and does not wake up for pages from @below on. */
struct sleeper {
	_Atomic uint64_t below;
	_Atomic unsigned int asleep;
};

static int64_t read_asleep(void *user, const struct hgm_io *io)
{
	struct sleeper *sleeper = user;

	atomic_fetch_add(&sleeper->asleep, 1);
	while (io->offset / PAGE >= atomic_load(&sleeper->below))
		nap_us(100);
	atomic_fetch_sub(&sleeper->asleep, 1);
	contents_write(&contents, io->offset / PAGE, io->length / PAGE, io->buf);
	return (int64_t)io->length;
}

static bool sleeps(void *sleeper)
{
	return atomic_load(&((struct sleeper *)sleeper)->asleep);
}

/*
 * A thread that writes to a present page does not wait for the source, even if the pool holds one
 * page.
 */
static void writers_do_not_wait_for_the_source(void **state)
{
	struct hgm_source_fn_opts so = { .size = sizeof(so), .flags = HGM_SOURCE_BLOCKING };
	struct sleeper sleeper = { .below = 100 };
	struct hgm *h = engine(1);
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	struct hgm_source *src;
	struct ram ram;

	(void)state;
	watch("writers and a source that sleeps", 60);
	sink_clear(&sink, LENGTH);
	assert_ok(hgm_source_fn(&src, read_asleep, &sleeper, &so));
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	for (uint64_t p = 0; p < 100; p++)
		assert_can_touch(ram.addr + p * PAGE);
	atomic_store(&sink.hold, true);
	s = snapshot_of(h, &(struct hgm_snapshot_opts){
				   .write = sink_write, .user = &sink, .pool_bytes = PAGE });
	atomic_store(&sleeper.below, 0);
	assert_ok(hgm_snapshot_begin(s));
	assert_true(eventually(sleeps, &sleeper, WAIT_MS));
	atomic_store(&sink.hold, false);
	for (uint64_t p = 99; p >= 50; p--) {
		struct poker poker;

		poker_start(&poker, ram.addr + p * PAGE);
		if (!eventually(poker_done, &poker, SOON_MS))
			fail_msg("a write to page %llu waits for the source",
				 (unsigned long long)p);
		pthread_join(poker.thread, NULL);
	}
	assert_true(sleeps(&sleeper));
	atomic_store(&sleeper.below, PAGES);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	assert_pages(&contents, 0, PAGES, sink.got);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	free(sink.got);
	calm();
}

/*
 * Memory whose pages come from far away, like those of a mapped file. Here they come by another
 * userfaultfd.
 */
struct far {
	char *memory;
	struct hgm_uffd *uffd;
	pthread_t thread;
	_Atomic uint64_t asked;
	_Atomic bool answer, stop;
};

static void *answer_from_far(void *arg)
{
	struct far *far = arg;
	struct hgm_uffd_event event;

	while (!atomic_load(&far->stop)) {
		char page[PAGE];
		struct hgm_range range = { .len = PAGE, .step = PAGE };

		if (hgm_uffd_read(far->uffd, &event, 1) != 1) {
			nap_us(100);
			continue;
		}
		atomic_fetch_add(&far->asked, 1);
		while (!atomic_load(&far->answer))
			nap_us(100);
		range.addr = (void *)(uintptr_t)(event.addr & ~(PAGE - 1));
		contents_write(&contents, (event.addr - (uintptr_t)far->memory) / PAGE, 1, page);
		hgm_uffd_copy(far->uffd, &range, page);
	}
	return NULL;
}

static bool asked_from_far(void *far)
{
	return atomic_load(&((struct far *)far)->asked);
}

static void far_begin(struct far *far)
{
	uint64_t ioctls;

	far->memory =
		mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(far->memory != MAP_FAILED);
	assert_ok(hgm_uffd_open(&far->uffd, NULL));
	assert_ok(hgm_uffd_register(far->uffd, far->memory, LENGTH, HGM_UFFD_MISSING, &ioctls));
	assert_int_equal(pthread_create(&far->thread, NULL, answer_from_far, far), 0);
}

static void far_end(struct far *far)
{
	atomic_store(&far->stop, true);
	pthread_join(far->thread, NULL);
	hgm_uffd_close(far->uffd);
	munmap(far->memory, LENGTH);
}

/* A guest that is stopped does not wait for pages that a source brings from far away. */
static void the_instant_does_not_wait_for_the_source(void **state)
{
	static const enum backing backings[] = { BACKING_ANON, BACKING_SHMEM_LAZY, BACKING_SHMEM };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		struct far far = { .memory = NULL };
		struct hgm *h = engine(1);
		struct sink sink = { 0 };
		struct hgm_snapshot *s;
		struct hgm_source *src;
		struct waiter w;
		struct ram ram;

		watch(backing_names[backings[i]], 60);
		far_begin(&far);
		sink_clear(&sink, LENGTH);
		assert_ok(hgm_source_memory(&src, far.memory, LENGTH));
		ram_make(&ram, h, backings[i], LENGTH, src, HGM_REGION_NO_FILL);
		assert_ok(hgm_start(h));
		s = snapshot_to(h, &sink);
		waiter_start(&w, ram.addr + 300 * PAGE);
		assert_true(eventually(asked_from_far, &far, WAIT_MS));
		assert_ok(hgm_snapshot_begin(s)); /* hangs if it waits */
		atomic_store(&far.answer, true);
		waiter_join(&w);
		assert_int_equal(w.signal, 0);
		assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		hgm_snapshot_destroy(s);
		assert_pages(&contents, 0, PAGES, sink.got);
		ram_end(&ram);
		hgm_destroy(h);
		hgm_source_destroy(src);
		far_end(&far);
		free(sink.got);
		calm();
	}
}

/*
 * There is memory behind a region's end, which completes its last block. It is not part of the
 * snapshot.
 */
static void behind_the_end(void **state)
{
	const uint64_t length = 2 * MIB + 37 * PAGE;
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, length);
	struct hgm *h = engine(1);
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	struct ram ram;

	(void)state;
	watch("behind the end", 60);
	sink_clear(&sink, length); /* the sink fails on anything behind it */
	ram_make(&ram, h, BACKING_SHMEM, length, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	atomic_store(&sink.hold, true);
	s = snapshot_to(h, &sink);
	assert_ok(hgm_snapshot_begin(s));
	for (uint64_t p = 30; p < 60; p++)
		assert_can_touch(ram.addr + 2 * MIB + p * PAGE);
	for (uint64_t p = 30; p < 60; p++)
		ram.addr[2 * MIB + p * PAGE] = 1;
	assert_int_equal(snapshot_progress(s).copied_bytes, 7 * PAGE);
	atomic_store(&sink.hold, false);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	assert_int_equal(snapshot_progress(s).done_bytes, length);
	hgm_snapshot_destroy(s);
	assert_pages(&contents, 0, length / PAGE, sink.got);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	free(sink.got);
	calm();
}

/*
 * Threads that serve faults read anonymous memory through /proc/self/mem. For absent pages, the
 * kernel returns an error, and the reader does not wait.
 */
static void the_kernel_refuses_absent_pages(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NEVER, &contents, LENGTH);
	int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	struct hgm *h = engine(1);
	struct ram ram;
	char buf[PAGE];
	uint64_t faults;

	(void)state;
	watch("/proc/self/mem", 20);
	provider_answer_below(provider, 1);
	ram_make(&ram, h, BACKING_ANON, LENGTH, provider_source(provider), HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	assert_can_touch(ram.addr);
	faults = stats_of(h).faults;
	assert_true(mem >= 0);
	assert_int_equal(pread(mem, buf, PAGE, (off_t)(uintptr_t)ram.addr), PAGE);
	assert_pages(&contents, 0, 1, buf);
	assert_int_equal(pread(mem, buf, PAGE, (off_t)(uintptr_t)(ram.addr + PAGE)), -1);
	assert_int_equal(errno, EIO);
	assert_int_equal(stats_of(h).faults, faults);
	close(mem);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(touched_before_the_instant),
	cmocka_unit_test(fetched_once),
	cmocka_unit_test(waited_for_before_the_instant),
	cmocka_unit_test(filled_before_the_instant),
	cmocka_unit_test(a_block_in_parts),
	cmocka_unit_test(a_source_with_bad_pages),
	cmocka_unit_test(cancelled_while_the_source_sleeps),
	cmocka_unit_test(many_at_a_time),
	cmocka_unit_test(writers_do_not_wait_for_the_source),
	cmocka_unit_test(the_instant_does_not_wait_for_the_source),
	cmocka_unit_test(behind_the_end),
	cmocka_unit_test(the_kernel_refuses_absent_pages),
};

TEST_MAIN(tests)
