/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Contents that arrive without a request. The first contents of a page win, and threads that wait
 * for the page go on.
 */
#include "discarding.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH	(8 * MIB)
#define PAGES	(LENGTH / PAGE)
#define PUTTERS 3
#define WAIT_MS SMALLER(20000, 100000)

static const struct contents contents = { .seed = 271 };

static char *expected;

struct scene {
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
};

static bool begin(struct scene *s, enum backing backing, enum provider_kind kind, uint32_t flags)
{
	if (backing_lacking(backing, LENGTH))
		return false;
	watch(backing_names[backing], 100);
	s->provider = provider_make(kind, &contents, LENGTH);
	s->h = engine(2);
	ram_make(&s->ram, s->h, backing, LENGTH, provider_source(s->provider), flags);
	assert_ok(hgm_start(s->h));
	return true;
}

static void end(struct scene *s)
{
	assert_int_equal(progress_of(s->h).poisoned_bytes, 0);
	ram_end(&s->ram);
	hgm_destroy(s->h);
	provider_free(s->provider);
	calm();
}

/* Puts a whole region in pieces of all sizes, from some page on. Other threads do the same. */
struct putter {
	pthread_t thread;
	struct hgm_region *r;
	uint64_t seed;
	int64_t taken;
};

static void *put_all(void *arg)
{
	struct putter *p = arg;
	uint64_t at = mix(p->seed) % PAGES, left = PAGES;

	for (uint64_t i = 1; left; i++) {
		uint64_t pages = 1 + mix(p->seed + i) % (i % 4 ? 20 : 700);
		int64_t n;

		pages = pages < PAGES - at ? pages : PAGES - at;
		pages = pages < left ? pages : left;
		n = hgm_region_put(p->r, at * PAGE, expected + at * PAGE, pages * PAGE);
		assert_true(n >= 0 && (uint64_t)n <= pages * PAGE && n % PAGE == 0);
		p->taken += n;
		at = (at + pages) % PAGES;
		left -= pages;
	}
	return NULL;
}

static const enum backing backings[] = { BACKING_SHMEM,	     BACKING_SHMEM_LAZY,  BACKING_ANON,
					 BACKING_FD,	     BACKING_MAPPING,	  BACKING_FD_LAZY,
					 BACKING_HUGETLB_2M, BACKING_MAPPING_ANON };
#define KINDS (sizeof(backings) / sizeof(backings[0]))

/*
 * The source never answers. All contents are put, and each page is taken once. Then threads touch
 * all pages.
 */
static void each_page_is_taken_once(void **state)
{
	(void)state;
	for (size_t i = 0; i < KINDS; i++) {
		struct putter putter[PUTTERS];
		struct touchers touchers;
		struct plan plan = { .contents = &contents, .pages = PAGES, .write = true };
		struct scene s;
		int64_t taken = 0;

		if (!begin(&s, backings[i], PROVIDER_NEVER, HGM_REGION_NO_FILL))
			continue;
		for (unsigned int n = 0; n < PUTTERS; n++) {
			putter[n] = (struct putter){ .r = s.ram.region, .seed = 1000 * i + n };
			assert_int_equal(
				pthread_create(&putter[n].thread, NULL, put_all, &putter[n]), 0);
		}
		for (unsigned int n = 0; n < PUTTERS; n++) {
			pthread_join(putter[n].thread, NULL);
			taken += putter[n].taken;
		}
		assert_int_equal(taken, LENGTH);
		assert_int_equal(info_of(s.ram.region).present_bytes, LENGTH);
		plan.addr = s.ram.addr;
		touchers_start(&touchers, 4, &plan);
		touchers_join(&touchers);
		end(&s);
	}
}

/*
 * The source answers, and fill is on. Whichever is first, the contents are right, and the memory
 * becomes huge.
 */
