/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file of limits: its head describes it
 */
#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define LIMITS_MAX 256

static struct limit limits[LIMITS_MAX];
static size_t limit_count;

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

unsigned int limits_check(void)
{
	unsigned int checked = 0, beyond = 0, nth;
	const struct limit *l;

	for (size_t i = 0; i < rows_count(); i++) {
		const struct row *row = row_at(i);

		for (nth = 0; (l = limit_of(row, nth)); nth++) {
			double is = l->ratio ? row->ratio : row->middle;

			if (isnan(l->guard))
				continue;
			checked++;
			/* A figure that is no number is beyond its limit, too. */
			if (l->most ? is <= l->guard : is >= l->guard)
				continue;
			beyond++;
			printf("REGRESSION %s: %s %.4g, must be %s %.4g\n", row->name,
			       l->ratio ? "ratio" : "value", is, l->most ? "at most" : "at least",
			       l->guard);
		}
	}
	if (!checked)
		die("--check", "no row that was measured has a limit");
	printf("%u limits checked, %u overstepped\n", checked, beyond);
	return beyond;
}
