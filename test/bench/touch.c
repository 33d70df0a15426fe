/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "clock.h"
#include "contents.h"
#include "random.h"
#include "touch.h"

struct toucher {
	const struct server *server;
	char *memory;
	const uint32_t *page; /* in this order */
	size_t count;
	_Atomic uint8_t *seen; /* indexed by page, shared */
	float *wait_us;
	size_t waits;
	pthread_barrier_t *start;
	pthread_t thread;
};

static void shuffle(uint32_t *page, size_t pages, uint64_t seed)
{
	for (size_t i = pages - 1; i; i--) {
		uint32_t j = random_below(&seed, (uint32_t)i + 1), swap = page[i];

		page[i] = page[j];
		page[j] = swap;
	}
}

/* @rank has the pages in the order of their popularity. */
static void draw_zipf(uint32_t *page, const uint32_t *rank, size_t pages, uint64_t seed)
{
	double *sum = malloc(pages * sizeof(*sum)), total = 0;

	if (!sum)
		die("touch", "no memory");
	for (size_t i = 0; i < pages; i++)
		sum[i] = total += 1 / (double)(i + 1);
	for (size_t i = 0; i < pages; i++) {
		double at = (double)(random_next(&seed) >> 11) * 0x1p-53 * total;
		size_t low = 0, high = pages - 1;

		while (low < high) {
			size_t middle = (low + high) / 2;

			if (sum[middle] <= at)
				low = middle + 1;
			else
				high = middle;
		}
		page[i] = rank[low];
	}
	free(sum);
}

static uint32_t *make_order(const struct touch *t)
{
	uint32_t *page = malloc(t->pages * sizeof(*page)), *rank;

	if (!page)
		die("touch", "no memory");
	for (size_t i = 0; i < t->pages; i++)
		page[i] = (uint32_t)i;
	if (t->order == SEQUENTIAL)
		return page;
	shuffle(page, t->pages, t->seed);
	if (t->order == SHUFFLED)
		return page;
	rank = page;
	page = malloc(t->pages * sizeof(*page));
	if (!page)
		die("touch", "no memory");
	draw_zipf(page, rank, t->pages, t->seed);
	free(rank);
	return page;
}

static void *run(void *arg)
{
	struct toucher *self = arg;
	const char *expected = contents(0);

	pthread_barrier_wait(self->start);
	for (size_t i = 0; i < self->count; i++) {
		size_t page = self->page[i];
		bool first = !atomic_exchange_explicit(&self->seen[page], 1, memory_order_relaxed);
		uint64_t before = now_ns();
		char byte;

		if (self->server->fetch)
			self->server->fetch(self->memory, page);
		byte = *(volatile char *)(self->memory + page * PAGE);
		if (first)
			self->wait_us[self->waits++] = (float)(now_ns() - before) / 1000;
		if (byte != expected[page * PAGE])
			die(self->server->name, "WRONG CONTENTS of a page that was touched");
	}
	return NULL;
}

void touch(struct touch *t, const struct server *server, char *memory)
{
	static struct toucher toucher[TOUCHERS_MAX];
	uint32_t *page = make_order(t);
	_Atomic uint8_t *seen = calloc(t->pages, 1);
	pthread_barrier_t start;
	uint64_t began;

	if (!seen)
		die("touch", "no memory");
	pthread_barrier_init(&start, NULL, t->touchers + 1);
	for (unsigned int i = 0; i < t->touchers; i++) {
		size_t from = t->pages * i / t->touchers, to = t->pages * (i + 1) / t->touchers;
		int rc;

		toucher[i] = (struct toucher){
			.server = server,
			.memory = memory,
			.page = page + from,
			.count = to - from,
			.seen = seen,
			.wait_us = t->wait_us + from,
			.start = &start,
		};
		rc = pthread_create(&toucher[i].thread, NULL, run, &toucher[i]);
		if (rc)
			die("touch", strerror(rc));
	}
	pthread_barrier_wait(&start);
	began = now_ns();
	for (unsigned int i = 0; i < t->touchers; i++)
		pthread_join(toucher[i].thread, NULL);
	t->seconds = (double)(now_ns() - began) / 1e9;

	t->waits = 0;
	for (unsigned int i = 0; i < t->touchers; i++) {
		memmove(t->wait_us + t->waits, toucher[i].wait_us,
			toucher[i].waits * sizeof(t->wait_us[0]));
		t->waits += toucher[i].waits;
	}
	pthread_barrier_destroy(&start);
	free((void *)seen);
	free(page);
}
