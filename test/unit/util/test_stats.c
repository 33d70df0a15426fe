/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counters and latency histograms. The engine here is a bare struct: counting needs only its
 * shards.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <hgm/error.h>

#include "region/hgm.h"
#include "test.h"
#include "util/stats.h"

#define THREADS	      24 /* more than there are shared shards */
#define FAULT_THREADS 12
#define COUNTS	      4000

static struct hgm *h;
static struct hgm_stats stats;

static int begin(void **state)
{
	(void)state;
	h = aligned_alloc(64, (sizeof(*h) + 63) / 64 * 64);
	if (!h)
		return -1;
	memset(h, 0, sizeof(*h));
	h->stats.owned = FAULT_THREADS;
	memset(&stats, 0xff, sizeof(stats));
	stats.size = sizeof(stats);
	return 0;
}

static int end(void **state)
{
	(void)state;
	free(h);
	return 0;
}

static void nothing_has_happened(void **state)
{
	struct hgm_stats none = { .size = sizeof(none) };

	(void)state;
	assert_int_equal(hgm_get_stats(h, &stats), 0);
	assert_memory_equal(&stats, &none, sizeof(none));
	for (unsigned int permille = 0; permille <= 1000; permille += 100)
		assert_int_equal(hgm_hist_quantile(&stats.queued, permille), 0);
	assert_int_equal(hgm_hist_quantile(NULL, 500), 0);
}

/* Each counter appears in its own field of the public struct. */
static void every_counter_is_told(void **state)
{
	const uint64_t *told = &stats.faults;

	(void)state;
	for (enum hgm_stat i = 0; i < HGM_STAT_COUNT; i++) {
		hgm_stat_add(&h->stats, i, 100 + i);
		hgm_stat_add(&h->stats, i, 0);
		hgm_stat_add(&h->stats, i, 1000);
		assert_int_equal(hgm_stat_read(&h->stats, i), 1100 + i);
	}
	assert_int_equal(hgm_get_stats(h, &stats), 0);
	for (uint64_t i = 0; i < HGM_STAT_COUNT; i++)
		assert_int_equal(told[i], 1100 + i);
	assert_ptr_equal(&told[HGM_STAT_COUNT], &stats + 1);
	assert_int_equal(stats.faults, 1100 + HGM_STAT_FAULTS);
	assert_int_equal(stats.exist, 1100 + HGM_STAT_EXIST);
	assert_int_equal(stats.poisoned_pages, 1100 + HGM_STAT_POISONED_PAGES);
	assert_int_equal(stats.sleeps, 1100 + HGM_STAT_SLEEPS);
}

static void phases_are_apart(void **state)
{
	(void)state;
	hgm_stat_phase(&h->stats, HGM_PHASE_QUEUED, 1000);
	hgm_stat_phase(&h->stats, HGM_PHASE_SOURCE, 2000);
	hgm_stat_phase(&h->stats, HGM_PHASE_SOURCE, 5000);
	hgm_stat_phase(&h->stats, HGM_PHASE_INSTALL, 3000);
	assert_int_equal(hgm_get_stats(h, &stats), 0);
	assert_int_equal(stats.queued.count, 1);
	assert_int_equal(stats.queued.sum_ns, 1000);
	assert_int_equal(stats.source.count, 2);
	assert_int_equal(stats.source.sum_ns, 7000);
	assert_int_equal(stats.source.max_ns, 5000);
	assert_int_equal(stats.install.max_ns, 3000);
}

