/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Protected memory whose source fails, or has holes. Pages that never arrive raise SIGBUS, and
 * zeroes arrive as zeroes, with dirty tracking, a watch or a snapshot as without.
 */
#include "snapshotting.h"
#include "discarding.h"
#include "kernel/sys.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(4 * MIB)
#define PAGES	(LENGTH / PAGE)
#define BAD	700

static const struct contents contents = { .seed = 102, .holes = true };

enum guard {
	DIRTY,
	DIRTY_ARRIVALS,
	WATCH,
	SNAPSHOT,
	GUARDS,
};

static const char *const guard_names[] = { "dirty tracking", "dirty tracking, with arrivals",
					   "a watch", "a snapshot" };

/* A source that makes all threads wait until @go is set. If @fails is set, one page fails. */
struct slow {
	_Atomic bool go;
	bool fails;
};

static int64_t slow_read(void *user, const struct hgm_io *io)
{
	const struct slow *s = user;
	uint64_t page = io->offset / PAGE, pages = io->length / PAGE;

	while (!atomic_load(&s->go))
		nap_us(100);
	if (s->fails && page <= BAD && page + pages > BAD) {
		if (page == BAD)
			return -EIO;
		pages = BAD - page;
	}
	if (contents_hole(&contents, page))
		return HGM_IO_ZERO | PAGE;
	for (uint64_t p = 1; p < pages; p++)
		if (contents_hole(&contents, page + p))
			pages = p;
	contents_write(&contents, page, pages, io->buf);
	return (int64_t)(pages * PAGE);
}

struct scene {
	enum backing backing;
	enum guard guard;
	struct slow slow;
	struct hgm_source *src;
	struct hgm *h;
	struct ram ram;
	struct hgm_dirty *d;
	struct hgm_snapshot *snapshot;
	struct sink sink;
};

static void guard(struct scene *s)
{
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = HGM_DIRTY_SYNC };
	struct hgm_snapshot_opts so = { .write = sink_write, .user = &s->sink };

	switch (s->guard) {
	case DIRTY_ARRIVALS:
		o.flags |= HGM_DIRTY_ARRIVALS;
		/* fall through */
	case DIRTY:
		assert_ok(hgm_dirty_start(&s->d, s->ram.region, &o));
		return;
	case WATCH:
		assert_ok(hgm_region_watch(s->ram.region, NULL));
		assert_ok(hgm_region_protect(s->ram.region, 0, LENGTH, 0, NULL));
		return;
	default:
		sink_clear(&s->sink, LENGTH);
		atomic_store(&s->sink.hold, true);
		s->snapshot = snapshot_of(s->h, &so);
		assert_ok(hgm_snapshot_begin(s->snapshot));
	}
}

static bool begin(struct scene *s, enum backing backing, enum guard kind, bool fails,
		  uint32_t flags)
{
	const struct hgm_source_fn_opts so = {
		.size = sizeof(so),
		.flags = HGM_SOURCE_BLOCKING,
	};

	memset(s, 0, sizeof(*s));
	if (backing_lacking(backing, LENGTH))
		return false;
	watch(guard_names[kind], 60);
	s->backing = backing;
	s->guard = kind;
	s->slow.fails = fails;
	assert_ok(hgm_source_fn(&s->src, slow_read, &s->slow, &so));
	s->h = engine_with((struct hgm_opts){ .fault_threads = 2, .retries = 1 });
	ram_make(&s->ram, s->h, backing, LENGTH, s->src, flags);
	assert_ok(hgm_start(s->h));
	guard(s);
	return true;
}

static void end(struct scene *s)
{
	atomic_store(&s->sink.hold, false);
	hgm_snapshot_destroy(s->snapshot);
	hgm_dirty_stop(s->d);
	ram_end(&s->ram);
	hgm_destroy(s->h);
	hgm_source_destroy(s->src);
	free(s->sink.got);
	calm();
}

static bool is_back(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->signal) != -1;
}

static void assert_bus_error(const struct scene *s)
{
	struct waiter w;

	waiter_start(&w, s->ram.addr + BAD * PAGE);
	if (!eventually(is_back, &w, 5000))
		fail_msg("%s under %s: who wants what never comes is left asleep, %llu faults",
			 backing_names[s->backing], guard_names[s->guard],
			 (unsigned long long)stats_of(s->h).faults);
	waiter_join(&w);
	assert_int_equal(w.signal, SIGBUS);
}

