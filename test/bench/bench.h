/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A bench measures its contestants in turn, once a round; when all rounds are done its rows put one
 * contestant's figure beside another's.
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
	const char *what; /* for --list and the page */
	bool quick;	  /* part of --quick */
	void (*round)(const struct bench *b);
	void (*rows)(const struct bench *b);
	const void *arg;
};

/* How the program was asked to measure, and where it is. */
struct setting {
	bool quick;
	unsigned int rounds;
	unsigned int round;
	const struct bench *bench;
	double load; /* of the machine, when the bench began */
};

extern struct setting setting;

/* Each ends with a bench without a name. */
extern const struct bench touch_benches[];
extern const struct bench fill_benches[];
extern const struct bench restore_benches[];
extern const struct bench demand_benches[];
extern const struct bench link_benches[];
extern const struct bench map_benches[];
extern const struct bench idle_benches[];
extern const struct bench access_benches[];
extern const struct bench around_benches[];
extern const struct bench snapshot_benches[];

void die(const char *what, const char *why) __attribute__((noreturn));

/*
 * Of @count contestants the number of the @nth in this round: each is the first in turn, and comes
 * behind one neighbour in even rounds, behind the other in odd ones.
 */
static inline size_t in_turn(size_t nth, size_t count)
{
	return (setting.round + (setting.round % 2 ? count - nth : nth)) % count;
}

/* Nothing of this bench can be measured here: the round returns after it. */
void skip(const char *why);

/*
 * figures.c
 */

/* What contestant @who did in this round. */
void note(const char *who, const char *what, double value);

/* The same as figures "p50" and "p99", and as a curve of the page. Sorts. */
void note_waits(const char *who, float *us, size_t count);

enum better {
	LESS,
	MORE
};

/* Of a bench that is measured again. */
void figures_forget(const struct bench *b);

/*
 * Row @name: figure @what of @who beside that of the best of @bases (names with a space between
 * them).
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
	double value[ROUNDS_MAX]; /* by round */
	double base[ROUNDS_MAX];
	double middle; /* medians */
	double base_middle;
	double ratio; /* median of the rounds' ratios, value to baseline */
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

/* A figure's median over all rounds, or NAN. */
double figure(const struct bench *b, const char *who, const char *what);

double median(const double *values, unsigned int count);

/*
 * limits.c: what a row shall be, and where a check fails
 */
struct limit {
	char row[48]; /* a pattern */
	bool ratio;   /* of the ratio, else of the value */
	bool most;
	double target; /* NAN for none */
	double guard;  /* NAN for none */
};

void limits_read(const char *path);
const struct limit *limit_of(const struct row *row, unsigned int nth);

/*
 * Which rows are beyond their guard; after a bench was measured again, which of its rows still are.
 * A busy machine may be slow for a while: what counts is the best of all measurements.
 */
void limits_check(void);
void limits_check_again(const struct bench *b);

/* How many are, of bench @b or, if it is NULL, of all. */
unsigned int limits_overstepped(const struct bench *b);

/* Says which, and returns how many. */
unsigned int limits_report(void);

/*
 * What is written
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
