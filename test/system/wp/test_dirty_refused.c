/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests that watches and dirty tracking refuse. They return the errno of the header and a text,
 * leave nothing behind, and take nothing away.
 */
#include "snapshotting.h"
#include "kernel/sys.h"

#include <errno.h>
#include <stdlib.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(4 * MIB)
#define LONGER	(LENGTH + 12 * PAGE) /* the last block is incomplete */
#define WORDS	(LONGER / PAGE / 64 + 1)

static const struct contents contents = { .seed = 105 };

struct scene {
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	struct hgm_region *r;
	uint64_t length, pages;
};

static bool begin(struct scene *s, enum backing backing)
{
	memset(s, 0, sizeof(*s));
	s->length = backing < BACKINGS_SMALL ? LONGER : LENGTH;
	s->pages = s->length / PAGE;
	if (backing_lacking(backing, LENGTH))
		return false;
	watch(backing_names[backing], 60);
	s->provider = provider_make(PROVIDER_NOW, &contents, s->length);
	s->h = engine(1);
	ram_make(&s->ram, s->h, backing, s->length, provider_source(s->provider), 0);
	assert_ok(hgm_start(s->h));
	assert_ok(hgm_wait(s->h, WAIT_MS));
	s->r = s->ram.region;
	return true;
}

static void end(struct scene *s)
{
	ram_end(&s->ram);
	hgm_destroy(s->h);
	provider_free(s->provider);
	calm();
}

/* The collapser has smaps open now and then. */
static bool no_more(void *arg)
{
	const struct holdings *before = arg, now = take_holdings();

	return now.descriptors <= before->descriptors && now.threads <= before->threads;
}

static void ranges(struct hgm_region *r, int (*verb)(struct hgm_region *, uint64_t, uint64_t,
						     uint32_t, struct hgm_span *))
{
	uint64_t unit = info_of(r).protect_bytes;
	uint64_t length = hgm_region_length(r);
	struct hgm_span what = { 7, 7 };

	assert_error(verb(NULL, 0, unit, 0, &what), -EINVAL);
	assert_error(verb(r, 0, 0, 0, &what), -EINVAL);
	assert_error(verb(r, 0, 0, HGM_PROTECT_ROUND, &what), -EINVAL);
	assert_error(verb(r, length, 1, HGM_PROTECT_ROUND, &what), -EINVAL);
	assert_error(verb(r, 0, length + 1, HGM_PROTECT_ROUND, &what), -EINVAL);
	assert_error(verb(r, unit, UINT64_MAX, HGM_PROTECT_ROUND, &what), -EINVAL);
	assert_error(verb(r, UINT64_MAX, 2, HGM_PROTECT_ROUND, &what), -EINVAL);
	assert_error(verb(r, UINT64_MAX - unit + 1, unit, 0, &what), -EINVAL);
	assert_error(verb(r, 1, unit, 0, &what), -EINVAL);
	assert_error(verb(r, 0, unit - 1, 0, &what), -EINVAL);
	assert_error(verb(r, unit, length - unit - 1, 0, &what), -EINVAL);
	assert_error(verb(r, 0, unit, 0x2, &what), -EINVAL);
	assert_int_equal(what.offset, 7);
	/* The last unit may be cut off by the region's end. */
	assert_ok(verb(r, unit, length - unit, 0, &what));
	assert_int_equal(what.offset, unit);
	assert_int_equal(what.length, length - unit);
	assert_ok(verb(r, length - 1, 1, HGM_PROTECT_ROUND, &what));
	assert_int_equal(what.offset, (length - 1) / unit * unit);
	assert_int_equal(what.offset + what.length, length);
	assert_ok(verb(r, 0, length, 0, NULL));
}

static void watches(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON, BACKING_HUGETLB_2M };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct hgm_watch_opts o = { .size = sizeof(o) };
		struct {
			struct hgm_watch_opts o;
			uint64_t newer;
		} longer = { .o.size = sizeof(longer), .newer = 1 };
		struct holdings before;
		struct scene s;

		if (!begin(&s, backings[i]))
			continue;
		assert_ok(hgm_region_watch(s.r, NULL)); /* what the first watch opens stays */
		assert_ok(hgm_region_unwatch(s.r));
		before = take_holdings();
		assert_error(hgm_region_watch(NULL, &o), -EINVAL);
		assert_error(hgm_region_unwatch(NULL), -EINVAL);
		assert_error(hgm_region_unwatch(s.r), -EINVAL);
		assert_error(hgm_region_protect(s.r, 0, s.length, 0, NULL), -EINVAL);
		assert_error(hgm_region_unprotect(s.r, 0, s.length, 0, NULL), -EINVAL);
		assert_error(hgm_region_watch(s.r, &longer.o), -E2BIG);
		o.verdict = 2;
		assert_error(hgm_region_watch(s.r, &o), -EINVAL);
		o.verdict = 0;
		o.reserved = 1;
		assert_error(hgm_region_watch(s.r, &o), -EINVAL);
		o.reserved = 0;
		o.size = 3;
		assert_error(hgm_region_watch(s.r, &o), -EINVAL);
		o.size = sizeof(o);
		assert_ok(hgm_region_watch(s.r, &o));
		assert_error(hgm_region_watch(s.r, &o), -EBUSY);
		ranges(s.r, hgm_region_protect);
		ranges(s.r, hgm_region_unprotect);
		assert_ok(hgm_region_unwatch(s.r));
		assert_error(hgm_region_unwatch(s.r), -EINVAL);
		assert_error(hgm_region_protect(s.r, 0, s.length, 0, NULL), -EINVAL);
		assert_true(eventually(no_more, &before, 5000));
		end(&s);
	}
}

