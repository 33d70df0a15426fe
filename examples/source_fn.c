/* SPDX-License-Identifier: 0BSD */
/*
 * source_fn - contents from a function of the program, which answers later from another thread
 *
 * The function only puts the request into a queue, so it does not hold up the fault thread. A
 * thread of the program answers the requests in the queue. Here each page contains its number.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <hgm/hgm.h>

#define LENGTH (UINT64_C(8) << 20)
#define PAGE   UINT64_C(4096)

static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct hgm_io io[1024]; /* an engine never has more unanswered requests */
	unsigned int count;
	int stop;
} queue = { .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER };

static void check(int rc)
{
	if (!rc)
		return;
	fprintf(stderr, "source_fn: %s\n", hgm_errmsg());
	exit(1);
}

/* libhgm calls this function. It must return quickly. */
static int64_t enqueue(void *user, const struct hgm_io *io)
{
	int64_t rc = HGM_IO_LATER;

	(void)user;
	pthread_mutex_lock(&queue.lock);
	if (queue.count == sizeof(queue.io) / sizeof(queue.io[0]))
		rc = -EBUSY; /* libhgm asks again later */
	else
		queue.io[queue.count++] = *io;
	pthread_cond_signal(&queue.wake);
	pthread_mutex_unlock(&queue.lock);
	return rc;
}

static void *answer(void *arg)
{
	struct hgm_io io;

	(void)arg;
	pthread_mutex_lock(&queue.lock);
	for (;;) {
		while (!queue.count && !queue.stop)
			pthread_cond_wait(&queue.wake, &queue.lock);
		if (!queue.count)
			break;
		io = queue.io[--queue.count];
		pthread_mutex_unlock(&queue.lock);

		for (size_t at = 0; at < io.length; at += sizeof(uint64_t))
			*(uint64_t *)((char *)io.buf + at) = (io.offset + at) / PAGE;
		if (io.flags & HGM_IO_DEMAND)
			printf("somebody waits for %zu bytes at %#llx\n", io.length,
			       (unsigned long long)io.offset);
		check(hgm_io_done(&io, (int64_t)io.length));

		pthread_mutex_lock(&queue.lock);
	}
	pthread_mutex_unlock(&queue.lock);
	return NULL;
}

int main(void)
{
	struct hgm_source_fn_opts source_opts = { .size = sizeof(source_opts), .length = LENGTH };
	struct hgm_region_opts opts = { .size = sizeof(opts), .length = LENGTH };
	struct hgm_region *region;
	const uint64_t *memory;
	pthread_t thread;
	struct hgm *h;

	if (pthread_create(&thread, NULL, answer, NULL)) {
		fprintf(stderr, "source_fn: no thread\n");
		return 1;
	}
	check(hgm_create(&h, NULL));
	check(hgm_source_fn(&opts.source, enqueue, NULL, &source_opts));
	check(hgm_region_create(&region, h, &opts));
	check(hgm_start(h));

	memory = hgm_region_addr(region);
	printf("page 1000 holds %llu\n", (unsigned long long)memory[1000 * PAGE / sizeof(*memory)]);
	check(hgm_wait(h, -1));
	printf("all %llu MiB have been answered\n", (unsigned long long)LENGTH >> 20);

	hgm_destroy(h); /* waits for all answers, so stop the thread only afterwards */
	hgm_source_destroy(opts.source);
	pthread_mutex_lock(&queue.lock);
	queue.stop = 1;
	pthread_cond_signal(&queue.wake);
	pthread_mutex_unlock(&queue.lock);
	pthread_join(thread, NULL);
	return 0;
}
