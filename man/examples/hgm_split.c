/* SPDX-License-Identifier: 0BSD */
/* A block of small pages becomes one huge mapping. */
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <hgm/error.h>
#include <hgm/uffd.h>

#define BLOCK ((uintptr_t)2 << 20)

int main(void)
{
	char *space, *block;
	uint64_t huge;
	int rc;

	space = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (space == MAP_FAILED)
		err(1, "mmap");
	block = space + BLOCK - (uintptr_t)space % BLOCK;
	madvise(block, BLOCK, MADV_NOHUGEPAGE);
	memset(block, 'x', BLOCK);
	madvise(block, BLOCK, MADV_HUGEPAGE);

	/* No memory but hugetlb's can be split, on no kernel. */
	if (!hgm_split(block, BLOCK))
		errx(1, "anonymous memory was split");

	rc = hgm_collapse(block, BLOCK);
	if (rc)
		printf("not collapsed: %s\n", strerror(-rc));
	if (hgm_mapped_huge(block, BLOCK, &huge))
		errx(1, "%s", hgm_errmsg());
	printf("%d KiB are mapped huge\n", (int)(huge >> 10));
	munmap(space, 2 * BLOCK);
	return 0;
}
