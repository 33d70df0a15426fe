/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How much work a guest does while its memory is restored: as many virtual CPUs as there are CPUs
 * work on memory that is present, during a restore from a file in the page cache until everything
 * is mapped huge. This is compared with the same work without a restore, and with the same restore
 * without a guest.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <hgm/hgm.h>

#include "bench.h"
#include "clock.h"
#include "contents.h"
#include "memory.h"

#define VCPUS_MAX  16
#define WORK_BYTES (256 * 1024) /* of each virtual CPU: fits in the caches */
#define ALONE_US   300000

static int file = -1;

static size_t guest_bytes(void)
{
	return setting.quick ? 256 * MIB : 512 * MIB;
}

struct vcpu {
	_Alignas(64) _Atomic uint64_t turns;
	pthread_t thread;
	uint64_t memory[WORK_BYTES / sizeof(uint64_t)];
};

static struct vcpu *vcpus;
static _Atomic bool stop;

static unsigned int count(void)
{
	return machine()->cpus < VCPUS_MAX ? machine()->cpus : VCPUS_MAX;
}

static void *work(void *arg)
{
	struct vcpu *v = arg;

	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		for (size_t i = 1; i < COUNT(v->memory); i++)
			v->memory[i] = v->memory[i - 1] * 6364136223846793005u + v->memory[i];
		atomic_fetch_add_explicit(&v->turns, 1, memory_order_relaxed);
	}
	return NULL;
}

static void start_guest(void)
{
	if (!vcpus) {
		vcpus = aligned_alloc(64, VCPUS_MAX * sizeof(*vcpus));
		if (!vcpus)
			die("guest", "no memory");
		memset(vcpus, 1, VCPUS_MAX * sizeof(*vcpus));
	}
	atomic_store(&stop, false);
	for (unsigned int i = 0; i < count(); i++)
		if (pthread_create(&vcpus[i].thread, NULL, work, &vcpus[i]))
			die("guest", "no thread");
}

static void stop_guest(void)
{
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < count(); i++)
		pthread_join(vcpus[i].thread, NULL);
}

static uint64_t turns(void)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < count(); i++)
		sum += atomic_load_explicit(&vcpus[i].turns, memory_order_relaxed);
	return sum;
}

/* Turns per millisecond since the given time. */
static double rate(uint64_t since_turns, uint64_t since_ns)
{
	return (double)(turns() - since_turns) / ((double)(now_ns() - since_ns) / 1e6);
}

static void run_alone(void)
{
	uint64_t began, before;

	start_guest();
	began = now_ns();
	before = turns();
	sleep_us(ALONE_US);
	note("alone", "turns", rate(before, began));
	stop_guest();
}

static void run_restore(const char *who, bool guest)
{
	struct hgm_region_opts opts = {
		.size = sizeof(opts),
		.length = guest_bytes(),
		.backing = HGM_BACKING_SHMEM,
	};
	uint64_t began, before = 0;
	struct hgm_region *r;
	struct hgm *h;

	memory_warm(guest_bytes());
	if (hgm_create(&h, NULL) || hgm_source_fd(&opts.source, file) ||
	    hgm_region_create(&r, h, &opts))
		die(who, hgm_errmsg());
	if (guest)
		start_guest();
	began = now_ns();
	if (guest)
		before = turns();
	if (hgm_start(h) || hgm_wait(h, -1))
		die(who, hgm_errmsg());
	if (guest)
		note(who, "turns", rate(before, began));
	note(who, "seconds", (double)(now_ns() - began) / 1e9);
	if (guest)
		stop_guest();
	contents_check(who, hgm_region_addr(r), guest_bytes());
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
}

static void round_guest(const struct bench *b)
{
	(void)b;
	contents(guest_bytes());
	if (file < 0)
		file = contents_file(guest_bytes());
	run_alone();
	run_restore("beside-a-guest", true);
	run_restore("without-a-guest", false);
}

static void rows_guest(const struct bench *b)
{
	(void)b;
	close(file);
	file = -1;
	compare("guest-progress.work", MORE, "turns/ms", "beside-a-guest", "turns", "alone");
	compare("guest-progress.time", LESS, "s", "beside-a-guest", "seconds", "without-a-guest");
}

const struct bench guest_benches[] = {
	{ "guest-progress", "work of a guest on all CPUs while its memory is restored", true,
	  round_guest, rows_guest, NULL },
	{ NULL },
};
