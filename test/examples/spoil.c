/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * To be preloaded into the demo: a libhgm that is wrong by as little as can be. A snapshot has one
 * wrong bit; collections of dirty pages never tell of one word of the bitmap. (One page would do,
 * but for a guest that is done with it before it is copied for the first time.) Some discards do
 * nothing. (One would do, but for a page that is zeroes anyway.)
 */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <hgm/dirty.h>
#include <hgm/region.h>

#include "of_libhgm.h"

ssize_t pwrite(int fd, const void *buf, size_t length, off_t offset)
{
	static atomic_int spoilt;
	ssize_t done = syscall(SYS_pwrite64, fd, buf, length, offset);
	uint8_t byte;

	if (done > 0 && is_of_libhgm() && !atomic_exchange(&spoilt, 1)) {
		byte = *(const uint8_t *)buf ^ 1;
		syscall(SYS_pwrite64, fd, &byte, 1, offset);
	}
	return done;
}

int hgm_dirty_collect(struct hgm_dirty *d, uint64_t first_page, uint64_t pages, uint64_t *bitmap,
		      uint64_t *dirty)
{
	int (*real)(struct hgm_dirty *, uint64_t, uint64_t, uint64_t *, uint64_t *) =
		dlsym(RTLD_NEXT, "hgm_dirty_collect");
	static uint64_t hidden = UINT64_MAX; /* word of the region */
	int rc = real(d, first_page, pages, bitmap, dirty);

	for (uint64_t word = 0; word < pages / 64; word++) {
		if (hidden == UINT64_MAX && bitmap[word])
			hidden = first_page / 64 + word;
		if (first_page / 64 + word == hidden)
			bitmap[word] = 0;
	}
	return rc;
}

int hgm_region_discard(struct hgm_region *r, uint64_t offset, uint64_t length)
{
	int (*real)(struct hgm_region *, uint64_t, uint64_t) =
		dlsym(RTLD_NEXT, "hgm_region_discard");
	static atomic_int calls;

	return atomic_fetch_add(&calls, 1) < 16 ? 0 : real(r, offset, length);
}
