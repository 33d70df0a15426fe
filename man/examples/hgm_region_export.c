/* SPDX-License-Identifier: 0BSD */
/* A transfer is interrupted, and goes on in a second engine. */
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <hgm/hgm.h>

#define LENGTH (8 << 20)
#define PAGES  (LENGTH / 4096)

static void check(int rc)
{
	if (rc)
		errx(1, "%s", hgm_errmsg());
}

/* Who asks for a page gets it; how many were asked for is counted. */
static int64_t count(void *user, const struct hgm_io *io)
{
	__atomic_add_fetch((int *)user, io->length / 4096,
			   __ATOMIC_RELAXED);
	memset(io->buf, 'x', io->length);
	return (int64_t)io->length;
}

int main(void)
{
	struct hgm_region_opts opts = {
		.size = sizeof(opts),
		.length = LENGTH,
		.backing = HGM_BACKING_FD,
		.flags = HGM_REGION_NO_FILL,
	};
	uint64_t bitmap[PAGES / 64];
	struct hgm_region *region;
	int asked = 0, before;
	struct hgm *h;

	opts.fd = memfd_create("guest", MFD_CLOEXEC);
	if (opts.fd < 0 || ftruncate(opts.fd, LENGTH))
		err(1, "memfd");
	check(hgm_source_fn(&opts.source, count, &asked, NULL));

	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	check(hgm_region_prefetch(region, 0, LENGTH / 4));
	check(hgm_start(h));
	check(hgm_wait(h, -1));
	check(hgm_region_export(region, 0, PAGES, bitmap));
	hgm_destroy(h); /* the file keeps what has arrived */
	before = asked;

	opts.flags = 0;
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	check(hgm_region_import(region, 0, PAGES, bitmap));
	check(hgm_start(h));
	check(hgm_wait(h, -1));
	printf("%d pages, then the other %d\n", before, asked - before);

	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	close(opts.fd);
	return asked != PAGES;
}
