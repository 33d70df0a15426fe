/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The imitated network link of the examples must have the times of a link.
 *
 * "Never early" is exact. How late an answer is also depends on the machine's other work, so the
 * test judges the best tenth of many answers, and the best of several tries.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

#include "../../examples/link.c"

#define PAGE   4096
#define DATA   (8u << 20)
#define ENGINE ((struct hgm *)0x1)

static uint8_t *data;

struct answer {
	uint64_t id;
	uint64_t at;
	int64_t result;
};

static pthread_mutex_t answers_lock = PTHREAD_MUTEX_INITIALIZER;
static struct answer answers[4096];
static unsigned int answered;

static int note(const struct hgm_io *io, int64_t result)
{
	uint64_t at = now_ns();

	pthread_mutex_lock(&answers_lock);
	answers[answered].id = io->id;
	answers[answered].at = at;
	answers[answered].result = result;
	__atomic_store_n(&answered, answered + 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&answers_lock);
	return 0;
}

static void await(unsigned int count)
{
	uint64_t end = now_ns() + UINT64_C(20000000000);

	while (__atomic_load_n(&answered, __ATOMIC_ACQUIRE) < count) {
		if (now_ns() > end)
			fail_msg("%u of %u answers came", answered, count);
		usleep(100);
	}
}

static bool is_answered(uint64_t id)
{
	unsigned int count = __atomic_load_n(&answered, __ATOMIC_ACQUIRE);

	for (unsigned int i = 0; i < count; i++)
		if (answers[i].id == id)
			return true;
	return false;
}

/* Waits until the link's thread has taken that request off the queue. */
static void await_current(struct link *l, uint64_t id)
{
	bool taken;

	do {
		pthread_mutex_lock(&l->lock);
		taken = (l->current && l->current->io.id == id) || is_answered(id);
		pthread_mutex_unlock(&l->lock);
		usleep(100);
	} while (!taken);
}

static struct link *make(double gbps, double rtt_us)
{
	struct link_opts opts = { .gbps = gbps, .rtt_us = rtt_us, .deliver = note };
	struct link *l = NULL;

	answered = 0;
	assert_int_equal(link_create(&l, data, DATA, &opts), 0);
	return l;
}

