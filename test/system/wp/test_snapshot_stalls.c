/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a snapshot costs threads that write meanwhile. As long as the pool has room, the sink does
 * not matter. Once the pool is full, they wait, and nothing else happens to them. Another case has
 * 1 GiB as one unit.
 */
#include "snapshotting.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "kernel/sys.h"

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(32 * MIB)
#define PAGES	(LENGTH / PAGE)
#define TOUCHED 1000

static const struct contents contents = { .seed = 59 };

/*
 * Writes once to each of some pages that are far from each other. None is in the first word (64
 * pages).
 */
static void write_apart(char *addr)
{
	for (unsigned int i = 0; i < TOUCHED; i++)
		*(volatile char *)(addr + (PAGES - 1 - i * 8) * PAGE) = 1;
}

struct ground {
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	struct sink sink;
};

static void ground_make(struct ground *g, uint32_t flags)
{
	watch("stalls", 100);
	memset(g, 0, sizeof(*g));
	g->provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	g->h = engine(1);
	sink_clear(&g->sink, LENGTH);
	ram_make(&g->ram, g->h, BACKING_SHMEM, LENGTH, provider_source(g->provider), flags);
	assert_ok(hgm_start(g->h));
	if (!(flags & HGM_REGION_NO_FILL))
		assert_ok(hgm_wait(g->h, WAIT_MS));
}

static void ground_end(struct ground *g)
{
	ram_end(&g->ram);
	hgm_destroy(g->h);
	provider_free(g->provider);
	free(g->sink.got);
	calm();
}

static bool is_called(void *sink)
{
	return atomic_load(&((struct sink *)sink)->calls) > 0;
}

/*
 * A writer that waited for the sink would wait for ever, and one that waited for the rate for
 * hours.
 */
static void the_sink_does_not_matter(void **state)
{
	struct hgm_snapshot_progress p;

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct hgm_snapshot *s;
		struct ground g;

		ground_make(&g, 0);
		atomic_store(&g.sink.hold, !i);
		s = snapshot_of(g.h, &(struct hgm_snapshot_opts){ .write = sink_write,
								  .user = &g.sink,
								  .rate_bytes = i });
		assert_ok(hgm_snapshot_begin(s));
		assert_true(eventually(is_called, &g.sink, WAIT_MS));
		write_apart(g.ram.addr);
		p = snapshot_progress(s);
		assert_int_equal(p.pool_full, 0);
		assert_int_equal(p.copied_bytes, TOUCHED * PAGE);
		assert_false(p.done);
		if (!i) {
			atomic_store(&g.sink.hold, false);
			assert_ok(hgm_snapshot_wait(s, WAIT_MS));
			assert_pages(&contents, 0, PAGES, g.sink.got);
		}
		hgm_snapshot_destroy(s);
		ground_end(&g);
	}
}

static bool is_full(void *s)
{
	return snapshot_progress(s).pool_full > 0;
}

/* A pool of few pages, also in order. Writers wait, the snapshot is right, and it ends. */
static void back_pressure(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON, BACKING_HUGETLB_2M };
	const uint64_t length = 4 * MIB;

	(void)state;
	for (unsigned int i = 0; i < 12; i++) {
		enum backing backing = backings[i % 3];
		uint64_t pool = backing == BACKING_HUGETLB_2M ? 2 * MIB : (i < 6 ? 4 : 1) * PAGE;
		struct hgm_snapshot_opts o = { .write = sink_write,
					       .pool_bytes = pool,
					       .flags = i / 3 % 2 ? HGM_SNAPSHOT_ORDERED : 0 };
		/* Of two huge pages, the sweep has one, and the pool the other. */
		bool hold = i < 9 && backing != BACKING_HUGETLB_2M;
		char *want = malloc(length);
		struct sink sink = { 0 };
		struct hgm_snapshot *s;
		struct provider *provider;
		struct writers writers;
		struct ram ram;
		struct hgm *h;

		if (backing_lacking(backing, length)) {
			free(want);
			continue;
		}
		watch("back-pressure", 60);
		provider = provider_make(PROVIDER_NOW, &contents, length);
		h = engine(2);
		sink_clear(&sink, length);
		sink.nap_us = i < 9 ? 500 : 0;
		sink.hold = hold;
		o.user = &sink;
		ram_make(&ram, h, backing, length, provider_source(provider), 0);
		assert_ok(hgm_start(h));
		assert_ok(hgm_wait(h, WAIT_MS));
		writers_start(&writers, &contents, ram.addr, length / PAGE);
		s = snapshot_of(h, &o);
		writers_begin(&writers, s, want);
		if (hold)
			assert_true(eventually(is_full, s, WAIT_MS));
		atomic_store(&sink.hold, false);
		assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		hgm_snapshot_destroy(s);
		writers_end(&writers);
		assert_same(sink.got, want, length / PAGE, backing_names[backing]);
		assert_true(sink.ascending || !o.flags);
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
		free(sink.got);
		free(want);
		calm();
	}
}

/* Replaces the function for the library too. It adds up how long each thread has asked to sleep. */
static _Thread_local uint64_t asked_ns;
static _Atomic uint64_t sink_asked_ns;

int nanosleep(const struct timespec *ts, struct timespec *left)
{
	asked_ns += (uint64_t)ts->tv_sec * 1000000000 + (uint64_t)ts->tv_nsec;
	errno = clock_nanosleep(CLOCK_MONOTONIC, 0, ts, left);
	return errno ? -1 : 0;
}

static int64_t paced_sink(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	atomic_store(&sink_asked_ns, asked_ns);
	return sink_write(user, buf, length, offset);
}

