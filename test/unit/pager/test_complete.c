/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Completion: the thread that brings a region's count to 0 wakes the threads that wait for it and
 * makes the event descriptor readable, every time. A complete region may become incomplete again.
 * The regions here have no memory, only counts.
 */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "collapse/blocks.h"
#include "install/installs.h"
#include "kernel/sys.h"
#include "pager/fill.h"
#include "pager/pager.h"
#include "region/hgm.h"
#include "test.h"
#include "util/clock.h"

#define PAGES 16

static struct hgm *h;
static struct hgm_region *region[2];

static void nothing(struct hgm_region *r)
{
	(void)r;
}

static const struct hgm_region_ops region_ops = { .arrived = nothing };

static struct hgm_region *make_region(uint32_t flags)
{
	struct hgm_region *r = aligned_alloc(64, (sizeof(*r) + 63) / 64 * 64);

	assert_non_null(r);
	memset(r, 0, sizeof(*r));
	r->h = h;
	r->view.space = &h->space;
	r->install = calloc(1, sizeof(*r->install));
	r->collapse = calloc(1, sizeof(*r->collapse));
	r->fill = calloc(1, sizeof(*r->fill));
	assert_true(r->install && r->collapse && r->fill);
	r->length = r->mapped = PAGES << HGM_PAGE_SHIFT;
	r->flags = flags;
	atomic_init(&r->open_pages, PAGES);
	atomic_init(&r->event_due, true);
	assert_int_equal(hgm_map_create(&r->map, PAGES), 0);
	return r;
}

static int begin(void **state)
{
	(void)state;
	h = aligned_alloc(64, (sizeof(*h) + 63) / 64 * 64);
	assert_non_null(h);
	memset(h, 0, sizeof(*h));
	h->ops = &region_ops;
	assert_int_equal(hgm_work_init(h), 0);
	pthread_mutex_init(&h->done_lock, NULL);
	hgm_cond_init(&h->done_cond);
	atomic_init(&h->table, &h->tables[0]);
	atomic_init(&h->running, true);
	h->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_true(h->event_fd >= 0);
	memset(region, 0, sizeof(region));
	return 0;
}

static int end(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < h->tables[0].count; i++) {
		hgm_map_destroy(region[i]->map);
		free(region[i]->install);
		free(region[i]->collapse);
		free(region[i]->fill);
		free(region[i]);
	}
	hgm_work_destroy(h);
	close(h->event_fd);
	pthread_mutex_destroy(&h->done_lock);
	pthread_cond_destroy(&h->done_cond);
	free(h);
	return 0;
}

static struct hgm_region *add_region(uint32_t flags)
{
	struct hgm_table *t = &h->tables[0];
	struct hgm_region *r = make_region(flags);

	region[t->count] = r;
	t->region[t->count++] = r;
	return r;
}

static bool told(void)
{
	uint64_t value;

	return read(h->event_fd, &value, sizeof(value)) == sizeof(value);
}

/* A thread in hgm_wait(), asleep when wait_begin() returns. */
struct call {
	pthread_t thread;
	int rc;
};

static void *call_wait(void *arg)
{
	struct call *c = arg;

	c->rc = hgm_wait(h, -1);
	return NULL;
}

static void wait_begin(struct call *c)
{
	unsigned int before = atomic_load(&h->waiters);

	assert_int_equal(pthread_create(&c->thread, NULL, call_wait, c), 0);
	while (atomic_load(&h->waiters) == before)
		sched_yield();
	nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}

static void wait_end(struct call *c, const char *what)
{
	struct timespec late;

	clock_gettime(CLOCK_REALTIME, &late);
	late.tv_sec += 20;
	if (pthread_timedjoin_np(c->thread, NULL, &late))
		fail_msg("hgm_wait() was not woken: %s", what);
	assert_int_equal(c->rc, 0);
}

static void finish(struct hgm_region *r)
{
	hgm_region_count_off(r, PAGES);
	assert_true(told());
}

static void complete_and_complete_again(void **state)
{
	struct hgm_region *r = add_region(0);
	struct call call;

	(void)state;
	wait_begin(&call);
	hgm_region_count_off(r, PAGES - 1);
	assert_false(told());
	hgm_region_unsettle(r);
	hgm_region_count_off(r, 1);
	assert_false(told());
	hgm_region_settled(r);
	wait_end(&call, "the first time");
	assert_true(told());
	for (unsigned int i = 0; i < 3; i++) {
		hgm_region_unsettle(r); /* for example, a page is being given up */
		wait_begin(&call);
		assert_int_equal(hgm_wait(h, 0), -ETIMEDOUT);
		hgm_region_settled(r);
		wait_end(&call, "complete again");
		assert_true(told());
	}
}

/* Two items may be unsettled at the same time: only the last one signals completion. */
static void the_last_one_tells(void **state)
{
	struct hgm_region *r = add_region(0);
	struct call call;

	(void)state;
	finish(r);
	hgm_region_unsettle(r);
	hgm_region_unsettle(r);
	wait_begin(&call);
	hgm_region_settled(r);
	assert_false(told());
	hgm_region_settled(r);
	assert_true(told());
	wait_end(&call, "the last one");
}

/* A late request to collapse a region that has nothing to collapse. */
static void a_late_collapse(void **state)
{
	struct hgm_region *r = add_region(HGM_REGION_DEFER_COLLAPSE);

	(void)state;
	atomic_store(&r->deferred, true);
	finish(r);
	assert_int_equal(hgm_region_collapse(r), 0);
	assert_true(told());
	assert_int_equal(hgm_wait(h, 0), 0);
}

/* Without fill, each fault makes a region busy, then complete: an event only if one is due. */
static void without_fill(void **state)
{
	struct hgm_region *r = add_region(HGM_REGION_NO_FILL);
	struct hgm_progress p = { .size = sizeof(p) };
	struct call call;

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		hgm_region_ref(r);
		hgm_region_unref(r);
		assert_int_equal(told(), !i);
	}
	hgm_region_ref(r);
	assert_int_equal(hgm_get_progress(h, &p), 0);
	assert_false(p.complete);
	hgm_region_unref(r);
	assert_true(told());
	for (unsigned int i = 0; i < 3; i++) {
		hgm_region_ref(r);
		wait_begin(&call);
		while (!atomic_load(&r->event_due)) /* it has not checked yet */
			sched_yield();
		hgm_region_unref(r);
		wait_end(&call, "without fill");
		assert_true(told());
	}
}

/* The end of the last incomplete region completes the rest. */
static void the_last_incomplete_region_goes(void **state)
{
	struct hgm_region *gone = add_region(0);
	struct hgm_region *stays = add_region(0);
	struct call call;

	(void)state;
	finish(stays);
	wait_begin(&call);
	h->tables[1].region[0] = stays;
	h->tables[1].count = 1;
	atomic_store(&h->table, &h->tables[1]);
	hgm_region_gone(gone);
	wait_end(&call, "a region went");
	assert_true(told());
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(complete_and_complete_again, begin, end),
	cmocka_unit_test_setup_teardown(the_last_one_tells, begin, end),
	cmocka_unit_test_setup_teardown(a_late_collapse, begin, end),
	cmocka_unit_test_setup_teardown(without_fill, begin, end),
	cmocka_unit_test_setup_teardown(the_last_incomplete_region_goes, begin, end),
};

TEST_MAIN(tests)
