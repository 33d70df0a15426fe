/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Something else is mapped inside a region, or a part of it is unmapped, moved or made
 * inaccessible. The rest is served as before, no thread is left asleep when the region ends, and
 * the foreign mapping stays.
 */
#include "discarding.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(6 * MIB)
#define PAGES	(LENGTH / PAGE)
#define BLOCK	512  /* pages */
#define ARRIVES 1200 /* pages below it arrive, pages from it on never do */

static const struct contents contents = { .seed = 239 };
static const enum backing backings[] = { BACKING_SHMEM,	       BACKING_SHMEM_LAZY,
					 BACKING_ANON,	       BACKING_MAPPING,
					 BACKING_MAPPING_LAZY, BACKING_MAPPING_ANON,
					 BACKING_FD,	       BACKING_HUGETLB_2M };

#define EACH_BACKING (sizeof(backings) / sizeof(backings[0]))

struct trial {
	enum backing backing;
	char what[100];
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	uint64_t first, pages; /* no longer the region's */
	char *theirs;	       /* what is mapped there now */
};

/* False: there is no such memory, or it is not this trial's turn. */
static bool begin(struct trial *t, enum backing backing, const char *how)
{
	static unsigned int turn;

	if (backing_lacking(backing, LENGTH) || !turn_of(&turn, 3))
		return false;
	memset(t, 0, sizeof(*t));
	t->backing = backing;
	snprintf(t->what, sizeof(t->what), "%s, %s", backing_names[backing], how);
	watch(t->what, 60);
	t->provider = provider_make(PROVIDER_NEVER, &contents, LENGTH);
	provider_answer_below(t->provider, ARRIVES);
	t->h = engine(2);
	ram_make(&t->ram, t->h, backing, LENGTH, provider_source(t->provider), HGM_REGION_NO_FILL);
	t->first = backing >= BACKINGS_SMALL ? BLOCK : BLOCK + 16;
	t->pages = backing >= BACKINGS_SMALL ? BLOCK : 8;
	t->theirs = t->ram.addr + t->first * PAGE;
	return true;
}

static bool is_callers(const struct trial *t)
{
	return t->ram.mapping;
}

static void map_over(struct trial *t)
{
	char *at = mmap(t->theirs, t->pages * PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	assert_ptr_equal(at, t->theirs);
	memset(at, 0x77, t->pages * PAGE);
}

static void assert_theirs(const struct trial *t)
{
	for (uint64_t i = 0; i < t->pages * PAGE; i++)
		if (t->theirs[i] != 0x77)
			fail_msg("%s: byte %llu of what is mapped there is %#x", t->what,
				 (unsigned long long)i, (unsigned int)(uint8_t)t->theirs[i]);
}

/* The region continues before and after the foreign part. */
static void assert_neighbours(const struct trial *t)
{
	assert_pages(&contents, t->first - 1, 1, t->theirs - PAGE);
	if (t->backing < BACKINGS_SMALL) /* for the others the next block never arrives */
		assert_pages(&contents, t->first + t->pages, 1, t->theirs + t->pages * PAGE);
	assert_pages(&contents, 5, 1, t->ram.addr + 5 * PAGE);
}

/* After an incomplete region has ended: as documented, without poison nothing is accessible. */
static void assert_ended(const struct trial *t)
{
	uint8_t value;

	if (is_callers(t) && kernel_has(KERNEL_POISON)) {
		assert_neighbours(t);
		return;
	}
	assert_int_equal(touch(t->theirs - PAGE, &value), SIGSEGV);
	assert_int_equal(touch(t->theirs + t->pages * PAGE, &value), SIGSEGV);
	assert_int_equal(touch(t->ram.addr + 5 * PAGE, &value), SIGSEGV);
}

struct asleep {
	struct trial *t;
	struct waiter w[2];
};

static bool both_wait(void *arg)
{
	return provider_kept(((struct asleep *)arg)->t->provider) >= 2;
}

/* Two threads that wait for pages that never arrive: after the foreign part and at the end. */
static void fall_asleep(struct asleep *a, struct trial *t)
{
	a->t = t;
	waiter_start(&a->w[0], t->ram.addr + (ARRIVES + 1) * PAGE);
	waiter_start(&a->w[1], t->ram.addr + (PAGES - 1) * PAGE);
	if (!eventually(both_wait, a, 5000))
		fail_msg("%s: the source is asked %u times", t->what, provider_kept(t->provider));
}

static void assert_released(struct asleep *a)
{
	for (unsigned int i = 0; i < 2; i++) {
		waiter_join(&a->w[i]); /* must return in time */
		if (is_callers(a->t) && kernel_has(KERNEL_POISON))
			assert_int_equal(a->w[i].signal, SIGBUS);
		else
			assert_int_equal(a->w[i].signal, SIGSEGV);
	}
}

static void end(struct trial *t)
{
	char *theirs = t->theirs;
	bool callers = is_callers(t);

	ram_release(&t->ram);
	hgm_destroy(t->h);
	provider_free(t->provider);
	if (!callers)
		munmap(theirs, t->pages * PAGE);
	calm();
}

static void mapped_over(enum backing backing, bool started)
{
	struct asleep asleep;
	struct trial t;
	uint8_t value;

	if (!begin(&t, backing, started ? "mapped over" : "mapped over before the start"))
		return;
	if (!started)
		map_over(&t);
	assert_ok(hgm_start(t.h));
	if (started) {
		assert_pages(&contents, t.first + 1, 1, t.theirs + PAGE);
		map_over(&t);
	}
	assert_neighbours(&t);
	assert_ok(hgm_region_prefetch(t.ram.region, 0, 3 * MIB / 2)); /* fill skips it */
	nap_us(5000);
	assert_theirs(&t);
	fall_asleep(&asleep, &t);
	hgm_region_destroy(t.ram.region);
	assert_released(&asleep);
	assert_theirs(&t);
	assert_ended(&t);
	assert_int_not_equal(touch(t.ram.addr + (PAGES - 7) * PAGE, &value), 0);
	end(&t);
}

static void what_is_mapped_over_it_stays(void **state)
{
	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		mapped_over(backings[i], true);
		mapped_over(backings[i], false);
	}
}

