/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The way of requests from the threads that ask to the one thread that serves them. Asking takes no
 * lock, allocates nothing, and enters the kernel only if the serving thread sleeps.
 */
#ifndef HGM_NBD_RING_H
#define HGM_NBD_RING_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <hgm/source.h>

/* An engine has at most 1024 unanswered requests. The others are for hurries and cancels. */
#define RING_TOLD  128
#define RING_SLOTS (1024 + RING_TOLD)

enum ring_kind {
	RING_READ,
	RING_HURRY,  /* of the request with this engine and id */
	RING_CANCEL, /* likewise */
};

struct ring_slot {
	struct hgm_io io; /* HURRY, CANCEL: only engine and id */
	enum ring_kind kind;
	_Atomic uint32_t next; /* index + 1; 0: none */
};

struct ring {
	/* Index + 1 of the first free slot; above it a count of takers, because slots come back. */
	alignas(64) _Atomic uint64_t free;
	/* Index + 1 of what was asked last; 0: nothing; or RING_ASLEEP. */
	alignas(64) _Atomic uint32_t asked;
	struct ring_slot slot[RING_SLOTS];
};

void hgm_nbd_ring_init(struct ring *ring);

/* Any thread. NULL: all slots are taken. */
struct ring_slot *hgm_nbd_ring_get(struct ring *ring);

/* Any thread. Hands a slot over to the serving thread. True: that thread sleeps, so wake it. */
bool hgm_nbd_ring_ask(struct ring *ring, struct ring_slot *slot);

/* The serving thread. All that was asked, oldest first, linked by @next. */
struct ring_slot *hgm_nbd_ring_take(struct ring *ring);
struct ring_slot *hgm_nbd_ring_next(struct ring *ring, const struct ring_slot *slot);

/* The serving thread. True: it may sleep, and the next hgm_nbd_ring_ask() says so. */
bool hgm_nbd_ring_may_sleep(struct ring *ring);

/* Any thread. The slot is free. */
void hgm_nbd_ring_put(struct ring *ring, struct ring_slot *slot);

#endif
