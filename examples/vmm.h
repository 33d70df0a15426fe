/* SPDX-License-Identifier: 0BSD */
/*
 * A virtual machine of two CPUs that walks over its memory: with KVM, or by threads where there is
 * none
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
 * @length: bytes: see walk_init()
 * @seed:   of the order of the walk
 * @kvm:    with KVM, or by threads
 * @why:    what went wrong, in words
 * @size:   its size
 *
 * Return: 0 or a negative errno.
 */
int vmm_create(struct vmm **out, void *memory, uint64_t length, uint64_t seed, bool kvm, char *why,
	       size_t size);

/* The walk, for its results. */
struct walk *vmm_walk(struct vmm *vm);

/* Start the CPUs. Return: 0 or a negative errno, and then none runs. */
int vmm_start(struct vmm *vm, char *why, size_t size);

/**
 * vmm_finish - let each CPU end the round that it is in, and wait for them
 * @timeout_ms: for how long
 *
 * Return: 0; -ETIMEDOUT if a CPU still runs (or waits for a page), and then the machine cannot be
 * destroyed any more; another negative errno if a CPU stopped for a wrong reason.
 */
int vmm_finish(struct vmm *vm, int timeout_ms, char *why, size_t size);

/* Only after vmm_finish(), or before vmm_start(). */
void vmm_destroy(struct vmm *vm);

#endif /* VMM_H */