/* Begins with all contents present. */
static bool begin_complete(struct trial *t, enum backing backing, const char *how)
{
	if (!begin(t, backing, how))
		return false;
	provider_answer_below(t->provider, PAGES);
	assert_ok(hgm_start(t->h));
	assert_ok(hgm_region_prefetch(t->ram.region, 0, LENGTH));
	assert_ok(hgm_wait(t->h, WAIT_MS));
	map_over(t);
	assert_neighbours(t);
	return true;
}

/* Collapsing again does not affect the foreign mapping. */
static void mapped_over_later(enum backing backing)
{
	struct trial t;

	if (!begin_complete(&t, backing, "mapped over later"))
		return;
	if (backing_can_be_huge(backing))
		assert_ok(hgm_region_collapse(t.ram.region));
	nap_us(20000);
	assert_neighbours(&t);
	assert_theirs(&t);
	hgm_region_destroy(t.ram.region);
	assert_theirs(&t);
	if (is_callers(&t))
		assert_neighbours(&t);
	end(&t);
}

static void mapped_over_when_all_is_there(void **state)
{
	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++)
		mapped_over_later(backings[i]);
}

/* All other threads sleep, so none is about to map something into a hole. */
static bool others_sleep(void *arg)
{
	DIR *dir = opendir("/proc/self/task");
	const struct dirent *entry;
	unsigned int awake = 0;

	(void)arg;
	while (dir && (entry = readdir(dir))) {
		char path[300], state = 'S';
		FILE *file;

		snprintf(path, sizeof(path), "/proc/self/task/%s/stat", entry->d_name);
		file = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
		if (!file)
			continue;
		if (fscanf(file, "%*d (%*[^)]) %c", &state) == 1)
			awake += state != 'S';
		fclose(file);
	}
	if (dir)
		closedir(dir);
	return awake <= 1; /* this thread */
}

/*
 * A hole in the address space stays a hole, for the guest and for what others map there later.
 */
static void unmapped_then_used_by_others(void **state)
{
	struct asleep asleep;
	struct trial t;
	uint8_t value;

	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		if (!begin(&t, backings[i], "unmapped"))
			continue;
		assert_ok(hgm_start(t.h));
		assert_true(eventually(others_sleep, NULL, WAIT_MS));
		assert_int_equal(munmap(t.theirs, t.pages * PAGE), 0);
		assert_int_equal(touch(t.theirs, &value), SIGSEGV);
		assert_neighbours(&t);
		map_over(&t);
		fall_asleep(&asleep, &t);
		hgm_region_destroy(t.ram.region);
		assert_released(&asleep);
		assert_theirs(&t);
		end(&t);
	}
}

