/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A view: one mapping of a region in an address space, with the userfaultfds that serve it.
 */
#ifndef HGM_LIB_VIEW_H
#define HGM_LIB_VIEW_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/line.h"
#include "util/page.h"

struct hgm_uffd;

#define HGM_THREADS_MAX 64

/* The reads of a fault thread from its userfaultfd, and the threads that hold them off: reads.c. */
struct hgm_reads {
	/* Odd: the thread is reading messages, or has not handled the events among them yet. */
	_Alignas(64) _Atomic uint32_t reads;
	/* Like reads, but even as soon as the pages that the events take away are marked. */
	_Atomic uint32_t marks;
	_Atomic uint32_t holders;  /* hgm_reads_hold() */
	_Atomic bool events_first; /* no new holders: the thread waits to read an event */
};

HGM_WHOLE_LINES(struct hgm_reads);

/*
 * An address space: that of the process, or one of another process, which has made the
 * userfaultfd. Of that one the library can neither map nor unmap anything, nor drop memory.
 */
struct hgm_space {
	unsigned int stripes; /* userfaultfds */
	struct hgm_uffd *uffd[HGM_THREADS_MAX];
	bool foreign;		/* of another process: remote/process.c. These are for it only: */
	int pid;		/* the process */
	int pidfd;		/* the same */
	int stop_fd;		/* wakes its fault thread */
	int collapse_error;	/* why its blocks cannot be made huge, or 0 */
	_Atomic bool served;	/* it has had a region: its fault thread may read */
	_Atomic bool ending;	/* its fault thread must end */
	_Atomic bool vanished;	/* the kernel says that it is no more: its fault thread must look */
	_Atomic bool gone;	/* all its regions are lost, or will be when they are created */
	int pagemap_fd;		/* /proc/PID/pagemap, negative: not available */
	int scan_fd;		/* the same if the kernel has PAGEMAP_SCAN, else negative */
	int mem_fd;		/* /proc/PID/mem, opened while that is possible; -errno */
	_Atomic uint64_t areas; /* memory areas that its views cost */
	struct hgm_reads reads[HGM_THREADS_MAX]; /* of each userfaultfd */
};

/* A region has one view, of the engine's address space. */
struct hgm_view {
	struct hgm_space *space;
	char *base;	/* of page 0 */
	char *start;	/* of the region's first page, which may be a later one: margins.c */
	uint64_t modes; /* registered */
	uint64_t stripe_bytes;
	uint64_t areas;		/* stripes */
	_Atomic uint64_t *lost; /* bitmap of pages: lost.c */
	_Atomic bool has_lost;
};

/*
 * Open what shows the address space of a process: @proc is its folder in /proc. What cannot be
 * opened is negative.
 */
void hgm_space_open(struct hgm_space *s, const char *proc);
void hgm_space_close(struct hgm_space *s);

/*
 * Ask the kernel whether a foreign one is no more: its process has exited, or runs another program.
 */
bool hgm_space_is_gone(const struct hgm_space *s);

/* A foreign one has a region now. */
void hgm_space_served(struct hgm_space *s);

/*
 * The kernel says that there is no such address space any more (ESRCH): make the fault thread of a
 * foreign one look.
 */
void hgm_space_vanished(struct hgm_space *s);

/*
 * Read the pagemap entries of pages from @addr on. Returns how many were read, or -errno (-EBADF:
 * pagemap is not available).
 */
int64_t hgm_space_entries(const struct hgm_space *s, const void *addr, uint64_t pages,
			  uint64_t *entry);

/* Is there no page behind an entry, in memory or in swap? */
static inline bool hgm_entry_empty(uint64_t entry)
{
	return !(entry >> 62); /* bits 63 and 62: present, swapped */
}

static inline char *hgm_view_at(const struct hgm_view *v, uint64_t page)
{
	return v->base + (page << HGM_PAGE_SHIFT);
}

/* The number of the userfaultfd that serves a page, and the userfaultfd; a block has one only. */
unsigned int hgm_view_stripe(const struct hgm_view *v, uint64_t page);
struct hgm_uffd *hgm_view_uffd(const struct hgm_view *v, uint64_t page);

/*
 * Unmap these bytes, also if the memory is locked (5.18). Private memory is dropped, that of a file
 * is not. Not in the address space of another process.
 */
int hgm_view_drop(const struct hgm_view *v, uint64_t at, uint64_t len);

/*
 * madvise(2) or process_madvise(2) of bytes [@at, @at + @len) of the view. Returns 0 or the
 * kernel's -errno.
 */
int hgm_view_advise(const struct hgm_view *v, uint64_t at, uint64_t len, int advice);

/* How many of these bytes are mapped huge? -errno: PAGEMAP_SCAN cannot tell. */
int hgm_view_huge(const struct hgm_view *v, uint64_t at, uint64_t len, uint64_t *huge_bytes);

#endif
