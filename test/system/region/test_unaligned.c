/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of the caller at any page of its address space and of its file. Every byte is right, what
 * is a whole block becomes huge, counts and offsets are those of the region, and nothing around the
 * region is touched.
 */
#include "discarding.h"
#include "unaligned.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define WAIT_MS	 SMALLER(20000, 100000)
#define FIRST	 UNALIGNED_SOURCE_PAGE
#define TOUCHERS 8

static const struct contents contents = { .seed = 97, .holes = true };

static int set_up(void **state)
{
	(void)state;
	fence_set_up();
	catch_faults();
	return 0;
}

static void begin(struct unaligned *t, enum backing backing, const struct shape *shape,
		  enum provider_kind kind, uint32_t flags)
{
	unaligned_begin(t, &contents, backing, shape, kind, flags);
}

static void assert_region(const struct unaligned *t, uint64_t page, uint64_t pages)
{
	assert_pages(&contents, FIRST + page, pages, t->ram.addr + page * PAGE);
}

static void touch_and_fill(enum backing backing, const struct shape *shape)
{
	enum provider_kind kind = (enum provider_kind)(shape->head % PROVIDER_KINDS);
	struct hgm_fill_opts near = { .size = sizeof(near), .order = HGM_FILL_NEAR_FAULTS };
	struct hgm_region_info info;
	struct touchers touchers;
	struct unaligned t;

	begin(&t, backing, shape, kind, 0);
	if (shape->head % 4 == 3) /* fill goes back to where a faulted block begins */
		assert_ok(hgm_region_set_fill(t.ram.region, &near));
	info = info_of(t.ram.region);
	assert_ptr_equal(info.addr, t.ram.addr);
	assert_int_equal(info.length, t.ram.length);
	assert_int_equal(hgm_region_length(t.ram.region), t.ram.length);
	assert_int_equal(info.present_bytes, 0);
	assert_int_equal(info.map_bytes, PAGE);
	if (t.ram.mapping)
		assert_ptr_equal(info.addr, t.ram.mapping);
	touchers_start(&touchers, TOUCHERS,
		       &(struct plan){ .contents = &contents,
				       .addr = t.ram.addr,
				       .first_page = FIRST,
				       .pages = t.pages,
				       .passes = 2,
				       .write = true });
	assert_ok(hgm_start(t.h));
	touchers_join(&touchers);
	assert_ok(hgm_wait(t.h, WAIT_MS));
	info = info_of(t.ram.region);
	assert_int_equal(info.present_bytes, t.ram.length);
	assert_int_equal(info.poisoned_bytes, 0);
	assert_int_equal(progress_of(t.h).total_bytes, t.ram.length);
	assert_int_equal(progress_of(t.h).present_bytes, t.ram.length);
	assert_whole_huge(&t, backing, shape);
	unaligned_end(&t);
}

static void every_byte_is_right(void **state)
{
	(void)state;
	unaligned_each(touch_and_fill);
}

/* Before 6.7, a collapse is verified by the counters of whole memory areas. */
static void verified_by_areas(void **state)
{
	(void)state;
	fence_without_scan(true);
	for (int backing = UNALIGNED_FIRST; backing <= UNALIGNED_LAST; backing++) {
		const struct shape *shape = &unaligned_shapes[0];
		struct unaligned t;

		begin(&t, (enum backing)backing, shape, PROVIDER_NOW, 0);
		assert_ok(hgm_start(t.h));
		assert_ok(hgm_wait(t.h, WAIT_MS));
		assert_region(&t, 0, t.pages);
		assert_whole_huge(&t, (enum backing)backing, shape);
		assert_int_equal(huge_in_smaps(t.ram.addr, t.ram.length), 2 * MIB);
		unaligned_end(&t);
	}
	fence_without_scan(false);
}

static void says(const struct unaligned *t, const char *text, bool does)
{
	struct hgm_region_info info = info_of(t->ram.region);

	if (!!strstr(info.sentence, text) != does)
		fail_msg("%s: '%s' is%s in: %s", t->what, text, does ? " not" : "", info.sentence);
}

