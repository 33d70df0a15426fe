/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Discards of all sizes, by all means, on pages that are present, absent and on their way, while
 * threads read and write, fill and collapse go on, and write-protection comes and goes. A shadow
 * records what each page must hold: contents of the source, zeroes, or what was written last. No
 * byte is wrong, no discarded contents come back, no write is lost, and no thread hangs.
 *
 * HGM_TEST_SECONDS: how long each kind of memory is tried; 2 if it is not set.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "random.h"

#define LENGTH	   (80 * MIB)
#define PAGES	   (LENGTH / PAGE)
#define TOUCHERS   8
#define DISCARDERS 2
#define ROUND_US   1000000

/* What a page must hold: one of these, or a generation from FIRST_WRITE on. */
#define SOURCE	    UINT64_C(0)
#define ZERO	    UINT64_C(1)
#define FIRST_WRITE UINT64_C(2)
#define BUSY	    (UINT64_C(1) << 63) /* a thread is changing it */

static const struct contents contents = { .seed = 77 };
static _Atomic uint64_t shadow[PAGES];
static _Atomic uint64_t generation;
static _Atomic bool stop;
static _Atomic uint64_t discards, checks, writes;
static struct ram ram;
static struct hgm *engine_now;
static enum backing backing_now;

struct worker {
	pthread_t thread;
	_Atomic uint64_t random;
	char why[200]; /* empty: nothing was wrong */
};

static void written(uint64_t page, uint64_t gen, uint64_t *to)
{
	uint64_t x = mix(page * 1000003 + gen);

	for (unsigned int i = 0; i < PAGE / sizeof(x); i++)
		to[i] = x + i;
}

static bool holds(uint64_t page, uint64_t what, const uint64_t *in, char why[200])
{
	uint64_t want[PAGE / sizeof(uint64_t)] = { 0 };

	if (what == SOURCE)
		contents_write(&contents, page, 1, want);
	else if (what != ZERO)
		written(page, what, want);
	for (unsigned int i = 0; i < PAGE / sizeof(want[0]); i++) {
		if (in[i] == want[i])
			continue;
		snprintf(why, 200, "%s: page %llu, word %u: %016llx instead of %016llx (%s)",
			 backing_names[backing_now], (unsigned long long)page, i,
			 (unsigned long long)in[i], (unsigned long long)want[i],
			 what == SOURCE ? "source"
			 : what == ZERO ? "discarded"
					: "written");
		return false;
	}
	return true;
}

static void read_page(struct worker *w, uint64_t page)
{
	uint64_t copy[PAGE / sizeof(uint64_t)];
	uint64_t before = atomic_load(&shadow[page]);

	if (before & BUSY)
		return;
	memcpy(copy, ram.addr + page * PAGE, PAGE);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&shadow[page]) != before)
		return;
	atomic_fetch_add(&checks, 1);
	if (!holds(page, before, copy, w->why))
		atomic_store(&stop, true);
}

static void write_page(uint64_t page)
{
	uint64_t gen = FIRST_WRITE + atomic_fetch_add(&generation, 1);
	uint64_t before = atomic_load(&shadow[page]);

	if (before & BUSY || !atomic_compare_exchange_strong(&shadow[page], &before, BUSY))
		return;
	written(page, gen, (uint64_t *)(ram.addr + page * PAGE));
	atomic_store(&shadow[page], gen);
	atomic_fetch_add(&writes, 1);
}

static void *toucher(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&stop)) {
		uint64_t page = random_of(&w->random) % PAGES;
		uint64_t run = 1 + random_of(&w->random) % 16;

		for (; run && page < PAGES && !atomic_load(&stop); run--, page++) {
			if (random_of(&w->random) % 4)
				read_page(w, page);
			else
				write_page(page);
		}
	}
	return NULL;
}

