/* SPDX-License-Identifier: 0BSD */
/* Two rounds of a live migration: what was written in between? */
#include <err.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

#include <hgm/hgm.h>

#define LENGTH (4 << 20)
#define PAGE   ((size_t)4096)
#define PAGES  (LENGTH / PAGE)

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
	struct hgm_dirty_opts how = {
		.size = sizeof(how),
		.flags = HGM_DIRTY_EXACT,
	};
	struct hgm_region_opts opts = { .size = sizeof(opts) };
	struct hgm_dirty_info info = { .size = sizeof(info) };
	uint64_t bitmap[PAGES / 64], dirty;
	struct hgm_region *region;
	struct hgm_dirty *d;
	char *memory;
	struct hgm *h;

	opts.length = LENGTH;
	check(hgm_source_fn(&opts.source, zeroes, NULL, NULL));
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	check(hgm_start(h));
	check(hgm_wait(h, -1));
	memory = hgm_region_addr(region);

	check(hgm_dirty_start(&d, region, &how));
	/* ... all memory is sent, and the guest writes meanwhile ... */
	memory[0] = 1;
	memory[100 * PAGE] = 1;
	check(hgm_dirty_collect(d, 0, PAGES, bitmap, &dirty));
	printf("%" PRIu64 " pages are to be sent again\n", dirty);

	check(hgm_dirty_get_info(d, &info));
	printf("one write makes %" PRIu64 " bytes dirty; %s\n",
	       info.unit_bytes, info.sentence);
	hgm_dirty_stop(d);
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	return !(bitmap[0] & 1);
}
