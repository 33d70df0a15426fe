/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Read-through: snapshots read pages from a region's source into a buffer.
 */
#ifndef HGM_LIB_READ_THROUGH_H
#define HGM_LIB_READ_THROUGH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct hgm_region;

/*
 * A read-through: pages of one word of the map that any number of requests read into a buffer
 * instead of memory. hgm_request_read_through() makes such a request.
 */
struct hgm_read_through {
	char *buf;		     /* for the whole word */
	_Atomic uint64_t open;	     /* bitmap: still to be read; the caller sets it */
	_Atomic uint64_t unreadable; /* bitmap: the source failed for good; the buffer has zeroes */
	_Atomic bool given_up;	     /* the caller wants no more; open pages stay open */
	/*
	 * A request for @pages of the read-through has ended and no longer touches it. Called on
	 * any thread.
	 */
	void (*done)(struct hgm_read_through *through, uint64_t pages);
};

/*
 * Have a worker read pages of one word from a region's source into @through's buffer, when it has
 * nothing more urgent to do. Pages that fill would fetch, and that no thread has claimed, also go
 * into memory. Returns -EAGAIN if there is no slot.
 */
int hgm_request_read_through(struct hgm_region *r, struct hgm_read_through *through, uint64_t page,
			     uint64_t pages);

/*
 * How many bytes a snapshot may have in flight from a region's source, in place of fill. @chunk is
 * set to the bytes of one request.
 */
uint64_t hgm_work_through_room(struct hgm_region *r, uint64_t *chunk);

/* Cancel all read-through requests, so that the source hurries. */
void hgm_requests_cancel_through(struct hgm_region *r);

#endif