static struct hgm_io request(uint64_t id, uint64_t offset, size_t length, void *buf)
{
	return (struct hgm_io){
		.engine = ENGINE, .id = id, .offset = offset, .length = length, .buf = buf
	};
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t process_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void one_at_a_time(double gbps, double rtt_us, size_t length)
{
	enum {
		TRIES = 101
	};
	uint64_t expected = rtt_us * 1000 + length * 8 / gbps, late[TRIES], sent;
	struct link *l = make(gbps, rtt_us);
	uint8_t *buf = malloc(length);
	struct hgm_io io;
	unsigned int i;

	for (i = 0; i < TRIES; i++) {
		io = request(i, i * PAGE, length, buf);
		sent = now_ns();
		assert_true(link_read(l, &io) == HGM_IO_LATER);
		await(i + 1);
		assert_int_equal(answers[i].result, length);
		/* 1 ns for rounding */
		assert_true(answers[i].at + 1 >= sent + expected);
		late[i] = answers[i].at - sent - expected;
		assert_memory_equal(buf, data + i * PAGE, length);
	}
	qsort(late, TRIES, sizeof(late[0]), by_value);
	print_message("# %g Gb/s %g us, %zu bytes: due after %.1f us, late by %.1f us (p10), %.1f "
		      "(p50)\n",
		      gbps, rtt_us, length, expected / 1e3, late[TRIES / 10] / 1e3,
		      late[TRIES / 2] / 1e3);
	assert_true(late[TRIES / 10] < 200000); /* waking a halted CPU takes 40 to 80 us */
	link_destroy(l);
	free(buf);
}

static void test_single_requests(void **state)
{
	(void)state;
	one_at_a_time(10, 100, PAGE);
	one_at_a_time(10, 100, 2 << 20);
	one_at_a_time(1, 1000, PAGE);
	one_at_a_time(100, 0, PAGE);
}

/* How long 64 MiB take if all are requested at once. */
static uint64_t send_much(struct link *l, uint64_t *due)
{
	enum {
		COUNT = 512,
		LENGTH = 128 << 10
	};
	uint8_t *buf = malloc(LENGTH);
	struct hgm_io io;
	uint64_t sent;
	unsigned int i;

	answered = 0;
	sent = now_ns();
	for (i = 0; i < COUNT; i++) {
		io = request(i, (uint64_t)(i % 32) * LENGTH, LENGTH, buf);
		assert_true(link_read(l, &io) == HGM_IO_LATER);
	}
	await(COUNT);
	for (i = 0; i < COUNT; i++) {
		*due = 100000 + (i + 1) * (uint64_t)(LENGTH * 0.8);
		assert_int_equal(answers[i].id, i);
		assert_true(answers[i].at >= sent + *due);
	}
	free(buf);
	return answers[COUNT - 1].at - sent;
}

static void test_bandwidth(void **state)
{
	struct link *l = make(10, 100);
	uint64_t took = 0, due = 0;
	int try;

	(void)state;
	for (try = 0; try < 5; try++) {
		took = send_much(l, &due);
		print_message("# 64 MiB at 10 Gb/s: due after %.1f ms, took %.1f ms\n", due / 1e6,
			      took / 1e6);
		if (took < due + due / 10)
			break;
	}
	assert_true(took < due + due / 10);
	link_destroy(l);
}

struct sender {
	struct link *l;
	unsigned int number;
};

enum {
	SENDERS = 4,
	EACH = 500
};

static void *send_many(void *arg)
{
	struct sender *s = arg;
	uint8_t *buf = malloc(EACH * PAGE);
	struct hgm_io io;
	unsigned int i;

	for (i = 0; i < EACH; i++) {
		io = request(s->number * EACH + i, i * PAGE, PAGE, buf + i * PAGE);
		if (link_read(s->l, &io) != HGM_IO_LATER)
			abort();
	}
	return buf;
}

static void test_many_senders(void **state)
{
	struct link *l = make(10, 50);
	struct sender s[SENDERS];
	pthread_t t[SENDERS];
	bool seen[SENDERS * EACH] = { false };
	struct link_stats stats;
	unsigned int i;
	void *buf;

	(void)state;
	for (i = 0; i < SENDERS; i++) {
		s[i] = (struct sender){ l, i };
		assert_int_equal(pthread_create(&t[i], NULL, send_many, &s[i]), 0);
	}
	await(SENDERS * EACH);
	for (i = 0; i < SENDERS; i++) {
		pthread_join(t[i], &buf);
		assert_memory_equal(buf, data, EACH * PAGE);
		free(buf);
	}
	for (i = 0; i < SENDERS * EACH; i++) {
		assert_false(seen[answers[i].id]);
		seen[answers[i].id] = true;
	}
	link_get_stats(l, &stats);
	assert_int_equal(stats.requests, SENDERS * EACH);
	assert_int_equal(stats.bytes, SENDERS * EACH * PAGE);
	assert_int_equal(stats.cancelled, 0);
	assert_true(stats.deepest > 1);
	link_destroy(l);
}

/* Nothing arrives during the test: 4 KiB take hours. */
static void test_cancel(void **state)
{
	struct link *l = make(0.000000001, 0);
	uint8_t *buf = malloc(PAGE);
	struct hgm_io io;
	unsigned int i;

	(void)state;
	for (i = 0; i < 8; i++) {
		io = request(i, 0, PAGE, buf);
		assert_true(link_read(l, &io) == HGM_IO_LATER);
	}
	await_current(l, 0);
	/* The last in the queue, and the one that the link waits for. 7 is the next then. */
	link_cancel(l, ENGINE, 7);
	link_cancel(l, ENGINE, 0);
	await(2);
	assert_int_equal(answers[0].id, 0);
	assert_int_equal(answers[0].result, -ECANCELED);
	assert_int_equal(answers[1].id, 7);
	assert_int_equal(answers[1].result, -ECANCELED);

	/* A request in the middle, and one that does not exist. */
	await_current(l, 1);
	link_cancel(l, ENGINE, 4);
	link_cancel(l, ENGINE, 99);
	link_cancel(l, ENGINE, 1);
	await(4);
	assert_int_equal(answers[2].id, 1);
	assert_int_equal(answers[3].id, 4);
	assert_int_equal(answers[3].result, -ECANCELED);

	/* The end of the link answers all requests. */
	await_current(l, 2);
	assert_int_equal(answered, 4);
	link_destroy(l);
	assert_int_equal(answered, 8);
	free(buf);
}

/* 4 KiB take 33 ms. The request before it keeps its time. */
static void test_cancel_behind(void **state)
{
	struct link *l = make(0.001, 0);
	uint8_t *buf = malloc(PAGE);
	struct hgm_io io;
	uint64_t sent = now_ns();

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		io = request(i, 0, PAGE, buf);
		assert_true(link_read(l, &io) == HGM_IO_LATER);
	}
	await_current(l, 0);
	link_cancel(l, ENGINE, 1);
	await(2);
	assert_int_equal(answers[0].id, 0);
	assert_int_equal(answers[0].result, PAGE);
	assert_true(answers[0].at >= sent + 32000000);
	link_destroy(l);
	free(buf);
}

