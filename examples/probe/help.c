/* SPDX-License-Identifier: 0BSD */
/*
 * Advice for missing capabilities.
 */
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "probe.h"

#define POOL "/sys/kernel/mm/hugepages/hugepages-"

/* Prefixes of names. The first match counts. */
static const struct since {
	const char *name;
	unsigned int major, minor;
	const char *help;
} since[] = {
	{ "uffd.device", 6, 1, "Linux 6.1 or later" },
	{ "uffd.exact_address", 5, 18, "Linux 5.18 or later" },
	{ "uffd.thread_id", 4, 14, "Linux 4.14 or later" },
	{ "uffd.continue_wp", 6, 4, "Linux 6.4 or later" },
	{ "uffd.wp_async", 6, 7, "Linux 6.7 or later" },
	{ "uffd.rwp_async", 7, 3, "Linux 7.3 or later" },
	{ "uffd.set_mode", 7, 3, "Linux 7.3 or later" },
	{ "pagemap.scan", 6, 7, "Linux 6.7 or later" },
	{ "pagemap.guard", 6, 15, "Linux 6.15 or later" },
	{ "pagemap.accessed", 7, 3, "Linux 7.3 or later" },
	{ "anon.wp", 5, 7, "Linux 5.7 or later" },
	{ "anon.rwp", 7, 3, "Linux 7.3 or later" },
	{ "anon.poison", 6, 6, "Linux 6.6 or later" },
	{ "anon.move", 6, 8, "Linux 6.8 or later" },
	{ "anon.collapse", 6, 1, "Linux 6.1 or later" },
	{ "shmem.minor", 5, 14, "Linux 5.14 or later" },
	{ "shmem.wp", 5, 19, "Linux 5.19 or later" },
	{ "shmem.rwp", 7, 3, "Linux 7.3 or later" },
	{ "shmem.poison", 6, 6, "Linux 6.6 or later" },
	{ "shmem.collapse", 6, 1, "Linux 6.1 or later" },
	{ "guest_memfd.mmap", 6, 18, "Linux 6.18 or later" },
	{ "hugetlb.2m.minor.block", 5, 13, "Linux 5.13 or later" },
	{ "hugetlb.1g.minor.block", 5, 13, "Linux 5.13 or later" },
	{ "hugetlb.2m.wp.block", 5, 19, "Linux 5.19 or later" },
	{ "hugetlb.1g.wp.block", 5, 19, "Linux 5.19 or later" },
	{ "hugetlb.2m.rwp", 7, 3, "Linux 7.3 or later" },
	{ "hugetlb.1g.rwp", 7, 3, "Linux 7.3 or later" },
	{ "hugetlb.2m.poison.block", 6, 6, "Linux 6.6 or later" },
	{ "hugetlb.1g.poison.block", 6, 6, "Linux 6.6 or later" },
};

static bool begins(const char *text, const char *with)
{
	return !strncmp(text, with, strlen(with));
}

/* This is only advice. The answers never depend on a version. */
static const char *newer_kernel(const char *name)
{
	unsigned int major, minor;
	struct utsname uts;

	if (uname(&uts) || sscanf(uts.release, "%u.%u", &major, &minor) != 2)
		return "";
	for (size_t i = 0; i < sizeof(since) / sizeof(since[0]); i++)
		if (begins(name, since[i].name))
			return major < since[i].major ||
					       (major == since[i].major && minor < since[i].minor)
				       ? since[i].help
				       : "";
	return "";
}

static const char *help_for_uffd(const struct hgm_cap *cap)
{
	if (strstr(cap->reason, "seccomp filter of this process"))
		return "a seccomp profile that allows userfaultfd";
	if (!strcmp(cap->name, "uffd.device")) {
		if (cap->answer == HGM_DENIED && strstr(cap->reason, "EACCES"))
			return "as root: setfacl -m u:USER:rw /dev/userfaultfd";
		if (strstr(cap->reason, "EPERM"))
			return "for containers: --device /dev/userfaultfd";
		return *newer_kernel(cap->name) ? newer_kernel(cap->name)
						: "for containers: --device /dev/userfaultfd";
	}
	if (!strcmp(cap->name, "uffd.syscall") && cap->answer == HGM_DENIED)
		return "as root: sysctl -w vm.unprivileged_userfaultfd=1";
	return newer_kernel(cap->name);
}

const char *help_for(const struct hgm_cap *cap)
{
	const char *name = cap->name;
	bool small = strstr(name, ".2m") != NULL;

	if (cap->answer == HGM_YES || strstr(cap->reason, "see uffd.device"))
		return "";
	if (strstr(cap->reason, "HGM_CAPS_USE_HUGE_PAGES"))
		return "hgm-probe --prove";
	if (begins(name, "uffd.") && (cap->answer == HGM_DENIED || !strcmp(name, "uffd.device") ||
				      !strcmp(name, "uffd.syscall")))
		return help_for_uffd(cap);
	if (!strcmp(name, "hgm") && cap->answer == HGM_NO)
		return "a kernel with the HGM patches; for blocks of 2 MiB, prepared shmem gives "
		       "the same without them";
	if (cap->answer == HGM_UNPROVEN && (begins(name, "hugetlb.") || begins(name, "hgm.")) &&
	    strstr(cap->reason, "huge page"))
		return small ? "as root: echo N >" POOL "2048kB/nr_hugepages"
			     : "as root: echo N >" POOL "1048576kB/nr_hugepages";
	if (begins(name, "shmem.") && strstr(cap->reason, "[deny]"))
		return "as root: echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled";
	if (begins(name, "guest_memfd.") && cap->answer == HGM_DENIED &&
	    strstr(cap->reason, "EACCES"))
		return "as root: setfacl -m u:USER:rw /dev/kvm";
	if (begins(name, "guest_memfd.") && strstr(cap->reason, "open /dev/kvm: ENOENT"))
		return "as root: modprobe kvm_intel or kvm_amd; for containers: --device /dev/kvm";
	if (!strcmp(name, "shmem.huge") && cap->answer == HGM_NO)
		return "no change is needed: MADV_COLLAPSE makes blocks huge";
	if (cap->answer == HGM_UNPROVEN && strstr(cap->reason, "try again"))
		return "try again";
	return newer_kernel(name);
}
