/* SPDX-License-Identifier: 0BSD */
/*
 * live - take a snapshot of memory while it is being written to, and restore it
 *
 *	live FILE
 *
 * A thread, in the role of a guest, increments a counter in every page of a region. It keeps
 * counting while the snapshot is written to FILE. Then a second region is restored from FILE. It
 * shows the counters as they were at the instant of the snapshot.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <hgm/hgm.h>

#define LENGTH (UINT64_C(64) << 20)
#define PAGE   4096

static struct guest {
	uint64_t *memory;
	_Atomic int pause, paused, stop;
} guest;

static void check(int rc)
{
	if (!rc)
		return;
	fprintf(stderr, "live: %s\n", hgm_errmsg());
	exit(1);
}

/* Pass over the memory again and again. The first word of each page counts the passes. */
static void *run_guest(void *arg)
{
	(void)arg;
	while (!atomic_load(&guest.stop)) {
		for (uint64_t at = 0; at < LENGTH / 8; at += PAGE / 8) {
			while (atomic_load(&guest.pause)) {
				atomic_store(&guest.paused, 1);
				sched_yield();
			}
			guest.memory[at]++;
		}
	}
	return NULL;
}

/* Stands for a VMM that pauses its vCPUs. */
static void pause_guest(void)
{
	atomic_store(&guest.paused, 0);
	atomic_store(&guest.pause, 1);
	while (!atomic_load(&guest.paused))
		sched_yield();
}

static struct hgm_region *make(struct hgm *h, struct hgm_source *source)
{
	struct hgm_region_opts opts = { .size = sizeof(opts), .length = LENGTH, .source = source };
	struct hgm_region *region;

	check(hgm_region_create(&region, h, &opts));
	return region;
}

int main(int argc, char **argv)
{
	struct hgm_snapshot_progress p = { .size = sizeof(p) };
	struct hgm_snapshot_opts opts = { .size = sizeof(opts) };
	uint64_t wrong = 0, at_instant = 0, now = 0;
	struct hgm_source *nothing, *file;
	struct hgm_snapshot *snapshot;
	const uint64_t *again;
	pthread_t thread;
	struct hgm *h;
	void *zeroes;

	if (argc != 2) {
		fprintf(stderr, "usage: live FILE\n");
		return 2;
	}
	opts.fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	zeroes = calloc(1, LENGTH);
	if (opts.fd < 0 || !zeroes) {
		perror(argv[1]);
		exit(1);
	}
	check(hgm_create(&h, NULL));
	check(hgm_source_memory(&nothing, zeroes, LENGTH));
	guest.memory = hgm_region_addr(make(h, nothing));
	check(hgm_start(h));
	if (pthread_create(&thread, NULL, run_guest, NULL)) {
		fprintf(stderr, "live: no thread\n");
		exit(1);
	}
	check(hgm_wait(h, -1));

	check(hgm_snapshot_create(&snapshot, h, &opts));
	pause_guest();
	for (uint64_t at = 0; at < LENGTH / 8; at += PAGE / 8)
		at_instant += guest.memory[at];
	check(hgm_snapshot_begin(snapshot));
	atomic_store(&guest.pause, 0);
	check(hgm_snapshot_wait(snapshot, -1));
	check(hgm_snapshot_get_progress(snapshot, &p));
	hgm_snapshot_destroy(snapshot);
	atomic_store(&guest.stop, 1);
	pthread_join(thread, NULL);
	for (uint64_t at = 0; at < LENGTH / 8; at += PAGE / 8)
		now += guest.memory[at];
	hgm_destroy(h);

	check(hgm_create(&h, NULL));
	check(hgm_source_file(&file, argv[1]));
	again = hgm_region_addr(make(h, file));
	check(hgm_start(h));
	for (uint64_t at = 0; at < LENGTH / 8; at += PAGE / 8)
		wrong += again[at];
	wrong = wrong > at_instant ? wrong - at_instant : at_instant - wrong;
	printf("the guest stood still for %.2f ms and had counted to %llu; when the snapshot was "
	       "written, to %llu\n%llu KiB were copied before it wrote to them; the second life "
	       "begins %s\n",
	       (double)p.begin_ns / 1e6, (unsigned long long)at_instant, (unsigned long long)now,
	       (unsigned long long)p.copied_bytes >> 10,
	       wrong ? "somewhere else: WRONG" : "at the instant");
	hgm_destroy(h);
	hgm_source_destroy(file);
	hgm_source_destroy(nothing);
	free(zeroes);
	close(opts.fd);
	return wrong != 0;
}
