/* SPDX-License-Identifier: 0BSD */
/*
 * The results of demo snapshot: for people on the terminal, for programs as JSON
 */
#ifndef SNAPSHOT_REPORT_H
#define SNAPSHOT_REPORT_H

#include <stdbool.h>

#include "copies.h"

enum {
	LIVE,
	STOPPED,
	RUNNING,
	COPIES
};

/**
 * struct snapshot_result - all measurements
 * @kvm:      the guest was a real one
 * @length:   length of its memory
 * @proved:   the live snapshot was compared with a copy of memory
 * @usual:    two moments between which nothing happened
 * @noise:    the stalls between these two moments
 * @write_us: usual time of a write
 * @copy:     the copies, LIVE and so on
 * @huge_us:  time from the end of the live snapshot until all memory was huge again
 * @second_first_us:    time until both CPUs of the second guest had written
 * @second_complete_us: time until its memory was present and huge
 * @second_writes:      number of its writes
 */
struct snapshot_result {
	bool kvm;
	uint64_t length;
	bool proved;
	struct moment usual[2];
	struct stalls noise;
	double write_us;
	struct copy copy[COPIES];
	double huge_us;
	double second_first_us;
	double second_complete_us;
	uint64_t second_writes;
};

/* "live snapshot", "stop and copy", ... */
extern const char *const snapshot_names[COPIES];

/* Print a row for each copy when all are made, and the remaining results at the end. */
void snapshot_table(const struct snapshot_result *r);
void snapshot_sentences(const struct snapshot_result *r);

/* Return: 0 or a negative errno. */
int snapshot_json(const struct snapshot_result *r, const char *path);

#endif /* SNAPSHOT_REPORT_H */
