/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a snapshot costs those who write meanwhile: as long as the pool has room the sink does not
 * matter; once it is full they wait, and nothing else happens to them. And 1 GiB as one unit.
 */
#include "crew.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sys.h"
#include "uffd.h"

#define WAIT_MS SMALLER(60000, 200000)
#define LENGTH	(32 * MIB)
#define PAGES	(LENGTH / PAGE)
#define TOUCHED 1000

static const struct contents contents = { .seed = 59 };

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Write to pages far from each other, each once; the median in ns. *worst: the longest. */
static uint64_t median(char *addr, uint64_t *worst)
{
	uint64_t took[TOUCHED];

	for (unsigned int i = 0; i < TOUCHED; i++) {
		volatile char *at = addr + (PAGES - 1 - i * 8) * PAGE;
		uint64_t start = now_ns();

		*at = 1;
		took[i] = now_ns() - start;
	}
	qsort(took, TOUCHED, sizeof(took[0]), ascending);
	*worst = took[TOUCHED - 1];
	return took[TOUCHED / 2];
}

struct ground {
	struct feed *feed;
	struct hgm *h;
	struct field f;
	struct sink sink;
};

static void ground_make(struct ground *g, uint32_t flags)
{
	watch("stalls", 100);
	memset(g, 0, sizeof(*g));
	g->feed = feed_make(FEED_NOW, &contents, LENGTH);
	g->h = engine(1);
	sink_clear(&g->sink, LENGTH);
	field_make(&g->f, g->h, PLACE_SHMEM, LENGTH, feed_source(g->feed), flags);
	assert_ok(hgm_start(g->h));
	if (!(flags & HGM_REGION_NO_FILL))
		assert_ok(hgm_wait(g->h, WAIT_MS));
}

static void ground_end(struct ground *g)
{
	field_end(&g->f);
	hgm_destroy(g->h);
	feed_free(g->feed);
	free(g->sink.got);
	calm();
}

/* The median stall of a write with that sink and rate. */
static uint64_t stall(uint64_t rate_bytes, unsigned int sink_nap_us, uint64_t *worst)
{
	struct hgm_snapshot *s;
	struct ground g;
	uint64_t ns;

	ground_make(&g, 0);
	g.sink.nap_us = sink_nap_us;
	s = snapshot_of(g.h, &(struct hgm_snapshot_opts){ .write = sink_write,
							  .user = &g.sink,
							  .rate_bytes = rate_bytes });
	assert_ok(hgm_snapshot_begin(s));
	if (rate_bytes || sink_nap_us)
		nap_us(20000); /* all is mapped again, and the sweep far from over */
	ns = median(g.f.addr, worst);
	assert_int_equal(snapshot_progress(s).pool_full, 0);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	assert_pages(&contents, 0, PAGES, g.sink.got);
	ground_end(&g);
	return ns;
}

/*
 * A sink that sleeps leaves the processor, which halts, and waking it for each write takes some 40
 * us. Who waited for the rate would wait for 78 us a page, who waited for the sink for 2 ms.
 */
static void the_sink_does_not_matter(void **state)
{
	const uint64_t woken_ns = 50000;
	uint64_t worst[3], fast = stall(0, 0, &worst[0]);
	uint64_t throttled = stall(50 * MIB, 0, &worst[1]), slow = stall(0, 2000, &worst[2]);

	(void)state;
	printf("# ns, median (worst): write during a snapshot %llu (%llu), at 50 MiB/s %llu "
	       "(%llu), with a slow sink %llu (%llu)\n",
	       (unsigned long long)fast, (unsigned long long)worst[0],
	       (unsigned long long)throttled, (unsigned long long)worst[1],
	       (unsigned long long)slow, (unsigned long long)worst[2]);
	assert_true(throttled < fast + woken_ns);
	assert_true(slow < fast + woken_ns);
}

/* A pool of few pages, and in order: writers wait, all is equal, and it ends. */
static void back_pressure(void **state)
{
	static const enum place places[] = { PLACE_SHMEM, PLACE_ANON, PLACE_HUGETLB_2M };
	const uint64_t length = 4 * MIB;

	(void)state;
	for (unsigned int i = 0; i < 12; i++) {
		enum place place = places[i % 3];
		uint64_t pool = place == PLACE_HUGETLB_2M ? 2 * MIB : (i < 6 ? 4 : 1) * PAGE;
		struct hgm_snapshot_opts o = { .write = sink_write,
					       .pool_bytes = pool,
					       .flags = i / 3 % 2 ? HGM_SNAPSHOT_ORDERED : 0 };
		char *want = malloc(length);
		struct hgm_snapshot_progress p;
		struct sink sink = { 0 };
		struct hgm_snapshot *s;
		struct feed *feed;
		struct crew crew;
		struct field f;
		struct hgm *h;

		if (place_lacking(place, length)) {
			free(want);
			continue;
		}
		watch("back-pressure", 60);
		feed = feed_make(FEED_NOW, &contents, length);
		h = engine(2);
		sink_clear(&sink, length);
		sink.nap_us = i < 9 ? 500 : 0;
		o.user = &sink;
		field_make(&f, h, place, length, feed_source(feed), 0);
		assert_ok(hgm_start(h));
		assert_ok(hgm_wait(h, WAIT_MS));
		crew_start(&crew, &contents, f.addr, length / PAGE);
		s = snapshot_of(h, &o);
		crew_begin(&crew, s, want);
		assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		p = snapshot_progress(s);
		hgm_snapshot_destroy(s);
		crew_end(&crew);
		assert_same(sink.got, want, length / PAGE, place_names[place]);
		if (i < 9 && place != PLACE_HUGETLB_2M)
			assert_true(p.pool_full > 0);
		assert_true(sink.ascending || !o.flags);
		field_end(&f);
		hgm_destroy(h);
		feed_free(feed);
		free(sink.got);
		free(want);
		calm();
	}
}

