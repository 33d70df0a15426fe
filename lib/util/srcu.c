/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Wait for SRCU sections.
 *
 * Every reader that entered before the wait is counted on one of the two sides. So
 * hgm_srcu_synchronize() waits until each side was empty once. The unused side comes first. It
 * counts readers that loaded the number of the side before the last wait switched it, and entered
 * after. A reader that enters there later has loaded the number before that switch, too, so there
 * is only a limited number of them. Then the sides are switched, and the side that all readers have
 * used until now becomes empty, too.
 *
 * The last access of the wait to a counter is a read-modify-write. A reader that enters after it
 * reads what it wrote, and so sees what was written before the wait. The writer sees what a reader
 * wrote that left before it.
 */
#include <sched.h>
#include <time.h>

#include "srcu.h"

#define LOOKS_BEFORE_YIELD 256 /* some 10 us */
#define LOOKS_BEFORE_NAP   64
#define NAP_NS		   20000

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

static void be_patient(unsigned int looks)
{
	if (looks < LOOKS_BEFORE_YIELD)
		pause_cpu();
	else if (looks < LOOKS_BEFORE_YIELD + LOOKS_BEFORE_NAP)
		sched_yield();
	else
		nanosleep(&(struct timespec){ .tv_nsec = NAP_NS }, NULL);
}

static void wait_for(_Atomic unsigned int *inside)
{
	unsigned int looks = 0;

	while (atomic_load_explicit(inside, memory_order_relaxed) ||
	       atomic_fetch_add_explicit(inside, 0, memory_order_acq_rel))
		be_patient(looks++);
}

void hgm_srcu_synchronize(struct hgm_srcu *s)
{
	unsigned int side = atomic_load_explicit(&s->side, memory_order_relaxed);

	wait_for(&s->inside[!side]);
	atomic_store_explicit(&s->side, !side, memory_order_relaxed);
	wait_for(&s->inside[side]);
}
