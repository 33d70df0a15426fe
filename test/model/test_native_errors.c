/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sources that fail, for native regions: there is no poison for 4 KiB of a huge page. Threads that
 * wait for the page keep waiting, and no others do. The failure is reported, and the page is served
 * when the source recovers.
 */
#include "native.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#define LENGTH (4 * MIB)
#define BAD    23 /* in the middle of one request of fill, just before a hole */

struct rogue {
	_Atomic bool fails;
	bool scribbles;
};

static int64_t rogue_read(void *user, const struct hgm_io *io)
{
	uint64_t page = io->offset / PAGE, pages = io->length / PAGE;
	struct rogue *r = user;
	uint64_t n = 1;
	bool hole;

	if (atomic_load(&r->fails) && BAD >= page && BAD < page + pages) {
		if (r->scribbles)
			memset(io->buf, 0xbd, io->length);
		return -EIO;
	}
	/* Holes are reported as holes, so that nothing is written there. */
	hole = contents_hole(&native_contents, page);
	while (n < pages && contents_hole(&native_contents, page + n) == hole)
		n++;
	if (hole)
		return (int64_t)(n * PAGE) | HGM_IO_ZERO;
	contents_write(&native_contents, page, n, io->buf);
	return (int64_t)(n * PAGE);
}

struct trial {
	struct rogue rogue;
	struct hgm_source *source;
	struct hgm *h;
	struct hgm_region *r;
	char *addr;
	int fd;	       /* the caller's */
	char *mapping; /* the caller's */
};

static void begin(struct trial *t, bool callers, uint32_t flags)
{
	struct hgm_region_opts o = { .size = sizeof(o),
				     .length = LENGTH,
				     .backing = HGM_BACKING_HUGETLB,
				     .flags = flags,
				     .fd = -1 };
	void *at;

	*t = (struct trial){ .fd = -1 };
	atomic_store(&t->rogue.fails, true);
	t->rogue.scribbles = !callers;
	assert_ok(hgm_source_fn(&t->source, rogue_read, &t->rogue, NULL));
	t->h = engine_with(
		(struct hgm_opts){ .fault_threads = 1, .retries = 1, .retry_first_us = 500 });
	if (callers) {
		t->fd = hgm_sys->memfd_create("theirs", MFD_HUGETLB);
		assert_true(t->fd >= 0);
		assert_ok(hgm_sys->ftruncate(t->fd, LENGTH));
		assert_ok(hgm_sys->mmap(&at, NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED,
					t->fd, 0));
		o.backing = HGM_BACKING_MAPPING;
		o.addr = t->mapping = at;
		o.fd = t->fd;
	}
	o.source = t->source;
	assert_ok(hgm_region_create(&t->r, t->h, &o));
	t->addr = hgm_region_addr(t->r);
	assert_int_equal(info_of(t->r).map_bytes, PAGE);
	assert_ok(hgm_start(t->h));
}

static void end(struct trial *t)
{
	hgm_region_destroy(t->r);
	if (t->mapping)
		hgm_sys->munmap(t->mapping, LENGTH);
	if (t->fd >= 0)
		hgm_sys->close(t->fd);
	hgm_destroy(t->h);
	hgm_source_destroy(t->source);
}

static bool is_reported(void *arg)
{
	struct hgm_progress p = progress_of(arg);

	return p.failing_requests && p.last_error == -EIO;
}

static bool all_but_one(void *arg)
{
	const struct trial *t = arg;

	return info_of(t->r).present_bytes == LENGTH - PAGE;
}

static bool is_released(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->signal) >= 0;
}

static void one_page_fails(uint32_t flags)
{
	struct waiter waiter, behind;
	struct trial t;

	begin(&t, false, flags);
	waiter_start(&waiter, t.addr + BAD * PAGE);
	assert_true(eventually(is_reported, t.h, 5000));
	waiter_start(&behind, t.addr + (BAD + 1) * PAGE);
	waiter_join(&behind);
	assert_int_equal(behind.signal, 0);
	if (flags)
		assert_ok(hgm_region_prefetch(t.r, 0, LENGTH));
	if (!eventually(all_but_one, &t, 5000))
		fail_msg("%llu kB of %llu are present: others wait behind the page that fails",
			 (unsigned long long)info_of(t.r).present_bytes >> 10,
			 (unsigned long long)LENGTH >> 10);
	assert_error(hgm_wait(t.h, 50), -ETIMEDOUT);
	assert_false(is_released(&waiter));
	assert_int_equal(info_of(t.r).poisoned_bytes, 0);
	assert_pages(&native_contents, 0, BAD, t.addr);
	assert_pages(&native_contents, BAD + 1, LENGTH / PAGE - BAD - 1, t.addr + (BAD + 1) * PAGE);
	atomic_store(&t.rogue.fails, false);
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, 0);
	assert_ok(hgm_wait(t.h, WAIT_MS));
	assert_pages(&native_contents, 0, LENGTH / PAGE, t.addr);
	assert_int_equal(info_of(t.r).huge_bytes, LENGTH);
	assert_int_equal(progress_of(t.h).failing_requests, 0);
	end(&t);
}

static void a_page_fails(void **state)
{
	(void)state;
	one_page_fails(HGM_REGION_NO_FILL);
}

/* Fill asks for many pages at once: it must not lose those after the one that fails. */
static void a_page_of_fill_fails(void **state)
{
	(void)state;
	one_page_fails(0);
}

static void the_region_goes(void **state)
{
	(void)state;
	for (int callers = 0; callers < 2; callers++) {
		struct waiter waiter;
		struct trial t;
		uint8_t value;

		begin(&t, callers, 0);
		waiter_start(&waiter, t.addr + BAD * PAGE);
		assert_true(eventually(is_reported, t.h, 5000));
		assert_true(eventually(all_but_one, &t, 5000));
		assert_false(is_released(&waiter));
		hgm_region_destroy(t.r);
		t.r = NULL;
		waiter_join(&waiter);
		assert_int_equal(waiter.signal, SIGSEGV);
		/* A mapping with missing pages must not stay accessible. */
		if (callers)
			assert_int_equal(touch(t.addr, &value), SIGSEGV);
		end(&t);
	}
}

static const struct CMUnitTest tests[] = {
	ON_BOTH(a_page_fails),
	ON_BOTH(a_page_of_fill_fails),
	ON_BOTH(the_region_goes),
};

TEST_MAIN(tests)
