/* SPDX-License-Identifier: 0BSD */
/*
 * How long the guest had to wait: the distribution of its stalls
 *
 * The guest times the first touch of each page with its own clock, and a second touch when all
 * pages are warm. A stall is the time of a first touch beyond the median warm touch, if it is more
 * than STALLS_LEAST_US.
 *
 * Interrupts of the host also delay touches, including warm ones: about one in 1000, by some ten
 * microseconds. A hundred of those would distort the distribution of a hundred true stalls. So the
 * number of stalls is limited to the number of faults, and only the longest are counted.
 */
#ifndef STALLS_H
#define STALLS_H

#include <stddef.h>
#include <stdint.h>

#include "walk.h"

#define STALLS_LEAST_US 5.0

/**
 * struct stalls - a distribution
 * @us:      each stall in microseconds, sorted
 * @count:   number of stalls
 * @warm_us: the median warm touch
 */
struct stalls {
	double *us;
	size_t count;
	double warm_us;
};

/* Collect the stalls of a finished walk. Return: 0 or -ENOMEM. */
int stalls_collect(struct stalls *s, const struct walk *w, uint64_t faults);
void stalls_free(struct stalls *s);

/* Sort the stalls, and keep the @longest longest of them. */
void stalls_keep(struct stalls *s, uint64_t longest);

/* Return the value that @permille of all stalls do not exceed, or 0 if there are none. */
double stalls_quantile(const struct stalls *s, unsigned int permille);

double stalls_total_us(const struct stalls *s);

/* Count into @bins logarithmic bins, @per_decade per decade. The first starts at @from_us. */
void stalls_bins(const struct stalls *s, double from_us, unsigned int per_decade, unsigned int *bin,
		 unsigned int bins);

/* Write a time with its unit, at most 8 characters. */
void stalls_format(char *text, size_t size, double us);

#endif /* STALLS_H */
