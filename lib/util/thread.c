/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads of the library: creation, CPUs and scheduling, signals, and the gate that they pass
 * first.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "error.h"
#include "rcu.h"
#include "thread.h"

#define CPUS_FIRST 1024
#define CPUS_MAX   (1 << 20)

/*
 * The caller's functions run on this stack, too, and hgm/source.h says so. If memory is locked
 * (mlockall), all of it is resident.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_BYTES (2 << 20)
#else
#define STACK_BYTES (256 << 10)
#endif

#define SHORT_SLICE_NS 100000

/* The struct of sched_setattr(2). glibc declares it only since 2.41. */
struct scheduling {
	uint32_t size;
	uint32_t policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime_ns; /* for SCHED_OTHER: the slice */
	uint64_t deadline_ns;
	uint64_t period_ns;
};

/* The CPUs of a thread, in a set as large as the kernel's; NULL: not known. */
static cpu_set_t *affinity_of(pid_t tid, size_t *bytes)
{
	for (int cpus = CPUS_FIRST; cpus <= CPUS_MAX; cpus *= 2) {
		cpu_set_t *set = CPU_ALLOC((size_t)cpus);

		if (!set)
			return NULL;
		*bytes = CPU_ALLOC_SIZE((size_t)cpus);
		CPU_ZERO_S(*bytes, set);
		if (!sched_getaffinity(tid, *bytes, set))
			return set;
		CPU_FREE(set);
		if (errno != EINVAL)
			return NULL;
	}
	return NULL;
}

/* The CPUs of the first thread are those that the process was started with. */
static cpu_set_t *cpus_of_process(size_t *bytes)
{
	cpu_set_t *set = affinity_of(getpid(), bytes);

	return set ? set : affinity_of(0, bytes);
}

unsigned int hgm_cpus(void)
{
	int saved = errno;
	unsigned int count = 1;
	size_t bytes;
	cpu_set_t *set = cpus_of_process(&bytes);

	if (set)
		count = (unsigned int)CPU_COUNT_S(bytes, set);
	CPU_FREE(set);
	errno = saved;
	return count ? count : 1;
}

/* True: the new thread must not inherit the caller's policy. */
static bool set_policy(pthread_attr_t *attr)
{
	const struct sched_param none = { .sched_priority = 0 };
	int policy = sched_getscheduler(0);

	if (policy < 0)
		return false;
	policy &= ~SCHED_RESET_ON_FORK;
	if (policy == SCHED_OTHER || policy == SCHED_BATCH || policy == SCHED_IDLE)
		return false;
	pthread_attr_setinheritsched(attr, PTHREAD_EXPLICIT_SCHED);
	pthread_attr_setschedpolicy(attr, SCHED_OTHER);
	pthread_attr_setschedparam(attr, &none);
	return true;
}

static bool set_affinity(pthread_attr_t *attr)
{
	size_t bytes, own_bytes;
	cpu_set_t *set = cpus_of_process(&bytes);
	cpu_set_t *own = affinity_of(0, &own_bytes);
	bool differ = set && own && bytes == own_bytes && !CPU_EQUAL_S(bytes, set, own);

	if (differ)
		pthread_attr_setaffinity_np(attr, bytes, set);
	CPU_FREE(set);
	CPU_FREE(own);
	return differ;
}

int hgm_thread_create(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr, small;
	int saved = errno;
	bool special;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_attr_setstacksize(&small, STACK_BYTES);
	special = set_policy(&attr);
	special |= set_affinity(&attr);
	rc = pthread_create(thread, &attr, fn, arg);
	/* A sandbox may forbid the attributes. Thread-local storage may not fit in the stack. */
	if (rc && special)
		rc = pthread_create(thread, &small, fn, arg);
	if (rc == EINVAL)
		rc = pthread_create(thread, NULL, fn, arg);
	pthread_attr_destroy(&attr);
	pthread_attr_destroy(&small);
	errno = saved;
	return -rc;
}

void hgm_thread_shorten_slice(void)
{
	struct scheduling own = { .size = sizeof(own) };
	int saved = errno;

	if (!syscall(SYS_sched_getattr, 0, &own, sizeof(own), 0) && own.policy == SCHED_OTHER) {
		own.size = sizeof(own);
		own.runtime_ns = SHORT_SLICE_NS;
		syscall(SYS_sched_setattr, 0, &own, 0);
	}
	errno = saved;
}

uint64_t hgm_thread_sleeps(void)
{
	struct rusage used = { .ru_nvcsw = 0 };
	int saved = errno;

	getrusage(RUSAGE_THREAD, &used);
	errno = saved;
	return (uint64_t)used.ru_nvcsw;
}

int hgm_thread_start(pthread_t *thread, const char *name, unsigned int index, void *(*fn)(void *),
		     void *arg)
{
	char full[16];
	static const int synchronous[] = { SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGSYS };
	sigset_t most, before;
	int rc;

	/* A blocked synchronous signal kills the process without calling the caller's handler. */
	sigfillset(&most);
	for (size_t i = 0; i < sizeof(synchronous) / sizeof(synchronous[0]); i++)
		sigdelset(&most, synchronous[i]);
	pthread_sigmask(SIG_SETMASK, &most, &before);
	rc = hgm_thread_create(thread, fn, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc)
		return hgm_fail(rc, "starting thread %s: %s; " HGM_THREAD_HINT, name,
				hgm_errno_name(rc));
	snprintf(full, sizeof(full), "%s/%u", name, index % 100);
	pthread_setname_np(*thread, full);
	return 0;
}

static _Thread_local bool is_own;

bool hgm_thread_is_own(void)
{
	return is_own;
}

bool hgm_thread_may_begin(struct hgm_gate *gate)
{
	is_own = true;
	pthread_mutex_lock(&gate->lock);
	pthread_mutex_unlock(&gate->lock);
	/*
	 * The first read-side section registers the thread, which allocates. This must not happen
	 * on its first fault.
	 */
	hgm_rcu_read_lock();
	hgm_rcu_read_unlock();
	return !atomic_load_explicit(&gate->stopping, memory_order_acquire);
}

static _Thread_local bool calls_back;

void hgm_thread_calls_back(bool begins)
{
	calls_back = begins;
}

bool hgm_thread_is_calling_back(void)
{
	return calls_back;
}
