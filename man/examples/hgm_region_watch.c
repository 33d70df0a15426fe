/* SPDX-License-Identifier: 0BSD */
/* The guest's first page is protected; its first write is told of. */
#include <err.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#include <hgm/hgm.h>

static _Atomic int writes;

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

static enum hgm_write_verdict on_write(void *user, struct hgm_region *r,
				       const struct hgm_span *what)
{
	(void)user;
	(void)r;
	(void)what;
	atomic_fetch_add(&writes, 1);
	return HGM_WRITE_ALLOW;
}

int main(void)
{
	struct hgm_region_opts opts = { .size = sizeof(opts) };
	struct hgm_watch_opts watch = {
		.size = sizeof(watch),
		.write = on_write,
	};
	struct hgm_region *region;
	struct hgm_span what;
	char *memory;
	struct hgm *h;

	opts.length = 4 << 20;
	check(hgm_source_fn(&opts.source, zeroes, NULL, NULL));
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	check(hgm_start(h));
	check(hgm_wait(h, -1));
	memory = hgm_region_addr(region);

	check(hgm_region_watch(region, &watch));
	check(hgm_region_protect(region, 0, 4096, HGM_PROTECT_ROUND,
				 &what));
	printf("%" PRIu64 " bytes are protected\n", what.length);
	memory[100] = 1; /* waits for the verdict */
	memory[200] = 1;
	check(hgm_region_unwatch(region));
	printf("%d write was told of\n", writes);

	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	return writes < 1;
}
