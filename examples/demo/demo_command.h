/* SPDX-License-Identifier: 0BSD */
/*
 * Common parts of the demo's commands: options, the guest's initial memory, exit codes
 */
#ifndef DEMO_COMMAND_H
#define DEMO_COMMAND_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "../link.h"
#include "machine.h"
#include "snapshot.h"

#define SEED UINT64_C(20230218)

enum {
	EXIT_WRONG = 1,
	EXIT_USAGE = 2,
	EXIT_CANNOT = 77 /* this machine cannot do it; meson counts a skipped test */
};

/* Print an error about the arguments. @format contains one %s. Return: EXIT_USAGE. */
int misused(const char *command, const char *format, const char *argument);

/* Parse an even number of MiB from 2 to 2048. */
bool parse_size(const char *text, uint64_t *length);

/* Parse bandwidth in Gb/s and round trip in microseconds, for example "10:100". */
bool parse_link(const char *text, struct link_opts *link);

/* Print "demo: cannot write PATH: ..." unless @rc is 0. Return: @rc. */
int cannot_write(const char *path, int rc);

/* Check that @path is writable, before the work starts. If it is not, print an error. */
bool writable(const char *path);

/**
 * struct live_options - options of the commands whose guest writes all the time
 * @command:  "demo snapshot"
 * @machine:  set by --size, --backing, --threads, --rate
 * @threads:  --threads
 * @json:     --json, or NULL
 */
struct live_options {
	const char *command;
	struct machine_opts machine;
	bool threads;
	const char *json;
};

/* getopt_long() for these options and up to 8 in @own, which ends with a row of zeroes. */
int live_getopt(int argc, char **argv, const struct option *own);

/* Print the description of these options for --help. */
void live_options_usage(FILE *f, const char *rate);

/*
 * Handle one option: @c is the return value of getopt_long(), and optarg is set. Return: 0, or
 * EXIT_USAGE after an error message.
 */
int live_option(struct live_options *o, int c);

/*
 * Check that no arguments follow the options, and round the size to whole blocks. Return: 0, or
 * EXIT_USAGE after an error message.
 */
int live_options_end(struct live_options *o, int argc, char **argv);

/*
 * Print what the guest is, make the file that its memory comes from, and make the machine. On
 * return the guest runs, and all of its memory has arrived. Return: 0, or an exit code after an
 * error message.
 */
int live_begin(struct live_options *o, struct snapshot *base, struct machine *m);

/* Show the current step if stdout is a terminal. NULL clears it. */
void live_note(const char *note);

/* Print "demo: WHAT: WHY". Return: EXIT_CANNOT or EXIT_WRONG, depending on @rc. */
int live_failed(const char *what, int rc, const char *why);

/* The commands. Return: the exit code. */
int demo_snapshot(int argc, char **argv);
int demo_dirty(int argc, char **argv);
int demo_balloon(int argc, char **argv);

#endif /* DEMO_COMMAND_H */
