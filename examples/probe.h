/* SPDX-License-Identifier: 0BSD */
/*
 * The parts of hgm-probe: what the capabilities amount to, what would help, and JSON.
 */
#ifndef PROBE_H
#define PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include <hgm/caps.h>

/* A kind of memory that a region can have. The best comes first. */
enum rung_id {
	RUNG_HGM,
	RUNG_PREPARED,
	RUNG_LAZY,
	RUNG_WHOLE,
	RUNG_ANON,
	RUNGS,
};

struct rung {
	const char *name;  /* for programs */
	const char *title; /* for people */
	uint32_t answer;   /* enum hgm_answer */
	uint64_t fault_bytes;
	const char *huge_by;	    /* "remap", "copy", "born"; NULL: it does not become huge */
	const struct hgm_cap *says; /* the capability that decided */
};

struct findings {
	const struct hgm_caps *caps;
	struct rung rungs[RUNGS];
	const struct rung *best; /* that is proven; NULL: none */
	bool no_uffd;
	bool user_mode_only; /* faults of KVM and of system calls cannot be served */
	bool proved;	     /* huge pages were taken to find out */
	int status;	     /* the exit status without names */
};

/* Exit status */
enum {
	STATUS_FINE = 0,
	STATUS_COARSE = 1, /* whole blocks only; or a named capability is not there */
	STATUS_NO_UFFD = 2,
	STATUS_USAGE = 64,
	STATUS_FAILED = 70, /* no memory, output cannot be written */
};

const char *answer_text(uint32_t answer);
bool has(const struct hgm_caps *caps, const char *name);

void find_out(struct findings *f, const struct hgm_caps *caps, bool proved);

/* What would help, "" if nothing is known to. */
const char *help_for(const struct hgm_cap *cap);

/* @names: the capabilities to show, which there are; all if @count is 0 */
void print_json(const struct findings *f, char *const *names, int count, int status);

#endif
