/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Model: anonymous memory, one thread that sleeps in poll(2), reads one message, and installs one
 * page by COPY. The example handlers that come with small VMMs do this.
 */
#include "raw.h"
#include "server.h"

static void *serve(void *arg)
{
	struct raw *raw = arg;

	while (!raw_stopped(raw)) {
		int64_t offset;

		raw_wait(raw, RAW_POLL_MS);
		offset = memory_next(&raw->memory);
		if (offset >= 0)
			memory_install(&raw->memory, (size_t)offset, 4096);
	}
	return NULL;
}

static void *begin(size_t bytes, bool fresh, char **memory)
{
	(void)fresh; /* nothing is allocated before */
	return raw_begin(bytes, MEMORY_ANON, serve, NULL, memory);
}

const struct server model_single = { "model-single", begin, raw_end };
