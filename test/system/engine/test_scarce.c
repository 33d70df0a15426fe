/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Processes that lack resources: without standard descriptors, or with very few descriptors or
 * addresses. A call that cannot get what it needs is refused with an errno and a text, and nothing
 * ends the process. Each case runs in a child process, whose exit status tells the line that
 * failed. This test is not for sanitizers, which need addresses and descriptors of their own.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LENGTH	(2 * MIB)
#define FD_MAX	40 /* far more than an engine of one thread and a region need */
#define AS_STEP ((uint64_t)SMALLER(512, 8192) << 10) /* bytes */
#define AS_MAX	(512 * MIB) /* more than a region and its bounce buffers need */

#define EXIT_REFUSED 1
#define EXIT_LINE    20 /* and more: the line minus this, so that it fits a byte */

#define require(what)                                \
	do {                                         \
		if (!(what))                         \
			_exit(__LINE__ - EXIT_LINE); \
	} while (0)

static unsigned char contents[LENGTH];

/*
 * Runs an engine from its creation to its end. Returns 0 if the contents are right, or the first
 * errno.
 */
static int restore(void)
{
	struct hgm_opts opts = { .size = sizeof(opts), .fault_threads = 1, .workers = 1 };
	struct hgm_region_opts ro = { .size = sizeof(ro),
				      .length = LENGTH,
				      .backing = HGM_BACKING_SHMEM_LAZY };
	struct hgm_region *r;
	struct hgm *h;
	int rc;

	rc = hgm_create(&h, &opts);
	if (rc)
		return rc;
	rc = hgm_source_memory(&ro.source, contents, LENGTH);
	if (rc) {
		hgm_destroy(h);
		return rc;
	}
	rc = hgm_region_create(&r, h, &ro);
	if (!rc)
		rc = hgm_start(h);
	if (!rc) {
		require(!memcmp(hgm_region_addr(r), contents, LENGTH));
		rc = hgm_wait(h, 60000);
	}
	hgm_destroy(h);
	hgm_source_destroy(ro.source);
	return rc;
}

static int capabilities(void)
{
	struct hgm_caps *caps;
	int rc = hgm_caps_probe(&caps, 0);

	if (!rc)
		hgm_caps_free(caps);
	return rc;
}

/* False: the child was refused what it needed, in the proper way. */
static bool in_child(void (*child)(void))
{
	int status;
	pid_t pid;

	for (size_t i = 0; i < LENGTH; i++)
		contents[i] = (unsigned char)(i / PAGE + i % 249);
	fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		alarm(60 * slowness());
		child();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		fail_msg("ended by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status) && WEXITSTATUS(status) != EXIT_REFUSED)
		fail_msg("line %d", WEXITSTATUS(status) + EXIT_LINE);
	return !WEXITSTATUS(status);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* Text that the process prints by mistake must not go to guest memory or to an eventfd. */
static void without_stdio(void)
{
	struct hgm_opts opts = { .size = sizeof(opts), .fault_threads = 1, .workers = 1 };
	struct hgm_region_opts ro = { .size = sizeof(ro), .length = LENGTH };
	enum hgm_backing backings[] = { HGM_BACKING_SHMEM, HGM_BACKING_SHMEM_LAZY,
					HGM_BACKING_ANON };
	struct hgm_region *r;
	struct hgm_uffd *u;
	struct hgm *h;

	for (int fd = 0; fd <= 2; fd++)
		close(fd);
	require(!capabilities());
	require(!hgm_uffd_open(&u, NULL));
	require(hgm_uffd_fd(u) > 2);
	hgm_uffd_close(u);
	require(!hgm_create(&h, &opts));
	require(hgm_event_fd(h) > 2);
	require(!hgm_source_file(&ro.source, "/proc/self/exe"));
	hgm_source_destroy(ro.source);
	require(!hgm_source_memory(&ro.source, contents, LENGTH));
	require(!hgm_start(h));
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		ro.backing = backings[i];
		require(!hgm_region_create(&r, h, &ro));
		for (int fd = 0; fd <= 2; fd++)
			require(!is_open(fd));
		require(!memcmp(hgm_region_addr(r), contents, LENGTH));
	}
	require(!hgm_wait(h, 60000));
	hgm_destroy(h);
	hgm_source_destroy(ro.source);
}

static void no_stdio(void **state)
{
	(void)state;
	assert_true(in_child(without_stdio));
}

static void with_few_descriptors(void)
{
	unsigned int refused = 0;
	int rc = -1;

	require(!restore()); /* opens what stays open for good */
	for (rlim_t n = 0; n < FD_MAX; n++) {
		struct rlimit limit = { n, FD_MAX };

		require(!setrlimit(RLIMIT_NOFILE, &limit));
		hgm_fail(0, "%s", "");
		rc = restore();
		require(!rc || rc == -EMFILE);
		require(!rc || strlen(hgm_errmsg()) > 20);
		require(!capabilities());
		refused += !!rc;
		/* No descriptor was left open. */
		for (int fd = 3; fd < FD_MAX; fd++)
			require(!is_open(fd));
	}
	require(refused && !rc);
}

static void close_all(void)
{
	for (int fd = 3; fd < 1000; fd++)
		close(fd);
	with_few_descriptors();
}

static void few_descriptors(void **state)
{
	(void)state;
	assert_true(in_child(close_all));
}

static uint64_t address_bytes(void)
{
	unsigned long long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	require(file && fscanf(file, "%llu", &pages) == 1);
	fclose(file);
	return pages * PAGE;
}

static rlim_t addresses; /* of the child */

/* The first engine of a process, which also starts what liburcu needs. */
static void first_with_few_addresses(void)
{
	struct rlimit limit = { addresses, RLIM_INFINITY };
	int rc;

	require(!setrlimit(RLIMIT_AS, &limit));
	rc = restore();
	require(!rc || rc == -ENOMEM || rc == -EAGAIN);
	require(!rc || strlen(hgm_errmsg()) > 20);
	_exit(rc ? EXIT_REFUSED : 0);
}

static void with_few_addresses(void)
{
	unsigned int refused = 0;
	uint64_t have;
	int rc = -1;

	require(!restore());
	have = address_bytes();
	for (uint64_t more = 0; more < AS_MAX && rc; more += AS_STEP) {
		struct rlimit limit = { have + more, RLIM_INFINITY };

		require(!setrlimit(RLIMIT_AS, &limit));
		hgm_fail(0, "%s", "");
		rc = restore();
		require(!rc || rc == -ENOMEM || rc == -EAGAIN);
		require(!rc || strlen(hgm_errmsg()) > 20);
		refused += !!rc;
	}
	require(refused > 2 && !rc);
	/* Nothing is left of what was refused. */
	require(!restore());
	require(!capabilities());
}

static void few_addresses(void **state)
{
	(void)state;
	assert_true(in_child(with_few_addresses));
}

static void few_addresses_from_the_first(void **state)
{
	unsigned int refused = 0;
	bool had = false;

	(void)state;
	for (uint64_t more = 0; more < AS_MAX && !had; more += 8 * AS_STEP) {
		addresses = address_bytes() + more;
		had = in_child(first_with_few_addresses);
		refused += !had;
	}
	assert_true(had);
	assert_uint_in_range(refused, 3, UINT_MAX);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(no_stdio),
	cmocka_unit_test(few_descriptors),
	cmocka_unit_test(few_addresses),
	cmocka_unit_test(few_addresses_from_the_first),
};

TEST_MAIN(tests)
