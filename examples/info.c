/* SPDX-License-Identifier: 0BSD */
/*
 * info - what each backing gives on this machine, and why
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <hgm/hgm.h>

static const struct {
	const char *name;
	uint32_t backing;
	uint64_t block;
} backings[] = {
	{ "auto", HGM_BACKING_AUTO, 0 },
	{ "shmem", HGM_BACKING_SHMEM, 0 },
	{ "shmem-lazy", HGM_BACKING_SHMEM_LAZY, 0 },
	{ "hugetlb-2m", HGM_BACKING_HUGETLB, UINT64_C(2) << 20 },
	{ "hugetlb-1g", HGM_BACKING_HUGETLB, UINT64_C(1) << 30 },
	{ "anon", HGM_BACKING_ANON, 0 },
};

static int64_t zeroes(void *user, const struct hgm_io *io)
{
	(void)user;
	return (int64_t)io->length + HGM_IO_ZERO;
}

static void check(int rc)
{
	if (!rc)
		return;
	fprintf(stderr, "info: %s\n", hgm_errmsg());
	exit(1);
}

int main(void)
{
	struct hgm_region_info info = { .size = sizeof(info) };
	struct hgm_region_opts opts = { .size = sizeof(opts) };
	struct hgm_region *region;
	struct hgm *h;

	check(hgm_create(&h, NULL));
	check(hgm_source_fn(&opts.source, zeroes, NULL, NULL));
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		opts.backing = backings[i].backing;
		opts.block_bytes = backings[i].block;
		opts.length = backings[i].block ? backings[i].block : UINT64_C(4) << 20;
		printf("%s\n", backings[i].name);
		if (hgm_region_create(&region, h, &opts)) {
			printf("    not here: %s\n", hgm_errmsg());
			continue;
		}
		check(hgm_region_get_info(region, &info));
		printf("    %s\n    %llu MiB in %llu blocks; a fault waits for %llu KiB\n",
		       info.sentence, (unsigned long long)info.length >> 20,
		       (unsigned long long)info.blocks, (unsigned long long)info.map_bytes >> 10);
		hgm_region_destroy(region);
	}
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	return 0;
}
