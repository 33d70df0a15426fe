/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library's RCU is liburcu's "bulletproof" flavour. Its readers register themselves, so that
 * callers' threads need not know of it. It is private: no public header names it.
 *
 * ThreadSanitizer does not see liburcu's barriers. The annotations tell it the guarantee of RCU
 * that the library uses: what a reader did before it unlocks happens before what a callback does.
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
/* Use liburcu's inline readers. Out of line, the checkers leave their internals alone. */
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

/*
 * liburcu looks for membarrier(2) when it is loaded, and aborts the process if a sandbox's filter
 * denies it later. So the library tries it before each grace period. Once it is denied, readers use
 * the barriers instead.
 */
void hgm_rcu_may_wait(void);

static inline void hgm_rcu_read_lock(void)
{
	urcu_bp_read_lock();
}

static inline void hgm_rcu_read_unlock(void)
{
	hgm_rcu_tsan_release();
	urcu_bp_read_unlock();
}

/* Wait until all current readers have finished. Must not be called inside a read-side section. */
static inline void hgm_rcu_synchronize(void)
{
	hgm_rcu_may_wait();
	hgm_rcu_tsan_release();
	urcu_bp_synchronize_rcu();
	hgm_rcu_tsan_acquire();
}

/* Call @fn(@head) after a grace period. A callback must begin with hgm_rcu_tsan_acquire(). */
static inline void hgm_rcu_defer(struct rcu_head *head, void (*fn)(struct rcu_head *))
{
	hgm_rcu_may_wait();
	hgm_rcu_tsan_release();
	urcu_bp_call_rcu(head, fn);
}

/*
 * Start liburcu's callback thread with all signals blocked, unless it runs already. -EAGAIN: no
 * thread can be created.
 */
int hgm_rcu_init(void);

#endif
