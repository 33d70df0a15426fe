/* SPDX-License-Identifier: 0BSD */
/*
 * The results of the runs: for people on the terminal, for programs as JSON, and as a picture
 */
#ifndef REPORT_H
#define REPORT_H

#include "job.h"

/* Print a table, the distributions as bars, and a conclusion. */
void report_table(const struct job *job, const struct result *result, unsigned int count,
		  const struct setting *setting);

/* Return: 0 or a negative errno. */
int report_json(const char *path, const struct job *job, const struct result *result,
		unsigned int count, const struct setting *setting);
int report_svg(const char *path, const struct job *job, const struct result *result,
	       unsigned int count, const struct setting *setting);

/* Format the link of a job: "10 Gb/s, 100 us", or "none". */
void report_link(char *text, size_t size, const struct job *job, const struct setting *setting);

/*
 * Return how many times longer the median stall is with whole 2 MiB blocks than with 4 KiB pieces
 * of prepared shmem. This is the main comparison of the demo. Return 0 unless both have run.
 */
double report_ratio(const struct job *job, const struct result *result, unsigned int count,
		    bool link);

/* Format a size: "4 KiB", "2 MiB", "1 GiB". */
const char *report_bytes(uint64_t bytes);

#endif /* REPORT_H */
