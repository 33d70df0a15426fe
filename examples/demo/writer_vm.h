/* SPDX-License-Identifier: 0BSD */
/*
 * A virtual machine whose CPUs write all the time, and can be paused. It uses KVM, or threads where
 * KVM is not available.
 */
#ifndef WRITER_VM_H
#define WRITER_VM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "instant.h"

struct writer_vm;

/**
 * writer_vm_create - make a machine; it does not run yet, and nothing touches its memory
 * @out:    the new machine
 * @memory: the memory that its CPUs write to
 * @length: length in bytes, see writer_init()
 * @seed:   seed for the schedules
 * @kvm:    true to use KVM, false to use threads
 * @why:    buffer for a text that says what went wrong
 * @size:   size of @why
 *
 * Return: 0 or a negative errno.
 */
int writer_vm_create(struct writer_vm **out, void *memory, uint64_t length, uint64_t seed, bool kvm,
		     char *why, size_t size);

struct writer *writer_vm_writer(struct writer_vm *vm);

/*
 * Set the number of writes per second of all CPUs together, before the machine is started. 0 means
 * as many as possible.
 */
void writer_vm_set_rate(struct writer_vm *vm, double writes_per_s);

/*
 * Set the state to begin with, taken from another machine, before the machine is started. Return: 0
 * or a negative errno.
 */
int writer_vm_set_instant(struct writer_vm *vm, const struct instant *at, char *why, size_t size);

/* Start the CPUs. Return: 0, or a negative errno, and then no CPU runs. */
int writer_vm_start(struct writer_vm *vm, char *why, size_t size);

/*
 * Stop the CPUs wherever they are, between any two instructions. Return: 0; -ETIMEDOUT if a CPU
 * does not stop (it waits for a page that does not arrive); the error of a CPU that has failed.
 */
int writer_vm_pause(struct writer_vm *vm, char *why, size_t size);
void writer_vm_resume(struct writer_vm *vm);

/* Get the state of a machine that is paused or finished. Return: 0 or a negative errno. */
int writer_vm_get_instant(struct writer_vm *vm, struct instant *at, char *why, size_t size);

/*
 * Let each CPU end its current record, and wait for all CPUs. Return: as writer_vm_pause(). After
 * -ETIMEDOUT the machine must not be destroyed.
 */
int writer_vm_finish(struct writer_vm *vm, char *why, size_t size);

/* Call this only after writer_vm_finish() or before writer_vm_start(). */
void writer_vm_destroy(struct writer_vm *vm);

#endif /* WRITER_VM_H */
