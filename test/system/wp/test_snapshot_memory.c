/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a snapshot reads from the memory itself. Holes are zero and are not allocated. Memory that
 * cannot be read is reported, and is never taken for zero.
 */
#include "snapshotting.h"
#include "kernel/sys.h"
#include "pager/events.h"
#include "region/hgm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(4 * MIB)
#define PAGES	(LENGTH / PAGE)

static const struct contents contents = { .seed = 71 };

/*
 * The kernel, except for reads that reach one page of guest memory, and for a path that cannot be
 * opened.
 */
static const struct hgm_sys *kernel;
static struct hgm_sys sys;

static struct {
	_Atomic int fd; /* reads of it fail if they reach @offset; -1: none */
	_Atomic uint64_t offset;
	_Atomic int error;
	_Atomic unsigned int failed;
	const char *unopenable;
} bad;

static ssize_t bad_pread(int fd, void *buf, size_t len, uint64_t offset)
{
	if (fd != bad.fd || offset > bad.offset || offset + len <= bad.offset)
		return kernel->pread(fd, buf, len, offset);
	if (offset < bad.offset)
		return kernel->pread(fd, buf, bad.offset - offset, offset);
	atomic_fetch_add(&bad.failed, 1);
	return bad.error;
}

static int bad_open(const char *path, int flags)
{
	if (bad.unopenable && !strcmp(path, bad.unopenable))
		return -EACCES;
	return kernel->open(path, flags);
}

static int begin(void **state)
{
	(void)state;
	bad.unopenable = NULL;
	atomic_store(&bad.failed, 0);
	atomic_store(&bad.fd, -1);
	kernel = hgm_sys;
	sys = *kernel;
	sys.pread = bad_pread;
	sys.open = bad_open;
	hgm_sys = &sys;
	return 0;
}

static int end(void **state)
{
	(void)state;
	hgm_sys = kernel;
	return 0;
}

/* The number of bytes of a region's memory that are allocated. */
static uint64_t allocated(const struct ram *ram)
{
	uint64_t bytes = 0, entry;
	struct stat st;
	int pagemap;

	if (ram->region->fd >= 0) {
		assert_int_equal(fstat(ram->region->fd, &st), 0);
		return (uint64_t)st.st_blocks * 512;
	}
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	assert_true(pagemap >= 0);
	for (uint64_t p = 0; p < ram->length / PAGE; p++) {
		off_t at = (off_t)(((uintptr_t)ram->addr / PAGE + p) * 8);

		assert_int_equal(pread(pagemap, &entry, 8, at), 8);
		bytes += entry >> 62 ? PAGE : 0;
	}
	close(pagemap);
	return bytes;
}

static void discard(const struct ram *ram, uint64_t page, uint64_t pages)
{
	if (ram->region->fd < 0)
		assert_int_equal(madvise(ram->addr + page * PAGE, pages * PAGE, MADV_DONTNEED), 0);
	else
		assert_int_equal(fallocate(ram->region->fd,
					   FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					   (off_t)(page * PAGE), (off_t)(pages * PAGE)),
				 0);
}

/* The snapshot equals the memory, and all of it was read. */
static void take_one(struct hgm *h, const char *want, const char *what)
{
	struct sink sink = { 0 };
	struct hgm_snapshot *s;

	sink_clear(&sink, LENGTH);
	s = snapshot_of(h, &(struct hgm_snapshot_opts){ .write = sink_write, .user = &sink });
	assert_ok(hgm_snapshot_begin(s));
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	assert_int_equal(snapshot_progress(s).unreadable_bytes, 0);
	hgm_snapshot_destroy(s);
	assert_same(sink.got, want, PAGES, what);
	free(sink.got);
}

