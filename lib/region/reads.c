/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The order between threads that read the messages of a userfaultfd and threads that copy pages. A
 * thread that copies holds off the reads of events.
 */
#include <sched.h>

#include "hgm.h"

static struct hgm_reads *reads_of(const struct hgm_region *r, uint64_t page)
{
	return &r->view.space->reads[hgm_view_stripe(&r->view, page)];
}

void hgm_reads_hold(struct hgm_region *r, uint64_t page)
{
	struct hgm_reads *reads = reads_of(r, page);

	for (;;) {
		while (atomic_load_explicit(&reads->events_first, memory_order_relaxed))
			sched_yield();
		atomic_fetch_add_explicit(&reads->holders, 1, memory_order_seq_cst);
		if (!(atomic_load_explicit(&reads->reads, memory_order_seq_cst) % 2))
			return;
		atomic_fetch_sub_explicit(&reads->holders, 1, memory_order_release);
		hgm_reads_wait(reads);
	}
}

void hgm_reads_release(struct hgm_region *r, uint64_t page)
{
	atomic_fetch_sub_explicit(&reads_of(r, page)->holders, 1, memory_order_release);
}

void hgm_reads_wait_marks(struct hgm_region *r, uint64_t page)
{
	const struct hgm_reads *reads = reads_of(r, page);
	/* The kernel's locks ensure that a copy after the drop is also after the read. */
	uint32_t count = atomic_load_explicit(&reads->reads, memory_order_acquire);

	if (r->view.space->foreign) /* nothing is read while a thread copies */
		return;
	while (count % 2 && count == atomic_load_explicit(&reads->reads, memory_order_acquire) &&
	       atomic_load_explicit(&reads->marks, memory_order_acquire) != count + 1)
		sched_yield();
}

void hgm_reads_wait(const struct hgm_reads *reads)
{
	uint32_t before = atomic_load_explicit(&reads->reads, memory_order_seq_cst);

	if (before % 2)
		while (atomic_load_explicit(&reads->reads, memory_order_acquire) == before)
			sched_yield();
}
