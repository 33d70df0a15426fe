/* SPDX-License-Identifier: 0BSD */
/*
 * prefetch - fetch the ranges that are known to be needed, and otherwise only touched pages
 *
 * A snapshot often comes with a list of the pages that the guest needs first. With
 * HGM_REGION_NO_FILL the caller decides in which order to fetch, and when to stop.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <hgm/hgm.h>

#define LENGTH (UINT64_C(64) << 20)
#define PAGE   4096

static void check(int rc)
{
	if (!rc)
		return;
	fprintf(stderr, "prefetch: %s\n", hgm_errmsg());
	exit(1);
}

static void report(struct hgm *h, const char *when)
{
	struct hgm_progress p = { .size = sizeof(p) };

	check(hgm_get_progress(h, &p));
	printf("%-24s %6llu KiB of %llu are here\n", when,
	       (unsigned long long)p.present_bytes >> 10, (unsigned long long)p.total_bytes >> 10);
}

int main(void)
{
	struct hgm_region_opts opts = {
		.size = sizeof(opts),
		.length = LENGTH,
		.flags = HGM_REGION_NO_FILL,
	};
	struct hgm_region *region;
	volatile uint8_t *memory;
	struct hgm *h;
	void *contents = calloc(1, LENGTH);

	if (!contents) {
		perror("prefetch");
		return 1;
	}
	check(hgm_create(&h, NULL));
	check(hgm_source_memory(&opts.source, contents, LENGTH));
	check(hgm_region_create(&region, h, &opts));
	check(hgm_start(h));
	report(h, "at first:");

	/* Two ranges, as they would come from a list of hot pages. */
	check(hgm_region_prefetch(region, 0, 1 << 20));
	check(hgm_region_prefetch(region, 48 << 20, 256 << 10));
	check(hgm_wait(h, -1));
	report(h, "prefetched:");

	memory = hgm_region_addr(region);
	(void)memory[30 << 20];
	check(hgm_wait(h, -1));
	report(h, "and one page touched:");

	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	free(contents);
	return 0;
}
