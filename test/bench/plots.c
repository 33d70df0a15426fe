/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The charts: distributions of waits, throughput by number of touchers, ratios
 */
#include <math.h>
#include <string.h>

#include "page.h"

#define SHARE_MIN 1e-3 /* share of waits at the lower end of the axis */

static double bin_end(unsigned int bin)
{
	return pow(10, (double)(bin + 1) / PER_DECADE - 1);
}

/* The decades that hold all waits of a bench. */
static void span(const struct bench *b, double *min, double *max)
{
	*min = 1e9;
	*max = 1;
	for (size_t i = 0; i < curves_count(); i++) {
		const struct curve *c = curve_at(i);

		for (unsigned int bin = 0; c->bench == b && bin < BINS; bin++) {
			if (!c->bin[bin])
				continue;
			*min = fmin(*min, bin_end(bin) / pow(10, 1.0 / PER_DECADE));
			*max = fmax(*max, bin_end(bin));
		}
	}
	*min = pow(10, floor(log10(*min) + 1e-6));
	*max = pow(10, ceil(log10(*max) - 1e-6));
}

/* The share of waits that were longer than a given time. */
static void curve_path(FILE *f, const struct plot *p, const struct curve *c, unsigned int nth)
{
	uint64_t longer = c->count;

	fprintf(f, "<path class=\"line c%u\" d=\"M%.1f %.1f", nth % COLOURS, p->left, p->top);
	for (unsigned int bin = 0; bin < BINS && longer; bin++) {
		double share;

		longer -= c->bin[bin];
		share = (double)longer / (double)c->count;
		if (bin_end(bin) < p->x_min)
			continue;
		fprintf(f, "L%.1f %.1f", plot_x(p, bin_end(bin)),
			plot_y(p, share < SHARE_MIN ? SHARE_MIN : share));
		if (share < SHARE_MIN)
			break;
	}
	fputs("\"/>\n", f);
}

void plot_curves(FILE *f, const struct bench *b)
{
	struct plot p = { .width = 640,
			  .height = 300,
			  .left = 56,
			  .right = 500,
			  .top = 52,
			  .bottom = 256,
			  .y_min = SHARE_MIN,
			  .y_max = 1,
			  .x_log = true,
			  .y_log = true };
	unsigned int nth = 0;
	char title[160];

	span(b, &p.x_min, &p.x_max);
	snprintf(title, sizeof(title), "%s: %s", b->name, b->what);
	plot_open(f, &p, title);
	plot_axes(f, &p, "waits, us", "share of waits that were longer");
	for (size_t i = 0; i < curves_count(); i++) {
		const struct curve *c = curve_at(i);

		if (c->bench != b)
			continue;
		curve_path(f, &p, c, nth);
		plot_key(f, &p, nth++, c->who);
	}
	plot_close(f);
}

static const char *const servers[] = {
	"libhgm",	"raw-spin",   "raw-poll",	"raw-batch",
	"model-single", "model-pool", "model-prefault", "libhgm-fill",
};
static const unsigned int touchers[] = { 2, 8, 16, 32 };

static const struct bench *touch_bench(unsigned int count, const char *order)
{
	char name[32];

	snprintf(name, sizeof(name), "touch-%u-%s", count, order);
	for (const struct bench *b = touch_benches; b->name; b++)
		if (!strcmp(b->name, name))
			return b;
	return NULL;
}

