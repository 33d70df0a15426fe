/* SPDX-License-Identifier: 0BSD */
/*
 * The distribution of stalls: see stalls.h
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "stalls.h"

static int by_ticks(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static int by_time(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static uint32_t median(const struct walk_visit *visit, size_t count, uint32_t *room)
{
	size_t i;

	for (i = 0; i < count; i++)
		room[i] = visit[i].ticks;
	qsort(room, count, sizeof(*room), by_ticks);
	return room[count / 2];
}

int stalls_collect(struct stalls *s, const struct walk *w, uint64_t faults)
{
	size_t all = w->length / GUEST_PAGE, count, i;
	uint32_t *room = malloc(all * sizeof(*room)), warm;
	const struct walk_visit *visit;
	double us;
	int cpu;

	*s = (struct stalls){ .us = malloc(all * sizeof(*s->us)) };
	if (!room || !s->us) {
		free(room);
		stalls_free(s);
		return -ENOMEM;
	}
	for (cpu = 0; cpu < GUEST_CPUS; cpu++) {
		visit = walk_visits(w, cpu, PASS_WARM, &count);
		warm = median(visit, count, room);
		s->warm_us += warm / w->ticks_per_us / GUEST_CPUS;
		visit = walk_visits(w, cpu, PASS_COLD, &count);
		for (i = 0; i < count; i++) {
			us = ((double)visit[i].ticks - warm) / w->ticks_per_us;
			if (us > STALLS_LEAST_US)
				s->us[s->count++] = us;
		}
	}
	free(room);
	stalls_keep(s, faults);
	return 0;
}

void stalls_keep(struct stalls *s, uint64_t longest)
{
	size_t i;

	qsort(s->us, s->count, sizeof(*s->us), by_time);
	if (s->count > longest) {
		for (i = 0; i < longest; i++)
			s->us[i] = s->us[s->count - longest + i];
		s->count = longest;
	}
}

void stalls_free(struct stalls *s)
{
	free(s->us);
	*s = (struct stalls){ 0 };
}

double stalls_quantile(const struct stalls *s, unsigned int permille)
{
	size_t rank = (s->count * permille + 999) / 1000;

	if (!s->count)
		return 0;
	return s->us[rank ? rank - 1 : 0];
}

double stalls_total_us(const struct stalls *s)
{
	double sum = 0;
	size_t i;

	for (i = 0; i < s->count; i++)
		sum += s->us[i];
	return sum;
}

void stalls_bins(const struct stalls *s, double from_us, unsigned int per_decade, unsigned int *bin,
		 unsigned int bins)
{
	size_t i;
	int at;

	for (i = 0; i < bins; i++)
		bin[i] = 0;
	for (i = 0; i < s->count; i++) {
		at = floor(log10(s->us[i] / from_us) * per_decade);
		if (at < 0)
			at = 0;
		if (at >= (int)bins)
			at = bins - 1;
		bin[at]++;
	}
}

void stalls_format(char *text, size_t size, double us)
{
	if (us <= 0)
		snprintf(text, size, "-");
	else if (us < 99.5)
		snprintf(text, size, "%.1f us", us);
	else if (us < 999.5)
		snprintf(text, size, "%.0f us", us);
	else if (us < 99.5e3)
		snprintf(text, size, "%.2f ms", us / 1e3);
	else if (us < 999.5e3)
		snprintf(text, size, "%.0f ms", us / 1e3);
	else
		snprintf(text, size, "%.2f s", us / 1e6);
}
