/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Output of the rows for programs
 */
#include <errno.h>
#include <math.h>

#include "bench.h"

static void string(FILE *f, const char *text)
{
	fputc('"', f);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', f);
		fputc(*text, f);
	}
	fputc('"', f);
}

static void number(FILE *f, double value)
{
	if (isfinite(value))
		fprintf(f, "%.9g", value);
	else
		fputs("null", f);
}

static void member(FILE *f, const char *name, double value)
{
	fprintf(f, ", \"%s\": ", name);
	number(f, value);
}

static void write_row(FILE *f, const struct row *r)
{
	fputs("    {\"name\": ", f);
	string(f, r->name);
	member(f, "value", r->middle);
	fputs(", \"unit\": ", f);
	string(f, r->unit);
	fputs(", \"baseline\": ", f);
	string(f, r->base_name);
	member(f, "baseline_value", r->base_middle);
	member(f, "ratio", r->ratio);
	member(f, "ratio_min", r->ratio_min);
	member(f, "ratio_max", r->ratio_max);
	member(f, "load", r->load);
	fputs(", \"rounds\": [", f);
	for (unsigned int i = 0; i < r->rounds; i++) {
		fputs(i ? ", [" : "[", f);
		number(f, r->value[i]);
		fputs(", ", f);
		number(f, r->base[i]);
		fputc(']', f);
	}
	fputs("]}", f);
}

int json_write(const char *path)
{
	const struct machine *m = machine();
	FILE *f = fopen(path, "we");
	bool failed;

	if (!f)
		return -errno;
	fputs("{\n  \"machine\": {\"kernel\": ", f);
	string(f, m->kernel);
	fputs(", \"cpu\": ", f);
	string(f, m->cpu);
	fprintf(f, ", \"cpus\": %u, \"memory_gib\": %.1f, \"quick\": %s},\n  \"rows\": [\n",
		m->cpus, m->memory_gib, setting.quick ? "true" : "false");
	for (size_t i = 0; i < rows_count(); i++) {
		fputs(i ? ",\n" : "", f);
		write_row(f, row_at(i));
	}
	fputs("\n  ]\n}\n", f);
	failed = ferror(f);
	return fclose(f) || failed ? -EIO : 0;
}