void plot_touchers(FILE *f, const char *order)
{
	struct plot p = { .width = 640,
			  .height = 300,
			  .left = 56,
			  .right = 500,
			  .top = 52,
			  .bottom = 256,
			  .x_min = 0,
			  .x_max = 34,
			  .y_min = 1e9,
			  .y_max = 1,
			  .y_log = true };
	unsigned int nth, at, points = 0;
	char title[80];

	for (nth = 0; nth < COUNT(servers); nth++)
		for (at = 0; at < COUNT(touchers); at++) {
			const struct bench *b = touch_bench(touchers[at], order);
			double rate = b ? figure(b, servers[nth], "rate") : NAN;

			points += !isnan(rate);
			p.y_min = fmin(p.y_min, rate); /* fmin() and fmax() ignore NAN */
			p.y_max = fmax(p.y_max, rate);
		}
	if (!points)
		return;
	p.y_min = pow(10, floor(log10(p.y_min)));
	p.y_max = pow(10, ceil(log10(p.y_max)));
	snprintf(title, sizeof(title), "Throughput against touchers, %s", order);
	plot_open(f, &p, title);
	plot_axes(f, &p, "touchers", "faults/s");
	for (nth = 0; nth < COUNT(servers); nth++) {
		char command = 'M';

		fprintf(f, "<path class=\"line c%u\" d=\"", nth % COLOURS);
		for (at = 0; at < COUNT(touchers); at++) {
			const struct bench *b = touch_bench(touchers[at], order);
			double rate = b ? figure(b, servers[nth], "rate") : NAN;

			if (isnan(rate))
				continue;
			fprintf(f, "%c%.1f %.1f", command, plot_x(&p, touchers[at]),
				plot_y(&p, rate));
			command = 'L';
		}
		fputs("\"/>\n", f);
		plot_key(f, &p, nth, servers[nth]);
	}
	plot_close(f);
}

/* How many times better than the baseline a ratio, or a limit of the ratio, is. */
static double times_better(const struct row *r, double ratio)
{
	return r->better == LESS ? 1 / ratio : ratio;
}

#define BAR 20

static void ratio_bar(FILE *f, const struct plot *p, const struct row *r, double y)
{
	double is = times_better(r, r->ratio), from = plot_x(p, fmin(is, 1)),
	       to = plot_x(p, fmax(is, 1));
	const struct limit *l;
	bool missed = false;
	char text[96];

	plot_text(f, "soft right", p->left - 8, y + 12, r->name);
	for (unsigned int nth = 0; (l = limit_of(r, nth)); nth++) {
		if (!l->ratio || isnan(l->target))
			continue;
		missed |= l->most ? r->ratio > l->target : r->ratio < l->target;
		plot_line(f, "target", plot_x(p, times_better(r, l->target)), y,
			  plot_x(p, times_better(r, l->target)), y + BAR - 3);
	}
	fprintf(f, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"/>\n",
		missed ? "bad" : "good", from, y + 3, fmax(to - from, 1), BAR - 8);
	snprintf(text, sizeof(text), "%.3g %s beside %.3g of %s", r->middle, r->unit,
		 r->base_middle, r->base_name);
	plot_text(f, "soft", p->right + 14, y + 12, text);
}

void plot_ratios(FILE *f)
{
	struct plot p = { .width = 980,
			  .left = 230,
			  .right = 680,
			  .top = 52,
			  .x_min = 0.1,
			  .x_max = 100,
			  .x_log = true,
			  .y_max = 1 };
	double y = p.top + 4;

	p.bottom = y + BAR * (double)rows_count();
	p.height = p.bottom + 44;
	plot_open(f, &p, "Each row beside its baseline");
	for (int power = -1; power <= 2; power++) {
		double tick = pow(10, power);
		char text[24];

		snprintf(text, sizeof(text), "%gx", tick);
		plot_line(f, "grid", plot_x(&p, tick), p.top, plot_x(&p, tick), p.bottom);
		plot_text(f, "soft mid", plot_x(&p, tick), p.bottom + 16, text);
	}
	plot_line(f, "base", plot_x(&p, 1), p.top, plot_x(&p, 1), p.bottom);
	plot_text(f, "soft mid", plot_x(&p, 1), p.bottom + 34,
		  "worse than the baseline | better; the mark is the target");
	for (size_t i = 0; i < rows_count(); i++, y += BAR)
		ratio_bar(f, &p, row_at(i), y);
	plot_close(f);
}
