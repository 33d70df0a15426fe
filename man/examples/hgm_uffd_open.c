/* SPDX-License-Identifier: 0BSD */
/* A userfaultfd for KVM: all faults, or none. */
#include <err.h>
#include <inttypes.h>
#include <stdio.h>

#include <hgm/error.h>
#include <hgm/uffd.h>

int main(void)
{
	struct hgm_uffd_opts opts = {
		.size = sizeof(opts),
		.required = HGM_UFFD_FEATURE_MISSING_SHMEM,
		.optional = HGM_UFFD_FEATURE_EXACT_ADDRESS |
			    HGM_UFFD_FEATURE_POISON,
	};
	struct hgm_uffd *u;

	if (hgm_uffd_open(&u, &opts))
		errx(1, "%s", hgm_errmsg());
	printf("descriptor %d, got by %s\n", hgm_uffd_fd(u),
	       hgm_uffd_get_via(u) == HGM_UFFD_VIA_DEVICE
		       ? "/dev/userfaultfd"
		       : "the system call");
	printf("enabled %#" PRIx64 " of %#" PRIx64 "\n",
	       hgm_uffd_features(u), hgm_uffd_supported(u));
	if (!(hgm_uffd_features(u) & HGM_UFFD_FEATURE_POISON))
		printf("pages cannot be poisoned here\n");
	hgm_uffd_close(u);
	return 0;
}
