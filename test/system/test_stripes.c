/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Several fault threads: each has stripes of every region, serves them, and counts for itself.
 */
#include "engine.h"
#include "harness.h"

#define FAULT_THREADS (HGM_STAT_SHARDS_OWNED + 4)
#define BLOCKS	      UINT64_C(16) /* a stripe each: some threads have two */
#define EACH	      UINT64_C(32) /* pages of a block that are touched */
#define LENGTH	      (BLOCKS * 2 * MIB)
#define CROWD	      4

static const struct contents contents = { .seed = 131 };

/* Once a page, however often somebody faults on it. */
static uint64_t demanded_in(const struct hgm *h, unsigned int shard)
{
	return atomic_load(&h->shards[shard].counter[HGM_STAT_FAULTS_DEMAND]);
}

static uint64_t demanded_of(unsigned int fault_thread)
{
	return (1 + (fault_thread + FAULT_THREADS < BLOCKS)) * EACH;
}

/* Counted when it is done, and who waits for it is awake by then. */
static bool all_are_counted(void *arg)
{
	return stats_of(arg).faults_demand == BLOCKS * EACH;
}

static void each_thread_counts_its_stripes(void **state)
{
	struct feed *feed = feed_make(FEED_NOW, &contents, LENGTH);
	struct hgm *h = engine(FAULT_THREADS);
	uint64_t elsewhere = 0, by_others = 0;
	struct plan plan = { .contents = &contents,
			     .pages = LENGTH / PAGE,
			     .step = 2 * MIB / PAGE / EACH };
	struct touchers touchers;
	struct field f;

	(void)state;
	field_make(&f, h, PLACE_SHMEM, LENGTH, feed_source(feed),
		   HGM_REGION_NO_FILL | HGM_REGION_NO_COLLAPSE);
	assert_ok(hgm_start(h));
	plan.addr = f.addr;
	touchers_start(&touchers, CROWD, &plan);
	touchers_join(&touchers);
	assert_true(eventually(all_are_counted, h, 5000));
	for (unsigned int i = 0; i < HGM_STAT_SHARDS_OWNED; i++)
		assert_int_equal(demanded_in(h, i), demanded_of(i));
	for (unsigned int i = HGM_STAT_SHARDS_OWNED; i < HGM_STAT_SHARDS; i++)
		elsewhere += demanded_in(h, i);
	for (unsigned int i = HGM_STAT_SHARDS_OWNED; i < FAULT_THREADS; i++)
		by_others += demanded_of(i);
	assert_int_equal(elsewhere, by_others);
	field_end(&f);
	hgm_destroy(h);
	feed_free(feed);
}

static int set_up(void **state)
{
	(void)state;
	watch("several fault threads", 60);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	calm();
	return 0;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(each_thread_counts_its_stripes, set_up, tear_down),
};

TEST_MAIN(tests)