static void discard_all(struct trial *t, const char *what)
{
	int rc = hgm_region_discard(t->ram.region, 0, LENGTH);

	if (rc)
		fail_msg("%s, %s: %s", t->what, what, hgm_errmsg());
}

/* A whole region is discarded, although a part of it is no longer its own. */
static void discarded_with_the_rest(void **state)
{
	struct trial t;

	(void)state;
	for (size_t i = 0; i < 2 * EACH_BACKING; i++) {
		bool complete = i % 2;
		enum backing backing = backings[i / 2];

		if (complete ? !begin_complete(&t, backing, "discarded when all is there")
			     : !begin(&t, backing, "discarded"))
			continue;
		if (!complete) {
			assert_ok(hgm_start(t.h));
			map_over(&t);
		}
		discard_all(&t, "mapped over");
		assert_theirs(&t);
		assert_zeroes(t.ram.addr, t.first * PAGE, t.what);
		assert_zeroes(t.theirs + t.pages * PAGE, (PAGES - t.first - t.pages) * PAGE,
			      t.what);
		hgm_region_destroy(t.ram.region);
		assert_theirs(&t);
		end(&t);

		if (!begin(&t, backing, "unmapped, discarded"))
			continue;
		assert_ok(hgm_start(t.h));
		assert_int_equal(munmap(t.theirs, t.pages * PAGE), 0);
		discard_all(&t, "unmapped");
		map_over(&t);
		assert_zeroes(t.ram.addr, t.first * PAGE, t.what);
		hgm_region_destroy(t.ram.region);
		assert_theirs(&t);
		end(&t);
	}
}

/* Hot-unplug by mprotect(2). The memory still belongs to the region. */
static void made_inaccessible(void **state)
{
	struct asleep asleep;
	struct trial t;
	uint8_t value;

	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		if (!begin(&t, backings[i], "PROT_NONE"))
			continue;
		assert_ok(hgm_start(t.h));
		assert_int_equal(mprotect(t.theirs, t.pages * PAGE, PROT_NONE), 0);
		assert_int_equal(touch(t.theirs, &value), SIGSEGV);
		assert_neighbours(&t);
		assert_ok(hgm_region_discard(t.ram.region, t.first * PAGE, t.pages * PAGE));
		/* Plugged in again. */
		assert_int_equal(mprotect(t.theirs, t.pages * PAGE, PROT_READ | PROT_WRITE), 0);
		assert_zeroes(t.theirs, t.pages * PAGE, t.what);
		memset(t.theirs, 0x77, t.pages * PAGE);
		assert_int_equal(mprotect(t.theirs, t.pages * PAGE, PROT_NONE), 0);
		fall_asleep(&asleep, &t);
		hgm_region_destroy(t.ram.region);
		assert_released(&asleep);
		assert_int_equal(touch(t.theirs, &value), SIGSEGV);
		if (is_callers(&t)) {
			assert_int_equal(mprotect(t.theirs, t.pages * PAGE, PROT_READ), 0);
			assert_theirs(&t);
		}
		end(&t);
	}
}

/* Pages that have arrived move along. The rest is unknown now, and raises SIGBUS. */
static void moved(enum backing backing)
{
	struct trial t;
	uint8_t value;
	char *to, *at;

	if (!begin(&t, backing, "moved"))
		return;
	assert_ok(hgm_start(t.h));
	t.first = BLOCK;
	t.pages = BLOCK;
	t.theirs = t.ram.addr + t.first * PAGE;
	assert_pages(&contents, t.first, 1, t.theirs);
	to = mmap(NULL, 2 * BLOCK * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		  -1, 0);
	assert_ptr_not_equal(to, MAP_FAILED);
	at = to + (-(uintptr_t)to & (BLOCK * PAGE - 1));
	assert_ptr_equal(mremap(t.theirs, t.pages * PAGE, t.pages * PAGE,
				MREMAP_MAYMOVE | MREMAP_FIXED, at),
			 at);
	assert_pages(&contents, t.first, 1, at);
	assert_int_equal(touch(at + 300 * PAGE, &value), SIGBUS);
	assert_int_equal(touch(at + 300 * PAGE, &value), SIGBUS);
	assert_int_equal(touch(t.theirs, &value), SIGSEGV);
	assert_neighbours(&t);
	map_over(&t);
	hgm_region_destroy(t.ram.region);
	assert_int_equal(touch(at + 310 * PAGE, &value), SIGBUS);
	assert_pages(&contents, t.first, 1, at);
	assert_theirs(&t);
	end(&t);
	munmap(to, 2 * BLOCK * PAGE);
}

