/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library's RCU: liburcu's "bulletproof" flavour, whose readers register themselves, so that
 * callers' threads need to know nothing of it. Private: no public header names it.
 *
 * ThreadSanitizer does not see liburcu's barriers; the annotations tell it the one thing that RCU
 * promises: what a reader did before unlocking happens before what a callback does.
 */
#ifndef HGM_LIB_RCU_H
#define HGM_LIB_RCU_H

#if defined(__SANITIZE_THREAD__)
#define HGM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HGM_TSAN 1
#endif
#endif

#if !defined(HGM_TSAN) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang_analyzer__)
/* liburcu's inline readers; out of line, the checkers leave their internals alone */
#define _LGPL_SOURCE
#endif
#include <urcu/urcu-bp.h>

#ifdef HGM_TSAN
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
extern char hgm_rcu_tsan_tag;
#define hgm_rcu_tsan_acquire() __tsan_acquire(&hgm_rcu_tsan_tag)
#define hgm_rcu_tsan_release() __tsan_release(&hgm_rcu_tsan_tag)
#else
#define hgm_rcu_tsan_acquire() ((void)0)
#define hgm_rcu_tsan_release() ((void)0)
#endif

static inline void hgm_rcu_read_lock(void)
{
	urcu_bp_read_lock();
}

static inline void hgm_rcu_read_unlock(void)
{
	hgm_rcu_tsan_release();
	urcu_bp_read_unlock();
}

/* Wait until all who are reading now have stopped. Never inside a read-side section. */
static inline void hgm_rcu_synchronize(void)
{
	hgm_rcu_tsan_release();
	urcu_bp_synchronize_rcu();
	hgm_rcu_tsan_acquire();
}

/* Call @fn(@head) after a grace period. A callback begins with hgm_rcu_tsan_acquire(). */
static inline void hgm_rcu_defer(struct rcu_head *head, void (*fn)(struct rcu_head *))
{
	hgm_rcu_tsan_release();
	urcu_bp_call_rcu(head, fn);
}

/*
 * Start liburcu's callback thread with all signals blocked, if it does not run yet. -EAGAIN: no
 * thread can be had.
 */
int hgm_rcu_init(void);

#endif