static void test_idle(void **state)
{
	struct link *l = make(10, 100);
	uint8_t *buf = malloc(PAGE);
	struct hgm_io io = request(0, 0, PAGE, buf);
	uint64_t before;

	(void)state;
	assert_true(link_read(l, &io) == HGM_IO_LATER);
	await(1);
	before = process_ns();
	usleep(300000);
	assert_true(process_ns() - before < 3000000);
	link_destroy(l);

	/* Nor while a request takes its time. */
	l = make(0.000000001, 0);
	before = process_ns();
	assert_true(link_read(l, &io) == HGM_IO_LATER);
	usleep(300000);
	assert_int_equal(answered, 0);
	assert_true(process_ns() - before < 3000000);
	link_destroy(l);
	free(buf);
}

static void test_bad_input(void **state)
{
	struct link_opts none = { .rtt_us = 1 }, negative = { .gbps = 1, .rtt_us = -1 };
	struct link_opts impatient = { .gbps = 1, .each_us = -1 };
	struct link *l = NULL;
	uint8_t buf[PAGE];
	struct hgm_io io;

	(void)state;
	assert_int_equal(link_create(&l, data, DATA, &none), -EINVAL);
	assert_int_equal(link_create(&l, data, DATA, &negative), -EINVAL);
	assert_int_equal(link_create(&l, data, DATA, &impatient), -EINVAL);
	assert_int_equal(link_create(&l, NULL, DATA, &(struct link_opts){ .gbps = 1 }), -EINVAL);
	assert_null(l);
	link_destroy(NULL);

	l = make(10, 0);
	io = request(0, DATA, PAGE, buf);
	assert_int_equal(link_read(l, &io), -EINVAL);
	link_destroy(l);
}

static int setup(void **state)
{
	unsigned int i;

	(void)state;
	data = malloc(DATA);
	if (!data)
		return -1;
	for (i = 0; i < DATA / 4; i++)
		((uint32_t *)data)[i] = i * 2654435761u;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(data);
	return 0;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(test_single_requests, setup, teardown),
	cmocka_unit_test_setup_teardown(test_bandwidth, setup, teardown),
	cmocka_unit_test_setup_teardown(test_many_senders, setup, teardown),
	cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
	cmocka_unit_test_setup_teardown(test_cancel_behind, setup, teardown),
	cmocka_unit_test_setup_teardown(test_idle, setup, teardown),
	cmocka_unit_test_setup_teardown(test_bad_input, setup, teardown),
};

TEST_MAIN(tests)
