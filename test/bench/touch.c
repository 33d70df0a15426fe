/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread touches absent pages in shuffled order; how long does it wait for each? libhgm beside
 * raw loops, rounds interleaved, medians over rounds, contents checked. Twice: with the CPUs free,
 * and all pinned to one, where nobody has to be woken from a halted CPU.
 *
 *	bench_touch [--quick] [--check]
 *
 * --check: exit 1 if a ratio is above its limit.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <hgm/hgm.h>

#include "bench.h"

#define PAGES	   4096
#define ROUNDS_MAX 9
#define SERVERS	   3

/* The issue of record: at most this many times the p50 of the raw spinning loop. */
#define LIMIT_OF_RAW_SPIN 1.25

void die(const char *what, const char *why)
{
	fprintf(stderr, "bench_touch: %s: %s\n", what, why);
	exit(2);
}

struct engine {
	struct hgm *h;
	struct hgm_source *src;
};

static void *engine_begin(const char *source, size_t pages, char **memory)
{
	struct hgm_region_opts opts = { .size = sizeof(opts),
					.length = pages * 4096,
					.backing = HGM_BACKING_SHMEM,
					.flags = HGM_REGION_NO_FILL };
	struct engine *e = calloc(1, sizeof(*e));
	struct hgm_region *r;

	if (!e || hgm_create(&e->h, NULL) || hgm_source_memory(&e->src, source, opts.length))
		die("engine", hgm_errmsg());
	opts.source = e->src;
	if (hgm_region_create(&r, e->h, &opts) || hgm_start(e->h))
		die("engine", hgm_errmsg());
	*memory = hgm_region_addr(r);
	return e;
}

static void engine_end(void *state)
{
	struct engine *e = state;

	hgm_destroy(e->h);
	hgm_source_destroy(e->src);
	free(e);
}

const struct server hgm_server = { "libhgm", engine_begin, engine_end };

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void shuffle(unsigned int *order, unsigned int seed)
{
	for (unsigned int i = 0; i < PAGES; i++)
		order[i] = i;
	for (unsigned int i = PAGES - 1; i; i--) {
		unsigned int j, swap = order[i];

		seed = seed * 1664525 + 1013904223;
		j = (unsigned int)((uint64_t)seed * (i + 1) >> 32);
		order[i] = order[j];
		order[j] = swap;
	}
}

static struct result run(const struct server *server, const char *source, unsigned int seed)
{
	static unsigned int order[PAGES];
	static double wait[PAGES];
	struct result result;
	double start, total;
	char *memory;
	void *state;

	shuffle(order, seed);
	state = server->begin(source, PAGES, &memory);
	start = now_us();
	for (unsigned int i = 0; i < PAGES; i++) {
		double before = now_us();
		char byte = *(volatile char *)(memory + (size_t)order[i] * 4096);

		wait[i] = now_us() - before;
		if (byte != source[(size_t)order[i] * 4096])
			die(server->name, "wrong contents");
	}
	total = now_us() - start;
	if (memcmp(memory, source, (size_t)PAGES * 4096) != 0)
		die(server->name, "wrong contents");
	server->end(state);
	qsort(wait, PAGES, sizeof(wait[0]), by_value);
	result.p50_us = wait[PAGES / 2];
	result.p99_us = wait[PAGES * 99 / 100];
	result.faults_per_s = PAGES / total * 1e6;
	return result;
}

static double median(double *values, unsigned int n)
{
	qsort(values, n, sizeof(values[0]), by_value);
	return values[n / 2];
}

/* One table; returns the ratio of libhgm's p50 to the raw spinning loop's. */
static double table(const char *title, const char *source, unsigned int rounds)
{
	const struct server *server[SERVERS] = { &hgm_server, &raw_spin_server, &raw_poll_server };
	double p50[SERVERS][ROUNDS_MAX], p99[SERVERS][ROUNDS_MAX], rate[SERVERS][ROUNDS_MAX];
	double middle[SERVERS];

	for (unsigned int i = 0; i < rounds; i++)
		for (unsigned int s = 0; s < SERVERS; s++) {
			struct result r = run(server[s], source, i + 1);

			p50[s][i] = r.p50_us;
			p99[s][i] = r.p99_us;
			rate[s][i] = r.faults_per_s;
		}
	printf("%s, one toucher, %u faults, median of %u rounds\n", title, PAGES, rounds);
	printf("  %-10s %9s %17s %9s %12s %9s\n", "", "p50 us", "(min .. max)", "p99 us",
	       "faults/s", "p50 ratio");
	for (unsigned int s = 0; s < SERVERS; s++)
		middle[s] = median(p50[s], rounds);
	for (unsigned int s = 0; s < SERVERS; s++)
		printf("  %-10s %9.2f   %6.2f .. %6.2f %9.2f %12.0f %9.2f\n", server[s]->name,
		       middle[s], p50[s][0], p50[s][rounds - 1], median(p99[s], rounds),
		       median(rate[s], rounds), middle[0] / middle[s]);
	return middle[0] / middle[1];
}

int main(int argc, char **argv)
{
	unsigned int rounds = 5;
	bool check = false;
	cpu_set_t all, one;
	double ratio;
	char *source;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--quick")) {
			rounds = 3;
		} else if (!strcmp(argv[i], "--check")) {
			check = true;
		} else {
			fprintf(stderr, "usage: bench_touch [--quick] [--check]\n");
			return 2;
		}
	}
	source = mmap(NULL, (size_t)PAGES * 4096, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (source == MAP_FAILED)
		die("mmap", strerror(errno));
	for (size_t i = 0; i < (size_t)PAGES * 4096; i++)
		source[i] = (char)(i * 2654435761u >> 13);

	run(&raw_spin_server, source, 99); /* warm-up */
	ratio = table("CPUs free", source, rounds);
	sched_getaffinity(0, sizeof(all), &all);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &all)) {
			CPU_ZERO(&one);
			CPU_SET(cpu, &one);
			break;
		}
	sched_setaffinity(0, sizeof(one), &one);
	/*
	 * A spinning loop beside its toucher on one CPU is no sensible baseline: its ratio is
	 * only shown.
	 */
	table("pinned to one CPU", source, rounds);
	munmap(source, (size_t)PAGES * 4096);
	printf("libhgm / raw-spin, CPUs free: %.2f (limit %.2f)\n", ratio, LIMIT_OF_RAW_SPIN);
	return check && ratio > LIMIT_OF_RAW_SPIN;
}
