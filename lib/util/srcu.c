/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waiting for sections.
 *
 * Every reader that entered before us is counted on one of the sides, so we wait once for each side
 * to be empty. The other side comes first. It holds readers that read the side before the last wait
 * switched it, and entered after. Any reader that joins them later also read the side long ago, and
 * such readers run out. Then we switch the sides, and the side that all readers used until now runs
 * empty, too.
 *
 * Our last look at a counter is a read-modify-write. A reader that enters after it reads what it
 * wrote, and so sees what was written before the wait. We see a reader that left before it.
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