static void described(enum backing backing, const struct shape *shape)
{
	uint64_t whole = unaligned_whole(backing, shape), blocks;
	struct unaligned t;
	char count[60];

	begin(&t, backing, shape, PROVIDER_NOW, 0);
	blocks = ((uintptr_t)t.ram.addr % (2 * MIB) + t.ram.length + 2 * MIB - 1) / (2 * MIB);
	assert_int_equal(info_of(t.ram.region).blocks, blocks);
	snprintf(count, sizeof(count), "; %llu of %llu blocks can become huge",
		 (unsigned long long)whole, (unsigned long long)blocks);
	says(&t, count, whole && whole < blocks);
	says(&t, "; no block can become huge", !whole);
	says(&t, "different remainders",
	     backing >= BACKING_MAPPING && backing <= BACKING_MAPPING_LAZY &&
		     shape->head != shape->file_head);
	unaligned_end(&t);
	begin(&t, backing, shape, PROVIDER_NOW, HGM_REGION_NO_COLLAPSE);
	says(&t, "can become huge", false);
	unaligned_end(&t);
}

static void the_sentence_says_what_cannot_be_huge(void **state)
{
	(void)state;
	unaligned_each(described);
}

static bool is_exported(const struct unaligned *t, uint64_t page)
{
	uint64_t word = 0, first = page / 64 * 64;
	uint64_t pages = t->pages - first < 64 ? t->pages - first : 64;

	assert_ok(hgm_region_export(t->ram.region, first, pages, &word));
	assert_int_equal(pages < 64 ? word >> pages : 0, 0);
	return word >> page % 64 & 1;
}

/* Put, prefetch and export of the first and of the last page. */
static void by_offset(enum backing backing, const struct shape *shape)
{
	char page[PAGE];
	struct unaligned t;
	uint64_t last = shape->pages - 1;

	begin(&t, backing, shape, PROVIDER_NOW, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(t.h));
	memset(page, 0x3c, sizeof(page));
	assert_int_equal(hgm_region_put(t.ram.region, last * PAGE, page, PAGE), PAGE);
	assert_int_equal(hgm_region_put(t.ram.region, last * PAGE, page, PAGE), 0);
	assert_error((int)hgm_region_put(t.ram.region, last * PAGE, page, 2 * PAGE), -EINVAL);
	assert_memory_equal(t.ram.addr + last * PAGE, page, PAGE);
	assert_int_equal(info_of(t.ram.region).present_bytes, PAGE);
	assert_true(is_exported(&t, last));
	assert_int_equal(is_exported(&t, 0), !last);
	assert_ok(hgm_region_prefetch(t.ram.region, 0, PAGE));
	assert_error(hgm_region_prefetch(t.ram.region, t.ram.length, PAGE), -EINVAL);
	assert_ok(hgm_wait(t.h, WAIT_MS));
	assert_int_equal(info_of(t.ram.region).present_bytes, last ? 2 * PAGE : PAGE);
	assert_true(is_exported(&t, 0));
	if (last)
		assert_region(&t, 0, 1);
	for (uint64_t p = 1; p < last; p++)
		assert_false(is_exported(&t, p));
	unaligned_end(&t);
}

static void offsets_are_those_of_the_region(void **state)
{
	(void)state;
	unaligned_each(by_offset);
}

static void import_odd(enum backing backing, const struct shape *shape)
{
	uint64_t words = (shape->pages + 63) / 64, *bitmap, *again;
	struct unaligned t;
	char *at;

	if (backing == BACKING_MAPPING_ANON)
		return;
	begin(&t, backing, shape, PROVIDER_NOW, 0);
	at = mmap(NULL, t.ram.length, PROT_READ | PROT_WRITE, MAP_SHARED, t.ram.fd,
		  (off_t)t.ram.fd_offset);
	assert_true(at != MAP_FAILED);
	bitmap = calloc(words, sizeof(*bitmap));
	again = calloc(words, sizeof(*again));
	for (uint64_t p = 0; p < t.pages; p++)
		if (mix(p) % 3) {
			memset(at + p * PAGE, (int)(p % 251), PAGE);
			bitmap[p / 64] |= UINT64_C(1) << p % 64;
		}
	assert_ok(hgm_region_import(t.ram.region, 0, t.pages, bitmap));
	assert_ok(hgm_region_export(t.ram.region, 0, t.pages, again));
	assert_memory_equal(bitmap, again, words * sizeof(*bitmap));
	assert_ok(hgm_start(t.h));
	assert_ok(hgm_wait(t.h, WAIT_MS));
	for (uint64_t p = 0; p < t.pages; p++) {
		if (!(mix(p) % 3))
			assert_region(&t, p, 1);
		else if ((uint8_t)t.ram.addr[p * PAGE + 77] != p % 251)
			fail_msg("%s: page %llu, which was imported, is wrong", t.what,
				 (unsigned long long)p);
	}
	assert_whole_huge(&t, backing, shape);
	munmap(at, t.ram.length);
	free(bitmap);
	free(again);
	unaligned_end(&t);
}

