/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_SOURCE_H
#define HGM_LIB_SOURCE_H

#include <stdatomic.h>

#include <hgm/source.h>

struct hgm_source {
	/* As the caller's function; may sleep if @blocking. */
	hgm_read_fn read;
	/*
	 * For fault threads, if @blocking: -EAGAIN where @read would sleep. NULL: it always
	 * might.
	 */
	hgm_read_fn read_nowait;
	void (*cancel)(void *user, struct hgm *engine, uint64_t id);
	void (*free)(struct hgm_source *src);
	void *user;
	bool blocking;
	uint64_t length;    /* 0: unknown */
	const void *memory; /* a memory source's first byte */
	_Atomic unsigned int holds;
};

/* A source object with one hold; everything else 0. */
struct hgm_source *hgm_source_new(void);

void hgm_source_hold(struct hgm_source *src);

#endif
