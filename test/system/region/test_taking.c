/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A caller's mapping becomes a region while its threads touch it and the engine runs. It stays when
 * the region ends. Between registration, dropping what was mapped, and the moment when the engine
 * knows the region, there are always threads that touch it. Nothing that was served may be dropped,
 * nothing that was dropped may be seen, and no thread may be forgotten.
 */
#include "harness.h"
#include "kernel/sys.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#define WAIT_MS	 SMALLER(20000, 100000)
#define LENGTH	 (4 * MIB)
#define TOUCHERS 4
#define PAUSE_US 20000

static const struct contents contents = { .seed = 23, .holes = true };
static const enum backing backings[] = { BACKING_MAPPING_ANON, BACKING_MAPPING,
					 BACKING_MAPPING_LAZY };
static struct hgm_sys sys;

/* The touchers start while the mapping is being dropped. */
static struct {
	bool wanted;
	bool came;
	struct plan plan;
	struct touchers touchers;
} during_drop;

static int slow_madvise(void *addr, uint64_t len, int advice)
{
	bool drops = advice == HGM_MADV_DONTNEED_LOCKED || advice == MADV_DONTNEED;
	bool comes = drops && during_drop.wanted && len == LENGTH;
	int rc;

	if (!comes)
		return hgm_sys_linux.madvise(addr, len, advice);
	if (!during_drop.came) {
		during_drop.came = true;
		during_drop.plan.addr = addr;
		touchers_start(&during_drop.touchers, TOUCHERS, &during_drop.plan);
	}
	nap_us(PAUSE_US);
	rc = hgm_sys_linux.madvise(addr, len, advice);
	nap_us(PAUSE_US);
	return rc;
}

/* A kernel without UFFDIO_POISON. */
static bool no_poison;

static int odd_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	int rc = hgm_sys_linux.uffd_api(fd, features, ioctls);

	if (no_poison)
		*features &= ~HGM_UFFD_FEATURE_POISON;
	return rc;
}

/* The kernel is busy or short of memory for this many calls. */
static _Atomic unsigned int busy_calls;
static int busy_says;

static int busy_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	unsigned int left = atomic_load(&busy_calls);

	if (left) {
		atomic_store(&busy_calls, left - 1);
		*done = busy_says;
		return busy_says;
	}
	return hgm_sys_linux.uffd_poison(fd, addr, len, mode, done);
}

static int set_up(void **state)
{
	(void)state;
	during_drop.wanted = false;
	no_poison = false;
	atomic_store(&busy_calls, 0);
	watch("a caller's mapping", 60);
	if (hgm_sys == &sys) /* it may be in use: a failed case leaves its engine behind */
		return 0;
	sys = hgm_sys_linux;
	sys.madvise = slow_madvise;
	sys.uffd_api = odd_api;
	sys.uffd_poison = busy_poison;
	hgm_sys = &sys;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	calm();
	return 0;
}

/* Each page holds its contents and the mark of each toucher. */
static void assert_marked(const char *addr)
{
	char why[160];

	for (uint64_t p = 0; p < LENGTH / PAGE; p++)
		for (int slot = 0; slot < TOUCHERS; slot++)
			if (!page_right(&contents, p, addr + p * PAGE, slot, why))
				fail_msg("at the end: %s", why);
}

/*
 * A mapping with no page mapped, so that a thread that touches it while it is registered waits. Its
 * file, if it has one, is full of other bytes.
 */
static char *map_untouched(int fd)
{
	char *raw = mmap(NULL, LENGTH + 2 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *at = raw + (-(uintptr_t)raw & (2 * MIB - 1));
	char page[PAGE];

	assert_ptr_not_equal(raw, MAP_FAILED);
	munmap(raw, (size_t)(at - raw));
	munmap(at + LENGTH, 2 * MIB - (size_t)(at - raw));
	memset(page, 0xa5, sizeof(page));
	for (uint64_t done = 0; fd >= 0 && done < LENGTH; done += PAGE)
		assert_int_equal(pwrite(fd, page, PAGE, (off_t)done), PAGE);
	assert_ptr_equal(mmap(at, LENGTH, PROT_READ | PROT_WRITE,
			      MAP_FIXED | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED), fd,
			      0),
			 at);
	return at;
}

static struct hgm_region_opts untouched(enum backing backing, struct hgm_source *src,
					uint32_t flags)
{
	struct hgm_region_opts o = { .size = sizeof(o),
				     .length = LENGTH,
				     .source = src,
				     .backing = HGM_BACKING_MAPPING,
				     .flags = flags,
				     .fd = -1 };

	if (backing == BACKING_MAPPING_LAZY)
		o.flags |= HGM_REGION_LAZY;
	if (backing != BACKING_MAPPING_ANON) {
		o.fd = memfd_create("theirs", MFD_CLOEXEC);
		assert_true(o.fd >= 0);
		assert_int_equal(ftruncate(o.fd, LENGTH), 0);
	}
	o.addr = map_untouched(o.fd);
	return o;
}

/*
 * A thread that comes while the mapping is being dropped is served in the end, and what it writes
 * stays.
 */
