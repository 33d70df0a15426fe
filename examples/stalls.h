/* SPDX-License-Identifier: 0BSD */
/*
 * How long the guest was kept waiting: the distribution of its stalls
 *
 * The guest times the first touch of each page by its own clock, and once more when all is warm. A
 * stall is what a first touch took beyond the median warm one, if that is more than
 * STALLS_LEAST_US.
 *
 * Interrupts of the host delay touches too, warm ones as well: of 1000 about one, by some ten
 * microseconds. Next to a hundred true stalls a hundred of those would count for much. So no more
 * stalls are counted than there were faults: the longest ones.
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
 * @count:   how many
 * @warm_us: the median warm touch
 */
struct stalls {
	double *us;
	size_t count;
	double warm_us;
};

/* From a finished walk. Return: 0 or -ENOMEM. */
int stalls_collect(struct stalls *s, const struct walk *w, uint64_t faults);
void stalls_free(struct stalls *s);

/* Sort them, and keep so many of the longest. */
void stalls_keep(struct stalls *s, uint64_t longest);

/* The value that @permille of all do not exceed; 0 if there are none. */
double stalls_quantile(const struct stalls *s, unsigned int permille);

double stalls_total_us(const struct stalls *s);

/* Count into @bins logarithmic bins, @per_decade to a decade, the first one from @from_us on. */
void stalls_bins(const struct stalls *s, double from_us, unsigned int per_decade, unsigned int *bin,
		 unsigned int bins);

/* Write a time with its unit, 8 characters at most. */
void stalls_format(char *text, size_t size, double us);

#endif /* STALLS_H */
