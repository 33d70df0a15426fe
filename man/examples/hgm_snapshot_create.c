/* SPDX-License-Identifier: 0BSD */
/* What memory held at one instant, though it is written to after it. */
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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
	struct hgm_snapshot_opts where = { .size = sizeof(where) };
	struct hgm_snapshot *snapshot;
	struct hgm_region *region;
	char *memory, then[6];
	struct hgm *h;

	opts.length = 8 << 20;
	check(hgm_source_fn(&opts.source, zeroes, NULL, NULL));
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	check(hgm_start(h));
	check(hgm_wait(h, -1));
	memory = hgm_region_addr(region);
	strcpy(memory, "first");

	where.fd = memfd_create("snapshot", MFD_CLOEXEC);
	if (where.fd < 0)
		err(1, "memfd");
	check(hgm_snapshot_create(&snapshot, h, &where));
	/* ... the vCPUs are paused ... */
	check(hgm_snapshot_begin(snapshot));
	/* ... and run again */
	strcpy(memory, "later");
	check(hgm_snapshot_wait(snapshot, -1));
	hgm_snapshot_destroy(snapshot);

	if (pread(where.fd, then, sizeof(then), 0) != sizeof(then))
		err(1, "pread");
	printf("now '%s', in the snapshot '%s'\n", memory, then);
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	close(where.fd);
	return strcmp(then, "first") != 0;
}
