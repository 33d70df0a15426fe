/* SPDX-License-Identifier: 0BSD */
/* Under a snapshot, a write to the file, which nobody protects. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <hgm/hgm.h>

#define LENGTH (4 << 20)
#define PAGE   ((size_t)4096)

static char first_byte;

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

static int64_t keep(void *user, const void *buf, uint64_t length,
		    uint64_t offset)
{
	(void)user;
	if (!offset)
		first_byte = *(const char *)buf;
	return (int64_t)length;
}

int main(void)
{
	struct hgm_snapshot_opts how = { .size = sizeof(how) };
	struct hgm_region_opts opts = { .size = sizeof(opts) };
	char data[] = "from a device";
	struct hgm_snapshot *snapshot;
	struct hgm_region *region;
	char *memory, byte;
	struct hgm *h;

	opts.backing = HGM_BACKING_FD;
	opts.fd = memfd_create("guest", MFD_CLOEXEC);
	if (opts.fd < 0 || ftruncate(opts.fd, LENGTH))
		err(1, "memfd_create");
	opts.length = LENGTH;
	check(hgm_source_fn(&opts.source, zeroes, NULL, NULL));
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	check(hgm_start(h));
	check(hgm_wait(h, -1));
	memory = hgm_region_addr(region);
	memcpy(memory, "old", 4);

	how.write = keep;
	check(hgm_snapshot_create(&snapshot, h, &how));
	check(hgm_snapshot_begin(snapshot));

	/* Afterwards the old contents are saved. */
	check(hgm_region_before_write(region, 0, PAGE));
	if (pwrite(opts.fd, data, sizeof(data), 0) < 0)
		err(1, "pwrite");

	check(hgm_snapshot_wait(snapshot, -1));
	byte = *memory;
	printf("snapshot: %c..., memory: %c...\n", first_byte, byte);
	hgm_snapshot_destroy(snapshot);
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	return first_byte != 'o' || byte != 'f';
}
