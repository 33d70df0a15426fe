/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lives.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "refusal.h"
#include "vmm.h"

#define LENGTH (2 * MIB)
#define FEW    13 /* distance in pages between the pages that are touched */
#define PAGES  (LENGTH / PAGE)
/* MADV_COLLAPSE waits for a kernel thread of each CPU. On a busy machine that takes long. */
#define WAIT_MS 100000

/* One huge page more than the caller's mapping, which is an aligned part of it. */
#define ROOM (2 * LENGTH)

struct lives_hooks lives_hooks;

static unsigned char *expected;
static int file; /* holds the same bytes */
static char *of_vmm;

static void report(int rc, const char *call)
{
	if (strlen(hgm_errmsg()) < 15)
		fail_msg("%s: %s says only '%s'", lives_hooks.what, call, hgm_errmsg());
	lives_hooks.failed(rc, call);
}

/* Only one thing goes wrong, so a call that has failed succeeds the second time. */
#define twice(call)                                                                         \
	do {                                                                                \
		int rc_;                                                                    \
                                                                                            \
		hgm_fail(0, "%s", "");                                                      \
		rc_ = call;                                                                 \
		if (rc_)                                                                    \
			report(rc_, #call);                                                 \
		if (rc_ && (call))                                                          \
			fail_msg("%s: %s: then %s", lives_hooks.what, #call, hgm_errmsg()); \
	} while (0)

static int64_t give(void *user, const struct hgm_io *io)
{
	(void)user;
	memcpy(io->buf, expected + io->offset, io->length);
	return (int64_t)io->length;
}

static int64_t take(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	(void)user;
	return !memcmp(buf, expected + offset, length) ? (int64_t)length : -EILSEQ;
}

static void begins(void)
{
	if (lives_hooks.begins)
		lives_hooks.begins();
}

/*
 * Waits until all pages have arrived. If some were given up, hgm_region_retry() must bring them,
 * except for a piece that the kernel would not map.
 */
static void arrive(struct hgm *h, struct hgm_region *r, const char *when)
{
	int rc = hgm_wait(h, WAIT_MS);

	if (rc == -EIO && lives_hooks.may_poison) {
		report(rc, "hgm_wait");
		assert_ok(hgm_region_retry(r));
		rc = hgm_wait(h, WAIT_MS);
		if (rc == -EIO && info_of(r).poisoned_bytes <= info_of(r).map_bytes)
			rc = 0;
	}
	if (rc)
		fail_msg("%s: %s: %s", lives_hooks.what, when, hgm_errmsg());
}

static bool is_huge(void *arg)
{
	return info_of(arg).huge_bytes == LENGTH;
}

/* In the end the memory is as huge as without a failure. */
static void assert_as_huge(struct hgm_region *r)
{
	if (lives_hooks.may_poison)
		return;
	if (lives_hooks.plain && info_of(r).backing != HGM_BACKING_HUGETLB)
		lives_hooks.huge = eventually(is_huge, r, 200);
	else if (lives_hooks.huge && !eventually(is_huge, r, 10000))
		fail_msg("%s: is not huge again: %s", lives_hooks.what, info_of(r).sentence);
}

static bool retried; /* in this life */

static int read_from(void *at)
{
	uint8_t value;

	return touch(at, &value);
}

/* False: the access raises SIGBUS, as documented. */
static bool comes(struct hgm *h, struct hgm_region *r, unsigned char *at, int (*access)(void *),
		  const char *when)
{
	int sig = access(at);

	if (sig == SIGBUS && lives_hooks.may_poison) {
		if (!retried)
			arrive(h, r, when);
		retried = true;
		sig = access(at);
		if (sig == SIGBUS && info_of(r).poisoned_bytes)
			return false;
	}
	if (sig)
		fail_msg("%s: %s: %s", lives_hooks.what, when, strsignal(sig));
	return true;
}

/* Checks every @step-th page. */
static void right(struct hgm *h, struct hgm_region *r, uint64_t step, const char *when)
{
	unsigned char *at = hgm_region_addr(r);

	for (uint64_t i = 0; i < LENGTH; i += step * PAGE)
		if (comes(h, r, at + i, read_from, when) && memcmp(at + i, expected + i, PAGE) != 0)
			fail_msg("%s: %s: page %u is wrong", lives_hooks.what, when,
				 (unsigned int)(i / PAGE));
}

static void sources(const struct life *life)
{
	struct hgm_source *src;

	(void)life;
	begins();
	twice(hgm_source_fn(&src, give, NULL, NULL));
	hgm_source_destroy(src);
	twice(hgm_source_memory(&src, expected, LENGTH));
	hgm_source_destroy(src);
	twice(hgm_source_file(&src, "/proc/self/exe"));
	hgm_source_destroy(src);
	twice(hgm_source_fd(&src, file));
	hgm_source_destroy(src);
}

/* These functions have a text for -EINVAL only. */
static void twice_range(struct hgm_uffd *u, struct hgm_range *r,
			int (*verb)(struct hgm_uffd *, struct hgm_range *))
{
	int rc = verb(u, r);

	if (rc == -EINVAL)
		report(rc, "a range");
	else if (rc)
		lives_hooks.failed(rc, "a range");
	if (rc)
		assert_ok(verb(u, r));
}

static int copy_expected(struct hgm_uffd *u, struct hgm_range *r)
{
	return hgm_uffd_copy(u, r, expected);
}

static void *map(uint64_t length, int flags, int fd)
{
	void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, flags, fd, 0);

	assert_true(at != MAP_FAILED);
	return at;
}

static void thin_level(const struct life *life)
{
	struct hgm_uffd_opts o = { .size = sizeof(o),
				   .optional = HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	uint64_t huge, modes = HGM_UFFD_MISSING;
	char *at = map(LENGTH, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct hgm_range half = { .addr = at, .len = LENGTH / 2, .step = PAGE };
	struct hgm_range rest = { .addr = at + LENGTH / 2, .len = LENGTH / 2, .step = PAGE };
	struct hgm_uffd_event ev;
	struct hgm_uffd *u;

	(void)life;
	begins();
	twice(hgm_uffd_open(&u, &o));
	if (hgm_uffd_features(u) & HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP)
		modes |= HGM_UFFD_WP;
	twice(hgm_uffd_register(u, at, LENGTH, modes, NULL));
	twice_range(u, &half, copy_expected);
	twice_range(u, &rest, hgm_uffd_zeropage);
	half.done = 0;
	half.mode = HGM_UFFD_WP_PROTECT;
	if (modes & HGM_UFFD_WP)
		twice_range(u, &half, hgm_uffd_writeprotect);
	assert_true(hgm_uffd_read(u, &ev, 1) < 0);
	twice(hgm_uffd_unregister(u, at, LENGTH));
	assert_memory_equal(at, expected, LENGTH / 2);
	hgm_uffd_close(u);
	twice(hgm_mapped_huge(expected, LENGTH, &huge));
	munmap(at, LENGTH);
}

static void capabilities(const struct life *life)
{
	struct hgm_caps *caps;

	(void)life;
	begins();
	twice(hgm_caps_probe(&caps, 0));
	hgm_caps_free(caps);
}

static struct hgm *make_engine(void)
{
	retried = false;
	struct hgm_opts opts = { .size = sizeof(opts), .fault_threads = 1, .workers = 2 };
	struct hgm *h;

	twice(hgm_create(&h, &opts));
	return h;
}

/* What the caller supplies: a file, a mapping, or both. */
struct theirs {
	int fd;
	char *room;
	char *mapping; /* an aligned part of @room */
};

/* The pages that are imported. The file has the contents of these pages only. */
#define IMPORTED UINT64_C(0x5a)

static void soil(int fd, char *mapping)
{
	if (!mapping)
		return; /* never happens */
	memset(mapping, 0xa5, LENGTH);
	for (unsigned int page = 0; fd >= 0 && page < 8; page++)
		if (IMPORTED >> page & 1)
			memcpy(mapping + page * PAGE, expected + page * PAGE, PAGE);
}

static void bring(struct theirs *t, struct hgm_region_opts *o, const struct life *life)
{
	bool fd = life->backing != BACKING_MAPPING_ANON,
	     huge = life->backing == BACKING_FD_HUGETLB_2M;
	bool mapping = life->backing == BACKING_MAPPING || life->backing == BACKING_MAPPING_ANON;

	t->fd = fd ? memfd_create("theirs", MFD_CLOEXEC | (huge ? MFD_HUGETLB : 0)) : -1;
	t->room = map(ROOM, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	t->mapping = t->room + (-(uintptr_t)t->room & (LENGTH - 1));
	if (fd) {
		assert_int_equal(ftruncate(t->fd, LENGTH), 0);
		assert_true(mmap(t->mapping, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
				 t->fd, 0) != MAP_FAILED);
	}
	soil(t->fd, t->mapping);
	o->fd = t->fd;
	o->addr = mapping ? t->mapping : NULL;
	o->backing = mapping ? HGM_BACKING_MAPPING : HGM_BACKING_FD;
	if (mapping)
		return;
	munmap(t->room, ROOM);
	t->room = NULL;
}

static void take_back(struct theirs *t)
{
	if (t->room)
		munmap(t->room, ROOM);
	if (t->fd >= 0)
		close(t->fd);
}

static struct hgm_region *make_region(struct hgm *h, struct theirs *t, struct hgm_source *src,
				      const struct life *life)
{
	static const uint32_t own[] = { [BACKING_SHMEM] = HGM_BACKING_SHMEM,
					[BACKING_SHMEM_LAZY] = HGM_BACKING_SHMEM_LAZY,
					[BACKING_ANON] = HGM_BACKING_ANON,
					[BACKING_HUGETLB_2M] = HGM_BACKING_HUGETLB };
	struct hgm_region_opts o = {
		.size = sizeof(o), .length = LENGTH, .source = src, .flags = life->flags
	};
	struct hgm_region *r;

	*t = (struct theirs){ .fd = -1 };
	if (life->backing < sizeof(own) / sizeof(own[0]) && own[life->backing])
		o.backing = own[life->backing];
	else
		bring(t, &o, life);
	twice(hgm_region_create(&r, h, &o));
	if (t->fd >= 0)
		twice(hgm_region_import(r, 0, PAGES, (uint64_t[PAGES / 64]){ IMPORTED }));
	return r;
}

static void discard(struct hgm *h, struct hgm_region *r)
{
	unsigned char *at = hgm_region_addr(r);

	twice(hgm_region_retry(r));
	twice(hgm_region_discard(r, 0, LENGTH));
	for (uint64_t i = 0; i < LENGTH; i += FEW * PAGE)
		if (comes(h, r, at + i, read_from, "discarded") && (at[i] || at[i + PAGE - 1]))
			fail_msg("%s: page %u was discarded, and is not zero", lives_hooks.what,
				 (unsigned int)(i / PAGE));
}

/* An engine with one region, whose source is a function. */
static struct hgm_region *begin(struct hgm **h, struct hgm_source **src, struct theirs *t,
				const struct life *life)
{
	twice(hgm_source_fn(src, give, NULL, NULL));
	*h = make_engine();
	return make_region(*h, t, *src, life);
}

static void end(struct hgm *h, struct hgm_source *src, struct theirs *t)
{
	hgm_destroy(h);
	hgm_source_destroy(src);
	take_back(t);
}

/* Pages are touched before fill reaches them, and again when all have arrived. */
static void restore(const struct life *life)
{
	uint64_t bitmap[PAGES / 64];
	struct hgm_source *src;
	struct hgm_region *r;
	struct theirs t;
	struct hgm *h;

	begins();
	r = begin(&h, &src, &t, life);
	twice(hgm_region_prefetch(r, LENGTH / 2, PAGE));
	twice(hgm_start(h));
	right(h, r, FEW, "restored");
	if (life->flags & HGM_REGION_DEFER_COLLAPSE)
		twice(hgm_region_collapse(r));
	arrive(h, r, "at the end");
	right(h, r, 1, "at the end");
	assert_as_huge(r);
	twice(hgm_region_export(r, 0, PAGES, bitmap));
	for (unsigned int i = 0; i < PAGES / 64; i++)
		if (~bitmap[i])
			fail_msg("%s: exported as missing", lives_hooks.what);
	discard(h, r);
	if (life->other)
		hgm_region_destroy(r);
	end(h, src, &t);
}

/* hgm_region_put() does not take pages that have arrived or that are already requested. */
static void put(struct hgm_region *r, uint64_t offset, uint64_t length)
{
	int64_t taken;

	hgm_fail(0, "%s", "");
	taken = hgm_region_put(r, offset, expected + offset, length);
	if (taken < 0) {
		report((int)taken, "hgm_region_put");
		taken = hgm_region_put(r, offset, expected + offset, length);
	}
	if (taken < 0 || taken > (int64_t)length || taken % (int64_t)PAGE)
		fail_msg("%s: hgm_region_put returns %lld: %s", lives_hooks.what, (long long)taken,
			 hgm_errmsg());
}

/* Most pages are delivered without a request, while fill is paused. */
static void delivered(const struct life *life)
{
	static const struct hgm_fill_opts paused = { .size = sizeof(paused),
						     .flags = HGM_FILL_PAUSED };
	static const struct hgm_fill_opts near = { .size = sizeof(near),
						   .order = HGM_FILL_NEAR_FAULTS };
	struct hgm_source *src;
	struct hgm_region *r;
	struct theirs t;
	struct hgm *h;

	begins();
	r = begin(&h, &src, &t, life);
	twice(hgm_set_fill(h, &paused));
	twice(hgm_region_set_fill(r, &near));
	twice(hgm_start(h));
	put(r, 0, LENGTH / 4);
	put(r, 0, LENGTH - LENGTH / 8);
	twice(hgm_set_fill(h, NULL));
	right(h, r, FEW, "in part delivered");
	arrive(h, r, "delivered");
	right(h, r, 1, "delivered");
	assert_as_huge(r);
	if (life->other)
		hgm_region_destroy(r);
	end(h, src, &t);
}

static void by_file(const struct life *life)
{
	struct hgm_source *src;
	struct hgm_region *r;
	struct theirs t;
	struct hgm *h = make_engine();

	begins();
	if (life->other)
		twice(hgm_source_memory(&src, expected, LENGTH));
	else
		twice(hgm_source_fd(&src, file));
	r = make_region(h, &t, src, life);
	twice(hgm_start(h));
	arrive(h, r, "by a file");
	right(h, r, 1, "by a file");
	assert_as_huge(r);
	end(h, src, &t);
}

/* All pages have arrived before the part that is tested begins. */
static void later(const struct life *life)
{
	struct hgm_source *src;
	struct hgm_region *r;
	struct theirs t;
	struct hgm *h;

	r = begin(&h, &src, &t, life);
	twice(hgm_start(h));
	arrive(h, r, "before");
	begins();
	life->then(h, r);
	right(h, r, 1, "afterwards");
	arrive(h, r, "afterwards");
	assert_as_huge(r);
	end(h, src, &t);
}

static void write_to(struct hgm *h, struct hgm_region *r, uint64_t page)
{
	comes(h, r, (unsigned char *)hgm_region_addr(r) + page * PAGE, touch_write, "written to");
}

static void write_few(struct hgm *h, struct hgm_region *r)
{
	for (uint64_t page = 0; page < PAGES; page += FEW)
		write_to(h, r, page);
}

static void watched(struct hgm *h, struct hgm_region *r)
{
	twice(hgm_region_watch(r, NULL));
	twice(hgm_region_protect(r, 0, LENGTH, 0, NULL));
	write_to(h, r, 0);
	twice(hgm_region_before_write(r, LENGTH / 2, LENGTH / 2));
	twice(hgm_region_unprotect(r, 0, LENGTH, 0, NULL));
	write_few(h, r);
	twice(hgm_region_unwatch(r));
}

/* Pages that were written to between two collects are in the second, whatever goes wrong. */
static void tracked(struct hgm *h, struct hgm_region *r, uint32_t flags)
{
	static const uint64_t written[] = { 0, 5, 77, 300, PAGES - 1 }, marked = 123;
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = flags };
	uint64_t bitmap[PAGES / 64], found;
	unsigned char *at = hgm_region_addr(r);
	struct hgm_dirty *d;

	twice(hgm_dirty_start(&d, r, &o));
	twice(hgm_dirty_collect(d, 0, PAGES, bitmap, &found));
	for (size_t i = 0; i < sizeof(written) / sizeof(written[0]); i++)
		write_to(h, r, written[i]);
	twice(hgm_dirty_mark(d, marked * PAGE + 7, 1));
	twice(hgm_dirty_collect(d, 0, PAGES, bitmap, &found));
	if (!(bitmap[marked / 64] >> marked % 64 & 1))
		fail_msg("%s: page %u was marked, and is not noted", lives_hooks.what,
			 (unsigned int)marked);
	for (size_t i = 0; i < sizeof(written) / sizeof(written[0]); i++)
		if (!(bitmap[written[i] / 64] >> written[i] % 64 & 1) &&
		    comes(h, r, at + written[i] * PAGE, touch_write, "written to"))
			fail_msg("%s: the write to page %u is not noted", lives_hooks.what,
				 (unsigned int)written[i]);
	hgm_dirty_stop(d);
	write_few(h, r);
}

static void dirty(struct hgm *h, struct hgm_region *r)
{
	tracked(h, r, 0);
}

static void dirty_sync(struct hgm *h, struct hgm_region *r)
{
	tracked(h, r, HGM_DIRTY_SYNC);
}

static int save(struct hgm *h, struct hgm_region *r, const struct hgm_snapshot_opts *o)
{
	struct hgm_snapshot *s;
	int rc = hgm_snapshot_create(&s, h, o);

	if (rc)
		return rc;
	rc = hgm_snapshot_begin(s);
	if (!rc) {
		twice(hgm_region_before_write(r, LENGTH / 2, LENGTH / 4));
		write_few(h, r);
		rc = hgm_snapshot_wait(s, WAIT_MS);
	}
	hgm_snapshot_destroy(s);
	return rc;
}

static void snapshot(struct hgm *h, struct hgm_region *r)
{
	struct hgm_snapshot_opts o = { .size = sizeof(o), .write = take };

	twice(save(h, r, &o));
}

static void snapshot_file(struct hgm *h, struct hgm_region *r)
{
	struct hgm_snapshot_opts o = { .size = sizeof(o),
				       .fd = memfd_create("snapshot", MFD_CLOEXEC),
				       .flags = HGM_SNAPSHOT_SYNC };
	unsigned char *saved;

	twice(save(h, r, &o));
	saved = map(LENGTH, MAP_SHARED, o.fd);
	if (memcmp(saved, expected, LENGTH) != 0)
		fail_msg("%s: the snapshot is wrong", lives_hooks.what);
	munmap(saved, LENGTH);
	close(o.fd);
}

struct reader {
	pthread_t thread;
	int fd;
	uint64_t got; /* right bytes */
};

static void *read_all(void *arg)
{
	struct reader *reader = arg;
	unsigned char buf[16 * PAGE];
	ssize_t n;

	while ((n = read(reader->fd, buf, sizeof(buf))) > 0)
		if (reader->got + (uint64_t)n <= LENGTH &&
		    !memcmp(buf, expected + reader->got, (size_t)n))
			reader->got += (uint64_t)n;
	return NULL;
}

static int save_to_pipe(struct hgm *h, struct hgm_region *r)
{
	struct hgm_snapshot_opts o = { .size = sizeof(o), .flags = HGM_SNAPSHOT_ORDERED };
	struct reader reader = { .got = 0 };
	int ends[2], rc;

	assert_int_equal(pipe(ends), 0);
	reader.fd = ends[0];
	o.fd = ends[1];
	if (pthread_create(&reader.thread, NULL, read_all, &reader)) { /* refused to the test */
		close(ends[0]);
		close(ends[1]);
		return hgm_fail(-EAGAIN, "no thread for the pipe's reader");
	}
	rc = save(h, r, &o);
	close(ends[1]);
	pthread_join(reader.thread, NULL);
	close(ends[0]);
	if (!rc && reader.got != LENGTH)
		fail_msg("%s: a pipe got %u right bytes", lives_hooks.what,
			 (unsigned int)reader.got);
	return rc;
}

static void snapshot_pipe(struct hgm *h, struct hgm_region *r)
{
	twice(save_to_pipe(h, r));
}

/* The snapshot reads pages that have not arrived yet from the source. */
static void snapshot_early(const struct life *life)
{
	struct hgm_source *src;
	struct hgm_region *r;
	struct theirs t;
	struct hgm *h;

	r = begin(&h, &src, &t, life);
	twice(hgm_start(h));
	begins();
	snapshot(h, r);
	right(h, r, 1, "after an early snapshot");
	end(h, src, &t);
}

/* A snapshot that would overwrite its own memory is refused, whatever else goes wrong. */
static void own_file(const struct life *life)
{
	struct hgm_snapshot_opts o = { .size = sizeof(o) };
	struct hgm_source *src;
	struct hgm_region *r;
	struct theirs t;
	struct hgm *h;

	begins();
	r = begin(&h, &src, &t, life);
	twice(hgm_start(h));
	arrive(h, r, "before");
	o.fd = t.fd;
	assert_true(save(h, r, &o) < 0);
	assert_true(save(h, r, &o) < 0);
	right(h, r, 1, "refused to be overwritten");
	end(h, src, &t);
}

/* No child process inherits the memory. */
static void inherited(const struct life *life)
{
	struct hgm_source *src;
	struct hgm_region *r;
	struct theirs t;
	struct hgm *h;
	int status;
	pid_t child;

	twice(hgm_source_fn(&src, give, NULL, NULL));
	h = make_engine();
	begins();
	r = make_region(h, &t, src, life);
	child = fork();
	if (!child)
		_exit(mincore(hgm_region_addr(r), LENGTH, (unsigned char[PAGES]){ 0 }) ? 0 : 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	if (status)
		fail_msg("%s: a child has the memory", lives_hooks.what);
	end(h, src, &t);
}

/* Memory of another process, which touches it while it arrives. */
static void other_process(const struct life *life)
{
	struct hgm_peer_info info = { .size = sizeof(info) };
	struct hgm_peer_opts po = { .size = sizeof(po) };
	struct hgm_region_opts ro = { .size = sizeof(ro),
				      .length = LENGTH,
				      .backing = HGM_BACKING_PEER };
	struct hgm_region *r;
	struct hgm *h;
	struct vmm v;
	int rc;

	vmm_start(&v, &(struct vmm_opts){ .length = LENGTH });
	begins();
	twice(hgm_source_memory(&ro.source, of_vmm, LENGTH));
	h = make_engine();
	twice(hgm_start(h));
	po.uffd = v.uffd;
	po.pidfd = v.pidfd;
	po.pid = life->other ? v.pid : 0;
	twice(hgm_peer_create(&ro.peer, h, &po));
	ro.addr = v.addr;
	twice(hgm_region_create(&r, h, &ro));
	rc = hgm_wait(h, WAIT_MS);
	if (rc && (rc != -EIO || !lives_hooks.may_poison))
		fail_msg("%s: %s", lives_hooks.what, hgm_errmsg());
	/* Else it may touch a page that it cannot have. */
	if (!lives_hooks.may_poison && vmm_do(&v, VMM_CHECK, 0, PAGES))
		fail_msg("%s: pages of a process are wrong", lives_hooks.what);
	twice(hgm_peer_get_info(ro.peer, &info));
	if (!info.collapse_error && info_of(r).collapse_error != -ENOSYS)
		assert_as_huge(r);
	assert_int_equal(info.state, 0);
	hgm_peer_destroy(ro.peer);
	hgm_destroy(h);
	hgm_source_destroy(ro.source);
	vmm_end(&v);
}

const struct life lives[] = {
	{ "sources", sources, BACKING_ANON, 0, NULL, false, 1 },
	{ "thin level", thin_level, BACKING_ANON, 0, NULL, false, 1 },
	{ "capabilities", capabilities, BACKING_ANON, 0, NULL, false, 6 },
	{ "restore, a file", restore, BACKING_FD, 0, NULL, false, 1 },
	{ "restore, shmem", restore, BACKING_SHMEM, 0, NULL, false, 1 },
	{ "restore, shmem, deferred", restore, BACKING_SHMEM, HGM_REGION_DEFER_COLLAPSE, NULL, true,
	  1 },
	{ "restore, shmem lazy", restore, BACKING_SHMEM_LAZY, 0, NULL, false, 1 },
	{ "restore, anon", restore, BACKING_ANON, 0, NULL, false, 1 },
	{ "restore, anon, small", restore, BACKING_ANON, HGM_REGION_NO_COLLAPSE, NULL, true, 1 },
	{ "restore, a file, lazy", restore, BACKING_FD_LAZY, HGM_REGION_LAZY, NULL, false, 1 },
	{ "restore, a mapping", restore, BACKING_MAPPING, 0, NULL, true, 1 },
	{ "restore, an anonymous mapping", restore, BACKING_MAPPING_ANON, 0, NULL, false, 1 },
	{ "restore, hugetlb", restore, BACKING_HUGETLB_2M, 0, NULL, false, 1 },
	{ "restore, a hugetlb file", restore, BACKING_FD_HUGETLB_2M, 0, NULL, true, 1 },
	{ "delivered, shmem", delivered, BACKING_SHMEM, 0, NULL, false, 1 },
	{ "delivered, anon", delivered, BACKING_ANON, 0, NULL, true, 1 },
	{ "delivered, a file", delivered, BACKING_FD, 0, NULL, false, 1 },
	{ "delivered, hugetlb", delivered, BACKING_HUGETLB_2M, 0, NULL, false, 1 },
	{ "restore from a file", by_file, BACKING_SHMEM, 0, NULL, false, 1 },
	{ "restore from memory", by_file, BACKING_ANON, 0, NULL, true, 1 },
	{ "watch, shmem", later, BACKING_SHMEM, 0, watched, false, 1 },
	{ "watch, anon", later, BACKING_ANON, 0, watched, false, 1 },
	{ "watch, hugetlb", later, BACKING_HUGETLB_2M, 0, watched, false, 1 },
	{ "dirty, shmem", later, BACKING_SHMEM, 0, dirty, false, 1 },
	{ "dirty, anon", later, BACKING_ANON, 0, dirty, false, 1 },
	{ "dirty, hugetlb", later, BACKING_HUGETLB_2M, 0, dirty, false, 1 },
	{ "dirty, shmem, synchronous", later, BACKING_SHMEM, 0, dirty_sync, false, 1 },
	{ "dirty, anon, synchronous", later, BACKING_ANON, 0, dirty_sync, false, 1 },
	{ "snapshot, shmem", later, BACKING_SHMEM, 0, snapshot, false, 1 },
	{ "snapshot, anon", later, BACKING_ANON, 0, snapshot, false, 1 },
	{ "snapshot, hugetlb", later, BACKING_HUGETLB_2M, 0, snapshot, false, 1 },
	{ "snapshot to a file", later, BACKING_SHMEM, 0, snapshot_file, false, 1 },
	{ "snapshot to a pipe", later, BACKING_ANON, 0, snapshot_pipe, false, 1 },
	{ "early snapshot, shmem", snapshot_early, BACKING_SHMEM, HGM_REGION_NO_FILL, NULL, false,
	  1 },
	{ "snapshot to its own memory", own_file, BACKING_FD, 0, NULL, false, 0 },
	{ "inherited, shmem", inherited, BACKING_SHMEM, 0, NULL, false, 0 },
	{ "inherited, anon", inherited, BACKING_ANON, 0, NULL, false, 0 },
	{ "early snapshot, anon", snapshot_early, BACKING_ANON, HGM_REGION_NO_FILL, NULL, false,
	  1 },
	{ "another process", other_process, BACKING_ANON, 0, NULL, false, 1 },
	{ "another process, by pid", other_process, BACKING_ANON, 0, NULL, true, 0 },
	{ NULL, NULL, BACKINGS, 0, NULL, false, 1 },
};

void lives_prepare(void)
{
	refusal_begin();
	file = memfd_create("contents", MFD_CLOEXEC);
	assert_true(file >= 0);
	assert_int_equal(ftruncate(file, LENGTH), 0);
	expected = map(LENGTH, MAP_SHARED, file);
	for (size_t i = 0; i < LENGTH; i++)
		expected[i] = (unsigned char)(i / PAGE + i % 247 + 1);
	of_vmm = map(LENGTH, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	contents_write(&vmm_contents, 0, PAGES, of_vmm);
}

const char *life_lacking(const struct life *life)
{
	return backing_lacking(life->backing, LENGTH);
}

struct remains remains_take(void)
{
	return (struct remains){ take_holdings(), refusal_pieces(), refusal_mapped() };
}

/* Memory that is freed after a grace period takes a moment. */
static bool nothing_remains(void *arg)
{
	const struct remains *r = arg;
	struct holdings now = take_holdings();

	return now.descriptors == r->before.descriptors && now.threads == r->before.threads &&
	       refusal_pieces() == r->pieces && refusal_mapped() == r->mapped;
}

void assert_nothing_remains(struct remains *r)
{
	struct holdings now;

	if (eventually(nothing_remains, r, 5000))
		return;
	now = take_holdings();
	fail_msg("%s: %d descriptors, %d threads, %ld pieces, %" PRId64 " bytes are left over",
		 lives_hooks.what, (int)(now.descriptors - r->before.descriptors),
		 (int)(now.threads - r->before.threads), refusal_pieces() - r->pieces,
		 refusal_mapped() - r->mapped);
}
