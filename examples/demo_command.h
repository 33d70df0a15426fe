/* SPDX-License-Identifier: 0BSD */
/*
 * What the demo's commands have in common: options, the guest's first memory, exit codes
 */
#ifndef DEMO_COMMAND_H
#define DEMO_COMMAND_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "machine.h"
#include "snapshot.h"

#define SEED UINT64_C(20230218)

enum {
	EXIT_WRONG = 1,
	EXIT_USAGE = 2,
	EXIT_CANNOT = 77 /* this machine cannot; a skipped test, for meson */
};

/* A sentence about wrong arguments, with one %s. Return: EXIT_USAGE. */
int misused(const char *command, const char *format, const char *argument);

/* An even number of MiB from 2 to 2048. */
bool parse_size(const char *text, uint64_t *length);

/* "demo: cannot write PATH: ..." unless @rc is 0. Return: @rc. */
int cannot_write(const char *path, int rc);

/* Can it be written to? Says so if not: better now than after all the work. */
bool writable(const char *path);

/**
 * struct live_options - options of the commands whose guest writes all the time
 * @command:  "demo snapshot"
 * @machine:  from --size, --backing, --threads, --rate
 * @threads:  --threads
 * @json:     --json, or NULL
 */
struct live_options {
	const char *command;
	struct machine_opts machine;
	bool threads;
	const char *json;
};

/* getopt_long() for these and for @own, which ends with a row of zeroes, 8 at most. */
int live_getopt(int argc, char **argv, const struct option *own);

/* How --help describes them. */
void live_options_usage(FILE *f, const char *rate);

/*
 * One of them, as getopt_long() returned it, with optarg. Return: 0, or EXIT_USAGE after it was
 * said why.
 */
int live_option(struct live_options *o, int c);

/* Nothing may be left behind the options. Rounds the size to blocks. Return: likewise. */
int live_options_end(struct live_options *o, int argc, char **argv);

/*
 * Say what the guest is, make the file that its memory comes from, and the machine. It runs, and
 * all of its memory has come. Return: 0 or what to exit with, after it was said why.
 */
int live_begin(struct live_options *o, struct snapshot *base, struct machine *m);

/* What is being done, on a terminal; NULL clears it. */
void live_note(const char *note);

/* "demo: WHAT: WHY". Return: EXIT_WRONG, or EXIT_CANNOT if @rc says so. */
int live_failed(const char *what, int rc, const char *why);

/* The commands. Return: what to exit with. */
int demo_snapshot(int argc, char **argv);
int demo_dirty(int argc, char **argv);

#endif /* DEMO_COMMAND_H */
