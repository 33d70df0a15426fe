/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pool of a snapshot: old contents of pages, copied before the pages are written to.
 *
 * Fault threads take free slots and hand them over when they are filled. Free and ready slots are
 * on lock-free stacks. Only the snapshot's thread takes from the stack of ready slots, and it takes
 * all of them at once, so this stack needs no tag.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kernel/sys.h"
#include "snapshot.h"
#include "util/page.h"

static int make_index(struct hgm_pool *p)
{
	p->index_mask = 1;
	while (p->index_mask < p->slots * UINT64_C(2))
		p->index_mask *= 2;
	p->index = calloc(p->index_mask--, sizeof(p->index[0]));
	return p->index ? 0 : -ENOMEM;
}

int hgm_pool_make(struct hgm_pool *p, uint64_t bytes, bool ordered)
{
	void *data;
	int rc;

	/* First, because a size that can never be allocated is refused here. */
	rc = hgm_sys->mmap(&data, NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);
	if (rc)
		return rc;
	p->data = data;
	p->bytes = bytes;
	p->slots = (uint32_t)(bytes >> HGM_PAGE_SHIFT);
	p->slot = calloc(p->slots, sizeof(p->slot[0]));
	if (!p->slot || (ordered && make_index(p)))
		return -ENOMEM;
	/* Allocate now and not while a writer waits, which is when it happens before 5.14. */
	rc = hgm_sys->madvise(data, bytes, HGM_MADV_POPULATE_WRITE);
	if (rc && rc != -EINVAL)
		return rc;
	for (uint32_t i = 0; i < p->slots; i++)
		atomic_init(&p->slot[i].next, i + 1 < p->slots ? i + 2 : 0);
	atomic_init(&p->free, p->slots ? 1 : 0);
	return 0;
}

void hgm_pool_free(struct hgm_pool *p)
{
	if (p->data)
		hgm_sys->munmap(p->data, p->bytes);
	free(p->slot);
	free(p->index);
}

void *hgm_pool_page(const struct hgm_pool *p, uint32_t slot)
{
	return p->data + ((uint64_t)slot << HGM_PAGE_SHIFT);
}

int64_t hgm_pool_get(struct hgm_pool *p)
{
	uint64_t head = atomic_load_explicit(&p->free, memory_order_acquire);
	uint64_t next;

	do {
		if (!(uint32_t)head)
			return -1;
		next = ((head >> 32) + 1) << 32 |
		       atomic_load_explicit(&p->slot[(uint32_t)head - 1].next,
					    memory_order_relaxed);
	} while (!atomic_compare_exchange_weak_explicit(&p->free, &head, next, memory_order_acq_rel,
							memory_order_acquire));
	atomic_fetch_add_explicit(&p->used, 1, memory_order_relaxed);
	return (int64_t)(uint32_t)head - 1;
}

void hgm_pool_put(struct hgm_pool *p, uint32_t slot)
{
	uint64_t head = atomic_load_explicit(&p->free, memory_order_relaxed);
	uint64_t next;

	atomic_fetch_sub_explicit(&p->used, 1, memory_order_relaxed);
	do {
		atomic_store_explicit(&p->slot[slot].next, (uint32_t)head, memory_order_relaxed);
		next = ((head >> 32) + 1) << 32 | (slot + 1);
	} while (!atomic_compare_exchange_weak_explicit(&p->free, &head, next, memory_order_acq_rel,
							memory_order_relaxed));
}

void hgm_pool_ready(struct hgm_pool *p, uint32_t slot)
{
	uint32_t head = atomic_load_explicit(&p->ready, memory_order_relaxed);

	do
		atomic_store_explicit(&p->slot[slot].next, head, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&p->ready, &head, slot + 1,
						      memory_order_release, memory_order_relaxed));
}

uint32_t hgm_pool_take_ready(struct hgm_pool *p)
{
	uint32_t at = atomic_exchange_explicit(&p->ready, 0, memory_order_acquire);
	uint32_t turned = 0;

	while (at) {
		_Atomic uint32_t *next = &p->slot[at - 1].next;
		uint32_t after = atomic_load_explicit(next, memory_order_relaxed);

		atomic_store_explicit(next, turned, memory_order_relaxed);
		turned = at;
		at = after;
	}
	return turned;
}

static uint32_t home(const struct hgm_pool *p, uint32_t part, uint64_t page)
{
	return (uint32_t)((page + ((uint64_t)part << 44)) * UINT64_C(0x9e3779b97f4a7c15) >> 32) &
	       p->index_mask;
}

void hgm_pool_index(struct hgm_pool *p, uint32_t slot)
{
	uint32_t at = home(p, p->slot[slot].part, p->slot[slot].page);

	while (p->index[at])
		at = (at + 1) & p->index_mask;
	p->index[at] = slot + 1;
}

/* Close the gap that a removed entry leaves: entries that it had displaced move back. */
static void close_gap(struct hgm_pool *p, uint32_t gap)
{
	for (uint32_t at = (gap + 1) & p->index_mask; p->index[at]; at = (at + 1) & p->index_mask) {
		const struct hgm_slot *slot = &p->slot[p->index[at] - 1];
		uint32_t from = home(p, slot->part, slot->page);

		if (((at - from) & p->index_mask) < ((at - gap) & p->index_mask))
			continue;
		p->index[gap] = p->index[at];
		gap = at;
	}
	p->index[gap] = 0;
}

int64_t hgm_pool_find(struct hgm_pool *p, uint32_t part, uint64_t page)
{
	for (uint32_t at = home(p, part, page); p->index[at]; at = (at + 1) & p->index_mask) {
		uint32_t slot = p->index[at] - 1;

		if (p->slot[slot].page != page || p->slot[slot].part != part)
			continue;
		close_gap(p, at);
		return slot;
	}
	return -1;
}