static void tracking(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON, BACKING_HUGETLB_2M };

	(void)state;
	for (size_t i = 0; i < 6; i++) {
		struct hgm_dirty_opts o = { .size = sizeof(o) };
		struct {
			struct hgm_dirty_opts o;
			uint64_t newer;
		} longer = { .o.size = sizeof(longer), .newer = 1 };
		struct hgm_dirty_info info = { .size = 3 };
		uint64_t bitmap[WORDS], dirty = 9, last;
		struct hgm_dirty *d = NULL;
		struct holdings before;
		struct scene s;

		if (!begin(&s, backings[i % 3]))
			continue;
		last = (s.pages - 1) / 64 * 64;
		assert_ok(hgm_dirty_start(&d, s.r, NULL));
		hgm_dirty_stop(d);
		d = NULL;
		before = take_holdings();
		assert_error(hgm_dirty_start(NULL, s.r, &o), -EINVAL);
		assert_error(hgm_dirty_start(&d, NULL, &o), -EINVAL);
		assert_error(hgm_dirty_start(&d, s.r, &longer.o), -E2BIG);
		o.flags = 0x8;
		assert_error(hgm_dirty_start(&d, s.r, &o), -EINVAL);
		o.flags = 0;
		o.reserved = 1;
		assert_error(hgm_dirty_start(&d, s.r, &o), -EINVAL);
		o.reserved = 0;
		o.size = 3;
		assert_error(hgm_dirty_start(&d, s.r, &o), -EINVAL);
		o.size = sizeof(o);
		if (info_of(s.r).protect_bytes > PAGE) {
			o.flags = HGM_DIRTY_EXACT;
			assert_error(hgm_dirty_start(&d, s.r, &o), -EOPNOTSUPP);
		}
		assert_null(d);
		o.flags = i < 3 ? 0 : HGM_DIRTY_SYNC;
		assert_ok(hgm_dirty_start(&d, s.r, &o));
		assert_error(hgm_dirty_collect(NULL, 0, s.pages, bitmap, &dirty), -EINVAL);
		assert_error(hgm_dirty_collect(d, 0, s.pages, NULL, &dirty), -EINVAL);
		assert_error(hgm_dirty_collect(d, 0, s.pages + 1, bitmap, &dirty), -EINVAL);
		assert_error(hgm_dirty_collect(d, 64, UINT64_MAX - 8, bitmap, &dirty), -EINVAL);
		assert_error(hgm_dirty_collect(d, 1, 1, bitmap, &dirty), -EINVAL);
		assert_error(hgm_dirty_collect(d, s.pages / 64 * 64 + 64, 0, bitmap, &dirty),
			     -EINVAL);
		assert_error(hgm_dirty_get_info(NULL, &info), -EINVAL);
		assert_error(hgm_dirty_get_info(d, NULL), -EINVAL);
		assert_error(hgm_dirty_get_info(d, &info), -EINVAL);
		assert_int_equal(dirty, 9);
		/* The last block, which is incomplete, and its bits after the end. */
		assert_ok(hgm_dirty_collect(d, 0, s.pages, bitmap, &dirty));
		*(volatile char *)(s.ram.addr + s.length - 1) += 1;
		memset(bitmap, 0xff, sizeof(bitmap));
		assert_ok(hgm_dirty_collect(d, last, s.pages - last, bitmap, &dirty));
		assert_int_equal(bitmap[0] >> (s.pages - last - 1), 1);
		assert_ok(hgm_dirty_collect(d, 0, 0, bitmap, NULL));
		hgm_dirty_stop(NULL);
		if (i < 3) {
			hgm_dirty_stop(d);
			assert_true(eventually(no_more, &before, 5000));
		}
		ram_end(&s.ram); /* the region ends first */
		if (i >= 3) {
			assert_error(hgm_dirty_collect(d, 0, s.pages, bitmap, &dirty), -ECANCELED);
			info.size = sizeof(info);
			assert_ok(hgm_dirty_get_info(d, &info));
			assert_true(info.collections > 0 && strlen(info.sentence) > 20);
			hgm_dirty_stop(d);
		}
		end(&s);
	}
}

