/* SPDX-License-Identifier: 0BSD */
/*
 * The report on the terminal: see report.h
 */
#include <langinfo.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "report.h"

/* Bars: from 1 us to 10 s, eight per decade. */
#define DECADES	   7
#define PER_DECADE 8
#define BARS	   (DECADES * PER_DECADE)

void report_link(char *text, size_t size, const struct job *job, const struct setting *setting)
{
	if (job->link)
		snprintf(text, size, "%g Gb/s, %g us", setting->link.gbps, setting->link.rtt_us);
	else
		snprintf(text, size, "none");
}

const char *report_bytes(uint64_t bytes)
{
	switch (bytes) {
	case UINT64_C(4) << 10:
		return "4 KiB";
	case UINT64_C(2) << 20:
		return "2 MiB";
	case UINT64_C(1) << 30:
		return "1 GiB";
	default:
		return "other";
	}
}

static void row(const struct job *job, const struct result *r)
{
	char p50[16], p99[16], max[16], complete[16], huge[24];
	const struct stalls *s = &r->stalls;

	if (!s->us) {
		printf("%-15s %-5s %s: %s\n", job->backing, job->link ? "link" : "file",
		       r->outcome == JOB_SKIPPED ? "skipped" : "FAILED", r->why);
		return;
	}
	stalls_format(p50, sizeof(p50), stalls_quantile(s, 500));
	stalls_format(p99, sizeof(p99), stalls_quantile(s, 990));
	stalls_format(max, sizeof(max), stalls_quantile(s, 1000));
	stalls_format(complete, sizeof(complete), r->complete_ms * 1e3);
	snprintf(huge, sizeof(huge), "%llu of %llu", (unsigned long long)(r->huge_bytes / r->block),
		 (unsigned long long)r->blocks);
	printf("%-15s %-5s %-6s %7llu %9s %9s %9s %9s %11s  %s\n", job->backing,
	       job->link ? "link" : "file", report_bytes(r->map), (unsigned long long)r->faults,
	       p50, p99, max, complete, huge, r->checksum_ok ? "right" : "WRONG");
	if (r->outcome == JOB_FAILED)
		printf("    FAILED: %s\n", r->why);
}

/* Print the runs with another length than requested, one line for each kind of memory. */
static void lengths(const struct job *job, const struct result *result, unsigned int count,
		    const struct setting *setting)
{
	const char *told = "";
	unsigned int i;

	for (i = 0; i < count; i++) {
		if (!result[i].stalls.us || result[i].length == setting->length ||
		    !strcmp(job[i].json, told))
			continue;
		printf("%s: %llu MiB, not %llu: whole blocks only\n", job[i].backing,
		       (unsigned long long)result[i].length >> 20,
		       (unsigned long long)setting->length >> 20);
		told = job[i].json;
	}
}

static void bars(const struct result *r)
{
	static const char *const block[] = { " ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
	static const char ascii[] = " .:-=+*#@";
	bool utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
	unsigned int bin[BARS], highest = 1, i, level;

	stalls_bins(&r->stalls, 1, PER_DECADE, bin, BARS);
	for (i = 0; i < BARS; i++)
		highest = bin[i] > highest ? bin[i] : highest;
	for (i = 0; i < BARS; i++) {
		/* Scale by the square root, so that rare stalls are visible. */
		level = bin[i] ? 1 + 7 * sqrt((double)bin[i] / highest) : 0;
		if (utf8)
			fputs(block[level], stdout);
		else
			putchar(ascii[level]);
	}
}

static void distributions(const struct job *job, const struct result *result, unsigned int count)
{
	static const char *const decade[DECADES] = { "1us",  "10us",  "100us", "1ms",
						     "10ms", "100ms", "1s" };
	unsigned int i;

	printf("\nHow long the stalls were (each row by itself; height = square root of the "
	       "count)\n");
	for (i = 0; i < count; i++) {
		if (!result[i].stalls.us)
			continue;
		printf("%-15s %-5s |", job[i].backing, job[i].link ? "link" : "file");
		bars(&result[i]);
		printf("| maps %s\n", report_bytes(result[i].map));
	}
	printf("%-22s", "");
	for (i = 0; i < DECADES; i++)
		printf("|%-*s", PER_DECADE - 1, decade[i]);
	printf("\n");
}

static double median_of(const struct job *job, const struct result *result, unsigned int count,
			const char *backing, bool link)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		if (job[i].link == link && !strncmp(job[i].name, backing, strlen(backing)))
			return stalls_quantile(&result[i].stalls, 500);
	}
	return 0;
}

