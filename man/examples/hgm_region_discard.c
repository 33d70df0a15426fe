/* SPDX-License-Identifier: 0BSD */
/* A balloon takes a page, and gives it back. */
#include <err.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <hgm/hgm.h>

#define LENGTH (4 << 20)
#define PAGE   ((size_t)4096)

static void check(int rc)
{
	if (rc)
		errx(1, "%s", hgm_errmsg());
}

static int64_t sevens(void *user, const struct hgm_io *io)
{
	(void)user;
	memset(io->buf, 7, io->length);
	return (int64_t)io->length;
}

int main(void)
{
	struct hgm_region_opts opts = { .size = sizeof(opts) };
	struct hgm_stats stats = { .size = sizeof(stats) };
	struct hgm_region *region;
	char *memory;
	struct hgm *h;

	opts.length = LENGTH;
	check(hgm_source_fn(&opts.source, sevens, NULL, NULL));
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	memory = hgm_region_addr(region);

	/* The guest that was saved had a balloon: do not fetch that. */
	check(hgm_region_discard(region, 0, 16 * PAGE));
	check(hgm_start(h));
	check(hgm_wait(h, -1));
	check(hgm_get_stats(h, &stats));
	printf("%" PRIu64 " pages were not fetched\n",
	       stats.discarded_pages);

	/* The balloon grows by a page that has arrived. */
	printf("before: %d", memory[100 * PAGE]);
	check(hgm_region_discard(region, 100 * PAGE, PAGE));

	/* It shrinks, and the guest uses the page again. */
	printf(", after: %d", memory[100 * PAGE]);
	memory[100 * PAGE] = 1;
	printf(", written: %d\n", memory[100 * PAGE]);
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	return stats.discarded_pages < 16;
}
