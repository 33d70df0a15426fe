/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sources: the object itself, callers' functions, memory. Files are in source_file.c. Requests,
 * which carry what sources deliver, are in lib/pager/request.c and run.c.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "source.h"
#include "util/cancel.h"
#include "util/copy.h"
#include "util/error.h"
#include "util/opts.h"

struct hgm_source *hgm_source_new(void)
{
	struct hgm_source *src = calloc(1, sizeof(*src));

	if (src)
		atomic_init(&src->holds, 1);
	return src;
}

void hgm_source_hold(struct hgm_source *src)
{
	atomic_fetch_add_explicit(&src->holds, 1, memory_order_relaxed);
}

void hgm_source_destroy(struct hgm_source *src)
{
	HGM_UNCANCELLED;

	if (!src || atomic_fetch_sub_explicit(&src->holds, 1, memory_order_acq_rel) != 1)
		return;
	if (src->free)
		src->free(src);
	free(src);
}

static void free_callers(struct hgm_source *src)
{
	src->free_user(src->user);
}

int hgm_source_fn(struct hgm_source **out, hgm_read_fn read, void *user,
		  const struct hgm_source_fn_opts *opts)
{
	struct hgm_source_fn_opts o;
	struct hgm_source *src;
	int rc;

	if (!out || !read)
		return hgm_fail(-EINVAL, "hgm_source_fn: %s is NULL", out ? "read" : "out");
	rc = hgm_opts_in(&o, sizeof(o), HGM_FIRST_SIZE(struct hgm_source_fn_opts, free), opts,
			 "hgm_source_fn");
	if (rc)
		return rc;
	if (o.flags & ~HGM_SOURCE_BLOCKING || o.reserved)
		return hgm_fail(-EINVAL, "hgm_source_fn: unknown flags 0x%x, or reserved is not 0",
				o.flags);
	src = hgm_source_new();
	if (!src)
		return hgm_fail(-ENOMEM, "hgm_source_fn: out of memory");
	src->read = read;
	src->user = user;
	src->cancel = o.cancel;
	src->hurry = o.hurry;
	src->free_user = o.free;
	src->free = o.free ? free_callers : NULL;
	src->length = o.length;
	src->blocking = o.flags & HGM_SOURCE_BLOCKING;
	*out = src;
	return 0;
}

static int64_t memory_read(void *user, const struct hgm_io *io)
{
	const char *from = (const char *)user + io->offset;

	if (io->buf == from)
		; /* nothing to do: the contents are copied in from where they are */
	else if (io->flags & HGM_IO_DEMAND)
		memcpy(io->buf, from, io->length);
	else
		hgm_copy_cold(io->buf, from, io->length);
	return (int64_t)io->length;
}

int hgm_source_memory(struct hgm_source **out, const void *addr, uint64_t length)
{
	struct hgm_source *src;

	if (!out || !addr)
		return hgm_fail(-EINVAL, "hgm_source_memory: %s is NULL", out ? "addr" : "out");
	if (!length || (uintptr_t)addr + length < length || length > INT64_MAX)
		return hgm_fail(-EINVAL, "hgm_source_memory: length %llu is zero or overflows",
				(unsigned long long)length);
	src = hgm_source_new();
	if (!src)
		return hgm_fail(-ENOMEM, "hgm_source_memory: out of memory");
	src->read = memory_read;
	src->user = (void *)(uintptr_t)addr;
	src->memory = addr;
	src->length = length;
	*out = src;
	return 0;
}
