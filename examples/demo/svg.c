/* SPDX-License-Identifier: 0BSD */
/*
 * The report as a picture: one row of bars per run, all on one logarithmic axis of time
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "report.h"

/* Dimensions of the picture, in its own units. */
#define WIDTH	   960
#define PLOT_LEFT  190
#define PLOT_RIGHT 680
#define TOP	   112
#define ROW	   62
#define BAR_HEIGHT 40
#define PANEL_GAP  44
#define AXIS	   34

#define PER_DECADE 12
#define MAX_BINS   (PER_DECADE * 8)

struct axis {
	int from; /* powers of ten, in microseconds */
	int to;
};

static double place(const struct axis *axis, double us)
{
	double at = (log10(us) - axis->from) / (axis->to - axis->from);

	at = at < 0 ? 0 : at > 1 ? 1 : at;
	return PLOT_LEFT + at * (PLOT_RIGHT - PLOT_LEFT);
}

static void style(FILE *f)
{
	fputs("<style>\n"
	      "  svg { --bg: #ffffff; --ink: #1b1f24; --soft: #5b6570; --grid: #e3e7eb;\n"
	      "        --small: #0b7f86; --whole: #c8502c; }\n"
	      "  @media (prefers-color-scheme: dark) {\n"
	      "    svg { --bg: #14181d; --ink: #e8ecf0; --soft: #9aa5b1; --grid: #2b323a;\n"
	      "          --small: #3cc0c6; --whole: #f2865f; }\n"
	      "  }\n"
	      "  text { font-family: system-ui, 'DejaVu Sans', sans-serif; fill: #1b1f24;\n"
	      "         fill: var(--ink); font-size: 13px }\n"
	      "  .title { font-size: 21px; font-weight: 600 }\n"
	      "  .panel { font-size: 15px; font-weight: 600 }\n"
	      "  .name { font-weight: 600 }\n"
	      "  .soft { fill: #5b6570; fill: var(--soft); font-size: 12px }\n"
	      "  .right { text-anchor: end }\n"
	      "  .mid { text-anchor: middle }\n"
	      "  .grid { stroke: #e3e7eb; stroke: var(--grid) }\n"
	      "  .base { stroke: #5b6570; stroke: var(--soft) }\n"
	      "  .bg { fill: #ffffff; fill: var(--bg) }\n"
	      "  .small { fill: #0b7f86; fill: var(--small) }\n"
	      "  .whole { fill: #c8502c; fill: var(--whole) }\n"
	      "  .median { stroke: #1b1f24; stroke: var(--ink); stroke-width: 2 }\n"
	      "</style>\n",
	      f);
}

static void label(FILE *f, const char *class, double x, double y, const char *text)
{
	fprintf(f, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">", class, x, y);
	for (; *text; text++) {
		switch (*text) {
		case ' ':
			fputc(' ', f);
			if (!strncmp(text, " us", 3) && !isalpha((unsigned char)text[3])) {
				fputs("µs", f);
				text += 2;
			}
			break;
		case '<':
			fputs("&lt;", f);
			break;
		case '&':
			fputs("&amp;", f);
			break;
		default:
			fputc(*text, f);
		}
	}
	fputs("</text>\n", f);
}

static void row(FILE *f, const struct job *job, const struct result *r,
		const struct setting *setting, const struct axis *axis, double base)
{
	unsigned int bins = (axis->to - axis->from) * PER_DECADE, bin[MAX_BINS], highest = 1, i;
	double step = (double)(PLOT_RIGHT - PLOT_LEFT) / bins, height, median;
	char text[96], p50[16], p99[16], max[16];

	label(f, "name right", PLOT_LEFT - 16, base - 18, job->backing);
	if (r->length == setting->length)
		snprintf(text, sizeof(text), "a fault waits for %s", report_bytes(r->map));
	else
		snprintf(text, sizeof(text), "%llu MiB; waits for %s",
			 (unsigned long long)r->length >> 20, report_bytes(r->map));
	label(f, "soft right", PLOT_LEFT - 16, base - 2, text);

	stalls_bins(&r->stalls, pow(10, axis->from), PER_DECADE, bin, bins);
	for (i = 0; i < bins; i++)
		highest = bin[i] > highest ? bin[i] : highest;
	for (i = 0; i < bins; i++) {
		if (!bin[i])
			continue;
		height = 1.5 + (BAR_HEIGHT - 1.5) * bin[i] / highest;
		fprintf(f,
			"<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
			"height=\"%.1f\"/>\n",
			r->map == r->block ? "whole" : "small", PLOT_LEFT + i * step + 0.5,
			base - height, step - 1, height);
	}
	fprintf(f, "<line class=\"base\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>\n",
		PLOT_LEFT, base, PLOT_RIGHT, base);
	if (!r->stalls.count)
		return;
	median = place(axis, stalls_quantile(&r->stalls, 500));
	fprintf(f, "<line class=\"median\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
		median, base - BAR_HEIGHT - 4, median, base + 4);

	stalls_format(p50, sizeof(p50), stalls_quantile(&r->stalls, 500));
	stalls_format(p99, sizeof(p99), stalls_quantile(&r->stalls, 990));
	stalls_format(max, sizeof(max), stalls_quantile(&r->stalls, 1000));
	snprintf(text, sizeof(text), "median %s of %zu stalls", p50, r->stalls.count);
	label(f, "name", PLOT_RIGHT + 16, base - 18, text);
	snprintf(text, sizeof(text), "p99 %s, longest %s", p99, max);
	label(f, "soft", PLOT_RIGHT + 16, base - 2, text);
}

