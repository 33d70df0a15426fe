/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What hgm_snapshot_create() and the others refuse, with words, and without leaving anything.
 */
#include "crew.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#define LENGTH	(2 * MIB)
#define WAIT_MS SMALLER(20000, 100000)

static const struct contents contents = { .seed = 56 };

struct pair {
	struct feed *feed;
	struct hgm *h, *other_h;
	struct field a, b, other;
};

static void pair_make(struct pair *p, bool start)
{
	p->feed = feed_make(FEED_NOW, &contents, LENGTH + PAGE);
	p->h = engine(1);
	p->other_h = engine(1);
	field_make(&p->a, p->h, PLACE_SHMEM, LENGTH, feed_source(p->feed), 0);
	assert_int_equal(field_try(&p->b, p->h, PLACE_ANON, LENGTH, feed_source(p->feed), PAGE, 0),
			 0);
	field_make(&p->other, p->other_h, PLACE_SHMEM, LENGTH, feed_source(p->feed), 0);
	if (!start)
		return;
	assert_ok(hgm_start(p->h));
	assert_ok(hgm_wait(p->h, WAIT_MS));
}

static void pair_end(struct pair *p)
{
	field_end(&p->a);
	field_end(&p->b);
	field_end(&p->other);
	hgm_destroy(p->h);
	hgm_destroy(p->other_h);
	feed_free(p->feed);
}

static int try(struct hgm *h, struct hgm_snapshot_opts o, struct hgm_region **regions, uint64_t n)
{
	struct hgm_snapshot *s = NULL;
	int rc;

	o.size = sizeof(o);
	o.regions = regions;
	o.count = n;
	rc = hgm_snapshot_create(&s, h, &o);
	assert_true(!rc == !!s);
	hgm_snapshot_destroy(s);
	return rc;
}

/* Refused, and the text names what is wrong. */
static void refused_saying(struct hgm *h, struct hgm_snapshot_opts o, struct hgm_region **regions,
			   uint64_t n, int want, const char *words)
{
	assert_error(try(h, o, regions, n), want);
	if (!strstr(hgm_errmsg(), words))
		fail_msg("not '%s' but: %s", words, hgm_errmsg());
}

static void bad_options(void **state)
{
	const struct hgm_snapshot_opts good = { .write = sink_write };
	struct hgm_snapshot_opts o;
	struct hgm_region *both[2], *twice[2], *foreign[2];
	struct holdings before;
	struct hgm_snapshot *s = NULL;
	struct pair p;
	int closed;

	(void)state;
	watch("bad options", 60);
	pair_make(&p, true);
	both[0] = p.a.region;
	both[1] = p.b.region;
	twice[0] = twice[1] = p.a.region;
	foreign[0] = p.a.region;
	foreign[1] = p.other.region;
	assert_int_equal(try(p.h, good, both, 1), 0);
	before = take_holdings();

	o = good;
	o.size = sizeof(o);
	assert_error(hgm_snapshot_create(NULL, p.h, &o), -EINVAL);
	assert_error(hgm_snapshot_create(&s, NULL, &o), -EINVAL);
	assert_error(hgm_snapshot_create(&s, p.h, NULL), -EINVAL);
	o.size = 3;
	assert_error(hgm_snapshot_create(&s, p.h, &o), -EINVAL);
	assert_null(s);

	o = good;
	o.write = NULL;
	o.fd = -1;
	assert_error(try(p.h, o, both, 1), -EINVAL);
	closed = dup(0);
	close(closed);
	o.fd = closed;
	assert_error(try(p.h, o, both, 1), -EBADF);
	o.fd = open("/dev/null", O_RDONLY);
	assert_error(try(p.h, o, both, 1), -EBADF);
	close(o.fd);
	o.fd = open("/dev/null", O_WRONLY | O_APPEND);
	assert_error(try(p.h, o, both, 1), -EINVAL);
	close(o.fd);
	o = good;
	o.flags = 0x2;
	assert_error(try(p.h, o, both, 1), -EINVAL);
	o = good;
	o.pool_bytes = UINT64_MAX;
	assert_error(try(p.h, o, both, 1), -EINVAL);
	o.pool_bytes = 1;
	refused_saying(p.h, o, both, 1, -ENOMEM, "pool_bytes 1 is less than a page");
	o.pool_bytes = PAGE - 1;
	refused_saying(p.h, o, both, 1, -ENOMEM, "pool_bytes 4095 is less than a page");
	o.pool_bytes = PAGE; /* is enough */
	assert_int_equal(try(p.h, o, both, 1), 0);
	o.pool_bytes = UINT64_C(1) << 42;
	assert_error(try(p.h, o, both, 1), -ENOMEM);
	assert_error(try(p.h, good, both, 2), -EINVAL); /* overlap in the snapshot */
	assert_error(try(p.h, good, NULL, 0), -EINVAL); /* all: so do these */
	assert_error(try(p.h, good, NULL, 1), -EINVAL); /* count without regions */
	refused_saying(p.h, good, both, 0, -EINVAL, "count is 0");
	refused_saying(p.h, good, twice, 2, -EINVAL, "of the 2 regions 1 are"); /* named twice */
	assert_error(try(p.h, good, foreign, 2), -EINVAL);
	assert_error(try(p.h, good, foreign + 1, 1), -EINVAL);
	assert_error(try(p.other_h, good, foreign + 1, 1), -EINVAL); /* not started */
	assert_same_holdings(&before);
	/* Whatever was refused, nothing of it is in the way. */
	assert_int_equal(try(p.h, good, both, 1), 0);
	assert_int_equal(try(p.h, good, both + 1, 1), 0);
	pair_end(&p);
	calm();
}

