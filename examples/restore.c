/* SPDX-License-Identifier: 0BSD */
/*
 * restore - memory whose contents come from a file, usable at once
 *
 * The shortest program that does something with libhgm.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <hgm/hgm.h>

static void check(int rc)
{
	if (!rc)
		return;
	fprintf(stderr, "restore: %s\n", hgm_errmsg());
	exit(1);
}

int main(int argc, char **argv)
{
	struct hgm_region_opts opts = { .size = sizeof(opts) };
	struct hgm_region_info info = { .size = sizeof(info) };
	struct hgm_region *region;
	struct hgm_source *source;
	const uint8_t *memory;
	struct stat st;
	struct hgm *h;

	if (argc != 2) {
		fprintf(stderr, "usage: restore FILE\n");
		return 2;
	}
	if (stat(argv[1], &st)) {
		perror(argv[1]);
		return 1;
	}

	check(hgm_create(&h, NULL));
	check(hgm_source_file(&source, argv[1]));
	opts.length = st.st_size / 4096 * 4096;
	opts.source = source;
	check(hgm_region_create(&region, h, &opts));
	check(hgm_start(h));

	memory = hgm_region_addr(region);
	printf("just fetched: %#x\n", memory[opts.length - 4096]);

	check(hgm_wait(h, -1));
	check(hgm_region_get_info(region, &info));
	printf("all %llu KiB are here, %llu KiB of them huge\n",
	       (unsigned long long)info.present_bytes >> 10,
	       (unsigned long long)info.huge_bytes >> 10);

	hgm_destroy(h);
	hgm_source_destroy(source);
	return 0;
}