static void taken_under(enum backing backing, enum provider_kind kind, uint32_t flags)
{
	struct provider *provider = provider_make(kind, &contents, LENGTH);
	struct hgm_region_opts o = untouched(backing, provider_source(provider), flags);
	struct hgm *h = engine(2);
	struct hgm_region *region;

	during_drop.plan = (struct plan){
		.contents = &contents, .pages = LENGTH / PAGE, .passes = 2, .write = true
	};
	during_drop.came = false;
	during_drop.wanted = true;
	assert_ok(hgm_start(h));
	assert_ok(hgm_region_create(&region, h, &o));
	during_drop.wanted = false;
	if (!during_drop.came)
		fail_msg("%s: nothing was dropped", backing_names[backing]);
	touchers_join(&during_drop.touchers);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_marked(o.addr);
	hgm_region_destroy(region);
	munmap(o.addr, LENGTH);
	if (o.fd >= 0)
		close(o.fd);
	hgm_destroy(h);
	provider_free(provider);
}

static void batch_comes_while_it_is_dropped(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		taken_under(backings[i], PROVIDER_NOW, 0);
		taken_under(backings[i], PROVIDER_LATER, HGM_REGION_NO_FILL);
	}
}

/* Threads read all the time, from long before. What they mapped is not seen afterwards. */
struct reader {
	pthread_t thread;
	const char *addr;
	_Atomic bool stop;
};

static void *read_on(void *arg)
{
	struct reader *r = arg;
	uint8_t value;

	while (!atomic_load(&r->stop))
		for (uint64_t p = 0; p < LENGTH / PAGE && !atomic_load(&r->stop); p += 7)
			touch(r->addr + p * PAGE, &value);
	return NULL;
}

static void readers_all_along(void **state)
{
	struct provider *provider = provider_make(PROVIDER_MEMORY, &contents, LENGTH);
	struct hgm_region_opts o = untouched(BACKING_MAPPING_ANON, provider_source(provider), 0);
	struct hgm *h = engine(1);

	(void)state;
	assert_ok(hgm_start(h));
	for (unsigned int round = 0; round < SMALLER(20, 4); round++) {
		struct reader reader = { .addr = o.addr };
		struct hgm_region *region;

		assert_int_equal(pthread_create(&reader.thread, NULL, read_on, &reader), 0);
		nap_us(37 * round % 500);
		assert_ok(hgm_region_create(&region, h, &o));
		assert_ok(hgm_wait(h, WAIT_MS));
		atomic_store(&reader.stop, true);
		pthread_join(reader.thread, NULL);
		assert_pages(&contents, 0, LENGTH / PAGE, o.addr);
		hgm_region_destroy(region);
		memset(o.addr, 0xa5, LENGTH);
	}
	hgm_destroy(h);
	provider_free(provider);
	munmap(o.addr, LENGTH);
}

/*
 * At the end, pages that have not arrived are poisoned. A kernel that says "not now" is asked
 * again. Only a kernel that cannot poison at all may cost the caller the pages that have arrived.
 */
static void sealed_by_a_busy_kernel(enum backing backing, int says)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm *h = engine(2);
	struct ram ram;
	uint8_t value;

	ram_make(&ram, h, backing, LENGTH, provider_source(provider), HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	assert_pages(&contents, 5, 1, ram.addr + 5 * PAGE);
	assert_pages(&contents, 700, 1, ram.addr + 700 * PAGE);
	busy_says = says;
	atomic_store(&busy_calls, 9);
	hgm_region_destroy(ram.region);
	assert_int_equal(atomic_load(&busy_calls), 0);
	assert_pages(&contents, 5, 1, ram.addr + 5 * PAGE);
	assert_pages(&contents, 700, 1, ram.addr + 700 * PAGE);
	for (uint64_t p = 0; p < LENGTH / PAGE; p++)
		if (p != 5 && p != 700)
			assert_int_equal(touch(ram.addr + p * PAGE, &value), SIGBUS);
	ram_release(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

static void busy_kernel_at_the_end(void **state)
{
	(void)state;
	skip_unless(KERNEL_POISON);
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		sealed_by_a_busy_kernel(backings[i], -EAGAIN);
		sealed_by_a_busy_kernel(backings[i], -ENOMEM);
	}
}

/*
 * Then pages that have not arrived cannot be distinguished. All pages are lost, unless all have
 * arrived.
 */
static void no_poison_at_the_end(void **state)
{
	(void)state;
	no_poison = true;
	for (size_t i = 0; i < 2 * sizeof(backings) / sizeof(backings[0]); i++) {
		struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
		bool all = i % 2;
		struct hgm *h = engine(2);
		struct ram ram;
		uint8_t value;

		ram_make(&ram, h, backings[i / 2], LENGTH, provider_source(provider),
			 all ? 0 : HGM_REGION_NO_FILL);
		assert_ok(hgm_start(h));
		assert_pages(&contents, 5, 1, ram.addr + 5 * PAGE);
		if (all)
			assert_ok(hgm_wait(h, WAIT_MS));
		hgm_region_destroy(ram.region);
		if (all)
			assert_pages(&contents, 0, LENGTH / PAGE, ram.addr);
		for (uint64_t p = 0; !all && p < LENGTH / PAGE; p++)
			assert_int_equal(touch(ram.addr + p * PAGE, &value), SIGSEGV);
		ram_release(&ram);
		hgm_destroy(h);
		provider_free(provider);
	}
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(batch_comes_while_it_is_dropped),
	CASE(readers_all_along),
	CASE(busy_kernel_at_the_end),
	CASE(no_poison_at_the_end),
};

TEST_MAIN(tests)
