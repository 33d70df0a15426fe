/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What hgm_snapshot_create() and the other functions refuse, with a text, and without leaving
 * anything behind.
 */
#include "snapshotting.h"
#include "kernel/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <unistd.h>

#define LENGTH	(2 * MIB)
#define WAIT_MS SMALLER(20000, 100000)

static const struct contents contents = { .seed = 56 };

struct pair {
	struct provider *provider;
	struct hgm *h, *other_h;
	struct ram a, b, other;
};

static void pair_make(struct pair *p, bool start)
{
	p->provider = provider_make(PROVIDER_NOW, &contents, LENGTH + PAGE);
	p->h = engine(1);
	p->other_h = engine(1);
	ram_make(&p->a, p->h, BACKING_SHMEM, LENGTH, provider_source(p->provider), 0);
	assert_int_equal(ram_try(&p->b, p->h, BACKING_ANON, LENGTH, provider_source(p->provider),
				 PAGE, 0),
			 0);
	ram_make(&p->other, p->other_h, BACKING_SHMEM, LENGTH, provider_source(p->provider), 0);
	if (!start)
		return;
	assert_ok(hgm_start(p->h));
	assert_ok(hgm_wait(p->h, WAIT_MS));
}

static void pair_end(struct pair *p)
{
	ram_end(&p->a);
	ram_end(&p->b);
	ram_end(&p->other);
	hgm_destroy(p->h);
	hgm_destroy(p->other_h);
	provider_free(p->provider);
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

/* The call is refused, and the text names what is wrong. */
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
	o.flags = 0x4;
	assert_error(try(p.h, o, both, 1), -EINVAL);
	o.flags = HGM_SNAPSHOT_SYNC; /* with a function */
	assert_error(try(p.h, o, both, 1), -EINVAL);
	o.write = NULL;
	o.fd = open("/dev/null", O_WRONLY);
	refused_saying(p.h, o, both, 1, -EINVAL, "neither a regular file nor a block device");
	close(o.fd);
	o = good;
	o.pool_bytes = UINT64_MAX;
	assert_error(try(p.h, o, both, 1), -EINVAL);
	o.pool_bytes = 1;
	refused_saying(p.h, o, both, 1, -ENOMEM, "pool_bytes 1 is less than a page");
	o.pool_bytes = PAGE - 1;
	refused_saying(p.h, o, both, 1, -ENOMEM, "pool_bytes 4095 is less than a page");
	o.pool_bytes = PAGE; /* is enough */
	assert_int_equal(try(p.h, o, both, 1), 0);
	o.pool_bytes = UINT64_C(1) << 42; /* only what the region can need is allocated */
	assert_int_equal(try(p.h, o, both, 1), 0);
	assert_error(try(p.h, good, both, 2), -EINVAL); /* overlap in the snapshot */
	assert_error(try(p.h, good, NULL, 0), -EINVAL); /* all regions: these overlap too */
	assert_error(try(p.h, good, NULL, 1), -EINVAL); /* count without regions */
	refused_saying(p.h, good, both, 0, -EINVAL, "count is 0");
	refused_saying(p.h, good, twice, 2, -EINVAL,
		       "of the 2 regions, only 1 are"); /* named twice */
	assert_error(try(p.h, good, foreign, 2), -EINVAL);
	assert_error(try(p.h, good, foreign + 1, 1), -EINVAL);
	assert_error(try(p.other_h, good, foreign + 1, 1), -EINVAL); /* not started */
	assert_same_holdings(&before);
	/* Nothing of a refused snapshot prevents the next one. */
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

/* The pool is committed at once, but not more of it than the regions can need. */
static void a_pool_larger_than_memory(void **state)
{
	struct holdings before;
	struct hgm_snapshot *s;
	struct hgm_region *a;
	struct pair p;
	uint64_t more;

	(void)state;
	watch("a pool larger than memory", 60);
	pair_make(&p, true);
	a = p.a.region;
	before = take_holdings();
	s = snapshot_of(p.h, &(struct hgm_snapshot_opts){ .write = sink_write,
							  .regions = &a,
							  .count = 1,
							  .pool_bytes = UINT64_C(4) << 30 });
	more = take_holdings().mapped_bytes - before.mapped_bytes;
	if (more > GIB) /* a thread's stack and heap are mapped, too */
		fail_msg("%llu MiB more are mapped", (unsigned long long)more >> 20);
	hgm_snapshot_destroy(s);
	pair_end(&p);
	calm();
}

/* The file is memory of the engine, or a source that it is restored from, under any name. */
static void its_own_files(void **state)
{
	static const enum backing backings[] = { BACKING_FD, BACKING_MAPPING };
	char image[] = "/tmp/hgm-own-XXXXXX", link_name[64];
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	char *page = calloc(1, LENGTH);
	struct hgm_source *src;
	struct hgm_region *first;
	struct hgm_snapshot *s;
	struct ram a, b;
	struct hgm *h;
	int fd, other;

	(void)state;
	watch("its own files", 60);
	assert_non_null(page);
	fd = mkstemp(image);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, page, LENGTH), LENGTH);
	assert_ok(hgm_source_file(&src, image));
	for (unsigned int i = 0; i < 2; i++) {
		h = engine(1);
		ram_make(&a, h, BACKING_ANON, LENGTH, provider_source(provider), 0);
		ram_make(&b, h, backings[i], LENGTH, src, HGM_REGION_NO_FILL);
		assert_ok(hgm_start(h));
		first = a.region;
		/* This includes a region that is not in the snapshot. */
		refused_saying(h, (struct hgm_snapshot_opts){ .fd = b.fd }, &first, 1, -EINVAL,
			       "is the memory of a region");
		refused_saying(h, (struct hgm_snapshot_opts){ .fd = fd }, &first, 1, -EINVAL,
			       "is the source of a region");
		snprintf(link_name, sizeof(link_name), "%s.link", image);
		assert_int_equal(link(image, link_name), 0);
		other = open(link_name, O_WRONLY | O_CLOEXEC);
		unlink(link_name);
		assert_true(other >= 0);
		refused_saying(h, (struct hgm_snapshot_opts){ .fd = other }, &first, 1, -EINVAL,
			       "is the source of a region");
		ram_end(&b);
		/* No region uses the file any more. Before the instant, a region uses it again. */
		s = snapshot_of(h, &(struct hgm_snapshot_opts){
					   .fd = other, .regions = &first, .count = 1 });
		ram_make(&b, h, backings[i], LENGTH, src, HGM_REGION_NO_FILL);
		assert_error(hgm_snapshot_begin(s), -EINVAL);
		assert_non_null(strstr(hgm_errmsg(), "is the source of a region"));
		ram_end(&b);
		assert_ok(hgm_snapshot_begin(s));
		assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		hgm_snapshot_destroy(s);
		close(other);
		ram_end(&a);
		hgm_destroy(h);
		assert_int_equal(ftruncate(fd, 0), 0);
		assert_int_equal(pwrite(fd, page, LENGTH, 0), LENGTH);
	}
	hgm_source_destroy(src);
	provider_free(provider);
	unlink(image);
	close(fd);
	free(page);
	calm();
}

