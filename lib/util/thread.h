/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads of the library: what they inherit from the thread that starts them, and what they do not.
 */
#ifndef HGM_LIB_THREAD_H
#define HGM_LIB_THREAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* How many CPUs the process may use; 1 if this is not known. */
unsigned int hgm_cpus(void);

/*
 * As pthread_create(), with a small stack. The caller may have a real-time priority or be bound to
 * one CPU, as threads of virtual CPUs are. The new thread inherits neither: it runs on the CPUs of
 * the process's first thread. 0 or -errno.
 */
int hgm_thread_create(pthread_t *thread, void *(*fn)(void *), void *arg);

/* Start a thread with a name. All signals are blocked except those that it raises itself. */
int hgm_thread_start(pthread_t *thread, const char *name, unsigned int index, void *(*fn)(void *),
		     void *arg);

/* What the threads of an engine pass before they begin. */
struct hgm_gate {
	pthread_mutex_t lock; /* held while threads are being started */
	_Atomic bool stopping;
};

/* Each thread of an engine calls this first; false: the thread must end at once. */
bool hgm_thread_may_begin(struct hgm_gate *gate);

/* Does the calling thread belong to any engine? */
bool hgm_thread_is_own(void);

/* Is the calling thread inside a caller's function, so that it must not wait for fault threads? */
void hgm_thread_calls_back(bool begins);
bool hgm_thread_is_calling_back(void);

/*
 * Let the calling thread get a CPU sooner after it was woken, but no more CPU time in the long run.
 * The scheduler (EEVDF, slices since 6.12) runs the thread with the earliest deadline, and a short
 * slice has an early one. An older kernel ignores this. If a sandbox denies it, nothing changes.
 */
void hgm_thread_shorten_slice(void);

/* How often the calling thread has given up its CPU voluntarily, to wait for something. */
uint64_t hgm_thread_sleeps(void);

#endif
