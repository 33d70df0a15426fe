/* SPDX-License-Identifier: 0BSD */
/*
 * The part of the virtual machine that KVM runs: memory slots, CPUs, and the reasons they stop
 */
#ifndef KVM_H
#define KVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guest.h"

struct kvm;

enum kvm_program {
	KVM_WALK,    /* guest.S */
	KVM_WRITER,  /* writer_guest.S */
	KVM_BALLOON, /* balloon_guest.S */
};

/**
 * struct kvm_opts - what a machine is made of
 * @program:  the program that its CPUs run
 * @low:      ordinary memory at guest physical address 0; the program is copied into it
 * @low_size: size of @low
 * @memory:   the memory under test, at guest physical address GUEST_MEMORY
 * @length:   size of @memory
 */
struct kvm_opts {
	enum kvm_program program;
	uint8_t *low;
	size_t low_size;
	void *memory;
	uint64_t length;
};

/* State of a CPU: its registers as KVM_GET_REGS returns them, and its time stamp counter. */
struct kvm_state {
	uint64_t registers[18];
	uint64_t tsc;
};

/* Return true if this machine can run a guest. If not, @why says why. */
bool kvm_usable(char *why, size_t size);

/* Return: 0, or a negative errno with a text in @why. */
int kvm_create(struct kvm **out, const struct kvm_opts *opts, char *why, size_t size);

/* Return the number of ticks (GUEST_TICK_SHIFT) per microsecond. */
double kvm_ticks_per_us(const struct kvm *kvm);

/*
 * Run a CPU on the calling thread until its program is done. Return: 0, or a negative errno with a
 * text in @why; 1 if the program wants to wait; -EINTR if the CPU is interrupted. After 1 and
 * -EINTR the CPU stays interrupted until kvm_interrupt() allows it to run again.
 */
int kvm_run(struct kvm *kvm, int cpu, char *why, size_t size);

/*
 * Make kvm_run() return at once, now and when it is called again, until it is allowed again. A
 * thread that is inside kvm_run() must also get a signal.
 */
void kvm_interrupt(struct kvm *kvm, int cpu, bool interrupted);

/* The CPU must not run. Return: 0 or a negative errno. */
int kvm_get_state(struct kvm *kvm, int cpu, struct kvm_state *state);
int kvm_set_state(struct kvm *kvm, int cpu, const struct kvm_state *state);

void kvm_destroy(struct kvm *kvm);

#endif /* KVM_H */
