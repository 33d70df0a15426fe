/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sections of readers whom a writer can wait for, as with sleepable RCU: two counters of who is
 * inside, and a writer that turns those who come to the other one.
 *
 * liburcu's grace period would do, but for its patience: a reader that has not left after some
 * hundred looks, because the kernel copies 2 MiB for it, has it sleep for 10 ms. Here the guest
 * stands still meanwhile.
 */
#ifndef HGM_LIB_SECTION_H
#define HGM_LIB_SECTION_H

#include <stdatomic.h>

/* All zero: nobody is inside. */
struct hgm_section {
	char alone[64];		   /* in the cache: so much on both sides */
	_Atomic unsigned int side; /* whoever enters is counted there */
	_Atomic unsigned int inside[2];
	char too[64];
};

/* Returns the side, for hgm_section_leave(). What was written before a wait is seen after it. */
static inline unsigned int hgm_section_enter(struct hgm_section *s)
{
	unsigned int side = atomic_load_explicit(&s->side, memory_order_relaxed);

	atomic_fetch_add_explicit(&s->inside[side], 1, memory_order_acquire);
	return side;
}

static inline void hgm_section_leave(struct hgm_section *s, unsigned int side)
{
	atomic_fetch_sub_explicit(&s->inside[side], 1, memory_order_release);
}

/*
 * Wait until all who are inside now have left; not for those who enter meanwhile. One caller at a
 * time, and never from inside.
 */
void hgm_section_wait(struct hgm_section *s);

#endif
