/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Model: as model-single, but with a bitmap of present pages. Whenever there is no message, the
 * thread installs the next page that is not present.
 */
#include <stdlib.h>

#include "bench.h"
#include "raw.h"
#include "server.h"

static bool is_present(const uint8_t *present, size_t page)
{
	return present[page / 8] >> page % 8 & 1;
}

static void install(struct raw *raw, size_t page)
{
	uint8_t *present = raw->more;

	memory_install(&raw->memory, page * PAGE, PAGE);
	present[page / 8] |= (uint8_t)(1u << page % 8);
}

static void *serve(void *arg)
{
	struct raw *raw = arg;
	size_t pages = raw->memory.bytes / PAGE, next = 0;

	while (!raw_stopped(raw)) {
		int64_t offset;

		while (next < pages && is_present(raw->more, next))
			next++;
		raw_wait(raw, next < pages ? 0 : RAW_POLL_MS);
		offset = memory_next(&raw->memory);
		if (offset >= 0)
			install(raw, (size_t)offset / PAGE);
		else if (next < pages)
			install(raw, next);
	}
	return NULL;
}

static void *begin(size_t bytes, bool fresh, char **memory)
{
	uint8_t *present = calloc(bytes / PAGE / 8 + 1, 1);

	(void)fresh; /* nothing is allocated in advance */
	if (!present)
		die("model-prefault", "no memory");
	return raw_begin(bytes, MEMORY_ANON, serve, present, memory);
}

static void end(void *state)
{
	struct raw *raw = state;
	void *present = raw->more;

	raw_end(raw);
	free(present);
}

const struct server model_prefault = { "model-prefault", begin, end };
