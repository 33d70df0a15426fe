/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Model: anonymous memory, and one reader that sleeps in poll(2) and queues the faults that it
 * reads for a pool of workers. One mutex protects the queue and a table of the requested pages.
 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "raw.h"
#include "server.h"

#define WORKERS 4

struct entry {
	struct entry *next; /* in the same bucket */
	struct entry *queued;
	size_t page;
};

struct pool {
	struct raw *raw;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct entry **bucket;
	size_t buckets;
	struct entry *first;
	struct entry **last;
	bool stop;
	pthread_t worker[WORKERS];
};

/* Called with the lock held. A page that is in the table already has been queued before. */
static void enqueue(struct pool *pool, size_t page)
{
	struct entry **bucket = &pool->bucket[page * 2654435761u % pool->buckets], *e;

	for (e = *bucket; e; e = e->next)
		if (e->page == page)
			return;
	e = malloc(sizeof(*e));
	if (!e)
		die("model-pool", "no memory");
	*e = (struct entry){ .next = *bucket, .page = page };
	*bucket = e;
	*pool->last = e;
	pool->last = &e->queued;
	pthread_cond_signal(&pool->wake);
}

static void *read_messages(void *arg)
{
	struct raw *raw = arg;
	struct pool *pool = raw->more;

	while (!raw_stopped(raw)) {
		int64_t offset;

		raw_wait(raw, RAW_POLL_MS);
		offset = memory_next(&raw->memory);
		if (offset < 0)
			continue;
		pthread_mutex_lock(&pool->lock);
		enqueue(pool, (size_t)offset / PAGE);
		pthread_mutex_unlock(&pool->lock);
	}
	return NULL;
}

static void *work(void *arg)
{
	struct pool *pool = arg;
	struct entry *e;

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		while (!pool->first && !pool->stop)
			pthread_cond_wait(&pool->wake, &pool->lock);
		e = pool->first;
		if (!e)
			break;
		pool->first = e->queued;
		if (!pool->first)
			pool->last = &pool->first;
		pthread_mutex_unlock(&pool->lock);
		memory_install(&pool->raw->memory, e->page * PAGE, PAGE);
		pthread_mutex_lock(&pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static void *begin(size_t bytes, bool fresh, char **memory)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	(void)fresh; /* nothing is allocated in advance */
	if (!pool)
		die("model-pool", "no memory");
	pool->buckets = bytes / PAGE;
	pool->bucket = calloc(pool->buckets, sizeof(struct entry *));
	if (!pool->bucket)
		die("model-pool", "no memory");
	pool->last = &pool->first;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->wake, NULL);
	pool->raw = raw_begin(bytes, MEMORY_ANON, read_messages, pool, memory);
	for (unsigned int i = 0; i < WORKERS; i++) {
		int rc = pthread_create(&pool->worker[i], NULL, work, pool);

		if (rc)
			die("model-pool", strerror(rc));
	}
	return pool;
}

static void end(void *state)
{
	struct pool *pool = state;

	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->wake);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned int i = 0; i < WORKERS; i++)
		pthread_join(pool->worker[i], NULL);
	raw_end(pool->raw);
	for (size_t i = 0; i < pool->buckets; i++)
		for (struct entry *e = pool->bucket[i], *next; e; e = next) {
			next = e->next;
			free(e);
		}
	free(pool->bucket);
	pthread_mutex_destroy(&pool->lock);
	pthread_cond_destroy(&pool->wake);
	free(pool);
}

const struct server model_pool = { "model-pool", begin, end };
