/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The caller's file is truncated while its contents arrive. A thread that touches memory behind the
 * end gets SIGBUS, and no other thread does. The pages behind the end are counted as given up and
 * reported, and all others arrive.
 */
#include "harness.h"
#include "kernel/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH	 (8 * MIB)
#define PAGES	 (LENGTH / PAGE)
#define WAIT_MS	 SMALLER(20000, 100000)
#define TOLD_MAX 4096

static const struct contents contents = { .seed = 26, .holes = true };

struct trial {
	struct hgm *h;
	struct ram ram;
	uint64_t kept; /* pages */
	pthread_mutex_t lock;
	char told[TOLD_MAX];
};

static struct trial trial;

static void note(void *user, enum hgm_log_level level, const char *text)
{
	(void)user;
	pthread_mutex_lock(&trial.lock);
	if (level == HGM_LOG_ERROR && !strstr(trial.told, "truncated"))
		snprintf(trial.told, sizeof(trial.told), "%s", text);
	pthread_mutex_unlock(&trial.lock);
}

static void truncate_file(void)
{
	/*
	 * Hugetlb files are truncated by huge pages. Other files are truncated in the middle of a
	 * page, which stays.
	 */
	bool huge = trial.ram.fd >= 0 && info_of(trial.ram.region).backing == HGM_BACKING_HUGETLB;
	uint64_t bytes = huge ? 4 * MIB : 3 * MIB + 7 * PAGE + 100;

	assert_int_equal(ftruncate(trial.ram.fd, (off_t)bytes), 0);
	trial.kept = (bytes + PAGE - 1) / PAGE;
}

static void begin(enum backing backing, struct hgm_source *src)
{
	watch(backing_names[backing], 100);
	pthread_mutex_init(&trial.lock, NULL);
	trial.told[0] = 0;
	trial.h = engine_with((struct hgm_opts){ .fault_threads = 1, .log = note });
	ram_make(&trial.ram, trial.h, backing, LENGTH, src, 0);
}

static bool is_told(void *arg)
{
	bool is;

	(void)arg;
	pthread_mutex_lock(&trial.lock);
	is = strstr(trial.told, "truncated");
	pthread_mutex_unlock(&trial.lock);
	return is;
}

/* A log line comes soon after what it reports. */
static void assert_told(enum backing backing, const char *what)
{
	if (!eventually(is_told, NULL, 5000))
		fail_msg("%s, %s: the log says '%s'", backing_names[backing], what, trial.told);
}

static void assert_given_up(enum backing backing, const char *what)
{
	uint64_t gone = PAGES - trial.kept;
	uint8_t value;
	int rc = hgm_wait(trial.h, WAIT_MS);

	if (rc != -EIO)
		fail_msg("%s, %s: hgm_wait() says %d: %s", backing_names[backing], what, rc,
			 hgm_errmsg());
	assert_non_null(strstr(hgm_errmsg(), "ENODATA"));
	assert_int_equal(info_of(trial.ram.region).poisoned_bytes, gone * PAGE);
	assert_int_equal(info_of(trial.ram.region).present_bytes, trial.kept * PAGE);
	assert_int_equal(progress_of(trial.h).failing_requests, 0);
	/* The rest of a page that is partly in the file is zero. */
	assert_pages(&contents, 0, trial.kept - 1, trial.ram.addr);
	assert_int_equal(touch(trial.ram.addr + trial.kept * PAGE, &value), SIGBUS);
	assert_int_equal(touch(trial.ram.addr + (PAGES - 1) * PAGE, &value), SIGBUS);
	assert_told(backing, what);
}

static void end(void)
{
	ram_end(&trial.ram);
	hgm_destroy(trial.h);
	calm();
}

static const enum backing backings[] = { BACKING_FD, BACKING_FD_LAZY, BACKING_MAPPING,
					 BACKING_MAPPING_LAZY, BACKING_FD_HUGETLB_2M };

#define EACH_BACKING(i)                                                     \
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) \
		if (!backing_lacking(backings[i], LENGTH))

/* Before the first page arrives, from each kind of source. */
static void before_it_arrives(void **state)
{
	(void)state;
	EACH_BACKING(i)
	{
		for (int kind = 0; kind < PROVIDER_KINDS; kind++) {
			struct provider *provider =
				provider_make((enum provider_kind)kind, &contents, LENGTH);

			begin(backings[i], provider_source(provider));
			truncate_file();
			assert_ok(hgm_start(trial.h));
			assert_given_up(backings[i], provider_names[kind]);
			end();
			provider_free(provider);
		}
	}
}

/* What Linux 7.3 says beyond the end of a file, where older kernels say EFAULT. */
static const struct hgm_sys *kernel;

static int reworded(int rc, int64_t *done)
{
	if (rc != -EFAULT)
		return rc;
	*done = -ENOMEM;
	return -ENOMEM;
}

