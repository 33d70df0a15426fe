/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fill at a rate, paused, and near the faults, for a region and for all regions of an engine.
 */
#include "harness.h"

#include <errno.h>
#include <stdlib.h>

#define LENGTH	   (32 * MIB)
#define PAGES	   (LENGTH / PAGE)
#define RATE	   (32 * MIB) /* bytes per second */
#define LEAF_PAGES 512
#define WAIT_MS	   SMALLER(20000, 100000)
/* The arrears that fill makes up for, and what all workers may request at the same time. */
#define BURST (RATE / 100 + 2 * MIB)

static const struct contents contents = { .seed = 83 };

struct scene {
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
};

static void begin(struct scene *s, enum backing backing, enum provider_kind kind)
{
	watch(backing_names[backing], 100);
	s->provider = provider_make(kind, &contents, LENGTH);
	s->h = engine(1);
	ram_make(&s->ram, s->h, backing, LENGTH, provider_source(s->provider), 0);
}

static void end(struct scene *s)
{
	assert_ok(hgm_set_fill(s->h, NULL));
	assert_ok(hgm_region_set_fill(s->ram.region, NULL));
	assert_ok(hgm_wait(s->h, WAIT_MS));
	assert_pages(&contents, 0, PAGES, s->ram.addr);
	assert_int_equal(progress_of(s->h).remaining_us, 0);
	ram_end(&s->ram);
	hgm_destroy(s->h);
	provider_free(s->provider);
	calm();
}

static struct hgm_fill_opts opts_of(uint32_t flags, uint32_t order, uint64_t rate)
{
	return (struct hgm_fill_opts){ .size = sizeof(struct hgm_fill_opts),
				       .flags = flags,
				       .order = order,
				       .rate_bytes = rate };
}

static uint64_t present(const struct scene *s)
{
	return info_of(s->ram.region).present_bytes;
}

/* Sets the options for the region, or for all regions. */
static void set(struct scene *s, bool all, struct hgm_fill_opts o)
{
	assert_ok(all ? hgm_set_fill(s->h, &o) : hgm_region_set_fill(s->ram.region, &o));
}

static void goes_at_a_rate(enum backing backing, enum provider_kind kind, bool all)
{
	struct hgm_progress p;
	uint64_t start, us;
	struct scene s;

	begin(&s, backing, kind);
	set(&s, all, opts_of(0, 0, RATE));
	start = now_us();
	assert_ok(hgm_start(s.h));
	while (present(&s) < LENGTH / 2) {
		uint64_t bytes = present(&s);

		us = now_us() - start;
		if (bytes > us * RATE / 1000000 + BURST)
			fail_msg("%s: %llu bytes after %llu us", backing_names[backing],
				 (unsigned long long)bytes, (unsigned long long)us);
		nap_us(2000);
	}
	p = progress_of(s.h);
	if (p.present_bytes < LENGTH / 8 * 7) /* else the machine was busy elsewhere */
		assert_true(p.remaining_us > 20000);
	end(&s);
}

static void at_a_rate(void **state)
{
	(void)state;
	goes_at_a_rate(BACKING_SHMEM, PROVIDER_MEMORY, false);
	goes_at_a_rate(BACKING_ANON, PROVIDER_LATER, true);
	goes_at_a_rate(BACKING_SHMEM, PROVIDER_BLOCKING, true);
}

/* Only pages that a thread waits for arrive. */
static void stands_still(bool all)
{
	struct scene s;
	uint8_t value;

	begin(&s, BACKING_SHMEM, PROVIDER_NOW);
	set(&s, all, opts_of(HGM_FILL_PAUSED, 0, 0));
	assert_ok(hgm_start(s.h));
	nap_us(50000);
	assert_int_equal(present(&s), 0);
	assert_int_equal(progress_of(s.h).remaining_us, UINT64_MAX);
	assert_int_equal(touch(s.ram.addr + 77 * PAGE, &value), 0);
	assert_int_equal(present(&s), PAGE);
	assert_error(hgm_wait(s.h, 50), -ETIMEDOUT);
	assert_int_equal(present(&s), PAGE);
	end(&s); /* this resumes fill */
}

static void paused(void **state)
{
	(void)state;
	stands_still(false);
	stands_still(true);
}

