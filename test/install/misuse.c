/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a caller should not do, and every public function's answer: NULL where it is allowed and
 * where it is not, structs of older and newer releases, numbers and strings at their limits. Built
 * as C and as C++ against the installed library. With --list it tells which functions it knows.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hgm/hgm.h>

#include "child.h"

#define PAGE   4096
#define LENGTH (512 * PAGE)

static unsigned char contents[LENGTH];
static unsigned int failures;

/* A caller's struct, with room for those of releases to come. */
union block {
	size_t size;
	unsigned char bytes[2 * PAGE];
};

static struct hgm *engine;
static struct hgm_source *source;
static struct hgm_region *region;
static struct hgm_uffd *uffd;
static struct hgm_caps *caps;
static struct hgm_snapshot *snapshot;
static struct hgm_region *tracked;
static struct hgm_dirty *dirty;
static struct child child;
static struct hgm_peer *peer;
static struct hgm *new_engine;
static struct hgm_source *new_source;
static struct hgm_region *new_region;
static struct hgm_uffd *new_uffd;
static struct hgm_snapshot *new_snapshot;
static struct hgm_dirty *new_dirty;
static struct hgm_peer *new_peer;
static uint64_t words[LENGTH / PAGE / 64];
static struct hgm_range page;
static struct hgm_uffd_event event;

static int64_t give(void *user, const struct hgm_io *io)
{
	(void)user;
	memcpy(io->buf, contents + io->offset, io->length);
	return (int64_t)io->length;
}

static int64_t take(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	(void)user;
	(void)buf;
	(void)offset;
	return (int64_t)length;
}

static void expect(const char *call, long got, long want)
{
	if (got == want)
		return;
	printf("%s: %ld instead of %ld: %s\n", call, got, want, hgm_errmsg());
	failures++;
}

/*
 * NULL instead of an object or of a place for the result. FAILS: the call is refused with -EINVAL;
 * PASSES: nothing is done; TELLS: the answer is 0 or NULL; NONE: nothing can be NULL.
 */
