/* SPDX-License-Identifier: 0BSD */
/*
 * What the guest did between two moments, and how long it had to wait: see machine.h
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "machine.h"

void moment_now(struct moment *t, const struct machine *m)
{
	const struct writer *w = writer_vm_writer(m->vm);
	struct hgm_stats stats = { .size = sizeof(stats) };
	struct timespec now;
	int cpu;

	hgm_get_stats(m->engine, &stats);
	t->faults = stats.faults;
	for (cpu = 0; cpu < GUEST_CPUS; cpu++) {
		t->writes[cpu] = writer_sequence(w, cpu);
		t->slow[cpu] = __atomic_load_n(&writer_box(w, cpu)->slow_writes, __ATOMIC_ACQUIRE);
	}
	clock_gettime(CLOCK_MONOTONIC, &now);
	t->us = now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

double moment_writes_per_s(const struct moment *from, const struct moment *to)
{
	double writes = 0;
	int cpu;

	for (cpu = 0; cpu < GUEST_CPUS; cpu++)
		writes += to->writes[cpu] - from->writes[cpu];
	return writes / (to->us - from->us) * 1e6;
}

static int by_ticks(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* All writes are logged until the usual time is learned. */
static uint32_t usual_ticks(const struct writer *w, int cpu)
{
	uint32_t n = __atomic_load_n(&writer_box(w, cpu)->slow_writes, __ATOMIC_ACQUIRE), i;
	uint32_t *ticks, usual;

	if (n > LOG_WORDS)
		n = LOG_WORDS;
	ticks = n ? malloc(n * sizeof(*ticks)) : NULL;
	if (!ticks)
		return 0;
	for (i = 0; i < n; i++)
		ticks[i] = writer_log(w, cpu, i);
	qsort(ticks, n, sizeof(*ticks), by_ticks);
	usual = ticks[n / 2];
	free(ticks);
	return usual;
}

double machine_learn_usual(struct machine *m)
{
	const struct writer *w = writer_vm_writer(m->vm);
	uint32_t usual, least = STALLS_LEAST_US * w->ticks_per_us;
	double sum = 0;
	int cpu;

	for (cpu = 0; cpu < GUEST_CPUS; cpu++) {
		usual = usual_ticks(w, cpu);
		sum += usual / w->ticks_per_us;
		__atomic_store_n(&writer_box(w, cpu)->slow, usual + least, __ATOMIC_RELEASE);
	}
	return sum / GUEST_CPUS;
}

int moment_stalls(struct stalls *s, const struct machine *m, const struct moment *from,
		  const struct moment *to, uint64_t at_most)
{
	const struct writer *w = writer_vm_writer(m->vm);
	uint32_t slow, ticks, n, i;
	int cpu;

	*s = (struct stalls){ .us = malloc((size_t)GUEST_CPUS * LOG_WORDS * sizeof(*s->us)) };
	if (!s->us)
		return -ENOMEM;
	for (cpu = 0; cpu < GUEST_CPUS; cpu++) {
		slow = writer_box(w, cpu)->slow;
		n = to->slow[cpu] - from->slow[cpu];
		if (n > LOG_WORDS)
			n = LOG_WORDS; /* only the latest are in the log */
		for (i = to->slow[cpu] - n; i != to->slow[cpu]; i++) {
			ticks = writer_log(w, cpu, i);
			/* A shorter one was logged while the limit was being learned. */
			if (ticks >= slow)
				s->us[s->count++] =
					(ticks - slow) / w->ticks_per_us + STALLS_LEAST_US;
		}
	}
	stalls_keep(s, at_most);
	return 0;
}
