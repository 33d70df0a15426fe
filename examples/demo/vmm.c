/* SPDX-License-Identifier: 0BSD */
/*
 * A machine that walks over its memory: the threads of its CPUs. The code that they run is in kvm.c
 * and guest.S or, without KVM, in walk.c.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kvm.h"
#include "vmm.h"

struct vcpu {
	struct vmm *vm;
	pthread_t thread;
	int index;
	int result;
	char why[200];
};

struct vmm {
	struct walk walk;
	struct kvm *kvm; /* NULL if threads do the work */
	bool started;
	struct vcpu cpu[GUEST_CPUS];
};

struct walk *vmm_walk(struct vmm *vm)
{
	return &vm->walk;
}

static void *cpu_main(void *arg)
{
	struct vcpu *cpu = arg;
	struct vmm *vm = cpu->vm;

	if (vm->kvm)
		cpu->result = kvm_run(vm->kvm, cpu->index, cpu->why, sizeof(cpu->why));
	else
		walk_by_thread(&vm->walk, cpu->index);
	return NULL;
}

static int make_kvm(struct vmm *vm, char *why, size_t size)
{
	const struct kvm_opts opts = {
		.program = KVM_WALK,
		.low = vm->walk.low,
		.low_size = vm->walk.low_size,
		.memory = vm->walk.memory,
		.length = vm->walk.length,
	};
	int rc = kvm_create(&vm->kvm, &opts, why, size);

	if (!rc)
		vm->walk.ticks_per_us = kvm_ticks_per_us(vm->kvm);
	return rc;
}

int vmm_create(struct vmm **out, void *memory, uint64_t length, uint64_t seed, bool kvm, char *why,
	       size_t size)
{
	struct vmm *vm = calloc(1, sizeof(*vm));
	int rc, i;

	rc = vm ? walk_init(&vm->walk, memory, length, seed) : -ENOMEM;
	if (rc)
		snprintf(why, size, "the tables of the walk: %s", strerror(-rc));
	else if (kvm)
		rc = make_kvm(vm, why, size);
	if (rc) {
		vmm_destroy(vm);
		return rc;
	}
	for (i = 0; i < GUEST_CPUS; i++) {
		vm->cpu[i].vm = vm;
		vm->cpu[i].index = i;
	}
	*out = vm;
	return 0;
}

int vmm_start(struct vmm *vm, char *why, size_t size)
{
	char name[16];
	int rc, i;

	for (i = 0; i < GUEST_CPUS; i++) {
		rc = pthread_create(&vm->cpu[i].thread, NULL, cpu_main, &vm->cpu[i]);
		if (rc) {
			snprintf(why, size, "a thread for CPU %d: %s", i, strerror(rc));
			walk_stop(&vm->walk);
			while (i-- > 0)
				pthread_join(vm->cpu[i].thread, NULL);
			return -rc;
		}
		snprintf(name, sizeof(name), "vcpu-%d", i);
		pthread_setname_np(vm->cpu[i].thread, name);
	}
	vm->started = true;
	return 0;
}

int vmm_finish(struct vmm *vm, int timeout_ms, char *why, size_t size)
{
	struct timespec until;
	int rc, i;

	if (!vm->started)
		return 0;
	walk_stop(&vm->walk);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += timeout_ms / 1000;
	for (i = 0; i < GUEST_CPUS; i++) {
		rc = pthread_timedjoin_np(vm->cpu[i].thread, NULL, &until);
		if (rc) {
			snprintf(why, size,
				 "CPU %d is not through with %s in %d s: it hangs, or the machine "
				 "is too "
				 "busy",
				 i, walk_phase(&vm->walk, i), timeout_ms / 1000);
			return -rc;
		}
	}
	vm->started = false;
	for (i = 0; i < GUEST_CPUS; i++) {
		if (vm->cpu[i].result) {
			snprintf(why, size, "%s, in %s", vm->cpu[i].why, walk_phase(&vm->walk, i));
			return vm->cpu[i].result;
		}
	}
	return 0;
}

void vmm_destroy(struct vmm *vm)
{
	if (!vm)
		return;
	kvm_destroy(vm->kvm);
	walk_free(&vm->walk);
	free(vm);
}
