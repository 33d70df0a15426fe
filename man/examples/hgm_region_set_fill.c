/* SPDX-License-Identifier: 0BSD */
/* Fill slowly at first, near what the guest touches; then quickly. */
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
	struct hgm_fill_opts fill = { .size = sizeof(fill) };
	struct hgm_region *region;
	struct hgm *h;

	opts.length = 64 << 20;
	check(hgm_source_fn(&opts.source, zeroes, NULL, NULL));
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	fill.order = HGM_FILL_NEAR_FAULTS;
	fill.rate_bytes = 16 << 20;
	check(hgm_region_set_fill(region, &fill));
	check(hgm_start(h));
	if (hgm_wait(h, 100))
		printf("there is more to come\n");
	check(hgm_region_set_fill(region, NULL));
	check(hgm_wait(h, -1));
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	return 0;
}
