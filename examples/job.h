/* SPDX-License-Identifier: 0BSD */
/*
 * One run of the demo: a guest that starts on memory whose contents are still elsewhere
 */
#ifndef JOB_H
#define JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "link.h"
#include "snapshot.h"
#include "stalls.h"

/* How large the pieces are that a fault waits for. */
enum pieces {
	PIECES_ANY,
	PIECES_BLOCK,
	PIECES_PAGE,
};

/**
 * struct job - what to run
 * @name:    "shmem.link"
 * @backing: for people
 * @json:    for programs
 * @kind:    enum hgm_backing
 * @block:   bytes
 * @pieces:  what the ladder must not go above or below
 * @link:    over the link, or straight from the file
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
 * struct setting - what is the same for all runs
 * @snapshot: what the memory holds at first
 * @length:   how much of it to restore, where the block does not want more
 * @link:     what kind of link
 * @kvm:      a real guest
 * @seed:     of the walk
 * @terminal: show a progress bar
 * @model:    the kernel that libhgm sees, if not the one that runs
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
	JOB_SKIPPED, /* this machine cannot; the reason is in why */
	JOB_FAILED,  /* something is wrong; likewise */
};

struct result {
	enum outcome outcome;
	bool hangs; /* something cannot be taken down any more: end the program without */
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
	uint32_t rounds; /* how often each page was written to, at most */
};

/* How much memory a job restores: @length, in whole blocks, at least one. */
uint64_t job_length(const struct job *job, uint64_t length);

/* Run it, from the creation of the engine to its end. */
void job_run(const struct job *job, const struct setting *setting, struct result *r);

#endif /* JOB_H */
