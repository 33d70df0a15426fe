/* SPDX-License-Identifier: 0BSD */
/*
 * A complete small VMM whose guest writes all the time: an engine, a region, and a virtual machine
 * that uses the region
 */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <hgm/hgm.h>

#include "stalls.h"
#include "writer_vm.h"

/**
 * struct machine_opts - options of a machine
 * @length:  length of its memory
 * @seed:    seed for its schedules
 * @backing: enum hgm_backing
 * @block:   block size in bytes
 * @kvm:     true to use KVM, false to use threads
 * @writes_per_s: writes per second of both CPUs together; 0 for as many as possible
 */
struct machine_opts {
	uint64_t length;
	uint64_t seed;
	uint32_t backing;
	uint64_t block;
	bool kvm;
	double writes_per_s;
};

struct machine {
	struct hgm *engine;
	struct hgm_source *source;
	struct hgm_region *region;
	struct writer_vm *vm;
	bool hangs; /* it cannot be torn down */
	char why[512];
};

/*
 * Make a machine whose memory comes from @source. The machine takes over @source, and does not run
 * yet. This function and the others return 0, or a negative errno with the reason in @m->why.
 */
int machine_create(struct machine *m, const struct machine_opts *opts, struct hgm_source *source);

/* Run the machine from @at, or from the beginning if @at is NULL. */
int machine_start(struct machine *m, const struct instant *at);

int machine_pause(struct machine *m);
void machine_resume(struct machine *m);
int machine_get_instant(struct machine *m, struct instant *at);

/* Wait until each CPU has written @records more records. */
int machine_write_on(struct machine *m, uint32_t records);

/* Wait until its memory is present and huge. */
int machine_complete(struct machine *m);

/* Let the guest end, and compare all of its memory with what its writes must have left. */
int machine_finish(struct machine *m, const uint8_t *base);

void machine_destroy(struct machine *m);

/**
 * struct moment - the counters at one end of a time span
 * @us:     the time
 * @writes: number of writes of each CPU
 * @slow:   how many of these were logged as slow
 * @faults: number of faults that libhgm has served
 */
struct moment {
	double us;
	uint32_t writes[GUEST_CPUS];
	uint32_t slow[GUEST_CPUS];
	uint64_t faults;
};

void moment_now(struct moment *t, const struct machine *m);
double moment_writes_per_s(const struct moment *from, const struct moment *to);

/*
 * Return the usual time of a write in microseconds: the median of the latest writes. From now on a
 * write that takes STALLS_LEAST_US longer is a stall.
 */
double machine_learn_usual(struct machine *m);

/* Collect the longest @at_most stalls between two moments. Return: 0 or -ENOMEM. */
int moment_stalls(struct stalls *s, const struct machine *m, const struct moment *from,
		  const struct moment *to, uint64_t at_most);

#endif /* MACHINE_H */
