/* SPDX-License-Identifier: 0BSD */
/*
 * A virtual machine whose CPUs write all the time, and can be paused: with KVM, or by threads where
 * there is none
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
 * @length: bytes: see writer_init()
 * @seed:   of the schedules
 * @kvm:    with KVM, or by threads
 * @why:    what went wrong, in words
 * @size:   its size
 *
 * Return: 0 or a negative errno.
 */
int writer_vm_create(struct writer_vm **out, void *memory, uint64_t length, uint64_t seed, bool kvm,
		     char *why, size_t size);

struct writer *writer_vm_writer(struct writer_vm *vm);

/* Before it is started: so many writes a second, of all CPUs together; 0 for as many as can be. */
void writer_vm_set_rate(struct writer_vm *vm, double writes_per_s);

/* Before it is started: begin where another one was. Return: 0 or a negative errno. */
int writer_vm_set_instant(struct writer_vm *vm, const struct instant *at, char *why, size_t size);

/* Start the CPUs. Return: 0 or a negative errno, and then none runs. */
int writer_vm_start(struct writer_vm *vm, char *why, size_t size);

/*
 * Stop the CPUs wherever they are, between any two instructions. Return: 0; -ETIMEDOUT if one does
 * not come back (it waits for a page that does not come); what a CPU died of.
 */
int writer_vm_pause(struct writer_vm *vm, char *why, size_t size);
void writer_vm_resume(struct writer_vm *vm);

/* The state of a machine that is paused or finished. Return: 0 or a negative errno. */
int writer_vm_get_instant(struct writer_vm *vm, struct instant *at, char *why, size_t size);

/*
 * Let each CPU end the record that it is writing, and wait for them. Return: as writer_vm_pause();
 * after -ETIMEDOUT the machine cannot be destroyed any more.
 */
int writer_vm_finish(struct writer_vm *vm, char *why, size_t size);

/* Only after writer_vm_finish(), or before writer_vm_start(). */
void writer_vm_destroy(struct writer_vm *vm);

#endif /* WRITER_VM_H */
