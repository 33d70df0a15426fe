/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_TEST_GRACE_H
#define HGM_TEST_GRACE_H

#include <stdatomic.h>
#include <unistd.h>

#include "util/rcu.h"

struct deferred {
	struct rcu_head rcu;
	_Atomic int done;
};

static inline void deferred_run(struct rcu_head *head)
{
	struct deferred *last = caa_container_of(head, struct deferred, rcu);

	hgm_rcu_tsan_acquire();
	atomic_store(&last->done, 1);
}

/*
 * Wait until everything that this thread has deferred to the end of a grace period is done:
 * callbacks run in their order. (ThreadSanitizer does not understand urcu_bp_barrier().)
 */
static inline void wait_for_deferred(void)
{
	struct deferred last = { .done = 0 };

	hgm_rcu_defer(&last.rcu, deferred_run);
	while (!atomic_load(&last.done))
		usleep(100);
}

#endif