static struct hgm_snapshot *snapshot_once(struct scene *s, int want)
{
	static struct sink sink;
	struct hgm_snapshot_opts o = {
		.size = sizeof(o), .write = sink_write, .user = &sink, .regions = &s->r, .count = 1
	};
	struct hgm_snapshot *snapshot = NULL;

	if (want)
		assert_error(hgm_snapshot_create(&snapshot, s->h, &o), want);
	else
		assert_ok(hgm_snapshot_create(&snapshot, s->h, &o));
	return snapshot;
}

/* Only one of the three at a time. The text names the one that has the region. */
static void one_at_a_time(void **state)
{
	struct hgm_dirty_opts o = { .size = sizeof(o) };
	struct hgm_snapshot *snapshot;
	struct hgm_dirty *d, *second = NULL;
	struct scene s;

	(void)state;
	assert_true(begin(&s, BACKING_SHMEM));
	for (unsigned int i = 0; i < 2; i++) {
		o.flags = i ? HGM_DIRTY_SYNC : 0;
		assert_ok(hgm_dirty_start(&d, s.r, &o));
		snapshot_once(&s, -EBUSY);
		assert_non_null(strstr(hgm_errmsg(), "dirty tracking"));
		assert_error(hgm_region_watch(s.r, NULL), -EBUSY);
		assert_non_null(strstr(hgm_errmsg(), "dirty tracking"));
		assert_error(hgm_dirty_start(&second, s.r, &o), -EBUSY);
		assert_error(hgm_region_unwatch(s.r), -EINVAL);
		assert_error(hgm_region_protect(s.r, 0, LENGTH, 0, NULL), -EINVAL);
		hgm_dirty_stop(d);

		assert_ok(hgm_region_watch(s.r, NULL));
		snapshot_once(&s, -EBUSY);
		assert_non_null(strstr(hgm_errmsg(), "a watch"));
		assert_error(hgm_dirty_start(&second, s.r, &o), -EBUSY);
		assert_non_null(strstr(hgm_errmsg(), "a watch"));
		assert_ok(hgm_region_unwatch(s.r));

		snapshot = snapshot_once(&s, 0);
		assert_error(hgm_dirty_start(&second, s.r, &o), -EBUSY);
		assert_non_null(strstr(hgm_errmsg(), "a snapshot"));
		assert_error(hgm_region_watch(s.r, NULL), -EBUSY);
		assert_non_null(strstr(hgm_errmsg(), "a snapshot"));
		hgm_snapshot_destroy(snapshot);
	}
	assert_null(second);
	end(&s);
}

/* A kernel whose userfaultfd cannot protect. All is refused before anything is changed. */
static const struct hgm_sys *kernel;
static uint64_t hidden;

static int less_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	int rc = kernel->uffd_api(fd, features, ioctls);

	*features &= ~hidden;
	return rc;
}

static void without_protection(void **state)
{
	static const struct {
		enum backing backing;
		uint64_t hidden;
	} lacks[] = {
		{ BACKING_ANON, HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP },
		{ BACKING_SHMEM, HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP },
		{ BACKING_SHMEM, HGM_UFFD_FEATURE_WP_HUGETLBFS_SHMEM },
	};
	static struct hgm_sys sys;

	(void)state;
	kernel = hgm_sys;
	sys = *kernel;
	sys.uffd_api = less_api;
	hgm_sys = &sys;
	for (size_t i = 0; i < sizeof(lacks) / sizeof(lacks[0]); i++) {
		struct hgm_snapshot_opts so = { .size = sizeof(so), .write = sink_write };
		struct hgm_snapshot *snap = NULL;
		struct hgm_dirty *d = NULL;
		struct scene s;

		hidden = lacks[i].hidden;
		assert_true(begin(&s, lacks[i].backing));
		assert_error(hgm_region_watch(s.r, NULL), -EOPNOTSUPP);
		assert_error(hgm_dirty_start(&d, s.r, NULL), -EOPNOTSUPP);
		assert_null(d);
		assert_error(hgm_snapshot_create(&snap, s.h, &so), -EOPNOTSUPP);
		assert_null(snap);
		end(&s);
	}
	/* Without WP_ASYNC tracking uses the other way, and the sentence says so. */
	hidden = HGM_UFFD_FEATURE_WP_ASYNC;
	for (size_t i = 0; i < 2; i++) {
		struct hgm_dirty_info info = { .size = sizeof(info) };
		struct hgm_dirty *d;
		struct scene s;

		assert_true(begin(&s, i ? BACKING_ANON : BACKING_SHMEM));
		assert_ok(hgm_dirty_start(&d, s.r, NULL));
		assert_ok(hgm_dirty_get_info(d, &info));
		assert_true(info.flags & HGM_DIRTY_SYNC);
		assert_non_null(strstr(info.sentence, "WP_ASYNC"));
		hgm_dirty_stop(d);
		end(&s);
	}
	hgm_sys = kernel;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(watches),
	cmocka_unit_test(tracking),
	cmocka_unit_test(one_at_a_time),
	cmocka_unit_test(without_protection),
};

TEST_MAIN(tests)
