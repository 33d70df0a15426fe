/* SPDX-License-Identifier: 0BSD */
/*
 * Three ways to write the memory of a guest to a file while the guest writes. Each file is checked:
 * is it of one instant?
 */
#ifndef COPIES_H
#define COPIES_H

#include "machine.h"

/**
 * struct copy - a copy and its measurements
 * @fd:           the file; it has no name
 * @from:         when the copy began
 * @to:           when all was in the file
 * @paused_us:    how long the guest was paused
 * @protected_us: how much of this hgm_snapshot_begin() took
 * @copied:       bytes that were copied before the guest wrote to them
 * @at:           the instant that the copy should show
 * @stalls:       stalls of the writes in the meantime
 * @verdict:      result of the check of the file
 * @one_instant:  the check found nothing wrong
 */
struct copy {
	int fd;
	struct moment from;
	struct moment to;
	double paused_us;
	double protected_us;
	uint64_t copied;
	struct instant at;
	struct stalls stalls;
	struct instant_verdict verdict;
	bool one_instant;
};

/*
 * copy_live() takes a live snapshot. If @proof is not NULL, it has room for all memory, and the
 * memory of the paused guest is also copied there. copy_stopped() pauses the guest until all is
 * written. copy_running() lets the guest write a little more, and then copies while the guest runs.
 * It overwrites the file of @over, which must have been checked before.
 *
 * Return: 0 or a negative errno, with the reason in @m->why.
 */
int copy_live(struct copy *c, struct machine *m, uint8_t *proof);
int copy_stopped(struct copy *c, struct machine *m);
int copy_running(struct copy *c, struct machine *m, const struct copy *over);

/*
 * Fill in @c->verdict. @base is what the memory held at first. Return: 0 or a negative errno, with
 * the reason in @m->why.
 */
int copy_check(struct copy *c, struct machine *m, const uint8_t *base);

/*
 * Compare the file with @memory, byte for byte. Return: 0, -EILSEQ if they differ, or another
 * negative errno, with the reason in @m->why.
 */
int copy_compare(const struct copy *c, struct machine *m, const uint8_t *memory);

/* Also closes the file. */
void copy_free(struct copy *c);

#endif /* COPIES_H */
