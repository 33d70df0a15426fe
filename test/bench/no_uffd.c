/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"
#include "contents.h"
#include "memory.h"
#include "server.h"

struct floor {
	char *memory;
	size_t bytes;
};

static void *begin(size_t bytes, bool fresh, char **memory)
{
	struct floor *f = malloc(sizeof(*f));

	(void)fresh; /* nothing is allocated in advance */
	if (!f)
		die("no-uffd", "no memory");
	f->bytes = bytes;
	f->memory = memory_map(bytes, -1);
	madvise(f->memory, bytes, MADV_NOHUGEPAGE);
	*memory = f->memory;
	return f;
}

static void fetch(char *memory, size_t page)
{
	memcpy(memory + page * PAGE, contents(0) + page * PAGE, PAGE);
}

static void end(void *state)
{
	struct floor *f = state;

	munmap(f->memory, f->bytes);
	free(f);
}

const struct server no_uffd = { "no-uffd", begin, end, fetch };
