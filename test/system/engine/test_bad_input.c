/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mistakes of callers. Each gets the errno that the header promises, and a text. Nothing is left
 * behind, and the engine continues to serve.
 */
#include "harness.h"
#include "kernel/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct contents contents = { .seed = 8 };
static struct provider *provider;
static struct hgm *h;

static int64_t never_read(void *user, const struct hgm_io *io)
{
	(void)user;
	(void)io;
	return -EIO;
}

static int make(void **state)
{
	(void)state;
	watch("bad input", 100);
	provider = provider_make(PROVIDER_NOW, &contents, 64 * MIB);
	h = engine(1);
	assert_ok(hgm_start(h));
	return 0;
}

static void still_serves(void)
{
	struct ram ram;
	uint8_t value;

	ram_make(&ram, h, BACKING_SHMEM, 2 * MIB, provider_source(provider), 0);
	assert_int_equal(touch(ram.addr + 77 * PAGE, &value), 0);
	assert_pages(&contents, 0, ram.length / PAGE, ram.addr);
	assert_ok(hgm_wait(h, 20000));
	ram_end(&ram);
}

static int end(void **state)
{
	(void)state;
	hgm_destroy(h);
	provider_free(provider);
	calm();
	return 0;
}

static struct hgm_region_opts good(void)
{
	return (struct hgm_region_opts){ .size = sizeof(struct hgm_region_opts),
					 .length = 4 * MIB,
					 .source = provider_source(provider),
					 .backing = HGM_BACKING_SHMEM,
					 .fd = -1 };
}

static void refused(const char *what, const struct hgm_region_opts *o, int want)
{
	struct hgm_region *const untouched = (struct hgm_region *)-1L;
	struct hgm_region *r = untouched;
	struct holdings before = take_holdings();
	int rc;

	hgm_fail(0, "%s", "");
	rc = hgm_region_create(&r, h, o);
	if (rc != want)
		fail_msg("%s: %d instead of %d: %s", what, rc, want, hgm_errmsg());
	if (strlen(hgm_errmsg()) < 20)
		fail_msg("%s: says only '%s'", what, hgm_errmsg());
	assert_ptr_equal(r, untouched);
	assert_same_holdings(&before);
}

#define POOL_1G "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"