static void busy_regions(void **state)
{
	struct hgm_snapshot_opts o = { .size = sizeof(o), .write = sink_write, .count = 1 };
	struct hgm_region *a, *b;
	struct hgm_snapshot *s, *second;
	struct pair p;

	(void)state;
	pair_make(&p, true);
	a = p.a.region;
	b = p.b.region;
	o.regions = &a;
	s = snapshot_of(p.h, &o);
	assert_error(hgm_snapshot_create(&second, p.h, &o), -EBUSY);
	o.regions = &b; /* is free */
	second = snapshot_of(p.h, &o);
	hgm_snapshot_destroy(second);
	o.regions = &a; /* the refusal has not taken it from the first */
	assert_error(hgm_snapshot_create(&second, p.h, &o), -EBUSY);
	hgm_snapshot_destroy(s);
	second = snapshot_of(p.h, &o);
	hgm_snapshot_destroy(second);
	pair_end(&p);
}

static void bad_arguments(void **state)
{
	struct hgm_snapshot_progress progress = { .size = 1 };
	struct hgm_snapshot *s;
	struct pair p;
	struct hgm_region *a;

	(void)state;
	pair_make(&p, true);
	a = p.a.region;
	s = snapshot_of(
		p.h, &(struct hgm_snapshot_opts){ .write = sink_write, .regions = &a, .count = 1 });
	assert_error(hgm_snapshot_begin(NULL), -EINVAL);
	assert_error(hgm_snapshot_wait(NULL, 0), -EINVAL);
	assert_error(hgm_snapshot_wait(s, 0), -EINVAL);
	assert_error(hgm_snapshot_wait(s, -1), -EINVAL);
	assert_error(hgm_snapshot_cancel(NULL), -EINVAL);
	assert_error(hgm_snapshot_get_progress(NULL, &progress), -EINVAL);
	assert_error(hgm_snapshot_get_progress(s, NULL), -EINVAL);
	assert_error(hgm_snapshot_get_progress(s, &progress), -EINVAL);
	hgm_snapshot_destroy(NULL);
	hgm_snapshot_destroy(s);
	pair_end(&p);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(bad_options),
	cmocka_unit_test(busy_regions),
	cmocka_unit_test(bad_arguments),
};

TEST_MAIN(tests)
