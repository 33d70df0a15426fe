/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * After the cause that kept blocks small has passed, they become huge. hgm_wait() waits for blocks
 * that a snapshot or dirty tracking has mapped by small pages.
 */
#include "collapse/blocks.h"
#include "collapse/collapse.h"
#include "collapsing.h"

#include "region/hgm.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH	    (8 * MIB)
#define PAGES	    (LENGTH / PAGE)
#define WAIT_MS	    SMALLER(20000, 100000)
#define COLLAPSE_US 3000

static const struct contents contents = { .seed = 20 };
static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON };

struct trial {
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
};

static void begin(struct trial *t, enum backing backing)
{
	t->provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	t->h = engine(1);
	ram_make(&t->ram, t->h, backing, LENGTH, provider_source(t->provider), 0);
	collapsing_watch(&t->ram);
	assert_ok(hgm_start(t->h));
}

static void end(struct trial *t)
{
	assert_pages(&contents, 0, PAGES, t->ram.addr);
	ram_end(&t->ram);
	hgm_destroy(t->h);
	provider_free(t->provider);
}

static void by_dirty_tracking(struct trial *t)
{
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = HGM_DIRTY_EXACT };
	struct hgm_dirty *d;

	assert_ok(hgm_dirty_start(&d, t->ram.region, &o));
	assert_ok(hgm_wait(t->h, WAIT_MS)); /* does not wait while it is tracked */
	hgm_dirty_stop(d);
}

static int64_t sink(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	(void)user, (void)buf, (void)offset;
	return (int64_t)length;
}

static void by_snapshot(struct trial *t)
{
	struct hgm_snapshot_opts o = { .size = sizeof(o), .write = sink };
	struct hgm_snapshot *s;

	assert_ok(hgm_snapshot_create(&s, t->h, &o));
	assert_ok(hgm_snapshot_begin(s));
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
}

static void waits(void (*split)(struct trial *t))
{
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		struct trial t;

		begin(&t, backings[i]);
		assert_ok(hgm_wait(t.h, WAIT_MS));
		assert_int_equal(progress_of(t.h).huge_bytes, LENGTH);
		collapsing_take_us(COLLAPSE_US); /* so that none is huge before the check */
		split(&t);
		assert_ok(hgm_wait(t.h, WAIT_MS));
		assert_int_equal(progress_of(t.h).huge_bytes, LENGTH);
		assert_int_equal(info_of(t.ram.region).left_split, 0);
		end(&t);
	}
}

static void wait_after_dirty_tracking(void **state)
{
	(void)state;
	waits(by_dirty_tracking);
}

static void wait_after_a_snapshot(void **state)
{
	(void)state;
	waits(by_snapshot);
}

static bool is_huge(void *arg)
{
	return progress_of(arg).huge_bytes == LENGTH;
}

/* Without a request the engine itself looks again. */
static void minute_is_over(struct hgm *h)
{
	pthread_mutex_lock(&h->collapser->lock);
	h->collapser->look_again_at_ns = 0;
	pthread_cond_signal(&h->collapser->cond);
	pthread_mutex_unlock(&h->collapser->lock);
}

/* No huge page was available when the blocks became full. */
static void shortage_passes(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		struct trial t;

		t.provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
		t.h = engine(1);
		ram_make(&t.ram, t.h, backings[i], LENGTH, provider_source(t.provider), 0);
		collapsing_watch(&t.ram);
		collapsing_refuse(COLLAPSING_ALL_BLOCKS, -ENOMEM, 1);
		assert_ok(hgm_start(t.h));
		assert_ok(hgm_wait(t.h, WAIT_MS));
		assert_int_equal(info_of(t.ram.region).left_split, LENGTH / (2 * MIB));
		assert_int_equal(info_of(t.ram.region).collapse_error, -ENOMEM);
		collapsing_refuse(0, 0, 1);
		minute_is_over(t.h);
		if (!eventually(is_huge, t.h, WAIT_MS))
			fail_msg("%s: memory is free again, and %llu bytes are huge",
				 backing_names[backings[i]],
				 (unsigned long long)progress_of(t.h).huge_bytes);
		assert_int_equal(info_of(t.ram.region).left_split, 0);
		end(&t);
	}
}

/* All pages are imported and none is mapped, on a kernel that does not collapse such memory. */
static void imported(void **state)
{
	static const uint32_t flags[] = { 0, HGM_REGION_LAZY, HGM_REGION_DEFER_COLLAPSE };
	uint64_t map[PAGES / 64];

	(void)state;
	memset(map, 0xff, sizeof(map));
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		struct hgm_region_opts o = { .size = sizeof(o),
					     .length = LENGTH,
					     .backing = HGM_BACKING_FD,
					     .flags = flags[i],
					     .fd = memfd_create("imported", MFD_CLOEXEC) };
		char *page = malloc(PAGE);
		struct trial t;

		assert_int_equal(ftruncate(o.fd, LENGTH), 0);
		for (uint64_t p = 0; p < PAGES; p++) {
			contents_write(&contents, p, 1, page);
			assert_int_equal(pwrite(o.fd, page, PAGE, (off_t)(p * PAGE)), PAGE);
		}
		free(page);
		t.provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
		t.h = engine(1);
		o.source = provider_source(t.provider);
		assert_ok(hgm_region_create(&t.ram.region, t.h, &o));
		t.ram = (struct ram){ .region = t.ram.region,
				      .addr = hgm_region_addr(t.ram.region),
				      .length = LENGTH,
				      .fd = o.fd };
		collapsing_watch(&t.ram);
		collapsing_needs_a_page();
		assert_ok(hgm_region_import(t.ram.region, 0, PAGES, map));
		assert_ok(hgm_start(t.h));
		assert_ok(hgm_region_collapse(t.ram.region));
		assert_ok(hgm_wait(t.h, WAIT_MS));
		assert_int_equal(info_of(t.ram.region).left_split, 0);
		assert_int_equal(progress_of(t.h).huge_bytes, LENGTH);
		end(&t);
	}
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, collapsing_set_up, collapsing_tear_down)

static const struct CMUnitTest tests[] = {
	CASE(wait_after_dirty_tracking),
	CASE(wait_after_a_snapshot),
	CASE(shortage_passes),
	CASE(imported),
};

TEST_MAIN(tests)