#define NULLS(FAILS, PASSES, TELLS, NONE)                         \
	TELLS(hgm_caps_at, (NULL, 0))                             \
	TELLS(hgm_caps_count, (NULL))                             \
	TELLS(hgm_caps_find, (NULL, "shmem"))                     \
	TELLS(hgm_caps_find, (caps, NULL))                        \
	PASSES(hgm_caps_free, (NULL))                             \
	FAILS(hgm_caps_probe, (NULL, 0))                          \
	NONE(hgm_collapse)                                        \
	FAILS(hgm_create, (NULL, NULL))                           \
	PASSES(hgm_destroy, (NULL))                               \
	FAILS(hgm_dirty_collect, (NULL, 0, 64, words, NULL))      \
	FAILS(hgm_dirty_collect, (dirty, 0, 64, NULL, NULL))      \
	FAILS(hgm_dirty_get_info, (NULL, NULL))                   \
	FAILS(hgm_dirty_get_info, (dirty, NULL))                  \
	FAILS(hgm_dirty_mark, (NULL, 0, PAGE))                    \
	FAILS(hgm_dirty_start, (NULL, tracked, NULL))             \
	FAILS(hgm_dirty_start, (&new_dirty, NULL, NULL))          \
	PASSES(hgm_dirty_stop, (NULL))                            \
	NONE(hgm_errmsg)                                          \
	FAILS(hgm_event_fd, (NULL))                               \
	FAILS(hgm_get_progress, (NULL, NULL))                     \
	FAILS(hgm_get_progress, (engine, NULL))                   \
	FAILS(hgm_get_stats, (NULL, NULL))                        \
	FAILS(hgm_get_stats, (engine, NULL))                      \
	TELLS(hgm_hist_quantile, (NULL, 500))                     \
	FAILS(hgm_io_done, (NULL, 0))                             \
	FAILS(hgm_io_done_sparse, (NULL, 0, NULL))                \
	FAILS(hgm_io_done_sparse, (NULL, 0, words))               \
	FAILS(hgm_mapped_huge, (NULL, PAGE, NULL))                \
	FAILS(hgm_peer_create, (NULL, engine, NULL))              \
	FAILS(hgm_peer_create, (&new_peer, NULL, NULL))           \
	FAILS(hgm_peer_create, (&new_peer, engine, NULL))         \
	PASSES(hgm_peer_destroy, (NULL))                          \
	FAILS(hgm_peer_get_info, (NULL, NULL))                    \
	FAILS(hgm_peer_get_info, (peer, NULL))                    \
	TELLS(hgm_region_addr, (NULL))                            \
	FAILS(hgm_region_before_write, (NULL, 0, PAGE))           \
	FAILS(hgm_region_collapse, (NULL))                        \
	FAILS(hgm_region_create, (NULL, engine, NULL))            \
	FAILS(hgm_region_create, (&new_region, NULL, NULL))       \
	FAILS(hgm_region_create, (&new_region, engine, NULL))     \
	PASSES(hgm_region_destroy, (NULL))                        \
	FAILS(hgm_region_discard, (NULL, 0, PAGE))                \
	FAILS(hgm_region_export, (NULL, 0, 64, words))            \
	FAILS(hgm_region_export, (region, 0, 64, NULL))           \
	FAILS(hgm_region_get_info, (NULL, NULL))                  \
	FAILS(hgm_region_get_info, (region, NULL))                \
	FAILS(hgm_region_import, (NULL, 0, 64, words))            \
	FAILS(hgm_region_import, (region, 0, 64, NULL))           \
	TELLS(hgm_region_length, (NULL))                          \
	FAILS(hgm_region_prefetch, (NULL, 0, PAGE))               \
	FAILS(hgm_region_protect, (NULL, 0, PAGE, 0, NULL))       \
	FAILS(hgm_region_put, (NULL, 0, NULL, PAGE))              \
	FAILS(hgm_region_retry, (NULL))                           \
	FAILS(hgm_region_set_fill, (NULL, NULL))                  \
	FAILS(hgm_region_unprotect, (NULL, 0, PAGE, 0, NULL))     \
	FAILS(hgm_region_unwatch, (NULL))                         \
	FAILS(hgm_region_watch, (NULL, NULL))                     \
	FAILS(hgm_set_errmsg, (0, NULL))                          \
	FAILS(hgm_set_fill, (NULL, NULL))                         \
	FAILS(hgm_snapshot_begin, (NULL))                         \
	FAILS(hgm_snapshot_cancel, (NULL))                        \
	FAILS(hgm_snapshot_create, (NULL, engine, NULL))          \
	FAILS(hgm_snapshot_create, (&new_snapshot, NULL, NULL))   \
	FAILS(hgm_snapshot_create, (&new_snapshot, engine, NULL)) \
	PASSES(hgm_snapshot_destroy, (NULL))                      \
	FAILS(hgm_snapshot_get_progress, (NULL, NULL))            \
	FAILS(hgm_snapshot_get_progress, (snapshot, NULL))        \
	FAILS(hgm_snapshot_wait, (NULL, 0))                       \
	PASSES(hgm_source_destroy, (NULL))                        \
	FAILS(hgm_source_fd, (NULL, 0))                           \
	FAILS(hgm_source_file, (NULL, "/"))                       \
	FAILS(hgm_source_file, (&new_source, NULL))               \
	FAILS(hgm_source_fn, (NULL, give, NULL, NULL))            \
	FAILS(hgm_source_fn, (&new_source, NULL, NULL, NULL))     \
	FAILS(hgm_source_memory, (NULL, contents, LENGTH))        \
	FAILS(hgm_source_memory, (&new_source, NULL, LENGTH))     \
	NONE(hgm_split)                                           \
	FAILS(hgm_start, (NULL))                                  \
	FAILS(hgm_stats_format, (NULL, NULL, 0))                  \
	PASSES(hgm_uffd_close, (NULL))                            \
	FAILS(hgm_uffd_continue, (NULL, &page))                   \
	FAILS(hgm_uffd_continue, (uffd, NULL))                    \
	FAILS(hgm_uffd_copy, (NULL, &page, contents))             \
	FAILS(hgm_uffd_copy, (uffd, NULL, contents))              \
	FAILS(hgm_uffd_copy, (uffd, &page, NULL))                 \
	FAILS(hgm_uffd_fd, (NULL))                                \
	TELLS(hgm_uffd_features, (NULL))                          \
	TELLS(hgm_uffd_get_via, (NULL))                           \
	FAILS(hgm_uffd_open, (NULL, NULL))                        \
	FAILS(hgm_uffd_poison, (NULL, &page))                     \
	FAILS(hgm_uffd_poison, (uffd, NULL))                      \
	FAILS(hgm_uffd_read, (NULL, &event, 1))                   \
	FAILS(hgm_uffd_read, (uffd, NULL, 1))                     \
	FAILS(hgm_uffd_register, (NULL, words, PAGE, 1, NULL))    \
	TELLS(hgm_uffd_supported, (NULL))                         \
	FAILS(hgm_uffd_unregister, (NULL, words, PAGE))           \
	FAILS(hgm_uffd_wake, (NULL, words, PAGE))                 \
	FAILS(hgm_uffd_writeprotect, (NULL, &page))               \
	FAILS(hgm_uffd_writeprotect, (uffd, NULL))                \
	FAILS(hgm_uffd_zeropage, (NULL, &page))                   \
	FAILS(hgm_uffd_zeropage, (uffd, NULL))                    \
	NONE(hgm_version)                                         \
	FAILS(hgm_wait, (NULL, 0))

