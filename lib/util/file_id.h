/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which file a descriptor is of, to tell whether two descriptors are of the same.
 */
#ifndef HGM_LIB_FILE_ID_H
#define HGM_LIB_FILE_ID_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "kernel/sys.h"

struct hgm_file_id {
	bool known;
	bool block_device; /* then @device is the device itself: it may have several names */
	dev_t device;
	uint64_t inode;
};

static inline struct hgm_file_id hgm_file_id(const struct hgm_file_kind *kind)
{
	bool block_device = S_ISBLK(kind->mode);

	return (struct hgm_file_id){
		.known = true,
		.block_device = block_device,
		.device = block_device ? kind->special : kind->device,
		.inode = block_device ? 0 : kind->inode,
	};
}

static inline bool hgm_file_same(const struct hgm_file_id *a, const struct hgm_file_id *b)
{
	return a->known && b->known && a->block_device == b->block_device &&
	       a->device == b->device && a->inode == b->inode;
}

#endif
