/* SPDX-License-Identifier: 0BSD */
/*
 * The parts of hgm-probe: the backings that work, advice, and JSON output.
 */
#ifndef PROBE_H
#define PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include <hgm/caps.h>

/* Backings: the kinds of memory that a region can have, the best first. */
enum backing_id {
	BACKING_HGM,
	BACKING_PREPARED,
	BACKING_LAZY,
	BACKING_WHOLE,
	BACKING_ANON,
	BACKINGS,
};

struct backing {
	const char *name;  /* for programs */
	const char *title; /* for people */
	uint32_t answer;   /* enum hgm_answer */
	uint64_t fault_bytes;
	const char *huge_by;	    /* "remap", "copy", "born"; NULL if it stays small */
	const struct hgm_cap *says; /* the capability that decided */
};

struct findings {
	const struct hgm_caps *caps;
	struct backing backings[BACKINGS];
	const struct backing *best; /* the best proven one, or NULL */
	bool no_uffd;
	bool user_mode_only; /* faults of KVM and of system calls cannot be served */
	bool proved;	     /* the probe used huge pages to find out */
	int status;	     /* the exit status without names */
};

/* Exit status */
enum {
	STATUS_FINE = 0,
	STATUS_COARSE = 1, /* only whole blocks, or a named capability is missing */
	STATUS_NO_UFFD = 2,
	STATUS_USAGE = 64,
	STATUS_FAILED = 70, /* no memory, output cannot be written */
};

const char *answer_text(uint32_t answer);
bool has(const struct hgm_caps *caps, const char *name);

void find_out(struct findings *f, const struct hgm_caps *caps, bool proved);

/* Return advice for a missing capability, or "" if there is none. */
const char *help_for(const struct hgm_cap *cap);

/* @names: the capabilities to show, which must exist; all are shown if @count is 0 */
void print_json(const struct findings *f, char *const *names, int count, int status);

#endif
