/* SPDX-License-Identifier: 0BSD */
/* What 1000 faults cost, and where the time went. */
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

static void phase(const char *name, const struct hgm_hist *hist)
{
	printf("%-8s %6d times, median %6d ns, p99 %6d ns\n", name,
	       (int)hist->count, (int)hgm_hist_quantile(hist, 500),
	       (int)hgm_hist_quantile(hist, 990));
}

int main(void)
{
	struct hgm_region_opts opts = { .size = sizeof(opts) };
	struct hgm_stats stats = { .size = sizeof(stats) };
	struct hgm_region *region;
	volatile const char *memory;
	unsigned int sum = 0;
	struct hgm *h;

	opts.length = 8 << 20;
	opts.flags = HGM_REGION_NO_FILL;
	check(hgm_source_fn(&opts.source, zeroes, NULL, NULL));
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	check(hgm_start(h));
	memory = hgm_region_addr(region);
	for (size_t page = 0; page < 1000; page++)
		sum += memory[page * 4096];

	check(hgm_get_stats(h, &stats));
	phase("queued", &stats.queued);
	phase("source", &stats.source);
	phase("install", &stats.install);
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	return sum != 0;
}