static void nulls(void)
{
#define FAILS(name, args)  expect(#name #args, name args, -EINVAL);
#define PASSES(name, args) name args;
#define TELLS(name, args)  expect(#name #args, (long)(name args), 0);
#define NONE(name)
	NULLS(FAILS, PASSES, TELLS, NONE)
#undef FAILS
#undef PASSES
#undef TELLS
#undef NONE
}

static void list(void)
{
#define WITH(name, args) printf("%s\n", #name);
#define ALONE(name)	 printf("%s\n", #name);
	NULLS(WITH, WITH, WITH, ALONE)
#undef WITH
#undef ALONE
}

/* Each sized struct by the call that takes it: 0 or what the call says to a good one. */
static int call_create(union block *b)
{
	struct hgm_opts *o = (struct hgm_opts *)b;
	int rc;

	o->flags = HGM_ALLOW_USER_MODE_ONLY;
	rc = hgm_create(&new_engine, o);
	if (!rc)
		hgm_destroy(new_engine);
	return rc;
}

static int call_region_create(union block *b)
{
	struct hgm_region_opts *o = (struct hgm_region_opts *)b;
	int rc;

	o->length = LENGTH;
	o->source = source;
	o->backing = HGM_BACKING_SHMEM_LAZY;
	rc = hgm_region_create(&new_region, engine, o);
	if (!rc)
		hgm_region_destroy(new_region);
	return rc;
}

static int call_source_fn(union block *b)
{
	int rc = hgm_source_fn(&new_source, give, NULL, (struct hgm_source_fn_opts *)b);

	if (!rc)
		hgm_source_destroy(new_source);
	return rc;
}

static int call_uffd_open(union block *b)
{
	struct hgm_uffd_opts *o = (struct hgm_uffd_opts *)b;
	int rc;

	o->flags = HGM_UFFD_ALLOW_USER_MODE_ONLY;
	rc = hgm_uffd_open(&new_uffd, o);
	if (!rc)
		hgm_uffd_close(new_uffd);
	return rc;
}

static int call_snapshot_create(union block *b)
{
	struct hgm_snapshot_opts *o = (struct hgm_snapshot_opts *)b;
	int rc;

	o->regions = &region;
	o->count = 1;
	o->write = take;
	rc = hgm_snapshot_create(&new_snapshot, engine, o);
	if (!rc)
		hgm_snapshot_destroy(new_snapshot);
	return rc == -EBUSY ? 0 : rc; /* the region is under one: its options were fine */
}

static int call_peer_create(union block *b)
{
	struct hgm_peer_opts *o = (struct hgm_peer_opts *)b;
	int rc;

	o->uffd = child.uffd;
	o->pid = child.pid;
	rc = hgm_peer_create(&new_peer, engine, o);
	if (!rc)
		hgm_peer_destroy(new_peer);
	return rc;
}

static int call_dirty_start(union block *b)
{
	int rc = hgm_dirty_start(&new_dirty, tracked, (struct hgm_dirty_opts *)b);

	return rc == -EBUSY ? 0 : rc; /* it is tracked already */
}

static int call_watch(union block *b)
{
	int rc = hgm_region_watch(tracked, (struct hgm_watch_opts *)b);

	return rc == -EBUSY ? 0 : rc;
}

static int call_set_fill(union block *b)
{
	return hgm_region_set_fill(region, (struct hgm_fill_opts *)b);
}

static int call_dirty_info(union block *b)
{
	return hgm_dirty_get_info(dirty, (struct hgm_dirty_info *)b);
}

static int call_get_progress(union block *b)
{
	return hgm_get_progress(engine, (struct hgm_progress *)b);
}

