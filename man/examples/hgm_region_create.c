/* SPDX-License-Identifier: 0BSD */
/* Memory that can be shared and becomes huge, in steps of 4 KiB. */
#include <err.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>

#include <hgm/hgm.h>

static int64_t zeroes(void *user, const struct hgm_io *io)
{
	(void)user;
	return (int64_t)io->length + HGM_IO_ZERO;
}

int main(void)
{
	struct hgm_region_opts opts = {
		.size = sizeof(opts),
		.length = 64 << 20,
		.map_bytes_max = 4096,
		.require = HGM_REQUIRE_SHARED | HGM_REQUIRE_HUGE,
		.avoid = HGM_AVOID_COMMIT,
	};
	struct hgm_region *region;
	struct hgm *h;
	int rc;

	if (hgm_create(&h, NULL) ||
	    hgm_source_fn(&opts.source, zeroes, NULL, NULL))
		errx(1, "%s", hgm_errmsg());

	rc = hgm_region_create(&region, h, &opts);
	if (rc == -EOPNOTSUPP) {
		/* One line for each kind of memory, and why not. */
		warnx("%s", hgm_errmsg());
		opts.map_bytes_max = 0;
		opts.require = 0;
		opts.avoid = 0;
		rc = hgm_region_create(&region, h, &opts);
	}
	if (rc)
		errx(1, "%s", hgm_errmsg());

	printf("guest memory at %p\n", hgm_region_addr(region));
	hgm_region_destroy(region);
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	return 0;
}
