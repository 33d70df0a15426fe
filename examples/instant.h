/* SPDX-License-Identifier: 0BSD */
/*
 * The state of a guest that writes, at an instant, and the check that a copy of its memory is of
 * that very instant
 *
 * The CPUs were stopped wherever they happened to be. The sequence numbers that they had reached
 * tell what each page must hold, to the byte: no page may be newer, none older, none a mixture of
 * two writes. Only the page that a CPU was in the middle of writing cannot be told so: of that one
 * the instant has a copy.
 */
#ifndef INSTANT_H
#define INSTANT_H

#include "kvm.h"
#include "writer.h"

#define INSTANT_NO_PAGE UINT32_MAX

/**
 * struct instant - all that a guest was besides its memory
 * @box:     per CPU: its box, with the sequence number that it had reached
 * @cpu:     its registers (with KVM)
 * @page:    the page that it was to write next, and may have begun with; or INSTANT_NO_PAGE
 * @writing: what that page held
 */
struct instant {
	struct writer_box box[GUEST_CPUS];
	struct kvm_state cpu[GUEST_CPUS];
	uint32_t page[GUEST_CPUS];
	uint8_t writing[GUEST_CPUS][GUEST_PAGE];
};

/* The boxes and the pages; the CPUs must stand still. @ended: they are between two records. */
void instant_take(struct instant *at, const struct writer *w, bool ended);

/**
 * struct instant_verdict - what a copy is
 * @newer: pages that a later write has been to
 * @older: pages that lack their last write
 * @torn:  pages that are a mixture of two writes
 * @other: pages that are anything else
 * @first: the first of them, in words
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
 * Return: 0, -EILSEQ if there is anything in @v, -ENOMEM.
 */
int instant_check(const struct instant *at, const struct writer *w, const uint8_t *base,
		  const uint8_t *copy, struct instant_verdict *v);

#endif /* INSTANT_H */
