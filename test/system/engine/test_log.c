/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lines that an engine writes to its caller's log: what it got and what fails. There are not
 * too many lines, and none if the caller did not ask for them.
 */
#include "harness.h"
#include "kernel/sys.h"
#include "util/rcu.h"

#include <errno.h>
#include <signal.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>

#define LENGTH	(4 * MIB)
#define LINES	256
#define FOREVER UINT64_MAX

static const struct contents contents = { .seed = 21 };

/* Any thread may write lines. */
static struct heard {
	pthread_mutex_t lock;
	unsigned int count;
	enum hgm_log_level level[LINES];
	char text[LINES][1300];
} heard = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void hear(void *user, enum hgm_log_level level, const char *text)
{
	struct heard *to = user;

	/*
	 * The function may take long. No thread waits meanwhile for this one to leave an SRCU
	 * section.
	 */
	hgm_rcu_synchronize();
	pthread_mutex_lock(&to->lock);
	if (to->count < LINES) {
		to->level[to->count] = level;
		snprintf(to->text[to->count], sizeof(to->text[0]), "%s", text);
	}
	to->count++;
	pthread_mutex_unlock(&to->lock);
}

/* The number of lines of a level that contain @word. *last is one of them. */
static unsigned int lines_with(enum hgm_log_level level, const char *word, const char **last)
{
	unsigned int n = 0;

	pthread_mutex_lock(&heard.lock);
	assert_uint_in_range(heard.count, 0, LINES);
	for (unsigned int i = 0; i < heard.count; i++)
		if (heard.level[i] == level && strstr(heard.text[i], word)) {
			*last = heard.text[i];
			n++;
		}
	pthread_mutex_unlock(&heard.lock);
	return n;
}

static unsigned int lines(void)
{
	unsigned int n;

	pthread_mutex_lock(&heard.lock);
	n = heard.count;
	pthread_mutex_unlock(&heard.lock);
	return n;
}

/* The kernel, or a model, with some things missing. */
static const struct hgm_sys *kernel;
static struct hgm_sys lesser;

static int no_collapse(void *addr, uint64_t len, int advice)
{
	return advice == HGM_MADV_COLLAPSE ? -EINVAL : kernel->madvise(addr, len, advice);
}

static int no_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	(void)fd;
	(void)addr;
	(void)len;
	(void)mode;
	*done = -EINVAL;
	return -EINVAL;
}

static int no_device(const char *path, int flags)
{
	return strcmp(path, "/dev/userfaultfd") ? kernel->open(path, flags) : -EACCES;
}

static int user_mode_only(int flags)
{
	return flags & UFFD_USER_MODE_ONLY ? kernel->userfaultfd(flags) : -EPERM;
}

static int make(void **state)
{
	(void)state;
	watch("log", 60);
	heard.count = 0;
	kernel = hgm_sys;
	lesser = *kernel;
	hgm_sys = &lesser;
	return 0;
}

static int end(void **state)
{
	(void)state;
	hgm_sys = kernel;
	calm();
	return 0;
}

static struct hgm *engine_heard(struct hgm_opts opts)
{
	opts.log = hear;
	opts.log_user = &heard;
	return engine_with(opts);
}

/* A source that fails @times times for the pages from @first_bad on. */
struct bad {
	uint64_t first_bad;
	_Atomic uint64_t times;
};

/* Each of several threads that come at a time uses up its own try. */
static bool fails_once_more(struct bad *bad)
{
	uint64_t times = atomic_load(&bad->times);

	while (times && times != FOREVER)
		if (atomic_compare_exchange_weak(&bad->times, &times, times - 1))
			return true;
	return times;
}

static int64_t fail_there(void *user, const struct hgm_io *io)
{
	struct bad *bad = user;
	uint64_t page = io->offset / PAGE, pages = io->length / PAGE;

	if (page + pages > bad->first_bad && fails_once_more(bad))
		return -ECONNRESET;
	contents_write(&contents, page, pages, io->buf);
	return (int64_t)io->length;
}

static struct hgm_source *source_of(struct bad *bad)
{
	struct hgm_source *src;

	assert_ok(hgm_source_fn(&src, fail_there, bad, NULL));
	return src;
}

static void regions_say_what_they_are(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm *h = engine_heard((struct hgm_opts){ .fault_threads = 1 });
	const char *line = NULL;
	struct ram ram;

	(void)state;
	assert_int_equal(lines_with(HGM_LOG_INFO, "1 fault threads", &line), 1);
	ram_make(&ram, h, BACKING_SHMEM_LAZY, LENGTH, provider_source(provider), 0);
	assert_int_equal(lines_with(HGM_LOG_INFO, "region of 4096 KiB", &line), 1);
	assert_non_null(strstr(line, info_of(ram.region).sentence));
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, 30000));
	assert_int_equal(lines(), 2); /* all went well, so there are no more lines */
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

