/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory underneath: 4 KiB pages of shmem.
 */
#include "state.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WORDS	512
#define PRESENT (UINT64_C(1) << 63)

static unsigned int words_at(uint64_t addr, uint64_t len, uint64_t *word)
{
	uint64_t pages = len / KIB4 < WORDS ? len / KIB4 : WORDS;
	ssize_t n = pread(model.pagemap, word, pages * 8, (off_t)(addr / KIB4 * 8));

	if (n <= 0)
		model_bug("/proc/self/pagemap: %s", strerror(errno));
	return (unsigned int)n / 8;
}

uint64_t real_pagemap(uint64_t addr)
{
	uint64_t word;

	words_at(addr, KIB4, &word);
	return word;
}

bool real_present(uint64_t start, uint64_t len)
{
	uint64_t word[WORDS];

	while (len) {
		unsigned int n = words_at(start, len, word);

		for (unsigned int i = 0; i < n; i++)
			if (word[i] & PRESENT)
				return true;
		start += n * KIB4;
		len -= n * KIB4;
	}
	return false;
}

/* Number of bytes from @start on that are present already; at least one page. */
static uint64_t present_run(uint64_t start, uint64_t len)
{
	uint64_t word[WORDS];
	unsigned int n = words_at(start, len, word);
	unsigned int i = 1;

	while (i < n && word[i] & PRESENT)
		i++;
	return i * KIB4;
}

int real_map(struct vma *v, uint64_t start, uint64_t len, bool wp)
{
	uint64_t mode = HGM_UFFD_CONTINUE_DONTWAKE | (wp ? HGM_UFFD_CONTINUE_WP : 0);
	uint64_t end = start + len;
	uint64_t retried = 0;

	while (start < end) {
		int64_t done = 0;
		int rc = hgm_sys_linux.uffd_continue(v->ctx->fd, (void *)(uintptr_t)start,
						     end - start, mode, &done);

		if (done > 0) {
			start += (uint64_t)done;
			continue;
		}
		switch (rc) {
		case -EAGAIN:
			break;
		case -EEXIST:
			start += present_run(start, end - start);
			break;
		case -EFAULT:
		case -EINVAL: /* beyond the end of file as shmem sees it */
			if (retried == start + 1)
				return rc;
			retried = start + 1;
			/* A hole was punched without the model. */
			file_whole(v->file, v->offset + (start - v->start), end - start);
			break;
		default:
			fprintf(stderr, "model: the real CONTINUE of %#llx: %s\n",
				(unsigned long long)start, strerror(-rc));
			return rc;
		}
	}
	return 0;
}

struct pieces {
	struct vma *vma;
	uint64_t base;
};

static void map_piece(void *arg, const struct piece *p)
{
	struct pieces *h = arg;

	if (!p->mapped || !p->poison) /* a leaf whose huge page is bad */
		real_map(h->vma, h->base + p->start, p->size, p->wp);
}

void real_map_pieces(struct vma *v, uint64_t addr, bool mapped)
{
	struct pieces h = { v, addr };

	tree_each(&v->page[vma_index(v, addr)], v->file->level, 0, mapped, map_piece, &h);
}

void real_unprotect(struct vma *v, uint64_t start, uint64_t len)
{
	hgm_sys_linux.uffd_writeprotect(v->ctx->fd, (void *)(uintptr_t)start, len,
					HGM_UFFD_WP_DONTWAKE);
}
