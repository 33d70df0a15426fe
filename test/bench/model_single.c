/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Model: anonymous memory, one thread that sleeps in poll(2), reads one message, and installs one
 * page by COPY. The example handlers that come with small VMMs do this.
 */
#include "raw.h"
#include "server.h"

static void *begin(size_t bytes, bool fresh, char **memory)
{
	(void)fresh; /* nothing is allocated before */
	return raw_begin(bytes, MEMORY_ANON, raw_serve_poll, NULL, memory);
}

const struct server model_single = { "model-single", begin, raw_end };
