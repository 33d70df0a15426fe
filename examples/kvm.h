/* SPDX-License-Identifier: 0BSD */
/*
 * The part of the virtual machine that KVM runs: memory slots, CPUs, and why they stop
 */
#ifndef KVM_H
#define KVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guest.h"

struct kvm;

enum kvm_program {
	KVM_WALK,   /* guest.S */
	KVM_WRITER, /* writer_guest.S */
};

/**
 * struct kvm_opts - what a machine is made of
 * @program:  what its CPUs run
 * @low:      ordinary memory: guest physical address 0; the program is copied into it
 * @low_size: its size
 * @memory:   the memory under test: guest physical address GUEST_MEMORY
 * @length:   its size
 */
struct kvm_opts {
	enum kvm_program program;
	uint8_t *low;
	size_t low_size;
	void *memory;
	uint64_t length;
};

/* Where a CPU is: its registers as KVM_GET_REGS gives them, and its time stamp counter. */
struct kvm_state {
	uint64_t registers[18];
	uint64_t tsc;
};

/* Can a guest be run here? If not, @why says what is in the way. */
bool kvm_usable(char *why, size_t size);

/* Return: 0 or a negative errno, and @why in words. */
int kvm_create(struct kvm **out, const struct kvm_opts *opts, char *why, size_t size);

/* How many ticks (GUEST_TICK_SHIFT) a microsecond has. */
double kvm_ticks_per_us(const struct kvm *kvm);

/*
 * Run a CPU, on the calling thread, until its program is done. Return: likewise; 1 if the program
 * wants to wait, and -EINTR if it is interrupted: after both it is, until it is allowed again.
 */
int kvm_run(struct kvm *kvm, int cpu, char *why, size_t size);

/*
 * Let kvm_run() return at once, now and when it is called again, until it is allowed again. Who is
 * in it must get a signal, too.
 */
void kvm_interrupt(struct kvm *kvm, int cpu, bool interrupted);

/* Of a CPU that does not run. Return: 0 or a negative errno. */
int kvm_get_state(struct kvm *kvm, int cpu, struct kvm_state *state);
int kvm_set_state(struct kvm *kvm, int cpu, const struct kvm_state *state);

void kvm_destroy(struct kvm *kvm);

#endif /* KVM_H */
