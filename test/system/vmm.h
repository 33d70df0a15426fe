/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process that has memory of its own, and leaves its faults to another process, which has its
 * userfaultfd: what a VMM like Firecracker is for its handler. It is the test program, started once
 * more, and does what it is told over a socket.
 */
#ifndef HGM_TEST_VMM_H
#define HGM_TEST_VMM_H

#include <stdint.h>

#include "harness.h"

enum vmm_memory {
	VMM_ANON,
	VMM_SHARED, /* a memfd */
};

struct vmm {
	int pid;
	int pidfd;
	int sock;
	int uffd;   /* a duplicate of its userfaultfd */
	char *addr; /* of its memory, in its address space */
	uint64_t length;
};

struct vmm_opts {
	uint64_t length;
	uint64_t first_page; /* of vmm_contents */
	char *at;	     /* where its memory is to be, if there is room; NULL: anywhere */
	uint64_t misaligned; /* the memory begins so many bytes after a multiple of 2 MiB */
	enum vmm_memory memory;
	bool untold;	       /* UFFDIO_API is not called */
	uint64_t features;     /* besides EVENT_REMOVE */
	uint64_t touched_page; /* it has written to this page before; 0: to none */
};

void vmm_start(struct vmm *v, const struct vmm_opts *o);
void vmm_end(struct vmm *v); /* also if it has exited */

/* What it can be told to do, and what it answers. */
enum vmm_op {
	VMM_READ,    /* the first word of page @a: its value */
	VMM_WRITE,   /* @b to the first word of page @a */
	VMM_CHECK,   /* the contents of pages [@a, @b), of vmm_contents: how many are wrong */
	VMM_ZEROES,  /* pages [@a, @b): how many are not all zero */
	VMM_DISCARD, /* MADV_DONTNEED of pages [@a, @b) */
	VMM_UNMAP,   /* pages [@a, @b) */
	VMM_TOUCH,   /* @a threads read all pages, each in its own order: how many are wrong */
	VMM_CHURN, /* @a threads read, write and discard pages @b times each: how many are wrong */
	VMM_RUN,   /* @a threads begin to read and write pages; they discard none */
	VMM_PAUSE, /* they end */
	VMM_HASH,  /* of all its memory */
	VMM_FLOOD, /* @a threads drop a page each, all the time, until the process ends */
	VMM_HUGE,  /* bytes of its memory that are mapped huge, by its smaps */
	VMM_EXEC,  /* run another program, which does nothing; no answer */
	VMM_EXIT,  /* no answer */
};

extern const struct contents vmm_contents;

/* What VMM_HASH says of such memory. */
uint64_t vmm_hash(const void *memory, uint64_t length);

uint64_t vmm_do(const struct vmm *v, enum vmm_op op, uint64_t a, uint64_t b);

/* The same in two halves, for what takes a while. */
void vmm_tell(const struct vmm *v, enum vmm_op op, uint64_t a, uint64_t b);
uint64_t vmm_answer(const struct vmm *v);

#endif
