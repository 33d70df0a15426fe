/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sources of different behaviour beside each other. A source that is silent, is slow or has lost a
 * request must delay neither what others deliver, nor the rest of its own deliveries.
 */
#include "harness.h"
#include "pager/fill_source.h"
#include "pager/fill.h"
#include "pager/work.h"
#include "region/hgm.h"

#include <errno.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(8 * MIB)

static const struct contents contents = { .seed = 77 };

static bool is_present(void *arg)
{
	return info_of(arg).present_bytes == LENGTH;
}

static void assert_filled(const struct ram *ram, const char *what)
{
	if (!eventually(is_present, ram->region, WAIT_MS))
		fail_msg("%s: %llu of %llu bytes are there", what,
			 (unsigned long long)info_of(ram->region).present_bytes,
			 (unsigned long long)LENGTH);
	assert_pages(&contents, 0, LENGTH / PAGE, ram->addr);
}

/* Answers from its own thread, in order. It can lose one request on demand. */
struct server {
	struct hgm_source *source;
	uint64_t loses_at; /* the request that holds this byte */
	bool cost;	   /* each request costs time, whatever its size */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct hgm_io queue[2048];
	unsigned int first, count;
	struct hgm_io lost;
	_Atomic uint64_t lost_bytes;
	bool stop;
};

static int64_t server_read(void *user, const struct hgm_io *io)
{
	struct server *s = user;

	pthread_mutex_lock(&s->lock);
	if (!s->lost_bytes && s->loses_at >= io->offset && s->loses_at < io->offset + io->length) {
		s->lost = *io;
		s->lost_bytes = io->length;
	} else {
		s->queue[(s->first + s->count++) % 2048] = *io;
		pthread_cond_signal(&s->cond);
	}
	pthread_mutex_unlock(&s->lock);
	return HGM_IO_LATER;
}

static void give(const struct hgm_io *io)
{
	contents_write(&contents, io->offset / PAGE, io->length / PAGE, io->buf);
	hgm_io_done(io, (int64_t)io->length);
}

static void *serve(void *arg)
{
	struct server *s = arg;

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		struct hgm_io io;

		if (!s->count) {
			pthread_cond_wait(&s->cond, &s->lock);
			continue;
		}
		io = s->queue[s->first];
		s->first = (s->first + 1) % 2048;
		s->count--;
		pthread_mutex_unlock(&s->lock);
		if (s->cost)
			nap_us(200);
		give(&io);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static struct server *server_start(uint64_t loses_at, bool cost)
{
	struct server *s = test_calloc(1, sizeof(*s));

	s->loses_at = loses_at;
	s->cost = cost;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	assert_ok(hgm_source_fn(&s->source, server_read, s, NULL));
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
	return s;
}

static void server_end(struct server *s)
{
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	hgm_source_destroy(s->source);
	test_free(s);
}

struct lacking {
	struct hgm_region *region;
	struct server *server;
};

/* All pages have arrived except those of the lost request. */
static bool all_but_one(void *arg)
{
	struct lacking *l = arg;

	return l->server->lost_bytes &&
	       info_of(l->region).present_bytes == LENGTH - l->server->lost_bytes;
}

static void a_lost_request(uint64_t window, uint64_t at)
{
	struct hgm *h = engine_with((struct hgm_opts){ .fill_window_bytes = window });
	struct server *s = server_start(at, false);
	struct lacking lacking = { .server = s };
	struct ram ram;

	watch("a lost request", 120);
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, s->source, 0);
	lacking.region = ram.region;
	assert_ok(hgm_start(h));
	if (!eventually(all_but_one, &lacking, WAIT_MS))
		fail_msg("a request for %llu bytes at %llu is lost, and fill stops at %llu of %llu",
			 (unsigned long long)s->lost_bytes, (unsigned long long)at,
			 (unsigned long long)info_of(ram.region).present_bytes,
			 (unsigned long long)LENGTH);
	/* Now the lost answer comes after all. */
	give(&s->lost);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&contents, 0, LENGTH / PAGE, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	server_end(s);
	calm();
}

static void a_lost_request_stops_nothing(void **state)
{
	(void)state;
	a_lost_request(0, 0);
	a_lost_request(0, 40 * PAGE);
	a_lost_request(0, LENGTH / 2);
	a_lost_request(PAGE, 0); /* it is all of the fill window */
	a_lost_request(PAGE, 40 * PAGE);
}

