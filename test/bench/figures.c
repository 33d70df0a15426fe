/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The measured figures, by round, and the rows that are computed from them
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

struct series {
	const struct bench *bench;
	char who[32];
	const char *what;
	unsigned int count;
	double value[ROUNDS_MAX];
};

#define SERIES_MAX 1024
#define ROWS_MAX   512
#define CURVES_MAX 256

static struct series series[SERIES_MAX];
static size_t series_count;
static struct row rows[ROWS_MAX];
static size_t row_count;
static struct curve curves[CURVES_MAX];
static size_t curve_count;

static struct series *find(const struct bench *b, const char *who, size_t len, const char *what)
{
	for (size_t i = 0; i < series_count; i++)
		if (series[i].bench == b && strlen(series[i].who) == len &&
		    !strncmp(series[i].who, who, len) && !strcmp(series[i].what, what))
			return &series[i];
	return NULL;
}

void note(const char *who, const char *what, double value)
{
	struct series *s = find(setting.bench, who, strlen(who), what);

	if (!s) {
		if (series_count == SERIES_MAX)
			die(who, "more figures than SERIES_MAX");
		s = &series[series_count++];
		s->bench = setting.bench;
		snprintf(s->who, sizeof(s->who), "%s", who);
		s->what = what;
	}
	if (s->count != setting.round)
		die(who, "a figure must be noted once in each round");
	s->value[s->count++] = value;
}

static int by_float(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return x < y ? -1 : x > y;
}

static struct curve *curve_of(const char *who)
{
	struct curve *c;

	for (size_t i = 0; i < curve_count; i++)
		if (curves[i].bench == setting.bench && !strcmp(curves[i].who, who))
			return &curves[i];
	if (curve_count == CURVES_MAX)
		die(who, "more curves than CURVES_MAX");
	c = &curves[curve_count++];
	c->bench = setting.bench;
	c->who = who;
	return c;
}

void note_waits(const char *who, float *us, size_t count)
{
	struct curve *c = curve_of(who);

	if (!count)
		die(who, "no waits");
	qsort(us, count, sizeof(us[0]), by_float);
	note(who, "p50", us[count / 2]);
	note(who, "p99", us[count * 99 / 100]);
	for (size_t i = 0; i < count; i++) {
		double at = (log10((double)us[i]) + 1) * PER_DECADE;

		c->bin[at < 0 ? 0 : at >= BINS ? BINS - 1 : (size_t)at]++;
	}
	c->count += count;
}

void figures_forget(const struct bench *b)
{
	for (size_t i = 0; i < series_count; i++)
		if (series[i].bench == b)
			series[i].count = 0;
	for (size_t i = 0; i < curve_count; i++)
		if (curves[i].bench == b)
			curves[i] = (struct curve){ .bench = b, .who = curves[i].who };
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

double median(const double *values, unsigned int count)
{
	double sorted[ROUNDS_MAX];

	memcpy(sorted, values, count * sizeof(values[0]));
	qsort(sorted, count, sizeof(sorted[0]), by_value);
	return count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

double figure(const struct bench *b, const char *who, const char *what)
{
	const struct series *s = find(b, who, strlen(who), what);

	return s && s->count ? median(s->value, s->count) : NAN;
}

/* The row of that name: that of an earlier measurement if there is one. */
static struct row *row_of(const char *name)
{
	struct row *row;

	for (size_t i = 0; i < row_count; i++)
		if (rows[i].bench == setting.bench && !strcmp(rows[i].name, name))
			return &rows[i];
	if (row_count == ROWS_MAX)
		die(name, "more rows than ROWS_MAX");
	row = &rows[row_count++];
	row->bench = setting.bench;
	row->name = strdup(name);
	if (!row->name)
		die(name, "no memory");
	return row;
}

void compare(const char *name, enum better better, const char *unit, const char *who,
	     const char *what, const char *bases)
{
	const struct series *value = find(setting.bench, who, strlen(who), what), *base = NULL;
	double ratio[ROUNDS_MAX];
	struct row *row;

	for (size_t len; *bases; bases += len + strspn(bases + len, " ")) {
		const struct series *s;

		len = strcspn(bases, " ");
		s = find(setting.bench, bases, len, what);
		if (!s)
			die(name, "its baseline was not measured");
		if (!base || (better == LESS) == (median(s->value, s->count) <
						  median(base->value, base->count)))
			base = s;
	}
	if (!value || !base || value->count != base->count)
		die(name, "was not measured");
	row = row_of(name);
	row->unit = unit;
	row->who = value->who;
	snprintf(row->base_name, sizeof(row->base_name), "%s", base->who);
	row->better = better;
	row->rounds = value->count;
	row->load = setting.load;
	for (unsigned int i = 0; i < row->rounds; i++) {
		row->value[i] = value->value[i];
		row->base[i] = base->value[i];
		ratio[i] = row->value[i] / row->base[i];
		if (!i || ratio[i] < row->ratio_min)
			row->ratio_min = ratio[i];
		if (!i || ratio[i] > row->ratio_max)
			row->ratio_max = ratio[i];
	}
	row->middle = median(row->value, row->rounds);
	row->base_middle = median(row->base, row->rounds);
	row->ratio = median(ratio, row->rounds);
}

size_t rows_count(void)
{
	return row_count;
}

const struct row *row_at(size_t index)
{
	return &rows[index];
}

size_t curves_count(void)
{
	return curve_count;
}

const struct curve *curve_at(size_t index)
{
	return &curves[index];
}
