/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory runs out in the middle of a request. The pages that were installed before serve their
 * waiters at once, the others are postponed, the caller can see the reason, and everything works
 * again once there is memory.
 *
 * The memory is a tmpfs that is too small, mounted where only this program sees it. The test is a
 * program of its own, because the mount namespace stays.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS	    SMALLER(10000, 60000)
#define PAGES	    64 /* one request */
#define LENGTH	    (PAGES * PAGE)
#define FITS	    32 /* pages */
#define TOO_SMALL   "size=128k"
#define LARGE	    "size=8m"
#define MOUNT_POINT "/tmp"

static const struct contents contents = { .seed = 67 };
static bool mounted;

/* Returns NULL if there are a small tmpfs and a file in it, else the reason why not. */
static const char *small_file(int *fd)
{
	char path[] = MOUNT_POINT "/hgm-XXXXXX";

	if (unshare(CLONE_NEWNS))
		return "a mount namespace of our own cannot be had (CAP_SYS_ADMIN)";
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return "the mount namespace cannot be made private";
	if (mount("hgm", MOUNT_POINT, "tmpfs", 0, TOO_SMALL))
		return "a tmpfs cannot be mounted";
	mounted = true;
	*fd = mkostemp(path, O_CLOEXEC);
	assert_true(*fd >= 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(ftruncate(*fd, LENGTH), 0);
	return NULL;
}

static void resize(const char *size)
{
	if (mount(NULL, MOUNT_POINT, NULL, MS_REMOUNT, size))
		fail_msg("remounting with %s: %s", size, strerrorname_np(errno));
}

static int tear_down(void **state)
{
	(void)state;
	if (mounted)
		umount2(MOUNT_POINT, MNT_DETACH);
	mounted = false;
	calm();
	return 0;
}

struct trial {
	struct provider *provider;
	struct hgm *h;
	struct hgm_region *region;
	char *addr;
	int fd;
};

/* What the log says about it. */
static struct {
	_Atomic unsigned int lines;
	_Atomic unsigned int of_space;
} heard;

static void hear(void *user, enum hgm_log_level level, const char *text)
{
	(void)user;
	if (level != HGM_LOG_WARNING)
		return;
	atomic_fetch_add(&heard.lines, 1);
	atomic_fetch_add(&heard.of_space, strstr(text, "ENOSPC") != NULL);
}

static bool is_heard(void *arg)
{
	(void)arg;
	return atomic_load(&heard.lines) > 0;
}

/* A chunk of fill is a quarter of the fill window, so all pages are one request. */
static void begin(struct trial *t, enum provider_kind kind, uint32_t flags)
{
	struct hgm_region_opts o = { .size = sizeof(o),
				     .length = LENGTH,
				     .backing = HGM_BACKING_FD,
				     .flags = HGM_REGION_LAZY | flags };
	const char *lacking = small_file(&o.fd);

	if (lacking)
		test_skip("%s", lacking);
	watch("a file in a small tmpfs", 40);
	t->fd = o.fd;
	t->provider = provider_make(kind, &contents, LENGTH);
	o.source = provider_source(t->provider);
	memset(&heard, 0, sizeof(heard));
	t->h = engine_with(
		(struct hgm_opts){ .fault_threads = 1, .fill_window_bytes = MIB, .log = hear });
	assert_ok(hgm_region_create(&t->region, t->h, &o));
	t->addr = hgm_region_addr(t->region);
	assert_ok(hgm_start(t->h));
}

static void end(struct trial *t)
{
	hgm_region_destroy(t->region);
	close(t->fd);
	hgm_destroy(t->h);
	provider_free(t->provider);
}

static bool told(const struct hgm *h)
{
	struct pollfd fd = { .fd = hgm_event_fd(h), .events = POLLIN };

	return poll(&fd, 1, 5000 * (int)slowness()) == 1;
}

static bool is_back(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->signal) != -1;
}

static bool keeps_one(void *arg)
{
	return provider_kept(arg) == 1;
}

static bool keeps_two(void *arg)
{
	return provider_kept(arg) == 2;
}

static bool two_found_it_claimed(void *arg)
{
	return stats_of(arg).faults_claimed >= 2;
}

static bool is_short(void *arg)
{
	return stats_of(arg).no_memory > 0;
}

