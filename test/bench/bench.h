/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A bench measures its contestants in turn, once in each round. After all rounds, its rows compare
 * the figure of one contestant with that of another.
 */
#ifndef HGM_BENCH_H
#define HGM_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define PAGE	   ((size_t)4096)
#define BLOCK	   ((size_t)2 << 20)
#define MIB	   ((size_t)1 << 20)
#define GIB	   ((size_t)1 << 30)
#define ROUNDS_MAX 9

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct bench {
	const char *name;
	const char *what; /* for --list and the HTML page */
	bool quick;	  /* part of --quick */
	void (*round)(const struct bench *b);
	void (*rows)(const struct bench *b);
	const void *arg;
};

/* How the program is to measure, and the current state. */
struct setting {
	bool quick;
	unsigned int rounds;
	unsigned int round;
	const struct bench *bench;
	double load; /* of the machine when the bench began */
};

extern struct setting setting;

/* Each array ends with a bench without a name. */
extern const struct bench touch_benches[];
extern const struct bench fill_benches[];
extern const struct bench fill_source_benches[];
extern const struct bench restore_benches[];
extern const struct bench demand_benches[];
extern const struct bench discard_benches[];
extern const struct bench guest_benches[];
extern const struct bench link_benches[];
extern const struct bench map_benches[];
extern const struct bench idle_benches[];
extern const struct bench access_benches[];
extern const struct bench around_benches[];
extern const struct bench snapshot_benches[];

void die(const char *what, const char *why) __attribute__((noreturn));

/*
 * The index of the contestant that is the @nth of @count in this round. Each is first in turn. Each
 * comes after one neighbour in even rounds and after the other in odd ones.
 */
static inline size_t in_turn(size_t nth, size_t count)
{
	return (setting.round + (setting.round % 2 ? count - nth : nth)) % count;
}

/* This bench cannot be measured here. The round returns after this call. */
void skip(const char *why);

/*
 * figures.c
 */

/* Record figure @what of contestant @who in this round. */
void note(const char *who, const char *what, double value);

/* Record waits as figures "p50" and "p99", and as a curve for the page. Sorts @us. */
void note_waits(const char *who, float *us, size_t count);

enum better {
	LESS,
	MORE
};

/* Drop the figures of a bench that is measured again. */
void figures_forget(const struct bench *b);

/*
 * Add row @name: it compares figure @what of @who with that of the best of @bases (names separated
 * by spaces).
 */
void compare(const char *name, enum better better, const char *unit, const char *who,
	     const char *what, const char *bases);

struct row {
	char *name;
	const struct bench *bench;
	const char *unit;
	const char *who;
	char base_name[32];
	enum better better;
	unsigned int rounds;
	double value[ROUNDS_MAX]; /* indexed by round */
	double base[ROUNDS_MAX];
	double middle; /* medians */
	double base_middle;
	double ratio; /* median over rounds of the ratio of value to baseline */
	double ratio_min;
	double ratio_max;
	double load; /* load average of the machine when its bench began */
};

#define PER_DECADE 16
#define BINS	   (PER_DECADE * 8) /* from 0.1 us on */

/* A distribution of waits, over all rounds. */
struct curve {
	const struct bench *bench;
	const char *who;
	uint64_t count;
	uint64_t bin[BINS];
};

size_t rows_count(void);
const struct row *row_at(size_t index);
size_t curves_count(void);
const struct curve *curve_at(size_t index);

/* The median of a figure over all rounds, or NAN. */
double figure(const struct bench *b, const char *who, const char *what);

double median(const double *values, unsigned int count);

/*
 * limits.c: the target of a row, and the guard beyond which a check fails
 */
struct limit {
	char row[48]; /* a pattern */
	bool ratio;   /* limits the ratio, else the value */
	bool most;
	double target; /* NAN for none */
	double guard;  /* NAN for none */
};

void limits_read(const char *path);
const struct limit *limit_of(const struct row *row, unsigned int nth);

/*
 * Find the rows that are beyond their guard. After a bench was measured again, find those that
 * still are. A busy machine may be slow for a while, so the best of all measurements counts.
 */
void limits_check(void);
void limits_check_again(const struct bench *b);

/* Number of rows beyond their guard in bench @b or, if it is NULL, in all benches. */
unsigned int limits_overstepped(const struct bench *b);

/* Print these rows. Returns their number. */
unsigned int limits_report(void);

/*
 * Output
 */
void table_head(void);
void table_rows(const struct bench *b);
int json_write(const char *path);
int page_write(const char *path);

/* machine.c */
struct machine {
	char kernel[80];
	char cpu[80];
	unsigned int cpus;
	double memory_gib;
};

const struct machine *machine(void);
double machine_load(void);

#endif
