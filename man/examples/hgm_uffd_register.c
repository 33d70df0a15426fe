/* SPDX-License-Identifier: 0BSD */
/* What can be done with faults of anonymous memory here? */
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>

#include <hgm/error.h>
#include <hgm/uffd.h>

#define LENGTH (1 << 20)

int main(void)
{
	struct hgm_uffd *u;
	uint64_t ioctls;
	void *memory;

	memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		err(1, "mmap");
	if (hgm_uffd_open(&u, NULL) ||
	    hgm_uffd_register(u, memory, LENGTH, HGM_UFFD_MISSING,
			      &ioctls))
		errx(1, "%s", hgm_errmsg());
	printf("copy: %s, poison: %s\n",
	       ioctls & HGM_UFFD_IOCTL_COPY ? "yes" : "no",
	       ioctls & HGM_UFFD_IOCTL_POISON ? "yes" : "no");

	/* From here on absent pages are plain zeroes again. */
	if (hgm_uffd_unregister(u, memory, LENGTH))
		errx(1, "%s", hgm_errmsg());
	hgm_uffd_close(u);
	munmap(memory, LENGTH);
	return 0;
}