static bool one_fails(void *arg)
{
	return progress_of(arg).failing_requests == 1;
}

static bool none_fails(void *arg)
{
	return progress_of(arg).failing_requests == 0;
}

/*
 * True after more than a second. Within a second the log prints only one of many equal lines
 * anyway.
 */
static bool is_short_often(void *arg)
{
	return stats_of(arg).no_memory > 25;
}

/* Waiters find their pages claimed by fill's request, whose second half does not fit. */
static void first_half_serves(void **state)
{
	struct waiter early, late;
	struct trial t;

	(void)state;
	begin(&t, PROVIDER_NEVER, 0);
	assert_true(eventually(keeps_one, t.provider, 5000));
	waiter_start(&early, t.addr + 3 * PAGE);
	assert_true(eventually(keeps_two, t.provider, 5000)); /* fill's request, and one for it */
	provider_give(t.provider);
	assert_true(eventually(is_short, t.h, 5000));
	/* The contents of the page are there, so it is not requested again. */
	waiter_start(&late, t.addr + (PAGES - 3) * PAGE);
	assert_true(eventually(two_found_it_claimed, t.h, 5000));
	if (!eventually(is_back, &early, 10000))
		fail_msg("%llu KiB were installed, and a waiter sleeps on; %llu times no memory",
			 (unsigned long long)info_of(t.region).present_bytes >> 10,
			 (unsigned long long)stats_of(t.h).no_memory);
	waiter_join(&early);
	assert_int_equal(early.signal, 0);
	assert_pages(&contents, 0, FITS / 2, t.addr);
	/* The rest is neither present nor given up, and the reason is reported. */
	assert_false(is_back(&late));
	assert_uint_in_range(info_of(t.region).present_bytes, FITS / 2 * PAGE, FITS * PAGE);
	assert_false(progress_of(t.h).complete);
	assert_int_equal(progress_of(t.h).last_error, -ENOSPC);
	assert_int_equal(progress_of(t.h).poisoned_bytes, 0);
	assert_true(eventually(one_fails, t.h, 5000));
	assert_true(eventually(is_heard, NULL, 5000));
	/* The library tries again and again, and reports it once. */
	assert_true(eventually(is_short_often, t.h, 20000));
	assert_int_equal(heard.lines, 1);
	assert_int_equal(heard.of_space, 1);
	assert_error(hgm_wait(t.h, 50), -ETIMEDOUT);

	resize(LARGE);
	assert_ok(hgm_wait(t.h, WAIT_MS));
	assert_true(eventually(none_fails, t.h, 5000));
	assert_true(told(t.h));
	waiter_join(&late);
	assert_int_equal(late.signal, 0);
	assert_pages(&contents, 0, PAGES, t.addr);
	end(&t);
}

/* Threads request the pages one by one. */
static void on_demand(void **state)
{
	struct plan plan = { .contents = &contents, .pages = PAGES, .write = true, .passes = 2 };
	struct touchers touchers;
	struct trial t;

	(void)state;
	begin(&t, PROVIDER_NOW, HGM_REGION_NO_FILL);
	plan.addr = t.addr;
	touchers_start(&touchers, 4, &plan);
	assert_true(eventually(is_short, t.h, 5000));
	assert_int_equal(progress_of(t.h).last_error, -ENOSPC);
	resize(LARGE);
	touchers_join(&touchers);
	assert_ok(hgm_wait(t.h, WAIT_MS));
	assert_true(told(t.h));
	assert_pages(&contents, 0, PAGES, t.addr);
	end(&t);
}

/* The end must come even if there is never any memory. */
static void end_comes_without_memory(void **state)
{
	struct waiter waiter;
	struct trial t;

	(void)state;
	begin(&t, PROVIDER_NOW, 0);
	assert_true(eventually(is_short, t.h, 5000));
	waiter_start(&waiter, t.addr + (PAGES - 1) * PAGE);
	nap_us(20000);
	end(&t);
	waiter_join(&waiter);
	assert_true(waiter.signal);
}

#define CASE(fn) cmocka_unit_test_teardown(fn, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(first_half_serves),
	CASE(on_demand),
	CASE(end_comes_without_memory),
};

TEST_MAIN(tests)
