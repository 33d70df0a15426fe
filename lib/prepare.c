/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Before the guest starts every block is put into the page cache, by several threads: a hole would
 * read as zero without a fault where only MINOR is registered. shmem blocks are made huge here,
 * while they are empty, which makes the later collapse a matter of page tables; one that cannot be
 * is committed in small pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "error.h"
#include "sys.h"

#define PREPARERS_MAX 16

struct job {
	struct hgm_region *r;
	_Atomic uint64_t next_block;
	_Atomic uint64_t huge;
	_Atomic int failed;	   /* the first error that memory could not be had */
	_Atomic int last_collapse; /* why a block is not huge */
};

static int prepare_block(struct job *job, uint64_t block)
{
	struct hgm_region *r = job->r;
	char *addr = r->alias + block * r->block_bytes;
	uint64_t len = r->block_bytes;
	int rc;

	if (block * r->block_bytes + len > r->mapped)
		len = r->mapped - block * r->block_bytes;
	if (r->backing == HGM_BACKING_SHMEM && r->collapses && len == r->block_bytes) {
		/* A block with nothing in the cache cannot be collapsed: one page first. */
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
	cpu_set_t set;
	unsigned int n = 1;

	if (!sched_getaffinity(0, sizeof(set), &set))
		n = (unsigned int)CPU_COUNT(&set);
	n = n < PREPARERS_MAX ? n : PREPARERS_MAX;
	return (n < r->blocks ? n : (unsigned int)r->blocks) - 1; /* and the caller */
}

/* A line of /proc/meminfo, in bytes; 0 if it cannot be had. */
static uint64_t meminfo(const char *text, const char *name)
{
	const char *line = strstr(text, name);

	return line ? strtoull(line + strlen(name), NULL, 10) << 10 : 0;
}

/*
 * shmem is not refused when memory runs out: the kernel kills somebody instead. Better to look
 * before.
 */
static int check_memory(const struct hgm_region *r)
{
	int fd = hgm_sys->open("/proc/meminfo", O_RDONLY);
	char text[4096];
	uint64_t free;
	ssize_t n;

	if (fd < 0)
		return 0;
	n = hgm_sys->read(fd, text, sizeof(text) - 1);
	hgm_sys->close(fd);
	if (n <= 0)
		return 0;
	text[n] = 0;
	free = meminfo(text, "MemAvailable:") + meminfo(text, "SwapFree:");
	if (!free || r->mapped <= free)
		return 0;
	return hgm_fail(-ENOMEM,
			"%llu MiB are to be committed, %llu MiB of memory are "
			"available; HGM_BACKING_SHMEM_LAZY commits nothing up front",
			(unsigned long long)r->mapped >> 20, (unsigned long long)free >> 20);
}

int hgm_prepare(struct hgm_region *r)
{
	struct job job = { .r = r };
	pthread_t thread[PREPARERS_MAX];
	unsigned int started = 0;
	int rc;

	if (r->copies)
		return 0;
	/* A caller's file may hold most of it already. */
	rc = r->backing == HGM_BACKING_SHMEM && !r->holds_contents ? check_memory(r) : 0;
	if (rc)
		return rc;
	/* A thread that cannot be had makes it slower, not impossible. */
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
		return hgm_fail(rc == -EFAULT ? -ENOMEM : rc,
				"allocating %llu bytes of memory: %s%s",
				(unsigned long long)r->mapped, hgm_errno_name(rc),
				r->backing == HGM_BACKING_HUGETLB
					? " (the huge page pool or the hugetlb cgroup ran dry)"
				: rc == -EINVAL ? " (MADV_POPULATE_WRITE needs kernel 5.14)"
						: "");
	return 0;
}