static void imported_pages_are_those_of_the_region(void **state)
{
	(void)state;
	unaligned_each(import_odd);
}

/* Each way of giving memory back, for the region's ends and for pages in the middle. */
static void discard_each_way(enum backing backing, const struct shape *shape, bool before)
{
	uint64_t n = shape->pages, at[] = { 0, n - 1, n / 2 };

	for (int way = 0; way < WAYS; way++) {
		struct unaligned t;

		if (before ? !way_shows((enum way)way, backing)
			   : !way_drops((enum way)way, backing))
			continue;
		if (way == WAY_PUNCH && backing == BACKING_MAPPING_ANON)
			continue;
		begin(&t, backing, shape, PROVIDER_NOW, before ? HGM_REGION_NO_FILL : 0);
		if (before && way != WAY_CALL && backing != BACKING_MAPPING_ANON) {
			unaligned_end(&t); /* decided later: test_discard_foreign.c and others */
			continue;
		}
		assert_ok(hgm_start(t.h));
		if (!before)
			assert_ok(hgm_wait(t.h, WAIT_MS));
		for (unsigned int i = 0; i < 3; i++)
			discard_by((enum way)way, &t.ram, at[i] * PAGE, PAGE);
		for (uint64_t p = 0; p < n; p++) {
			if (p == at[0] || p == at[1] || p == at[2])
				assert_zeroes(t.ram.addr + p * PAGE, PAGE, t.what);
			else
				assert_region(&t, p, 1);
		}
		/* All of it, and it is still the region's. */
		discard_by((enum way)way, &t.ram, 0, t.ram.length);
		assert_zeroes(t.ram.addr, t.ram.length, t.what);
		assert_error(hgm_region_discard(t.ram.region, PAGE, t.ram.length), -EINVAL);
		memset(t.ram.addr, 0x11, t.ram.length);
		assert_int_equal(t.ram.addr[t.ram.length - 1], 0x11);
		unaligned_end(&t);
	}
}

static void discard_arrived(enum backing backing, const struct shape *shape)
{
	discard_each_way(backing, shape, false);
}

static void discard_absent(enum backing backing, const struct shape *shape)
{
	discard_each_way(backing, shape, true);
}

static void discarded_memory_is_zero(void **state)
{
	(void)state;
	unaligned_each(discard_arrived);
	unaligned_each(discard_absent);
}

/* The caller drops all of its mapping in one call, margins included. */
static void drop_with_margins(void **state)
{
	const struct shape *shape = &unaligned_shapes[1];
	struct unaligned t;

	(void)state;
	begin(&t, BACKING_MAPPING_ANON, shape, PROVIDER_NOW, 0);
	assert_ok(hgm_start(t.h));
	assert_ok(hgm_wait(t.h, WAIT_MS));
	assert_int_equal(madvise(t.ram.around, t.ram.around_length, MADV_DONTNEED), 0);
	assert_zeroes(t.ram.addr, t.ram.length, t.what);
	assert_zeroes(t.ram.around, t.ram.around_length, t.what);
	assert_int_equal(info_of(t.ram.region).present_bytes, t.ram.length);
	memset(t.ram.around, 0xc7, (size_t)(t.ram.mapping - t.ram.around));
	memset(t.ram.mapping + t.ram.length, 0xc7,
	       (size_t)(t.ram.around + t.ram.around_length - t.ram.mapping) - t.ram.length);
	unaligned_end(&t);
}

