/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The report for people: one self-contained file
 */
#include <errno.h>
#include <math.h>
#include <time.h>

#include "page.h"

static const char head[] =
	"<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\n"
	"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
	"<title>libhgm: what it costs</title>\n"
	"<style>\n"
	":root { --bg: #fff; --ink: #1b1f24; --soft: #5b6570; --grid: #e3e7eb; --good: #0b7f86;\n"
	"  --bad: #c8502c; --c0: #0b7f86; --c1: #7a8590; --c2: #b0812c; --c3: #6d4fa3;\n"
	"  --c4: #c8502c; --c5: #d4387a; --c6: #3a6fd8; --c7: #2f9e44 }\n"
	"@media (prefers-color-scheme: dark) { :root { --bg: #14181d; --ink: #e8ecf0;\n"
	"  --soft: #9aa5b1; --grid: #2b323a; --good: #3cc0c6; --bad: #f2865f; --c0: #3cc0c6;\n"
	"  --c1: #9aa5b1; --c2: #d9ab56; --c3: #a98be0; --c4: #f2865f; --c5: #f06fa4;\n"
	"  --c6: #7ba4f5; --c7: #6fcf83 } }\n"
	"body { background: var(--bg); color: var(--ink); max-width: 1040px; margin: 24px auto;\n"
	"  padding: 0 16px; font: 15px/1.5 system-ui, 'DejaVu Sans', sans-serif }\n"
	"svg { width: 100%; height: auto; margin: 8px 0 20px }\n"
	".two { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr));\n"
	"  gap: 0 16px }\n"
	"text { fill: var(--ink); font-size: 13px } .title { font-size: 14px; font-weight: 600 }\n"
	".soft { fill: var(--soft); font-size: 12px } .right { text-anchor: end }\n"
	".mid { text-anchor: middle } .grid { stroke: var(--grid) } .base { stroke: var(--soft) }\n"
	".target { stroke: var(--ink); stroke-width: 2 } .good { fill: var(--good) }\n"
	".bad { fill: var(--bad) } .line { fill: none; stroke-width: 2 }\n"
	".c0 { stroke: var(--c0) } .c1 { stroke: var(--c1) } .c2 { stroke: var(--c2) }\n"
	".c3 { stroke: var(--c3) } .c4 { stroke: var(--c4) } .c5 { stroke: var(--c5) }\n"
	".c6 { stroke: var(--c6) } .c7 { stroke: var(--c7) } .scroll { overflow-x: auto }\n"
	"table { border-collapse: collapse; font-size: 13px; white-space: nowrap }\n"
	"td, th { padding: 3px 10px; text-align: right; border-bottom: 1px solid var(--grid) }\n"
	"td:first-child, th:first-child { text-align: left } .missed { color: var(--bad) }\n"
	"</style>\n";

static void write_targets(FILE *f, const struct row *r)
{
	const struct limit *l;

	fputs("<td>", f);
	for (unsigned int nth = 0; (l = limit_of(r, nth)); nth++) {
		double is = l->ratio ? r->ratio : r->middle;
		bool met = l->most ? is <= l->target : is >= l->target;

		if (!isnan(l->target))
			fprintf(f, "<span class=\"%s\">%s%s %.3g</span> ", met ? "met" : "missed",
				l->ratio ? "" : "value ", l->most ? "&le;" : "&ge;", l->target);
	}
	fputs("</td>", f);
}

static void write_table(FILE *f)
{
	fputs("<h2>All rows</h2>\n<div class=\"scroll\"><table><tr><th>row<th>value<th>unit"
	      "<th>baseline<th>which is<th>ratio<th>least<th>most<th>load<th>target</tr>\n",
	      f);
	for (size_t i = 0; i < rows_count(); i++) {
		const struct row *r = row_at(i);

		fprintf(f, "<tr><td>%s<td>%.4g<td>%s<td>%.4g<td>%s<td>%.3g<td>%.3g<td>%.3g<td>%.2f",
			r->name, r->middle, r->unit, r->base_middle, r->base_name, r->ratio,
			r->ratio_min, r->ratio_max, r->load);
		write_targets(f, r);
		fputs("</tr>\n", f);
	}
	fputs("</table></div>\n", f);
}

static void write_curves(FILE *f)
{
	const struct bench *last = NULL;

	fputs("<h2>How long waits are</h2>\n<p>Each line falls from 1: how many waits were longer "
	      "than the time below. Further left is better.</p>\n<div class=\"two\">\n",
	      f);
	for (size_t i = 0; i < curves_count(); i++) {
		if (curve_at(i)->bench == last)
			continue;
		last = curve_at(i)->bench;
		plot_curves(f, last);
	}
	fputs("</div>\n", f);
}

int page_write(const char *path)
{
	static const char *const order[] = { "sequential", "shuffled", "zipf" };
	const struct machine *m = machine();
	time_t now = time(NULL);
	FILE *f = fopen(path, "we");
	char when[40];
	struct tm tm;
	bool failed;

	if (!f)
		return -errno;
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M", gmtime_r(&now, &tm));
	fputs(head, f);
	fprintf(f,
		"<h1>What libhgm costs</h1>\n<p>%s, %u x %s, %.0f GiB; %s UTC; %s, %u rounds. "
		"Contestants took turns; figures are medians over rounds, a ratio is the median of "
		"the rounds' ratios of value to baseline. Each row tells the machine's load when "
		"its bench began: what was measured under load is to be read with care. Models "
		"show a way of doing it, and are no measurement of any product.</p>\n",
		m->kernel, m->cpus, m->cpu, m->memory_gib, when, setting.quick ? "quick" : "full",
		setting.rounds);
	plot_ratios(f);
	fputs("<div class=\"two\">\n", f);
	for (size_t i = 0; i < COUNT(order); i++)
		plot_touchers(f, order[i]);
	fputs("</div>\n", f);
	write_curves(f);
	write_table(f);
	failed = ferror(f);
	return fclose(f) || failed ? -EIO : 0;
}