static int reworded_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode,
			 int64_t *done)
{
	return reworded(kernel->uffd_copy(fd, dst, src, len, mode, done), done);
}

static int reworded_zeropage(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return reworded(kernel->uffd_zeropage(fd, addr, len, mode, done), done);
}

static void as_linux_7_3_says_it(void **state)
{
	static struct hgm_sys sys;

	kernel = hgm_sys;
	sys = *kernel;
	sys.uffd_copy = reworded_copy;
	sys.uffd_zeropage = reworded_zeropage;
	hgm_sys = &sys;
	before_it_arrives(state);
	hgm_sys = kernel;
}

/* While the source is at work, so that there is no place for its answer. */
static struct {
	uint64_t cut_at;      /* page */
	pthread_mutex_t lock; /* no later page arrives before it is cut */
	bool is_cut;
} cutting = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int64_t cut(void *user, const struct hgm_io *io)
{
	uint64_t page = io->offset / PAGE, pages = io->length / PAGE;

	(void)user;
	if (page + pages > cutting.cut_at) {
		pthread_mutex_lock(&cutting.lock);
		if (!cutting.is_cut)
			truncate_file();
		cutting.is_cut = true;
		pthread_mutex_unlock(&cutting.lock);
	}
	contents_write(&contents, page, pages, io->buf);
	return (int64_t)io->length;
}

static void while_it_arrives(void **state)
{
	(void)state;
	EACH_BACKING(i)
	{
		struct hgm_source *src;

		assert_ok(hgm_source_fn(&src, cut, NULL, NULL));
		begin(backings[i], src);
		cutting.cut_at = 1000; /* behind the new end, or nearly so */
		cutting.is_cut = false;
		assert_ok(hgm_start(trial.h));
		assert_int_equal(hgm_wait(trial.h, WAIT_MS), -EIO);
		assert_true(info_of(trial.ram.region).poisoned_bytes >= LENGTH / 4);
		assert_pages(&contents, 0, trial.kept - 1, trial.ram.addr);
		assert_told(backings[i], "while it arrives");
		end();
		hgm_source_destroy(src);
	}
}

/* A thread that waits for a page gets the signal that it would get without the library. */
static void while_somebody_waits(void **state)
{
	(void)state;
	EACH_BACKING(i)
	{
		struct provider *provider = provider_make(PROVIDER_NEVER, &contents, LENGTH);
		struct waiter waiter;

		begin(backings[i], provider_source(provider));
		assert_ok(hgm_start(trial.h));
		waiter_start(&waiter, trial.ram.addr + (PAGES - 1) * PAGE);
		while (!provider_kept(provider))
			nap_us(1000);
		truncate_file();
		provider_answer_below(provider, PAGES);
		provider_give(provider);
		waiter_join(&waiter);
		assert_int_equal(waiter.signal, SIGBUS);
		assert_given_up(backings[i], "somebody waits");
		end();
		provider_free(provider);
	}
}

/*
 * The file is as long again as it was. hgm_region_retry() requests the pages that can now arrive.
 */
static void grown_again(void **state)
{
	(void)state;
	EACH_BACKING(i)
	{
		struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);

		begin(backings[i], provider_source(provider));
		truncate_file();
		assert_ok(hgm_start(trial.h));
		assert_given_up(backings[i], "before it grows");
		assert_int_equal(ftruncate(trial.ram.fd, LENGTH), 0);
		assert_ok(hgm_region_retry(trial.ram.region));
		assert_ok(hgm_wait(trial.h, WAIT_MS));
		assert_int_equal(info_of(trial.ram.region).poisoned_bytes, 0);
		assert_pages(&contents, 0, trial.kept - 1, trial.ram.addr);
		end();
		provider_free(provider);
	}
}

/* A sealed file cannot be truncated, and its contents are not copied once more for that. */
static void sealed(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm_region_opts o = { .size = sizeof(o),
				     .length = LENGTH,
				     .source = provider_source(provider),
				     .backing = HGM_BACKING_FD };
	struct hgm_region *r;
	struct hgm *h = engine(1);

	(void)state;
	watch("a sealed file", 60);
	o.fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(o.fd, LENGTH), 0);
	assert_int_equal(fcntl(o.fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_ok(hgm_region_create(&r, h, &o));
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&contents, 0, PAGES, hgm_region_addr(r));
	assert_int_equal(ftruncate(o.fd, PAGE), -1);
	hgm_destroy(h);
	close(o.fd);
	provider_free(provider);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(before_it_arrives), cmocka_unit_test(as_linux_7_3_says_it),
	cmocka_unit_test(while_it_arrives),  cmocka_unit_test(while_somebody_waits),
	cmocka_unit_test(grown_again),	     cmocka_unit_test(sealed),
};

TEST_MAIN(tests)
