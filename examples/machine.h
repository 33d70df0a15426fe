/* SPDX-License-Identifier: 0BSD */
/*
 * A whole small VMM whose guest writes all the time: an engine, a region, and the virtual machine
 * on it
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
 * struct machine_opts - what a machine shall be
 * @length:  of its memory
 * @seed:    of its schedules
 * @backing: enum hgm_backing
 * @block:   bytes
 * @kvm:     with KVM, or by threads
 * @writes_per_s: of both CPUs together; 0 for as many as can be
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
	bool hangs; /* it cannot be taken down any more */
	char why[512];
};

/*
 * Make one whose memory comes from @source, which it takes over; it does not run yet. This and the
 * others return 0 or a negative errno, and leave the reason in @m->why.
 */
int machine_create(struct machine *m, const struct machine_opts *opts, struct hgm_source *source);

/* Run it, from the beginning or, unless @at is NULL, from there. */
int machine_start(struct machine *m, const struct instant *at);

int machine_pause(struct machine *m);
void machine_resume(struct machine *m);
int machine_get_instant(struct machine *m, struct instant *at);

/* Wait until each CPU has written so many records more. */
int machine_write_on(struct machine *m, uint32_t records);

/* Wait until its memory is present and huge. */
int machine_complete(struct machine *m);

/* Let the guest end, and compare all of its memory with what its writes must have left. */
int machine_finish(struct machine *m, const uint8_t *base);

void machine_destroy(struct machine *m);

/**
 * struct moment - what is counted, at one end of a stretch of time
 * @us:     the time
 * @writes: of each CPU
 * @slow:   of these, logged as slow
 * @faults: that libhgm has served
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
 * What a write usually takes, in microseconds: the median of the latest. From here on a write that
 * takes STALLS_LEAST_US longer is a stall.
 */
double machine_learn_usual(struct machine *m);

/* The stalls between two moments; the longest @at_most of them. Return: 0 or -ENOMEM. */
int moment_stalls(struct stalls *s, const struct machine *m, const struct moment *from,
		  const struct moment *to, uint64_t at_most);

#endif /* MACHINE_H */
