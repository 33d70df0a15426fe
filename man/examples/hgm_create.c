/* SPDX-License-Identifier: 0BSD */
/* Two fault threads that never spin serve 4 MiB. */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>

#include <hgm/hgm.h>

static void check(int rc)
{
	if (rc)
		errx(1, "%s", hgm_errmsg());
}

int main(void)
{
	struct hgm_opts opts = {
		.size = sizeof(opts),
		.fault_threads = 2,
		.spin_us = HGM_SPIN_NEVER,
	};
	struct hgm_region_opts memory = {
		.size = sizeof(memory),
		.length = 4 << 20,
	};
	char *contents = calloc(1, memory.length);
	struct hgm_region *region;
	struct hgm *h;

	if (!contents)
		err(1, "calloc");
	contents[123456] = 'x';
	check(hgm_source_memory(&memory.source, contents,
				memory.length));

	check(hgm_create(&h, &opts));
	check(hgm_region_create(&region, h, &memory));
	check(hgm_start(h));

	/* A fault: it waits until this page has been copied. */
	printf("%c\n", ((char *)hgm_region_addr(region))[123456]);

	hgm_destroy(h); /* the region goes, too */
	hgm_source_destroy(memory.source);
	free(contents);
	return 0;
}