/*
 * A snapshot of all regions must not be of those at its creation only. It is refused if there are
 * more at the instant.
 */
static void a_region_added_before_the_instant(void **state)
{
	struct hgm_snapshot_opts o = { .size = sizeof(o), .write = sink_write };
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	struct hgm_region *a;
	struct ram more;
	struct pair p;

	(void)state;
	watch("a region added", 60);
	pair_make(&p, true);
	ram_end(&p.b);
	sink_clear(&sink, 2 * LENGTH);
	o.user = &sink;
	s = snapshot_of(p.h, &o);
	assert_int_equal(
		ram_try(&more, p.h, BACKING_ANON, PAGE, provider_source(p.provider), LENGTH, 0), 0);
	assert_error(hgm_snapshot_begin(s), -ESTALE);
	assert_non_null(strstr(hgm_errmsg(), "2 regions"));
	hgm_snapshot_destroy(s);
	/* A snapshot of named regions is of these regions only. */
	a = p.a.region;
	o.regions = &a;
	o.count = 1;
	s = snapshot_of(p.h, &o);
	ram_end(&more);
	assert_int_equal(
		ram_try(&more, p.h, BACKING_ANON, PAGE, provider_source(p.provider), LENGTH, 0), 0);
	assert_ok(hgm_snapshot_begin(s));
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	ram_end(&more);
	ram_end(&p.a);
	ram_end(&p.other);
	hgm_destroy(p.h);
	hgm_destroy(p.other_h);
	provider_free(p.provider);
	free(sink.got);
	calm();
}

static const struct hgm_sys *kernel;

static int no_device(const char *path, int flags)
{
	return strcmp(path, "/dev/userfaultfd") ? kernel->open(path, flags) : -EACCES;
}

static int user_mode_only(int flags)
{
	return flags & UFFD_USER_MODE_ONLY ? kernel->userfaultfd(flags) : -EPERM;
}

/*
 * The kernel's own faults are not served. A system call must not fail on memory that is present
 * just because the memory is protected. Asynchronous dirty tracking lets the call write.
 */
static void faults_of_user_mode_only(void **state)
{
	static struct hgm_sys lesser;
	struct hgm_dirty_opts dopts = { .size = sizeof(dopts), .flags = HGM_DIRTY_SYNC };
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm_dirty *d;
	struct ram ram;
	struct hgm *h;
	int fds[2], rc;

	(void)state;
	watch("faults of user mode only", 60);
	kernel = hgm_sys;
	lesser = *kernel;
	lesser.open = no_device;
	lesser.userfaultfd = user_mode_only;
	hgm_sys = &lesser;
	h = engine_with((struct hgm_opts){ .fault_threads = 1, .flags = HGM_ALLOW_USER_MODE_ONLY });
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	refused_saying(h, (struct hgm_snapshot_opts){ .write = sink_write }, &ram.region, 1, -EPERM,
		       "EFAULT");
	assert_error(hgm_region_watch(ram.region, NULL), -EPERM);
	assert_error(hgm_dirty_start(&d, ram.region, &dopts), -EPERM);
	assert_non_null(strstr(hgm_errmsg(), "not asynchronous: the caller passed HGM_DIRTY_SYNC"));
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	dopts.flags = 0;
	rc = hgm_dirty_start(&d, ram.region, &dopts);
	if (rc)
		assert_int_equal(rc, -EPERM); /* before 6.7 there is no asynchronous way */
	assert_int_equal(read(fds[0], ram.addr, 1), 1);
	if (!rc)
		hgm_dirty_stop(d);
	close(fds[0]);
	close(fds[1]);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	hgm_sys = kernel;
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(bad_options),
	cmocka_unit_test(busy_regions),
	cmocka_unit_test(bad_arguments),
	cmocka_unit_test(faults_of_user_mode_only),
	cmocka_unit_test(a_pool_larger_than_memory),
	cmocka_unit_test(its_own_files),
	cmocka_unit_test(a_region_added_before_the_instant),
};

TEST_MAIN(tests)