/* The line that begins with a word and a space. */
static const char *line_of(const char *text, const char *word)
{
	size_t n = strlen(word);

	while (text && (strncmp(text, word, n) != 0 || text[n] != ' ')) {
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return text;
}

static void text_has_every_counter(void **state)
{
	static const char source[] = "source_ns count 2 mean 3500 p50 ";
	const uint64_t *told = &stats.faults;
	unsigned int lines = 0;
	const char *at;
	char text[4096];
	int length;

	(void)state;
	for (enum hgm_stat i = 0; i < HGM_STAT_COUNT; i++)
		hgm_stat_add(&h->stats, i, UINT64_MAX - i);
	hgm_stat_phase(&h->stats, HGM_PHASE_SOURCE, 2000);
	hgm_stat_phase(&h->stats, HGM_PHASE_SOURCE, 5000);
	assert_int_equal(hgm_get_stats(h, &stats), 0);
	length = hgm_stats_format(&stats, text, sizeof(text));
	assert_int_equal(length, strlen(text));
	at = text;
	for (enum hgm_stat i = 0; i < HGM_STAT_COUNT; i++) {
		char *end_of_number;
		const char *space = strchr(at, ' ');

		assert_non_null(space);
		assert_true(strtoull(space, &end_of_number, 10) == told[i]);
		at = end_of_number + 1;
	}
	assert_int_equal(strtoull(line_of(text, "poisoned_pages") + 15, NULL, 10),
			 stats.poisoned_pages);
	assert_memory_equal(line_of(text, "source_ns"), source, sizeof(source) - 1);
	assert_non_null(strstr(line_of(text, "source_ns"), " max 5000\n"));
	for (at = text; *at; at++)
		lines += *at == '\n';
	assert_int_equal(lines, HGM_STAT_COUNT + HGM_PHASE_COUNT);
}

static void text_is_cut_short_where_there_is_no_room(void **state)
{
	struct {
		struct hgm_stats stats;
		uint64_t counter; /* of a later release */
	} newer;
	char whole[4096], part[4096];
	int length;

	(void)state;
	assert_int_equal(hgm_get_stats(h, &stats), 0);
	length = hgm_stats_format(&stats, whole, sizeof(whole));
	assert_uint_in_range(length, 100, sizeof(whole) - 1);
	assert_int_equal(hgm_stats_format(&stats, NULL, 0), length);
	for (size_t size = 1; size < sizeof(part); size += 13) {
		size_t fits = (size_t)length < size ? (size_t)length : size - 1;

		memset(part, '#', sizeof(part));
		assert_int_equal(hgm_stats_format(&stats, part, size), length);
		assert_memory_equal(part, whole, fits);
		assert_int_equal(part[fits], 0);
		for (size_t i = size; i < sizeof(part); i++)
			assert_int_equal(part[i], '#');
	}
	assert_int_equal(hgm_stats_format(&stats, NULL, 1), -EINVAL);
	stats.size = 8;
	assert_int_equal(hgm_stats_format(&stats, part, sizeof(part)), -EINVAL);
	newer.stats = (struct hgm_stats){ .size = sizeof(newer) };
	newer.counter = 0;
	assert_uint_in_range(hgm_stats_format(&newer.stats, part, sizeof(part)), 100,
			     sizeof(part) - 1);
	newer.counter = 1;
	assert_int_equal(hgm_stats_format(&newer.stats, part, sizeof(part)), -E2BIG);
}

/* Bucket 0 is below 256 ns, bucket i below 2^(8 + i) ns, the last one the rest. */
static void buckets_at_their_borders(void **state)
{
	(void)state;
	for (unsigned int b = 0; b < HGM_HIST_BUCKETS; b++) {
		uint64_t first = b ? UINT64_C(1) << (b + 7) : 0;
		uint64_t last =
			b == HGM_HIST_BUCKETS - 1 ? UINT64_MAX >> 8 : (UINT64_C(1) << (b + 8)) - 1;

		end(NULL);
		assert_int_equal(begin(NULL), 0);
		hgm_stat_phase(&h->stats, HGM_PHASE_INSTALL, first);
		hgm_stat_phase(&h->stats, HGM_PHASE_INSTALL, last);
		assert_int_equal(hgm_get_stats(h, &stats), 0);
		assert_int_equal(stats.install.bucket[b], 2);
		assert_int_equal(stats.install.count, 2);
		assert_int_equal(stats.install.sum_ns, first + last);
		assert_int_equal(stats.install.max_ns, last);
	}
}

static void quantiles_of_one_value(void **state)
{
	static const uint64_t values[] = { 1, 255, 256, 300, 1000, 123456789, UINT64_C(1) << 39 };

	(void)state;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		end(NULL);
		assert_int_equal(begin(NULL), 0);
		hgm_stat_phase(&h->stats, HGM_PHASE_QUEUED, values[i]);
		assert_int_equal(hgm_get_stats(h, &stats), 0);
		for (unsigned int permille = 0; permille < 1000; permille += 37) {
			uint64_t q = hgm_hist_quantile(&stats.queued, permille);

			/* Its bucket, never above the value. */
			assert_uint_in_range(q, values[i] / 2, values[i]);
		}
		assert_int_equal(hgm_hist_quantile(&stats.queued, 1000), values[i]);
		assert_int_equal(hgm_hist_quantile(&stats.queued, 5000), values[i]);
	}
}

