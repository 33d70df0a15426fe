/* SPDX-License-Identifier: 0BSD */
/* What the guest will want first, and nothing else unasked. */
#include <err.h>
#include <stdint.h>
#include <stdio.h>

#include <hgm/hgm.h>

static const struct {
	uint64_t offset, length;
} wanted[] = {
	{ 0, 64 << 10 },
	{ 6 << 20, 1 << 20 },
	{ 3 << 20, 4096 },
};

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
	struct hgm_progress p = { .size = sizeof(p) };
	struct hgm_region *region;
	struct hgm *h;

	opts.length = 8 << 20;
	opts.flags = HGM_REGION_NO_FILL;
	check(hgm_source_fn(&opts.source, zeroes, NULL, NULL));
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		check(hgm_region_prefetch(region, wanted[i].offset,
					  wanted[i].length));
	check(hgm_start(h));
	check(hgm_wait(h, -1)); /* waits for the list only */

	check(hgm_get_progress(h, &p));
	printf("%d of %d KiB were fetched\n",
	       (int)(p.present_bytes >> 10),
	       (int)(p.total_bytes >> 10));
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	return 0;
}