static int call_get_stats(union block *b)
{
	return hgm_get_stats(engine, (struct hgm_stats *)b);
}

static int call_get_info(union block *b)
{
	return hgm_region_get_info(region, (struct hgm_region_info *)b);
}

static int call_peer_info(union block *b)
{
	return hgm_peer_get_info(peer, (struct hgm_peer_info *)b);
}

static int call_snapshot_progress(union block *b)
{
	return hgm_snapshot_get_progress(snapshot, (struct hgm_snapshot_progress *)b);
}

static const struct sized {
	const char *name;
	int (*call)(union block *b);
	size_t size; /* of the release that this was compiled against */
	int given;   /* the caller fills it in, else the library */
} structs[] = {
	{ "struct hgm_opts", call_create, sizeof(struct hgm_opts), 1 },
	{ "struct hgm_region_opts", call_region_create, sizeof(struct hgm_region_opts), 1 },
	{ "struct hgm_source_fn_opts", call_source_fn, sizeof(struct hgm_source_fn_opts), 1 },
	{ "struct hgm_uffd_opts", call_uffd_open, sizeof(struct hgm_uffd_opts), 1 },
	{ "struct hgm_snapshot_opts", call_snapshot_create, sizeof(struct hgm_snapshot_opts), 1 },
	{ "struct hgm_peer_opts", call_peer_create, sizeof(struct hgm_peer_opts), 1 },
	{ "struct hgm_dirty_opts", call_dirty_start, sizeof(struct hgm_dirty_opts), 1 },
	{ "struct hgm_watch_opts", call_watch, sizeof(struct hgm_watch_opts), 1 },
	{ "struct hgm_fill_opts", call_set_fill, sizeof(struct hgm_fill_opts), 1 },
	{ "struct hgm_dirty_info", call_dirty_info, sizeof(struct hgm_dirty_info), 0 },
	{ "struct hgm_progress", call_get_progress, sizeof(struct hgm_progress), 0 },
	{ "struct hgm_stats", call_get_stats, sizeof(struct hgm_stats), 0 },
	{ "struct hgm_region_info", call_get_info, sizeof(struct hgm_region_info), 0 },
	{ "struct hgm_peer_info", call_peer_info, sizeof(struct hgm_peer_info), 0 },
	{ "struct hgm_snapshot_progress", call_snapshot_progress,
	  sizeof(struct hgm_snapshot_progress), 0 },
};

static void call_with(const struct sized *s, size_t size, unsigned char beyond, int want)
{
	static union block b;
	char what[100];

	memset(&b, 0, s->size);
	memset(b.bytes + s->size, beyond, sizeof(b) - s->size);
	b.size = size;
	snprintf(what, sizeof(what), "%s, size %zu, %#x behind it", s->name, size, beyond);
	expect(what, s->call(&b), want);
	expect("the caller's size", (long)b.size, (long)size);
	if (s->given || want)
		return;
	/* What the library does not know it clears, as far as the caller's struct goes. */
	for (size_t i = s->size; i < sizeof(b); i++)
		expect(what, b.bytes[i], i < size ? 0 : beyond);
}

static void sizes(void)
{
	for (size_t i = 0; i < sizeof(structs) / sizeof(structs[0]); i++) {
		const struct sized *s = &structs[i];

		call_with(s, s->size, 0xa5, 0); /* what lies behind it is none of our business */
		call_with(s, s->size + 8, 0, 0);
		call_with(s, s->size + 8, 0xa5, s->given ? -E2BIG : 0);
		call_with(s, PAGE, 0, 0);
		call_with(s, 0, 0, -EINVAL);
		call_with(s, 1, 0, -EINVAL);
		call_with(s, sizeof(size_t), 0, -EINVAL);
		call_with(s, s->size - 8, 0, -EINVAL); /* no release had such a one */
		call_with(s, PAGE + 1, 0, -EINVAL);
		call_with(s, SIZE_MAX, 0, -EINVAL);
	}
}

