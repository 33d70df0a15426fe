/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Charts on the page: each is one <svg> element
 */
#ifndef HGM_BENCH_PAGE_H
#define HGM_BENCH_PAGE_H

#include "bench.h"

struct plot {
	double width, height;
	double left, right, top, bottom; /* of the plotting area */
	double x_min, x_max, y_min, y_max;
	bool x_log, y_log;
};

double plot_x(const struct plot *p, double x);
double plot_y(const struct plot *p, double y);

void plot_open(FILE *f, const struct plot *p, const char *title);
void plot_close(FILE *f);
void plot_text(FILE *f, const char *class, double x, double y, const char *text);
void plot_line(FILE *f, const char *class, double x1, double y1, double x2, double y2);

/* Ticks at powers of ten, or at a few round numbers. */
void plot_axes(FILE *f, const struct plot *p, const char *x_name, const char *y_name);

/* The key: names and colours of lines, one below the other at the right. */
void plot_key(FILE *f, const struct plot *p, unsigned int nth, const char *name);

void plot_curves(FILE *f, const struct bench *b);
void plot_touchers(FILE *f, const char *order);
void plot_ratios(FILE *f);

#define COLOURS 8

#endif