static void beside_fill(void **state)
{
	(void)state;
	for (size_t i = 0; i < KINDS; i++) {
		struct putter putter = { .seed = i };
		struct touchers touchers;
		struct plan plan = { .contents = &contents, .pages = PAGES, .write = true };
		struct scene s;

		if (!begin(&s, backings[i], i % 2 ? PROVIDER_LATER : PROVIDER_MEMORY, 0))
			continue;
		putter.r = s.ram.region;
		plan.addr = s.ram.addr;
		assert_int_equal(pthread_create(&putter.thread, NULL, put_all, &putter), 0);
		touchers_start(&touchers, 4, &plan);
		touchers_join(&touchers);
		pthread_join(putter.thread, NULL);
		assert_ok(hgm_wait(s.h, WAIT_MS));
		assert_int_equal(info_of(s.ram.region).present_bytes, LENGTH);
		end(&s);
	}
}

/* Zeroes are put. Pages that have arrived or were discarded stay as they are. */
static void what_is_there_stays(void **state)
{
	(void)state;
	for (size_t i = 0; i < KINDS; i++) {
		uint64_t unit = backings[i] >= BACKINGS_SMALL ? 512 : 8;
		struct scene s;

		if (!begin(&s, backings[i], PROVIDER_NEVER, HGM_REGION_NO_FILL))
			continue;
		assert_ok(hgm_region_discard(s.ram.region, 0, unit * PAGE));
		assert_int_equal(hgm_region_put(s.ram.region, 0, expected, unit * PAGE), 0);
		assert_int_equal(hgm_region_put(s.ram.region, unit * PAGE, NULL, unit * PAGE),
				 unit * PAGE);
		assert_int_equal(hgm_region_put(s.ram.region, unit * PAGE, expected,
						2 * unit * PAGE),
				 unit * PAGE);
		assert_zeroes(s.ram.addr, 2 * unit * PAGE, backing_names[backings[i]]);
		assert_int_equal(memcmp(s.ram.addr + 2 * unit * PAGE, expected + unit * PAGE,
					unit * PAGE),
				 0);
		assert_int_equal(hgm_region_put(s.ram.region, LENGTH, expected, 0), 0);
		end(&s);
	}
}

static void bad_input(void **state)
{
	struct scene s = { .h = NULL };

	(void)state;
	assert_true(begin(&s, BACKING_SHMEM, PROVIDER_NEVER, HGM_REGION_NO_FILL));
	assert_error(hgm_region_put(NULL, 0, expected, PAGE), -EINVAL);
	assert_error(hgm_region_put(s.ram.region, 1, expected, PAGE), -EINVAL);
	assert_error(hgm_region_put(s.ram.region, 0, expected, PAGE + 1), -EINVAL);
	assert_error(hgm_region_put(s.ram.region, LENGTH, expected, PAGE), -EINVAL);
	assert_error(hgm_region_put(s.ram.region, PAGE, expected, UINT64_MAX - 4095), -EINVAL);
	assert_int_equal(info_of(s.ram.region).present_bytes, 0);
	end(&s);
}

