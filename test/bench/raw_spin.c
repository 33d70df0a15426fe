/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "raw.h"
#include "server.h"

static void *serve(void *arg)
{
	struct raw *raw = arg;

	while (!raw_stopped(raw)) {
		int64_t offset = memory_next(&raw->memory);

		if (offset >= 0)
			memory_install(&raw->memory, (size_t)offset, 4096);
	}
	return NULL;
}

static void *begin(size_t bytes, bool fresh, char **memory)
{
	return raw_begin(bytes, fresh ? MEMORY_FRESH : MEMORY_PREPARED, serve, NULL, memory);
}

const struct server raw_spin = { "raw-spin", begin, raw_end };