static void quantiles_of_many(void **state)
{
	uint64_t last = 0;

	(void)state;
	for (int i = 0; i < 980; i++)
		hgm_stat_phase(&h->stats, HGM_PHASE_SOURCE, 5000); /* 4096 to 8191 */
	for (int i = 0; i < 15; i++)
		hgm_stat_phase(&h->stats, HGM_PHASE_SOURCE, 100000); /* 65536 to 131071 */
	for (int i = 0; i < 5; i++)
		hgm_stat_phase(&h->stats, HGM_PHASE_SOURCE, 3000000); /* 2097152 to 4194303 */
	assert_int_equal(hgm_get_stats(h, &stats), 0);
	assert_uint_in_range(hgm_hist_quantile(&stats.source, 0), 4096, 4200);
	/* Interpolated evenly: the middle of the bucket, a little more as it holds 98 %. */
	assert_uint_in_range(hgm_hist_quantile(&stats.source, 490), 6100, 6200);
	assert_uint_in_range(hgm_hist_quantile(&stats.source, 979), 8100, 8191);
	assert_uint_in_range(hgm_hist_quantile(&stats.source, 980), 65536, 80000);
	assert_uint_in_range(hgm_hist_quantile(&stats.source, 990), 65536, 131071);
	assert_uint_in_range(hgm_hist_quantile(&stats.source, 995), 2097152, 3000000);
	assert_uint_in_range(hgm_hist_quantile(&stats.source, 999), 2097152, 3000000);
	assert_int_equal(hgm_hist_quantile(&stats.source, 1000), 3000000);
	for (unsigned int permille = 0; permille <= 1000; permille++) {
		uint64_t q = hgm_hist_quantile(&stats.source, permille);

		assert_true(q >= last);
		last = q;
	}
}

static void *count(void *arg)
{
	uint64_t me = *(uint64_t *)arg;

	for (uint64_t i = 0; i < COUNTS; i++) {
		hgm_stat_add(&h->stats, HGM_STAT_FAULTS, 1);
		hgm_stat_add(&h->stats, HGM_STAT_SLEEPS, me);
		hgm_stat_phase(&h->stats, HGM_PHASE_QUEUED, me * COUNTS + i);
		if (!(i % 512)) { /* counters only grow */
			uint64_t before = hgm_stat_read(&h->stats, HGM_STAT_FAULTS);

			if (hgm_stat_read(&h->stats, HGM_STAT_FAULTS) < before)
				*(uint64_t *)arg = UINT64_MAX;
		}
	}
	return NULL;
}

static void many_threads_count(void **state)
{
	pthread_t thread[THREADS];
	uint64_t number[THREADS];
	uint64_t numbers = 0, sum = 0, used = 0;

	(void)state;
	for (uint64_t i = 0; i < THREADS; i++) {
		number[i] = i;
		numbers += i;
		assert_int_equal(pthread_create(&thread[i], NULL, count, &number[i]), 0);
	}
	for (uint64_t i = 0; i < THREADS; i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(number[i], i);
	}
	assert_int_equal(hgm_get_stats(h, &stats), 0);
	assert_int_equal(stats.faults, THREADS * COUNTS);
	assert_int_equal(stats.sleeps, numbers * COUNTS);
	assert_int_equal(stats.queued.count, THREADS * COUNTS);
	for (uint64_t i = 0; i < (uint64_t)THREADS * COUNTS; i++)
		sum += i;
	assert_int_equal(stats.queued.sum_ns, sum);
	assert_int_equal(stats.queued.max_ns, THREADS * COUNTS - 1);
	/* More threads than shards: each shard is used, except those that belong to one thread. */
	for (int i = 0; i < HGM_STAT_SHARDS; i++)
		used += atomic_load(&h->stats.shard[i].counter[HGM_STAT_FAULTS]) > 0;
	assert_int_equal(used, HGM_STAT_SHARDS_SHARED);
	for (int i = 0; i < HGM_STAT_SHARDS_OWNED; i++)
		assert_int_equal(atomic_load(&h->stats.shard[i].counter[HGM_STAT_FAULTS]), 0);
	assert_int_equal((uintptr_t)&h->stats.shard[1] % 64, 0);
}

static void *count_owned(void *arg)
{
	hgm_stat_own(&h->stats, (unsigned int)*(uint64_t *)arg);
	return count(arg);
}