static int drop(struct worker *w, uint64_t offset, uint64_t length)
{
	uint64_t block = backing_block(backing_now);
	bool whole = offset % block == 0 && length % block == 0;
	bool hugetlb = backing_now >= BACKINGS_SMALL;
	bool anon = backing_now == BACKING_ANON || backing_now == BACKING_MAPPING_ANON;
	bool lazy = backing_now == BACKING_SHMEM_LAZY;
	bool arrived = progress_of(engine_now).present_bytes == LENGTH;
	int rc;

	/* By itself the kernel drops only whole huge pages, and reports no event for the rest. */
	if (!hugetlb || whole) {
		switch (random_of(&w->random) % 3) {
		case 0:
			/*
			 * If the kernel cannot split a huge page at once, it leaves pages allocated
			 * and zeroed. They look prepared, as if they had not arrived.
			 */
			if (!anon && !lazy && !hugetlb && !arrived)
				break;
			rc = madvise(ram.addr + offset, length, anon ? MADV_DONTNEED : MADV_REMOVE);
			return rc ? -errno : 0;
		case 1: /* no event reports this before arrival */
			if (ram.fd < 0 || !arrived)
				break;
			rc = fallocate(ram.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				       (off_t)offset, (off_t)length);
			return rc ? -errno : 0;
		}
	}
	return hgm_region_discard(ram.region, offset, length);
}

static void *discard(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&stop)) {
		uint64_t most = UINT64_C(1) << random_of(&w->random) % 15; /* 64 MiB at most */
		uint64_t pages = 1 + random_of(&w->random) % most;
		uint64_t first = random_of(&w->random) % PAGES;
		uint64_t block = backing_block(backing_now) / PAGE;
		int rc;

		if (random_of(&w->random) % 4 == 0) {
			first = first / block * block;
			pages = (pages + block - 1) / block * block;
		}
		pages = pages < PAGES - first ? pages : PAGES - first;
		for (uint64_t page = first; page < first + pages; page++) {
			uint64_t before = atomic_load(&shadow[page]);

			while (before & BUSY ||
			       !atomic_compare_exchange_weak(&shadow[page], &before, BUSY)) {
				sched_yield();
				before = atomic_load(&shadow[page]);
			}
		}
		rc = drop(w, first * PAGE, pages * PAGE);
		if (rc) {
			snprintf(w->why, sizeof(w->why),
				 "%s: discarding %llu pages at %llu: %s: %s",
				 backing_names[backing_now], (unsigned long long)pages,
				 (unsigned long long)first, strerrorname_np(-rc), hgm_errmsg());
			atomic_store(&stop, true);
		}
		for (uint64_t page = first; page < first + pages; page++)
			atomic_store(&shadow[page], ZERO);
		atomic_fetch_add(&discards, 1);
		nap_us((unsigned int)(random_of(&w->random) % 2000));
	}
	return NULL;
}

static int64_t sink(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	(void)user;
	(void)buf;
	(void)offset;
	return (int64_t)length;
}

static void snapshot_once(struct worker *w)
{
	struct hgm_snapshot_opts o = { .size = sizeof(o), .write = sink };
	struct hgm_snapshot *s;

	if (hgm_snapshot_create(&s, engine_now, &o))
		return;
	if (!hgm_snapshot_begin(s)) {
		/* The snapshot need not have contents that are dropped while it runs. */
		hgm_snapshot_wait(s, (int)(random_of(&w->random) % 100));
	}
	hgm_snapshot_destroy(s);
}

static void track_once(struct worker *w)
{
	struct hgm_dirty_opts o = {
		.size = sizeof(o),
		.flags = (random_of(&w->random) & 1 ? HGM_DIRTY_SYNC : 0) |
			 (random_of(&w->random) & 1 ? HGM_DIRTY_EXACT : 0),
	};
	uint64_t bitmap[PAGES / 64], dirty;
	struct hgm_dirty *d;

	if (backing_now >= BACKINGS_SMALL)
		o.flags &= ~HGM_DIRTY_EXACT;
	if (hgm_dirty_start(&d, ram.region, &o))
		return;
	for (int i = 0; i < 3; i++) {
		nap_us(2000);
		hgm_dirty_collect(d, 0, PAGES, bitmap, &dirty);
	}
	hgm_dirty_stop(d);
}

static void *protect(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&stop)) {
		nap_us(10000);
		if (random_of(&w->random) & 1)
			track_once(w);
		else
			snapshot_once(w);
		hgm_region_collapse(ram.region);
	}
	return NULL;
}