/* A buffer may have any address. */
static void from_any_address(void **state)
{
	const uint64_t at = MIB;
	struct scene s = { .h = NULL };
	void *buf = mmap((void *)at, PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	(void)state;
	if (buf != (void *)at)
		test_skip("nothing can be mapped at %#llx here", (unsigned long long)at);
	memcpy(buf, expected + at, PAGE);
	assert_true(begin(&s, BACKING_SHMEM, PROVIDER_NEVER, HGM_REGION_NO_FILL));
	assert_int_equal(hgm_region_put(s.ram.region, at, buf, PAGE), PAGE);
	assert_pages(&contents, at / PAGE, 1, s.ram.addr + at);
	end(&s);
	munmap(buf, PAGE);
}

/*
 * The caller's file was truncated. Contents behind its end need not be taken, and no thread gets a
 * signal.
 */
static void into_a_truncated_file(void **state)
{
	static const enum backing files[] = { BACKING_FD, BACKING_MAPPING, BACKING_FD_LAZY };
	static const enum provider_kind kinds[] = { PROVIDER_FILE, PROVIDER_NEVER,
						    PROVIDER_MEMORY };

	(void)state;
	for (size_t i = 0; i < 9; i++) {
		int64_t taken;
		struct scene s = { .h = NULL };

		assert_true(begin(&s, files[i % 3], kinds[i / 3], HGM_REGION_NO_FILL));
		assert_int_equal(ftruncate(s.ram.fd, LENGTH / 2), 0);
		taken = hgm_region_put(s.ram.region, LENGTH / 4, expected + LENGTH / 4, LENGTH / 2);
		assert_true(taken >= (int64_t)LENGTH / 4);
		assert_pages(&contents, PAGES / 4, PAGES / 4, s.ram.addr + LENGTH / 4);
		taken = hgm_region_put(s.ram.region, 0, NULL, LENGTH);
		assert_true(taken >= (int64_t)LENGTH / 4);
		assert_zeroes(s.ram.addr, LENGTH / 4, backing_names[files[i % 3]]);
		ram_end(&s.ram);
		hgm_destroy(s.h);
		provider_free(s.provider);
		calm();
	}
}

/* A source must not put from a fault thread, because it would wait for itself. */
static struct {
	_Atomic(struct hgm_region *) region;
	_Atomic int64_t said;
	struct hgm_io kept;
	_Atomic bool asked;
} asked;

static int64_t puts_from_inside(void *user, const struct hgm_io *io)
{
	(void)user;
	atomic_store(&asked.said, hgm_region_put(asked.region, 0, NULL, PAGE));
	return (int64_t)io->length | HGM_IO_ZERO;
}

static void on_a_fault_thread(void **state)
{
	struct hgm_source *src;
	struct ram ram;
	struct hgm *h = engine(1);
	uint8_t value;

	(void)state;
	assert_ok(hgm_source_fn(&src, puts_from_inside, NULL, NULL));
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, HGM_REGION_NO_FILL);
	atomic_store(&asked.region, ram.region);
	assert_error(hgm_region_put(ram.region, 0, expected, PAGE), -EINVAL); /* not started yet */
	assert_ok(hgm_start(h));
	assert_int_equal(touch(ram.addr + 3 * PAGE, &value), 0);
	assert_int_equal(atomic_load(&asked.said), -EDEADLK);
	/* A worker must not put either. */
	atomic_store(&asked.said, 0);
	assert_ok(hgm_region_prefetch(ram.region, MIB, PAGE));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_int_equal(atomic_load(&asked.said), -EDEADLK);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
}

static int64_t keep(void *user, const struct hgm_io *io)
{
	(void)user;
	asked.kept = *io; /* only one page is touched */
	atomic_store(&asked.asked, true);
	return HGM_IO_LATER;
}

static void *destroy(void *region)
{
	hgm_region_destroy(region);
	return NULL;
}

static bool is_refused(void *region)
{
	return hgm_region_put(region, PAGE, NULL, PAGE) == -ECANCELED;
}

/* A region that is ending, and that waits for its source, takes no more contents. */
static void while_the_region_ends(void **state)
{
	struct hgm_source *src;
	struct waiter waiter;
	struct ram ram;
	struct hgm *h = engine(1);
	pthread_t thread;

	(void)state;
	watch("while the region ends", 60);
	assert_ok(hgm_source_fn(&src, keep, NULL, NULL));
	ram_make(&ram, h, BACKING_ANON, LENGTH, src, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	waiter_start(&waiter, ram.addr);
	while (!atomic_load(&asked.asked))
		nap_us(100);
	assert_int_equal(pthread_create(&thread, NULL, destroy, ram.region), 0);
	assert_true(eventually(is_refused, ram.region, 5000));
	assert_ok(hgm_io_done(&asked.kept, -ECANCELED));
	pthread_join(thread, NULL);
	waiter_join(&waiter);
	ram_release(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

static int make(void **state)
{
	(void)state;
	expected = malloc(LENGTH);
	assert_non_null(expected);
	contents_write(&contents, 0, PAGES, expected);
	return 0;
}

static int unmake(void **state)
{
	(void)state;
	free(expected);
	return 0;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(each_page_is_taken_once),
	cmocka_unit_test(beside_fill),
	cmocka_unit_test(what_is_there_stays),

	cmocka_unit_test(from_any_address),
	cmocka_unit_test(into_a_truncated_file),
	cmocka_unit_test(on_a_fault_thread),
	cmocka_unit_test(while_the_region_ends),
	cmocka_unit_test(bad_input),
};

int main(void)
{
	return cmocka_run_group_tests(tests, make, unmake);
}
