/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SRCU sections: read-side sections that a writer can wait for, as with sleepable RCU. Two counters
 * count the readers inside, and a writer directs new readers to the other counter.
 *
 * A grace period of liburcu would be correct, too, but takes too long here. If a reader has not
 * left after some hundred checks, because the kernel copies 2 MiB for it, liburcu sleeps for 10 ms.
 * The guest does not run during that time.
 */
#ifndef HGM_LIB_SRCU_H
#define HGM_LIB_SRCU_H

#include <stdatomic.h>

/* All zero: no reader is inside. */
struct hgm_srcu {
	char alone[64];		   /* padding on both sides, for cache lines of its own */
	_Atomic unsigned int side; /* new readers are counted there */
	_Atomic unsigned int inside[2];
	char too[64];
};

/*
 * Enter an SRCU section. Returns the side, for hgm_srcu_read_unlock(). A reader that enters after a
 * wait sees what was written before the wait.
 */
static inline unsigned int hgm_srcu_read_lock(struct hgm_srcu *s)
{
	unsigned int side = atomic_load_explicit(&s->side, memory_order_relaxed);

	atomic_fetch_add_explicit(&s->inside[side], 1, memory_order_acquire);
	return side;
}

static inline void hgm_srcu_read_unlock(struct hgm_srcu *s, unsigned int side)
{
	atomic_fetch_sub_explicit(&s->inside[side], 1, memory_order_release);
}

/*
 * Wait until all readers that are inside now have left. It need not wait for readers that enter
 * during the call. Only one thread at a time may call it, and never inside an SRCU section.
 */
void hgm_srcu_synchronize(struct hgm_srcu *s);

#endif
