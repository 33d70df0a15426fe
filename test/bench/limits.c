/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file of limits: its header describes the format
 */
#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define LIMITS_MAX 256
#define BEYOND_MAX 512

static struct limit limits[LIMITS_MAX];
static size_t limit_count;
static unsigned int checked; /* number of guards that were compared with rows */

struct beyond {
	const struct row *row;
	const struct limit *limit;
	double best; /* of all measurements */
};

static struct beyond beyond[BEYOND_MAX];
static size_t beyond_count;

static double number(const char *path, const char *text)
{
	char *end;
	double value;

	if (!strcmp(text, "-"))
		return NAN;
	value = strtod(text, &end);
	if (end == text || *end)
		die(path, text);
	return value;
}

void limits_read(const char *path)
{
	char line[256], figure[16], bound[8], target[24], guard[24];
	FILE *f = fopen(path, "re");
	struct limit *l;

	if (!f)
		die(path, strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "#\n")] = '\0';
		if (!line[strspn(line, " \t")])
			continue;
		if (limit_count == LIMITS_MAX)
			die(path, "too many lines");
		l = &limits[limit_count++];
		if (sscanf(line, "%47s %15s %7s %23s %23s", l->row, figure, bound, target, guard) !=
		    5)
			die(path, line);
		l->ratio = !strcmp(figure, "ratio");
		l->most = !strcmp(bound, "<=");
		if ((!l->ratio && strcmp(figure, "value") != 0) ||
		    (!l->most && strcmp(bound, ">=") != 0))
			die(path, line);
		l->target = number(path, target);
		l->guard = number(path, guard);
	}
	fclose(f);
}

const struct limit *limit_of(const struct row *row, unsigned int nth)
{
	for (size_t i = 0; i < limit_count; i++)
		if (!fnmatch(limits[i].row, row->name, 0) && !nth--)
			return &limits[i];
	return NULL;
}

static double is_now(const struct row *row, const struct limit *l)
{
	return l->ratio ? row->ratio : row->middle;
}

/* A figure that is not a number (NAN) is beyond its limit too. */
static bool within(const struct limit *l, double is)
{
	return l->most ? is <= l->guard : is >= l->guard;
}

void limits_check(void)
{
	const struct limit *l;

	for (size_t i = 0; i < rows_count(); i++) {
		const struct row *row = row_at(i);

		for (unsigned int nth = 0; (l = limit_of(row, nth)); nth++) {
			if (isnan(l->guard))
				continue;
			checked++;
			if (within(l, is_now(row, l)))
				continue;
			if (beyond_count == COUNT(beyond))
				die(row->name, "more rows beyond their limits than BEYOND_MAX");
			beyond[beyond_count++] = (struct beyond){ row, l, is_now(row, l) };
		}
	}
	if (!checked)
		die("--check", "no row that was measured has a limit");
}

void limits_check_again(const struct bench *b)
{
	size_t left = 0;

	for (size_t i = 0; i < beyond_count; i++) {
		struct beyond one = beyond[i];
		double is = is_now(one.row, one.limit);

		if (one.row->bench == b && within(one.limit, is))
			continue;
		if (isnan(one.best) || (one.limit->most ? is < one.best : is > one.best))
			one.best = is;
		beyond[left++] = one;
	}
	beyond_count = left;
}

unsigned int limits_overstepped(const struct bench *b)
{
	unsigned int n = 0;

	for (size_t i = 0; i < beyond_count; i++)
		n += !b || beyond[i].row->bench == b;
	return n;
}

unsigned int limits_report(void)
{
	for (size_t i = 0; i < beyond_count; i++) {
		const struct limit *l = beyond[i].limit;

		printf("REGRESSION %s: %s %.4g, must be %s %.4g\n", beyond[i].row->name,
		       l->ratio ? "ratio" : "value", beyond[i].best,
		       l->most ? "at most" : "at least", l->guard);
	}
	printf("%u limits checked, %u overstepped\n", checked, limits_overstepped(NULL));
	return limits_overstepped(NULL);
}