/* The failure may be over before it is logged. */
static bool some_line(void *unused)
{
	(void)unused;
	return lines() > 0;
}

static void levels_are_kept(void **state)
{
	struct bad bad = { .first_bad = 0, .times = 1 };
	struct hgm_source *src = source_of(&bad);
	struct hgm *h =
		engine_heard((struct hgm_opts){ .fault_threads = 1, .log_level = HGM_LOG_WARNING });
	const char *line = NULL;
	struct ram ram;

	(void)state;
	ram_make(&ram, h, BACKING_ANON, LENGTH, src, 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, 30000));
	assert_true(eventually(some_line, NULL, 5000));
	assert_int_equal(lines_with(HGM_LOG_WARNING, "ECONNRESET", &line), 1);
	assert_int_equal(lines(), 1);
	assert_non_null(strstr(line, "source: "));
	assert_non_null(strstr(line, "try 1"));
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
}

/* Only a page that a thread waits for is given up. */
static void touch_bad(const struct ram *ram)
{
	uint8_t value;

	for (uint64_t p = LENGTH / PAGE / 2; p < LENGTH / PAGE; p++)
		assert_int_equal(touch(ram->addr + p * PAGE, &value), SIGBUS);
}

/* Hundreds of pages fail permanently. Each kind is logged once a second and counts the rest. */
static void failures_are_told_without_a_flood(void **state)
{
	struct bad bad = { .first_bad = LENGTH / PAGE / 2, .times = FOREVER };
	struct hgm_source *src = source_of(&bad);
	uint64_t start = now_us(), seconds;
	struct hgm *h = engine_heard((struct hgm_opts){
		.retries = 1, .retry_first_us = 100, .outage_ms = HGM_OUTAGE_NEVER });
	const char *line = NULL;
	unsigned int n;
	struct ram ram;

	(void)state;
	skip_unless(KERNEL_POISON);
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, 0);
	assert_ok(hgm_start(h));
	touch_bad(&ram);
	n = lines_with(HGM_LOG_WARNING, "source: ECONNRESET", &line);
	seconds = (now_us() - start) / 1000000;
	assert_uint_in_range(n, 1, seconds + 1);
	n = lines_with(HGM_LOG_ERROR, "are poisoned", &line);
	seconds = (now_us() - start) / 1000000;
	assert_uint_in_range(n, 1, seconds + 1);
	assert_true(stats_of(h).poisoned_pages >= 256);
	/* The next line reports those that were left out. */
	nap_us(1100000);
	hgm_region_destroy(ram.region);
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, 0);
	touch_bad(&ram);
	assert_uint_in_range(lines_with(HGM_LOG_ERROR, "more like this since the last one)", &line),
			     1, 100);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
}

static _Atomic unsigned int odd_answers;

/* The first answer is a number of pages, where bytes are wanted. */
static int64_t odd_read(void *user, const struct hgm_io *io)
{
	(void)user;
	if (atomic_fetch_add(&odd_answers, 1) == 0)
		return 1;
	contents_write(&contents, io->offset / PAGE, io->length / PAGE, io->buf);
	return (int64_t)io->length;
}

static bool odd_answer_is_told(void *unused)
{
	const char *line;

	(void)unused;
	return lines_with(HGM_LOG_ERROR, "source: 1 is not a valid answer to a request of ",
			  &line) &&
	       lines_with(HGM_LOG_WARNING, "source: EIO", &line);
}

/* What a source says that can be no answer is logged as it was said, once. */
static void impossible_answers_are_told(void **state)
{
	struct hgm *h = engine_heard((struct hgm_opts){ .retry_first_us = 100 });
	struct hgm_source *src;
	const char *line = NULL;
	struct ram ram;

	(void)state;
	atomic_store(&odd_answers, 0);
	assert_ok(hgm_source_fn(&src, odd_read, NULL, NULL));
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, 60000));
	assert_pages(&contents, 0, LENGTH / PAGE, ram.addr);
	assert_true(eventually(odd_answer_is_told, NULL, 20000));
	assert_int_equal(lines_with(HGM_LOG_ERROR, "is not a valid answer", &line), 1);
	assert_int_equal(lines_with(HGM_LOG_WARNING, "source: EIO", &line), 1);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
}

static bool has_given_up(void *arg)
{
	return lines_with(HGM_LOG_ERROR, "pages cannot be poisoned here", (const char **)arg);
}