/* Likewise, but unmaps a piece that begins in a margin. */
static void lost_with_margins(void **state)
{
	(void)state;
	for (int backing = BACKING_MAPPING; backing <= BACKING_MAPPING_ANON; backing++) {
		struct unaligned t;
		char *from;
		void *at;

		begin(&t, (enum backing)backing, &unaligned_shapes[2], PROVIDER_NOW, 0);
		assert_ok(hgm_start(t.h));
		from = t.ram.mapping - 3 * PAGE;
		at = mmap(from, 5 * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		assert_ptr_equal(at, from);
		memset(from, 0xc7, 5 * PAGE);
		assert_ok(hgm_wait(t.h, WAIT_MS));
		assert_region(&t, 2, t.pages - 2);
		assert_int_equal((uint8_t)t.ram.addr[2 * PAGE - 1], 0xc7);
		unaligned_end(&t);
	}
}

/* After its end, the caller's mapping keeps what has arrived, and nothing else can be read. */
static void ended(enum backing backing, const struct shape *shape)
{
	uint64_t some = (shape->pages + 1) / 2;
	struct unaligned t;
	uint8_t value;

	if (backing < BACKING_MAPPING)
		return;
	begin(&t, backing, shape, PROVIDER_NOW, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(t.h));
	assert_ok(hgm_region_prefetch(t.ram.region, 0, some * PAGE));
	assert_ok(hgm_wait(t.h, WAIT_MS));
	hgm_region_destroy(t.ram.region);
	t.ram.region = NULL;
	for (uint64_t p = 0; p < t.pages; p++) {
		if (p < some && kernel_has(KERNEL_POISON))
			assert_region(&t, p, 1);
		else if (p >= some)
			assert_int_not_equal(touch(t.ram.mapping + p * PAGE, &value), 0);
	}
	assert_margins(&t.ram, t.what);
	unaligned_end(&t);
}

static void what_remains_at_the_end(void **state)
{
	(void)state;
	unaligned_each(ended);
}

/* A region of its own in each of the parts of one mapping, with borders inside of blocks. */
#define PARTS 4

struct neighbours {
	struct hgm *h;
	struct provider *provider[PARTS];
	struct hgm_region *r[PARTS];
	char *addr;
	int fd;
};

static const struct contents parts_contents[PARTS] = {
	{ .seed = 1 }, { .seed = 2 }, { .seed = 3 }, { .seed = 4 }
};
static const uint64_t borders[PARTS + 1] = { 10, 130, 131, 700, 2000 };

static void part_make(struct neighbours *n, unsigned int i, uint32_t flags)
{
	struct hgm_region_opts o = { .size = sizeof(o),
				     .backing = HGM_BACKING_MAPPING,
				     .source = provider_source(n->provider[i]),
				     .addr = n->addr + borders[i] * PAGE,
				     .length = (borders[i + 1] - borders[i]) * PAGE,
				     .flags = flags,
				     .fd = n->fd,
				     .fd_offset = n->fd < 0 ? 0 : borders[i] * PAGE };

	assert_ok(hgm_region_create(&n->r[i], n->h, &o));
}

static void part_right(const struct neighbours *n, unsigned int i)
{
	assert_pages(&parts_contents[i], 0, borders[i + 1] - borders[i],
		     n->addr + borders[i] * PAGE);
}

static void neighbours_begin(struct neighbours *n, bool file, uint32_t flags)
{
	uint64_t bytes = borders[PARTS] * PAGE;
	char *raw = mmap(NULL, bytes + 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);

	assert_true(raw != MAP_FAILED);
	*n = (struct neighbours){ .fd = -1, .h = engine(2) };
	n->addr = raw + (-(uintptr_t)raw & (2 * MIB - 1));
	if (file) {
		n->fd = memfd_create("all", MFD_CLOEXEC);
		assert_int_equal(ftruncate(n->fd, (off_t)bytes), 0);
		assert_ptr_equal(mmap(n->addr, bytes, PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_FIXED, n->fd, 0),
				 n->addr);
	}
	/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): mmap() succeeded */
	memset(n->addr, 0x77, bytes);
	for (unsigned int i = 0; i < PARTS; i++) {
		n->provider[i] = provider_make(PROVIDER_NOW, &parts_contents[i],
					       (borders[i + 1] - borders[i]) * PAGE);
		part_make(n, i, flags);
	}
}

static void assert_before_all(const struct neighbours *n)
{
	for (uint64_t i = 0; i < borders[0] * PAGE; i++)
		assert_int_equal(n->addr[i], 0x77);
}