/* A function that sleeps until it is let go. */
struct sleeper {
	struct hgm_source *source;
	_Atomic unsigned int asleep;
	_Atomic bool go;
};

static int64_t sleeper_read(void *user, const struct hgm_io *io)
{
	struct sleeper *s = user;

	atomic_fetch_add(&s->asleep, 1);
	while (!atomic_load(&s->go))
		nap_us(500);
	atomic_fetch_sub(&s->asleep, 1);
	contents_write(&contents, io->offset / PAGE, io->length / PAGE, io->buf);
	return (int64_t)io->length;
}

static void sleeper_make(struct sleeper *s)
{
	struct hgm_source_fn_opts opts = { .size = sizeof(opts), .flags = HGM_SOURCE_BLOCKING };

	*s = (struct sleeper){ .go = false };
	assert_ok(hgm_source_fn(&s->source, sleeper_read, s, &opts));
}

static bool is_asleep(void *arg)
{
	return atomic_load(&((struct sleeper *)arg)->asleep);
}

static const enum provider_kind good_kinds[] = { PROVIDER_MEMORY, PROVIDER_NOW, PROVIDER_LATER,
						 PROVIDER_BLOCKING };

#define GOOD (sizeof(good_kinds) / sizeof(good_kinds[0]))

static void good_make(struct hgm *h, struct provider *provider[GOOD], struct ram ram[GOOD])
{
	for (size_t i = 0; i < GOOD; i++) {
		provider[i] = provider_make(good_kinds[i], &contents, LENGTH);
		ram_make(&ram[i], h, BACKING_SHMEM, LENGTH, provider_source(provider[i]), 0);
	}
}

static void good_end(struct provider *provider[GOOD], struct ram ram[GOOD])
{
	for (size_t i = 0; i < GOOD; i++) {
		ram_end(&ram[i]);
		provider_free(provider[i]);
	}
}

/* The silent source comes first, so that it gets as many requests as it can. */
static void beside_a_silent_source(uint32_t workers)
{
	struct hgm *h = engine_with((struct hgm_opts){ .workers = workers });
	struct provider *silent = provider_make(PROVIDER_NEVER, &contents, LENGTH), *provider[GOOD];
	struct ram dead, ram[GOOD];

	watch("beside a silent source", 240);
	ram_make(&dead, h, BACKING_SHMEM, LENGTH, provider_source(silent), 0);
	assert_ok(hgm_start(h));
	while (!provider_kept(silent))
		nap_us(1000);
	good_make(h, provider, ram);
	for (size_t i = 0; i < GOOD; i++)
		assert_filled(&ram[i], provider_names[good_kinds[i]]);
	assert_int_equal(info_of(dead.region).present_bytes, 0);
	good_end(provider, ram);
	ram_end(&dead);
	hgm_destroy(h);
	provider_free(silent);
	calm();
}

static void a_silent_source_stops_no_other(void **state)
{
	(void)state;
	beside_a_silent_source(1);
	beside_a_silent_source(3);
}

/* The sleeping source keeps the workers that it had. One worker is enough for all others. */
static void beside_a_sleeping_source(uint32_t workers)
{
	struct hgm *h = engine_with((struct hgm_opts){ .workers = workers });
	struct provider *provider[GOOD];
	struct ram dead, ram[GOOD];
	struct sleeper sleeper;
	uint8_t value;

	watch("beside a sleeping source", 240);
	sleeper_make(&sleeper);
	ram_make(&dead, h, BACKING_SHMEM, LENGTH, sleeper.source, 0);
	assert_ok(hgm_start(h));
	assert_true(eventually(is_asleep, &sleeper, WAIT_MS));
	good_make(h, provider, ram);
	/* The last worker also serves threads that wait. */

	for (size_t i = 0; i < GOOD; i++)
		assert_int_equal(touch(ram[i].addr + LENGTH - PAGE, &value), 0);
	for (size_t i = 0; i < GOOD; i++)
		assert_filled(&ram[i], provider_names[good_kinds[i]]);
	assert_int_equal(info_of(dead.region).present_bytes, 0);
	/* The source is used again. */
	atomic_store(&sleeper.go, true);
	assert_filled(&dead, "the one that slept");
	good_end(provider, ram);
	ram_end(&dead);
	hgm_destroy(h);
	hgm_source_destroy(sleeper.source);
	calm();
}

