/* SPDX-License-Identifier: 0BSD */
/* Contents now, huge mappings when it suits the guest. */
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

static void report(const struct hgm_region *region, const char *when)
{
	struct hgm_region_info info = { .size = sizeof(info) };

	check(hgm_region_get_info(region, &info));
	printf("%s: %d KiB are here, %d KiB huge\n", when,
	       (int)(info.present_bytes >> 10),
	       (int)(info.huge_bytes >> 10));
}

int main(void)
{
	struct hgm_region_opts opts = { .size = sizeof(opts) };
	struct hgm_region *region;
	struct hgm *h;

	opts.length = 8 << 20;
	opts.flags = HGM_REGION_DEFER_COLLAPSE;
	check(hgm_source_fn(&opts.source, zeroes, NULL, NULL));
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	check(hgm_start(h));
	check(hgm_wait(h, -1));
	report(region, "arrived");

	/* ... the guest's busy first minute is over ... */
	check(hgm_region_collapse(region));
	check(hgm_wait(h, -1));
	report(region, "collapsed");
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	return 0;
}
