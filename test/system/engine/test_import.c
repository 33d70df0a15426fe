/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An interrupted transfer is resumed. The map of pages that had arrived in the caller's memfd is
 * exported. The next engine imports it, and asks the source for the rest only.
 */
#include "harness.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH	(4 * MIB + 100 * PAGE)
#define PAGES	(LENGTH / PAGE)
#define WORDS	((PAGES + 63) / 64)
#define BAD	((uint64_t)700)
#define WAIT_MS SMALLER(20000, 100000)

static const struct contents contents = { .seed = 55 };

struct source {
	bool interrupted;	/* gives every third page only */
	bool forbidden[PAGES];	/* must not be requested */
	_Atomic uint64_t wrong; /* forbidden pages that were requested */
	_Atomic uint64_t given;
};

static struct source state_of_source;

static int64_t read_one(void *user, const struct hgm_io *io)
{
	struct source *s = user;
	uint64_t page = io->offset / PAGE;

	for (uint64_t p = page; p < page + io->length / PAGE; p++)
		if (s->forbidden[p])
			atomic_fetch_add(&s->wrong, 1);
	if (s->interrupted && page == BAD)
		return -EIO;
	contents_write(&contents, page, io->length / PAGE, io->buf);
	atomic_fetch_add(&s->given, io->length / PAGE);
	return (int64_t)io->length;
}

static struct hgm_region *region(struct hgm *h, struct hgm_source *src, int fd, uint32_t flags)
{
	struct hgm_region *r;

	assert_ok(
		hgm_region_create(&r, h,
				  &(struct hgm_region_opts){ .size = sizeof(struct hgm_region_opts),
							     .length = LENGTH,
							     .source = src,
							     .backing = HGM_BACKING_FD,
							     .flags = flags,
							     .fd = fd }));
	return r;
}

static uint64_t bits(const uint64_t *bitmap)
{
	uint64_t n = 0;

	for (uint64_t w = 0; w < WORDS; w++)
		n += (uint64_t)__builtin_popcountll(bitmap[w]);
	return n;
}

static bool is_told(void *arg)
{
	return progress_of(arg).last_error == -EIO;
}

/* The page that the source refuses is given up, or requested again for ever. */
static void touch_bad(struct hgm *h, const char *at, struct waiter *waiter)
{
	waiter_start(waiter, at);
	assert_true(eventually(is_told, h, 5000));
	if (kernel_has(KERNEL_POISON))
		waiter_join(waiter);
	assert_int_equal(waiter->signal, kernel_has(KERNEL_POISON) ? SIGBUS : -1);
}

