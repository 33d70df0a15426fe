/* SPDX-License-Identifier: 0BSD */
/*
 * What the runs came to: for people on the terminal, for programs as JSON, and as a picture
 */
#ifndef REPORT_H
#define REPORT_H

#include "job.h"

/* A table, the distributions as bars, and what to make of it. */
void report_table(const struct job *job, const struct result *result, unsigned int count,
		  const struct setting *setting);

/* Return: 0 or a negative errno. */
int report_json(const char *path, const struct job *job, const struct result *result,
		unsigned int count, const struct setting *setting);
int report_svg(const char *path, const struct job *job, const struct result *result,
	       unsigned int count, const struct setting *setting);

/* "10 Gb/s, 100 us", or "none" */
void report_link(char *text, size_t size, const struct job *job, const struct setting *setting);

/*
 * How many times longer the median stall is with whole 2 MiB blocks than in 4 KiB pieces of
 * prepared shmem: the comparison that it is all about. 0 if not both have run.
 */
double report_ratio(const struct job *job, const struct result *result, unsigned int count,
		    bool link);

/* "4 KiB", "2 MiB", "1 GiB" */
const char *report_bytes(uint64_t bytes);

#endif /* REPORT_H */