/* One after the other is written to, discarded, destroyed and made again, and the others stay. */
static void side_by_side(bool file, uint32_t flags)
{
	struct touchers touchers[PARTS];
	struct neighbours n;

	watch(file ? "neighbours in a file" : "anonymous neighbours", 100);
	neighbours_begin(&n, file, flags);
	for (unsigned int i = 0; i < PARTS; i++)
		touchers_start(&touchers[i], 2,
			       &(struct plan){ .contents = &parts_contents[i],
					       .addr = n.addr + borders[i] * PAGE,
					       .pages = borders[i + 1] - borders[i] });
	assert_ok(hgm_start(n.h));
	for (unsigned int i = 0; i < PARTS; i++)
		touchers_join(&touchers[i]);
	assert_ok(hgm_wait(n.h, WAIT_MS));
	for (unsigned int i = 0; i < PARTS; i++) {
		struct hgm_region_opts o = { .size = sizeof(o),
					     .backing = HGM_BACKING_MAPPING,
					     .source = provider_source(n.provider[i]),
					     .addr = n.addr + (borders[i + 1] - 1) * PAGE,
					     .length = PAGE,
					     .fd = n.fd,
					     .fd_offset =
						     n.fd < 0 ? 0 : (borders[i + 1] - 1) * PAGE };
		struct hgm_region *r;

		assert_error(hgm_region_create(&r, n.h, &o), -EBUSY);
		hgm_region_discard(n.r[i], 0, (borders[i + 1] - borders[i]) * PAGE);
		assert_zeroes(n.addr + borders[i] * PAGE, (borders[i + 1] - borders[i]) * PAGE,
			      "discarded");
		for (unsigned int k = 0; k < PARTS; k++)
			if (k != i)
				part_right(&n, k);
		hgm_region_destroy(n.r[i]);
		part_make(&n, i, flags);
		part_right(&n, i);
		for (unsigned int k = 0; k < PARTS; k++)
			assert_int_equal(info_of(n.r[k]).present_bytes <=
						 (borders[k + 1] - borders[k]) * PAGE,
					 true);
	}
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_int_equal(progress_of(n.h).present_bytes, (borders[PARTS] - borders[0]) * PAGE);
	for (unsigned int i = 0; i < PARTS; i++)
		part_right(&n, i);
	/* One drop for parts of three of them. */
	assert_int_equal(madvise(n.addr + (borders[1] - 2) * PAGE,
				 (borders[3] + 2 - (borders[1] - 2)) * PAGE,
				 file ? MADV_REMOVE : MADV_DONTNEED),
			 0);
	assert_zeroes(n.addr + (borders[1] - 2) * PAGE, (borders[3] + 2 - (borders[1] - 2)) * PAGE,
		      "dropped");
	assert_pages(&parts_contents[0], 0, borders[1] - borders[0] - 2,
		     n.addr + borders[0] * PAGE);
	assert_pages(&parts_contents[3], 2, borders[4] - borders[3] - 2,
		     n.addr + (borders[3] + 2) * PAGE);
	assert_before_all(&n);
	hgm_destroy(n.h);
	for (unsigned int i = 0; i < PARTS; i++)
		provider_free(n.provider[i]);
	assert_before_all(&n);
	munmap(n.addr, borders[PARTS] * PAGE);
	if (n.fd >= 0)
		close(n.fd);
	calm();
}

static void neighbours_in_one_block(void **state)
{
	(void)state;
	side_by_side(false, 0);
	side_by_side(true, 0);
	side_by_side(true, HGM_REGION_LAZY);
}

static bool two_are_poisoned(void *r)
{
	return info_of(r).poisoned_bytes == 2 * PAGE;
}

