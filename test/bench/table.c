/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Output of the rows as text
 */
#include <math.h>
#include <stdlib.h>

#include "bench.h"

static const char *verdict(const struct row *row, char *text, size_t size)
{
	const struct limit *l;
	int used = 0;

	text[0] = '\0';
	for (unsigned int nth = 0; (l = limit_of(row, nth)); nth++) {
		double is = l->ratio ? row->ratio : row->middle;

		if (isnan(l->target) || used >= (int)size)
			continue;
		used += snprintf(text + used, size - (size_t)used, "  %s %s%s %.3g",
				 (l->most ? is <= l->target : is >= l->target) ? "met" : "MISSED",
				 l->ratio ? "" : "value ", l->most ? "<=" : ">=", l->target);
	}
	return text;
}

void table_head(void)
{
	const struct machine *m = machine();

	printf("%s, %u x %s, %.0f GiB; %s, %u rounds; load %.2f\n", m->kernel, m->cpus, m->cpu,
	       m->memory_gib, setting.quick ? "quick" : "full", setting.rounds, machine_load());
	printf("%-30s %10s %-8s %10s %-18s %7s %16s %5s  %s\n", "ROW", "VALUE", "UNIT", "BASELINE",
	       "WHICH IS", "RATIO", "(MIN .. MAX)", "LOAD", "TARGET");
}

void table_rows(const struct bench *b)
{
	char text[96];

	for (size_t i = 0; i < rows_count(); i++) {
		const struct row *r = row_at(i);

		if (r->bench != b)
			continue;
		printf("%-30s %10.4g %-8s %10.4g %-18s %7.3g %7.3g .. %-6.3g %5.2f%s\n", r->name,
		       r->middle, r->unit, r->base_middle, r->base_name, r->ratio, r->ratio_min,
		       r->ratio_max, r->load, verdict(r, text, sizeof(text)));
	}
}
