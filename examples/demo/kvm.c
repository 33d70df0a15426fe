/* SPDX-License-Identifier: 0BSD */
/*
 * A tiny virtual machine: two CPUs in 32-bit flat protected mode, two memory slots, no devices.
 *
 * libhgm provides only one thing, the address of the memory of slot 1. KVM accesses this memory as
 * any thread would, so a CPU that touches an absent page waits inside KVM_RUN until the page has
 * arrived.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm.h"

static int failed(int error, const char *what, char *why, size_t size)
{
	snprintf(why, size, "%s: %s", what, strerror(error));
	return -error;
}

/* guest.S, writer_guest.S, balloon_guest.S */
extern const uint8_t guest_code[], writer_code[], balloon_code[];
extern const uint32_t guest_size, writer_size, balloon_size;

#define TIME_STAMP_COUNTER 0x10 /* the MSR */

/* KVM needs these pages below 4 GiB on Intel processors. Nothing else uses them. */
#define IDENTITY_MAP 0xfffbc000u
#define TASK_STATE   0xfffbd000u

struct cpu {
	int fd;
	struct kvm_run *run;
};

_Static_assert(sizeof(((struct kvm_state *)0)->registers) == sizeof(struct kvm_regs),
	       "all of them");

struct kvm {
	double ticks_per_us;
	int kvm_fd;
	int vm_fd;
	int run_size;
	struct cpu cpu[GUEST_CPUS];
};

bool kvm_usable(char *why, size_t size)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm_fd, version;

	if (fd < 0) {
		failed(errno, "/dev/kvm", why, size);
		return false;
	}
	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	vm_fd = version == KVM_API_VERSION ? ioctl(fd, KVM_CREATE_VM, 0) : -1;
	if (version != KVM_API_VERSION)
		snprintf(why, size, "/dev/kvm speaks version %d of its API", version);
	else if (vm_fd < 0)
		failed(errno, "KVM_CREATE_VM", why, size);
	else
		close(vm_fd);
	close(fd);
	return vm_fd >= 0;
}

static int add_slot(struct kvm *kvm, uint32_t slot, uint64_t guest, void *memory, uint64_t length)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = guest,
		.memory_size = length,
		.userspace_addr = (uintptr_t)memory,
	};

	return ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) ? -errno : 0;
}

/* Flat 32-bit protected mode: all segments from 0 to 4 GiB, no paging, interrupts off. */
static int set_registers(const struct cpu *cpu, int index)
{
	struct kvm_regs regs = {
		.rip = GUEST_CODE,
		.rflags = 2,
		.rbx = GUEST_BOXES + index * BOX_SIZE,
	};
	struct kvm_segment code = {
		.limit = 0xffffffff,
		.selector = 0x08,
		.type = 11, /* execute, read, accessed */
		.present = 1,
		.db = 1,
		.s = 1,
		.g = 1,
	};
	struct kvm_segment data = code;
	struct kvm_sregs sregs;

	data.selector = 0x10;
	data.type = 3; /* read, write, accessed */
	if (ioctl(cpu->fd, KVM_GET_SREGS, &sregs))
		return -errno;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr0 = (sregs.cr0 | 1) & ~UINT64_C(0xe0000000); /* PE; caches on, paging off */
	sregs.efer = 0;
	if (ioctl(cpu->fd, KVM_SET_SREGS, &sregs) || ioctl(cpu->fd, KVM_SET_REGS, &regs))
		return -errno;
	return 0;
}

static int create_cpu(struct kvm *kvm, int index, char *why, size_t size)
{
	struct cpu *cpu = &kvm->cpu[index];
	int rc, khz;

	cpu->fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, index);
	if (cpu->fd < 0)
		return failed(errno, "KVM_CREATE_VCPU", why, size);
	cpu->run = mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
	if (cpu->run == MAP_FAILED) {
		cpu->run = NULL;
		return failed(errno, "mmap of a virtual CPU", why, size);
	}
	rc = set_registers(cpu, index);
	if (rc)
		return failed(-rc, "setting the registers of a virtual CPU", why, size);
	khz = ioctl(cpu->fd, KVM_GET_TSC_KHZ, 0);
	if (khz <= 0)
		return failed(khz ? errno : ENOSYS, "KVM_GET_TSC_KHZ", why, size);
	kvm->ticks_per_us = khz / 1000.0 / (1 << GUEST_TICK_SHIFT);
	return 0;
}

static void load(const struct kvm_opts *opts)
{
	static const struct {
		const uint8_t *code;
		const uint32_t *size;
	} programs[] = {
		[KVM_WALK] = { guest_code, &guest_size },
		[KVM_WRITER] = { writer_code, &writer_size },
		[KVM_BALLOON] = { balloon_code, &balloon_size },
	};

	memcpy(opts->low + GUEST_CODE, programs[opts->program].code, *programs[opts->program].size);
}

static int create(struct kvm *kvm, const struct kvm_opts *opts, char *why, size_t size)
{
	uint64_t identity_map = IDENTITY_MAP;
	int rc, i;

	kvm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm->kvm_fd < 0)
		return failed(errno, "/dev/kvm", why, size);
	kvm->run_size = ioctl(kvm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (kvm->run_size < (int)sizeof(struct kvm_run))
		return failed(kvm->run_size < 0 ? errno : ENOSYS, "KVM_GET_VCPU_MMAP_SIZE", why,
			      size);
	kvm->vm_fd = ioctl(kvm->kvm_fd, KVM_CREATE_VM, 0);
	if (kvm->vm_fd < 0)
		return failed(errno, "KVM_CREATE_VM", why, size);
	if (ioctl(kvm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) ||
	    ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, TASK_STATE))
		return failed(errno, "KVM_SET_TSS_ADDR", why, size);

	load(opts);
	rc = add_slot(kvm, 0, 0, opts->low, opts->low_size);
	if (!rc)
		rc = add_slot(kvm, 1, GUEST_MEMORY, opts->memory, opts->length);
	if (rc)
		return failed(-rc, "KVM_SET_USER_MEMORY_REGION", why, size);
	for (i = 0; !rc && i < GUEST_CPUS; i++)
		rc = create_cpu(kvm, i, why, size);
	return rc;
}

