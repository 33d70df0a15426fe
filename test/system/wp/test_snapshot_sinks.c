/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Snapshots to descriptors: files with holes, from which an engine restores lazily, files that held
 * something else, pipes, and full file systems. Also several regions at one instant.
 */
#include "snapshotting.h"
#include "kernel/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(4 * MIB + 37 * PAGE)
#define PAGES	(LENGTH / PAGE)

static const struct contents contents = { .seed = 57, .holes = true };

struct stage {
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	struct writers writers;
	char *want, *got;
};

static void stage_make(struct stage *st, enum backing backing)
{
	watch(backing_names[backing], 60);
	st->provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	st->h = engine(2);
	st->want = malloc(LENGTH);
	st->got = calloc(1, LENGTH);
	assert_non_null(st->want);
	assert_non_null(st->got);
	ram_make(&st->ram, st->h, backing, LENGTH, provider_source(st->provider), 0);
	assert_ok(hgm_start(st->h));
	assert_ok(hgm_wait(st->h, WAIT_MS));
	/* The other half keeps its holes. */
	writers_start(&st->writers, &contents, st->ram.addr, PAGES / 2);
	contents_write(&contents, PAGES / 2, PAGES - PAGES / 2, st->want + PAGES / 2 * PAGE);
}

static void stage_end(struct stage *st)
{
	writers_end(&st->writers);
	ram_end(&st->ram);
	hgm_destroy(st->h);
	provider_free(st->provider);
	free(st->want);
	free(st->got);
	calm();
}

static struct hgm_snapshot *begin(struct stage *st, int fd, uint64_t pool_bytes)
{
	struct hgm_snapshot *s = snapshot_of(
		st->h, &(struct hgm_snapshot_opts){ .fd = fd, .pool_bytes = pool_bytes });

	writers_begin(&st->writers, s, st->want);
	return s;
}

