/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many present neighbours are mapped with a page.
 *
 * A page more in the same call costs a hundredth of a fault. So a fault maps an aligned window, as
 * the kernel does for page cache that nobody watches (fault_around_bytes, 64 KiB), and that is the
 * smallest. Whether a wider one would pay is seen by the faults themselves: two windows side by
 * side are one of the next size, and a fault in the second soon after the first is one that the
 * wider window had spared. Threads that walk through memory make every other fault such a hit; of
 * those that jump about hardly one is. A quarter of hits doubles the window, none at all halves it.
 *
 * The widest is a word of the map: its 64 pages are mapped in 7 us, for which others wait.
 */
#include "around.h"

#define SMALLEST_PAGES	  16
#define WIDER_MAX	  2
#define FAULTS_PER_CHOICE 32

static void choose(struct hgm_around *a, uint32_t wider)
{
	uint32_t hits = atomic_exchange_explicit(&a->hits, 0, memory_order_relaxed);

	if (hits >= FAULTS_PER_CHOICE / 4 && wider < WIDER_MAX)
		wider++;
	else if (!hits && wider)
		wider--;
	atomic_store_explicit(&a->wider, wider, memory_order_relaxed);
}

/* Spread: threads often begin at powers of two. */
static _Atomic uint64_t *slot(struct hgm_around *a, uint64_t pair)
{
	return &a->recent[pair * UINT64_C(0x9e3779b97f4a7c15) >> (64 - HGM_AROUND_RECENT_SHIFT)];
}

uint64_t hgm_around_fault(struct hgm_around *a, uint64_t page)
{
	uint32_t wider = atomic_load_explicit(&a->wider, memory_order_relaxed);
	uint64_t pages = (uint64_t)SMALLEST_PAGES << wider;
	uint64_t window = page / pages;
	_Atomic uint64_t *recent = slot(a, window / 2);
	/* What was kept when windows had another size looks like one far away. */
	uint64_t is = (window + 1) << WIDER_MAX | wider;
	uint64_t buddy = ((window ^ 1) + 1) << WIDER_MAX | wider;

	if (atomic_load_explicit(recent, memory_order_relaxed) == buddy)
		atomic_fetch_add_explicit(&a->hits, 1, memory_order_relaxed);
	atomic_store_explicit(recent, is, memory_order_relaxed);
	if (atomic_fetch_add_explicit(&a->faults, 1, memory_order_relaxed) % FAULTS_PER_CHOICE ==
	    FAULTS_PER_CHOICE - 1)
		choose(a, wider);
	return pages;
}
