/* SPDX-License-Identifier: 0BSD */
/* Pages that come by standard input, unasked; the rest is zero. */
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
	struct hgm_region *region;
	int64_t n, taken = 0;
	char page[4096];
	struct hgm *h;

	opts.length = 8 << 20;
	opts.flags = HGM_REGION_NO_FILL; /* the stream fills it */
	check(hgm_source_fn(&opts.source, zeroes, NULL, NULL));
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	check(hgm_start(h));
	for (uint64_t at = 0; at < opts.length; at += sizeof(page)) {
		if (fread(page, sizeof(page), 1, stdin) != 1)
			break;
		n = hgm_region_put(region, at, page, sizeof(page));
		check(n < 0 ? (int)n : 0);
		taken += n;
	}
	printf("%d KiB came by the stream\n", (int)(taken >> 10));
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	return 0;
}
