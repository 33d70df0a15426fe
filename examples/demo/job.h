/* SPDX-License-Identifier: 0BSD */
/*
 * One run of the demo: a guest that starts on memory whose contents are still elsewhere
 */
#ifndef JOB_H
#define JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../link.h"
#include "snapshot.h"
#include "stalls.h"

/* Size of the pieces that a fault waits for. */
enum pieces {
	PIECES_ANY,
	PIECES_BLOCK,
	PIECES_PAGE,
};

/**
 * struct job - what to run
 * @name:    name of the run, for example "shmem.link"
 * @backing: name of the backing for people
 * @json:    name of the backing for programs
 * @kind:    enum hgm_backing
 * @block:   block size in bytes
 * @pieces:  limit for the size of the pieces that a fault waits for
 * @link:    true to fetch over the link, false to read the file
 */
struct job {
	char name[32];
	const char *backing;
	const char *json;
	uint32_t kind;
	uint64_t block;
	enum pieces pieces;
	bool link;
};

/**
 * struct setting - settings that all runs share
 * @snapshot: initial contents of the memory
 * @length:   how much of it to restore; a large block may need more
 * @link:     options of the link
 * @kvm:      run a real guest
 * @seed:     seed for the walk
 * @terminal: show a progress bar
 * @model:    the kernel that libhgm sees, if it is not the running one
 */
struct setting {
	const struct snapshot *snapshot;
	uint64_t length;
	struct link_opts link;
	bool kvm;
	uint64_t seed;
	bool terminal;
	const char *model;
};

enum outcome {
	JOB_RAN,
	JOB_SKIPPED, /* this machine cannot run it; the reason is in why */
	JOB_FAILED,  /* something is wrong; the reason is in why */
};

struct result {
	enum outcome outcome;
	bool hangs; /* something cannot be torn down: exit without it */
	char why[512];
	uint64_t length;
	uint64_t block;
	uint64_t map;
	uint64_t faults;
	uint64_t blocks;
	uint64_t huge_bytes;
	double complete_ms;
	bool checksum_ok;
	struct stalls stalls;
	uint32_t rounds; /* how often a page was written to, at most */
};

/* Return how much memory a job restores: @length in whole blocks, at least one block. */
uint64_t job_length(const struct job *job, uint64_t length);

/* Run a job, from the creation of the engine to its end. */
void job_run(const struct job *job, const struct setting *setting, struct result *r);

#endif /* JOB_H */
