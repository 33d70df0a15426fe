/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many neighbours are handled when one page faults: the size of the fault-around window.
 *
 * The faults themselves show whether a wider window would pay. Two adjacent windows form one window
 * of the next size. A fault in the second soon after one in the first is a hit: the wider window
 * would have avoided it. If threads walk through memory, every other fault is a hit. If they access
 * it at random, hardly any fault is. If a quarter of the faults are hits, the window is doubled. If
 * none is, the window is halved.
 */
#include "fault_around.h"

#define FAULTS_PER_CHOICE 32
#define WIDER_BITS	  3

void hgm_fault_around_init(struct hgm_fault_around *a, uint32_t smallest_pages, uint32_t wider_max)
{
	*a = (struct hgm_fault_around){ .smallest_pages = smallest_pages, .wider_max = wider_max };
}

static void choose(struct hgm_fault_around *a, uint32_t wider)
{
	uint32_t hits = atomic_exchange_explicit(&a->hits, 0, memory_order_relaxed);

	if (hits >= FAULTS_PER_CHOICE / 4 && wider < a->wider_max)
		wider++;
	else if (!hits && wider)
		wider--;
	atomic_store_explicit(&a->wider, wider, memory_order_relaxed);
}

/* Hash the pair, because threads often begin at powers of two. */
static _Atomic uint64_t *slot(struct hgm_fault_around *a, uint64_t pair)
{
	return &a->recent[pair * UINT64_C(0x9e3779b97f4a7c15) >>
			  (64 - HGM_FAULT_AROUND_RECENT_SHIFT)];
}

uint64_t hgm_fault_around_fault(struct hgm_fault_around *a, uint64_t page)
{
	uint32_t wider = atomic_load_explicit(&a->wider, memory_order_relaxed);
	uint64_t pages = (uint64_t)a->smallest_pages << wider;
	uint64_t window = page / pages;
	_Atomic uint64_t *recent = slot(a, window / 2);
	/* An entry that was stored when windows had another size looks like a distant window. */
	uint64_t is = (window + 1) << WIDER_BITS | wider;
	uint64_t buddy = ((window ^ 1) + 1) << WIDER_BITS | wider;

	if (atomic_load_explicit(recent, memory_order_relaxed) == buddy)
		atomic_fetch_add_explicit(&a->hits, 1, memory_order_relaxed);
	atomic_store_explicit(recent, is, memory_order_relaxed);
	if (atomic_fetch_add_explicit(&a->faults, 1, memory_order_relaxed) % FAULTS_PER_CHOICE ==
	    FAULTS_PER_CHOICE - 1)
		choose(a, wider);
	return pages;
}
