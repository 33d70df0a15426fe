/* SPDX-License-Identifier: 0BSD */
/*
 * Replacement for kvm.c where this processor has no guest program: see kvm.h
 */
#include <errno.h>
#include <stdio.h>

#include "kvm.h"

bool kvm_usable(char *why, size_t size)
{
	snprintf(why, size, "the guest program is for x86-64 hosts");
	return false;
}

int kvm_create(struct kvm **out, const struct kvm_opts *opts, char *why, size_t size)
{
	(void)out;
	(void)opts;
	return kvm_usable(why, size) ? 0 : -EOPNOTSUPP;
}

double kvm_ticks_per_us(const struct kvm *kvm)
{
	(void)kvm;
	return 0;
}

int kvm_run(struct kvm *kvm, int cpu, char *why, size_t size)
{
	(void)kvm;
	(void)cpu;
	return kvm_usable(why, size) ? 0 : -EOPNOTSUPP;
}

void kvm_interrupt(struct kvm *kvm, int cpu, bool interrupted)
{
	(void)kvm;
	(void)cpu;
	(void)interrupted;
}

int kvm_get_state(struct kvm *kvm, int cpu, struct kvm_state *state)
{
	(void)kvm;
	(void)cpu;
	(void)state;
	return -EOPNOTSUPP;
}

int kvm_set_state(struct kvm *kvm, int cpu, const struct kvm_state *state)
{
	(void)kvm;
	(void)cpu;
	(void)state;
	return -EOPNOTSUPP;
}

void kvm_destroy(struct kvm *kvm)
{
	(void)kvm;
}