static void holes_stay_holes(void **state)
{
	char *want = malloc(LENGTH);

	(void)state;
	assert_non_null(want);
	for (int backing = 0; backing < BACKINGS; backing++) {
		struct provider *provider;
		struct hgm *h;
		struct ram ram;
		uint64_t held;

		if (backing == BACKING_HUGETLB_1G || backing_lacking((enum backing)backing, LENGTH))
			continue;
		watch(backing_names[backing], 60);
		provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
		h = engine(1);
		/* A collapse fills discarded pages. */
		ram_make(&ram, h, (enum backing)backing, LENGTH, provider_source(provider),
			 HGM_REGION_NO_COLLAPSE);
		assert_ok(hgm_start(h));
		assert_ok(hgm_wait(h, WAIT_MS));
		contents_write(&contents, 0, PAGES, want);
		if (backing < BACKINGS_SMALL) {
			discard(&ram, 0, 5);
			discard(&ram, 100, 129);
			discard(&ram, 333, 1);
			memset(want, 0, 5 * PAGE);
			memset(want + 100 * PAGE, 0, 129 * PAGE);
			memset(want + 333 * PAGE, 0, PAGE);
		}
		discard(&ram, 512, 512);
		memset(want + 512 * PAGE, 0, 512 * PAGE);
		held = allocated(&ram);
		assert_true(held < LENGTH);
		take_one(h, want, backing_names[backing]);
		assert_int_equal(allocated(&ram), held);
		take_one(h, want, backing_names[backing]);
		assert_int_equal(allocated(&ram), held);
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
		calm();
	}
	free(want);
}

/* Makes @page unreadable. */
static void spoil(const struct ram *ram, uint64_t page, int error)
{
	const struct hgm_region *r = ram->region;

	bad.error = error;
	bad.offset = r->fd >= 0 ? r->fd_offset + page * PAGE : (uintptr_t)ram->addr + page * PAGE;
	bad.fd = r->fd >= 0 ? r->fd : r->view.space->mem_fd;
}

static void one_bad_page(enum backing backing, int error, bool written)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm *h = engine(1);
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	struct poker poker;
	struct ram ram;

	watch(backing_names[backing], 60);
	sink_clear(&sink, LENGTH);
	ram_make(&ram, h, backing, LENGTH, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	spoil(&ram, 700, error);
	atomic_store(&sink.hold, written);
	s = snapshot_of(h, &(struct hgm_snapshot_opts){ .write = sink_write, .user = &sink });
	assert_ok(hgm_snapshot_begin(s));
	if (written) { /* the writer goes on nevertheless */
		poker_start(&poker, ram.addr + 700 * PAGE);
		assert_true(eventually(poker_done, &poker, WAIT_MS));
		pthread_join(poker.thread, NULL);
		atomic_store(&sink.hold, false);
	}
	assert_error(hgm_snapshot_wait(s, WAIT_MS), -ENODATA);
	assert_int_equal(snapshot_progress(s).unreadable_bytes, PAGE);
	assert_int_equal(snapshot_progress(s).error, 0);
	assert_int_equal(snapshot_progress(s).done_bytes, LENGTH);
	assert_true(atomic_load(&bad.failed));
	hgm_snapshot_destroy(s);
	bad.fd = -1;
	assert_pages(&contents, 0, 700, sink.got);
	assert_pages(&contents, 701, PAGES - 701, sink.got + 701 * PAGE);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	free(sink.got);
	calm();
}

static void memory_that_cannot_be_read(void **state)
{
	static const int errors[] = { -EIO, -ENOMEM, -EFAULT };

	(void)state;
	for (int backing = 0; backing < BACKINGS; backing++) {
		if (backing == BACKING_HUGETLB_1G || backing_lacking((enum backing)backing, LENGTH))
			continue;
		for (unsigned int written = 0; written < 2; written++)
			one_bad_page((enum backing)backing, errors[(unsigned int)backing % 3],
				     written);
	}
}