static void restored_from(int fd, const char *want)
{
	struct hgm_source *src;
	struct hgm *h = engine(1);
	struct ram ram;

	assert_ok(hgm_source_fd(&src, fd));
	ram_make(&ram, h, BACKING_ANON, LENGTH, src, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	for (uint64_t p = PAGES; p-- > 0;)
		assert_memory_equal(ram.addr + p * PAGE, want + p * PAGE, PAGE);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
}

static void to_files(void **state)
{
	char *junk = malloc(2 * LENGTH);

	(void)state;
	assert_non_null(junk);
	memset(junk, 0xee, 2 * LENGTH);
	for (unsigned int i = 0; i < 3; i++) {
		char path[] = "/tmp/hgm-snapshot-XXXXXX";
		bool stale = i == 1;
		struct hgm_snapshot_progress p;
		struct hgm_snapshot *s;
		struct stage st;
		struct stat stat;
		int fd = mkstemp(path);

		assert_true(fd >= 0);
		unlink(path);
		if (stale) /* longer than the snapshot */
			assert_int_equal(pwrite(fd, junk, 2 * LENGTH, 0), 2 * LENGTH);
		stage_make(&st, i == 2 ? BACKING_ANON : BACKING_SHMEM);
		s = begin(&st, fd, 0);
		assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		p = snapshot_progress(s);
		hgm_snapshot_destroy(s);
		assert_int_equal(fstat(fd, &stat), 0);
		assert_int_equal(stat.st_size, LENGTH);
		if (!stale)
			assert_true((uint64_t)stat.st_blocks * 512 <=
				    LENGTH - p.zero_bytes + 64 * 1024);
		assert_int_equal(pread(fd, st.got, LENGTH, 0), LENGTH);
		assert_same(st.got, st.want, PAGES, stale ? "a file with other contents" : "file");
		restored_from(fd, st.want);
		close(fd);
		stage_end(&st);
	}
	free(junk);
}

/* All memory is zero, so the file consists of a hole. */
static void of_zeroes(void **state)
{
	int fd = memfd_create("holes", MFD_CLOEXEC);
	struct hgm *h = engine(1);
	struct hgm_snapshot *s;
	struct hgm_source *src;
	struct stat stat;
	struct ram ram;
	char *empty = mmap(NULL, LENGTH, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_true(fd >= 0 && empty != MAP_FAILED);
	assert_ok(hgm_source_memory(&src, empty, LENGTH));
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	s = snapshot_of(h, &(struct hgm_snapshot_opts){ .fd = fd });
	assert_ok(hgm_snapshot_begin(s));
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	assert_int_equal(snapshot_progress(s).zero_bytes, LENGTH);
	hgm_snapshot_destroy(s);
	assert_int_equal(fstat(fd, &stat), 0);
	assert_int_equal(stat.st_size, LENGTH);
	assert_int_equal(stat.st_blocks, 0);
	close(fd);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	munmap(empty, LENGTH);
}

struct drain {
	int fd;
	char *to;
	uint64_t got;
	pthread_t thread;
};

static void *drain_pipe(void *arg)
{
	struct drain *d = arg;
	ssize_t n = 1;

	while (n > 0 && d->got < LENGTH) {
		n = read(d->fd, d->to + d->got, LENGTH - d->got);
		d->got += n > 0 ? (uint64_t)n : 0;
		nap_us(50);
	}
	return NULL;
}

static void to_a_pipe(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		bool closed = i == 1;
		struct hgm_snapshot *s;
		struct drain d;
		struct stage st;
		int fds[2];

		stage_make(&st, BACKING_SHMEM);
		assert_int_equal(pipe2(fds, i == 2 ? O_NONBLOCK : 0), 0);
		if (i == 2) /* the writing end only */
			assert_int_equal(fcntl(fds[0], F_SETFL, 0), 0);
		if (closed)
			close(fds[0]);
		s = begin(&st, fds[1], closed ? 0 : 100 * PAGE);
		d = (struct drain){ .fd = fds[0], .to = st.got };
		if (closed) { /* and the process lives on */
			assert_error(hgm_snapshot_wait(s, WAIT_MS), -EPIPE);
		} else {
			pthread_create(&d.thread, NULL, drain_pipe, &d);
			assert_ok(hgm_snapshot_wait(s, WAIT_MS));
			close(fds[1]);
			pthread_join(d.thread, NULL);
			assert_int_equal(d.got, LENGTH);
			assert_same(st.got, st.want, PAGES, "pipe");
			close(fds[0]);
		}
		hgm_snapshot_destroy(s);
		if (closed)
			close(fds[1]);
		stage_end(&st);
	}
}

/* A pipe that is not read keeps no thread waiting. */
static void cancelled_at_a_full_pipe(void **state)
{
	struct hgm_snapshot *s;
	struct pollfd pfd;
	struct stage st;
	int fds[2];

	(void)state;
	stage_make(&st, BACKING_SHMEM);
	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	pfd = (struct pollfd){ .fd = fds[1], .events = POLLOUT };
	s = begin(&st, fds[1], 0);
	while (poll(&pfd, 1, 0)) /* until the pipe takes no more */
		nap_us(100);
	assert_error(hgm_snapshot_wait(s, 10), -ETIMEDOUT);
	assert_ok(hgm_snapshot_cancel(s));
	assert_error(hgm_snapshot_wait(s, WAIT_MS), -ECANCELED);
	hgm_snapshot_destroy(s);
	close(fds[0]);
	close(fds[1]);
	stage_end(&st);
}

#define RATE	 (16 * MIB)
#define SLACK_US 10000

/* The calls of a sink that pauses for a while in the middle. */
struct pace {
	unsigned int calls;
	struct {
		uint64_t bytes, begun_us, ended_us;
	} call[4096];
};

static int64_t paced_sink(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	struct pace *pace = user;
	unsigned int i = pace->calls++;

	(void)buf;
	(void)offset;
	assert_true(i < 4096);
	pace->call[i].begun_us = now_us();
	if (i == 3)
		nap_us(200000);
	pace->call[i].bytes = length;
	pace->call[i].ended_us = now_us();
	return (int64_t)length;
}

/* After a pause of the sink, the snapshot does not go faster than the rate. */
static void the_rate_is_a_maximum(void **state)
{
	struct pace *pace = calloc(1, sizeof(*pace));
	struct hgm_snapshot *s;
	struct stage st;

	(void)state;
	assert_non_null(pace);
	stage_make(&st, BACKING_SHMEM);
	writers_pause(&st.writers); /* pages that are written to do not wait */
	s = snapshot_of(st.h, &(struct hgm_snapshot_opts){
				      .write = paced_sink, .user = pace, .rate_bytes = RATE });
	assert_ok(hgm_snapshot_begin(s));
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	writers_resume(&st.writers);
	assert_true(pace->calls > 8);
	for (unsigned int from = 1; from < pace->calls; from++) {
		uint64_t bytes = 0;

		for (unsigned int to = from + 1; to < pace->calls; to++) {
			uint64_t us = pace->call[to].begun_us - pace->call[from - 1].ended_us;

			bytes += pace->call[to - 1].bytes;
			/* Pages between two waits, up to 64, go together. */
			if (bytes > (us + SLACK_US + 1000) * RATE / 1000000 + 64 * PAGE)
				fail_msg("calls %u to %u: %llu KiB in %llu us", from, to - 1,
					 (unsigned long long)bytes >> 10, (unsigned long long)us);
		}
	}
	free(pace);
	stage_end(&st);
}

static const struct hgm_sys *kernel;
static unsigned int syncs;
static int sync_error;

static int counted_fsync(int fd)
{
	syncs++;
	return sync_error ? sync_error : kernel->fsync(fd);
}

static void synced_if_asked(void **state)
{
	static const int errors[] = { 0, -EIO };
	struct hgm_snapshot *s;
	struct hgm_sys sys;
	struct stage st;
	int fd;

	(void)state;
	kernel = hgm_sys;
	sys = *kernel;
	sys.fsync = counted_fsync;
	hgm_sys = &sys;
	stage_make(&st, BACKING_SHMEM);
	fd = memfd_create("synced", MFD_CLOEXEC);
	syncs = 0;
	s = begin(&st, fd, 0);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	assert_int_equal(syncs, 0);
	for (unsigned int i = 0; i < 2; i++) {
		sync_error = errors[i];
		s = snapshot_of(st.h, &(struct hgm_snapshot_opts){ .fd = fd,
								   .flags = HGM_SNAPSHOT_SYNC });
		assert_ok(hgm_snapshot_begin(s));
		if (errors[i])
			assert_error(hgm_snapshot_wait(s, WAIT_MS), errors[i]);
		else
			assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		hgm_snapshot_destroy(s);
		assert_int_equal(syncs, i + 1);
	}
	close(fd);
	stage_end(&st);
	hgm_sys = kernel;
}

/* Descriptors that fail when it is too late to refuse them. */
static void failing_descriptors(void **state)
{
	char dir[] = "/tmp/hgm-full-XXXXXX", path[64];
	struct hgm_snapshot *s;
	struct stage st;
	int fd;

	(void)state;
	stage_make(&st, BACKING_SHMEM);
	fd = memfd_create("closed", MFD_CLOEXEC);
	s = snapshot_of(st.h, &(struct hgm_snapshot_opts){ .fd = fd });
	close(fd);
	assert_ok(hgm_snapshot_begin(s));
	assert_error(hgm_snapshot_wait(s, WAIT_MS), -EBADF);
	hgm_snapshot_destroy(s);

	fd = open("/dev/null", O_WRONLY);
	s = begin(&st, fd, 0);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	close(fd);

	if (mkdtemp(dir) && !unshare(CLONE_NEWNS) &&
	    !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	    !mount("none", dir, "tmpfs", 0, "size=1m")) {
		snprintf(path, sizeof(path), "%s/file", dir);
		fd = open(path, O_RDWR | O_CREAT, 0600);
		s = begin(&st, fd, 0);
		assert_error(hgm_snapshot_wait(s, WAIT_MS), -ENOSPC);
		hgm_snapshot_destroy(s);
		close(fd);
		umount2(dir, MNT_DETACH);
	}
	rmdir(dir);
	stage_end(&st);
}

/* Each region is at its own place, and all are of one instant. The space between them is zero. */
static void several_regions(void **state)
{
	static const enum backing backings[] = { BACKING_ANON, BACKING_SHMEM, BACKING_SHMEM_LAZY };
	const uint64_t length = MIB + 13 * PAGE, at[] = { 6 * MIB, 3 * PAGE, 2 * MIB };
	const uint64_t end = at[0] + length;
	char *want = calloc(1, end), *got = calloc(1, end);
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, end);
	struct hgm *h = engine(2);
	struct writers writers[3];
	struct ram ram[3], later;
	struct hgm_snapshot *s;
	int fd = memfd_create("several", MFD_CLOEXEC);

	(void)state;
	watch("several regions", 60);
	assert_true(want && got && fd >= 0);
	assert_ok(hgm_start(h));
	for (unsigned int i = 0; i < 3; i++) {
		assert_ok(ram_try(&ram[i], h, backings[i], length, provider_source(provider), at[i],
				  0));
		writers_start(&writers[i], &contents, ram[i].addr, length / PAGE);
		writers[i].first_page = at[i] / PAGE;
	}
	s = snapshot_of(h, &(struct hgm_snapshot_opts){ .fd = fd });
	for (unsigned int i = 0; i < 3; i++) {
		writers_pause(&writers[i]);
		writers_expect(&writers[i], want + at[i]);
	}
	assert_ok(hgm_snapshot_begin(s));
	for (unsigned int i = 0; i < 3; i++)
		writers_resume(&writers[i]);
	/* This region comes too late. */
	assert_ok(ram_try(&later, h, BACKING_SHMEM, length, provider_source(provider), at[2], 0));
	memset(later.addr, 0x77, length);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	assert_int_equal(snapshot_progress(s).total_bytes, 3 * length);
	hgm_snapshot_destroy(s);
	assert_int_equal(pread(fd, got, end, 0), end);
	assert_int_equal(lseek(fd, 0, SEEK_END), end);
	assert_same(got, want, end / PAGE, "several");
	for (unsigned int i = 0; i < 3; i++) {
		writers_end(&writers[i]);
		ram_end(&ram[i]);
	}
	ram_end(&later);
	hgm_destroy(h);
	provider_free(provider);
	close(fd);
	free(want);
	free(got);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(to_files),
	cmocka_unit_test(of_zeroes),
	cmocka_unit_test(to_a_pipe),
	cmocka_unit_test(cancelled_at_a_full_pipe),
	cmocka_unit_test(the_rate_is_a_maximum),
	cmocka_unit_test(synced_if_asked),
	cmocka_unit_test(several_regions),
	cmocka_unit_test(failing_descriptors),
};

TEST_MAIN(tests)