static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON,
					 BACKING_HUGETLB_2M };

static void fails_under(enum backing backing, enum guard kind)
{
	struct scene s;

	if (!begin(&s, backing, kind, true, 0))
		return;
	atomic_store(&s.slow.go, true);
	assert_bus_error(&s);
	assert_error(hgm_wait(s.h, WAIT_MS), -EIO);
	assert_bus_error(&s); /* and again */
	end(&s);
}

static void what_never_comes(void **state)
{
	(void)state;
	skip_unless(KERNEL_POISON);
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++)
		for (unsigned int kind = 0; kind < GUARDS; kind++)
			fails_under(backings[i], (enum guard)kind);
}

static void comes_under(enum backing backing, enum guard kind, uint32_t flags)
{
	struct scene s;

	if (!begin(&s, backing, kind, false, flags))
		return;
	atomic_store(&s.slow.go, true);
	if (hgm_wait(s.h, WAIT_MS))
		fail_msg("%s under %s: %s", backing_names[backing], guard_names[kind],
			 hgm_errmsg());
	assert_pages(&contents, 0, PAGES, s.ram.addr);
	end(&s);
}

static void zeroes(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		for (unsigned int kind = 0; kind < GUARDS; kind++) {
			comes_under(backings[i], (enum guard)kind, 0);
			comes_under(backings[i], (enum guard)kind, HGM_REGION_NO_COLLAPSE);
		}
	}
}

static bool has_begun(void *region)
{
	uint64_t bitmap[4];

	assert_ok(hgm_region_export(region, 0, 256, bitmap));
	return bitmap[0] & bitmap[1] & bitmap[2] & bitmap[3] & 1;
}

/* If a part of a block had arrived when tracking began, only that part is protected. */
static void half_a_block(void **state)
{
	struct hgm_dirty_opts o = { .size = sizeof(o),
				    .flags = HGM_DIRTY_SYNC | HGM_DIRTY_ARRIVALS };
	struct provider *provider = provider_make(PROVIDER_NEVER, &contents, 2 * MIB);
	uint64_t bitmap[8];
	struct hgm_dirty *d;
	struct ram ram;
	struct hgm *h;

	(void)state;
	if (backing_lacking(BACKING_HUGETLB_2M, 2 * MIB)) {
		provider_free(provider);
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, 2 * MIB));
	}
	watch("half a block", 60);
	provider_answer_below(provider, 256);
	h = engine(2);
	ram_make(&ram, h, BACKING_HUGETLB_2M, 2 * MIB, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	assert_true(eventually(has_begun, ram.region, 5000));
	assert_ok(hgm_dirty_start(&d, ram.region, &o));
	provider_answer_below(provider, UINT64_MAX);
	provider_give(provider);
	assert_ok(hgm_wait(h, WAIT_MS));
	*(volatile char *)(ram.addr + 300 * PAGE) += 1;
	*(volatile char *)(ram.addr + 5 * PAGE) += 1;
	assert_ok(hgm_dirty_collect(d, 0, 512, bitmap, NULL));
	assert_int_equal(bitmap[300 / 64] >> 300 % 64 & 1, 1);
	assert_int_equal(bitmap[0] >> 5 & 1, 1);
	hgm_dirty_stop(d);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	calm();
}

static const struct hgm_sys *kernel;
static struct hgm_sys sys;

static struct {
	_Atomic bool armed, there, go;
} copier;

/* The pages are mapped, and the thread that copied them gets no CPU before it says so. */
static int copy_and_sleep(int fd, void *dst, const void *src, uint64_t len, uint64_t mode,
			  int64_t *done)
{
	int rc = kernel->uffd_copy(fd, dst, src, len, mode, done);

	if (!rc && atomic_exchange(&copier.armed, false)) {
		atomic_store(&copier.there, true);
		while (!atomic_load(&copier.go))
			nap_us(100);
	}
	return rc;
}

static bool is_set(void *arg)
{
	return atomic_load((_Atomic bool *)arg);
}

struct collector {
	struct hgm_dirty *d;
	uint64_t bitmap[PAGES / 64];
	_Atomic bool back;
	int rc;
};

static void *collect(void *arg)
{
	struct collector *c = arg;

	c->rc = hgm_dirty_collect(c->d, 0, PAGES, c->bitmap, NULL);
	atomic_store(&c->back, true);
	return NULL;
}