int kvm_create(struct kvm **out, const struct kvm_opts *opts, char *why, size_t size)
{
	struct kvm *kvm = calloc(1, sizeof(*kvm));
	int rc, i;

	if (!kvm)
		return failed(ENOMEM, "a virtual machine", why, size);
	kvm->kvm_fd = kvm->vm_fd = -1;
	for (i = 0; i < GUEST_CPUS; i++)
		kvm->cpu[i].fd = -1;
	rc = create(kvm, opts, why, size);
	if (rc)
		kvm_destroy(kvm);
	else
		*out = kvm;
	return rc;
}

void kvm_destroy(struct kvm *kvm)
{
	int i;

	if (!kvm)
		return;
	for (i = 0; i < GUEST_CPUS; i++) {
		if (kvm->cpu[i].run)
			munmap(kvm->cpu[i].run, kvm->run_size);
		if (kvm->cpu[i].fd >= 0)
			close(kvm->cpu[i].fd);
	}
	if (kvm->vm_fd >= 0)
		close(kvm->vm_fd);
	if (kvm->kvm_fd >= 0)
		close(kvm->kvm_fd);
	free(kvm);
}

double kvm_ticks_per_us(const struct kvm *kvm)
{
	return kvm->ticks_per_us;
}

/* Describe an exit from KVM_RUN that should not happen. */
static const char *reason(const struct kvm_run *run, unsigned long long *detail)
{
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		*detail = run->io.port;
		return "access to I/O port";
	case KVM_EXIT_MMIO:
		*detail = run->mmio.phys_addr;
		return "access to what is no memory";
	case KVM_EXIT_SHUTDOWN:
		*detail = 0;
		return "triple fault";
	case KVM_EXIT_FAIL_ENTRY:
		*detail = run->fail_entry.hardware_entry_failure_reason;
		return "failed entry, hardware's reason";
	case KVM_EXIT_INTERNAL_ERROR:
		*detail = run->internal.suberror;
		return "KVM's internal error";
	default:
		*detail = run->exit_reason;
		return "unexpected exit reason";
	}
}

static bool is_interrupted(const struct kvm_run *run)
{
	return __atomic_load_n(&run->immediate_exit, __ATOMIC_ACQUIRE);
}

int kvm_run(struct kvm *kvm, int index, char *why, size_t size)
{
	struct cpu *cpu = &kvm->cpu[index];
	struct kvm_run *run = cpu->run;
	struct kvm_regs regs = { 0 };
	unsigned long long detail;
	const char *what;
	int rc;

	do {
		rc = ioctl(cpu->fd, KVM_RUN, 0) ? -errno : 0;
		if (rc == -EINTR && is_interrupted(run))
			return rc;
	} while (rc == -EINTR || rc == -EAGAIN);
	if (!rc && run->exit_reason == KVM_EXIT_IO && run->io.port == GUEST_DONE_PORT)
		return 0;
	if (!rc && run->exit_reason == KVM_EXIT_IO && run->io.port == GUEST_WAIT_PORT) {
		/* The state is complete only when the CPU runs again and ends the instruction. */
		kvm_interrupt(kvm, index, true);
		return ioctl(cpu->fd, KVM_RUN, 0) && errno == EINTR ? 1 : -EIO;
	}

	/* For example EFAULT: the memory is not available. EBP holds the page. */
	what = rc ? "KVM_RUN failed, errno" : reason(run, &detail);
	if (rc)
		detail = -rc;
	ioctl(cpu->fd, KVM_GET_REGS, &regs);
	snprintf(why, size, "virtual CPU %d stopped: %s %#llx; EIP is %#llx, EBP %#llx", index,
		 what, detail, regs.rip, regs.rbp);
	return rc ? rc : -EIO;
}

void kvm_interrupt(struct kvm *kvm, int cpu, bool interrupted)
{
	__atomic_store_n(&kvm->cpu[cpu].run->immediate_exit, interrupted, __ATOMIC_RELEASE);
}

/* One MSR. struct kvm_msrs ends in a flexible array. */
union time_stamp {
	struct kvm_msrs msrs;
	uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

int kvm_get_state(struct kvm *kvm, int cpu, struct kvm_state *state)
{
	union time_stamp t = { .msrs = { .nmsrs = 1 } };

	t.msrs.entries[0].index = TIME_STAMP_COUNTER;
	if (ioctl(kvm->cpu[cpu].fd, KVM_GET_REGS, state->registers) ||
	    ioctl(kvm->cpu[cpu].fd, KVM_GET_MSRS, &t) < 0)
		return -errno;
	state->tsc = t.msrs.entries[0].data;
	return 0;
}

int kvm_set_state(struct kvm *kvm, int cpu, const struct kvm_state *state)
{
	union time_stamp t = { .msrs = { .nmsrs = 1 } };

	t.msrs.entries[0].index = TIME_STAMP_COUNTER;
	t.msrs.entries[0].data = state->tsc;
	if (ioctl(kvm->cpu[cpu].fd, KVM_SET_REGS, state->registers) ||
	    ioctl(kvm->cpu[cpu].fd, KVM_SET_MSRS, &t) < 0)
		return -errno;
	return 0;
}