#define REFUSED(want, ...)                         \
	do {                                       \
		struct hgm_region_opts o = good(); \
		__VA_ARGS__;                       \
		refused(#__VA_ARGS__, &o, want);   \
	} while (0)

static void warm_up(void)
{
	for (int i = 0; i < 3; i++)
		still_serves();
}

static void lengths_and_offsets(void **state)
{
	(void)state;
	warm_up();
	REFUSED(-EINVAL, o.length = 0);
	REFUSED(-EINVAL, o.length = 1);
	REFUSED(-EINVAL, o.length = 4 * MIB + 1);
	REFUSED(-EINVAL, o.length = PAGE / 2);
	REFUSED(-EINVAL, o.length = UINT64_MAX);
	REFUSED(-EINVAL, o.length = UINT64_MAX & ~(PAGE - 1));
	REFUSED(-EINVAL, o.length = UINT64_C(1) << 63);
	REFUSED(-EINVAL, o.source_offset = 1);
	REFUSED(-EINVAL, o.source_offset = PAGE + 512);
	REFUSED(-EINVAL, o.source_offset = UINT64_MAX & ~(PAGE - 1));
	REFUSED(-EINVAL, o.length = 64 * MIB + PAGE);
	REFUSED(-EINVAL, o.source_offset = 64 * MIB - PAGE);
	REFUSED(-EINVAL, o.block_bytes = PAGE);
	REFUSED(-EINVAL, o.block_bytes = GIB);
	REFUSED(-EINVAL, o.block_bytes = 3 * MIB);
	REFUSED(-EINVAL, o.backing = HGM_BACKING_HUGETLB; o.length = 4 * MIB + PAGE);
	REFUSED(-EINVAL, o.backing = HGM_BACKING_HUGETLB; o.block_bytes = 4 * MIB);
	REFUSED(-EINVAL, o.backing = HGM_BACKING_HUGETLB; o.block_bytes = GIB);
	still_serves();
}

/* The source has no length, so only the region's own limits apply. */
static void lengths_that_no_memory_has(void **state)
{
	struct hgm_source *endless;

	(void)state;
	warm_up();
	assert_ok(hgm_source_fn(&endless, never_read, NULL, NULL));
	REFUSED(-ENOMEM, o.source = endless; o.length = (UINT64_C(1) << 62));
	REFUSED(-ENOMEM, o.source = endless; o.length = INT64_MAX & ~(PAGE - 1);
		o.backing = HGM_BACKING_ANON);
	/* There are addresses for it, but no pages. No process must be killed for that. */
	REFUSED(-ENOMEM, o.source = endless; o.length = UINT64_C(8) << 40);
	REFUSED(-EINVAL, o.source = endless; o.length = UINT64_MAX & ~(PAGE - 1));
	REFUSED(-EINVAL, o.source = endless; o.length = 4 * MIB;
		o.source_offset = INT64_MAX & ~(PAGE - 1));
	hgm_source_destroy(endless);
	still_serves();
}

static void sizes_flags_and_pointers(void **state)
{
	struct {
		struct hgm_region_opts known;
		uint64_t newer;
	} big = { .known = good() };
	struct hgm_region_opts opts = good();
	struct hgm_region *r;
	struct hgm *other;

	(void)state;
	warm_up();
	REFUSED(-EINVAL, o.size = 0);
	REFUSED(-EINVAL, o.size = 8);
	REFUSED(-EINVAL, o.size--);
	REFUSED(-EINVAL, o.size = UINT32_MAX);
	big.known.size = sizeof(big);
	big.newer = 1;
	assert_error(hgm_region_create(&r, h, &big.known), -E2BIG);
	big.newer = 0;
	assert_ok(hgm_region_create(&r, h, &big.known));
	hgm_region_destroy(r);
	REFUSED(-EINVAL, o.source = NULL);
	REFUSED(-EINVAL, o.flags = 0x80000000u);
	REFUSED(-EINVAL, o.flags = HGM_REGION_LAZY);
	REFUSED(-EINVAL, o.backing = 7);
	REFUSED(-EINVAL, o.backing = UINT32_MAX);
	REFUSED(-EINVAL, o.reserved = 1);
	REFUSED(-EINVAL, o.addr = &r);
	assert_error(hgm_region_create(NULL, h, &opts), -EINVAL);
	assert_error(hgm_region_create(&r, NULL, &opts), -EINVAL);
	assert_error(hgm_region_create(&r, h, NULL), -EINVAL);

	assert_error(hgm_create(NULL, NULL), -EINVAL);
	assert_error(hgm_create(&other, &(struct hgm_opts){ .size = 3 }), -EINVAL);
	assert_error(hgm_create(&other, &(struct hgm_opts){ .size = sizeof(struct hgm_opts),
							    .flags = 0x80 }),
		     -EINVAL);
	assert_error(hgm_create(&other, &(struct hgm_opts){ .size = sizeof(struct hgm_opts),
							    .fault_threads = 65 }),
		     -EINVAL);
	assert_error(hgm_create(&other, &(struct hgm_opts){ .size = sizeof(struct hgm_opts),
							    .workers = 65 }),
		     -EINVAL);
	assert_error(hgm_create(&other, &(struct hgm_opts){ .size = sizeof(struct hgm_opts),
							    .collapse_threads = 17 }),
		     -EINVAL);
	assert_error(hgm_create(&other, &(struct hgm_opts){ .size = sizeof(struct hgm_opts),
							    .spin_us = 1000001 }),
		     -EINVAL);
	assert_error(hgm_start(h), -EALREADY);
	assert_error(hgm_start(NULL), -EINVAL);
	assert_error(hgm_wait(NULL, 0), -EINVAL);
	assert_error(hgm_get_progress(h, NULL), -EINVAL);
	assert_error(hgm_get_progress(h, &(struct hgm_progress){ .size = 1 }), -EINVAL);
	assert_error(hgm_get_stats(h, &(struct hgm_stats){ .size = 1 }), -EINVAL);
	hgm_region_destroy(NULL);
	hgm_destroy(NULL);
	hgm_source_destroy(NULL);
	assert_ok(hgm_create(&other, NULL));
	assert_error(hgm_wait(other, 0), -EINVAL); /* not started */
	hgm_destroy(other);
	still_serves();
}

static void files(void **state)
{
	int memfd = memfd_create("test", MFD_CLOEXEC);
	char path[64];
	char name[] = "/var/tmp/hgm-XXXXXX"; /* /tmp may be a tmpfs, which is suitable */
	int disk = mkostemp(name, O_CLOEXEC);
	int ro, gone, pipes[2];

	(void)state;
	warm_up();
	assert_int_equal(ftruncate(memfd, (off_t)(4 * MIB)), 0);
	assert_true(disk >= 0);
	assert_int_equal(unlink(name), 0);
	assert_int_equal(ftruncate(disk, (off_t)(4 * MIB)), 0);
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", memfd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(ro >= 0);
	gone = dup(ro);
	close(gone);
	REFUSED(-EBADF, o.backing = HGM_BACKING_FD; o.fd = ro);
	REFUSED(-EBADF, o.backing = HGM_BACKING_FD; o.fd = gone);
	REFUSED(-EBADF, o.backing = HGM_BACKING_FD; o.fd = -1);
	REFUSED(-EINVAL, o.backing = HGM_BACKING_FD; o.fd = disk);
	REFUSED(-EINVAL, o.backing = HGM_BACKING_FD; o.fd = memfd; o.length = 4 * MIB + PAGE);
	REFUSED(-EINVAL, o.backing = HGM_BACKING_FD; o.fd = memfd; o.fd_offset = PAGE / 2;
		o.length = MIB);
	REFUSED(-EINVAL, o.backing = HGM_BACKING_FD; o.fd = memfd; o.fd_offset = 4 * MIB);
	REFUSED(-EINVAL, o.backing = HGM_BACKING_FD; o.fd = memfd;
		o.fd_offset = UINT64_MAX & ~(2 * MIB - 1));
	REFUSED(-EINVAL, o.backing = HGM_BACKING_FD; o.fd = memfd; o.block_bytes = GIB);
	/* A pipe can be read or written, never both. */
	REFUSED(-EBADF, o.backing = HGM_BACKING_FD; o.fd = pipes[0]);
	close(pipes[0]);
	close(pipes[1]);
	close(ro);
	close(memfd);
	close(disk);
	still_serves();
}

static void sources(void **state)
{
	struct hgm_source *src = NULL;
	struct hgm_source_fn_opts o = { .size = sizeof(o), .flags = 2 };
	int memfd = memfd_create("test", MFD_CLOEXEC);
	struct holdings before = take_holdings();
	struct hgm_region *r;
	uint8_t byte = 0;
	int wo;
	char path[64];

	(void)state;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", memfd);
	assert_error(hgm_source_file(&src, "/nonexistent/file"), -ENOENT);
	assert_error(hgm_source_file(&src, NULL), -EINVAL);
	assert_error(hgm_source_file(NULL, path), -EINVAL);
	assert_error(hgm_source_file(&src, "/tmp"), -EINVAL);
	assert_error(hgm_source_file(&src, "/dev/null"), -EINVAL);
	assert_error(hgm_source_fd(&src, memfd), -EINVAL); /* empty */
	assert_error(hgm_source_fd(&src, -1), -EBADF);
	assert_error(hgm_source_fd(&src, 987654), -EBADF);
	wo = open(path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(ftruncate(memfd, 5000), 0);
	assert_error(hgm_source_fd(&src, wo), -EBADF);
	close(wo);
	assert_error(hgm_source_memory(&src, NULL, 1), -EINVAL);
	assert_error(hgm_source_memory(&src, &byte, 0), -EINVAL);
	assert_error(hgm_source_memory(&src, &byte, UINT64_MAX), -EINVAL);
	assert_error(hgm_source_memory(NULL, &byte, 1), -EINVAL);
	assert_error(hgm_source_fn(&src, NULL, NULL, NULL), -EINVAL);
	assert_error(hgm_source_fn(&src, never_read, NULL, &o), -EINVAL);
	o.flags = 0;
	o.size = 1;
	assert_error(hgm_source_fn(&src, never_read, NULL, &o), -EINVAL);
	assert_null(src);

	/* A file that is shorter than its region, even if only by a part of a page. */
	assert_ok(hgm_source_fd(&src, memfd));
	assert_error(
		hgm_region_create(&r, h,
				  &(struct hgm_region_opts){ .size = sizeof(struct hgm_region_opts),
							     .source = src,
							     .length = 2 * PAGE }),
		-EINVAL);
	assert_ok(hgm_region_create(
		&r, h,
		&(struct hgm_region_opts){
			.size = sizeof(struct hgm_region_opts), .source = src, .length = PAGE }));
	hgm_source_destroy(src);
	hgm_region_destroy(r);
	assert_int_equal(take_holdings().descriptors, before.descriptors);
	close(memfd);
	still_serves();
}

static void calls_on_a_region(void **state)
{
	uint64_t bitmap[64] = { 0 };
	struct ram ram;

	(void)state;
	ram_make(&ram, h, BACKING_SHMEM, 2 * MIB, provider_source(provider), HGM_REGION_NO_FILL);
	assert_error(hgm_region_prefetch(ram.region, 0, 0), -EINVAL);
	assert_error(hgm_region_prefetch(ram.region, 2 * MIB, 1), -EINVAL);
	assert_error(hgm_region_prefetch(ram.region, 2 * MIB - 1, 2), -EINVAL);
	assert_error(hgm_region_prefetch(ram.region, 1, UINT64_MAX), -EINVAL);
	assert_error(hgm_region_export(ram.region, 1, 1, bitmap), -EINVAL);
	assert_error(hgm_region_export(ram.region, 0, 513, bitmap), -EINVAL);
	assert_error(hgm_region_export(ram.region, 512, 1, bitmap), -EINVAL);
	assert_error(hgm_region_export(ram.region, 64, UINT64_MAX, bitmap), -EINVAL);
	assert_error(hgm_region_export(ram.region, 0, 64, NULL), -EINVAL);
	assert_error(hgm_region_import(ram.region, 0, 64, bitmap), -EOPNOTSUPP);
	assert_error(hgm_region_import(ram.region, 3, 64, bitmap), -EINVAL);
	assert_error(hgm_region_get_info(ram.region, NULL), -EINVAL);
	assert_error(hgm_region_get_info(ram.region, &(struct hgm_region_info){ .size = 1 }),
		     -EINVAL);
	ram_end(&ram);
	ram_make(&ram, h, BACKING_FD, 2 * MIB, provider_source(provider), HGM_REGION_NO_FILL);
	assert_error(hgm_region_import(ram.region, 0, 64, bitmap), -EBUSY);
	assert_ok(hgm_region_collapse(ram.region)); /* nothing is left to do */
	ram_end(&ram);
	ram_make(&ram, h, BACKING_SHMEM, 2 * MIB, provider_source(provider),
		 HGM_REGION_NO_COLLAPSE);
	assert_error(hgm_region_collapse(ram.region), -EOPNOTSUPP);
	ram_end(&ram);
	still_serves();
}

/* No thread takes the ranges away before the engine is started. */
static void too_many_ranges(void **state)
{
	struct hgm *idle = engine(1);
	unsigned int n = 0;
	struct ram ram;

	(void)state;
	ram_make(&ram, idle, BACKING_SHMEM_LAZY, 2 * MIB, provider_source(provider),
		 HGM_REGION_NO_FILL);
	while (n < 4096)
		assert_ok(hgm_region_prefetch(ram.region, n++ % 512 * PAGE, PAGE));
	assert_error(hgm_region_prefetch(ram.region, 0, PAGE), -ENOBUFS);
	assert_ok(hgm_start(idle));
	assert_ok(hgm_wait(idle, 60000));
	assert_int_equal(info_of(ram.region).present_bytes, 2 * MIB);
	assert_ok(hgm_region_prefetch(ram.region, 0, PAGE));
	assert_ok(hgm_wait(idle, 60000));
	ram_end(&ram);
	hgm_destroy(idle);
}

/* More than the pool has gives an errno and the number that is needed, not a SIGBUS later. */
static void no_huge_pages(void **state)
{
	struct hgm_source *endless;
	struct hgm_region_opts o = good();
	struct hgm_region *r;
	int pool;

	(void)state;
	warm_up();
	assert_ok(hgm_source_fn(&endless, never_read, NULL, NULL));
	o.source = endless;
	o.backing = HGM_BACKING_HUGETLB;
	o.length = 1024 * GIB;
	refused("1 TiB of 2 MiB pages", &o, -ENOMEM);
	assert_error(hgm_region_create(&r, h, &o), -ENOMEM);
	assert_non_null(strstr(hgm_errmsg(), "nr_hugepages"));
	o.block_bytes = GIB;
	pool = hgm_sys->open(POOL_1G, O_RDONLY);
	refused("1 TiB of 1 GiB pages", &o, pool < 0 ? -ENODEV : -ENOMEM);
	if (pool >= 0)
		hgm_sys->close(pool);
	hgm_source_destroy(endless);
	still_serves();
}

/* Runs in a child without privilege. The result becomes its exit code. */
static int without_userfaultfd(void)
{
	struct hgm *mine;
	int rc;

	if (setgid(65534) || setuid(65534))
		return 77;
	rc = hgm_create(&mine, NULL);
	if (!rc)
		return 77; /* this system allows it to all users */
	if (rc != -EPERM && rc != -EACCES)
		return 2;
	if (!strstr(hgm_errmsg(), "/dev/userfaultfd") || !strstr(hgm_errmsg(), "unprivileged"))
		return 3;
	rc = hgm_create(&mine, &(struct hgm_opts){ .size = sizeof(struct hgm_opts),
						   .flags = HGM_ALLOW_USER_MODE_ONLY });
	if (rc)
		return 4;
	hgm_destroy(mine);
	return 0;
}

static void no_permission(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	if (geteuid())
		test_skip("only root can give privileges up");
	pid = fork();
	if (!pid)
		_exit(without_userfaultfd());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		test_skip("userfaultfd is open to everybody here, or the user cannot be changed");
	assert_int_equal(WEXITSTATUS(status), 0);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(lengths_and_offsets, make, end),
	cmocka_unit_test_setup_teardown(lengths_that_no_memory_has, make, end),
	cmocka_unit_test_setup_teardown(sizes_flags_and_pointers, make, end),
	cmocka_unit_test_setup_teardown(files, make, end),
	cmocka_unit_test_setup_teardown(sources, make, end),
	cmocka_unit_test_setup_teardown(calls_on_a_region, make, end),
	cmocka_unit_test_setup_teardown(too_many_ranges, make, end),
	cmocka_unit_test_setup_teardown(no_huge_pages, make, end),
	cmocka_unit_test(no_permission),
};

TEST_MAIN(tests)