/* What has been written goes by the same clock as what is swept. */
static void the_rate_is_kept(void **state)
{
	struct hgm_snapshot *s;
	struct ground g;
	uint64_t start, ms;

	(void)state;
	ground_make(&g, 0);
	s = snapshot_of(g.h, &(struct hgm_snapshot_opts){ .write = sink_write,
							  .user = &g.sink,
							  .rate_bytes = 50 * MIB });
	assert_ok(hgm_snapshot_begin(s));
	start = now_us();
	memset(g.f.addr, 1, 8 * MIB);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	ms = (now_us() - start) / 1000;
	hgm_snapshot_destroy(s);
	if (ms < 32 * 1000 / 50 * 9 / 10 || ms > 32 * 1000 / 50 * 3)
		fail_msg("32 MiB at 50 MiB/s took %llu ms", (unsigned long long)ms);
	assert_pages(&contents, 0, PAGES, g.sink.got);
	ground_end(&g);
}

/* What the instant takes, against nothing but the ioctl on memory of the same kind. */
static void the_instant(void **state)
{
	struct hgm_snapshot *s;
	const struct hgm_uffd_opts uffd_opts = { .size = sizeof(uffd_opts),
						 .required = HGM_UFFD_FEATURE_WP_HUGETLBFS_SHMEM };
	uint64_t begin_ns, raw_ns, ioctls;
	struct hgm_uffd *u;
	struct ground g;
	char *raw;

	(void)state;
	ground_make(&g, 0);
	if (info_of(g.f.region).huge_bytes != LENGTH) {
		ground_end(&g);
		test_skip("no huge pages of shmem");
	}
	s = snapshot_of(g.h, &(struct hgm_snapshot_opts){ .write = sink_write, .user = &g.sink });
	assert_ok(hgm_snapshot_begin(s));
	begin_ns = snapshot_progress(s).begin_ns;
	hgm_snapshot_destroy(s);

	raw = mmap(NULL, LENGTH + 2 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		   0);
	assert_true(raw != MAP_FAILED);
	raw += -(uintptr_t)raw % (2 * MIB);
	/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): it is mapped there */
	memset(raw, 1, LENGTH);
	madvise(raw, LENGTH, 25); /* MADV_COLLAPSE */
	assert_ok(hgm_uffd_open(&u, &uffd_opts));
	assert_ok(hgm_uffd_register(u, raw, LENGTH, HGM_UFFD_WP, &ioctls));
	raw_ns = now_ns();
	assert_ok(hgm_sys->uffd_writeprotect(hgm_uffd_fd(u), raw, LENGTH, 1));
	raw_ns = now_ns() - raw_ns;
	printf("# us per GiB: begin %llu, raw UFFDIO_WRITEPROTECT %llu\n",
	       (unsigned long long)(begin_ns * (GIB / LENGTH) / 1000),
	       (unsigned long long)(raw_ns * (GIB / LENGTH) / 1000));
	hgm_uffd_close(u);
	assert_true(begin_ns < 10 * raw_ns + 3000000);
	ground_end(&g);
}

static void one_gib_as_a_unit(void **state)
{
	struct hgm_snapshot_opts o = { .size = sizeof(o), .write = sink_write };
	struct feed *feed;
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	struct crew crew;
	struct field f;
	struct hgm *h;
	char *want;

	(void)state;
	if (place_lacking(PLACE_HUGETLB_1G, GIB))
		test_skip("%s", place_lacking(PLACE_HUGETLB_1G, GIB));
	watch("1 GiB", 110);
	feed = feed_make(FEED_NOW, &contents, GIB);
	h = engine(2);
	want = malloc(GIB);
	assert_non_null(want);
	sink_clear(&sink, GIB);
	o.user = &sink;
	field_make(&f, h, PLACE_HUGETLB_1G, GIB, feed_source(feed), 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	o.pool_bytes = GIB - PAGE;
	assert_error(hgm_snapshot_create(&s, h, &o), -ENOMEM);
	o.pool_bytes = GIB;
	crew_start(&crew, &contents, f.addr, GIB / PAGE);
	for (unsigned int i = 0; i < 2; i++) {
		sink_clear(&sink, GIB);
		o.flags = i ? HGM_SNAPSHOT_ORDERED : 0;
		s = snapshot_of(h, &o);
		crew_begin(&crew, s, want);
		assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		assert_int_equal(snapshot_progress(s).done_bytes, GIB);
		hgm_snapshot_destroy(s);
		crew_pause(&crew); /* it would only take the time of those who look */
		assert_same(sink.got, want, GIB / PAGE, "1 GiB");
	}
	crew_end(&crew);
	field_end(&f);
	hgm_destroy(h);
	feed_free(feed);
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
