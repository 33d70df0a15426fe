/* SPDX-License-Identifier: 0BSD */
/*
 * The threads of the CPUs of the machine that writes: see writer_vm.h
 *
 * To pause a CPU, take it out of KVM_RUN as every VMM does: set immediate_exit, and send a signal
 * in case the CPU is already inside KVM_RUN.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kvm.h"
#include "writer_vm.h"

#define PATIENCE_S 30
#define BATCH_US   2000	 /* a CPU with a pace waits about this often, ... */
#define BATCH_MOST 256	 /* ... or after this many writes */
#define LATE_US	   10000 /* a CPU catches up if it is no later than this */

struct vcpu {
	struct writer_vm *vm;
	pthread_t thread;
	int index;
	int leave;     /* without KVM: the thread returns after the record */
	double due_us; /* when the next batch has to begin */
	int result;
	char why[200];
};

struct writer_vm {
	struct writer writer;
	struct kvm *kvm; /* NULL if threads do the work */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool pause;
	unsigned int running; /* CPUs that are not paused */
	unsigned int alive;   /* CPUs whose thread has not ended */
	bool started;
	double batch_us; /* how long the writes between two waits should take */
	struct vcpu cpu[GUEST_CPUS];
};

static int failed(int error, const char *what, char *why, size_t size)
{
	snprintf(why, size, "%s: %s", what, strerror(error));
	return -error;
}

struct writer *writer_vm_writer(struct writer_vm *vm)
{
	return &vm->writer;
}