/*
 * Pages that were written to are paced by the same clock as pages that are swept. The snapshot is
 * never faster than the rate. How much slower it is depends on the machine, but it must not ask for
 * more sleep.
 */
static void the_rate_is_kept(void **state)
{
	const uint64_t due_ns = LENGTH * 1000000000 / (50 * MIB);
	struct hgm_snapshot *s;
	struct ground g;
	uint64_t start, ns;

	(void)state;
	ground_make(&g, 0);
	s = snapshot_of(g.h, &(struct hgm_snapshot_opts){ .write = paced_sink,
							  .user = &g.sink,
							  .rate_bytes = 50 * MIB });
	start = now_us();
	assert_ok(hgm_snapshot_begin(s));
	memset(g.ram.addr, 1, 8 * MIB);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	ns = (now_us() - start) * 1000;
	hgm_snapshot_destroy(s);
	if (ns < due_ns * 9 / 10 || atomic_load(&sink_asked_ns) > due_ns * 11 / 10)
		fail_msg("32 MiB at 50 MiB/s took %llu us, and its thread wanted to sleep %llu",
			 (unsigned long long)ns / 1000,
			 (unsigned long long)atomic_load(&sink_asked_ns) / 1000);
	assert_pages(&contents, 0, PAGES, g.sink.got);
	ground_end(&g);
}

/* The kernel calls of the thread that begins a snapshot. */
static const struct hgm_sys *kernel;
static _Thread_local bool counting;
static _Thread_local struct {
	unsigned int writeprotects, others;
	uint64_t bytes;
} asked;

static int count_writeprotect(int fd, void *addr, uint64_t len, uint64_t mode)
{
	asked.writeprotects += counting;
	asked.bytes += counting ? len : 0;
	return kernel->uffd_writeprotect(fd, addr, len, mode);
}

static int count_register(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls)
{
	asked.others += counting;
	return kernel->uffd_register(fd, addr, len, modes, ioctls);
}

static int count_unregister(int fd, void *addr, uint64_t len)
{
	asked.others += counting;
	return kernel->uffd_unregister(fd, addr, len);
}

static int count_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	asked.others += counting;
	return kernel->uffd_continue(fd, addr, len, mode, done);
}

static int count_madvise(void *addr, uint64_t len, int advice)
{
	asked.others += counting;
	return kernel->madvise(addr, len, advice);
}

static int count_mmap(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
		      uint64_t offset)
{
	asked.others += counting;
	return kernel->mmap(out, addr, len, prot, flags, fd, offset);
}

/*
 * The guest is stopped meanwhile. There is one call for all memory of a fault thread, and no other.
 */
static void the_instant(void **state)
{
	struct hgm_snapshot *s;
	struct hgm_sys sys;
	struct ground g;

	(void)state;
	kernel = hgm_sys;
	sys = *kernel;
	sys.uffd_writeprotect = count_writeprotect;
	sys.uffd_register = count_register;
	sys.uffd_unregister = count_unregister;
	sys.uffd_continue = count_continue;
	sys.madvise = count_madvise;
	sys.mmap = count_mmap;
	hgm_sys = &sys;
	ground_make(&g, 0);
	s = snapshot_of(g.h, &(struct hgm_snapshot_opts){ .write = sink_write, .user = &g.sink });
	counting = true;
	assert_ok(hgm_snapshot_begin(s));
	counting = false;
	assert_int_equal(asked.writeprotects, 1);
	assert_int_equal(asked.bytes, LENGTH);
	assert_int_equal(asked.others, 0);
	assert_true(snapshot_progress(s).begin_ns > 0);
	hgm_snapshot_destroy(s);
	ground_end(&g);
	hgm_sys = kernel;
}

static void one_gib_as_a_unit(void **state)
{
	struct hgm_snapshot_opts o = { .size = sizeof(o), .write = sink_write };
	struct provider *provider;
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	struct writers writers;
	struct ram ram;
	struct hgm *h;
	char *want;

	(void)state;
	if (backing_lacking(BACKING_HUGETLB_1G, GIB))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_1G, GIB));
	watch("1 GiB", 110);
	provider = provider_make(PROVIDER_NOW, &contents, GIB);
	h = engine(2);
	want = malloc(GIB);
	assert_non_null(want);
	sink_clear(&sink, GIB);
	o.user = &sink;
	ram_make(&ram, h, BACKING_HUGETLB_1G, GIB, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	o.pool_bytes = GIB - PAGE;
	assert_error(hgm_snapshot_create(&s, h, &o), -ENOMEM);
	o.pool_bytes = GIB;
	writers_start(&writers, &contents, ram.addr, GIB / PAGE);
	for (unsigned int i = 0; i < 2; i++) {
		sink_clear(&sink, GIB);
		o.flags = i ? HGM_SNAPSHOT_ORDERED : 0;
		s = snapshot_of(h, &o);
		writers_begin(&writers, s, want);
		assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		assert_int_equal(snapshot_progress(s).done_bytes, GIB);
		hgm_snapshot_destroy(s);
		writers_pause(&writers); /* it would only take CPU time from the comparison */
		assert_same(sink.got, want, GIB / PAGE, "1 GiB");
	}
	writers_end(&writers);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	free(sink.got);
	free(want);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(the_sink_does_not_matter), cmocka_unit_test(back_pressure),
	cmocka_unit_test(the_rate_is_kept),	    cmocka_unit_test(the_instant),
	cmocka_unit_test(one_gib_as_a_unit),
};

TEST_MAIN(tests)