/* Pairs of runs: one serves whole blocks, the other serves pages of blocks of the same size. */
static const struct pair {
	const char *whole, *pieces, *block;
} pairs[] = {
	{ "hugetlb-2m.", "shmem.", "2 MiB" },
	{ "hugetlb-2m.", "hgm-2m.", "2 MiB" },
	{ "hugetlb-1g.", "hgm-1g.", "1 GiB" },
};

static double ratio_of(const struct job *job, const struct result *result, unsigned int count,
		       const struct pair *pair, bool link)
{
	double whole = median_of(job, result, count, pair->whole, link);
	double pieces = median_of(job, result, count, pair->pieces, link);

	return pieces > 0 ? whole / pieces : 0;
}

double report_ratio(const struct job *job, const struct result *result, unsigned int count,
		    bool link)
{
	return ratio_of(job, result, count, &pairs[0], link);
}

static void compare(const struct job *job, const struct result *result, unsigned int count,
		    const struct pair *pair, bool link)
{
	double ratio = ratio_of(job, result, count, pair, link);
	char whole[16], pieces[16];

	if (ratio <= 0)
		return;
	stalls_format(whole, sizeof(whole), median_of(job, result, count, pair->whole, link));
	stalls_format(pieces, sizeof(pieces), median_of(job, result, count, pair->pieces, link));
	printf("%s the median stall is %s with whole %s blocks and %s in 4 KiB pieces%s: %.1f "
	       "times shorter\n",
	       link ? "Over the link" : "From the file", whole, pair->block, pieces,
	       pair->pieces[0] == 'h' ? " (HGM)" : "", ratio);
}

void report_table(const struct job *job, const struct result *result, unsigned int count,
		  const struct setting *setting)
{
	double warm = 0;
	unsigned int i;

	if (setting->model)
		printf("\nOn the model '%s' of a kernel, over shmem memory of this one:",
		       setting->model);
	printf("\n%-15s %-5s %-6s %7s %9s %9s %9s %9s %11s  %s\n", "BACKING", "FROM", "MAPS",
	       "FAULTS", "STALL P50", "P99", "MAX", "COMPLETE", "HUGE BLOCKS", "CHECKSUM");
	for (i = 0; i < count; i++) {
		row(&job[i], &result[i]);
		if (result[i].stalls.warm_us > warm)
			warm = result[i].stalls.warm_us;
	}
	lengths(job, result, count, setting);
	if (warm <= 0)
		return;
	printf("\nThe link has %g Gb/s and a round trip of %g us. The file is in the page cache.\n"
	       "A stall is what the first touch of a page took, by the guest's own clock, beyond a "
	       "warm "
	       "touch\n(here up to %.1f us), if that is more than %g us. Complete: everything "
	       "present "
	       "and huge, counted\nfrom the guest's start. Checksum: what the guest read in each "
	       "pass, "
	       "and then each byte of memory.\n",
	       setting->link.gbps, setting->link.rtt_us, warm, STALLS_LEAST_US);
	distributions(job, result, count);
	printf("\n");
	for (i = 0; i < sizeof(pairs) / sizeof(pairs[0]) * 2; i++)
		compare(job, result, count, &pairs[i / 2], i % 2);
}