/* The file is truncated. No thread gets SIGBUS, and the missing pages are reported. */
static void a_file_that_was_truncated(void **state)
{
	static const enum backing backings[] = { BACKING_FD, BACKING_FD_LAZY,
						 BACKING_FD_HUGETLB_2M };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		struct provider *provider;
		struct sink sink = { 0 };
		struct hgm_snapshot *s;
		struct hgm *h;
		struct ram ram;

		if (backing_lacking(backings[i], LENGTH))
			continue;
		watch(backing_names[backings[i]], 60);
		provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
		h = engine(1);
		sink_clear(&sink, LENGTH);
		ram_make(&ram, h, backings[i], LENGTH, provider_source(provider),
			 HGM_REGION_NO_COLLAPSE);
		assert_ok(hgm_start(h));
		assert_ok(hgm_wait(h, WAIT_MS));
		s = snapshot_of(h,
				&(struct hgm_snapshot_opts){ .write = sink_write, .user = &sink });
		assert_int_equal(ftruncate(ram.region->fd, 2 * MIB), 0);
		assert_ok(hgm_snapshot_begin(s));
		assert_error(hgm_snapshot_wait(s, WAIT_MS), -ENODATA);
		assert_int_equal(snapshot_progress(s).unreadable_bytes, LENGTH - 2 * MIB);
		hgm_snapshot_destroy(s);
		assert_pages(&contents, 0, 512, sink.got);
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
		free(sink.got);
		calm();
	}
}

/* A VMM that has confined itself since then: there is no /proc, or no right to open it. */
static void locked_in(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm *h = engine(1);
	char *want = malloc(LENGTH);
	struct ram ram;

	(void)state;
	assert_non_null(want);
	watch("locked in", 60);
	contents_write(&contents, 0, PAGES, want);
	ram_make(&ram, h, BACKING_ANON, LENGTH, provider_source(provider), 0);
	bad.unopenable = "/proc/self/mem";
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	take_one(h, want, "locked in");
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	free(want);
	calm();
}

/*
 * The VMM is confined from the beginning. Everything but snapshots works, and snapshots say why
 * they do not.
 */
