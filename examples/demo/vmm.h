/* SPDX-License-Identifier: 0BSD */
/*
 * A virtual machine with two CPUs that walk over its memory. It uses KVM, or threads where KVM is
 * not available.
 */
#ifndef VMM_H
#define VMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "walk.h"

struct vmm;

/**
 * vmm_create - make a machine; it does not run yet, and nothing touches its memory
 * @out:    the new machine
 * @memory: the memory that its CPUs walk over
 * @length: length in bytes, see walk_init()
 * @seed:   seed for the order of the walk
 * @kvm:    true to use KVM, false to use threads
 * @why:    buffer for a text that says what went wrong
 * @size:   size of @why
 *
 * Return: 0 or a negative errno.
 */
int vmm_create(struct vmm **out, void *memory, uint64_t length, uint64_t seed, bool kvm, char *why,
	       size_t size);

/* Return the walk, which holds the results. */
struct walk *vmm_walk(struct vmm *vm);

/* Start the CPUs. Return: 0, or a negative errno, and then no CPU runs. */
int vmm_start(struct vmm *vm, char *why, size_t size);

/**
 * vmm_finish - let each CPU end its current round, and wait for all CPUs
 * @timeout_ms: how long to wait
 *
 * Return: 0; -ETIMEDOUT if a CPU still runs (or waits for a page), and then the machine must not be
 * destroyed; another negative errno if a CPU stopped for a wrong reason.
 */
int vmm_finish(struct vmm *vm, int timeout_ms, char *why, size_t size);

/* Call this only after vmm_finish() or before vmm_start(). */
void vmm_destroy(struct vmm *vm);

#endif /* VMM_H */