static void pages_that_stay_missing_are_told(void **state)
{
	struct bad bad = { .first_bad = LENGTH / PAGE - 1, .times = FOREVER };
	struct hgm_source *src = source_of(&bad);
	const char *line = NULL;
	struct waiter waiter;
	struct ram ram;
	struct hgm *h;

	(void)state;
	lesser.uffd_poison = no_poison;
	h = engine_heard(
		(struct hgm_opts){ .retries = HGM_RETRY_NEVER, .outage_ms = HGM_OUTAGE_NEVER });
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, 0);
	assert_ok(hgm_start(h));
	waiter_start(&waiter, ram.addr + LENGTH - PAGE);
	assert_true(eventually(has_given_up, &line, 10000));
	assert_non_null(strstr(line, "4 KiB"));
	atomic_store(&bad.times, 0);
	assert_ok(hgm_wait(h, 30000));
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, 0);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
}

static void blocks_that_stay_split_are_told(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	const char *line = NULL;
	struct ram ram;
	struct hgm *h;

	(void)state;
	lesser.madvise = no_collapse;
	h = engine_heard((struct hgm_opts){ .fault_threads = 1, .log_level = HGM_LOG_WARNING });
	ram_make(&ram, h, BACKING_SHMEM_LAZY, LENGTH, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, 30000));
	assert_int_equal(info_of(ram.region).left_split, 2);
	assert_uint_in_range(lines_with(HGM_LOG_WARNING, "block of 2 MiB", &line), 1, 2);
	assert_non_null(strstr(line, "EINVAL"));
	assert_int_equal(lines_with(HGM_LOG_INFO, "", &line), 0);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

static int64_t full_disk(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	(void)user;
	(void)buf;
	(void)length;
	(void)offset;
	return -ENOSPC;
}

static void snapshots_that_fail_are_told(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm_snapshot_opts opts = { .size = sizeof(opts), .write = full_disk };
	const char *line = NULL;
	struct hgm_snapshot *s;
	struct ram ram;
	struct hgm *h;

	(void)state;
	h = engine_heard((struct hgm_opts){ .fault_threads = 1, .log_level = HGM_LOG_WARNING });
	ram_make(&ram, h, BACKING_ANON, LENGTH, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, 30000));
	for (unsigned int i = 0; i < 2; i++) { /* one fails; one is cancelled and not logged */
		assert_ok(hgm_snapshot_create(&s, h, &opts));
		assert_ok(i ? hgm_snapshot_cancel(s) : hgm_snapshot_begin(s));
		assert_error(hgm_snapshot_wait(s, 30000), i ? -ECANCELED : -ENOSPC);
		hgm_snapshot_destroy(s);
		assert_int_equal(lines_with(HGM_LOG_WARNING, "snapshot failed: ENOSPC", &line), 1);
		assert_int_equal(lines(), 1);
	}
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

static void a_lesser_userfaultfd_is_told(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	const char *line = NULL;
	struct ram ram;
	struct hgm *h;

	(void)state;
	for (unsigned int lesser_one = 0; lesser_one < 2; lesser_one++) {
		if (lesser_one) {
			lesser.open = no_device;
			lesser.userfaultfd = user_mode_only;
		}
		h = engine_heard(
			(struct hgm_opts){ .fault_threads = 1, .flags = HGM_ALLOW_USER_MODE_ONLY });
		assert_int_equal(lines_with(HGM_LOG_WARNING, "user mode only", &line), lesser_one);
		ram_make(&ram, h, BACKING_ANON, LENGTH, provider_source(provider), 0);
		assert_int_equal(info_of(ram.region).user_mode_only, lesser_one);
		ram_end(&ram);
		hgm_destroy(h);
	}
	provider_free(provider);
}

static void options_are_checked(void **state)
{
	struct hgm_opts opts = { .size = sizeof(opts), .log = hear, .log_user = &heard };
	struct hgm *h;

	(void)state;
	opts.log_level = HGM_LOG_INFO + 1;
	assert_error(hgm_create(&h, &opts), -EINVAL);
	assert_int_equal(lines(), 0); /* a failed call reports to its caller only */
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(regions_say_what_they_are, make, end),
	cmocka_unit_test_setup_teardown(levels_are_kept, make, end),
	cmocka_unit_test_setup_teardown(failures_are_told_without_a_flood, make, end),
	cmocka_unit_test_setup_teardown(impossible_answers_are_told, make, end),
	cmocka_unit_test_setup_teardown(pages_that_stay_missing_are_told, make, end),
	cmocka_unit_test_setup_teardown(blocks_that_stay_split_are_told, make, end),
	cmocka_unit_test_setup_teardown(snapshots_that_fail_are_told, make, end),
	cmocka_unit_test_setup_teardown(a_lesser_userfaultfd_is_told, make, end),
	cmocka_unit_test_setup_teardown(options_are_checked, make, end),
};

TEST_MAIN(tests)