/* A page is written to after it was copied, and before the library has made it present. */
static void written_on_arrival(enum backing backing, enum guard kind)
{
	static struct collector c;
	pthread_t thread;
	struct scene s;

	kernel = hgm_sys;
	sys = *kernel;
	sys.uffd_copy = copy_and_sleep;
	hgm_sys = &sys;
	memset(&c, 0, sizeof(c));
	atomic_store(&copier.there, false);
	atomic_store(&copier.go, false);
	if (begin(&s, backing, kind, false, HGM_REGION_NO_FILL)) {
		c.d = s.d;
		atomic_store(&s.slow.go, true);
		atomic_store(&copier.armed, true);
		assert_ok(hgm_region_prefetch(s.ram.region, BAD * PAGE, PAGE));
		assert_true(eventually(is_set, &copier.there, WAIT_MS));
		*(volatile char *)(s.ram.addr + BAD * PAGE) += 1;
		assert_int_equal(pthread_create(&thread, NULL, collect, &c), 0);
		eventually(is_set, &c.back, 20); /* or it waits until the page is present */
		atomic_store(&copier.go, true);
		pthread_join(thread, NULL);
		assert_ok(c.rc);
		assert_int_equal(c.bitmap[BAD / 64] >> BAD % 64 & 1, 1);
		end(&s);
	}
	hgm_sys = kernel;
}

static void is_written_on_arrival(void **state)
{
	(void)state;
	for (enum guard kind = DIRTY; kind <= DIRTY_ARRIVALS; kind++) {
		written_on_arrival(BACKING_ANON, kind);
		written_on_arrival(BACKING_FD_LAZY, kind);
	}
}

#define RETRIES	    SMALLER(60, 20)
#define RETRY_PAGES UINT64_C(16)
#define BAD_PAGE    UINT64_C(7)

static void *retry(void *region)
{
	return (void *)(intptr_t)hgm_region_retry(region);
}

/*
 * A page that was given up is fetched again at the same time. It has not arrived yet, and it is no
 * longer poison. No thread reads zeroes, and a thread that reads the page waits.
 */
static void begins_during_a_retry(void **state)
{
	static struct ledger ledger;
	struct hgm *h;

	(void)state;
	skip_unless(KERNEL_POISON);
	watch("tracking begins during a retry", 60);
	ledger_make(&ledger, &contents, RETRY_PAGES * PAGE);
	h = engine_with((struct hgm_opts){ .retries = HGM_RETRY_NEVER });
	assert_ok(hgm_start(h));
	for (unsigned int round = 0; round < RETRIES; round++) {
		struct hgm_dirty *d;
		pthread_t thread;
		struct ram ram;
		void *rc;

		atomic_store(&ledger.bad_page, BAD_PAGE);
		atomic_store(&ledger.bad_pages, 1);
		ram_make(&ram, h, BACKING_ANON, RETRY_PAGES * PAGE, ledger.source,
			 HGM_REGION_NO_FILL);
		assert_ok(hgm_region_prefetch(ram.region, 0, BAD_PAGE * PAGE));
		assert_ok(hgm_region_prefetch(ram.region, (BAD_PAGE + 1) * PAGE,
					      (RETRY_PAGES - BAD_PAGE - 1) * PAGE));
		assert_int_equal(touch(ram.addr + BAD_PAGE * PAGE, &(uint8_t){ 0 }), SIGBUS);
		while (info_of(ram.region).present_bytes < (RETRY_PAGES - 1) * PAGE ||
		       info_of(ram.region).poisoned_bytes < PAGE)
			nap_us(100);
		atomic_store(&ledger.bad_pages, 0);
		assert_int_equal(pthread_create(&thread, NULL, retry, ram.region), 0);
		while (round % 2 && info_of(ram.region).poisoned_bytes)
			;
		assert_ok(hgm_dirty_start(&d, ram.region, NULL));
		pthread_join(thread, &rc);
		assert_ok((int)(intptr_t)rc);
		assert_pages(&contents, BAD_PAGE, 1, ram.addr + BAD_PAGE * PAGE);
		hgm_dirty_stop(d);
		ram_end(&ram);
	}
	hgm_destroy(h);
	ledger_free(&ledger);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(begins_during_a_retry), cmocka_unit_test(zeroes),
	cmocka_unit_test(what_never_comes),	 cmocka_unit_test(half_a_block),
	cmocka_unit_test(is_written_on_arrival),
};

TEST_MAIN(tests)