static void join(struct worker *w, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		pthread_join(w[i].thread, NULL);
	for (unsigned int i = 0; i < n; i++)
		if (w[i].why[0])
			fail_msg("%s", w[i].why);
}

static void check_all(void)
{
	char why[200];

	for (uint64_t page = 0; page < PAGES; page++)
		if (!holds(page, atomic_load(&shadow[page]),
			   (const uint64_t *)(ram.addr + page * PAGE), why))
			fail_msg("in the end: %s", why);
}

static void one_round(uint64_t seed)
{
	static const enum provider_kind kinds[] = { PROVIDER_LATER, PROVIDER_MEMORY, PROVIDER_NOW,
						    PROVIDER_MIXED };
	static const uint32_t flags[] = { 0, 0, HGM_REGION_NO_FILL, HGM_REGION_NO_COLLAPSE };
	struct provider *provider = provider_make(kinds[seed % 4], &contents, LENGTH);
	struct hgm_opts opts = { .size = sizeof(opts), .fault_threads = 2, .spin_us = 20 };
	struct worker w[TOUCHERS + DISCARDERS + 1] = { 0 };
	unsigned int n = TOUCHERS + DISCARDERS + 1;

	for (uint64_t page = 0; page < PAGES; page++)
		atomic_store(&shadow[page], SOURCE);
	atomic_store(&stop, false);
	assert_ok(hgm_create(&engine_now, &opts));
	ram_make(&ram, engine_now, backing_now, LENGTH, provider_source(provider),
		 flags[seed / 4 % 4]);
	assert_ok(hgm_start(engine_now));
	watch("discards", 60);
	for (unsigned int i = 0; i < n; i++) {
		w[i].random = seed * 100 + i + 1;
		pthread_create(&w[i].thread, NULL,
			       i < TOUCHERS		   ? toucher
			       : i < TOUCHERS + DISCARDERS ? discard
							   : protect,
			       &w[i]);
	}
	for (uint64_t end = now_us() + ROUND_US; now_us() < end && !atomic_load(&stop);)
		nap_us(2000);
	atomic_store(&stop, true);
	join(w, n);
	if (!(flags[seed / 4 % 4] & HGM_REGION_NO_FILL))
		assert_ok(hgm_wait(engine_now, 30000));
	check_all();
	assert_int_equal(progress_of(engine_now).poisoned_bytes, 0);
	calm();
	ram_end(&ram);
	hgm_destroy(engine_now);
	provider_free(provider);
}

static unsigned int seconds(void)
{
	const char *text = getenv("HGM_TEST_SECONDS");

	return text ? (unsigned int)atoi(text) : 2;
}

static void on(enum backing backing)
{
	uint64_t end = now_us() + seconds() * UINT64_C(1000000);
	const char *lacking = backing_lacking(backing, LENGTH);
	const char *text = getenv("HGM_TEST_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : now_us();

	if (lacking)
		test_skip("%s", lacking);
	backing_now = backing;
	printf("HGM_TEST_SEED=%llu\n", (unsigned long long)seed);
	atomic_store(&discards, 0);
	atomic_store(&checks, 0);
	atomic_store(&writes, 0);
	do
		one_round(seed++);
	while (now_us() < end);
	printf("%s: %llu discards, %llu reads checked, %llu writes\n", backing_names[backing],
	       (unsigned long long)discards, (unsigned long long)checks,
	       (unsigned long long)writes);
	assert_true(atomic_load(&discards) && atomic_load(&checks) && atomic_load(&writes));
}

#define ON(name, backing)              \
	static void name(void **state) \
	{                              \
		(void)state;           \
		on(backing);           \
	}

ON(shmem, BACKING_SHMEM)
ON(shmem_lazy, BACKING_SHMEM_LAZY)
ON(anon, BACKING_ANON)
ON(callers_file, BACKING_FD)
ON(callers_mapping, BACKING_MAPPING)
ON(hugetlb, BACKING_FD_HUGETLB_2M)

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(shmem),
	cmocka_unit_test(shmem_lazy),
	cmocka_unit_test(anon),
	cmocka_unit_test(callers_file),
	cmocka_unit_test(callers_mapping),
	cmocka_unit_test(hugetlb),
};

TEST_MAIN(tests)
