/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhgm as a server of faults
 */
#include <stdlib.h>

#include <hgm/hgm.h>

#include "bench.h"
#include "contents.h"
#include "server.h"

struct state {
	struct hgm *h;
	struct hgm_source *src;
};

static void *begin(size_t bytes, bool fresh, char **memory, uint32_t flags)
{
	struct hgm_region_opts opts = {
		.size = sizeof(opts),
		.length = bytes,
		.backing = fresh ? HGM_BACKING_SHMEM_LAZY : HGM_BACKING_SHMEM,
		.flags = flags,
	};
	struct state *s = calloc(1, sizeof(*s));
	struct hgm_region *r;

	if (!s || hgm_create(&s->h, NULL) || hgm_source_memory(&s->src, contents(bytes), bytes))
		die("libhgm", hgm_errmsg());
	opts.source = s->src;
	if (hgm_region_create(&r, s->h, &opts) || hgm_start(s->h))
		die("libhgm", hgm_errmsg());
	*memory = hgm_region_addr(r);
	return s;
}

static void *begin_demand(size_t bytes, bool fresh, char **memory)
{
	return begin(bytes, fresh, memory, HGM_REGION_NO_FILL | HGM_REGION_DEFER_COLLAPSE);
}

static void *begin_fill(size_t bytes, bool fresh, char **memory)
{
	return begin(bytes, fresh, memory, 0);
}

void *engine_filled(size_t bytes, uint32_t flags, char **memory)
{
	struct state *s = begin(bytes, false, memory, flags);

	if (hgm_wait(s->h, -1))
		die("libhgm", hgm_errmsg());
	return s;
}

void engine_end(void *state)
{
	struct state *s = state;

	hgm_destroy(s->h);
	hgm_source_destroy(s->src);
	free(s);
}

const struct server engine = { "libhgm", begin_demand, engine_end };
const struct server engine_fill = { "libhgm-fill", begin_fill, engine_end };
