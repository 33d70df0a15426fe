/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every public function once, as it is meant, by a program that is compiled as C and as C++ against
 * the installed library. Exits 77 where the kernel lacks something for it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <hgm/hgm.h>

#include "child.h"

#define PAGE	4096
#define BLOCK	(512 * PAGE)
#define PAGES	512
#define WAIT_MS 60000

static unsigned char *contents; /* of @file */
static int file;
static int copy; /* a file that holds them, too, and is a region's memory */
static struct child child;

static void check(long rc, const char *what)
{
	if (rc >= 0)
		return;
	printf("%s: %ld: %s\n", what, rc, hgm_errmsg());
	exit(1);
}

static void want(bool right, const char *what)
{
	if (right)
		return;
	printf("wrong: %s\n", what);
	exit(1);
}

#define CHECK(call) check(call, #call)
#define WANT(what)  want(what, #what)

/* A struct of options or for results, empty but for its size. */
#define SIZED(type, name)               \
	type name;                      \
	memset(&name, 0, sizeof(name)); \
	name.size = sizeof(name)

/* What the functions below need; each test of it is an answer of the table. */
static void capabilities(void)
{
	static const char *const needed[] = { "anon.missing.4k", "anon.wp.4k", "anon.poison.4k",
					      "anon.collapse", "shmem.minor.4k" };
	struct hgm_caps *caps;

	CHECK(hgm_caps_probe(&caps, 0));
	WANT(hgm_caps_at(caps, hgm_caps_count(caps) - 1));
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		const struct hgm_cap *cap = hgm_caps_find(caps, needed[i]);

		WANT(cap != NULL);
		if (cap->answer != HGM_YES) {
			printf("%s: %s\n", cap->name, cap->reason);
			exit(77);
		}
	}
	hgm_caps_free(caps);
}

static const uint64_t none_is_zero[8] = { 0 }; /* of 2 MiB */

/* Answers "later", though at once. */
static int64_t give(void *user, const struct hgm_io *io)
{
	(void)user;
	memcpy(io->buf, contents + io->offset, io->length);
	if (io->length > PAGE) {
		CHECK(hgm_io_done_sparse(io, io->length, none_is_zero));
		return HGM_IO_LATER;
	}
	CHECK(hgm_io_done(io, (int64_t)io->length));
	return HGM_IO_LATER;
}

static int64_t take(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	(void)user;
	WANT(!memcmp(buf, contents + offset, length));
	return (int64_t)length;
}

static struct hgm_region *restore(struct hgm *h, struct hgm_source *src, uint32_t backing)
{
	uint64_t bitmap[PAGES / 64] = { 0xff };
	struct hgm_region *r;
	SIZED(struct hgm_region_opts, opts);

	opts.length = BLOCK;
	opts.source = src;
	opts.backing = backing;
	opts.fd = backing == HGM_BACKING_FD ? copy : 0;
	opts.flags = HGM_REGION_DEFER_COLLAPSE;
	CHECK(hgm_region_create(&r, h, &opts));
	if (backing == HGM_BACKING_FD)
		CHECK(hgm_region_import(r, 0, PAGES, bitmap));
	CHECK(hgm_region_prefetch(r, BLOCK / 2, PAGE));
	CHECK(hgm_region_retry(r));
	CHECK(hgm_region_set_fill(r, NULL));
	CHECK(hgm_set_fill(h, NULL));
	WANT(hgm_region_length(r) == BLOCK);
	hgm_source_destroy(src);
	return r;
}

static void look(struct hgm *h, struct hgm_region *r)
{
	uint64_t bitmap[PAGES / 64];
	char text[8192];
	SIZED(struct hgm_region_info, info);
	SIZED(struct hgm_progress, progress);
	SIZED(struct hgm_stats, stats);

	WANT(!memcmp(hgm_region_addr(r), contents, BLOCK));
	CHECK(hgm_region_collapse(r));
	CHECK(hgm_wait(h, WAIT_MS));
	CHECK(hgm_region_get_info(r, &info));
	WANT(info.present_bytes == BLOCK);
	WANT(hgm_region_put(r, 0, contents, PAGE) == 0); /* it is there */
	CHECK(hgm_region_export(r, 0, PAGES, bitmap));
	WANT(bitmap[PAGES / 64 - 1] == UINT64_MAX);
	CHECK(hgm_get_progress(h, &progress));
	WANT(progress.complete);
	CHECK(hgm_get_stats(h, &stats));
	WANT(hgm_hist_quantile(&stats.source, 1000) >= hgm_hist_quantile(&stats.source, 500));
	CHECK(hgm_stats_format(&stats, text, sizeof(text)));
	WANT(strstr(text, "faults "));
}

