/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A page source, as the modules that ask it see it.
 */
#ifndef HGM_LIB_SOURCE_H
#define HGM_LIB_SOURCE_H

#include <stdatomic.h>

#include <hgm/source.h>

#include "util/file_id.h"

struct hgm_source {
	/* Like the caller's function. May sleep if @blocking. */
	hgm_read_fn read;
	/*
	 * For fault threads, if @blocking: returns -EAGAIN where @read would sleep. NULL if @read
	 * may always sleep.
	 */
	hgm_read_fn read_nowait;
	void (*cancel)(void *user, struct hgm *engine, uint64_t id);
	void (*hurry)(void *user, struct hgm *engine, uint64_t id);
	void (*free)(struct hgm_source *src);
	void (*free_user)(void *user); /* of the caller, called by @free */
	void *user;
	bool blocking;
	bool copied_by_kernel;	 /* only system calls write to the buffer */
	uint64_t length;	 /* 0: unknown */
	const void *memory;	 /* first byte of a memory source */
	struct hgm_file_id file; /* of a file source */
	/* Failures since the last good answer, and how often a good answer followed failures. */
	_Atomic unsigned int failures;
	_Atomic unsigned int recoveries;
	_Atomic unsigned int holds;
};

/* Allocate a source object with one reference. All other fields are 0. */
struct hgm_source *hgm_source_new(void);

void hgm_source_hold(struct hgm_source *src);

#endif