static void locked_in_before(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm_snapshot_opts so = { .size = sizeof(so), .write = sink_write };
	struct hgm_snapshot *s;
	struct hgm_dirty *d;
	struct hgm *h;
	struct ram ram;

	(void)state;
	watch("locked in before", 60);
	bad.unopenable = "/proc/self/mem";
	h = engine(1);
	ram_make(&ram, h, BACKING_ANON, LENGTH, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_error(hgm_snapshot_create(&s, h, &so), -EACCES);
	assert_non_null(strstr(hgm_errmsg(), "/proc/self/mem"));
	assert_ok(hgm_dirty_start(&d, ram.region, NULL));
	hgm_dirty_stop(d);
	assert_ok(hgm_region_watch(ram.region, NULL));
	assert_ok(hgm_region_unwatch(ram.region));
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	calm();
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

/* A sink that stops until it is released. */
static _Atomic bool sink_may_go;

static int64_t still_sink(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	while (!atomic_load(&sink_may_go))
		nap_us(1000);
	return sink_write(user, buf, length, offset);
}

/* Memory that is dropped without the library, before it is in the snapshot, is reported as lost. */
static void dropped_meanwhile(void **state)
{
	static const struct {
		enum backing backing;
		int advice;
		uint64_t lost; /* pages */
	} cases[] = {
		{ BACKING_ANON, MADV_DONTNEED, 16 },
		{ BACKING_SHMEM, MADV_REMOVE, 16 },
		{ BACKING_SHMEM, MADV_DONTNEED, 0 }, /* drops nothing of a file */
	};

	(void)state;
	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
		struct hgm_snapshot_progress p = { .size = sizeof(p) };
		uint64_t kept = PAGES - cases[i].lost;
		struct sink sink = { 0 };
		struct hgm_snapshot *s;
		struct hgm *h = engine(1);
		struct ram ram;

		watch("dropped meanwhile", 60);
		sink_clear(&sink, LENGTH);
		atomic_store(&sink_may_go, false);
		ram_make(&ram, h, cases[i].backing, LENGTH, provider_source(provider), 0);
		assert_ok(hgm_start(h));
		assert_ok(hgm_wait(h, WAIT_MS));
		s = snapshot_of(h,
				&(struct hgm_snapshot_opts){ .write = still_sink, .user = &sink });
		assert_ok(hgm_snapshot_begin(s));
		assert_int_equal(madvise(ram.addr + LENGTH - 16 * PAGE, 16 * PAGE, cases[i].advice),
				 0);
		/*
		 * A thread that touches the memory gets zeroes, which are not part of the snapshot.
		 */
		if (cases[i].lost)
			assert_int_equal(ram.addr[LENGTH - 1], 0);
		atomic_store(&sink_may_go, true);
		if (cases[i].lost)
			assert_error(hgm_snapshot_wait(s, WAIT_MS), -ENODATA);
		else
			assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		assert_ok(hgm_snapshot_get_progress(s, &p));
		assert_int_equal(p.unreadable_bytes, cases[i].lost * PAGE);
		hgm_snapshot_destroy(s);
		assert_pages(&contents, 0, kept, sink.got);
		/* A discard by the library itself loses nothing. */
		sink_clear(&sink, LENGTH);
		atomic_store(&sink_may_go, false);
		s = snapshot_of(h,
				&(struct hgm_snapshot_opts){ .write = still_sink, .user = &sink });
		assert_ok(hgm_snapshot_begin(s));
		assert_ok(hgm_region_discard(ram.region, LENGTH - 32 * PAGE, 16 * PAGE));
		atomic_store(&sink_may_go, true);
		assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		hgm_snapshot_destroy(s);
		assert_pages(&contents, 0, kept, sink.got);
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
		free(sink.got);
		calm();
	}
}

/* The same for memory that is unmapped. */
static void unmapped_meanwhile(void **state)
{
	static const enum backing backings[] = { BACKING_ANON, BACKING_SHMEM };

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
		struct hgm_snapshot_progress p = { .size = sizeof(p) };
		struct sink sink = { 0 };
		struct hgm_snapshot *s;
		struct hgm *h = engine(1);
		struct ram ram;

		watch("unmapped meanwhile", 60);
		sink_clear(&sink, LENGTH);
		atomic_store(&sink_may_go, false);
		ram_make(&ram, h, backings[i], LENGTH, provider_source(provider), 0);
		assert_ok(hgm_start(h));
		assert_ok(hgm_wait(h, WAIT_MS));
		s = snapshot_of(h,
				&(struct hgm_snapshot_opts){ .write = still_sink, .user = &sink });
		assert_ok(hgm_snapshot_begin(s));
		assert_int_equal(munmap(ram.addr + LENGTH - 16 * PAGE, 16 * PAGE), 0);
		hgm_events_settle(h, &h->space);
		atomic_store(&sink_may_go, true);
		assert_error(hgm_snapshot_wait(s, WAIT_MS), -ENODATA);
		assert_ok(hgm_snapshot_get_progress(s, &p));
		assert_int_equal(p.unreadable_bytes, 16 * PAGE);
		hgm_snapshot_destroy(s);
		assert_pages(&contents, 0, PAGES - 16, sink.got);
		ram_end(&ram);
		hgm_destroy(h);
		provider_free(provider);
		free(sink.got);
		calm();
	}
}

static struct hgm_region *_Atomic to_discard;
static _Atomic int discarded;

static int64_t discarding_sink(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	atomic_store(&discarded, hgm_region_discard(atomic_load(&to_discard), 0, PAGE));
	return sink_write(user, buf, length, offset);
}

/* The call would wait for room that no other thread makes. */
static void a_sink_discards_nothing(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	struct hgm *h = engine(1);
	struct ram ram;

	(void)state;
	watch("a sink that discards", 60);
	sink_clear(&sink, LENGTH);
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	atomic_store(&to_discard, ram.region);
	atomic_store(&discarded, 0);
	s = snapshot_of(h, &(struct hgm_snapshot_opts){ .write = discarding_sink, .user = &sink });
	assert_ok(hgm_snapshot_begin(s));
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	assert_int_equal(atomic_load(&discarded), -EDEADLK);
	assert_pages(&contents, 0, PAGES, sink.got);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	free(sink.got);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(dropped_meanwhile),
	cmocka_unit_test(unmapped_meanwhile),
	cmocka_unit_test(a_sink_discards_nothing),
	CASE(holes_stay_holes),
	CASE(memory_that_cannot_be_read),
	CASE(a_file_that_was_truncated),
	CASE(locked_in),
	CASE(locked_in_before),
};

TEST_MAIN(tests)
