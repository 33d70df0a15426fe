/* SPDX-License-Identifier: 0BSD */
/* What a VMM should write to its log about its guest's memory. */
#include <err.h>
#include <stdint.h>
#include <stdio.h>

#include <hgm/hgm.h>

static void check(int rc)
{
	if (rc)
		errx(1, "%s", hgm_errmsg());
}

static int64_t zeroes(void *user, const struct hgm_io *io)
{
	(void)user;
	return (int64_t)io->length + HGM_IO_ZERO;
}

int main(void)
{
	struct hgm_region_opts opts = { .size = sizeof(opts) };
	struct hgm_region_info info = { .size = sizeof(info) };
	struct hgm_region *region;
	struct hgm *h;

	opts.length = 8 << 20;
	check(hgm_source_fn(&opts.source, zeroes, NULL, NULL));
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	check(hgm_start(h));
	check(hgm_wait(h, -1));

	check(hgm_region_get_info(region, &info));
	printf("%p: %s\n", info.addr, info.sentence);
	printf("a fault waits for %d KiB; %d of %d KiB are huge\n",
	       (int)(info.map_bytes >> 10),
	       (int)(info.huge_bytes >> 10),
	       (int)(hgm_region_length(region) >> 10));
	if (info.left_split)
		printf("%d blocks stay split: error %d\n",
		       (int)info.left_split, info.collapse_error);

	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	return 0;
}
