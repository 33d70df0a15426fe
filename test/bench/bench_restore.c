/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Restore from a file in the page cache until everything is mapped huge, including the creation of
 * the memory. The baseline is the shortest program that does the same: prepare a block, pread,
 * CONTINUE, collapse, with as many threads as there are CPUs, up to two.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <hgm/hgm.h>

#include "bench.h"
#include "clock.h"
#include "contents.h"
#include "memory.h"

static int file = -1;

static size_t restore_bytes(void)
{
	return setting.quick ? 256 * MIB : GIB;
}

static void finish(const char *who, uint64_t wall, uint64_t cpu, const void *memory)
{
	double gib = (double)restore_bytes() / (double)GIB, seconds;
	uint64_t huge;

	seconds = (double)(now_ns() - wall) / 1e9;
	note(who, "seconds", seconds);
	note(who, "cpu", (double)(cpu_ns() - cpu) / 1e9 / gib);
	if (hgm_mapped_huge(memory, restore_bytes(), &huge) || huge != restore_bytes())
		die(who, "not all is mapped huge");
	contents_check(who, memory, restore_bytes());
}

static void run_engine(void)
{
	struct hgm_region_opts opts = {
		.size = sizeof(opts),
		.length = restore_bytes(),
		.backing = HGM_BACKING_SHMEM,
	};
	uint64_t wall, cpu;
	struct hgm_region *r;
	struct hgm *h;

	memory_warm(restore_bytes());
	wall = now_ns();
	cpu = cpu_ns();
	if (hgm_create(&h, NULL) || hgm_source_fd(&opts.source, file) ||
	    hgm_region_create(&r, h, &opts) || hgm_start(h) || hgm_wait(h, -1))
		die("libhgm", hgm_errmsg());
	finish("libhgm", wall, cpu, hgm_region_addr(r));
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
}

struct raw_restore {
	char *primary, *alias;
	_Atomic size_t next;
};

/* No thread touches the memory meanwhile, so that no userfaultfd is needed. */
static void *raw_thread(void *arg)
{
	struct raw_restore *raw = arg;
	size_t at;

	while ((at = atomic_fetch_add(&raw->next, BLOCK)) < restore_bytes()) {
		if (pread(file, raw->alias + at, BLOCK, (off_t)at) != (ssize_t)BLOCK)
			die("raw pread", strerror(errno));
		if (madvise(raw->primary + at, BLOCK, HGM_MADV_COLLAPSE))
			die("raw MADV_COLLAPSE", strerror(errno));
	}
	return NULL;
}

static void run_raw(void)
{
	unsigned int threads = machine()->cpus < 2 ? 1 : 2;
	struct raw_restore raw = { .next = 0 };
	pthread_t thread[2];
	uint64_t wall, cpu;
	int fd;

	memory_warm(restore_bytes());
	wall = now_ns();
	cpu = cpu_ns();
	fd = memory_prepared_fd(restore_bytes(), &raw.alias);
	raw.primary = memory_map(restore_bytes(), fd);
	close(fd);
	for (unsigned int i = 0; i < threads; i++) {
		int rc = pthread_create(&thread[i], NULL, raw_thread, &raw);

		if (rc)
			die("raw", strerror(rc));
	}
	for (unsigned int i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	finish("raw", wall, cpu, raw.primary);
	munmap(raw.primary, restore_bytes());
	munmap(raw.alias, restore_bytes());
}

static void round_restore(const struct bench *b)
{
	(void)b;
	if (file < 0)
		file = contents_file(restore_bytes());
	run_engine();
	run_raw();
}

static void rows_restore(const struct bench *b)
{
	(void)b;
	close(file);
	file = -1;
	compare("restore.time", LESS, "s", "libhgm", "seconds", "raw");
	compare("restore.cpu", LESS, "CPU s/GiB", "libhgm", "cpu", "raw");
}

const struct bench restore_benches[] = {
	{ "restore", "from a file in the page cache until all is huge", true, round_restore,
	  rows_restore, NULL },
	{ NULL },
};
