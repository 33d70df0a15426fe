/* SPDX-License-Identifier: 0BSD */
/*
 * The state of a guest that writes, at an instant, and the check that a copy of its memory is of
 * exactly that instant
 *
 * The CPUs can be stopped anywhere. The sequence numbers that they have reached tell what each page
 * must hold, to the byte. No page may be newer, older, or a mixture of two writes. The sequence
 * numbers do not tell the contents of a page that a CPU is writing at the instant. The instant
 * holds a copy of that page.
 */
#ifndef INSTANT_H
#define INSTANT_H

#include "kvm.h"
#include "writer.h"

#define INSTANT_NO_PAGE UINT32_MAX

/**
 * struct instant - the state of a guest, except its memory
 * @box:     per CPU: its box, with the sequence number that it had reached
 * @cpu:     its registers (with KVM)
 * @page:    the page of its next write, which it may have begun; or INSTANT_NO_PAGE
 * @writing: what that page held
 */
struct instant {
	struct writer_box box[GUEST_CPUS];
	struct kvm_state cpu[GUEST_CPUS];
	uint32_t page[GUEST_CPUS];
	uint8_t writing[GUEST_CPUS][GUEST_PAGE];
};

/* Take the boxes and pages. The CPUs must not run. @ended: the CPUs are between two records. */
void instant_take(struct instant *at, const struct writer *w, bool ended);

/**
 * struct instant_verdict - what is wrong with a copy
 * @newer: number of pages that contain a later write
 * @older: number of pages that lack their last write
 * @torn:  number of pages that are a mixture of two writes
 * @other: number of pages that are wrong in another way
 * @first: a text about the first of these pages
 */
struct instant_verdict {
	uint64_t newer;
	uint64_t older;
	uint64_t torn;
	uint64_t other;
	char first[200];
};

/**
 * instant_check - compare each byte of a copy with what it must be
 * @at:   the instant
 * @w:    the writer, for its schedules
 * @base: what its memory held before the first write
 * @copy: the copy
 * @v:    filled in
 *
 * Return: 0, -EILSEQ if any page is wrong, -ENOMEM.
 */
int instant_check(const struct instant *at, const struct writer *w, const uint8_t *base,
		  const uint8_t *copy, struct instant_verdict *v);

#endif /* INSTANT_H */