void writer_vm_set_rate(struct writer_vm *vm, double writes_per_s)
{
	double write_us = writes_per_s > 0 ? 1e6 * GUEST_CPUS / writes_per_s : 0;
	uint32_t batch = 1;
	int i;

	while (batch < BATCH_MOST && 2 * batch * write_us <= BATCH_US)
		batch *= 2;
	for (i = 0; write_us > 0 && i < GUEST_CPUS; i++)
		writer_box(&vm->writer, i)->wait_mask = batch - 1;
	vm->batch_us = batch * write_us;
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

/* The signal only has to interrupt. */
static void on_signal(int number)
{
	(void)number;
}

/* Make the CPU leave the guest, or allow it to run. Called with the lock held. */
static void set_leave(struct vcpu *cpu, bool leave)
{
	if (cpu->vm->kvm)
		kvm_interrupt(cpu->vm->kvm, cpu->index, leave);
	else
		__atomic_store_n(&cpu->leave, leave, __ATOMIC_RELEASE);
}

static bool is_stopped(const struct writer_box *box)
{
	return __atomic_load_n(&box->stop, __ATOMIC_ACQUIRE);
}

/* Called with the lock held. */
static void wait_while_paused(struct vcpu *cpu)
{
	struct writer_vm *vm = cpu->vm;

	if (!vm->pause)
		return;
	vm->running--;
	pthread_cond_broadcast(&vm->changed);
	while (vm->pause)
		pthread_cond_wait(&vm->changed, &vm->lock);
	vm->running++;
}

/*
 * Let the CPU wait for its next batch. Called with the lock held. Only a pause makes the CPU late;
 * inaccurate timers of the host do not count.
 */
static void wait_for_batch(struct vcpu *cpu)
{
	struct writer_vm *vm = cpu->vm;
	struct writer_box *box = writer_box(&vm->writer, cpu->index);
	double now = now_us(), late_us = 0;
	struct timespec until;

	cpu->due_us += vm->batch_us;
	if (cpu->due_us < now - LATE_US)
		cpu->due_us = now;
	until.tv_sec = (time_t)(cpu->due_us / 1e6);
	until.tv_nsec = (long)((cpu->due_us - until.tv_sec * 1e6) * 1e3);
	while (!vm->pause && !is_stopped(box) && now_us() < cpu->due_us)
		pthread_cond_timedwait(&vm->changed, &vm->lock, &until);
	if (vm->pause) {
		wait_while_paused(cpu);
		late_us = now_us() - cpu->due_us;
	}
	box->late = late_us > 0 ? (uint32_t)(late_us * vm->writer.ticks_per_us) : 0;
	box->ended = 0;
}

/* Return: 0 at the end of the program, 1 to wait, -EINTR for a pause, or another error. */
static int run(struct vcpu *cpu)
{
	struct writer_vm *vm = cpu->vm;

	if (vm->kvm)
		return kvm_run(vm->kvm, cpu->index, cpu->why, sizeof(cpu->why));
	return writer_by_thread(&vm->writer, cpu->index, &cpu->leave);
}

static void *cpu_main(void *arg)
{
	struct vcpu *cpu = arg;
	struct writer_vm *vm = cpu->vm;

	pthread_mutex_lock(&vm->lock);
	do {
		if (cpu->result == 1)
			wait_for_batch(cpu);
		wait_while_paused(cpu);
		set_leave(cpu, false);
		pthread_mutex_unlock(&vm->lock);
		cpu->result = run(cpu);
		pthread_mutex_lock(&vm->lock);
	} while (cpu->result == -EINTR || cpu->result == 1);
	vm->running--;
	vm->alive--;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	return NULL;
}

static int make_kvm(struct writer_vm *vm, char *why, size_t size)
{
	const struct kvm_opts opts = {
		.program = KVM_WRITER,
		.low = vm->writer.low,
		.low_size = vm->writer.low_size,
		.memory = vm->writer.memory,
		.length = vm->writer.length,
	};
	struct sigaction action = { .sa_handler = on_signal };
	int rc = kvm_create(&vm->kvm, &opts, why, size);

	if (!rc)
		vm->writer.ticks_per_us = kvm_ticks_per_us(vm->kvm);
	sigaction(SIGUSR1, &action, NULL);
	return rc;
}

int writer_vm_create(struct writer_vm **out, void *memory, uint64_t length, uint64_t seed, bool kvm,
		     char *why, size_t size)
{
	struct writer_vm *vm = calloc(1, sizeof(*vm));
	pthread_condattr_t attr;
	int rc, i;

	if (!vm)
		return failed(ENOMEM, "a virtual machine", why, size);
	pthread_mutex_init(&vm->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&vm->changed, &attr);
	pthread_condattr_destroy(&attr);
	for (i = 0; i < GUEST_CPUS; i++) {
		vm->cpu[i].vm = vm;
		vm->cpu[i].index = i;
	}
	rc = writer_init(&vm->writer, memory, length, seed);
	if (rc)
		failed(-rc, "the schedules of the writers", why, size);
	else if (kvm)
		rc = make_kvm(vm, why, size);
	if (rc)
		writer_vm_destroy(vm);
	else
		*out = vm;
	return rc;
}

int writer_vm_set_instant(struct writer_vm *vm, const struct instant *at, char *why, size_t size)
{
	int rc = 0, i;

	for (i = 0; !rc && i < GUEST_CPUS; i++) {
		*writer_box(&vm->writer, i) = at->box[i];
		writer_box(&vm->writer, i)->ended = 0;
		if (vm->kvm)
			rc = kvm_set_state(vm->kvm, i, &at->cpu[i]);
	}
	return rc ? failed(-rc, "setting the state of a virtual CPU", why, size) : 0;
}

int writer_vm_start(struct writer_vm *vm, char *why, size_t size)
{
	char name[16];
	int rc, i;

	vm->alive = vm->running = GUEST_CPUS;
	for (i = 0; i < GUEST_CPUS; i++) {
		rc = pthread_create(&vm->cpu[i].thread, NULL, cpu_main, &vm->cpu[i]);
		if (rc) {
			snprintf(why, size, "a thread for CPU %d: %s", i, strerror(rc));
			while (i-- > 0) {
				writer_box(&vm->writer, i)->stop = 1;
				pthread_join(vm->cpu[i].thread, NULL);
			}
			return -rc;
		}
		snprintf(name, sizeof(name), "vcpu-%d", i);
		pthread_setname_np(vm->cpu[i].thread, name);
	}
	vm->started = true;
	return 0;
}

/* Wait for a count to become 0. Called with the lock held. */
static int wait_for_none(struct writer_vm *vm, const unsigned int *count)
{
	struct timespec until;
	int rc = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += PATIENCE_S;
	while (*count && !rc)
		rc = pthread_cond_timedwait(&vm->changed, &vm->lock, &until);
	return -rc;
}

/* Return the error of a CPU that has failed, or 0. */
static int deaths(const struct writer_vm *vm, char *why, size_t size)
{
	int i;

	for (i = 0; i < GUEST_CPUS; i++) {
		if (vm->cpu[i].result && vm->cpu[i].result != -EINTR) {
			snprintf(why, size, "%s", vm->cpu[i].why);
			return vm->cpu[i].result;
		}
	}
	return 0;
}

int writer_vm_pause(struct writer_vm *vm, char *why, size_t size)
{
	int rc, i;

	pthread_mutex_lock(&vm->lock);
	vm->pause = true;
	for (i = 0; i < GUEST_CPUS; i++)
		set_leave(&vm->cpu[i], true);
	pthread_cond_broadcast(&vm->changed); /* wake CPUs that wait for a batch */
	for (i = 0; vm->kvm && i < GUEST_CPUS; i++)
		pthread_kill(vm->cpu[i].thread, SIGUSR1);
	rc = wait_for_none(vm, &vm->running);
	if (rc)
		failed(-rc, "a CPU cannot be paused", why, size);
	else if (vm->alive < GUEST_CPUS)
		rc = deaths(vm, why, size);
	pthread_mutex_unlock(&vm->lock);
	return rc;
}

void writer_vm_resume(struct writer_vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->pause = false;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
}

int writer_vm_get_instant(struct writer_vm *vm, struct instant *at, char *why, size_t size)
{
	int rc = 0, i;

	instant_take(at, &vm->writer, !vm->started);
	for (i = 0; vm->kvm && !rc && i < GUEST_CPUS; i++)
		rc = kvm_get_state(vm->kvm, i, &at->cpu[i]);
	return rc ? failed(-rc, "reading the state of a virtual CPU", why, size) : 0;
}

int writer_vm_finish(struct writer_vm *vm, char *why, size_t size)
{
	int rc, i;

	if (!vm->started)
		return 0;
	for (i = 0; i < GUEST_CPUS; i++)
		__atomic_store_n(&writer_box(&vm->writer, i)->stop, 1, __ATOMIC_RELEASE);
	pthread_mutex_lock(&vm->lock);
	vm->pause = false;
	pthread_cond_broadcast(&vm->changed);
	rc = wait_for_none(vm, &vm->alive);
	pthread_mutex_unlock(&vm->lock);
	if (rc)
		return failed(-rc, "a CPU hangs", why, size);
	for (i = 0; i < GUEST_CPUS; i++)
		pthread_join(vm->cpu[i].thread, NULL);
	vm->started = false;
	return deaths(vm, why, size);
}

void writer_vm_destroy(struct writer_vm *vm)
{
	if (!vm)
		return;
	kvm_destroy(vm->kvm);
	writer_free(&vm->writer);
	pthread_cond_destroy(&vm->changed);
	pthread_mutex_destroy(&vm->lock);
	free(vm);
}
