/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write-protection of another process's memory, which has not asked for it: live snapshots from
 * outside, dirty tracking, and a watch.
 */
#include "served.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define SNAPSHOTS SMALLER(20, 3)

/* A scene whose memory has arrived. */
static void begin(struct scene *s)
{
	scene_begin(s, PROVIDER_MEMORY, 0);
	assert_ok(hgm_wait(s->h, WAIT_MS));
}

static struct hgm_snapshot *snapshot_to(struct hgm *h, int fd)
{
	struct hgm_snapshot_opts o = { .size = sizeof(o), .fd = fd };
	struct hgm_snapshot *snapshot;

	assert_ok(hgm_snapshot_create(&snapshot, h, &o));
	return snapshot;
}

static char *map_file(int fd)
{
	char *at = mmap(NULL, LENGTH, PROT_READ, MAP_SHARED, fd, 0);

	assert_ptr_not_equal(at, MAP_FAILED);
	return at;
}

/* The process writes all the time, and stands still only while its snapshots begin. */
static void live_snapshots(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	vmm_do(&s.vmm, VMM_RUN, 4, 0);
	for (unsigned int i = 0; i < SNAPSHOTS; i++) {
		int fd = memfd_create("snapshot", MFD_CLOEXEC);
		struct hgm_snapshot *snapshot;
		uint64_t want;
		char *got;

		watch("a live snapshot of a process", 120);
		snapshot = snapshot_to(s.h, fd);
		vmm_do(&s.vmm, VMM_PAUSE, 0, 0);
		want = vmm_do(&s.vmm, VMM_HASH, 0, 0);
		assert_ok(hgm_snapshot_begin(snapshot));
		vmm_do(&s.vmm, VMM_RUN, 4, 0);
		assert_ok(hgm_snapshot_wait(snapshot, WAIT_MS));
		hgm_snapshot_destroy(snapshot);
		got = map_file(fd);
		if (vmm_hash(got, LENGTH) != want)
			fail_msg("snapshot %u is not of the instant", i);
		munmap(got, LENGTH);
		close(fd);
	}
	vmm_do(&s.vmm, VMM_PAUSE, 0, 0);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	if (kernel_has(KERNEL_PAGEMAP_SCAN)) /* before 6.4 only the process itself could help */
		assert_blocks_huge(&s, LENGTH);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHURN, 2, 1000), 0);
	scene_end(&s);
}

/* While the memory arrives, the snapshot reads the rest from the source. */
static void while_it_arrives(void **state)
{
	int fd = memfd_create("snapshot", MFD_CLOEXEC);
	struct hgm_snapshot *snapshot;
	struct scene s;
	char why[160];
	char *got;

	(void)state;
	scene_begin(&s, PROVIDER_LATER, 0);
	vmm_do(&s.vmm, VMM_WRITE, 100, 12345);
	snapshot = snapshot_to(s.h, fd);
	assert_ok(hgm_snapshot_begin(snapshot));
	for (uint64_t page = 0; page < PAGES; page += 7)
		vmm_do(&s.vmm, VMM_WRITE, page, ~page);
	assert_ok(hgm_snapshot_wait(snapshot, WAIT_MS));
	hgm_snapshot_destroy(snapshot);
	got = map_file(fd);
	assert_int_equal(*(uint64_t *)(got + 100 * PAGE), 12345);
	for (uint64_t page = 0; page < PAGES; page++)
		if (page != 100 && !words_right(&vmm_contents, page,
						(const uint64_t *)(got + page * PAGE), -1, why))
			fail_msg("page %llu: %s", (unsigned long long)page, why);
	munmap(got, LENGTH);
	close(fd);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_int_equal(vmm_do(&s.vmm, VMM_READ, 14, 0), ~UINT64_C(14));
	scene_end(&s);
}

static void dirty(void **state)
{
	struct hgm_dirty_opts o = { .size = sizeof(o) };
	uint64_t bitmap[PAGES / 64], found;
	struct hgm_dirty *d;
	struct scene s;

	(void)state;
	begin(&s);
	assert_ok(hgm_dirty_start(&d, s.region, &o));
	assert_ok(hgm_dirty_collect(d, 0, PAGES, bitmap, &found));
	for (unsigned int round = 0; round < 3; round++) {
		for (uint64_t page = round; page < PAGES; page += 97)
			vmm_do(&s.vmm, VMM_WRITE, page, page);
		assert_ok(hgm_dirty_collect(d, 0, PAGES, bitmap, &found));
		for (uint64_t page = 0; page < PAGES; page++)
			if ((bitmap[page / 64] >> page % 64 & 1) != (page % 97 == round))
				fail_msg("round %u: page %llu", round, (unsigned long long)page);
	}
	hgm_dirty_stop(d);
	vmm_do(&s.vmm, VMM_WRITE, 5, 5);
	scene_end(&s);
}