/* A source that records the order in which fill asks. */
static struct {
	_Atomic unsigned int count;
	_Atomic uint64_t page[PAGES];
} order;

static int64_t note_order(void *user, const struct hgm_io *io)
{
	(void)user;
	for (uint64_t i = 0; !(io->flags & HGM_IO_DEMAND) && i < io->length / PAGE; i++)
		atomic_store(&order.page[atomic_fetch_add(&order.count, 1)], io->offset / PAGE + i);
	return (int64_t)io->length | HGM_IO_ZERO;
}

/* The 2 MiB around a fault come first, from the fault on. The others follow in order. */
static void near_the_faults(void **state)
{
	static const uint64_t faults[] = { 9 * LEAF_PAGES + 300, 13 * LEAF_PAGES, PAGES - 1 };
	struct hgm_source *src;

	(void)state;
	assert_ok(hgm_source_fn(&src, note_order, NULL, NULL));
	for (unsigned int i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		struct hgm_fill_opts o = opts_of(HGM_FILL_PAUSED, HGM_FILL_NEAR_FAULTS, 0);
		uint64_t leaf = faults[i] / LEAF_PAGES * LEAF_PAGES;
		unsigned int inside = 0;
		struct hgm *h = engine_with((struct hgm_opts){ .workers = 1 });
		struct ram ram;
		uint8_t value;

		watch("near the faults", 60);
		atomic_store(&order.count, 0);
		ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, 0);
		assert_ok(hgm_region_set_fill(ram.region, &o));
		assert_ok(hgm_start(h));
		assert_int_equal(touch(ram.addr + faults[i] * PAGE, &value), 0);
		o.flags = 0;
		assert_ok(hgm_region_set_fill(ram.region, &o));
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_int_equal(atomic_load(&order.count), PAGES - 1);
		for (unsigned int n = 0; n < LEAF_PAGES - 1; n++)
			inside += atomic_load(&order.page[n]) - leaf < LEAF_PAGES;
		assert_int_equal(inside, LEAF_PAGES - 1);
		for (unsigned int n = LEAF_PAGES; n < PAGES - 1; n++)
			assert_true(atomic_load(&order.page[n]) > atomic_load(&order.page[n - 1]));
		if (faults[i] + 1 < PAGES)
			assert_int_equal(atomic_load(&order.page[0]), faults[i] + 1);
		ram_end(&ram);
		hgm_destroy(h);
		calm();
	}
	hgm_source_destroy(src);
}

static void bad_input(void **state)
{
	struct hgm_fill_opts o = opts_of(0, 0, 0);
	struct scene s;

	(void)state;
	begin(&s, BACKING_SHMEM, PROVIDER_NOW);
	assert_ok(hgm_start(s.h));
	assert_error(hgm_region_set_fill(NULL, &o), -EINVAL);
	assert_error(hgm_set_fill(NULL, &o), -EINVAL);
	o.flags = 2;
	assert_error(hgm_region_set_fill(s.ram.region, &o), -EINVAL);
	assert_error(hgm_set_fill(s.h, &o), -EINVAL);
	o = opts_of(0, HGM_FILL_NEAR_FAULTS + 1, 0);
	assert_error(hgm_region_set_fill(s.ram.region, &o), -EINVAL);
	o = opts_of(0, HGM_FILL_NEAR_FAULTS, 0);
	assert_error(hgm_set_fill(s.h, &o), -EINVAL);
	struct {
		struct hgm_fill_opts o;
		uint64_t of_a_newer_release;
	} newer = { .o = opts_of(0, 0, 0), .of_a_newer_release = 1 };

	newer.o.size = sizeof(newer);
	assert_error(hgm_region_set_fill(s.ram.region, &newer.o), -E2BIG);
	assert_error(hgm_set_fill(s.h, &newer.o), -E2BIG);
	o.size = 3;
	assert_error(hgm_region_set_fill(s.ram.region, &o), -EINVAL);
	o = opts_of(0, 0, 1); /* a byte per second; the end lifts the limit */
	assert_ok(hgm_region_set_fill(s.ram.region, &o));
	end(&s);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(at_a_rate),
	cmocka_unit_test(paused),
	cmocka_unit_test(near_the_faults),
	cmocka_unit_test(bad_input),
};

TEST_MAIN(tests)
