/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "raw.h"
#include "server.h"

void *raw_serve_poll(void *arg)
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
	return raw_begin(bytes, fresh ? MEMORY_FRESH : MEMORY_PREPARED, raw_serve_poll, NULL,
			 memory);
}

const struct server raw_poll = { "raw-poll", begin, raw_end };