static _Atomic unsigned int told;

static enum hgm_write_verdict allow(void *user, struct hgm_region *r, const struct hgm_span *span)
{
	(void)user;
	(void)r;
	atomic_fetch_add(&told, span->offset == 9 * PAGE && span->length == PAGE);
	return HGM_WRITE_ALLOW;
}

static void watched(void **state)
{
	struct hgm_watch_opts o = { .size = sizeof(o), .write = allow };
	struct scene s;

	(void)state;
	begin(&s);
	assert_ok(hgm_region_watch(s.region, &o));
	assert_ok(hgm_region_protect(s.region, 0, LENGTH, 0, NULL));
	atomic_store(&told, 0);
	vmm_do(&s.vmm, VMM_WRITE, 9, 1);
	assert_int_equal(told, 1);
	assert_ok(hgm_region_unprotect(s.region, 0, LENGTH, 0, NULL));
	assert_ok(hgm_region_unwatch(s.region));
	vmm_do(&s.vmm, VMM_WRITE, 10, 1);
	scene_end(&s);
}

/* The handler ends in the midst of it. The process writes on, and its memory stays as it is. */
static void ends_protected(void **state)
{
	struct hgm_dirty_opts o = { .size = sizeof(o) };
	struct hgm_region_opts ro;
	struct hgm_dirty *d;
	struct scene s;

	(void)state;
	for (unsigned int complete = 0; complete < 2; complete++) {
		scene_begin(&s, PROVIDER_NEVER, HGM_REGION_NO_FILL);
		provider_answer_below(s.provider, complete ? PAGES : 100);
		assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 0, complete ? PAGES : 100), 0);
		assert_ok(hgm_dirty_start(&d, s.region, &o));
		hgm_peer_destroy(s.peer);
		hgm_dirty_stop(d);
		if (!complete) { /* the next handler finds it write-protected */
			vmm_tell(&s.vmm, VMM_WRITE, 5, 77);
			provider_answer_below(s.provider, PAGES);
			s.peer = peer_of(s.h, &s.vmm);
			ro = peer_region_opts(&s, 0);
			assert_ok(hgm_region_create(&s.region, s.h, &ro));
			vmm_answer(&s.vmm);
			assert_ok(hgm_wait(s.h, WAIT_MS));
		} else {
			vmm_do(&s.vmm, VMM_WRITE, 5, 77);
		}
		assert_int_equal(vmm_do(&s.vmm, VMM_READ, 5, 0), 77);
		assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 6, PAGES), 0);
		scene_end(&s);
	}
}

/* With these features the kernel would not report the writes. */
static void features_in_the_way(void **state)
{
	struct vmm_opts o = { .length = LENGTH,
			      .features = HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					  HGM_UFFD_FEATURE_WP_ASYNC };
	int fd = memfd_create("snapshot", MFD_CLOEXEC);
	struct hgm_snapshot_opts so = { .size = sizeof(so), .fd = fd };
	struct hgm_snapshot *snapshot;
	struct hgm_dirty *d;
	struct scene s;

	(void)state;
	skip_unless(KERNEL_PAGEMAP_SCAN); /* it came with WP_ASYNC */
	scene_begin_with(&s, &o, PROVIDER_MEMORY, 0);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_true(peer_info(s.peer).features & HGM_UFFD_FEATURE_WP_ASYNC);
	assert_error(hgm_dirty_start(&d, s.region, NULL), -EOPNOTSUPP);
	assert_error(hgm_region_watch(s.region, NULL), -EOPNOTSUPP);
	assert_error(hgm_snapshot_create(&snapshot, s.h, &so), -EOPNOTSUPP);
	close(fd);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHURN, 4, 1000), 0);
	scene_end(&s);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(live_snapshots), cmocka_unit_test(while_it_arrives),
	cmocka_unit_test(dirty),	  cmocka_unit_test(watched),
	cmocka_unit_test(ends_protected), cmocka_unit_test(features_in_the_way),
};

TEST_MAIN(tests)
