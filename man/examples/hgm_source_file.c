/* SPDX-License-Identifier: 0BSD */
/* The tail of a file as memory: here of this very program. */
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include <hgm/hgm.h>

static void check(int rc)
{
	if (rc)
		errx(1, "%s", hgm_errmsg());
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "/proc/self/exe";
	struct hgm_region_opts opts = { .size = sizeof(opts) };
	struct hgm_region *region;
	const uint8_t *memory;
	struct stat st;
	struct hgm *h;

	if (stat(path, &st))
		err(1, "%s", path);
	opts.source_offset = 4096;
	opts.length = st.st_size / 4096 * 4096 - 4096;

	check(hgm_create(&h, NULL));
	check(hgm_source_file(&opts.source, path));
	check(hgm_region_create(&region, h, &opts));
	hgm_source_destroy(opts.source); /* the region holds it */
	check(hgm_start(h));

	memory = hgm_region_addr(region);
	printf("byte 4096 of %s is %#x\n", path, memory[0]);
	hgm_destroy(h);
	return 0;
}
