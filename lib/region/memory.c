/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Read guest memory.
 *
 * Memory with a file is read by pread() of the file. A hole of shmem or hugetlbfs reads as zeroes
 * and is not allocated. Memory errors and swap-in errors give EIO. A file that was truncated reads
 * short.
 *
 * Anonymous memory is read through /proc/self/mem. The kernel walks the page tables for this and
 * does not wait for userfaultfd: an absent page gives EIO, and so does a page that cannot be read.
 * /proc/self/pagemap distinguishes the two: the page table entry of a hole is empty. This holds
 * because the engine's userfaultfds do not have WP_UNPOPULATED. With that feature, protecting a
 * hole leaves a marker in its entry that looks like a page in swap (engine.c). Where they have the
 * same bit, the kernel is older, and the bit means high-granularity mapping.
 *
 * process_vm_readv() cannot be used: it waits for userfaultfd.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "hgm.h"
#include "kernel/sys.h"
#include "memory.h"
#include "util/bits.h"

/* How often a page is read again if its entry says that it is present. */
#define TRIES 3

/* Once opened, it stays open: readers use it without the lock. */
int hgm_memory_open(const struct hgm_region *r)
{
	struct hgm *h = r->h;
	int rc;

	if (hgm_region_foreign(r)) /* it is open, or denied */
		return r->view.space->mem_fd < 0 ? r->view.space->mem_fd : 0;
	pthread_mutex_lock(&h->table_lock);
	if (h->space.mem_fd < 0)
		h->space.mem_fd = hgm_sys->open("/proc/self/mem", O_RDONLY);
	rc = h->space.mem_fd < 0 ? h->space.mem_fd : 0;
	pthread_mutex_unlock(&h->table_lock);
	return rc;
}

struct reading {
	const struct hgm_region *r;
	uint64_t page;
	uint64_t pages;
	char *buf;
	struct hgm_memory_outcome out;
};

static void zero(struct reading *g, uint64_t at, uint64_t pages)
{
	memset(g->buf + (at << HGM_PAGE_SHIFT), 0, pages << HGM_PAGE_SHIFT);
}

static void unreadable(struct reading *g, uint64_t at, uint64_t pages, int error)
{
	g->out.unreadable |= hgm_bits_low(pages) << at;
	g->out.error = error;
	zero(g, at, pages);
}

/* How many pages from @at on could be read at once, or -errno; 0 at the end of the file. */
static int64_t read_run(const struct reading *g, uint64_t at)
{
	const struct hgm_region *r = g->r;
	uint64_t offset = r->fd >= 0 ? hgm_region_file_at(r, g->page + at)
				     : (uintptr_t)hgm_region_at(r, g->page + at);
	uint64_t length = (g->pages - at) << HGM_PAGE_SHIFT, got = 0;
	unsigned int tries = 0;
	ssize_t n;

	do {
		n = hgm_sys->pread(r->fd >= 0 ? r->fd : r->view.space->mem_fd,
				   g->buf + (at << HGM_PAGE_SHIFT) + got, length - got,
				   offset + got);
		got += n > 0 ? (uint64_t)n : 0;
	} while (n > 0 ? got % HGM_PAGE_BYTES
		       : n == -EINTR || ((n == -EAGAIN || n == -ENOMEM) && ++tries < TRIES));
	got >>= HGM_PAGE_SHIFT;
	return got ? (int64_t)got : n < 0 ? n : 0;
}

static void read_file(struct reading *g)
{
	uint64_t at = 0;

	while (at < g->pages) {
		int64_t n = read_run(g, at);

		if (n > 0) {
			at += (uint64_t)n;
		} else if (n) {
			unreadable(g, at, 1, (int)n);
			at++;
		} else { /* the file ends here */
			unreadable(g, at, g->pages - at, -ENODATA);
			return;
		}
	}
}

/* How many pages from @at on are holes. *there: the entry of the next page is not empty. */
static uint64_t holes(const struct reading *g, uint64_t at, bool *there)
{
	uint64_t entry[HGM_PAGES_PER_WORD], n = 0;
	int64_t got = hgm_space_entries(g->r->view.space, hgm_region_at(g->r, g->page + at),
					g->pages - at, entry);

	*there = false;
	while ((int64_t)n < got && !*there) {
		*there = !hgm_entry_empty(entry[n]);
		n += !*there;
	}
	return n;
}

static void read_anon(struct reading *g)
{
	uint64_t at = 0;
	unsigned int tries = 0;

	while (at < g->pages) {
		int64_t n = read_run(g, at);
		uint64_t run;
		bool there;

		if (n > 0) {
			at += (uint64_t)n;
			tries = 0;
			continue;
		}
		run = holes(g, at, &there);
		if (run) {
			g->out.hole |= hgm_bits_low(run) << at;
			zero(g, at, run);
		} else if (there && ++tries < TRIES) { /* it may have arrived or moved since */
			continue;
		} else {
			run = 1;
			unreadable(g, at, run, n ? (int)n : -EIO);
		}
		at += run;
		tries = 0;
	}
}

/* Memory that is mapped over the region, or was, does not belong to it. */
static void zero_lost(struct reading *g)
{
	for (uint64_t at = 0; at < g->pages; at++) {
		if (!hgm_lost_page(g->r, g->page + at))
			continue;
		g->out.hole |= UINT64_C(1) << at;
		g->out.unreadable &= ~(UINT64_C(1) << at);
		zero(g, at, 1);
	}
}

struct hgm_memory_outcome hgm_memory_read(const struct hgm_region *r, uint64_t page, uint64_t pages,
					  void *buf)
{
	struct reading g = { .r = r, .page = page, .pages = pages, .buf = buf };

	if (r->fd >= 0)
		read_file(&g);
	else
		read_anon(&g);
	zero_lost(&g);
	return g.out;
}
