/* SPDX-License-Identifier: 0BSD */
/* Memory from an NBD server: hgm_source_nbd URI MIB */
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <hgm/hgm.h>
#include <hgm/nbd.h>

static void check(int rc)
{
	if (rc)
		errx(1, "%s", hgm_errmsg());
}

static void line(void *user, enum hgm_log_level level, const char *text)
{
	(void)user;
	(void)level;
	warnx("%s", text);
}

int main(int argc, char **argv)
{
	struct hgm_source_nbd_opts how = {
		.size = sizeof(how),
		.timeout_ms = 5000,
		.log = line,
	};
	struct hgm_region_opts opts = { .size = sizeof(opts) };
	struct hgm_region *region;
	const uint8_t *memory;
	struct hgm *h;

	if (argc != 3)
		errx(2, "usage: hgm_source_nbd URI MIB");
	opts.length = strtoull(argv[2], NULL, 10) << 20;
	check(hgm_source_nbd(&opts.source, argv[1], &how));
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	hgm_source_destroy(opts.source); /* the region holds it */
	check(hgm_start(h));

	memory = hgm_region_addr(region);
	printf("the last page begins with %#x\n",
	       memory[opts.length - 4096]);
	check(hgm_wait(h, -1));
	printf("all %s MiB are here\n", argv[2]);
	hgm_destroy(h);
	return 0;
}