static void moved_memory_is_no_zeroes(void **state)
{
	(void)state;
	skip_unless(KERNEL_POISON);
	for (size_t i = 0; i < EACH_BACKING; i++)
		if (backings[i] < BACKINGS_SMALL)
			moved(backings[i]);
}

static bool is_set(const uint64_t *bitmap, uint64_t page)
{
	return bitmap[page / 64] >> page % 64 & 1;
}

static void tracked(struct trial *t, uint32_t flags)
{
	const struct hgm_dirty_opts opts = { .size = sizeof(opts), .flags = flags };
	const uint64_t written[] = { 5, t->first - 1, t->first + t->pages };
	uint64_t bitmap[PAGES / 64];
	struct hgm_dirty *d;

	assert_ok(hgm_dirty_start(&d, t->ram.region, &opts));
	assert_ok(hgm_dirty_collect(d, 0, PAGES, bitmap, NULL));
	assert_ok(hgm_dirty_collect(d, 0, PAGES, bitmap, NULL));
	for (size_t i = 0; i < 3; i++)
		if (is_set(bitmap, written[i]))
			fail_msg("%s: page %llu is dirty before it was written to", t->what,
				 (unsigned long long)written[i]);
	for (size_t i = 0; i < 3; i++)
		*(volatile char *)(t->ram.addr + written[i] * PAGE) += 1;
	memset(t->theirs, 0x77, t->pages * PAGE);
	assert_ok(hgm_dirty_collect(d, 0, PAGES, bitmap, NULL));
	for (size_t i = 0; i < 3; i++) {
		if (!is_set(bitmap, written[i]))
			fail_msg("%s: page %llu was written to and is not dirty", t->what,
				 (unsigned long long)written[i]);
		*(volatile char *)(t->ram.addr + written[i] * PAGE) -= 1;
	}
	hgm_dirty_stop(d);
}

static int64_t keep(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	memcpy((char *)user + offset, buf, length);
	return (int64_t)length;
}

static void saved(struct trial *t)
{
	static char image[LENGTH];
	const struct hgm_snapshot_opts opts = { .size = sizeof(opts),
						.write = keep,
						.user = image };
	struct hgm_snapshot *s;

	memset(image, 0, sizeof(image)); /* the snapshot omits zero pages */
	assert_ok(hgm_snapshot_create(&s, t->h, &opts));
	assert_ok(hgm_snapshot_begin(s));
	*(volatile char *)(t->theirs - PAGE) += 1;
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	*(volatile char *)(t->theirs - PAGE) -= 1;
	assert_pages(&contents, 0, t->first, image);
	assert_zeroes(image + t->first * PAGE, t->pages * PAGE, t->what);
	assert_pages(&contents, t->first + t->pages, PAGES - t->first - t->pages,
		     image + (t->first + t->pages) * PAGE);
}

static void mapped_over_and_watched(enum backing backing)
{
	struct trial t;

	if (!begin_complete(&t, backing, "mapped over and watched"))
		return;
	tracked(&t, HGM_DIRTY_SYNC);
	tracked(&t, 0);
	saved(&t);
	assert_theirs(&t);
	end(&t);
}

/* The memory around the foreign mapping is tracked, and is in snapshots, as before. */
static void the_rest_is_watched(void **state)
{
	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++)
		mapped_over_and_watched(backings[i]);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(what_is_mapped_over_it_stays),
	cmocka_unit_test(mapped_over_when_all_is_there),
	cmocka_unit_test(unmapped_then_used_by_others),
	cmocka_unit_test(discarded_with_the_rest),
	cmocka_unit_test(the_rest_is_watched),
	cmocka_unit_test(made_inaccessible),
	cmocka_unit_test(moved_memory_is_no_zeroes),
};

TEST_MAIN(tests)
