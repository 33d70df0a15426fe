/* SPDX-License-Identifier: 0BSD */
/*
 * The part of the virtual machine that KVM runs: memory slots, CPUs, and why they stop
 */
#ifndef KVM_H
#define KVM_H

#include <stdbool.h>
#include <stddef.h>

#include "walk.h"

struct kvm;

/* Can a guest be run here? If not, @why says what is in the way. */
bool kvm_usable(char *why, size_t size);

/* A machine for a walk; sets its ticks_per_us. Return: 0 or a negative errno, and @why in words. */
int kvm_create(struct kvm **out, struct walk *walk, char *why, size_t size);

/* Run a CPU, on the calling thread, until its walk is done. Return: likewise. */
int kvm_run(struct kvm *kvm, int cpu, char *why, size_t size);

void kvm_destroy(struct kvm *kvm);

#endif /* KVM_H */