static void numbers(void)
{
	static char name[1 << 20];
	struct hgm_caps *none;
	struct hgm_opts opts;
	struct hgm_hist hist;
	struct hgm_snapshot_opts snap;
	struct hgm_peer_opts who;
	struct hgm_range range;
	struct hgm_io io;
	uint64_t huge;

	memset(&opts, 0, sizeof(opts));
	opts.size = sizeof(opts);
	opts.fault_threads = UINT32_MAX;
	expect("fault_threads", hgm_create(&new_engine, &opts), -EINVAL);
	opts.fault_threads = 1;
	opts.workers = UINT32_MAX;
	expect("workers", hgm_create(&new_engine, &opts), -EINVAL);
	opts.workers = 1;
	opts.collapse_threads = UINT32_MAX;
	expect("collapse_threads", hgm_create(&new_engine, &opts), -EINVAL);
	opts.collapse_threads = 16;
	opts.fill_window_bytes = UINT64_MAX;
	opts.flags = HGM_ALLOW_USER_MODE_ONLY;
	opts.retries = UINT32_MAX;
	expect("fill_window_bytes", hgm_create(&new_engine, &opts), 0);
	hgm_destroy(new_engine);

	memset(name, 'x', sizeof(name) - 1);
	expect("a path of 1 MiB", hgm_source_file(&new_source, name), -ENAMETOOLONG);
	expect("its text ends", strlen(hgm_errmsg()) < PAGE && strlen(hgm_errmsg()) > 20, 1);
	expect("no path", hgm_source_file(&new_source, ""), -ENOENT);
	expect("a capability of 1 MiB", hgm_caps_find(caps, name) != NULL, 0);
	expect("no capability", hgm_caps_find(caps, "") != NULL, 0);
	expect("behind the last capability", hgm_caps_at(caps, UINT_MAX) != NULL, 0);
	expect("descriptor", hgm_source_fd(&new_source, INT_MIN), -EBADF);
	expect("descriptor", hgm_source_fd(&new_source, INT_MAX), -EBADF);
	expect("flags", hgm_caps_probe(&none, UINT_MAX), -EINVAL);

	memset(&hist, 0xff, sizeof(hist));
	expect("quantile", hgm_hist_quantile(&hist, UINT_MAX) == UINT64_MAX, 1);

	expect("prefetch", hgm_region_prefetch(region, UINT64_MAX, UINT64_MAX), -EINVAL);
	expect("prefetch", hgm_region_prefetch(region, 1, UINT64_MAX), -EINVAL);
	expect("export", hgm_region_export(region, UINT64_MAX, 1, words), -EINVAL);
	expect("export", hgm_region_export(region, UINT64_MAX - 63, 64, words), -EINVAL);
	expect("export", hgm_region_export(region, 0, UINT64_MAX, words), -EINVAL);
	expect("export", hgm_region_export(region, LENGTH / PAGE, 0, words), 0);
	expect("wait", hgm_wait(engine, INT_MAX), 0);
	expect("wait", hgm_wait(engine, INT_MIN), 0);
	expect("snapshot wait", hgm_snapshot_wait(snapshot, INT_MIN), -EINVAL); /* not begun */

	expect("collect", hgm_dirty_collect(dirty, UINT64_MAX - 63, 64, words, NULL), -EINVAL);
	expect("collect", hgm_dirty_collect(dirty, 0, UINT64_MAX, words, NULL), -EINVAL);
	expect("protect", hgm_region_protect(tracked, 0, UINT64_MAX, 0, NULL), -EINVAL);
	expect("unwatch", hgm_region_unwatch(tracked), -EINVAL); /* no watch, but tracking */

	memset(&snap, 0, sizeof(snap));
	snap.size = sizeof(snap);
	snap.write = take;
	snap.count = UINT64_MAX;
	snap.regions = &region;
	expect("snapshot count", hgm_snapshot_create(&new_snapshot, engine, &snap), -EINVAL);
	snap.count = 1;
	snap.flags = UINT32_MAX;
	expect("snapshot flags", hgm_snapshot_create(&new_snapshot, engine, &snap), -EINVAL);
	snap.flags = 0;
	snap.pool_bytes = UINT64_MAX;
	expect("snapshot pool", hgm_snapshot_create(&new_snapshot, engine, &snap), -EINVAL);

	memset(&io, 0, sizeof(io));
	expect("a request of no engine", hgm_io_done(&io, 0), -EINVAL);
	io.engine = engine;
	io.id = UINT64_MAX;
	expect("a request that never was", hgm_io_done(&io, INT64_MAX), -EINVAL);
	expect("a request that never was", hgm_io_done_sparse(&io, UINT64_MAX, words), -EINVAL);

	memset(&range, 0, sizeof(range));
	range.addr = (void *)(uintptr_t)(UINTPTR_MAX - PAGE + 1);
	range.len = range.step = PAGE;
	expect("the end of addresses", hgm_uffd_continue(uffd, &range), -EINVAL);
	range.len = UINT64_MAX - PAGE + 1;
	expect("more than all", hgm_uffd_zeropage(uffd, &range), -EINVAL);
	range.addr = (void *)(uintptr_t)PAGE;
	range.len = PAGE;
	range.step = 0;
	expect("no step", hgm_uffd_copy(uffd, &range, contents), -EINVAL);
	expect("no events", hgm_uffd_read(uffd, NULL, 0), -EINVAL);
	expect("register nothing", hgm_uffd_register(uffd, NULL, 0, HGM_UFFD_MISSING, NULL),
	       -EINVAL);
	expect("odd address", hgm_mapped_huge((char *)words + 1, PAGE, &huge), -EINVAL);
	expect("odd address", hgm_collapse((char *)words + 1, PAGE), -EINVAL);
	expect("odd address", hgm_split((char *)words + 1, PAGE), -EINVAL);

	memset(&who, 0, sizeof(who));
	who.size = sizeof(who);
	who.uffd = child.uffd;
	who.pid = INT_MIN;
	expect("process", hgm_peer_create(&new_peer, engine, &who), -EINVAL);
	who.pid = INT_MAX;
	expect("process", hgm_peer_create(&new_peer, engine, &who), -ESRCH);
	who.pid = child.pid;
	who.uffd = INT_MIN;
	expect("userfaultfd", hgm_peer_create(&new_peer, engine, &who), -EBADF);
}

