/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library's threads do not inherit harmful attributes from the thread that starts them. A
 * machine may have more CPUs than a cpu_set_t.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "test.h"
#include "util/thread.h"

#define MANY 4096

static unsigned int kernel_cpus; /* 0: ask the running kernel */

/* Replaces that of the C library. The kernel refuses a set that is too small for it. */
int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set)
{
	long rc;

	if (kernel_cpus && size * 8 < kernel_cpus) {
		errno = EINVAL;
		return -1;
	}
	memset(set, 0, size);
	if (kernel_cpus) {
		for (unsigned int i = 0; i < 12; i++)
			CPU_SET_S(kernel_cpus - 1 - 100 * i, size, set);
		return 0;
	}
	rc = syscall(SYS_sched_getaffinity, pid, size, set);
	return rc < 0 ? -1 : 0;
}

static void many_cpus(void **state)
{
	(void)state;
	kernel_cpus = MANY;
	assert_int_equal(hgm_cpus(), 12);
	kernel_cpus = 0;
	assert_true(hgm_cpus() >= 1);
}

struct seen {
	int policy;
	cpu_set_t cpus;
	size_t stack;
};

static void *look(void *arg)
{
	struct seen *seen = arg;
	pthread_attr_t attr;
	void *at;

	seen->policy = sched_getscheduler(0);
	sched_getaffinity(0, sizeof(seen->cpus), &seen->cpus);
	pthread_getattr_np(pthread_self(), &attr);
	pthread_attr_getstack(&attr, &at, &seen->stack);
	pthread_attr_destroy(&attr);
	return NULL;
}

/* A thread like those of virtual CPUs: bound to one CPU and, if permitted, with high priority. */
static void *start_from(void *arg)
{
	const struct sched_param high = { .sched_priority = 1 };
	struct seen *seen = arg;
	pthread_t thread;
	cpu_set_t one;

	sched_getaffinity(0, sizeof(one), &one);
	for (int cpu = 0, kept = 0; cpu < CPU_SETSIZE; cpu++) {
		if (kept && CPU_ISSET(cpu, &one))
			CPU_CLR(cpu, &one);
		kept |= CPU_ISSET(cpu, &one);
	}
	sched_setaffinity(0, sizeof(one), &one);
	if (sched_setscheduler(0, SCHED_FIFO, &high))
		printf("# no real-time priority here: not looked at\n");
	if (!hgm_thread_create(&thread, look, seen))
		pthread_join(thread, NULL);
	return NULL;
}

static void from_a_special_thread(void **state)
{
	struct seen seen = { .policy = -1 };
	cpu_set_t process;
	pthread_t thread;

	(void)state;
	sched_getaffinity(0, sizeof(process), &process);
	assert_int_equal(pthread_create(&thread, NULL, start_from, &seen), 0);
	pthread_join(thread, NULL);
	assert_int_equal(seen.policy, SCHED_OTHER);
	assert_true(CPU_EQUAL(&seen.cpus, &process));
	assert_uint_in_range(seen.stack, 128 << 10, 4 << 20);
}

struct attr { /* sched_getattr(2) */
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime_ns, deadline_ns, period_ns;
};

struct slices {
	int policy, nice;
	struct attr before, after;
};

static void *shorten(void *arg)
{
	const struct sched_param none = { .sched_priority = 0 };
	struct slices *s = arg;

	setpriority(PRIO_PROCESS, (id_t)gettid(), s->nice);
	sched_setscheduler(0, s->policy, &none);
	syscall(SYS_sched_getattr, 0, &s->before, sizeof(s->before), 0);
	errno = ENOTTY;
	hgm_thread_shorten_slice();
	assert_int_equal(errno, ENOTTY);
	syscall(SYS_sched_getattr, 0, &s->after, sizeof(s->after), 0);
	return NULL;
}

static struct slices shortened(int policy, int nice)
{
	struct slices s = { .policy = policy, .nice = nice };
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, shorten, &s), 0);
	pthread_join(thread, NULL);
	assert_int_equal(s.before.policy, policy);
	assert_int_equal(s.before.nice, nice);
	assert_int_equal(s.after.policy, policy);
	assert_int_equal(s.after.nice, nice);
	return s;
}

static void a_short_slice(void **state)
{
	struct slices s = shortened(SCHED_BATCH, 2);
	unsigned int major, minor;
	struct utsname kernel;

	(void)state;
	assert_int_equal(s.after.runtime_ns, s.before.runtime_ns);
	s = shortened(SCHED_OTHER, 3);
	uname(&kernel);
	assert_int_equal(sscanf(kernel.release, "%u.%u", &major, &minor), 2);
	if (major > 6 || (major == 6 && minor >= 12)) {
		assert_int_equal(s.after.runtime_ns, 100000);
		assert_true(s.before.runtime_ns > s.after.runtime_ns);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(many_cpus),
	cmocka_unit_test(from_a_special_thread),
	cmocka_unit_test(a_short_slice),
};

TEST_MAIN(tests)
