/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The state of a fault thread, and parked faults: those that it could not serve in their turn.
 */
#ifndef HGM_LIB_PARK_H
#define HGM_LIB_PARK_H

#include <stdbool.h>
#include <stdint.h>

struct hgm;
struct hgm_fault_thread;
struct hgm_reads;
struct hgm_uffd;
struct hgm_uffd_event;

#define HGM_PARKED_FEW 64 /* room if there is no memory for more */

/* A fault that could not be served in its turn (EAGAIN, no slot, no memory) and is tried again. */
struct hgm_parked {
	uint64_t addr;
	uint32_t flags;
	bool starved; /* try nothing before there is a free slot */
	uint64_t due_ns;
	uint64_t backoff_ns;
};

struct hgm_server {
	struct hgm *h;
	struct hgm_uffd *uffd;
	struct hgm_fault_thread *self;
	struct hgm_reads *reads;
	uint64_t spin_ns;	   /* the current polling time */
	uint64_t wake_from;	   /* [wake_from, wake_to): the range of the deferred wake */
	uint64_t wake_to;	   /* 0: no wake is deferred */
	uint64_t wake_since_ns;	   /* when the first wake of that range was deferred */
	uint64_t together_from_ns; /* until then wake each waiter alone */
	uint64_t parked_due_ns;	   /* when the first parked fault is due */
	unsigned int parked_count;
	unsigned int parked_max;
	struct hgm_parked *parked;
	struct hgm_parked few[HGM_PARKED_FEW];
};

/*
 * Make room for all faults that may have to wait. If there is no room, the waiter is woken and
 * faults again at once. Many such faults would keep the fault thread from all other work.
 */
void hgm_park_init(struct hgm_server *s);
void hgm_park_destroy(struct hgm_server *s);

/* Try to serve a fault again, not before @backoff_ns from @now on. */
void hgm_park(struct hgm_server *s, uint64_t addr, uint64_t flags, uint64_t now,
	      uint64_t backoff_ns);

/* Serve parked faults that are due. Return the time until the next one, negative for none. */
int64_t hgm_park_serve(struct hgm_server *s);

/*
 * fault_read.c: read a batch of messages. Its events are handled at once, before the faults that
 * came with them, and are removed from the batch. Returns the number of faults that are left.
 */
int hgm_fault_read_batch(struct hgm_server *s, struct hgm_uffd_event *ev, unsigned int max);

/* Is there anything to read? */
bool hgm_fault_has_messages(const struct hgm_server *s);

#endif
