/* SPDX-License-Identifier: 0BSD */
/*
 * Three ways to write out the memory of a guest that writes, each to a file, and each checked for
 * being of one instant
 */
#ifndef COPIES_H
#define COPIES_H

#include "machine.h"

/**
 * struct copy - what it came to
 * @fd:           the file; it has no name
 * @from:         when it began
 * @to:           when all was in the file
 * @paused_us:    the guest stood still
 * @protected_us: of this, hgm_snapshot_begin()
 * @copied:       bytes that were copied before the guest wrote to them
 * @at:           the instant that it is meant to be of
 * @stalls:       of the writes meanwhile
 * @verdict:      what the file is
 * @one_instant:  there is nothing in @verdict
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
 * copy_live() takes a live snapshot. With @proof, room for all memory, what the memory was while
 * the guest stood still is copied there, too. copy_stopped() lets the guest stand still until all
 * is written, copy_running() lets it run, after it has written a little more; it writes over the
 * file of another one, which was checked before.
 *
 * Return: 0 or a negative errno, with the reason in @m->why.
 */
int copy_live(struct copy *c, struct machine *m, uint8_t *proof);
int copy_stopped(struct copy *c, struct machine *m);
int copy_running(struct copy *c, struct machine *m, const struct copy *over);

/* Fill in @verdict; @base is what the memory held at first. Return: likewise. */
int copy_check(struct copy *c, struct machine *m, const uint8_t *base);

/* Compare the file with @memory, byte for byte. Return: likewise; -EILSEQ if they differ. */
int copy_compare(const struct copy *c, struct machine *m, const uint8_t *memory);

/* Its file goes. */
void copy_free(struct copy *c);

#endif /* COPIES_H */
