/* SPDX-License-Identifier: 0BSD */
/*
 * What demo snapshot came to: for people on the terminal, for programs as JSON
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
 * struct snapshot_result - all that was measured
 * @kvm:      a real guest
 * @length:   of its memory
 * @proved:   the live snapshot was compared with a copy of memory
 * @usual:    two moments between which nothing happened
 * @noise:    the stalls between them
 * @write_us: what a write takes
 * @copy:     the copies, LIVE and so on
 * @huge_us:  after the live snapshot's end until all was huge again
 * @second_first_us:    until both CPUs of the second guest had written
 * @second_complete_us: until its memory was present and huge
 * @second_writes:      what it wrote
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

/* A row for each copy, when all are made; what else there is to say, at the end. */
void snapshot_table(const struct snapshot_result *r);
void snapshot_sentences(const struct snapshot_result *r);

/* Return: 0 or a negative errno. */
int snapshot_json(const struct snapshot_result *r, const char *path);

#endif /* SNAPSHOT_REPORT_H */
