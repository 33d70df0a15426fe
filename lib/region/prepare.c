/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Several threads put every block into the page cache before the guest starts: a hole would read
 * as zeroes without a fault where only MINOR is registered. shmem blocks are made huge here, while
 * they are empty, so that the later collapse only changes page tables. A block that cannot be made
 * huge is committed in small pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "caps/cgroup.h"
#include "hgm.h"
#include "holes.h"
#include "kernel/sys.h"
#include "util/bits.h"
#include "util/error.h"
#include "util/thread.h"

#define PREPARERS_MAX 16

struct job {
	struct hgm_region *r;
	_Atomic uint64_t next_block;
	_Atomic uint64_t huge;
	_Atomic int failed;	   /* an error: memory could not be allocated */
	_Atomic int last_collapse; /* why a block is not huge */
};

static int prepare_block(struct job *job, uint64_t block)
{
	struct hgm_region *r = job->r;
	uint64_t from, to, len;
	char *addr;
	int rc;

	hgm_region_block_span(r, block, &from, &to);
	addr = r->alias + from;
	len = to - from;
	if (r->backing == HGM_BACKING_SHMEM && r->collapses && hgm_region_block_whole(r, block)) {
		/* A block with nothing in the cache cannot be collapsed, so allocate one page. */
		rc = hgm_sys->madvise(addr, HGM_PAGE_BYTES, HGM_MADV_POPULATE_WRITE);
		if (rc)
			return rc;
		rc = hgm_sys->madvise(addr, len, HGM_MADV_COLLAPSE);
		if (!rc) {
			atomic_fetch_add_explicit(&job->huge, 1, memory_order_relaxed);
			return 0;
		}
		atomic_store_explicit(&job->last_collapse, rc, memory_order_relaxed);
	}
	return hgm_sys->madvise(addr, len, HGM_MADV_POPULATE_WRITE);
}

static void *preparer(void *arg)
{
	struct job *job = arg;

	while (!atomic_load_explicit(&job->failed, memory_order_relaxed)) {
		uint64_t block =
			atomic_fetch_add_explicit(&job->next_block, 1, memory_order_relaxed);
		int rc;

		if (block >= job->r->blocks)
			break;
		rc = prepare_block(job, block);
		if (rc)
			atomic_store_explicit(&job->failed, rc, memory_order_relaxed);
	}
	return NULL;
}

static unsigned int helpers(const struct hgm_region *r)
{
	unsigned int n = hgm_cpus();

	n = n < PREPARERS_MAX ? n : PREPARERS_MAX;
	return (n < r->blocks ? n : (unsigned int)r->blocks) - 1; /* and the caller */
}

/* The value of a line of /proc/meminfo, in bytes; 0 if it is missing. */
static uint64_t meminfo(const char *text, const char *name)
{
	const char *line = strstr(text, name);

	return line ? strtoull(line + strlen(name), NULL, 10) << 10 : 0;
}

/*
 * When memory runs out, the kernel does not refuse shmem but kills a process. So check before.
 */
static int check_memory(uint64_t need)
{
	int fd = hgm_sys->open("/proc/meminfo", O_RDONLY);
	uint64_t free, swap, allowed;
	char text[4096];
	ssize_t n = 0;

	if (fd >= 0) {
		n = hgm_sys->read(fd, text, sizeof(text) - 1);
		hgm_sys->close(fd);
	}
	text[n > 0 ? n : 0] = 0;
	swap = meminfo(text, "SwapFree:");
	free = meminfo(text, "MemAvailable:") + swap;
	if (free && need > free)
		return hgm_fail(-ENOMEM,
				"the region commits %llu MiB, but only %llu MiB of memory are "
				"available; HGM_BACKING_SHMEM_LAZY commits nothing up front",
				(unsigned long long)need >> 20, (unsigned long long)free >> 20);
	allowed = hgm_cgroup_room(swap);
	if (need > allowed)
		return hgm_fail(
			-ENOMEM,
			"the region commits %llu MiB, but the memory cgroup allows %llu MiB; raise "
			"its limit, or use HGM_BACKING_SHMEM_LAZY, which commits nothing up front",
			(unsigned long long)need >> 20, (unsigned long long)allowed >> 20);
	return 0;
}

