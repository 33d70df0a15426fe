/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench - what libhgm costs, always compared with a baseline that is measured in the same run
 *
 *	bench [--quick] [--only NAME]... [--rounds N] [--limits FILE [--check]] [--json FILE]
 *	      [--page FILE]
 *	bench --list
 *
 * Contestants take turns in each round. Figures are medians over rounds. The memory contents are
 * verified in each round. With --check, benches that are beyond a guard of the limits are measured
 * again, three times at most. The exit status says whether one of them stays beyond it.
 */
#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define MEASURED_MOST 3 /* times, with --check */

struct setting setting = { .rounds = 5 };

static const struct bench *const all[] = {
	touch_benches,	fill_benches,	  fill_source_benches, restore_benches, guest_benches,
	demand_benches, link_benches,	  map_benches,	       around_benches,	access_benches,
	idle_benches,	snapshot_benches, discard_benches,
};

static const char *only[32];
static unsigned int only_count;
static const char *skipped;

void die(const char *what, const char *why)
{
	fprintf(stderr, "bench: %s: %s\n", what, why);
	exit(2);
}

void skip(const char *why)
{
	skipped = why;
}

/* Is the bench selected by its name, by a pattern, or by the name of one of its rows? */
static bool wanted(const struct bench *b)
{
	size_t len = strlen(b->name);
	unsigned int i;

	if (!only_count)
		return b->quick || !setting.quick;
	for (i = 0; i < only_count; i++)
		if (!fnmatch(only[i], b->name, 0) ||
		    (!strncmp(only[i], b->name, len) && only[i][len] == '.'))
			return true;
	return false;
}

static void measure(const struct bench *b)
{
	skipped = NULL;
	setting.bench = b;
	setting.load = machine_load();
	figures_forget(b);
	for (setting.round = 0; setting.round < setting.rounds; setting.round++) {
		b->round(b);
		if (skipped) {
			printf("%-30s not measured: %s\n", b->name, skipped);
			return;
		}
	}
	b->rows(b);
	table_rows(b);
}

/* Measure benches beyond their limits again. Only what stays beyond them is a regression. */
static bool regressed(void)
{
	limits_check();
	for (unsigned int times = 1; times < MEASURED_MOST; times++) {
		for (size_t i = 0; i < COUNT(all); i++) {
			for (const struct bench *b = all[i]; b->name; b++) {
				if (!limits_overstepped(b))
					continue;
				printf("beyond its limits, again: %s\n", b->name);
				measure(b);
				limits_check_again(b);
			}
		}
	}
	return limits_report();
}

static int usage(FILE *to)
{
	fprintf(to,
		"usage: bench [--quick] [--only NAME]... [--rounds 1..%d] [--json FILE]\n"
		"             [--page FILE] [--limits FILE [--check]]\n"
		"       bench --list\n",
		ROUNDS_MAX);
	return to == stdout ? 0 : 2;
}

static void list(void)
{
	size_t i;

	for (i = 0; i < COUNT(all); i++)
		for (const struct bench *b = all[i]; b->name; b++)
			printf("%-22s %s%s\n", b->name, b->what, b->quick ? " (quick)" : "");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ "only", required_argument, NULL, 'o' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "json", required_argument, NULL, 'j' },
		{ "page", required_argument, NULL, 'p' },
		{ "limits", required_argument, NULL, 'l' },
		{ "check", no_argument, NULL, 'c' },
		{ "list", no_argument, NULL, 'L' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	const char *json = NULL, *page = NULL, *limits = NULL;
	unsigned int rounds = 0;
	bool check = false, beyond;
	size_t i;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'q':
			setting.quick = true;
			break;
		case 'o':
			if (only_count == COUNT(only))
				return usage(stderr);
			only[only_count++] = optarg;
			break;
		case 'r':
			rounds = (unsigned int)strtoul(optarg, NULL, 10);
			if (rounds < 1 || rounds > ROUNDS_MAX)
				return usage(stderr);
			break;
		case 'j':
			json = optarg;
			break;
		case 'p':
			page = optarg;
			break;
		case 'l':
			limits = optarg;
			break;
		case 'c':
			check = true;
			break;
		case 'L':
			list();
			return 0;
		case 'h':
			return usage(stdout);
		default:
			return usage(stderr);
		}
	}
	if (optind < argc || (check && !limits))
		return usage(stderr);
	setting.rounds = rounds ? rounds : setting.quick ? 3 : 5;
	if (limits)
		limits_read(limits);

	setlinebuf(stdout);
	table_head();
	for (i = 0; i < COUNT(all); i++)
		for (const struct bench *b = all[i]; b->name; b++)
			if (wanted(b))
				measure(b);
	if (!rows_count())
		die("nothing was measured", only_count ? "see --list for names" : "see above");

	beyond = check && regressed();
	if (json && json_write(json))
		die(json, strerror(errno));
	if (page && page_write(page))
		die(page, strerror(errno));
	if (page)
		printf("the page: %s\n", page);
	return beyond;
}