static void guard(struct hgm *h, struct hgm_region *r)
{
	uint64_t bitmap[PAGES / 64], found;
	volatile unsigned char *memory = (volatile unsigned char *)hgm_region_addr(r);
	struct hgm_snapshot *snapshot;
	struct hgm_dirty *dirty;
	struct hgm_span span;
	SIZED(struct hgm_dirty_info, info);
	SIZED(struct hgm_snapshot_opts, opts);
	SIZED(struct hgm_snapshot_progress, progress);

	CHECK(hgm_region_watch(r, NULL));
	CHECK(hgm_region_protect(r, 0, PAGE, HGM_PROTECT_ROUND, &span));
	memory[0] = contents[0];
	CHECK(hgm_region_before_write(r, 0, PAGE)); /* allowed, as the default is */
	CHECK(hgm_region_unprotect(r, span.offset, span.length, 0, NULL));
	CHECK(hgm_region_unwatch(r));

	CHECK(hgm_dirty_start(&dirty, r, NULL));
	CHECK(hgm_dirty_collect(dirty, 0, PAGES, bitmap, &found));
	memory[3 * PAGE] = contents[3 * PAGE];
	CHECK(hgm_dirty_collect(dirty, 0, PAGES, bitmap, &found));
	WANT(found && bitmap[0] >> 3 & 1);
	CHECK(hgm_dirty_mark(dirty, 5 * PAGE, 1));
	CHECK(hgm_dirty_collect(dirty, 0, PAGES, bitmap, &found));
	WANT(found && bitmap[0] >> 5 & 1);
	CHECK(hgm_dirty_get_info(dirty, &info));
	WANT(info.collections == 3);
	hgm_dirty_stop(dirty);

	opts.regions = &r;
	opts.count = 1;
	opts.write = take;
	CHECK(hgm_snapshot_create(&snapshot, h, &opts));
	CHECK(hgm_snapshot_begin(snapshot));
	CHECK(hgm_snapshot_wait(snapshot, WAIT_MS));
	CHECK(hgm_snapshot_get_progress(snapshot, &progress));
	WANT(progress.done && progress.done_bytes == BLOCK);
	CHECK(hgm_snapshot_cancel(snapshot)); /* has ended: nothing is left to do */
	hgm_snapshot_destroy(snapshot);
}

static void discard(struct hgm_region *r)
{
	const volatile unsigned char *memory = (const volatile unsigned char *)hgm_region_addr(r);

	/* Of hugetlb, which one of them may be, parts of a page are zeroed. */
	CHECK(hgm_region_discard(r, 7 * PAGE, 2 * PAGE));
	WANT(!memory[7 * PAGE] && !memory[9 * PAGE - 1]);
	WANT(memory[9 * PAGE] == contents[9 * PAGE]);
}

/* Memory of another process. */
static void serve_child(struct hgm *h, struct hgm_source *src)
{
	struct hgm_region *r;
	struct hgm_peer *p;
	SIZED(struct hgm_peer_opts, who);
	SIZED(struct hgm_peer_info, info);
	SIZED(struct hgm_region_opts, opts);

	WANT(child.uffd >= 0);
	who.uffd = child.uffd;
	who.pid = child.pid;
	CHECK(hgm_peer_create(&p, h, &who));
	opts.length = BLOCK;
	opts.source = src;
	opts.backing = HGM_BACKING_PEER;
	opts.addr = child.addr;
	opts.peer = p;
	CHECK(hgm_region_create(&r, h, &opts));
	CHECK(hgm_peer_get_info(p, &info));
	WANT(info.pid == child.pid && !info.state);
	WANT(info.features & HGM_UFFD_FEATURE_EVENT_REMOVE);
	WANT(child_end(&child, 1) == 0);
	hgm_peer_destroy(p);
}

static void engine(void)
{
	struct hgm_source *memory, *function, *path, *fd, *numbers;
	struct hgm_region *r[4];
	struct hgm *h;
	char name[32];

	CHECK(hgm_create(&h, NULL));
	CHECK(hgm_event_fd(h));
	snprintf(name, sizeof(name), "/proc/self/fd/%d", file);
	CHECK(hgm_source_memory(&memory, contents, BLOCK));
	CHECK(hgm_source_fn(&function, give, NULL, NULL));
	CHECK(hgm_source_file(&path, name));
	CHECK(hgm_source_fd(&fd, file));
	CHECK(hgm_source_memory(&numbers, contents, BLOCK));
	r[0] = restore(h, memory, HGM_BACKING_FD);
	r[1] = restore(h, function, HGM_BACKING_ANON);
	r[2] = restore(h, path, HGM_BACKING_SHMEM_LAZY);
	r[3] = restore(h, fd, HGM_BACKING_AUTO);
	CHECK(hgm_start(h));
	for (int i = 0; i < 4; i++)
		look(h, r[i]);
	guard(h, r[1]);
	for (int i = 0; i < 4; i++)
		discard(r[i]);
	serve_child(h, numbers);
	hgm_source_destroy(numbers);
	for (int i = 0; i < 4; i++)
		hgm_region_destroy(r[i]);
	hgm_destroy(h);
}