/*
 * List the pages of a caller's file that hold data. All others are given back if not all memory can
 * be allocated. NULL: the kernel does not tell.
 */
static uint64_t *list_held(struct hgm_region *r)
{
	uint64_t words = hgm_bits_words(r->mapped >> HGM_PAGE_SHIFT), at = 0, len;
	uint64_t *held = r->seek_fd < 0 ? NULL : calloc(words, sizeof(*held));

	for (; held && hgm_held_next(r, &at, r->mapped, &len); at += len)
		for (uint64_t page = at >> HGM_PAGE_SHIFT; page < (at + len) >> HGM_PAGE_SHIFT;
		     page++)
			held[page / 64] |= UINT64_C(1) << page % 64;
	return held;
}

static uint64_t not_held(const struct hgm_region *r, const uint64_t *held)
{
	uint64_t words = hgm_bits_words(r->mapped >> HGM_PAGE_SHIFT);
	uint64_t bytes = hgm_region_mapped(r);

	for (uint64_t w = 0; w < words; w++)
		bytes -= (uint64_t)__builtin_popcountll(held[w]) << HGM_PAGE_SHIFT;
	return bytes;
}

/* After a failure: give back what was allocated. */
static void free_unheld(struct hgm_region *r, const uint64_t *held)
{
	uint64_t pages = r->mapped >> HGM_PAGE_SHIFT, page = hgm_region_first(r), from;

	while (page < pages) {
		while (page < pages && held[page / 64] >> page % 64 & 1)
			page++;
		from = page;
		while (page < pages && !(held[page / 64] >> page % 64 & 1))
			page++;
		if (page > from)
			hgm_sys->madvise(r->alias + (from << HGM_PAGE_SHIFT),
					 (page - from) << HGM_PAGE_SHIFT, MADV_REMOVE);
	}
}

static int prepare(struct hgm_region *r)
{
	struct job job = { .r = r };
	pthread_t thread[PREPARERS_MAX];
	unsigned int started = 0;
	int rc = 0;

	/* If a thread cannot be started, preparation is slower but still possible. */
	while (started < helpers(r) &&
	       !hgm_thread_start(&thread[started], "hgm-prepare", started, preparer, &job))
		started++;
	preparer(&job);
	while (started)
		pthread_join(thread[--started], NULL);
	r->prepared_blocks = atomic_load_explicit(&job.huge, memory_order_relaxed);
	atomic_store_explicit(&r->last_collapse_error,
			      atomic_load_explicit(&job.last_collapse, memory_order_relaxed),
			      memory_order_relaxed);
	rc = atomic_load_explicit(&job.failed, memory_order_relaxed);
	if (rc)
		return hgm_fail(
			rc == -EFAULT ? -ENOMEM : rc, "allocating %llu bytes of memory: %s%s",
			(unsigned long long)hgm_region_mapped(r), hgm_errno_name(rc),
			rc == -EINVAL ? " (MADV_POPULATE_WRITE needs kernel 5.14)"
			: r->backing == HGM_BACKING_HUGETLB && (rc == -EFAULT || rc == -ENOMEM)
				? " (no huge page is free in the pool or the hugetlb cgroup)"
				: "");
	return 0;
}

int hgm_prepare(struct hgm_region *r)
{
	uint64_t *held, need = hgm_region_mapped(r);
	int rc = 0;

	if (r->copies)
		return 0;
	held = r->holds_contents ? list_held(r) : NULL;
	/* A caller's file may hold most of the pages already. */
	if (held)
		need = not_held(r, held);
	else if (r->holds_contents)
		need = 0;
	if (r->backing == HGM_BACKING_SHMEM)
		rc = check_memory(need);
	if (!rc)
		rc = prepare(r);
	if (rc && held)
		free_unheld(r, held);
	free(held);
	return rc;
}
