/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Model: anonymous memory, and one thread that sleeps in poll(2), reads one message, and installs
 * one page with COPY. The example handlers of small VMMs do this.
 */
#include "raw.h"
#include "server.h"

static void *begin(size_t bytes, bool fresh, char **memory)
{
	(void)fresh; /* nothing is allocated in advance */
	return raw_begin(bytes, MEMORY_ANON, raw_serve_poll, NULL, memory);
}

const struct server model_single = { "model-single", begin, raw_end };