static void ticks(FILE *f, const struct axis *axis, double top, double bottom)
{
	static const char *const name[] = { "1 us",   "10 us", "100 us", "1 ms", "10 ms",
					    "100 ms", "1 s",   "10 s",	 "100 s" };
	double x;
	int i;

	for (i = axis->from; i <= axis->to; i++) {
		x = place(axis, pow(10, i));
		fprintf(f,
			"<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
			x, top, x, bottom);
		label(f, "soft mid", x, bottom + 17, name[i]);
	}
}

static double panel(FILE *f, const struct job *job, const struct result *result, unsigned int count,
		    const struct setting *setting, const struct axis *axis, bool link, double y)
{
	double ratio = report_ratio(job, result, count, link);
	char text[96], what[40];
	unsigned int rows = 0, i;
	struct job any = { .link = true };

	for (i = 0; i < count; i++)
		rows += job[i].link == link && result[i].stalls.us;
	if (!rows)
		return y;
	report_link(what, sizeof(what), &any, setting);
	if (link)
		snprintf(text, sizeof(text), "Contents come over a link of %s round trip", what);
	else
		snprintf(text, sizeof(text), "Contents come from a local file, in the page cache");
	label(f, "panel", 24, y, text);
	if (ratio > 1) {
		snprintf(text, sizeof(text), "median %.*f times shorter in 4 KiB than in 2 MiB",
			 ratio < 10, ratio);
		label(f, "soft right", WIDTH - 24, y, text);
	}
	y += 10;
	ticks(f, axis, y, y + rows * ROW + 6);
	for (i = 0; i < count; i++) {
		if (job[i].link != link || !result[i].stalls.us)
			continue;
		y += ROW;
		row(f, &job[i], &result[i], setting, axis, y);
	}
	return y + AXIS + PANEL_GAP;
}

static struct axis choose_axis(const struct result *result, unsigned int count)
{
	struct axis axis = { 0, 3 };
	unsigned int i;
	double max;

	for (i = 0; i < count; i++) {
		max = stalls_quantile(&result[i].stalls, 1000);
		while (axis.to < 8 && max > pow(10, axis.to))
			axis.to++;
	}
	return axis;
}

int report_svg(const char *path, const struct job *job, const struct result *result,
	       unsigned int count, const struct setting *setting)
{
	struct axis axis = choose_axis(result, count);
	FILE *f = fopen(path, "we");
	unsigned int rows[2] = { 0 }, i;
	double height = TOP, y;
	char text[200];
	int rc;

	if (!f)
		return -errno;
	for (i = 0; i < count; i++)
		rows[job[i].link] += !!result[i].stalls.us;
	for (i = 0; i < 2; i++)
		height += rows[i] ? rows[i] * ROW + 10 + AXIS + PANEL_GAP : 0;
	height -= PANEL_GAP - 16;

	fprintf(f,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%.0f\" "
		"viewBox=\"0 0 %d "
		"%.0f\" role=\"img\" aria-label=\"Distributions of guest stalls\">\n",
		WIDTH, height, WIDTH, height);
	style(f);
	fprintf(f, "<rect class=\"bg\" width=\"%d\" height=\"%.0f\"/>\n", WIDTH, height);
	label(f, "title", 24, 38, "How long a guest waits for a page that is not there yet");
	snprintf(text, sizeof(text),
		 "%s%s, started at once on %llu MiB whose contents are still elsewhere. Bars: how "
		 "many stalls were that long, each row by itself.",
		 setting->model ? "On a MODEL of another kernel: " : "",
		 setting->kvm ? "KVM guest of two CPUs" : "Two threads in place of a guest",
		 (unsigned long long)setting->length >> 20);
	label(f, "soft", 24, 60, text);
	fputs("<rect class=\"small\" x=\"24\" y=\"71\" width=\"12\" height=\"12\"/>\n"
	      "<rect class=\"whole\" x=\"264\" y=\"71\" width=\"12\" height=\"12\"/>\n",
	      f);
	label(f, "soft", 42, 81, "memory is mapped 4 KiB at a time");
	label(f, "soft", 282, 81, "memory is mapped in whole huge pages");
	y = panel(f, job, result, count, setting, &axis, false, TOP);
	panel(f, job, result, count, setting, &axis, true, y);
	fputs("</svg>\n", f);
	rc = ferror(f) ? -EIO : 0;
	if (fclose(f) && !rc)
		rc = -errno;
	return rc;
}