static void make(void)
{
	struct hgm_snapshot_opts snap;
	struct hgm_region_opts opts;
	struct hgm_peer_opts who;
	struct hgm_uffd_opts uo;
	struct hgm_opts eo;

	child_start(&child, contents, LENGTH, HGM_UFFD_ALLOW_USER_MODE_ONLY);
	for (size_t i = 0; i < LENGTH; i++)
		contents[i] = (unsigned char)(i / PAGE + i % 251);
	memset(&eo, 0, sizeof(eo));
	eo.size = sizeof(eo);
	eo.flags = HGM_ALLOW_USER_MODE_ONLY;
	expect("hgm_create", hgm_create(&engine, &eo), 0);
	expect("hgm_source_fn", hgm_source_fn(&source, give, NULL, NULL), 0);
	memset(&opts, 0, sizeof(opts));
	opts.size = sizeof(opts);
	opts.length = LENGTH;
	opts.source = source;
	opts.backing = HGM_BACKING_ANON;
	opts.flags = HGM_REGION_NO_COLLAPSE;
	expect("hgm_region_create", hgm_region_create(&region, engine, &opts), 0);
	expect("hgm_start", hgm_start(engine), 0);
	expect("hgm_wait", hgm_wait(engine, 60000), 0);
	expect("hgm_caps_probe", hgm_caps_probe(&caps, 0), 0);
	memset(&uo, 0, sizeof(uo));
	uo.size = sizeof(uo);
	uo.flags = HGM_UFFD_ALLOW_USER_MODE_ONLY;
	expect("hgm_uffd_open", hgm_uffd_open(&uffd, &uo), 0);
	memset(&snap, 0, sizeof(snap));
	snap.size = sizeof(snap);
	snap.write = take;
	expect("hgm_snapshot_create", hgm_snapshot_create(&snapshot, engine, &snap), 0);
	expect("hgm_region_create", hgm_region_create(&tracked, engine, &opts), 0);
	expect("hgm_wait", hgm_wait(engine, 60000), 0);
	expect("hgm_dirty_start", hgm_dirty_start(&dirty, tracked, NULL), 0);
	memset(&who, 0, sizeof(who));
	who.size = sizeof(who);
	who.uffd = child.uffd;
	who.pid = child.pid;
	expect("hgm_peer_create", hgm_peer_create(&peer, engine, &who), 0);
	if (failures)
		exit(1);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--list")) {
		list();
		return 0;
	}
	make();
	nulls();
	sizes();
	numbers();
	hgm_dirty_stop(dirty);
	hgm_snapshot_destroy(snapshot);
	/* It serves on: contents are what they were. */
	expect("contents", memcmp(hgm_region_addr(region), contents, LENGTH), 0);
	hgm_destroy(engine);
	child_end(&child, 0);
	hgm_source_destroy(source);
	hgm_uffd_close(uffd);
	hgm_caps_free(caps);
	printf("%u wrong answers\n", failures);
	return failures ? 1 : 0;
}