/* No count is lost between threads that count without a lock and all others. */
static void fault_threads_count(void **state)
{
	pthread_t thread[THREADS];
	uint64_t number[THREADS];

	(void)state;
	for (uint64_t i = 0; i < THREADS; i++) {
		number[i] = i;
		assert_int_equal(pthread_create(&thread[i], NULL,
						i < FAULT_THREADS ? count_owned : count,
						&number[i]),
				 0);
	}
	for (uint64_t i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(hgm_stat_read(&h->stats, HGM_STAT_FAULTS), THREADS * COUNTS);
	for (int i = 0; i < FAULT_THREADS; i++)
		assert_int_equal(atomic_load(&h->stats.shard[i].counter[HGM_STAT_FAULTS]), COUNTS);
	for (uint64_t i = 0; i < THREADS; i++)
		assert_int_equal(number[i], i);
	assert_int_equal(hgm_get_stats(h, &stats), 0);
	assert_int_equal(stats.queued.count, THREADS * COUNTS);
	assert_int_equal(stats.queued.sum_ns,
			 (uint64_t)THREADS * COUNTS * (THREADS * COUNTS - 1) / 2);
	assert_int_equal(stats.queued.max_ns, THREADS * COUNTS - 1);
}

static void *count_elsewhere(void *arg)
{
	struct hgm *other = arg;

	hgm_stat_own(&h->stats, 1);
	hgm_stat_add(&other->stats, HGM_STAT_FAULTS, 1);
	return NULL;
}

/* A fault thread that works for another engine is an ordinary thread there. */
static void fault_thread_of_another(void **state)
{
	struct hgm *other = aligned_alloc(64, (sizeof(*h) + 63) / 64 * 64);
	pthread_t thread;

	(void)state;
	assert_non_null(other);
	memset(other, 0, sizeof(*other));
	other->stats.owned = 2;
	assert_int_equal(pthread_create(&thread, NULL, count_elsewhere, other), 0);
	pthread_join(thread, NULL);
	assert_int_equal(atomic_load(&other->stats.shard[1].counter[HGM_STAT_FAULTS]), 0);
	assert_int_equal(hgm_stat_read(&other->stats, HGM_STAT_FAULTS), 1);
	free(other);
}

static void sizes_of_other_releases(void **state)
{
	struct {
		struct hgm_stats stats;
		uint64_t newer[4];
	} larger;

	(void)state;
	hgm_stat_add(&h->stats, HGM_STAT_SLEEPS, 7);
	memset(&larger, 0xff, sizeof(larger));
	larger.stats.size = sizeof(larger);
	assert_int_equal(hgm_get_stats(h, &larger.stats), 0);
	assert_int_equal(larger.stats.size, sizeof(larger));
	assert_int_equal(larger.stats.sleeps, 7);
	for (int i = 0; i < 4; i++)
		assert_int_equal(larger.newer[i], 0);
}

static void impossible_arguments(void **state)
{
	static const size_t sizes[] = {
		0, 1, sizeof(size_t), sizeof(stats) - 8, 1 << 20, SIZE_MAX
	};
	struct hgm_stats before;

	(void)state;
	assert_int_equal(hgm_get_stats(NULL, &stats), -EINVAL);
	assert_non_null(strstr(hgm_errmsg(), "hgm_get_stats"));
	assert_int_equal(hgm_get_stats(h, NULL), -EINVAL);
	assert_non_null(strstr(hgm_errmsg(), "hgm_get_stats"));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		stats.size = sizes[i];
		before = stats;
		assert_int_equal(hgm_get_stats(h, &stats), -EINVAL);
		assert_non_null(strstr(hgm_errmsg(), "size"));
		assert_memory_equal(&stats, &before, sizeof(before));
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

static const struct CMUnitTest tests[] = {
	TEST(nothing_has_happened),
	TEST(every_counter_is_told),
	TEST(phases_are_apart),
	TEST(buckets_at_their_borders),
	TEST(quantiles_of_one_value),
	TEST(quantiles_of_many),
	TEST(many_threads_count),
	TEST(fault_threads_count),
	TEST(fault_thread_of_another),
	TEST(sizes_of_other_releases),
	TEST(impossible_arguments),
	TEST(text_has_every_counter),
	TEST(text_is_cut_short_where_there_is_no_room),
};

TEST_MAIN(tests)