static void *touch(void *addr)
{
	return (void *)(uintptr_t) * (volatile unsigned char *)addr;
}

static struct hgm_range page_of(unsigned char *memory, unsigned int page)
{
	struct hgm_range range;

	memset(&range, 0, sizeof(range));
	range.addr = memory + page * PAGE;
	range.len = range.step = PAGE;
	return range;
}

/* One page each way; @memory is anonymous, absent, and a block. */
static void verbs(struct hgm_uffd *u, unsigned char *memory)
{
	struct pollfd pfd = { hgm_uffd_fd(u), POLLIN, 0 };
	struct hgm_uffd_event event;
	struct hgm_range range;
	pthread_t thread;
	uint64_t huge;
	void *value;

	CHECK(hgm_uffd_register(u, memory, BLOCK, HGM_UFFD_MISSING | HGM_UFFD_WP, NULL));
	WANT(!pthread_create(&thread, NULL, touch, memory));
	WANT(poll(&pfd, 1, WAIT_MS) == 1);
	CHECK(hgm_uffd_read(u, &event, 1));
	WANT(event.type == HGM_UFFD_EVENT_PAGEFAULT);
	range = page_of(memory, 0);
	range.mode = HGM_UFFD_COPY_DONTWAKE;
	CHECK(hgm_uffd_copy(u, &range, contents));
	CHECK(hgm_uffd_wake(u, memory, PAGE));
	WANT(!pthread_join(thread, &value));
	WANT((uintptr_t)value == contents[0]);
	range.mode = HGM_UFFD_WP_PROTECT;
	CHECK(hgm_uffd_writeprotect(u, &range));
	range = page_of(memory, 1);
	CHECK(hgm_uffd_zeropage(u, &range));
	range = page_of(memory, 2);
	CHECK(hgm_uffd_poison(u, &range));
	CHECK(hgm_uffd_unregister(u, memory, BLOCK));

	WANT(!madvise(memory, BLOCK, MADV_DONTNEED));
	memset(memory, 1, BLOCK);
	CHECK(hgm_collapse(memory, BLOCK));
	CHECK(hgm_mapped_huge(memory, BLOCK, &huge));
	WANT(huge == BLOCK);
	/* What no released kernel can. */
	if (hgm_split(memory, BLOCK))
		WANT(strlen(hgm_errmsg()) > 20);
	CHECK(hgm_set_errmsg(0, "set"));
	WANT(!strcmp(hgm_errmsg(), "set"));
}

static void thin_level(void)
{
	int how = PROT_READ | PROT_WRITE;
	unsigned char *space, *shared;
	struct hgm_range range;
	struct hgm_uffd *u;
	SIZED(struct hgm_uffd_opts, opts);

	opts.required = HGM_UFFD_FEATURE_MINOR_SHMEM | HGM_UFFD_FEATURE_POISON;
	opts.optional = HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP;
	CHECK(hgm_uffd_open(&u, &opts));
	WANT(hgm_uffd_get_via(u) == HGM_UFFD_VIA_DEVICE ||
	     hgm_uffd_get_via(u) == HGM_UFFD_VIA_SYSCALL);
	WANT(!(opts.required & ~hgm_uffd_features(u)));
	WANT(!(hgm_uffd_features(u) & ~hgm_uffd_supported(u)));

	space = (unsigned char *)mmap(NULL, 2 * BLOCK, how, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	WANT(space != MAP_FAILED);
	verbs(u, space + (BLOCK - (uintptr_t)space % BLOCK) % BLOCK);

	shared = (unsigned char *)mmap(NULL, BLOCK, how, MAP_SHARED, file, 0);
	WANT(shared != MAP_FAILED);
	CHECK(hgm_uffd_register(u, shared, BLOCK, HGM_UFFD_MINOR, NULL));
	range = page_of(shared, 5);
	CHECK(hgm_uffd_continue(u, &range));
	WANT(shared[5 * PAGE] == contents[5 * PAGE]);
	hgm_uffd_close(u);
}

static unsigned char *make(int *fd)
{
	unsigned char *addr;

	*fd = memfd_create("contents", MFD_CLOEXEC);
	WANT(*fd >= 0 && !ftruncate(*fd, BLOCK));
	addr = (unsigned char *)mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	WANT(addr != MAP_FAILED);
	for (size_t i = 0; i < BLOCK; i++)
		addr[i] = (unsigned char)(i / PAGE + i % 247);
	return addr;
}

int main(void)
{
	WANT(hgm_version() == HGM_VERSION_NUMBER);
	contents = make(&file);
	child_start(&child, contents, BLOCK, 0);
	make(&copy);
	capabilities();
	engine();
	thin_level();
	return 0;
}
