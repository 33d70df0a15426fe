/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The common elements of all charts
 */
#include <math.h>

#include "page.h"

static double part(double value, double min, double max, bool logarithmic)
{
	double at = logarithmic ? log(value / min) / log(max / min) : (value - min) / (max - min);

	return at < 0 ? 0 : at > 1 ? 1 : at;
}

double plot_x(const struct plot *p, double x)
{
	return p->left + part(x, p->x_min, p->x_max, p->x_log) * (p->right - p->left);
}

double plot_y(const struct plot *p, double y)
{
	return p->bottom - part(y, p->y_min, p->y_max, p->y_log) * (p->bottom - p->top);
}

void plot_text(FILE *f, const char *class, double x, double y, const char *text)
{
	fprintf(f, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">", class, x, y);
	for (; *text; text++) {
		if (*text == '<')
			fputs("&lt;", f);
		else if (*text == '>')
			fputs("&gt;", f);
		else if (*text == '&')
			fputs("&amp;", f);
		else
			fputc(*text, f);
	}
	fputs("</text>\n", f);
}

void plot_line(FILE *f, const char *class, double x1, double y1, double x2, double y2)
{
	fprintf(f, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", class,
		x1, y1, x2, y2);
}

void plot_open(FILE *f, const struct plot *p, const char *title)
{
	fprintf(f, "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\">\n", p->width, p->height);
	plot_text(f, "title", 8, 18, title);
}

void plot_close(FILE *f)
{
	fputs("</svg>\n", f);
}

static double step_of(double span)
{
	double power = pow(10, floor(log10(span)));

	return span / power > 5 ? 2 * power : span / power > 2 ? power : power / 2;
}

static void label(char *text, size_t size, double value)
{
	if (value >= 1e6)
		snprintf(text, size, "%.3gM", value / 1e6);
	else if (value >= 1e4)
		snprintf(text, size, "%.3gk", value / 1e3);
	else
		snprintf(text, size, "%.3g", value);
}

static void ticks(FILE *f, const struct plot *p, bool along_x)
{
	double min = along_x ? p->x_min : p->y_min, max = along_x ? p->x_max : p->y_max;
	bool logarithmic = along_x ? p->x_log : p->y_log;
	double step = step_of(max - min), value = logarithmic ? min : ceil(min / step) * step;
	char text[24];

	while (value <= max * 1.0001) {
		label(text, sizeof(text), value);
		if (along_x) {
			plot_line(f, "grid", plot_x(p, value), p->top, plot_x(p, value), p->bottom);
			plot_text(f, "soft mid", plot_x(p, value), p->bottom + 16, text);
		} else {
			plot_line(f, "grid", p->left, plot_y(p, value), p->right, plot_y(p, value));
			plot_text(f, "soft right", p->left - 6, plot_y(p, value) + 4, text);
		}
		value = logarithmic ? value * 10 : value + step;
	}
}

void plot_axes(FILE *f, const struct plot *p, const char *x_name, const char *y_name)
{
	ticks(f, p, true);
	ticks(f, p, false);
	plot_text(f, "soft right", p->right, p->bottom + 32, x_name);
	plot_text(f, "soft", 8, p->top - 8, y_name);
}

void plot_key(FILE *f, const struct plot *p, unsigned int nth, const char *name)
{
	double y = p->top + 10 + 18 * nth;
	char class[16];

	snprintf(class, sizeof(class), "line c%u", nth % COLOURS);
	plot_line(f, class, p->right + 14, y - 4, p->right + 34, y - 4);
	plot_text(f, "soft", p->right + 40, y, name);
}