static void round_trip(uint32_t flags)
{
	struct source *s = &state_of_source;
	struct hgm_source *src;
	uint64_t map[WORDS], again[WORDS], arrived = 0;
	int fd = memfd_create("transfer", MFD_CLOEXEC);
	struct hgm_region *r;
	struct waiter waiter;
	struct hgm *h;
	char *addr;

	watch("export and import", 60);
	memset(s, 0, sizeof(*s));
	assert_int_equal(ftruncate(fd, (off_t)LENGTH), 0);
	assert_ok(hgm_source_fn(&src, read_one, s, NULL));

	/* The first half of a transfer: single pages, a whole block, and a page that fails. */
	s->interrupted = true;
	h = engine_with((struct hgm_opts){ .fault_threads = 1, .retries = HGM_RETRY_NEVER });
	r = region(h, src, fd, flags | HGM_REGION_NO_FILL);
	addr = hgm_region_addr(r);
	assert_ok(hgm_start(h));
	assert_ok(hgm_region_export(r, 0, PAGES, map));
	assert_int_equal(bits(map), 0);
	for (uint64_t p = 1; p < PAGES; p += 3, arrived++)
		if (p < 512 || p > 1024)
			assert_pages(&contents, p, 1, addr + p * PAGE);
	for (uint64_t p = 0; p < 512; p++)
		assert_pages(&contents, p, 1, addr + p * PAGE);
	touch_bad(h, addr + BAD * PAGE, &waiter);
	(void)hgm_wait(h, kernel_has(KERNEL_POISON) ? WAIT_MS : 100);
	assert_ok(hgm_region_export(r, 0, PAGES, map));
	for (uint64_t p = 0; p < PAGES; p++) {
		bool want = p < 512 || (p > 1024 && p % 3 == 1);

		if ((map[p / 64] >> p % 64 & 1) != want)
			fail_msg("page %llu is%s exported", (unsigned long long)p,
				 want ? " not" : "");
	}
	assert_int_equal(map[WORDS - 1] >> (PAGES % 64), 0);
	/* A part of it, from the middle. */
	memset(again, 0xff, sizeof(again));
	assert_ok(hgm_region_export(r, 1024, 70, again));
	assert_int_equal(again[0], map[16]);
	assert_int_equal(again[1], map[17] & 0x3f);
	arrived = bits(map);
	assert_int_equal(info_of(r).present_bytes, arrived * PAGE);
	hgm_destroy(h);
	if (waiter.signal == -1)
		waiter_join(&waiter);

	/* The second half, by another engine. */
	s->interrupted = false;
	s->given = 0;
	for (uint64_t p = 0; p < PAGES; p++)
		s->forbidden[p] = map[p / 64] >> p % 64 & 1;
	h = engine(2);
	r = region(h, src, fd, flags);
	addr = hgm_region_addr(r);
	assert_ok(hgm_region_import(r, 0, PAGES, map));
	assert_ok(hgm_region_import(r, 0, PAGES, map)); /* a repetition changes nothing */
	assert_ok(hgm_region_export(r, 0, PAGES, again));
	assert_memory_equal(map, again, sizeof(map));
	assert_int_equal(info_of(r).present_bytes, arrived * PAGE);
	assert_ok(hgm_start(h));
	assert_error(hgm_region_import(r, 0, PAGES, map), -EBUSY);
	assert_pages(&contents, 0, PAGES, addr);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_int_equal(s->wrong, 0);
	/* A page of lazy memory is requested twice if a thread touches it while fill asks. */
	if (flags & HGM_REGION_LAZY)
		assert_true(s->given >= PAGES - arrived);
	else
		assert_int_equal(s->given, PAGES - arrived);
	assert_ok(hgm_region_export(r, 0, PAGES, again));
	assert_int_equal(bits(again), PAGES);
	assert_int_equal(info_of(r).huge_bytes, 4 * MIB);
	hgm_destroy(h);
	hgm_source_destroy(src);
	close(fd);
	calm();
}

static void prepared(void **state)
{
	(void)state;
	round_trip(0);
}

static void lazy(void **state)
{
	(void)state;
	round_trip(HGM_REGION_LAZY);
}

/* All pages have arrived. The source is asked for nothing, and the memory becomes huge. */
static void everything(void **state)
{
	struct source *s = &state_of_source;
	int fd = memfd_create("transfer", MFD_CLOEXEC);
	struct hgm_source *src;
	struct hgm_region *r;
	struct hgm *h = engine(1);
	uint64_t map[WORDS];
	char *mine;

	(void)state;
	watch("import of everything", 60);
	memset(s, 0, sizeof(*s));
	memset(s->forbidden, 1, sizeof(s->forbidden));
	memset(map, 0xff, sizeof(map));
	assert_int_equal(ftruncate(fd, (off_t)LENGTH), 0);
	mine = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(mine, MAP_FAILED);
	contents_write(&contents, 0, PAGES, mine);
	munmap(mine, LENGTH);
	assert_ok(hgm_source_fn(&src, read_one, s, NULL));
	r = region(h, src, fd, 0);
	assert_ok(hgm_region_import(r, 0, PAGES, map));
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_int_equal(s->given + s->wrong, 0);
	assert_pages(&contents, 0, PAGES, hgm_region_addr(r));
	assert_int_equal(info_of(r).huge_bytes, 4 * MIB);
	hgm_destroy(h);
	hgm_source_destroy(src);
	close(fd);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(prepared),
	cmocka_unit_test(lazy),
	cmocka_unit_test(everything),
};

TEST_MAIN(tests)
