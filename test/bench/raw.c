/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "raw.h"

struct raw *raw_begin(size_t bytes, enum memory_kind kind, void *(*serve)(void *raw), void *more,
		      char **memory)
{
	struct raw *raw = calloc(1, sizeof(*raw));
	int rc;

	if (!raw)
		die("raw loop", "no memory");
	memory_make(&raw->memory, bytes, kind);
	raw->more = more;
	rc = pthread_create(&raw->thread, NULL, serve, raw);
	if (rc)
		die("raw loop", strerror(rc));
	*memory = raw->memory.primary;
	return raw;
}

void raw_end(void *arg)
{
	struct raw *raw = arg;

	atomic_store(&raw->stop, true);
	pthread_join(raw->thread, NULL);
	memory_free(&raw->memory);
	free(raw);
}

void raw_wait(const struct raw *raw, int ms)
{
	struct pollfd fd = { .fd = raw->memory.uffd, .events = POLLIN };

	poll(&fd, 1, ms);
}