static void a_sleeping_source_stops_no_other(void **state)
{
	(void)state;
	beside_a_sleeping_source(2);
	beside_a_sleeping_source(3);
	beside_a_sleeping_source(8);
}

/*
 * If each request costs time, small requests are slow. The fill window must not mistake the rate of
 * small requests for the limit of the source.
 */
static void costly_requests_are_large(void **state)
{
	struct hgm *h = engine(1);
	struct server *s = server_start(UINT64_MAX, true);
	struct ram ram;

	(void)state;
	watch("costly requests", 120);
	ram_make(&ram, h, BACKING_SHMEM, 8 * LENGTH, s->source, HGM_REGION_NO_COLLAPSE);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	/* Requests have at least 32 KiB on average, including those that it takes to find out. */
	assert_uint_in_range(stats_of(h).fill_requests, 1, 8 * LENGTH / (32 << 10));
	ram_end(&ram);
	hgm_destroy(h);
	server_end(s);
	calm();
}

static int64_t one_page(void *user, const struct hgm_io *io)
{
	(void)user;
	contents_write(&contents, io->offset / PAGE, 1, io->buf);
	return (int64_t)PAGE;
}

/* A source that delivers one page of a request has answered for one page only. */
static void what_is_delivered_counts(void **state)
{
	const struct hgm_source_fn_opts opts = { .size = sizeof(opts),
						 .flags = HGM_SOURCE_BLOCKING };
	struct hgm *h = engine(1);
	struct hgm_fill_window window;
	struct hgm_source *src;
	struct ram ram;

	(void)state;
	watch("a source that delivers little", 120);
	assert_ok(hgm_source_fn(&src, one_page, NULL, &opts));
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, HGM_REGION_NO_COLLAPSE);
	assert_ok(hgm_start(h));
	assert_filled(&ram, "one page at a time");
	assert_true(stats_of(h).source_short > 0);
	pthread_mutex_lock(&h->work->lock);
	window = ram.region->fill->source->window;
	pthread_mutex_unlock(&h->work->lock);
	assert_true(window.least_ns[0] > 0);
	for (unsigned int order = 1; order < HGM_FILL_WINDOW_ORDERS; order++)
		assert_int_equal(window.least_ns[order] + window.least_before_ns[order], 0);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

static int64_t computing(void *user, const struct hgm_io *io)
{
	if (user)
		nap_us(20);
	contents_write(&contents, io->offset / PAGE, io->length / PAGE, io->buf);
	return (int64_t)io->length;
}

static bool takes_a_cpu(struct hgm *h, const struct ram *ram)
{
	bool is;

	pthread_mutex_lock(&h->work->lock);
	is = ram->region->fill->source->computes;
	pthread_mutex_unlock(&h->work->lock);
	return is;
}

/* The workers see if a source takes CPU or time. One worker, so that none waits for a lock. */
static void who_takes_a_cpu_and_who_time(void **state)
{
	const struct hgm_source_fn_opts opts = { .size = sizeof(opts),
						 .flags = HGM_SOURCE_BLOCKING };
	struct hgm *h = engine_with((struct hgm_opts){ .fault_threads = 1, .workers = 1 });
	struct hgm_source *cpu, *time;
	struct ram a, b;

	(void)state;
	watch("a CPU, or time", 120);
	assert_ok(hgm_source_fn(&cpu, computing, NULL, &opts));
	assert_ok(hgm_source_fn(&time, computing, h, &opts));
	ram_make(&a, h, BACKING_SHMEM, LENGTH, cpu, HGM_REGION_NO_COLLAPSE);
	ram_make(&b, h, BACKING_SHMEM, LENGTH, time, HGM_REGION_NO_COLLAPSE);
	assert_ok(hgm_start(h));
	assert_filled(&a, "what takes a CPU");
	assert_filled(&b, "what takes time");
	assert_true(takes_a_cpu(h, &a));
	assert_false(takes_a_cpu(h, &b));
	ram_end(&a);
	ram_end(&b);
	hgm_destroy(h);
	hgm_source_destroy(cpu);
	hgm_source_destroy(time);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(a_lost_request_stops_nothing),
	cmocka_unit_test(a_silent_source_stops_no_other),
	cmocka_unit_test(a_sleeping_source_stops_no_other),
	cmocka_unit_test(costly_requests_are_large),
	cmocka_unit_test(what_is_delivered_counts),
	cmocka_unit_test(who_takes_a_cpu_and_who_time),
};

TEST_MAIN(tests)
