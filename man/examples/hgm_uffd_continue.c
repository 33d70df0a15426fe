/* SPDX-License-Identifier: 0BSD */
/* One mebibyte is copied in; a page of it is there already. */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <hgm/error.h>
#include <hgm/uffd.h>

#define LENGTH (1 << 20)
#define PAGE   ((size_t)4096)

int main(void)
{
	struct hgm_range range = { .step = PAGE };
	char *memory, *contents = malloc(LENGTH);
	struct hgm_uffd *u;
	int rc;

	memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || !contents)
		err(1, "no memory");
	memset(contents, 'x', LENGTH);
	memory[5 * PAGE] = 'o';

	if (hgm_uffd_open(&u, NULL) ||
	    hgm_uffd_register(u, memory, LENGTH, HGM_UFFD_MISSING,
			      NULL))
		errx(1, "%s", hgm_errmsg());
	range.addr = memory;
	range.len = LENGTH;
	rc = hgm_uffd_copy(u, &range, contents);
	if (rc)
		errx(1, "%s, %d bytes were done", strerror(-rc),
		     (int)range.done);

	printf("copied %d KiB, found %d KiB; %c%c\n",
	       (int)(range.installed >> 10), (int)(range.existed >> 10),
	       memory[4 * PAGE], memory[5 * PAGE]);
	hgm_uffd_close(u);
	munmap(memory, LENGTH);
	free(contents);
	return 0;
}