/* Pages that the source cannot supply are poison, and those beside them are not. */
static void given_up(enum backing backing, const struct shape *shape)
{
	struct ledger ledger;
	struct unaligned t;
	struct hgm_region *r;
	uint8_t value;
	struct hgm_region_opts o = { .size = sizeof(o), .backing = HGM_BACKING_MAPPING };

	if (backing < BACKING_MAPPING || shape->pages < 16)
		return;
	begin(&t, backing, shape, PROVIDER_NOW, HGM_REGION_NO_FILL); /* for its memory only */
	hgm_region_destroy(t.ram.region);
	t.ram.region = NULL;
	hgm_destroy(t.h);
	ledger_make(&ledger, &contents, t.ram.length);
	atomic_store(&ledger.bad_page, 0);
	atomic_store(&ledger.bad_pages, 2);
	t.h = engine_with((struct hgm_opts){ .fault_threads = 2, .retries = HGM_RETRY_NEVER });
	o.source = ledger.source;
	o.addr = t.ram.mapping;
	o.length = t.ram.length;
	o.fd = t.ram.fd;
	o.fd_offset = t.ram.fd_offset;
	o.flags = backing == BACKING_MAPPING_LAZY ? HGM_REGION_LAZY : 0;
	assert_ok(hgm_region_create(&r, t.h, &o));
	t.ram.region = r;
	assert_ok(hgm_start(t.h));
	assert_int_equal(touch(t.ram.addr, &value), SIGBUS);
	assert_int_equal(touch(t.ram.addr + PAGE, &value), SIGBUS);
	for (uint64_t p = 2; p < t.pages; p++)
		assert_pages(&contents, p, 1, t.ram.addr + p * PAGE);
	assert_true(eventually(two_are_poisoned, r, WAIT_MS)); /* counted after the signal */
	atomic_store(&ledger.bad_pages, 0);
	assert_ok(hgm_region_retry(r));
	assert_ok(hgm_wait(t.h, WAIT_MS));
	assert_pages(&contents, 0, t.pages, t.ram.addr);
	assert_int_equal(info_of(r).poisoned_bytes, 0);
	unaligned_end(&t);
	ledger_free(&ledger);
}

static void only_bad_pages_are_given_up(void **state)
{
	(void)state;
	skip_unless(KERNEL_POISON);
	unaligned_each(given_up);
}

static void what_cannot_be(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, 8 * MIB);
	struct hgm *h = engine(1);
	struct hgm_region_opts o = { .size = sizeof(o),
				     .source = provider_source(provider),
				     .length = 4 * MIB,
				     .backing = HGM_BACKING_MAPPING };
	int fd = memfd_create("all", MFD_CLOEXEC);
	struct hgm_region *r;
	char *at;

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)(8 * MIB)), 0);
	at = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	o.fd = fd;
	o.addr = at + 100;
	assert_error(hgm_region_create(&r, h, &o), -EINVAL);
	o.addr = at + PAGE;
	assert_error(hgm_region_create(&r, h, &o), -EINVAL); /* it is at another offset */
	/* Huge blocks are required, and the backing in the file makes them impossible. */
	munmap(at, 8 * MIB);
	at = mmap(NULL, 8 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	at = (char *)(((uintptr_t)at + 2 * MIB - 1) & ~(uintptr_t)(2 * MIB - 1));
	assert_ptr_equal(mmap(at, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
			      (off_t)PAGE),
			 at);
	o.addr = at;
	o.fd_offset = PAGE;
	o.require = HGM_REQUIRE_HUGE;
	assert_error(hgm_region_create(&r, h, &o), -EOPNOTSUPP);
	assert_non_null(strstr(hgm_errmsg(), "different remainders"));
	o.require = 0;
	assert_ok(hgm_region_create(&r, h, &o));
	hgm_destroy(h);
	munmap(at, 4 * MIB);
	close(fd);
	provider_free(provider);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup(every_byte_is_right, set_up),
	cmocka_unit_test_setup(verified_by_areas, set_up),
	cmocka_unit_test_setup(the_sentence_says_what_cannot_be_huge, set_up),
	cmocka_unit_test_setup(offsets_are_those_of_the_region, set_up),
	cmocka_unit_test_setup(imported_pages_are_those_of_the_region, set_up),
	cmocka_unit_test_setup(discarded_memory_is_zero, set_up),
	cmocka_unit_test_setup(drop_with_margins, set_up),
	cmocka_unit_test_setup(lost_with_margins, set_up),
	cmocka_unit_test_setup(what_remains_at_the_end, set_up),
	cmocka_unit_test_setup(neighbours_in_one_block, set_up),
	cmocka_unit_test_setup(only_bad_pages_are_given_up, set_up),
	cmocka_unit_test_setup(what_cannot_be, set_up),
};

TEST_MAIN(tests)
