/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <linux/userfaultfd.h>
#include <unistd.h>

#include "raw.h"
#include "server.h"

#define BATCH 64

static void *serve(void *arg)
{
	struct raw *raw = arg;
	struct uffd_msg msg[BATCH];
	size_t i, count;
	ssize_t n;

	while (!raw_stopped(raw)) {
		n = read(raw->memory.uffd, msg, sizeof(msg));
		count = n < 0 ? 0 : (size_t)n / sizeof(msg[0]);
		for (i = 0; i < count; i++)
			memory_install(&raw->memory,
				       (msg[i].arg.pagefault.address & ~4095ull) -
					       (uintptr_t)raw->memory.primary,
				       4096);
	}
	return NULL;
}

static void *begin(size_t bytes, bool fresh, char **memory)
{
	return raw_begin(bytes, fresh ? MEMORY_FRESH : MEMORY_PREPARED, serve, NULL, memory);
}

const struct server raw_batch = { "raw-batch", begin, raw_end };
